"""An operator that takes columns by position needs no projection in front that only picks columns."""

from __future__ import annotations

from dataclasses import replace

from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.expressions.tree import Column
from millrace.planner.logical import Aggregate, Filter, Project, Relation, WindowedAggregate
from millrace.planner.rules.traversal import bottom_up


def read_through_projects(relation: Relation) -> Relation:
    """Aggregates over a projection of plain columns read below it, unless it shares its operator with a filter."""
    return bottom_up(relation, _through)


def _through(node: Relation) -> Relation:
    if not isinstance(node, Aggregate | WindowedAggregate) or not isinstance(node.input, Project):
        return node
    if node.late_table is not None:
        return node
    project = node.input
    places = [e.index for e in project.expressions if isinstance(e, Column)]
    if len(places) < len(project.expressions) or isinstance(project.input, Filter):
        return node
    moved = replace(
        node,
        input=project.input,
        keys=tuple(places[k] for k in node.keys),
        calls=tuple(_move(call, places) for call in node.calls),
    )
    if isinstance(moved, WindowedAggregate) and moved.time is not None:
        moved = replace(moved, time=places[moved.time])
    return moved if moved.schema.equals(node.schema) else node


def _move(call: AggregateCall, places: list[int]) -> AggregateCall:
    return replace(
        call,
        arguments=tuple(places[a] for a in call.arguments),
        filter=None if call.filter is None else places[call.filter],
        order_by=tuple((places[p], descending, first) for p, descending, first in call.order_by),
    )
