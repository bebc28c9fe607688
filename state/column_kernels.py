"""Kernels over bitmaps of slots. Knows no key."""

from __future__ import annotations

import numpy as np
from numba import njit

from millrace.state.memory_kernels import bits_set, lowest_bit
from millrace.state.words import Slots, Words

_ZERO = np.uint64(0)
_ONE = np.uint64(1)


@njit(cache=True, nogil=True)
def mark(bitmap: Words, slots: Slots) -> bool:
    """Set the bit of each slot; answers whether all are in the bitmap, and stops at one that is not."""
    words = np.uint64(bitmap.shape[0])
    for i in range(slots.shape[0]):
        slot = np.uint64(slots[i])
        if slot >> np.uint64(6) >= words:
            return False
        bitmap[slot >> np.uint64(6)] |= _ONE << (slot & np.uint64(63))
    return True


@njit(cache=True, nogil=True)
def clear(bitmap: Words, slots: Slots) -> None:
    """Clear the bit of each slot."""
    for i in range(slots.shape[0]):
        slot = np.uint64(slots[i])
        bitmap[slot >> np.uint64(6)] &= ~(_ONE << (slot & np.uint64(63)))


@njit(cache=True, nogil=True)
def count(bitmap: Words) -> int:
    """How many bits are set."""
    n = 0
    for word in range(bitmap.shape[0]):
        n += bits_set(bitmap[word])
    return n


@njit(cache=True, nogil=True)
def positions(bitmap: Words, out: Slots) -> None:
    """The bits that are set, in ascending order; `out` has room for exactly those."""
    n = 0
    for word in range(bitmap.shape[0]):
        bits = bitmap[word]
        while bits != _ZERO:
            out[n] = word * 64 + lowest_bit(bits)
            n += 1
            bits &= bits - _ONE
