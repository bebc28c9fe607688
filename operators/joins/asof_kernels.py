"""Kernels of as-of joins: the entry of a timeline that is last before a time, first after it, or nearest to it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from millrace.operators.joins.timeline_kernels import LAST, LIVE, ROOM, SIZE, START, WASTED

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]

BACKWARD, FORWARD, NEAREST = range(3)


@njit(cache=True, nogil=True)
def find(
    slots: Int32s,
    ticks: Int64s,
    direction: int,
    strict: int,
    tolerance: int,
    segments: Int64s,
    arena: Int64s,
    rows: Int64s,
    found: Int64s,
) -> None:
    """For each row the stored row that belongs to it and its tick; -1 where none is within `tolerance` (-1: any)."""
    for i in range(slots.shape[0]):
        rows[i] = -1
        found[i] = 0
        slot = slots[i]
        if slot < 0 or slot >= segments.shape[0] or segments[slot, SIZE] == 0:
            continue
        tick = ticks[i]
        start = segments[slot, START]
        end = start + segments[slot, SIZE]
        # `cut` parts entries at or before the row (just before it where strict) from those behind.
        bound = tick - strict if direction == BACKWARD else tick + strict - 1
        if direction == NEAREST:
            bound = tick
        if segments[slot, LAST] <= bound:
            cut = end
        else:
            low, high = start, end
            while low < high:
                middle = (low + high) >> 1
                if arena[middle, 0] <= bound:
                    low = middle + 1
                else:
                    high = middle
            cut = low
        at = -1
        if direction == BACKWARD:
            at = cut - 1 if cut > start else -1
        elif direction == FORWARD:
            at = cut if cut < end else -1
        elif cut == start:
            at = cut
        elif cut == end or tick - arena[cut - 1, 0] <= arena[cut, 0] - tick:
            at = cut - 1
        else:
            at = cut
        if at < 0:
            continue
        # Of entries with one tick the last counts; from `cut` on they are met first to last.
        while at >= cut and at + 1 < end and arena[at + 1, 0] == arena[at, 0]:
            at += 1
        away = arena[at, 0] - tick
        if tolerance >= 0 and abs(away) > tolerance:
            continue
        rows[i] = arena[at, 1] >> 1
        found[i] = arena[at, 0]


@njit(cache=True, nogil=True)
def trim(
    slots: Int32s,
    bound: int,
    keep_last: bool,
    floor: int,
    segments: Int64s,
    arena: Int64s,
    counts: Int64s,
    values: Int64s,
    owners: Int32s,
    kept: Int64s,
) -> int:
    """Take entries below `bound` off distinct slots, but the last of each unless it is below `floor`.

    `kept` gets the tick of what is first then, where that is below `bound`, else `bound`. Returns how many were taken.
    """
    gone = 0
    for i in range(slots.shape[0]):
        slot = slots[i]
        kept[i] = bound
        while segments[slot, SIZE] > 0:
            start = segments[slot, START]
            tick = arena[start, 0]
            if tick >= bound:
                break
            last = segments[slot, SIZE] == 1 or arena[start + 1, 0] >= bound
            if keep_last and last and tick >= floor:
                kept[i] = tick
                break
            values[gone] = arena[start, 1]
            owners[gone] = slot
            gone += 1
            segments[slot, START] = start + 1
            segments[slot, ROOM] -= 1
            segments[slot, SIZE] -= 1
            counts[WASTED] += 1
            counts[LIVE] -= 1
            if segments[slot, SIZE] == 0:
                counts[WASTED] += segments[slot, ROOM]
                segments[slot, ROOM] = 0
    return gone


@njit(cache=True, nogil=True)
def drop_below(
    slots: Int32s,
    bounds: Int64s,
    segments: Int64s,
    arena: Int64s,
    counts: Int64s,
    values: Int64s,
    owners: Int32s,
) -> int:
    """Take all entries of distinct slots that are below the slot's own bound. Returns how many were taken."""
    gone = 0
    for i in range(slots.shape[0]):
        slot = slots[i]
        if slot >= segments.shape[0]:
            continue
        while segments[slot, SIZE] > 0 and arena[segments[slot, START], 0] < bounds[i]:
            values[gone] = arena[segments[slot, START], 1]
            owners[gone] = slot
            gone += 1
            segments[slot, START] += 1
            segments[slot, ROOM] -= 1
            segments[slot, SIZE] -= 1
            counts[WASTED] += 1
            counts[LIVE] -= 1
        if segments[slot, SIZE] == 0:
            counts[WASTED] += segments[slot, ROOM]
            segments[slot, ROOM] = 0
    return gone


@njit(cache=True, nogil=True)
def earliest(segments: Int64s, arena: Int64s, none: int) -> int:
    """The least tick of all entries; `none` where there is no entry."""
    least = none
    for slot in range(segments.shape[0]):
        if segments[slot, SIZE] > 0:
            least = min(least, arena[segments[slot, START], 0])
    return least
