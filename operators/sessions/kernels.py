"""Kernels of session windows: rows find, start and join sessions; a heap says which are over.

Sessions are numbered; `times` holds first, last of each, `links` the next older and next newer session of the
same key (-1: none) and the key's slot, `flags` what is to be remembered of it. A key's sessions are
linked newest last time first, from `heads[slot]`. Every session that is not FREE has exactly one heap entry.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

# An element of a typed array is an array to the checkers, and a number to Numba.
Int64s = Any
Int32s = Any
Bytes = Any

FREE, OPEN, DEAD = 0, 1, 2
"""The low two bits of a flag. DEAD: joined to another, kept only until its heap entry comes up."""
LIFE = 3
SENT = 4
"""The session's row has been sent and not been taken back."""
OVER = 8
"""The session was over once and is kept for late rows."""
DIRTY = 16
"""Changed since rows were last sent."""
UNSAVED = 32
"""Changed since the last capture."""
SAVED = 64
"""Part of the last capture."""

LATE = -1


@njit(cache=True, nogil=True)
def push(heap: Int64s, size: int, time: int, session: int) -> int:
    """Add an entry to the heap (two int64 an entry: time, session); returns its new size."""
    at = size
    while at > 0:
        above = (at - 1) >> 1
        if heap[2 * above] <= time:
            break
        heap[2 * at] = heap[2 * above]
        heap[2 * at + 1] = heap[2 * above + 1]
        at = above
    heap[2 * at] = time
    heap[2 * at + 1] = session
    return size + 1


@njit(cache=True, nogil=True)
def replace_top(heap: Int64s, size: int, time: int, session: int) -> None:
    """Put an entry in place of the least one."""
    at = 0
    while True:
        below = 2 * at + 1
        if below >= size:
            break
        if below + 1 < size and heap[2 * below + 2] < heap[2 * below]:
            below += 1
        if heap[2 * below] >= time:
            break
        heap[2 * at] = heap[2 * below]
        heap[2 * at + 1] = heap[2 * below + 1]
        at = below
    heap[2 * at] = time
    heap[2 * at + 1] = session


@njit(cache=True, nogil=True)
def unlink(session: int, links: Int32s, heads: Int32s) -> None:
    """Take a session out of its key's list."""
    older, newer = links[session, 0], links[session, 1]
    if newer >= 0:
        links[newer, 0] = older
    else:
        heads[links[session, 2]] = older
    if older >= 0:
        links[older, 1] = newer


@njit(cache=True, nogil=True)
def start(
    session: int, tick: int, slot: int, newer: int, times: Int64s, links: Int32s, heads: Int32s
) -> None:
    """Make a session of one row and link it behind `newer` (-1: in front) of its key."""
    times[session, 0] = tick
    times[session, 1] = tick
    older = heads[slot] if newer < 0 else links[newer, 0]
    links[session, 0] = older
    links[session, 1] = newer
    links[session, 2] = slot
    if newer >= 0:
        links[newer, 0] = session
    else:
        heads[slot] = session
    if older >= 0:
        links[older, 1] = session


