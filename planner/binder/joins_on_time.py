"""What joins say of time: WITHIN, ASOF with its MATCH_CONDITION, and FOR SYSTEM_TIME AS OF. Knows no operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlglot import exp

from millrace.operators.expressions.tree import Call, Column, Expression, Literal
from millrace.operators.functions import types as sql
from millrace.operators.sink import Changelog
from millrace.planner.binder.errors import invalid, unsupported
from millrace.planner.binder.scalars import ScalarBinder
from millrace.planner.binder.scope import Scope
from millrace.planner.binder.windows import CLOCK_FUNCTIONS, is_processing_time
from millrace.planner.dialect import nodes
from millrace.planner.expressions import column, conjuncts
from millrace.planner.join_conditions import joined
from millrace.planner.logical import Filter, Join, Project, Relation
from millrace.planner.rules.to_timed_join import Bounds
from millrace.planner.timed_joins import Asof, Form, Latest, TimedJoin

_DECLARE = "declare it on the source: WATERMARK FOR ts AS ts - INTERVAL '5' SECOND"


def within_bounds(left: Scope, right: Scope, both: Scope, node: exp.Join) -> list[Expression]:
    """The conditions that WITHIN stands for: the right time from `before` to `after` around the left one."""
    within = node.args["within"]
    width = len(left.relation.schema)
    times = event_times(left.relation, right.relation, within, "WITHIN")
    schema = both.relation.schema
    a, b = column(schema, times[0]), column(schema, width + times[1])
    binder = ScalarBinder(both, "WITHIN")
    bounds = [Literal(int(within.args[name]), sql.INTERVAL) for name in ("before", "after")]
    return [
        binder.call(">=", [b, binder.call("-", [a, bounds[0]], within)], within),
        binder.call("<=", [b, binder.call("+", [a, bounds[1]], within)], within),
    ]


def asof_join(
    left: Scope, right: Scope, both: Scope, conditions: Sequence[Expression], node: exp.Join
) -> Relation:
    """An ASOF JOIN: equal columns, and one comparison of the times, in MATCH_CONDITION or among `conditions`."""
    match = node.args["asof"]
    times = event_times(left.relation, right.relation, node, "ASOF JOIN")
    bounds = Bounds.of(left.relation, right.relation)
    if bounds is None:
        raise invalid(node, "MR1327", "the times of an ASOF JOIN do not compare", "cast one in a subquery")
    binder = ScalarBinder(both, "MATCH_CONDITION")
    nearest = False
    said = list(conditions)
    for part in _parts(match.this):
        if isinstance(part, nodes.Call) and part.args["this"] == "nearest":
            _check_nearest([binder.bind(e) for e in part.expressions], times, len(left.relation.schema), part)
            nearest = True
        else:
            said += conjuncts(binder.condition(part))
    rest = [part for part in said if not bounds.take(part)]
    form = _asof_form(bounds, nearest, times, node)
    kind = "left" if node.args.get("side") == "LEFT" else "inner"
    return one_match(joined(left.relation, right.relation, kind, rest, nodes.position_of(node)), form, node)


def temporal_join(
    left: Scope, right: Scope, kind: str, conditions: Sequence[Expression], node: exp.Join
) -> Relation:
    """JOIN r FOR SYSTEM_TIME AS OF: the version of `r` at a time of the left row, or at its arrival."""
    version = node.this.args["version"]
    if kind not in ("inner", "left"):
        raise invalid(
            version,
            "MR1138",
            f"FOR SYSTEM_TIME AS OF can not be with a {kind.upper()} JOIN",
            "use INNER or LEFT",
        )
    time = ScalarBinder(left, "FOR SYSTEM_TIME AS OF").bind(version.this)
    form: Form
    if (isinstance(time, Call) and time.function in CLOCK_FUNCTIONS) or (
        isinstance(time, Column) and is_processing_time(left.relation, time.index)
    ):
        form = Latest(left.relation.event_time)
    else:
        times = event_times(left.relation, right.relation, version, "FOR SYSTEM_TIME AS OF")
        if not isinstance(time, Column) or time.index != times[0]:
            known = left.relation.schema.names[times[0]]
            raise invalid(
                version,
                "MR1138",
                "FOR SYSTEM_TIME AS OF takes the event time of the left side",
                f"that is {known}",
            )
        form = Asof(*times, versions=right.relation.changelog is not Changelog.APPEND)
    relation = joined(left.relation, right.relation, kind, conditions, nodes.position_of(node))
    return one_match(relation, form, node)


def sent_at_once(relation: Relation) -> Relation:
    """As-of joins of one query block so that they send rows at once and correct them later: EMIT CHANGES."""
    match relation:
        case Filter() | Project():
            return relation.with_inputs(sent_at_once(relation.input))
        case TimedJoin(form=Asof(versions=False) as form):
            return replace(relation, form=replace(form, changes=True))
    return relation


def one_match(relation: Relation, form: Form, node: exp.Join) -> Relation:
    """The join with a form in which a left row has one match."""
    if isinstance(relation, Project):
        return replace(relation, input=one_match(relation.input, form, node))
    assert isinstance(relation, Join)
    name = (
        "ASOF JOIN"
        if node.args.get("method")
        else "TEMPORAL PROBE JOIN"
        if node.args.get("probe")
        else "FOR SYSTEM_TIME AS OF"
    )
    if relation.condition is not None or relation.null_equal:
        raise unsupported(
            node,
            "MR1943",
            f"{name} takes equalities between the sides and its time, no other condition on both",
            "put what filters one side into a subquery, and what filters the result into WHERE",
        )
    if relation.left.changelog is not Changelog.APPEND:
        raise unsupported(
            node,
            "MR1943",
            f"{name} needs an append-only left side",
            "EMIT ON WINDOW CLOSE in the inner query",
        )
    _check_right(relation, form, name, node)
    kind = "inner" if relation.kind == "cross" else relation.kind
    return TimedJoin(relation.left, relation.right, kind, relation.equal, form, position=relation.position)


def _check_right(join: Join, form: Form, name: str, node: exp.Join) -> None:
    right = join.right
    if right.changelog is Changelog.APPEND:
        return
    if isinstance(form, Asof) and not form.versions:
        raise unsupported(
            node,
            "MR1943",
            "ASOF JOIN needs an append-only right side",
            "for the versions of a table write JOIN r FOR SYSTEM_TIME AS OF t.ts",
        )
    matched = {b for _, b in join.equal}
    if right.key is None or set(right.key) != matched:
        names = ", ".join(right.schema.names[k] for k in right.key or ())
        raise unsupported(
            node,
            "MR1943",
            f"{name} finds rows by the key of the right side, which is {names or 'not known'}",
            "join by exactly those columns" if names else "declare a PRIMARY KEY, or GROUP BY one",
        )


def _asof_form(bounds: Bounds, nearest: bool, times: tuple[int, int], node: exp.Join) -> Asof:
    """Which right row is asked for, from what is known of right time less left time."""
    lower, upper = bounds.lower, bounds.upper
    if nearest:
        tolerance = None if lower is None or upper is None else min(-lower[0] - lower[1], upper[0] - upper[1])
        if (lower is None) != (upper is None) or (
            lower is not None and upper is not None and (-lower[0], lower[1]) != (upper[0], upper[1])
        ):
            raise invalid(
                node,
                "MR1327",
                "the bound of NEAREST must be the same on both sides",
                "write both, with equal intervals",
            )
        return Asof(*times, "nearest", False, tolerance)
    if upper is not None and upper[0] == 0 and (lower is None or lower[0] < 0):
        return Asof(*times, "backward", upper[1], None if lower is None else -lower[0] - lower[1])
    if lower is not None and lower[0] == 0 and (upper is None or upper[0] > 0):
        return Asof(*times, "forward", lower[1], None if upper is None else upper[0] - upper[1])
    raise invalid(
        node,
        "MR1327",
        "an ASOF JOIN needs one comparison of the event times of both sides",
        "write MATCH_CONDITION(t.ts >= q.ts), and perhaps AND t.ts - q.ts <= INTERVAL '5' SECOND",
    )


def _parts(node: exp.Expr | None) -> list[exp.Expr]:
    if node is None:
        return []
    if isinstance(node, exp.Paren):
        return _parts(node.this)
    return [*_parts(node.this), *_parts(node.expression)] if isinstance(node, exp.And) else [node]


def _check_nearest(arguments: Sequence[Expression], times: tuple[int, int], width: int, node: object) -> None:
    places = {a.index for a in arguments if isinstance(a, Column)}
    if len(arguments) != 2 or places != {times[0], width + times[1]}:
        raise invalid(
            node, "MR1327", "NEAREST takes the event times of both sides", "write NEAREST(t.ts, q.ts)"
        )


def event_times(left: Relation, right: Relation, node: object, what: str) -> tuple[int, int]:
    """The event times of both sides. Raises Invalid MR1325."""
    if left.event_time is None or right.event_time is None:
        side = "left" if left.event_time is None else "right"
        raise invalid(
            node, "MR1325", f"{what} needs an event time on both sides, and the {side} one has none", _DECLARE
        )
    return left.event_time, right.event_time
