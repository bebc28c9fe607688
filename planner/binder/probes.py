"""TEMPORAL PROBE JOIN: an as-of join at several offsets from the time of each left row. Knows no operator."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
from sqlglot import exp

from millrace.operators.expressions.tree import Call, Column, Expression, Literal
from millrace.operators.functions import types as sql
from millrace.planner.binder.errors import invalid
from millrace.planner.binder.joins_on_time import event_times, one_match
from millrace.planner.binder.scalars import ScalarBinder
from millrace.planner.binder.scope import Member, Scope
from millrace.planner.dialect import nodes
from millrace.planner.dialect.nodes import position_of
from millrace.planner.expressions import column, columns_of, conjuncts, remap
from millrace.planner.join_conditions import joined
from millrace.planner.logical import Project, Relation
from millrace.planner.table_functions import expanded
from millrace.planner.timed_joins import Asof

PER_MS = {"s": 0.001, "ms": 1, "us": 1000, "ns": 1_000_000}


def bind_probe(left: Scope, right: Scope, node: exp.Join) -> Scope:
    """Each left row once for each offset, with the right row that is last at or before its time plus that offset.

    Columns offset_ms and probe_ts (that time) stand behind those of both sides.
    """
    probe = node.args["probe"]
    names = {(m.alias or "").casefold() for m in left.members}
    for alias in (right.members[0].alias, probe.args["alias"].name if probe.args.get("alias") else None):
        if alias and alias.casefold() in names:
            raise invalid(node, "MR1113", f"two relations are named {alias}", "give one an alias")
        names.add((alias or "").casefold())
    times = event_times(left.relation, right.relation, node, "TEMPORAL PROBE JOIN")
    _check_times(left, right, times, probe)
    offsets = sorted(set(probe.args["offsets"]))
    width = len(left.relation.schema)
    probed = _probed(left, times[0], offsets, probe)
    conditions = _conditions(left, right, node)
    wide = len(probed.schema)
    moved = [_behind(c, width, wide) for c in conditions]
    form = Asof(wide - 1, times[1], event=times[0], reach=(offsets[0], offsets[-1]))
    relation = one_match(joined(probed, right.relation, "left", moved, position_of(node)), form, node)
    keys = [right.resolve([key.name], key) for key in node.args.get("using") or []]
    of_both = {key.index for key in keys if isinstance(key, Column)}
    members = [
        replace(m, hidden=m.hidden | (of_both & set(range(m.start, m.start + m.count)))).shifted(wide)
        for m in right.members
    ]
    alias = probe.args.get("alias")
    members.append(Member(None if alias is None else alias.name, width, 2))
    return Scope(relation, (*left.members, *members), left.outer)


def _check_times(left: Scope, right: Scope, times: tuple[int, int], probe: nodes.Probe) -> None:
    """Raises Invalid MR1142 where TIMESTAMPS names other columns than the event times."""
    said = probe.args.get("times") or []
    for scope, time, node in zip((left, right), times, said, strict=False):
        value = ScalarBinder(scope, "TIMESTAMPS").bind(node)
        if not isinstance(value, Column) or value.index != time:
            known = scope.relation.schema.names[time]
            raise invalid(
                node, "MR1142", "TIMESTAMPS takes the event times of both sides", f"here that is {known}"
            )


def _probed(left: Scope, time: int, offsets: list[int], probe: nodes.Probe) -> Relation:
    """The left rows once for each offset, with offset_ms and probe_ts."""
    binder = ScalarBinder(left, "TEMPORAL PROBE JOIN")
    schema = left.relation.schema
    width = len(schema)
    own = column(schema, time)
    whole = sql.is_integer(own.type)
    scale = PER_MS[left.relation.time_unit] if whole else 1000
    steps: list[Expression] = [
        Literal(int(us // 1000 * scale), own.type) if whole else Literal(us, sql.INTERVAL) for us in offsets
    ]
    arrays: list[Expression] = []
    for values in ([Literal(us // 1000, sql.BIGINT) for us in offsets], steps):
        arrays.append(Call("array", tuple(values), pa.list_(values[0].type)))
    made = pa.schema([pa.field("offset_ms", sql.BIGINT), pa.field("_offset", steps[0].type)])
    each = expanded(left.relation, "unnest", tuple(arrays), made, position=position_of(probe))
    at = binder.call("+", [own, column(each.schema, width + 1)], probe)
    at = binder.coerce(at, own.type, probe, "the time of a probe")
    kept = [column(each.schema, i) for i in range(width + 1)]
    return Project(each, (*kept, at), (*schema.names, "offset_ms", "probe_ts"))


def _conditions(left: Scope, right: Scope, node: exp.Join) -> list[Expression]:
    """What must hold of both sides, as expressions over their columns."""
    width = len(left.relation.schema)
    moved = [m.shifted(width) for m in right.members]
    relation = joined(left.relation, right.relation, "cross", [])
    both = Scope(relation, (*left.members, *moved), left.outer)
    binder = ScalarBinder(both, "ON")
    if node.args.get("on") is not None:
        return conjuncts(binder.condition(node.args["on"]))
    found = []
    for key in node.args["using"]:
        a, b = left.resolve([key.name], key), right.resolve([key.name], key)
        assert isinstance(a, Column) and isinstance(b, Column)
        found.append(binder.call("=", [a, column(relation.schema, b.index + width)], key))
    return found


def _behind(condition: Expression, width: int, wide: int) -> Expression:
    """The condition where the right side's columns begin at `wide` instead of `width`."""
    return remap(condition, {c: c if c < width else c - width + wide for c in columns_of([condition])})
