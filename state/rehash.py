"""A large hash table on its way into one of twice the size, a little with each call. Knows no key."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from millrace.state.words import Slots, Words

FROM_ENTRIES = 1 << 17
"""Smaller tables are carried over at once, in less than a ms."""
_PER_ROW = 64
_AT_LEAST = 1 << 13


class Rehash:
    """First makes the larger table ready, then carries the entries over.

    Invariant while `old` is set: each entry is in `old`, in `table`, or in both; one that was made since is in
    `table` alone, and none is left anywhere of a slot that was freed.
    """

    def __init__(self, size: int) -> None:
        self.table: Words = np.empty(size, np.uint64)
        self.old: Words | None = None
        self._cleared = 0
        self._carried = 0

    @cached_property
    def _kernels(self):  # type: ignore[no-untyped-def]
        from millrace.state import rehash_kernels  # deferred: Numba is slow to import

        return rehash_kernels

    @staticmethod
    def at_once(entries: int, rows: int) -> bool:
        """Whether a call with so many rows may as well carry over a table of `entries` by itself."""
        return rows * _PER_ROW >= entries

    @property
    def nbytes(self) -> int:
        """Bytes held beside the table in use."""
        return self._cleared * 8 if self.old is None else self.old.nbytes

    def step(self, rows: int) -> bool:
        """Go on for as long as these rows are worth; answers whether all is carried over."""
        places = max(_AT_LEAST, rows * _PER_ROW)
        if self.old is None:
            self._clear(self._cleared + places)
            return False
        return self._carry_over(self._carried + places)

    def finish(self) -> None:
        """Carry all over that is left."""
        assert self.old is not None
        self._carry_over(len(self.old))

    def _carry_over(self, end: int) -> bool:
        assert self.old is not None
        end = min(end, len(self.old))
        self._kernels.enter_range(self.table, self.old, self._carried, end)
        self._carried = end
        return end == len(self.old)

    def begin(self, old: Words) -> None:
        """From now on entries are made in `table`, and those of `old` are carried over."""
        self._clear(len(self.table))
        self.old = old

    def carry(self, slots: Slots, hashes: Words) -> None:
        """Have the entries of these slots (-1: none) in `table`; `hashes` are by slot."""
        self._kernels.enter_slots(self.table, slots, hashes)

    def leave(self, slots: Slots, hashes: Words) -> None:
        """These live slots are about to be removed from `table`."""
        if self.old is not None:
            self._kernels.leave(self.table, self.old, slots, hashes)

    def _clear(self, end: int) -> None:
        end = min(end, len(self.table))
        self.table[self._cleared : end] = 0
        self._cleared = end
