"""Kernels of frames that slide up to the current row, over numbers.

Each slot has a ring of entries in one arena, taken as two stacks: an entry before `middle` holds the
aggregate from itself up to `middle`, and the aggregate from there on runs along in `back`. A row costs a
constant, floating sums are never subtracted from, and a NaN or a huge value leaves with its row. `meta` has a
row a slot: offset into the arena, capacity (a power of two or 0), head, length, middle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]

SUM, LEAST = 0, 1
OFFSET, CAPACITY, HEAD, LENGTH, MIDDLE = 0, 1, 2, 3, 4
_SMALLEST_RING = 4


@njit(inline="always")
def _flip(ring: Any, values: Any, counts: Any, op: int, initial: Any) -> None:
    """Turn all entries into aggregates from themselves to the end."""
    value = initial
    count = np.int32(0)
    mask = ring[CAPACITY] - 1
    for place in range(ring[HEAD] + ring[LENGTH] - 1, ring[HEAD] - 1, -1):
        at = ring[OFFSET] + (place & mask)
        if op == SUM:
            value = values[at] + value
        else:
            value = min(value, values[at])
        count += counts[at]
        values[at] = value
        counts[at] = count
    ring[MIDDLE] = ring[LENGTH]


@njit(nogil=True)
def _move(ring: Any, values: Any, counts: Any, arena_ticks: Any, ticks: Any, used: int) -> int:
    """Move a full ring to twice the room behind `used`; the arena's use then, -1 where it has no such room."""
    capacity = max(_SMALLEST_RING, 2 * ring[CAPACITY])
    if used + capacity > len(values):
        return -1
    for k in range(ring[LENGTH]):
        old = ring[OFFSET] + ((ring[HEAD] + k) & (ring[CAPACITY] - 1))
        values[used + k] = values[old]
        counts[used + k] = counts[old]
        if ticks is not None:
            arena_ticks[used + k] = arena_ticks[old]
    ring[OFFSET] = used
    ring[CAPACITY] = capacity
    ring[HEAD] = 0
    return used + capacity


@njit(cache=True, nogil=True)
def slide(
    first: int,
    slots: Any,
    values: Any,
    valid: Any,
    ticks: Any,
    resets: Any,
    rows: int,
    span: int,
    op: int,
    initial: Any,
    meta: Int64s,
    arena: Any,
    back: Any,
    arena_used: int,
    out_values: Any,
    out_counts: Any,
) -> tuple[int, int]:
    """Rows from `first` on; returns the row at which the arena was full (all: the number of rows) and its use.

    Without `ticks` a frame has `rows` rows at most; with them, those of at least the row's tick less `span`.
    `values` hold `initial` where null; `valid` (None: all) and `resets` (None: never) are one a row.
    `arena` is values, counts and ticks; `back` values and counts by slot.
    """
    arena_values, arena_counts, arena_ticks = arena
    back_values, back_counts = back
    for i in range(first, len(slots)):
        slot = np.uint64(slots[i])
        ring = meta[slot]
        if resets is not None and resets[i]:
            ring[LENGTH] = 0
            ring[MIDDLE] = 0
            back_values[slot] = initial
            back_counts[slot] = 0
        while ring[LENGTH] > 0:
            if ticks is None:
                stays = ring[LENGTH] < rows
            else:
                first_tick = arena_ticks[ring[OFFSET] + (ring[HEAD] & (ring[CAPACITY] - 1))]
                stays = first_tick >= ticks[i] - span
            if stays:
                break
            if ring[MIDDLE] == 0:
                _flip(ring, arena_values, arena_counts, op, initial)
                back_values[slot] = initial
                back_counts[slot] = 0
            ring[HEAD] += 1
            ring[LENGTH] -= 1
            ring[MIDDLE] -= 1
        if ring[LENGTH] == 0:
            back_values[slot] = initial
            back_counts[slot] = 0
        if ring[LENGTH] == ring[CAPACITY]:
            moved = _move(ring, arena_values, arena_counts, arena_ticks, ticks, arena_used)
            if moved < 0:
                return i, arena_used
            arena_used = moved
        value = values[i]
        count = np.int32(1)
        if valid is not None:
            count = np.int32(valid[i])
        at = ring[OFFSET] + ((ring[HEAD] + ring[LENGTH]) & (ring[CAPACITY] - 1))
        arena_values[at] = value
        arena_counts[at] = count
        if ticks is not None:
            arena_ticks[at] = ticks[i]
        ring[LENGTH] += 1
        count += back_counts[slot]
        if op == SUM:
            value = back_values[slot] + value
        else:
            value = min(back_values[slot], value)
        back_values[slot] = value
        back_counts[slot] = count
        if ring[MIDDLE] > 0:
            top = ring[OFFSET] + (ring[HEAD] & (ring[CAPACITY] - 1))
            count += arena_counts[top]
            if op == SUM:
                value = arena_values[top] + value
            else:
                value = min(value, arena_values[top])
        out_values[i] = value
        out_counts[i] = count
    return len(slots), arena_used


