"""Sums, means, counts and extremes of numbers in frames that slide up to the current row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt

from millrace.operators.aggregates.accumulators import Outcome
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.aggregates.columns import (
    Mask,
    both,
    float64_of,
    from_float64,
    from_int64,
    int64_of,
    is_word,
    truth,
    validity,
)
from millrace.operators.aggregates.numeric import IntegerNumbers
from millrace.operators.batch import Int64Array
from millrace.operators.over import sliding_kernels as kernels
from millrace.operators.over.engines import Engine, Released, Slots, taller
from millrace.operators.over.frames import Frame, FrameUnit

_FUNCTIONS = frozenset(("count", "sum", "avg", "min", "max"))
_MOST = np.iinfo(np.int64).max
_ARENA_MIN = 1024


def slides(call: AggregateCall, schema: pa.Schema, frame: Frame) -> bool:
    """Whether a kernel here answers the call."""
    if frame.start is None or frame.end != 0 or call.function not in _FUNCTIONS or call.distinct:
        return False
    if call.function == "count":
        return True
    return is_word(schema.field(call.arguments[0]).type)


class Sliding(Engine):
    """One column's sum (with count and mean) or extreme by ring of entries (see `sliding_kernels`)."""

    def __init__(
        self,
        places: Sequence[int],
        calls: Sequence[AggregateCall],
        schema: pa.Schema,
        frame: Frame,
        per_us: int,
    ) -> None:
        super().__init__(places)
        assert frame.start is not None
        self._calls = tuple(calls)
        first = calls[0]
        self._filter = first.filter
        self._arguments = first.arguments
        self._kind = schema.field(first.arguments[0]).type if first.arguments else pa.int64()
        self._by_range = frame.unit is FrameUnit.RANGE
        self._rows = 0 if self._by_range else 1 - frame.start
        self._span = -frame.start * per_us if self._by_range else 0
        self._extreme = first.function in ("min", "max")
        self._floating = not self._extreme and first.function != "count" and pt.is_floating(self._kind)
        scale = self._kind.scale if pt.is_decimal(self._kind) else 0
        self._finisher = IntegerNumbers(sums=True, least=False, greatest=False, scale=scale)
        self._initial: float | int = 0.0 if self._floating else _MOST if self._extreme else 0
        dtype = np.float64 if self._floating else np.int64
        self._meta: Int64Array = np.zeros((0, 5), np.int64)
        self._totals: Int64Array = np.zeros((0, 3), np.int64)
        self._back: npt.NDArray[Any] = np.zeros(0, dtype)
        self._back_counts: npt.NDArray[np.int32] = np.zeros(0, np.int32)
        self._used = 0
        self._values: npt.NDArray[Any] = np.zeros(_ARENA_MIN, dtype)
        self._counts: npt.NDArray[np.int32] = np.zeros(_ARENA_MIN, np.int32)
        self._ticks: Int64Array = np.zeros(_ARENA_MIN if self._by_range else 0, np.int64)

    def grow(self, capacity: int) -> None:
        self._meta = taller(self._meta, capacity)
        if self._adds:
            self._totals = taller(self._totals, capacity)
        else:
            self._back = taller(self._back, capacity)
            self._back_counts = taller(self._back_counts, capacity)

    @property
    def _adds(self) -> bool:
        """Whether what leaves a frame is subtracted: exact for integers only."""
        return not self._floating and not self._extreme

    def take(self, rows: Released) -> list[Outcome]:
        valid = self._mask(rows.data)
        values = self._read(rows.data, valid)
        ticks = rows.ticks if self._by_range else None
        if self._adds:
            outcomes = self._take_totals(rows, values, valid, ticks)
        else:
            outcomes = self._take_stacks(rows, values, valid, ticks)
        return outcomes

    def _take_totals(
        self, rows: Released, values: Int64Array, valid: Mask | None, ticks: Int64Array | None
    ) -> list[Outcome]:
        out = np.empty((len(values), 3), np.int64)

        def step(done: int) -> tuple[int, int]:
            return kernels.slide_total(
                done,
                rows.slots,
                values,
                valid,
                ticks,
                rows.resets,
                self._rows,
                self._span,
                self._meta,
                (self._values, self._counts, self._ticks),
                self._totals,
                self._used,
                out,
            )

        self._through(step, len(values))
        if self._by_range and rows.peers is not None:
            out = out[rows.peers]
        return [self._finisher.finish(call, out) for call in self._calls]

    def _take_stacks(
        self, rows: Released, values: npt.NDArray[Any], valid: Mask | None, ticks: Int64Array | None
    ) -> list[Outcome]:
        out = np.empty(len(values), values.dtype)
        counts = np.empty(len(values), np.int32)

        def step(done: int) -> tuple[int, int]:
            return kernels.slide(
                done,
                rows.slots,
                values,
                valid,
                ticks,
                rows.resets,
                self._rows,
                self._span,
                kernels.LEAST if self._extreme else kernels.SUM,
                self._initial,
                self._meta,
                (self._values, self._counts, self._ticks),
                (self._back, self._back_counts),
                self._used,
                out,
                counts,
            )

        self._through(step, len(values))
        if self._by_range and rows.peers is not None:
            out, counts = out[rows.peers], counts[rows.peers]
        return [self._finish(call, out, counts) for call in self._calls]

    def _through(self, step: Callable[[int], tuple[int, int]], rows: int) -> None:
        """Run a kernel to the end, making room where it stops."""
        done = 0
        while True:
            done, self._used = step(done)
            if done == rows:
                return
            self._repack()

    def _finish(
        self, call: AggregateCall, values: npt.NDArray[Any], counts: npt.NDArray[np.int32]
    ) -> Outcome:
        some = None if bool(counts.all()) else counts > 0
        if self._extreme:
            words = ~values if call.function == "max" else values
            if pt.is_floating(self._kind):
                return Outcome(from_float64(_float_of_order(words), some, call.type))
            return Outcome(from_int64(words, some, call.type))
        if call.function == "avg":
            values = values / (counts if some is None else np.maximum(counts, 1))
        return Outcome(from_float64(values, some, call.type))

    def _mask(self, data: pa.RecordBatch) -> Mask | None:
        mask = None if self._filter is None else truth(data.column(self._filter))
        for argument in self._arguments:
            mask = both(mask, validity(data.column(argument)))
        return mask

    def _read(self, data: pa.RecordBatch, valid: Mask | None) -> npt.NDArray[Any]:
        """The column as the kernel takes it; what is neutral where it is null."""
        if self._calls[0].function == "count":
            return np.zeros(data.num_rows, np.int64)
        column = data.column(self._arguments[0])
        values: npt.NDArray[Any]
        if self._floating:
            values = float64_of(column)
        elif self._extreme:
            values = _order_of_float(float64_of(column)) if pt.is_floating(self._kind) else int64_of(column)
            values = ~values if self._calls[0].function == "max" else values
        else:
            values = int64_of(column)
        return values if valid is None else np.where(valid != 0, values, self._initial)

    def _repack(self) -> None:
        """Move the rings to a new arena that has room for as much again."""
        lengths = self._meta[:, kernels.LENGTH]
        slots = np.flatnonzero(lengths)
        size = max(_ARENA_MIN, 6 * int(lengths.sum()))
        values, counts = np.empty(size, self._values.dtype), np.empty(size, np.int32)
        ticks = np.empty(size if self._by_range else 0, np.int64)
        self._meta[lengths == 0, :3] = 0
        self._used = kernels.repack(
            slots, self._meta, self._values, self._counts, self._ticks, values, counts, ticks
        )
        self._values, self._counts, self._ticks = values, counts, ticks

    def reset(self, slots: Slots) -> None:
        self._meta[slots] = 0
        if self._adds:
            self._totals[slots] = 0
        else:
            self._back[slots] = self._initial
            self._back_counts[slots] = 0

    def capture(self, slots: Slots) -> dict[str, pa.Array]:
        lengths = self._meta[slots, kernels.LENGTH]
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        columns = {}
        for name, arena in (("values", self._values), ("counts", self._counts), ("ticks", self._ticks)):
            if len(arena):
                flat = np.empty(int(lengths.sum()), arena.dtype)
                kernels.gather(slots, self._meta, arena, flat)
                columns[name] = pa.ListArray.from_arrays(offsets, pa.array(flat))
        columns["middle"] = pa.array(self._meta[slots, kernels.MIDDLE])
        if self._adds:
            columns["totals"] = pa.FixedSizeListArray.from_arrays(
                pa.array(self._totals[slots].reshape(-1)), 3
            )
        else:
            columns["back"] = pa.array(self._back[slots])
            columns["back_counts"] = pa.array(self._back_counts[slots])
        return columns

    def restore(self, slots: Slots, columns: Mapping[str, pa.Array]) -> None:
        lengths = columns["counts"].value_lengths().to_numpy().astype(np.int64)
        capacities = np.where(lengths > 0, 1 << np.ceil(np.log2(np.maximum(lengths, 4))).astype(np.int64), 0)
        offsets = self._used + np.cumsum(capacities) - capacities
        self._used += int(capacities.sum())
        size = max(_ARENA_MIN, 2 * self._used)
        self._values = np.resize(self._values, size)
        self._counts = np.resize(self._counts, size)
        if self._by_range:
            self._ticks = np.resize(self._ticks, size)
        total = int(lengths.sum())
        within = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        places = np.repeat(offsets, lengths) + within
        for name, arena in (("values", self._values), ("counts", self._counts), ("ticks", self._ticks)):
            if len(arena):
                arena[places] = columns[name].flatten().to_numpy()
        self._meta[slots, kernels.OFFSET] = offsets
        self._meta[slots, kernels.CAPACITY] = capacities
        self._meta[slots, kernels.HEAD] = 0
        self._meta[slots, kernels.LENGTH] = lengths
        self._meta[slots, kernels.MIDDLE] = columns["middle"].to_numpy()
        if self._adds:
            self._totals[slots] = columns["totals"].flatten().to_numpy().reshape(-1, 3)
        else:
            self._back[slots] = columns["back"].to_numpy()
            self._back_counts[slots] = columns["back_counts"].to_numpy()


def _order_of_float(values: npt.NDArray[np.float64]) -> Int64Array:
    """int64 that sort as the floats do, NaN last; -0.0 as 0.0."""
    values = np.where(np.isnan(values), np.nan, values + 0.0)
    words = values.view(np.int64)
    return words ^ ((words >> 63) & np.int64(_MOST))


def _float_of_order(words: Int64Array) -> npt.NDArray[np.float64]:
    return (words ^ ((words >> 63) & np.int64(_MOST))).view(np.float64)
