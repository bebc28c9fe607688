"""What joins say of time: WITHIN. Knows no operator."""

from __future__ import annotations

from sqlglot import exp

from millrace.operators.expressions.tree import Expression, Literal
from millrace.operators.functions import types as sql
from millrace.planner.binder.errors import invalid
from millrace.planner.binder.scalars import ScalarBinder
from millrace.planner.binder.scope import Scope
from millrace.planner.expressions import column


def within_bounds(left: Scope, right: Scope, both: Scope, node: exp.Join) -> list[Expression]:
    """The conditions that WITHIN stands for: the right time from `before` to `after` around the left one."""
    within = node.args["within"]
    width = len(left.relation.schema)
    times = [left.relation.event_time, right.relation.event_time]
    if times[0] is None or times[1] is None:
        raise invalid(
            within,
            "MR1325",
            f"WITHIN needs an event time on both sides, and the {'left' if times[0] is None else 'right'} one has none",
            "declare it on the source: WATERMARK FOR ts AS ts - INTERVAL '5' SECOND",
        )
    schema = both.relation.schema
    a, b = column(schema, times[0]), column(schema, width + times[1])
    binder = ScalarBinder(both, "WITHIN")
    bounds = [Literal(int(within.args[name]), sql.INTERVAL) for name in ("before", "after")]
    return [
        binder.call(">=", [b, binder.call("-", [a, bounds[0]], within)], within),
        binder.call("<=", [b, binder.call("+", [a, bounds[1]], within)], within),
    ]