@njit(cache=True, nogil=True)
def assign(
    slots: Int32s,
    ticks: Int64s,
    marks: Int64s,
    watermark: int,
    gap: int,
    lateness: int,
    times: Int64s,
    links: Int32s,
    flags: Bytes,
    heads: Int32s,
    heap: Int64s,
    free: Int32s,
    counts: Int64s,
    out: Int32s,
    touched: Int32s,
    joined: Int32s,
    before: Int64s,
) -> None:
    """Give every row its session in `out` (LATE: none), in order of arrival.

    `marks` is the watermark before each row, or empty. `counts` is in and out: heap size, free sessions, rows
    late, sessions touched, pairs joined, rows to take back. `touched` gets every session that became DIRTY;
    `joined` pairs (session that died, session that took it over, which may itself have died later); `before`
    the session, first and last as they stood in rows that have been sent and no longer hold. A session that
    was OVER and takes a row dies and lives on under a new number, so that the heap asks again when it is
    over.
    """
    heap_size, free_count = counts[0], counts[1]
    late, touches, joins, takebacks = 0, 0, 0, 0
    has_marks = marks.shape[0] > 0
    for i in range(slots.shape[0]):
        tick = ticks[i]
        mark = watermark
        if has_marks and marks[i] > mark:
            mark = marks[i]
        if mark - gap - lateness >= tick:
            out[i] = LATE
            late += 1
            continue
        slot = slots[i]
        session = heads[slot]
        newer = -1
        while session >= 0 and times[session, 0] - gap >= tick:
            newer = session
            session = links[session, 0]
        found = -1
        while session >= 0 and times[session, 1] + gap > tick:
            older = links[session, 0]
            if times[session, 0] - gap >= tick or mark - gap - lateness >= times[session, 1]:
                # Out of reach, or over by the watermark this row came behind.
                if found < 0 and times[session, 1] >= tick:
                    newer = session
                session = older
                continue
            if flags[session] & SENT:
                before[takebacks, 0] = session
                before[takebacks, 1] = times[session, 0]
                before[takebacks, 2] = times[session, 1]
                takebacks += 1
                flags[session] &= ~np.uint8(SENT)
            if found < 0 and not flags[session] & OVER:
                found = session
                times[found, 0] = min(times[found, 0], tick)
                times[found, 1] = max(times[found, 1], tick)
            else:
                if found < 0:
                    free_count -= 1
                    found = free[free_count]
                    start(found, tick, slot, links[session, 1], times, links, heads)
                    flags[found] = OPEN
                    heap_size = push(heap, heap_size, max(tick, times[session, 1]) + gap, found)
                times[found, 0] = min(times[found, 0], times[session, 0])
                times[found, 1] = max(times[found, 1], times[session, 1])
                unlink(session, links, heads)
                flags[session] = (flags[session] & ~np.uint8(LIFE)) | DEAD
                joined[joins, 0] = session
                joined[joins, 1] = found
                joins += 1
            session = older
        if found < 0:
            free_count -= 1
            found = free[free_count]
            start(found, tick, slot, newer, times, links, heads)
            flags[found] = OPEN
            heap_size = push(heap, heap_size, tick + gap, found)
        if not flags[found] & DIRTY:
            touched[touches] = found
            touches += 1
        flags[found] |= DIRTY | UNSAVED
        out[i] = found
    counts[0], counts[1], counts[2] = heap_size, free_count, late
    counts[3], counts[4], counts[5] = touches, joins, takebacks


@njit(cache=True, nogil=True)
def follow_joins(joined: Int32s, joins: int, parents: Int32s, out: Int32s) -> None:
    """Send rows and pairs on from sessions that died to those that live. `parents` is scratch, one a
    session."""
    for j in range(joins):
        parents[joined[j, 0]] = joined[j, 0]
        parents[joined[j, 1]] = joined[j, 1]
    for i in range(out.shape[0]):
        if out[i] >= 0:
            parents[out[i]] = out[i]
    for j in range(joins):
        parents[joined[j, 0]] = joined[j, 1]
    for j in range(joins):
        root = joined[j, 1]
        while parents[root] != root:
            root = parents[root]
        joined[j, 1] = root
        parents[joined[j, 0]] = root
    for i in range(out.shape[0]):
        if out[i] >= 0:
            out[i] = parents[out[i]]


@njit(cache=True, nogil=True)
def due(
    watermark: int,
    gap: int,
    lateness: int,
    times: Int64s,
    links: Int32s,
    flags: Bytes,
    heads: Int32s,
    heap: Int64s,
    free: Int32s,
    counts: Int64s,
    over: Int32s,
    gone: Int32s,
    empty: Int32s,
) -> None:
    """Find the sessions that a watermark ends.

    `over` gets those to be sent, `gone` those to be forgotten (no longer linked; the caller frees them with
    `release`), `empty` the slots of keys left without a session. `counts`: heap size, free sessions, then how
    many are over, gone, empty. DEAD sessions that come up are freed here.
    """
    size, free_count = counts[0], counts[1]
    overs, gones, empties = 0, 0, 0
    while size > 0 and heap[0] <= watermark:
        session = heap[1]
        flag = flags[session]
        forget = False
        if flag & LIFE == OPEN:
            end = times[session, 1] + gap
            if end > watermark:
                flags[session] = flag & ~np.uint8(OVER)
                replace_top(heap, size, end, session)
                continue
            if not flag & OVER:
                over[overs] = session
                overs += 1
                flags[session] |= OVER | UNSAVED
            if end + lateness > watermark:
                replace_top(heap, size, end + lateness, session)
                continue
            forget = True
        size -= 1
        replace_top(heap, size, heap[2 * size], heap[2 * size + 1])
        if forget:
            unlink(session, links, heads)
            if heads[links[session, 2]] < 0:
                empty[empties] = links[session, 2]
                empties += 1
            gone[gones] = session
            gones += 1
        else:
            flags[session] = FREE
            free[free_count] = session
            free_count += 1
    counts[0], counts[1], counts[2], counts[3], counts[4] = size, free_count, overs, gones, empties
