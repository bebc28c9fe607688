"""Kernels of a timeline: by slot, a run of entries ordered by time in one arena. Knows no row and no watermark.

An arena entry is (tick, `row << 1 | matched`). A segment is (start, size, room, last): entries of a slot from
`start`, room for more before it has to move, and its latest tick.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Flags = npt.NDArray[np.uint8]

START, SIZE, ROOM, LAST = range(4)
USED, LIVE, WASTED, STRAY = range(4)
"""Places in `counts`: arena entries given out, entries that live, entries given up, rows left to be merged."""

_FAR = 24


@njit(cache=True, nogil=True, inline="always")
def _make_room(segments: Int64s, slot: int, more: int, arena: Int64s, counts: Int64s) -> bool:
    """Give the slot room for `more` entries behind its own; False where the arena is full."""
    size = segments[slot, SIZE]
    if segments[slot, ROOM] - size >= more:
        return True
    room = max(size + more, 2 * size) if size else more
    start = counts[USED]
    if start + room > arena.shape[0]:
        return False
    old = segments[slot, START]
    if old + segments[slot, ROOM] == start and segments[slot, ROOM] > 0:
        extra = room - segments[slot, ROOM]
        counts[USED] += extra
        segments[slot, ROOM] = room
        return True
    for i in range(size):
        arena[start + i, 0] = arena[old + i, 0]
        arena[start + i, 1] = arena[old + i, 1]
    counts[WASTED] += segments[slot, ROOM]
    counts[USED] += room
    segments[slot, START] = start
    segments[slot, ROOM] = room
    return True


@njit(cache=True, nogil=True)
def insert(
    first: int,
    slots: Int32s,
    ticks: Int64s,
    values: Int64s,
    segments: Int64s,
    arena: Int64s,
    counts: Int64s,
    strays: Int64s,
) -> int:
    """Put rows in from `first` on; returns the row for which the arena has no room, or their number.

    Rows whose place is far from the end of their segment are only listed in `strays`.
    """
    for i in range(first, slots.shape[0]):
        slot = slots[i]
        tick = ticks[i]
        size = segments[slot, SIZE]
        if size > 0 and tick < segments[slot, LAST]:
            end = segments[slot, START] + size
            at = end - 1
            low = max(segments[slot, START], end - _FAR)
            while at > low and arena[at - 1, 0] > tick:
                at -= 1
            if at > segments[slot, START] and arena[at - 1, 0] > tick:
                strays[counts[STRAY]] = i
                counts[STRAY] += 1
                continue
            before = end - at
            if not _make_room(segments, slot, 1, arena, counts):
                return i
            end = segments[slot, START] + size
            at = end - before
            for j in range(end, at, -1):
                arena[j, 0] = arena[j - 1, 0]
                arena[j, 1] = arena[j - 1, 1]
            arena[at, 0] = tick
            arena[at, 1] = values[i]
        else:
            if not _make_room(segments, slot, 1, arena, counts):
                return i
            at = segments[slot, START] + size
            arena[at, 0] = tick
            arena[at, 1] = values[i]
            segments[slot, LAST] = tick
        segments[slot, SIZE] = size + 1
        counts[LIVE] += 1
    return slots.shape[0]


@njit(cache=True, nogil=True)
def merge(
    first: int,
    order: Int64s,
    slots: Int32s,
    ticks: Int64s,
    values: Int64s,
    segments: Int64s,
    arena: Int64s,
    counts: Int64s,
) -> int:
    """Merge the rows listed in `order`, which is by (slot, tick), from place `first` on; returns as `insert` does."""
    total = order.shape[0]
    while first < total:
        slot = int(slots[order[first]])
        last = first + 1
        while last < total and slots[order[last]] == slot:
            last += 1
        if not _make_room(segments, slot, last - first, arena, counts):
            return first
        start = segments[slot, START]
        old = start + segments[slot, SIZE] - 1
        new = last - 1
        at = start + segments[slot, SIZE] + last - first - 1
        while new >= first:
            row = order[new]
            if old >= start and arena[old, 0] > ticks[row]:
                arena[at, 0] = arena[old, 0]
                arena[at, 1] = arena[old, 1]
                old -= 1
            else:
                arena[at, 0] = ticks[row]
                arena[at, 1] = values[row]
                new -= 1
            at -= 1
        segments[slot, SIZE] += last - first
        segments[slot, LAST] = arena[start + segments[slot, SIZE] - 1, 0]
        counts[LIVE] += last - first
        first = last
    return total


@njit(cache=True, nogil=True)
def compact(segments: Int64s, arena: Int64s, counts: Int64s, out: Int64s) -> None:
    """Copy all segments to a new arena, each with the room it needs now and half as much again where it had more."""
    at = 0
    for slot in range(segments.shape[0]):
        size = segments[slot, SIZE]
        if size == 0:
            segments[slot, START] = 0
            segments[slot, ROOM] = 0
            continue
        start = segments[slot, START]
        for i in range(size):
            out[at + i, 0] = arena[start + i, 0]
            out[at + i, 1] = arena[start + i, 1]
        room = min(segments[slot, ROOM], size + (size >> 1))
        segments[slot, START] = at
        segments[slot, ROOM] = room
        at += room
    counts[USED] = at
    counts[WASTED] = 0


@njit(cache=True, nogil=True, inline="always")
def _lower(arena: Int64s, low: int, high: int, tick: int) -> int:
    """The first place from `low` to `high` whose tick is not below `tick`."""
    while low < high:
        middle = (low + high) >> 1
        if arena[middle, 0] < tick:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def ranges(
    slots: Int32s,
    ticks: Int64s,
    lower: int,
    upper: int,
    segments: Int64s,
    arena: Int64s,
    begins: Int64s,
    counts: Int64s,
) -> int:
    """For each row the entries of its slot from `tick + lower` to `tick + upper`: the first and how many. Their sum."""
    total = 0
    for i in range(slots.shape[0]):
        slot = slots[i]
        begins[i] = 0
        counts[i] = 0
        if slot < 0 or slot >= segments.shape[0]:
            continue
        size = segments[slot, SIZE]
        low = ticks[i] + lower
        if size == 0 or segments[slot, LAST] < low:
            continue
        start = segments[slot, START]
        high = ticks[i] + upper
        begin = start if arena[start, 0] >= low else _lower(arena, start, start + size, low)
        if segments[slot, LAST] <= high:
            end = start + size
        else:
            end = begin
            step = 1
            while end + step < start + size and arena[end + step, 0] <= high:
                end += step
                step *= 2
            end = _lower(arena, end, min(start + size, end + step), high + 1)
        begins[i] = begin
        counts[i] = end - begin
        total += end - begin
    return total


@njit(cache=True, nogil=True)
def expand(
    first: int,
    last: int,
    begins: Int64s,
    counts: Int64s,
    arena: Int64s,
    rows: Int64s,
    places: Int64s,
    stored: Int64s,
) -> None:
    """Each of the rows from `first` to `last` once for each of its entries: row, place in the arena, stored row."""
    n = 0
    for i in range(first, last):
        begin = begins[i]
        for k in range(counts[i]):
            rows[n] = i
            places[n] = begin + k
            stored[n] = arena[begin + k, 1] >> 1
            n += 1


@njit(cache=True, nogil=True)
def mark(places: Int64s, arena: Int64s, fresh: Flags) -> int:
    """Mark entries as matched; `fresh` says which were not before. Returns how many."""
    total = 0
    for i in range(places.shape[0]):
        value = arena[places[i], 1]
        if value & 1:
            fresh[i] = 0
        else:
            arena[places[i], 1] = value | 1
            fresh[i] = 1
            total += 1
    return total


@njit(cache=True, nogil=True)
def drop_first(
    slots: Int32s, segments: Int64s, arena: Int64s, counts: Int64s, values: Int64s, empty: Int32s
) -> int:
    """Take the earliest entry off each slot (repeats take more); lists slots that have become empty."""
    gone = 0
    for i in range(slots.shape[0]):
        slot = slots[i]
        start = segments[slot, START]
        values[i] = arena[start, 1]
        segments[slot, START] = start + 1
        segments[slot, ROOM] -= 1
        segments[slot, SIZE] -= 1
        counts[WASTED] += 1
        if segments[slot, SIZE] == 0:
            empty[gone] = slot
            gone += 1
            counts[WASTED] += segments[slot, ROOM]
            segments[slot, ROOM] = 0
    counts[LIVE] -= slots.shape[0]
    return gone


@njit(cache=True, nogil=True)
def live(segments: Int64s, arena: Int64s, slots: Int32s, ticks: Int64s, values: Int64s) -> None:
    """All entries by slot and time."""
    n = 0
    for slot in range(segments.shape[0]):
        start = segments[slot, START]
        for i in range(start, start + segments[slot, SIZE]):
            slots[n] = slot
            ticks[n] = arena[i, 0]
            values[n] = arena[i, 1]
            n += 1
