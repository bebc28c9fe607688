"""Joins in FROM: both sides in one scope, the condition split into equal columns and the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlglot import exp

from millrace.operators.expressions.evaluate import is_deterministic
from millrace.operators.expressions.tree import Call, Column, Expression
from millrace.operators.sink import Changelog
from millrace.planner.binder.errors import invalid, unsupported
from millrace.planner.binder.joins_on_time import asof_join, temporal_join, within_bounds
from millrace.planner.binder.scalars import ScalarBinder
from millrace.planner.binder.scope import Member, Scope
from millrace.planner.dialect import nodes
from millrace.planner.dialect.nodes import position_of
from millrace.planner.expressions import column, columns_of, conjuncts
from millrace.planner.join_conditions import joined
from millrace.planner.logical import Join, Project, Relation
from millrace.planner.rules.to_timed_join import to_timed_join
from millrace.planner.table_lookup import TableLookup


def bind_join(left: Scope, right: Scope, node: exp.Join) -> Scope:
    """Both sides joined. What no operator executes yet is refused when the plan is made."""
    width = len(left.relation.schema)
    kind = str(node.args.get("kind") or node.args.get("side") or "INNER").lower()
    for member in right.members:
        if member.alias and any((m.alias or "").casefold() == member.alias.casefold() for m in left.members):
            raise invalid(node, "MR1113", f"two relations are named {member.alias}", "give one an alias")
    moved = tuple(m.shifted(width) for m in right.members)
    both = Scope(Join(left.relation, right.relation, "cross", ()), (*left.members, *moved))
    conditions: list[Expression] = []
    using = [u.name for u in node.args.get("using") or []]
    if node.args.get("natural"):
        using = _common_names(left, right, node)
    if using:
        both, conditions = _using(left, right, both, using, kind, node)
    elif node.args.get("on") is not None:
        conditions = conjuncts(ScalarBinder(both, "ON").condition(node.args["on"]))
    elif kind != "cross" and not node.args.get("asof"):
        raise invalid(
            node, "MR1114", "a join needs ON or USING", "write CROSS JOIN where every pair is meant"
        )
    if node.args.get("within"):
        conditions += within_bounds(left, right, both, node)
    for condition in conditions:
        if not is_deterministic(condition):
            raise invalid(node, "MR1137", "the condition of a join must give the same for the same rows")
    if node.args.get("method") == "ASOF":
        return Scope(asof_join(left, right, both, conditions, node), both.members)
    if node.this.args.get("version") is not None and not looks_up(node.this):
        return Scope(temporal_join(left, right, kind, conditions, node), both.members)
    relation = joined(left.relation, right.relation, kind, conditions, position_of(node))
    if looks_up(node.this):
        return Scope(_lookup(relation, node), both.members)
    if using and kind == "full":
        return _merged(Scope(relation, both.members), len(using), width, conditions)
    return Scope(to_timed_join(relation), left.members if kind in ("semi", "anti") else both.members)


def _using(
    left: Scope, right: Scope, both: Scope, names: list[str], kind: str, node: exp.Join
) -> tuple[Scope, list[Expression]]:
    width = len(left.relation.schema)
    binder = ScalarBinder(both, "USING")
    conditions: list[Expression] = []
    hidden: set[int] = set()
    for name in names:
        a, b = left.resolve([name], node), right.resolve([name], node)
        assert isinstance(a, Column) and isinstance(b, Column)
        hidden |= {a.index if kind == "right" else b.index + width} | ({a.index} if kind == "full" else set())
        conditions.append(binder.call("=", [a, column(both.relation.schema, b.index + width)], node))
    members = tuple(
        replace(m, hidden=m.hidden | {h for h in hidden if m.start <= h < m.start + m.count})
        for m in both.members
    )
    return Scope(both.relation, members), conditions


def looks_up(node: exp.Expr) -> bool:
    """Whether a table is read FOR SYSTEM_TIME AS OF PROCTIME(): as it is when a row of the other side comes."""
    version = node.args.get("version")
    return version is not None and isinstance(version.this, nodes.Call) and version.this.this == "proctime"


def _lookup(relation: Relation, node: exp.Join) -> Relation:
    if isinstance(relation, Project):
        return replace(relation, input=_lookup(relation.input, node))
    assert isinstance(relation, Join)
    if relation.kind not in ("inner", "left") or relation.null_equal:
        raise unsupported(
            node,
            "MR1943",
            f"a table as of now can not be joined by {relation.kind.upper()} JOIN",
            "use JOIN or LEFT JOIN with equal columns",
        )
    if relation.left.changelog is not Changelog.APPEND:
        raise unsupported(
            node,
            "MR1943",
            "rows that may be taken back can not look up a table as of now",
            "leave FOR SYSTEM_TIME out: a regular join follows the table's changes",
        )
    return TableLookup(
        relation.left, relation.right, relation.kind, relation.equal, relation.condition, relation.position
    )


def _common_names(left: Scope, right: Scope, node: exp.Join) -> list[str]:
    """The columns that NATURAL JOIN compares."""
    of_right = {c.name.casefold() for c in right.star(None, node)}
    names = [c.name for c in left.star(None, node) if c.name.casefold() in of_right]
    if not names:
        raise invalid(node, "MR1114", "NATURAL JOIN needs columns of equal names", "write JOIN … ON")
    return names


def _merged(scope: Scope, count: int, width: int, conditions: Sequence[Expression]) -> Scope:
    """After FULL JOIN … USING the columns have a value from whichever side has one; they come first."""
    binder = ScalarBinder(scope, "USING")
    schema = scope.relation.schema
    pairs = [c for c in conditions[:count] if isinstance(c, Call)]
    merged = [binder.call("coalesce", c.arguments, None) for c in pairs]
    names = [schema.names[min(columns_of([c]))] for c in pairs]
    every = [column(schema, i) for i in range(len(schema))]
    relation = Project(scope.relation, (*every, *merged), (*schema.names, *names))
    return Scope(relation, (Member(None, len(schema), count), *scope.members))
