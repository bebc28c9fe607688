"""Rows given their windows and then grouped by these become one windowed aggregate, which copies no row."""

from __future__ import annotations

from dataclasses import dataclass

from millrace.operators.expressions.tree import Column, Expression, Literal
from millrace.planner.expressions import column, columns_of
from millrace.planner.logical import (
    Aggregate,
    AssignWindow,
    Filter,
    Project,
    Relation,
    WindowedAggregate,
)
from millrace.planner.rules.traversal import bottom_up
from millrace.planner.window_time import window_time_of


def fuse_windows(relation: Relation) -> Relation:
    """Aggregate over AssignWindow by both of its bounds, where nothing between them reads the bounds otherwise."""
    return bottom_up(relation, _fuse)


@dataclass(frozen=True, slots=True)
class _Lifted:
    """Windowed rows without their windows: `below` has the rows' columns at the places they had.

    `start`, `end` and `last` (window_time) are the places the window's columns had; `time` is that of time.
    """

    assign: AssignWindow
    below: Relation
    start: int | None
    end: int | None
    last: int | None
    time: int | None

    @property
    def own(self) -> set[int]:
        """Places that hold the window's columns and nothing in `below`."""
        return {place for place in (self.start, self.end, self.last) if place is not None}


def _fuse(node: Relation) -> Relation:
    if not isinstance(node, Aggregate):
        return node
    lifted = _lift(node.input)
    if lifted is None or lifted.start not in node.keys or lifted.end not in node.keys:
        return node
    used = {i for call in node.calls for i in (*call.arguments, *(o[0] for o in call.order_by))}
    used |= {call.filter for call in node.calls if call.filter is not None}
    if used & lifted.own:
        return node
    keys = tuple(k for k in node.keys if k not in lifted.own)
    title = dict(zip(node.keys, node.names, strict=False))
    fused = WindowedAggregate(
        lifted.below,
        lifted.time,
        lifted.assign.window,
        keys,
        node.calls,
        (*(title[k] for k in keys), title[lifted.start], title[lifted.end], *node.names[len(node.keys) :]),
        node.emission,
        (True, True),
        node.allowed_lateness,
        node.late_table,
        node.late_to_next,
    )
    return _in_order(node, fused, keys, lifted)


def _in_order(node: Aggregate, fused: WindowedAggregate, keys: tuple[int, ...], lifted: _Lifted) -> Relation:
    """The fused aggregate with its columns where the plain one had them."""
    schema = fused.schema
    end = column(schema, len(keys) + 1)
    values: list[Expression] = []
    time = None
    for at, key in enumerate(node.keys):
        if key == lifted.last:
            values.append(window_time_of(end, fused.time_unit))
            time = at
        elif key in lifted.own:
            values.append(column(schema, len(keys) + (key == lifted.end)))
        else:
            values.append(column(schema, keys.index(key)))
    values += [column(schema, len(keys) + 2 + i) for i in range(len(node.calls))]
    if len(values) == len(schema) and all(
        isinstance(v, Column) and v.index == i for i, v in enumerate(values)
    ):
        return fused
    return Project(fused, tuple(values), node.names, time)


def _lift(node: Relation) -> _Lifted | None:
    match node:
        case AssignWindow():
            width = len(node.input.schema)
            return _Lifted(node, node.input, width, width + 1, width + 2, node.time)
        case Filter():
            lifted = _lift(node.input)
            if lifted is None or columns_of([node.predicate]) & lifted.own:
                return None
            below = Filter(lifted.below, node.predicate)
            return _Lifted(lifted.assign, below, lifted.start, lifted.end, lifted.last, lifted.time)
        case Project():
            lifted = _lift(node.input)
            return None if lifted is None else _under(node, lifted)
    return None


def _under(node: Project, lifted: _Lifted) -> _Lifted | None:
    """The projection below the windows: what held a window's column holds NULL there, and time comes along."""
    values: list[Expression] = []
    names = list(node.names)
    places: dict[int, int] = {}
    for at, value in enumerate(node.expressions):
        if isinstance(value, Column) and value.index in lifted.own:
            if value.index in places:
                return None
            places[value.index] = at
            values.append(Literal(None, value.type))
        elif columns_of([value]) & lifted.own:
            return None
        else:
            values.append(value)
    time = None
    if lifted.time is not None:
        values.append(column(lifted.below.schema, lifted.time))
        names.append("_time")
        time = len(values) - 1

    def moved(place: int | None) -> int | None:
        return None if place is None else places.get(place)

    below = Project(lifted.below, tuple(values), tuple(names))
    return _Lifted(lifted.assign, below, moved(lifted.start), moved(lifted.end), moved(lifted.last), time)
