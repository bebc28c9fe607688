"""Kernels that carry a hash table over into a larger one while both are in use. Know no key.

An entry is what `key_kernels` says: 0, or `tag << 32 | slot + 1` with its home in the tag.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from millrace.state.memory_kernels import internal
from millrace.state.words import Slots, Words

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_LOW_HALF = np.uint64(0xFFFFFFFF)


@internal
def _enter(table: Words, mask: np.uint64, entry: Any) -> None:
    """Put an entry in, if it is not there."""
    position = (entry >> np.uint64(32)) & mask
    while table[position] != _ZERO:
        if table[position] == entry:
            return
        position = (position + _ONE) & mask
    table[position] = entry


@njit(cache=True, nogil=True)
def enter_range(table: Words, old: Words, first: int, end: int) -> None:
    """Put the entries at places `first` to `end` of `old` in."""
    mask = np.uint64(table.shape[0] - 1)
    for i in range(first, end):
        if old[i] != _ZERO:
            _enter(table, mask, old[i])


@njit(cache=True, nogil=True)
def enter_slots(table: Words, slots: Slots, hashes: Words) -> None:
    """Put the entries of these slots in; -1 stands for none. `hashes` are by slot."""
    mask = np.uint64(table.shape[0] - 1)
    for i in range(slots.shape[0]):
        slot = slots[i]
        if slot >= 0:
            tag = hashes[slot] >> np.uint64(32)
            _enter(table, mask, (tag << np.uint64(32)) | np.uint64(slot + 1))


@njit(cache=True, nogil=True)
def leave(table: Words, old: Words, slots: Slots, hashes: Words) -> None:
    """Have the entries of these live slots in `table` alone. What moves up in `old` is entered at once."""
    enter_slots(table, slots, hashes)
    new_mask = np.uint64(table.shape[0] - 1)
    mask = np.uint64(old.shape[0] - 1)
    for i in range(slots.shape[0]):
        wanted = np.uint64(slots[i] + 1)
        gap = (hashes[slots[i]] >> np.uint64(32)) & mask
        while old[gap] != _ZERO and old[gap] & _LOW_HALF != wanted:
            gap = (gap + _ONE) & mask
        if old[gap] == _ZERO:
            continue
        position = gap
        while True:
            position = (position + _ONE) & mask
            entry = old[position]
            if entry == _ZERO:
                break
            home = (entry >> np.uint64(32)) & mask
            if ((position - home) & mask) >= ((position - gap) & mask):
                _enter(table, new_mask, entry)
                old[gap] = entry
                gap = position
        old[gap] = _ZERO
