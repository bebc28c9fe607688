"""OVER windows, row buffers and rankings: calls collected in a block become nodes that add their columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.expressions.tree import Call, Column, Expression
from millrace.operators.over.frames import DEFAULT_FRAME, Frame, FrameUnit, needs_whole_partition
from millrace.operators.sink import Changelog
from millrace.operators.top.specs import sortable
from millrace.planner.binder.calls import Around, Order, PendingCall
from millrace.planner.binder.errors import invalid, located, unsupported
from millrace.planner.binder.grouping import place_calls
from millrace.planner.binder.windows import CLOCK_FUNCTIONS, is_processing_time
from millrace.planner.dialect.nodes import position_of
from millrace.planner.framing import Over, OverChanges, RowBuffer
from millrace.planner.logical import Relation
from millrace.planner.ranking import Ranking, SortKey

RANKS = frozenset({"row_number", "rank", "dense_rank"})
WHOLE_PARTITION = Frame(FrameUnit.ROWS, None, None)


class _Resolve(Protocol):
    def __call__(self, e: Expression, at: object, /) -> Expression: ...


def apply_over(
    relation: Relation, overs: Sequence[tuple[PendingCall, Around, object]], resolve: _Resolve
) -> tuple[Relation, list[int]]:
    """`relation` with a column for each call, and where these are. `resolve` maps arguments onto `relation`."""
    places = [-1] * len(overs)
    groups: dict[Around, list[int]] = {}
    for at, (_, around, _) in enumerate(overs):
        groups.setdefault(around, []).append(at)
    for around, members in groups.items():
        node = overs[members[0]][2]
        calls = [_resolved(overs[m][0], resolve, node) for m in members]
        partition = [resolve(p, node) for p in around.partition]
        order = tuple((resolve(v, node), descending, first) for v, descending, first in around.order)
        relation, added = _attach(relation, calls, partition, order, around, node)
        for member, place in zip(members, added, strict=True):
            places[member] = place
    return relation, places


def _attach(
    relation: Relation,
    calls: list[PendingCall],
    partition: list[Expression],
    order: Order,
    around: Around,
    node: object,
) -> tuple[Relation, list[int]]:
    below, placed, more = place_calls(relation, calls, [*partition, *(v for v, _, _ in order)])
    keys, sort = tuple(more[: len(partition)]), more[len(partition) :]
    width = len(below.schema)
    names = tuple(_fresh(below, call.title, i) for i, call in enumerate(calls))
    places = [width + i for i in range(len(calls))]
    if around.rows is not None:
        _check_append(below, node)
        with located(node):
            buffer = RowBuffer(below, keys, around.rows, placed, names, around.emission, around.expire_after)
        return buffer, places
    timely, time = _time_order(below, order, sort)
    ranks = all(call.function in RANKS for call in calls)
    if (not timely or (ranks and time is not None and below.changelog is not Changelog.APPEND)) and ranks:
        sort_keys = tuple(SortKey(at, d, first) for at, (_, d, first) in zip(sort, order, strict=True))
        ranked = below
        for call, name in zip(calls, names, strict=True):
            ranked = Ranking(ranked, keys, sort_keys, call.function, name, position_of(node))
        return ranked, places
    frame = around.frame or (DEFAULT_FRAME if order else WHOLE_PARTITION)
    if not timely or below.changelog is not Changelog.APPEND:
        return _changing(below, keys, order, sort, frame, placed, names, node), places
    if any(needs_whole_partition(call, frame) for call in placed) and not below.bounded:
        raise invalid(
            node,
            "MR1341",
            "this OVER window has no answer before its input ends, and it has no end",
            "end the frame at CURRENT ROW: ROWS BETWEEN 10 PRECEDING AND CURRENT ROW",
        )
    return Over(below, keys, time, frame, placed, names), places


def _changing(
    below: Relation,
    keys: tuple[int, ...],
    order: Order,
    sort: Sequence[int],
    frame: Frame,
    calls: tuple[AggregateCall, ...],
    names: tuple[str, ...],
    node: object,
) -> Relation:
    """OVER of rows that are taken back, or by another order than that of time: its answers change."""
    if frame.unit is FrameUnit.RANGE and (frame.start or frame.end):
        raise unsupported(
            node,
            "MR1941",
            "a RANGE frame with a distance goes by the event time, upwards, of rows that are never taken back",
            "count ROWS, or order by the source's event-time column",
        )
    for at in sort:
        kind = below.schema.field(at).type
        if not sortable(kind):
            raise invalid(
                node, "MR1347", f"rows can not be ordered by {kind}", "order by a number, a text or a time"
            )
    clock = len(order) == 1 and not sort_by_value(order[0][0], below)
    sort_keys = tuple(SortKey(at, d, first) for at, (_, d, first) in zip(sort, order, strict=True))
    return OverChanges(below, keys, () if clock else sort_keys, frame, calls, names)


def sort_by_value(value: Expression, relation: Relation) -> bool:
    """Whether an order is by something else than the clock."""
    if isinstance(value, Call):
        return value.function not in CLOCK_FUNCTIONS
    return not (isinstance(value, Column) and is_processing_time(relation, value.index))


def _time_order(relation: Relation, order: Order, places: Sequence[int]) -> tuple[bool, int | None]:
    """Whether the order is one of time, and by which column (None: by arrival)."""
    if not order:
        return True, None
    (value, descending, _), *others = order
    if others or descending:
        return False, None
    if isinstance(value, Call) and value.function in CLOCK_FUNCTIONS:
        return True, None
    if isinstance(value, Column) and is_processing_time(relation, value.index):
        return True, None
    return places[0] == relation.event_time, places[0]


def _check_append(relation: Relation, node: object) -> None:
    if relation.changelog is not Changelog.APPEND:
        raise invalid(
            node,
            "MR1340",
            f"OVER needs rows that are never taken back, and its input is a {relation.changelog.value} stream",
            "EMIT ON WINDOW CLOSE in the inner query",
        )


def _resolved(call: PendingCall, resolve: _Resolve, node: object) -> PendingCall:
    return PendingCall(
        call.function,
        tuple(resolve(a, node) for a in call.arguments),
        call.type,
        call.distinct,
        None if call.filter is None else resolve(call.filter, node),
        tuple((resolve(v, node), d, first) for v, d, first in call.order),
        call.options,
    )


def _fresh(relation: Relation, title: str, number: int) -> str:
    return f"_{title}_{len(relation.schema) + number}"
