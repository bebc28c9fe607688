"""Calls over any frame of rows that lie sorted by key and order. Remembers nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.aggregates.accumulators import Outcome
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.aggregates.families import build_set
from millrace.operators.batch import Int64Array
from millrace.operators.over import log_kernels
from millrace.operators.over.frames import WINDOW_FUNCTIONS, Frame, FrameUnit

_PAIRS_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Segments:
    """Rows sorted by key, then order. `lows` and `highs` bound each row's key: [low, high); `ids` number the
    keys.

    `ticks` are the rows' times (None: every row is its own moment); `starts` the first row of each row's
    key that it may see (None: all).
    """

    data: pa.RecordBatch
    ids: Int64Array
    lows: Int64Array
    highs: Int64Array
    ticks: Int64Array | None
    starts: Int64Array | None = None

    @classmethod
    def of(
        cls,
        data: pa.RecordBatch,
        lengths: Int64Array,
        ticks: Int64Array | None,
        starts: Int64Array | None = None,
    ) -> Segments:
        """Of keys whose rows lie one behind the other, `lengths` each."""
        ends = np.cumsum(lengths)
        ids = np.repeat(np.arange(len(lengths)), lengths)
        return cls(data, ids, (ends - lengths)[ids], ends[ids], ticks, starts)


def narrowed(calls: Sequence[AggregateCall], schema: pa.Schema) -> tuple[list[int], list[AggregateCall]]:
    """The columns that calls read, and the calls over those columns alone."""
    columns: list[int] = []
    for call in calls:
        read = [*call.arguments, *(key[0] for key in call.order_by)]
        read += [] if call.filter is None else [call.filter]
        columns += [column for column in read if column not in columns]
    place = {column: i for i, column in enumerate(columns)}
    return columns, [
        replace(
            call,
            arguments=tuple(place[column] for column in call.arguments),
            filter=None if call.filter is None else place[call.filter],
            order_by=tuple((place[column], *how) for column, *how in call.order_by),  # type: ignore[misc]
        )
        for call in calls
    ]


class SegmentCalls:
    """Answers calls for chosen rows of segments. With `only_frame`, lag sees no row before the frame."""

    def __init__(
        self, calls: Sequence[AggregateCall], frame: Frame, per_us: int, *, only_frame: bool = False
    ) -> None:
        self._calls = tuple(calls)
        self._only_frame = only_frame
        self._frame = frame
        self._per_us = per_us

    def answer(self, rows: Segments, targets: Int64Array) -> list[Outcome]:
        """The value of each call at each position in `targets`."""
        lows, highs = self._bounds(rows, targets)
        return [self._one(call, rows, targets, lows, highs) for call in self._calls]

    def _bounds(self, rows: Segments, targets: Int64Array) -> tuple[Int64Array, Int64Array]:
        """The frame of each target: [low, high), low = high where it is empty."""
        frame = self._frame
        lows, highs = rows.lows[targets], rows.highs[targets]
        first, last = lows, highs
        if rows.ticks is None or frame.unit is FrameUnit.ROWS:
            if frame.start is not None:
                first = np.maximum(lows, targets + frame.start)
            if frame.end is not None:
                last = np.minimum(highs, targets + frame.end + 1)
        else:
            ticks = rows.ticks[targets]
            if frame.start is not None:
                first = np.empty(len(targets), np.int64)
                floors = ticks + frame.start * self._per_us
                log_kernels.range_starts(rows.ticks, lows, highs, floors, first)
            if frame.end is not None:
                last = np.empty(len(targets), np.int64)
                floors = ticks + frame.end * self._per_us + 1
                log_kernels.range_starts(rows.ticks, lows, highs, floors, last)
        if rows.starts is not None:
            first = np.maximum(first, rows.starts[targets])
        first = np.minimum(first, highs)
        return first, np.maximum(last, first)

    def _one(
        self, call: AggregateCall, rows: Segments, targets: Int64Array, lows: Int64Array, highs: Int64Array
    ) -> Outcome:
        match call.function:
            case "lag" | "lead":
                return Outcome(self._beside(call, rows, targets))
            case "first_value":
                return Outcome(_picked(rows, call, lows, lows < highs))
            case "last_value":
                return Outcome(_picked(rows, call, highs - 1, lows < highs))
            case "nth_value":
                places = lows + _whole(call, "n", 1) - 1
                return Outcome(_picked(rows, call, places, places < highs))
            case name if name in WINDOW_FUNCTIONS:
                return Outcome(_ranked(call, rows, targets))
        return self._aggregate(call, rows, targets, lows, highs)

    def _beside(self, call: AggregateCall, rows: Segments, targets: Int64Array) -> pa.Array:
        offset = _whole(call, "offset", 1)
        places = targets - offset if call.function == "lag" else targets + offset
        floor = rows.lows[targets] if rows.starts is None else rows.starts[targets]
        if self._only_frame:
            floor = np.maximum(floor, targets + (self._frame.start or 0))
        inside = (places >= floor) & (places < rows.highs[targets])
        values = _picked(rows, call, places, inside)
        default = call.option("default")
        if default is None or inside.all():
            return values
        return pc.if_else(pa.array(inside), values, pa.scalar(default, call.type))

    def _aggregate(
        self, call: AggregateCall, rows: Segments, targets: Int64Array, lows: Int64Array, highs: Int64Array
    ) -> Outcome:
        frame = self._frame
        accumulators = build_set([call], rows.data.schema, retracting=False)
        keys = int(rows.ids[-1]) + 1 if len(rows.ids) else 0
        if rows.starts is None and frame.start is None and frame.end is None:
            accumulators.grow(max(keys, 1))
            accumulators.update(rows.ids.astype(np.int32), rows.data, None)
            return accumulators.results(rows.ids[targets].astype(np.int32))[0]
        if rows.starts is None and frame.start is None:
            accumulators.grow(keys + 1)
            # One key that has no row serves the empty frames.
            nothing = accumulators.results(np.array([keys], np.int32))[0].values
            outcome = accumulators.running(rows.ids.astype(np.int32), rows.data, None)[0]
            places = np.where(lows < highs, highs - 1, len(rows.ids))
            values = pa.concat_arrays([outcome.values, nothing]).take(pa.array(places))
            wrong = None if outcome.wrong is None else np.append(outcome.wrong, False)[places]
            return Outcome(values, wrong)
        return _expanded(call, rows, lows, highs)


def _expanded(call: AggregateCall, rows: Segments, lows: Int64Array, highs: Int64Array) -> Outcome:
    """By feeding every frame's rows to a group of its own, some frames at a time."""
    ends = np.cumsum(highs - lows)
    outcomes: list[Outcome] = []
    start = 0
    while start < len(lows):
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + _PAIRS_MAX, side="right")))
        sizes = highs[start:end] - lows[start:end]
        groups = np.repeat(np.arange(end - start, dtype=np.int32), sizes)
        firsts = np.cumsum(sizes) - sizes
        places = np.arange(len(groups)) - firsts[groups] + lows[start:end][groups]
        accumulators = build_set([call], rows.data.schema, retracting=False)
        accumulators.grow(end - start)
        if len(groups):
            data = rows.data.take(pa.array(places)) if rows.data.num_columns else _blank(len(groups))
            accumulators.update(groups, data, None)
        outcomes += accumulators.results(np.arange(end - start, dtype=np.int32))
        start = end
    if not outcomes:
        return Outcome(pa.array([], call.type))
    values = pa.concat_arrays([outcome.values for outcome in outcomes])
    wrongs = [
        np.zeros(len(outcome.values), np.bool_) if outcome.wrong is None else outcome.wrong
        for outcome in outcomes
    ]
    return Outcome(values, np.concatenate(wrongs))


