"""The memory that accumulators of words share: a row of words a group, one cache line where they fit. Knows no aggregate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from millrace.operators.aggregates import number_kernels

Slots = npt.NDArray[np.integer]
Slots32 = npt.NDArray[np.int32]
Words = npt.NDArray[np.int64]

_RUN_MIN = 4096
_LINE = 8
"""Words in a cache line."""


class GroupWords:
    """Rows of words by slot. Before there is room for a slot, each accumulator says with `join` what it needs.

    Invariant: a slot that no row has reached, or that was reset, holds the initial words.
    """

    def __init__(self) -> None:
        self._initial: Words = np.zeros(0, np.int64)
        self._used = 0
        self.rows: Words = np.empty((0, 0), np.int64)
        self._reserve = self.rows
        self.address = 0

    def join(self, initial: Sequence[int]) -> int:
        """Have `initial` in every row; the place of its first word."""
        assert not len(self.rows), "accumulators join before there are groups"
        at = self._used
        self._used += len(initial)
        words = np.zeros(_width(self._used), np.int64)
        words[:at], words[at : self._used] = self._initial[:at], initial
        self._initial = words
        self.rows = self._reserve = np.empty((0, len(self._initial)), np.int64)
        return at

    @property
    def step(self) -> int:
        """Bytes from one group to the next."""
        return 8 * len(self._initial)

    def grow(self, capacity: int) -> None:
        """Make room for slots below `capacity`."""
        used = len(self.rows)
        if capacity <= used:
            return
        if capacity > len(self._reserve):
            # Untouched memory costs nothing, and what is reserved need not be copied at the next growth.
            self._reserve = _aligned(4 * capacity, len(self._initial))
            self._reserve[:used] = self.rows
        self._keep(self._reserve[:capacity])
        initial, width = self._initial.ctypes.data, len(self._initial)
        number_kernels.fill_rows(self.address, self.step, used, capacity, initial, width)

    def shrink(self, capacity: int) -> None:
        """Give back the memory of slots from `capacity` on, all empty."""
        if capacity < len(self.rows):
            self._reserve = _aligned(capacity, len(self._initial))
            self._reserve[:] = self.rows[:capacity]
            self._keep(self._reserve)

    def _keep(self, rows: Words) -> None:
        self.rows, self.address = rows, rows.ctypes.data

    def reset(self, slots: Slots) -> None:
        """Forget these groups."""
        self.rows[slots] = self._initial

    def gather(self, slots: Slots, at: int = 0, width: int | None = None) -> Words:
        """`width` words from place `at` on of these groups, a row each; no column of them is a view of the groups."""
        count, width = len(slots), self._used if width is None else width
        if count > _RUN_MIN and slots[-1] - slots[0] == count - 1 and bool((np.diff(slots) == 1).all()):
            run = self.rows[slots[0] : slots[0] + count, at : at + width]
            return run.copy() if len(self._initial) == 1 else run
        out = np.empty((width, count), np.int64)
        given = narrow(slots)
        number_kernels.gather_rows(
            self.address + 8 * at, self.step, given.ctypes.data, count, width, out.ctypes.data
        )
        return out.T


def narrow(slots: Slots) -> Slots32:
    """Slots as kernels take them by address: int32 without gaps."""
    return np.ascontiguousarray(slots, np.int32)


def address(array: npt.NDArray[np.generic] | None) -> int:
    """Where an array without gaps begins, 0 for None; the caller keeps it alive."""
    if array is None:
        return 0
    assert array.flags.c_contiguous
    return array.ctypes.data


def _width(used: int) -> int:
    """Words in a row: up to a cache line so many that no row lies in two lines."""
    return used if used > _LINE else 1 << (used - 1).bit_length() if used else 0


def _aligned(rows: int, width: int) -> Words:
    """Unset rows from the start of a cache line on."""
    room = np.empty(rows * width + _LINE, np.int64)
    start = -room.ctypes.data % (8 * _LINE) // 8
    return room[start : start + rows * width].reshape(rows, width)
