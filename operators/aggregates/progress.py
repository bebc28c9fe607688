"""How far event time has come: window ends by slot, and the watermark as state. Knows no aggregate."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from millrace.operators.aggregates import window_kernels
from millrace.operators.aggregates.group_words import Slots
from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Int64Array
from millrace.operators.operator import VNODE, StateDelta

_ROOM_MIN = 1024


class SlotTimes:
    """A time (µs) for each live slot, END_OF_TIME where there is none; `first` is never later than the least."""

    def __init__(self) -> None:
        self.times: Int64Array = np.full(0, END_OF_TIME, np.int64)
        self.first = END_OF_TIME

    def note(self, slots: Slots, times: Int64Array, capacity: int) -> None:
        """Set the times of new slots below `capacity`."""
        if len(self.times) < capacity:
            grown = np.full(capacity, END_OF_TIME, np.int64)
            grown[: len(self.times)] = self.times
            self.times = grown
        if len(slots):
            self.times[slots] = times
            self.first = min(self.first, int(times.min()))

    def until(self, time: int) -> Slots:
        """The slots whose time is `time` or before, ordered by it."""
        slots = np.flatnonzero(self.times <= min(time, END_OF_TIME - 1)).astype(np.int32)
        return slots[np.argsort(self.times[slots], kind="stable")]

    def in_order(self, width: int) -> Slots:
        """All slots that have a time, ordered by it; times lie a multiple of `width` apart."""
        present = self.times != END_OF_TIME
        count = int(np.count_nonzero(present))
        if not count:
            return np.zeros(0, np.int32)
        first = int(self.times.min())
        places = (int(self.times.max(where=present, initial=first)) - first) // width + 1
        if places > 4 * count:
            return self.until(END_OF_TIME)
        out = np.empty(count, np.int32)
        counts = np.zeros(places, np.int64)
        window_kernels.sort_slots(self.times, END_OF_TIME, first, width, counts, out)
        return out

    def forget(self, slots: Slots, high: int) -> None:
        """Clear slots that were freed; no slot from `high` on lives."""
        self.times[slots] = END_OF_TIME
        if len(self.times) > _ROOM_MIN and len(self.times) > 4 * high:
            self.times = self.times[: max(_ROOM_MIN, 2 * high)].copy()
        self.first = int(self.times.min()) if len(self.times) else END_OF_TIME


def capture_clock(watermark: int, vnodes: int, live: Int64Array | None = None) -> StateDelta:
    """The watermark as a table of one row a vnode; `live` are the vnodes this partition has groups of."""
    mine = np.zeros(vnodes, np.bool_)
    if live is not None:
        mine[live] = True
    rows = {
        VNODE: pa.array(np.arange(vnodes, dtype=np.uint16)),
        "watermark": pa.array(np.full(vnodes, watermark, np.int64)),
        "mine": pa.array(mine),
    }
    return StateDelta((VNODE,), pa.RecordBatch.from_pydict(rows))


def restored_clock(table: pa.RecordBatch | None) -> int:
    """The watermark that all partitions who captured had reached."""
    if table is None or not table.num_rows:
        return START_OF_TIME
    return int(np.asarray(table.column("watermark")).min())


def restored_floors(table: pa.RecordBatch | None, vnodes: int) -> Int64Array:
    """By vnode, the watermark of the partition that had its groups; START_OF_TIME where none had."""
    floors = np.full(vnodes, START_OF_TIME, np.int64)
    if table is not None and table.num_rows:
        mine = np.asarray(table.column("mine"))
        floors[np.asarray(table.column(VNODE))[mine]] = np.asarray(table.column("watermark"))[mine]
    return floors
