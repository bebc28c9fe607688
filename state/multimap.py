"""Many entries a slot: what joins and multiset aggregates hang their rows on. Knows neither rows nor values."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from millrace.errors import Bug
from millrace.state.growth import capacity_for, extended
from millrace.state.words import Int32s, Int64s, Slots

_MIN = 64


class Multimap:
    """Lists of int32 entries by slot, each in order of insertion; freed entries are given out again.

    An entry is a number for parallel arrays of the owner (`high` is the size that those need). Slots
    come from a `KeyIndex`; a slot must be empty before it is removed there.
    """

    def __init__(self) -> None:
        self._tails: Int32s = np.full(_MIN, -1, np.int32)
        self._sizes: Int32s = np.zeros(_MIN, np.int32)
        self._following: Int32s = np.empty(_MIN, np.int32)
        self._previous: Int32s = np.empty(0, np.int32)
        """Kept from the first removal on: what is only added to does without."""
        self._owners: Int32s = np.empty(_MIN, np.int32)
        self._counts: Int64s = np.array([0, -1, 0], np.int64)
        self._removed = 0

    @cached_property
    def _kernels(self):  # type: ignore[no-untyped-def]
        from millrace.state import multimap_kernels  # deferred: Numba is slow to import

        return multimap_kernels

    def __len__(self) -> int:
        return int(self._counts[0])

    @property
    def high(self) -> int:
        """One past the highest entry in use: the size that arrays by entry need."""
        return int(self._counts[2])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        arrays = (self._tails, self._sizes, self._following, self._previous, self._owners)
        return sum(array.nbytes for array in arrays)

    def insert(self, slots: Slots) -> Int32s:
        """Append one entry to the slot of each row (repeats append in row order); returns the entries."""
        entries: Int32s = np.empty(len(slots), np.int32)
        if not len(slots):
            return entries
        assert slots.min() >= 0, "rows of no slot cannot be inserted"
        self._room(int(slots.max()) + 1, len(slots))
        self._kernels.insert(
            slots,
            self._tails,
            self._sizes,
            self._following,
            self._previous,
            self._owners,
            self._counts,
            entries,
        )
        return entries

    def probe(self, slots: Slots) -> tuple[Int32s, Int32s]:
        """(row of `slots`, entry) for each entry of each row's slot, rows ascending; -1 matches nothing."""
        total = self._kernels.matches(slots, self._sizes)
        rows: Int32s = np.empty(total, np.int32)
        entries: Int32s = np.empty(total, np.int32)
        self._kernels.probe(slots, self._tails, self._sizes, self._following, rows, entries)
        return rows, entries

    def remove(self, entries: npt.NDArray[np.integer]) -> None:
        """Unlink these entries, which must be live and distinct."""
        given = np.ascontiguousarray(entries, np.int32)
        if not len(given):
            return
        if not len(self._previous):
            self._previous = np.empty(len(self._owners), np.int32)
            self._kernels.link_back(self._following, self._previous, self._owners, self.high)
        removed = self._kernels.remove(
            given,
            self._tails,
            self._sizes,
            self._following,
            self._previous,
            self._owners,
            self._counts,
        )
        if removed != len(given):
            raise Bug(f"entry {given[removed]} was removed, and it is not live")
        self._removed += len(given)
        self._shrink()

    def sizes(self, slots: Slots) -> Int32s:
        """How many entries each slot has; 0 for slots below 0 or never used."""
        known = (slots >= 0) & (slots < len(self._sizes))
        return np.where(known, self._sizes[np.where(known, slots, 0)], np.int32(0))

    def owners(self, entries: npt.NDArray[np.integer]) -> Slots:
        """The slot of each live entry."""
        return self._owners[entries]

    def live(self) -> Int32s:
        """All live entries in ascending order."""
        out: Int32s = np.empty(len(self), np.int32)
        self._kernels.live_entries(self._owners, self.high, out)
        return out

    def _room(self, slots: int, entries: int) -> None:
        known = len(self._tails)
        if slots > known:
            size = capacity_for(slots, known)
            self._tails = extended(self._tails, size)
            self._tails[known:] = -1
            self._sizes = extended(self._sizes, size)
        need = self.high + entries
        if need > len(self._owners):
            size = capacity_for(need, len(self._owners))
            self._following = extended(self._following, size)
            self._owners = extended(self._owners, size)
            if len(self._previous):
                self._previous = extended(self._previous, size)

    def fit(self, high: int) -> None:
        """Give memory back after a spike, where slots from `high` on are free and most are."""
        if len(self._tails) > 1024 and high * 4 <= len(self._tails):
            size = max(high * 2, 1024)
            self._tails, self._sizes = self._tails[:size].copy(), self._sizes[:size].copy()

    def _shrink(self) -> None:
        """Drop free entries at the end where most are free, once as many were removed as are kept track of."""
        high = self.high
        if high <= 1024 or len(self) * 4 > high or self._removed * 2 < high:
            return
        self._removed = 0
        self._kernels.relink_free(self._owners, self._following, high, self._counts)
        size = max(self.high * 2, 1024)
        if size < len(self._owners):
            self._following = self._following[:size].copy()
            self._previous = self._previous[:size].copy()
            self._owners = self._owners[:size].copy()
