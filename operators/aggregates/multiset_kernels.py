"""Kernels of multisets by group: linked lists of entries, counts by lane, extremes. Entries and groups are slots."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def link(created: Any, groups: Any, head: Any, after: Any, before: Any) -> None:
    """Put new entries in front of the list of their group."""
    for i in range(len(created)):
        entry = created[i]
        group = groups[entry]
        first = head[group]
        after[entry] = first
        before[entry] = -1
        if first >= 0:
            before[first] = entry
        head[group] = entry


@njit(cache=True, nogil=True)
def unlink(entries: Any, groups: Any, head: Any, after: Any, before: Any) -> None:
    """Take entries out of their lists."""
    for i in range(len(entries)):
        entry = entries[i]
        behind, ahead = after[entry], before[entry]
        if ahead >= 0:
            after[ahead] = behind
        else:
            head[groups[entry]] = behind
        if behind >= 0:
            before[behind] = ahead


@njit(cache=True, nogil=True)
def measure(slots: Any, head: Any, after: Any, offsets: Any) -> None:
    """offsets[i + 1] - offsets[i] = length of the list of slots[i]."""
    total = 0
    offsets[0] = 0
    for i in range(len(slots)):
        entry = head[slots[i]]
        while entry >= 0:
            total += 1
            entry = after[entry]
        offsets[i + 1] = total


@njit(cache=True, nogil=True)
def walk(slots: Any, head: Any, after: Any, out: Any) -> None:
    """The entries of the lists of `slots`, one list behind the other."""
    at = 0
    for i in range(len(slots)):
        entry = head[slots[i]]
        while entry >= 0:
            out[at] = entry
            at += 1
            entry = after[entry]


@njit(cache=True, nogil=True)
def see(entries: Any, slots: Any, mask: Any, lanes: Any, seen: Any, distinct: Any) -> None:
    """Append-only: lane bits of row i new to its entry add one to distinct[slot, lane]. `lanes` None: lane 0."""
    for i in range(len(entries)):
        if mask is not None and mask[i] == 0:
            continue
        entry = np.uint64(entries[i])
        bits = np.int64(1)
        if lanes is not None:
            bits = lanes[i]
        fresh = bits & ~seen[entry]
        if fresh != 0:
            seen[entry] |= fresh
            slot = np.uint64(slots[i])
            lane = 0
            while fresh != 0:
                if fresh & 1:
                    distinct[slot, lane] += 1
                fresh >>= 1
                lane += 1


@njit(cache=True, nogil=True)
def count_lanes(entries: Any, slots: Any, lanes: Any, weights: Any, counts: Any, distinct: Any) -> None:
    """counts[entry, lane] += weight; distinct[slot, lane] follows as counts come from and go to 0 or below."""
    width = counts.shape[1]
    for i in range(len(entries)):
        entry, slot = np.uint64(entries[i]), np.uint64(slots[i])
        weight = np.int64(1)
        if weights is not None:
            weight = weights[i]
        for lane in range(width):
            if lanes is None or (lanes[i] >> lane) & 1:
                before = counts[entry, lane]
                after = before + weight
                counts[entry, lane] = after
                if before <= 0 and after > 0:
                    distinct[slot, lane] += 1
                elif before > 0 and after <= 0:
                    distinct[slot, lane] -= 1


@njit(cache=True, nogil=True)
def turn(entries: Any, weights: Any, counts: Any, turns: Any) -> None:
    """counts[entry, 0] += weight; turns[i] = +1 where that made the entry present, -1 where it ended that."""
    for i in range(len(entries)):
        entry = np.uint64(entries[i])
        weight = np.int64(1)
        if weights is not None:
            weight = weights[i]
        before = counts[entry, 0]
        counts[entry, 0] = before + weight
        turns[i] = 0
        if before <= 0 and before + weight > 0:
            turns[i] = 1
        elif before > 0 and before + weight <= 0:
            turns[i] = -1


@njit(cache=True, nogil=True)
def vanished(entries: Any, counts: Any, out: Any, flags: Any) -> int:
    """The distinct entries whose counts are all 0, into `out`; `flags` is all 0 before and after."""
    found = 0
    width = counts.shape[1]
    for i in range(len(entries)):
        entry = np.uint64(entries[i])
        if flags[entry] != 0:
            continue
        empty = True
        for lane in range(width):
            if counts[entry, lane] != 0:
                empty = False
        if empty:
            flags[entry] = 1
            out[found] = entries[i]
            found += 1
    for i in range(found):
        flags[np.uint64(out[i])] = 0
    return found


@njit(inline="always")
def _better(value: Any, rival: Any, sign: int) -> bool:
    """Whether `value` is before `rival`: greater (`sign` +1) or less. NaN, alone unequal to itself, is the greatest."""
    if sign > 0:
        return value > rival or (value != value and rival == rival)  # noqa: PLR0124
    return value < rival or (rival != rival and value == value)  # noqa: PLR0124


@njit(cache=True, nogil=True)
def raise_best(created: Any, groups: Any, values: Any, best: Any, sign: int) -> None:
    """best[group] (an entry; -1: none; -2: unknown) when entries with `values` are added; sign +1: greatest."""
    for i in range(len(created)):
        entry = created[i]
        group = groups[entry]
        rival = best[group]
        if rival == -2:
            continue
        if rival == -1 or _better(values[entry], values[rival], sign):
            best[group] = entry


@njit(cache=True, nogil=True)
def find_best(slots: Any, head: Any, after: Any, counts: Any, values: Any, best: Any, sign: int) -> None:
    """Find the best present entry of groups where it is unknown, or no longer present."""
    for i in range(len(slots)):
        group = slots[i]
        rival = best[group]
        if rival == -1 or (rival >= 0 and counts[rival, 0] > 0):
            continue
        rival = np.int32(-1)
        entry = head[group]
        while entry >= 0:
            if counts[entry, 0] > 0 and (rival < 0 or _better(values[entry], values[rival], sign)):
                rival = entry
            entry = after[entry]
        best[group] = rival


@njit(cache=True, nogil=True)
def doubt_best(entries: Any, groups: Any, best: Any) -> None:
    """Entries go: where one was the best, that is unknown."""
    for i in range(len(entries)):
        if best[groups[entries[i]]] == entries[i]:
            best[groups[entries[i]]] = -2
