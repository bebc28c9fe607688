"""Entries by slot in order of time: what joins on time keep a side in. Knows neither rows nor watermarks."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from millrace.state.words import Int32s, Int64s, Slots

_SEGMENTS_MIN = 64
_ARENA_MIN = 256
_SIZE, _ROOM = 1, 2
_USED, _LIVE, _WASTED, _STRAY = range(4)


class Timeline:
    """For each slot of a `KeyIndex` its entries (tick, row number, matched or not), ordered by tick.

    Entries lie side by side, so a range of time is found by bisection and read in sequence however many
    entries a slot has. Places in the arena hold until the next `insert`.
    """

    def __init__(self) -> None:
        self._segments: Int64s = np.zeros((_SEGMENTS_MIN, 4), np.int64)
        self._arena: Int64s = np.empty((_ARENA_MIN, 2), np.int64)
        self._counts: Int64s = np.zeros(4, np.int64)

    @cached_property
    def _kernels(self):  # type: ignore[no-untyped-def]
        from millrace.operators.joins import timeline_kernels  # deferred: Numba is slow to import

        return timeline_kernels

    @cached_property
    def _asof(self):  # type: ignore[no-untyped-def]
        from millrace.operators.joins import asof_kernels  # deferred: Numba is slow to import

        return asof_kernels

    def __len__(self) -> int:
        return int(self._counts[_LIVE])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self._segments.nbytes + self._arena.nbytes)

    def sizes(self, slots: Slots) -> Int64s:
        """How many entries each slot has."""
        known = slots < len(self._segments)
        return np.where(known, self._segments[np.where(known, slots, 0), _SIZE], 0)

    def insert(
        self, slots: Slots, ticks: Int64s, rows: Int64s, matched: npt.NDArray[np.bool_] | None
    ) -> None:
        """Add one entry for each of `rows`; entries of equal tick stay in order of insertion."""
        if not len(slots):
            return
        top = int(slots.max()) + 1
        if top > len(self._segments):
            grown = np.zeros((max(top, 2 * len(self._segments)), 4), np.int64)
            grown[: len(self._segments)] = self._segments
            self._segments = grown
        values = rows << 1 if matched is None else rows << 1 | matched
        strays = np.empty(len(slots), np.int64)
        kernels, counts = self._kernels, self._counts
        counts[_STRAY] = 0
        done = 0
        while True:
            done = kernels.insert(done, slots, ticks, values, self._segments, self._arena, counts, strays)
            if done == len(slots):
                break
            self._grow(int(self._segments[slots[done], _SIZE]) + 1)
        strays = strays[: counts[_STRAY]]
        if not len(strays):
            return
        order = strays[np.lexsort((ticks[strays], slots[strays]))]
        done = 0
        while True:
            done = kernels.merge(done, order, slots, ticks, values, self._segments, self._arena, counts)
            if done == len(order):
                return
            self._grow(int(self._segments[slots[order[done]], _SIZE]) + len(order))

    def ranges(self, slots: Slots, ticks: Int64s, lower: int, upper: int) -> tuple[Int64s, Int64s]:
        """For each row the place of the first entry from `tick + lower` to `tick + upper`, and how many there are."""
        begins: Int64s = np.empty(len(slots), np.int64)
        counts: Int64s = np.empty(len(slots), np.int64)
        self._kernels.ranges(slots, ticks, lower, upper, self._segments, self._arena, begins, counts)
        return begins, counts

    def expand(self, first: int, last: int, begins: Int64s, counts: Int64s) -> tuple[Int64s, Int64s, Int64s]:
        """The rows from `first` to `last`, each once for each of its entries: row, place, row number stored there."""
        total = int(counts[first:last].sum())
        rows: Int64s = np.empty(total, np.int64)
        places: Int64s = np.empty(total, np.int64)
        stored: Int64s = np.empty(total, np.int64)
        self._kernels.expand(first, last, begins, counts, self._arena, rows, places, stored)
        return rows, places, stored

    def mark(self, places: Int64s) -> npt.NDArray[np.bool_]:
        """Mark the entries at these places as matched; which of them were not before (a repeat was)."""
        fresh = np.empty(len(places), np.uint8)
        self._kernels.mark(places, self._arena, fresh)
        return fresh.view(np.bool_)

    def drop_first(self, slots: Slots) -> tuple[Int64s, npt.NDArray[np.bool_], Slots]:
        """Take as many of the earliest entries off a slot as it is listed: rows, matched or not, slots now empty."""
        values: Int64s = np.empty(len(slots), np.int64)
        empty: Int32s = np.empty(len(slots), np.int32)
        count = self._kernels.drop_first(slots, self._segments, self._arena, self._counts, values, empty)
        return values >> 1, (values & 1).astype(np.bool_), empty[:count]

    def find(
        self, slots: Slots, ticks: Int64s, direction: int, strict: bool, tolerance: int
    ) -> tuple[Int64s, Int64s]:
        """For each row the stored row last before it, first after it or nearest (-1: none), and its tick."""
        rows: Int64s = np.empty(len(slots), np.int64)
        found: Int64s = np.empty(len(slots), np.int64)
        self._asof.find(
            slots, ticks, direction, int(strict), tolerance, self._segments, self._arena, rows, found
        )
        return rows, found

    def trim(self, slots: Slots, bound: int, keep_last: bool, floor: int) -> tuple[Int64s, Slots, Int64s]:
        """Take entries below `bound` off distinct slots, but for the last unless it is below `floor`.

        Returns the rows taken, the slot of each, and for each of `slots` the tick of the entry kept, else `bound`.
        """
        room = int(self.sizes(slots).sum())
        values: Int64s = np.empty(room, np.int64)
        owners: Int32s = np.empty(room, np.int32)
        kept: Int64s = np.empty(len(slots), np.int64)
        gone = self._asof.trim(
            slots, bound, keep_last, floor, self._segments, self._arena, self._counts, values, owners, kept
        )
        return values[:gone] >> 1, owners[:gone], kept

    def drop_below(self, slots: Slots, bounds: Int64s) -> tuple[Int64s, Slots]:
        """Take entries of distinct slots that are below the slot's bound: rows, and the slot of each."""
        room = int(self.sizes(slots).sum())
        values: Int64s = np.empty(room, np.int64)
        owners: Int32s = np.empty(room, np.int32)
        gone = self._asof.drop_below(slots, bounds, self._segments, self._arena, self._counts, values, owners)
        return values[:gone] >> 1, owners[:gone]

    def earliest(self, none: int) -> int:
        """The least tick there is, or `none`."""
        return int(self._asof.earliest(self._segments, self._arena, none)) if len(self) else none

    def live(self) -> tuple[Slots, Int64s, Int64s, npt.NDArray[np.bool_]]:
        """All entries: slot, tick, row and whether it is matched."""
        slots: Int32s = np.empty(len(self), np.int32)
        ticks: Int64s = np.empty(len(self), np.int64)
        values: Int64s = np.empty(len(self), np.int64)
        self._kernels.live(self._segments, self._arena, slots, ticks, values)
        return slots, ticks, values >> 1, (values & 1).astype(np.bool_)

    def fit(self, high: int) -> None:
        """Give memory back after a spike; slots from `high` on are free."""
        if len(self._segments) > 1024 and high * 4 <= len(self._segments):
            self._segments = self._segments[: max(1024, 2 * high)].copy()
        if len(self._arena) > 4096 and 4 * len(self) < len(self._arena):
            self._move(2 * len(self) + _ARENA_MIN)

    def _grow(self, need: int) -> None:
        """Make room for `need` entries more: by putting segments together, in a larger arena unless much was waste."""
        used, wasted = int(self._counts[_USED]), int(self._counts[_WASTED])
        self._move(2 * (used - wasted) + 2 * need + _ARENA_MIN)

    def _move(self, size: int) -> None:
        # Rooms may be half as large again as their entries, so that much is always needed.
        arena = np.empty((max(size, len(self) * 3 // 2 + _ARENA_MIN), 2), np.int64)
        self._kernels.compact(self._segments, self._arena, self._counts, arena)
        self._arena = arena
