"""Kernels of the row log: by slot a ring of row numbers in order, and frames over sorted segments."""

from __future__ import annotations

from typing import Any

from numba import njit

from millrace.operators.over.sliding_kernels import CAPACITY, HEAD, LENGTH, OFFSET, Bytes, Int64s

_SMALLEST_RING = 4


@njit(cache=True, nogil=True)
def append(
    first: int,
    slots: Any,
    numbers: Int64s,
    ticks: Int64s,
    resets: Any,
    meta: Int64s,
    arena_numbers: Int64s,
    arena_ticks: Int64s,
    arena_starts: Bytes,
    used: int,
) -> tuple[int, int]:
    """Put rows from `first` on behind those of their slots; returns the row at which the arena was full, and
    its use."""
    for i in range(first, len(slots)):
        ring = meta[slots[i]]
        if ring[LENGTH] == ring[CAPACITY]:
            capacity = max(_SMALLEST_RING, 2 * ring[CAPACITY])
            if used + capacity > len(arena_numbers):
                return i, used
            for k in range(ring[LENGTH]):
                old = ring[OFFSET] + ((ring[HEAD] + k) & (ring[CAPACITY] - 1))
                arena_numbers[used + k] = arena_numbers[old]
                arena_ticks[used + k] = arena_ticks[old]
                arena_starts[used + k] = arena_starts[old]
            ring[OFFSET] = used
            ring[CAPACITY] = capacity
            ring[HEAD] = 0
            used += capacity
        at = ring[OFFSET] + ((ring[HEAD] + ring[LENGTH]) & (ring[CAPACITY] - 1))
        arena_numbers[at] = numbers[i]
        arena_ticks[at] = ticks[i]
        arena_starts[at] = 0
        if resets is not None:
            arena_starts[at] = resets[i]
        ring[LENGTH] += 1
    return len(slots), used


@njit(cache=True, nogil=True)
def range_starts(ticks: Int64s, lows: Int64s, highs: Int64s, floors: Int64s, out: Int64s) -> None:
    """By target the first position in [low, high) whose tick is at least the floor (high: none)."""
    for i in range(len(lows)):
        low, high = lows[i], highs[i]
        while low < high:
            middle = (low + high) >> 1
            if ticks[middle] < floors[i]:
                low = middle + 1
            else:
                high = middle
        out[i] = low


@njit(cache=True, nogil=True)
def peer_bounds(
    ticks: Int64s, lows: Int64s, highs: Int64s, starts: Int64s, ends: Int64s, dense: Int64s
) -> None:
    """By position (all, in order) where its peers start and end, and its dense rank; `lows`, `highs` are its
    segment's."""
    count = len(ticks)
    for i in range(count):
        if i == lows[i]:
            starts[i] = i
            dense[i] = 1
        elif ticks[i] == ticks[i - 1]:
            starts[i] = starts[i - 1]
            dense[i] = dense[i - 1]
        else:
            starts[i] = i
            dense[i] = dense[i - 1] + 1
    for i in range(count - 1, -1, -1):
        if i == highs[i] - 1 or ticks[i] != ticks[i + 1]:
            ends[i] = i + 1
        else:
            ends[i] = ends[i + 1]