def _ranked(call: AggregateCall, rows: Segments, targets: Int64Array) -> pa.Array:
    """Functions of a row's place in its partition."""
    count = len(rows.lows)
    ticks = np.arange(count) if rows.ticks is None else rows.ticks
    starts, ends, dense = (np.empty(count, np.int64) for _ in range(3))
    log_kernels.peer_bounds(ticks, rows.lows, rows.highs, starts, ends, dense)
    lows, sizes = rows.lows[targets], (rows.highs - rows.lows)[targets]
    numbers = targets - lows
    match call.function:
        case "row_number":
            return pa.array(numbers + 1)
        case "rank":
            return pa.array(starts[targets] - lows + 1)
        case "dense_rank":
            return pa.array(dense[targets])
        case "percent_rank":
            return pa.array((starts[targets] - lows) / np.maximum(sizes - 1, 1))
        case "cume_dist":
            return pa.array((ends[targets] - lows) / sizes)
    buckets = _whole(call, "n", 1)
    size, larger = sizes // buckets, sizes % buckets
    edge = larger * (size + 1)
    late = larger + (numbers - edge) // np.maximum(size, 1)
    return pa.array(np.where(numbers < edge, numbers // (size + 1), late) + 1)


def _picked(rows: Segments, call: AggregateCall, places: Int64Array, there: np.ndarray) -> pa.Array:
    return rows.data.column(call.arguments[0]).take(pa.array(np.where(there, places, 0), mask=~there))


def _whole(call: AggregateCall, name: str, default: int) -> int:
    value = call.option(name, default)
    assert isinstance(value, int)
    return value


def _blank(rows: int) -> pa.RecordBatch:
    """Rows without a column, for calls that read none."""
    return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))