@njit(cache=True, nogil=True)
def slide_total(
    first: int,
    slots: Any,
    values: Any,
    valid: Any,
    ticks: Any,
    resets: Any,
    rows: int,
    span: int,
    meta: Int64s,
    arena: Any,
    totals: Int64s,
    arena_used: int,
    out: Int64s,
) -> tuple[int, int]:
    """As `slide`, for exact sums of integers: what leaves is subtracted. `values` are 0 where null.

    `totals` has by slot, and `out` by row: count, sum modulo 2^64, how often it wrapped.
    """
    arena_values, arena_counts, arena_ticks = arena
    for i in range(first, len(slots)):
        slot = np.uint64(slots[i])
        ring = meta[slot]
        total = totals[slot]
        if resets is not None and resets[i]:
            ring[LENGTH] = 0
            total[:] = 0
        floor = 0
        if ticks is not None:
            floor = ticks[i] - span
        while ring[LENGTH] > 0:
            at = ring[OFFSET] + (ring[HEAD] & (ring[CAPACITY] - 1))
            if ticks is None:
                if ring[LENGTH] < rows:
                    break
            else:
                if arena_ticks[at] >= floor:
                    break
            gone = arena_values[at]
            before = total[1]
            after = before - gone
            if ((before ^ gone) & (before ^ after)) < 0:
                total[2] += 1 if gone < 0 else -1
            total[1] = after
            total[0] -= arena_counts[at]
            ring[HEAD] += 1
            ring[LENGTH] -= 1
        if ring[LENGTH] == ring[CAPACITY]:
            moved = _move(ring, arena_values, arena_counts, arena_ticks, ticks, arena_used)
            if moved < 0:
                return i, arena_used
            arena_used = moved
        value = values[i]
        count = np.int64(1)
        if valid is not None:
            count = np.int64(valid[i])
        at = ring[OFFSET] + ((ring[HEAD] + ring[LENGTH]) & (ring[CAPACITY] - 1))
        arena_values[at] = value
        arena_counts[at] = count
        if ticks is not None:
            arena_ticks[at] = ticks[i]
        ring[LENGTH] += 1
        before = total[1]
        after = before + value
        if ((before ^ after) & (value ^ after)) < 0:
            total[2] += 1 if value >= 0 else -1
        total[1] = after
        total[0] += count
        out[i, 0] = total[0]
        out[i, 1] = after
        out[i, 2] = total[2]
    return len(slots), arena_used


@njit(cache=True, nogil=True)
def repack(
    slots: Any,
    meta: Int64s,
    values: Any,
    counts: Int32s,
    ticks: Int64s,
    new_values: Any,
    new_counts: Int32s,
    new_ticks: Int64s,
) -> int:
    """Move the rings of `slots` to new arenas, one behind the other, none larger than it need be; returns
    their use."""
    used = 0
    for i in range(len(slots)):
        ring = meta[slots[i]]
        length = ring[LENGTH]
        capacity = 0
        if length > 0:
            capacity = _SMALLEST_RING
            while capacity < length:
                capacity *= 2
        for k in range(length):
            old = ring[OFFSET] + ((ring[HEAD] + k) & (ring[CAPACITY] - 1))
            new_values[used + k] = values[old]
            new_counts[used + k] = counts[old]
            if len(ticks):
                new_ticks[used + k] = ticks[old]
        ring[OFFSET] = used
        ring[CAPACITY] = capacity
        ring[HEAD] = 0
        used += capacity
    return used


