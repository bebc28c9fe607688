"""The operator specs of joins on time. Chooses no form."""

from __future__ import annotations

from millrace.operators.expressions.tree import Column
from millrace.operators.joins.asof import AsofJoin
from millrace.operators.joins.interval import IntervalJoin, WindowJoin
from millrace.operators.joins.temporal import LatestJoin
from millrace.operators.spec import OperatorSpec
from millrace.planner.logical import Project
from millrace.planner.timed_joins import Asof, Interval, Latest, SameWindow, TimedJoin


def timed_join_spec(node: TimedJoin, shown: Project | None = None) -> OperatorSpec:
    """The operator for a join on time, with only the columns that a projection of plain columns shows."""
    outputs = tuple(range(len(node.schema)))
    if shown is not None:
        outputs = tuple(e.index for e in shown.expressions if isinstance(e, Column))
    names = tuple(node.schema.names) if shown is None else shown.names
    left, right = node.left.schema, node.right.schema
    units = (node.left.time_unit, node.right.time_unit)
    match node.form:
        case Interval() as form:
            return IntervalJoin(
                left,
                right,
                node.kind,
                node.equal,
                form.times(),
                form.lower,
                form.upper,
                outputs,
                node.condition,
                form.open,
                units,
                names,
            )
        case Asof() as form:
            return AsofJoin(
                left,
                right,
                node.kind,
                node.equal,
                form.times(),
                outputs,
                form.direction,
                form.strict,
                form.tolerance,
                form.changes,
                form.versions,
                units,
                names,
                form.event,
                form.reach,
            )
        case Latest():
            return LatestJoin(left, right, node.kind, node.equal, outputs, names)
        case SameWindow() as form:
            return WindowJoin(
                left, right, node.kind, node.equal, form.times(), outputs, node.condition, units, names
            )
