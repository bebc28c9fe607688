"""Calls that need rows themselves, before and behind: a log of each key's last rows. Knows no clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.aggregates.accumulators import Outcome, distinct
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.batch import Int64Array
from millrace.operators.operator import VNODE, StateDelta
from millrace.operators.over import log_kernels
from millrace.operators.over import sliding_kernels as kernels
from millrace.operators.over.engines import Released, Slots, taken, taller
from millrace.operators.over.frames import Frame, FrameUnit, frameless
from millrace.operators.over.segments import SegmentCalls, Segments, narrowed
from millrace.state.row_store import RowStore

DONE = 4
"""Place in `meta` of the number of rows, from the head, that have been answered."""
_ARENA_MIN = 1024

KeysOf = Callable[[Slots], list[pa.Array]]
VnodesOf = Callable[[Slots], npt.NDArray[np.uint16]]


@dataclass(frozen=True, slots=True)
class Reach:
    """How far calls look: rows and ticks back, rows and ticks ahead."""

    rows_back: int = 0
    ticks_back: int = 0
    rows_ahead: int = 0
    ticks_ahead: int = 0

    @classmethod
    def of(cls, calls: Sequence[AggregateCall], frame: Frame, per_us: int) -> Reach:
        """Of calls that share a frame with two bounds."""
        back = ahead = ticks_back = ticks_ahead = 0
        for call in calls:
            offset = call.option("offset", 1)
            assert isinstance(offset, int)
            if call.function == "lag":
                back = max(back, offset)
            elif call.function == "lead":
                ahead = max(ahead, offset)
            elif not frameless(call) and frame.unit is FrameUnit.ROWS:
                back = max(back, -(frame.start or 0))
                ahead = max(ahead, frame.end or 0)
            elif not frameless(call):
                ticks_back = max(ticks_back, -(frame.start or 0) * per_us)
                ticks_ahead = max(ticks_ahead, (frame.end or 0) * per_us)
        return cls(back, ticks_back, ahead, ticks_ahead)

    @property
    def ahead(self) -> bool:
        """Whether rows wait for others."""
        return self.rows_ahead > 0 or self.ticks_ahead > 0


@dataclass(frozen=True, slots=True)
class Answered:
    """Rows of the log that have their answers now, in order: what was appended of them, and the outcomes."""

    data: pa.RecordBatch
    ticks: Int64Array
    outcomes: list[Outcome]


class RowLog:
    """Owns the rows of each key that calls still look back at, and those that wait for rows behind them.

    Each slot has a ring of row numbers (see `log_kernels`); the rows are in a store. With calls that look
    ahead whole rows are kept with `extra` columns, else the columns that calls read.
    """

    def __init__(
        self,
        calls: Sequence[AggregateCall],
        schema: pa.Schema,
        frame: Frame,
        per_us: int,
        extra: Sequence[pa.Field],
        vnodes_of: VnodesOf,
        *,
        only_frame: bool,
    ) -> None:
        self._vnodes_of = vnodes_of
        self.reach = Reach.of(calls, frame, per_us)
        self._by_range = frame.unit is FrameUnit.RANGE
        columns, narrow = narrowed(calls, schema)
        if self.reach.ahead:
            columns, narrow = list(range(len(schema))), list(calls)
        self._columns = columns
        self._calls = SegmentCalls(narrow, frame, per_us, only_frame=only_frame)
        fields = [schema.field(column).with_name(f"c{i}") for i, column in enumerate(columns)]
        fields += [field.with_name(f"e{i}") for i, field in enumerate(extra)] if self.reach.ahead else []
        self._schema = pa.schema([*fields, pa.field("_slot", pa.int32())])
        self._store = RowStore(self._schema)
        self._meta: Int64Array = np.zeros((0, 5), np.int64)
        self._numbers: Int64Array = np.empty(_ARENA_MIN, np.int64)
        self._ticks: Int64Array = np.empty(_ARENA_MIN, np.int64)
        self._starts: npt.NDArray[np.uint8] = np.empty(_ARENA_MIN, np.uint8)
        self._used = 0
        self._marks: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._mark: int | None = None
        self._gone: list[tuple[Int64Array, npt.NDArray[np.uint16]]] = []

    def grow(self, capacity: int) -> None:
        """Make room for slots below `capacity`."""
        self._meta = taller(self._meta, capacity)
        self._marks = np.zeros(capacity, np.uint8)

    def take(self, rows: Released, early: Sequence[pa.Array], horizon: int, *, timed: bool) -> Answered:
        """Append rows, `early` being further columns of theirs; what can be answered of their keys.

        Every row with a tick below `horizon` is in the log. Without `timed`, ticks order nothing.
        """
        count = len(rows.slots)
        arrays = [rows.data.column(column) for column in self._columns]
        arrays += list(early) if self.reach.ahead else []
        arrays.append(pa.array(rows.slots))
        numbers = self._store.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        ticks = np.zeros(count, np.int64) if rows.ticks is None else rows.ticks
        self._append(rows.slots, numbers, ticks, rows.resets)
        return self.answer(distinct(rows.slots, self._marks)[0], horizon, timed=timed)

    def waiting(self, horizon: int) -> Slots:
        """Slots with rows that wait and that the horizon may have released; END_OF_TIME: all that have
        any."""
        meta = self._meta
        pending = np.flatnonzero(meta[:, kernels.LENGTH] > meta[:, DONE])
        if not len(pending):
            return pending.astype(np.int32)
        ring = meta[pending]
        at = ring[:, kernels.OFFSET] + (
            (ring[:, kernels.HEAD] + ring[:, DONE]) & (ring[:, kernels.CAPACITY] - 1)
        )
        return pending[self._ticks[at] < horizon - self.reach.ticks_ahead].astype(np.int32)

    @property
    def earliest_waiting(self) -> int | None:
        """The least tick of a row that waits."""
        meta = self._meta
        ring = meta[meta[:, kernels.LENGTH] > meta[:, DONE]]
        if not len(ring):
            return None
        at = ring[:, kernels.OFFSET] + (
            (ring[:, kernels.HEAD] + ring[:, DONE]) & (ring[:, kernels.CAPACITY] - 1)
        )
        return int(self._ticks[at].min())

    def answer(self, slots: Slots, horizon: int, *, timed: bool, final: bool = False) -> Answered:
        """Answer what can be answered of these slots (`final`: everything), and drop what no row will look at
        again."""
        lengths = self._meta[slots, kernels.LENGTH]
        total = int(lengths.sum())
        numbers, ticks, starts = self._gathered(slots)
        ends = np.cumsum(lengths)
        positions = np.arange(total)
        done = np.repeat(ends - lengths + self._meta[slots, DONE], lengths)
        ready = positions >= done
        if not final and self.reach.rows_ahead:
            ready &= positions + self.reach.rows_ahead < np.repeat(ends, lengths)
        if not final and self.reach.ticks_ahead:
            ready &= ticks < horizon - self.reach.ticks_ahead
        targets = np.flatnonzero(ready)
        began = np.maximum.accumulate(np.where(starts != 0, positions, 0)) if starts.any() else None
        rows = self._store.gather(numbers, self._schema.names[:-1])
        segments = Segments.of(rows, lengths, ticks if timed else None, None)
        if began is not None:
            segments = Segments.of(rows, lengths, segments.ticks, np.maximum(began, segments.lows))
        outcomes = self._calls.answer(segments, targets)
        order = np.argsort(numbers[targets], kind="stable")
        if timed and self.reach.ahead:
            order = np.lexsort((numbers[targets], ticks[targets]))
        answered = Answered(
            rows.take(pa.array(targets[order])) if self.reach.ahead else rows.slice(0, 0),
            ticks[targets][order],
            [taken(outcome, order) for outcome in outcomes],
        )
        self._meta[slots, DONE] += np.bincount(segments.ids[targets], minlength=len(slots))
        self._drop(slots, lengths, numbers, ticks, began, timed=timed, final=final)
        return answered

    def trim(self, floor: int) -> None:
        """Drop rows that no row of at least `floor` looks back at; for keys that no longer have rows."""
        if not self.reach.ticks_back or self.reach.rows_back or self.reach.ahead:
            return
        slots = np.flatnonzero(self._meta[:, kernels.LENGTH]).astype(np.int32)
        lengths = self._meta[slots, kernels.LENGTH]
        numbers, ticks, _ = self._gathered(slots)
        ids = np.repeat(np.arange(len(slots)), lengths)
        gone = ticks < floor - self.reach.ticks_back
        self._remove(slots, np.bincount(ids[gone], minlength=len(slots)), numbers[gone], slots[ids[gone]])

    def forget(self, slots: Slots) -> None:
        """Drop all rows of these slots."""
        lengths = self._meta[slots, kernels.LENGTH]
        self._remove(slots, lengths, self._gathered(slots)[0], np.repeat(slots, lengths))

    def _drop(
        self,
        slots: Slots,
        lengths: Int64Array,
        numbers: Int64Array,
        ticks: Int64Array,
        began: Int64Array | None,
        *,
        timed: bool,
        final: bool,
    ) -> None:
        """Remove from the heads of these slots what neither waiting nor future rows look back at."""
        if not len(slots) or not lengths.sum():
            return
        ends = np.cumsum(lengths)
        lows = ends - lengths
        if final:
            keep = ends
        else:
            next_row = lows + self._meta[slots, DONE]
            keep = np.maximum(lows, next_row - self.reach.rows_back)
            if self._by_range and timed:
                anchor = ticks[np.minimum(next_row, ends - 1)]
                floors = np.empty(len(slots), np.int64)
                log_kernels.range_starts(ticks, lows, ends, anchor - self.reach.ticks_back, floors)
                keep = np.minimum(keep, floors)
            if began is not None:
                keep = np.maximum(keep, np.minimum(began[ends - 1], next_row))
        dropped = keep - lows
        ids = np.repeat(np.arange(len(slots)), lengths)
        gone = np.arange(len(numbers)) < keep[ids]
        self._remove(slots, dropped, numbers[gone], slots[ids[gone]])

    def _remove(self, slots: Slots, dropped: Int64Array, numbers: Int64Array, owners: Slots) -> None:
        self._meta[slots, kernels.HEAD] += dropped
        self._meta[slots, kernels.LENGTH] -= dropped
        self._meta[slots, DONE] -= dropped
        if self._mark is not None:
            told = numbers < self._mark
            # Now, since a slot may belong to another key by the time of the capture.
            self._gone.append((numbers[told], self._vnodes_of(owners[told])))
        self._store.remove(numbers)

    def _append(
        self, slots: Slots, numbers: Int64Array, ticks: Int64Array, resets: npt.NDArray[np.uint8] | None
    ) -> None:
        done = 0
        while True:
            done, self._used = log_kernels.append(
                done,
                slots,
                numbers,
                ticks,
                resets,
                self._meta,
                self._numbers,
                self._ticks,
                self._starts,
                self._used,
            )
            if done == len(slots):
                return
            self._repack()

    def _repack(self) -> None:
        """Move the rings to new arenas that have room for as much again."""
        meta = self._meta
        slots = np.flatnonzero(meta[:, kernels.LENGTH]).astype(np.int32)
        lengths = meta[slots, kernels.LENGTH]
        size = max(_ARENA_MIN, 6 * int(lengths.sum()))
        capacities = np.where(lengths > 0, 4, 0)
        while (capacities < lengths).any():
            capacities = np.where(capacities < lengths, capacities * 2, capacities)
        offsets = np.cumsum(capacities) - capacities
        within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        places = np.repeat(offsets, lengths) + within
        for name in ("_numbers", "_ticks", "_starts"):
            arena = getattr(self, name)
            flat = np.empty(int(lengths.sum()), arena.dtype)
            kernels.gather(slots, meta, arena, flat)
            moved = np.empty(size, arena.dtype)
            moved[places] = flat
            setattr(self, name, moved)
        meta[meta[:, kernels.LENGTH] == 0, : kernels.LENGTH] = 0
        meta[slots, kernels.OFFSET] = offsets
        meta[slots, kernels.CAPACITY] = capacities
        meta[slots, kernels.HEAD] = 0
        self._used = int(capacities.sum())

    def waiting_of(self, slots: Slots) -> Int64Array:
        """How many rows of each slot wait."""
        waits: Int64Array = self._meta[slots, kernels.LENGTH] - self._meta[slots, DONE]
        return waits

    def capture(self, *, changes: bool, keys_of: KeysOf) -> StateDelta:
        """Table of the rows with their keys (`k0` …), ticks and numbers."""
        complete = not changes or self._mark is None
        live = self._store.live() if complete else self._store.rows_since(self._mark or 0)
        slots = np.flatnonzero(self._meta[:, kernels.LENGTH]).astype(np.int32)
        numbers, ticks, starts = self._gathered(slots)
        order = np.argsort(numbers)
        at = order[np.searchsorted(numbers[order], live)]
        rows = self._store.gather(live)
        owners = rows.column("_slot").to_numpy()
        columns = {name: rows.column(name) for name in self._schema.names[:-1]}
        columns |= {f"k{i}": key for i, key in enumerate(keys_of(owners))}
        columns |= {"_tick": pa.array(ticks[at]), "_start": pa.array(starts[at]), "_row": pa.array(live)}
        columns[VNODE] = pa.array(self._vnodes_of(owners))
        deleted = None
        if not complete:
            gone = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in self._gone)])
            vnodes = np.concatenate([np.empty(0, np.uint16), *(vnodes for _, vnodes in self._gone)])
            deleted = pa.record_batch({"_row": pa.array(gone), VNODE: pa.array(vnodes)})
        self._mark = self._store.next_row
        self._gone = []
        return StateDelta(("_row",), pa.record_batch(columns), deleted, complete)

    def restore(self, table: pa.RecordBatch, slots: Slots, waiting: Int64Array) -> None:
        """The inverse of `capture`. `slots` are those of the table's rows, `waiting` how many wait, by
        slot."""
        order = np.argsort(table.column("_row").to_numpy(), kind="stable")
        rows, slots = table.take(pa.array(order)), slots[order]
        arrays = [rows.column(name) for name in self._schema.names[:-1]]
        numbers = self._store.append(
            pa.RecordBatch.from_arrays([*arrays, pa.array(slots)], schema=self._schema)
        )
        ticks, starts = (np.array(rows.column(name).to_numpy()) for name in ("_tick", "_start"))
        self._append(slots, numbers, ticks, starts)
        self._meta[:, DONE] = self._meta[:, kernels.LENGTH] - waiting[: len(self._meta)]

    def _gathered(self, slots: Slots) -> tuple[Int64Array, Int64Array, npt.NDArray[np.uint8]]:
        """Numbers, ticks and starts of these slots' rows, one slot behind the other."""
        total = int(self._meta[slots, kernels.LENGTH].sum())
        numbers, ticks = np.empty(total, np.int64), np.empty(total, np.int64)
        starts = np.empty(total, np.uint8)
        for arena, out in ((self._numbers, numbers), (self._ticks, ticks), (self._starts, starts)):
            kernels.gather(slots, self._meta, arena, out)
        return numbers, ticks, starts