@njit(cache=True, nogil=True)
def gather(slots: Any, meta: Int64s, arena: Any, out: Any) -> None:
    """The entries of the rings of `slots`, in order, one ring behind the other."""
    done = 0
    for i in range(len(slots)):
        ring = meta[slots[i]]
        for k in range(ring[LENGTH]):
            out[done + k] = arena[ring[OFFSET] + ((ring[HEAD] + k) & (ring[CAPACITY] - 1))]
        done += ring[LENGTH]


@njit(cache=True, nogil=True)
def last_peers(slots: Any, ticks: Int64s, latest: Int64s, out: Int64s) -> None:
    """The position of each row's last peer; rows are in order of ticks. `latest` is scratch, one a slot, of
    -1."""
    for i in range(len(slots) - 1, -1, -1):
        slot = slots[i]
        last = latest[slot]
        if last >= 0 and ticks[last] == ticks[i]:
            out[i] = last
        else:
            latest[slot] = i
            out[i] = i
    for i in range(len(slots)):
        latest[slots[i]] = -1


@njit(cache=True, nogil=True)
def expired(slots: Any, ticks: Any, marks: Any, after: int, latest: Int64s, out: Bytes) -> None:
    """1 where a row's tick, or the watermark it came behind (`marks`, None: none), is more than `after` past
    its slot's last tick.

    `latest` is kept by slot (least int64: none).
    """
    for i in range(len(slots)):
        slot = slots[i]
        last = latest[slot]
        tick = ticks[i]
        if marks is not None:
            tick = max(tick, marks[i])
        out[i] = last != np.iinfo(np.int64).min and tick - last > after
        latest[slot] = ticks[i] if out[i] else max(last, ticks[i])


@njit(cache=True, nogil=True)
def number(slots: Any, resets: Any, seen: Int64s, out: Int64s) -> None:
    """Row numbers from 1 by slot, from 1 again at a reset; `seen` is kept by slot."""
    for i in range(len(slots)):
        slot = slots[i]
        if resets is not None and resets[i]:
            seen[slot] = 0
        seen[slot] += 1
        out[i] = seen[slot]


@njit(cache=True, nogil=True)
def rank(
    slots: Any, ticks: Any, resets: Any, state: Int64s, numbers: Int64s, ranks: Int64s, dense: Int64s
) -> None:
    """Row number, rank and dense rank; `state` has them by slot, and the last tick. Without ticks no row has
    peers."""
    for i in range(len(slots)):
        kept = state[slots[i]]
        if resets is not None and resets[i]:
            kept[:] = 0
        kept[0] += 1
        tick = kept[0]
        if ticks is not None:
            tick = ticks[i]
        if kept[0] == 1 or kept[3] != tick:
            kept[1] = kept[0]
            kept[2] += 1
            kept[3] = tick
        numbers[i] = kept[0]
        ranks[i] = kept[1]
        dense[i] = kept[2]


@njit(cache=True, nogil=True)
def look_back(
    slots: Any,
    values: Int64s,
    valid: Any,
    resets: Any,
    clip: bool,
    seen: Int64s,
    ring_values: Any,
    ring_valid: Any,
    out: Int64s,
    found: Bytes,
) -> None:
    """The value as many rows back as the rings are wide, or with `clip` the oldest there is up to that.

    `found` is 1 for a value, 0 for null, 2 where there is no such row. `seen` and the rings are kept by slot.
    """
    width = ring_values.shape[1]
    for i in range(len(slots)):
        slot = slots[i]
        if resets is not None and resets[i]:
            seen[slot] = 0
        count = seen[slot]
        known = 1
        if valid is not None:
            known = valid[i]
        back = width
        if clip and count < width:
            back = count
        if back == 0:
            out[i] = values[i]
            found[i] = known
        elif count < back:
            out[i] = 0
            found[i] = 2
        else:
            at = (count - back) % width
            out[i] = ring_values[slot, at]
            found[i] = ring_valid[slot, at]
        ring_values[slot, count % width] = values[i]
        ring_valid[slot, count % width] = known
        seen[slot] = count + 1
