"""The matcher: a depth-first search in order of preference, for each key, that waits where it needs a further row.

The rows of a match follow one another, so the search's stack lies in the cells: the state a cell was entered with, and
the next way to try from it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from millrace.operators.match_recognize.condition_kernels import (
    FALSE,
    FAULT,
    NEXT,
    PREV,
    SLOT,
    STATE,
    TAINT,
    TRUE,
    WAIT,
    WAY,
    Machine,
    Rows,
    Rules,
    find,
    fold_accumulators,
    fold_sets,
    shifted,
    test,
)
from millrace.operators.match_recognize.programs import DEPTH_MAX

# An element of a typed array is an array to the checkers, and a number to Numba.
Int64s = Any
Int32s = Any
Words = Any

HEAD, TAIL, START, CURRENT, FIRST_WAY, KEPT, NUMBER = range(7)
"""Columns of `keys`: first and last cell, where the search stands (start, deepest cell, next way of the first row),
cells before the start, and the number of matches."""
SKIP_PAST, SKIP_NEXT, SKIP_FIRST, SKIP_LAST = range(4)
FINAL, HORIZON, WITHIN, BACK, AHEAD, SKIP, SKIP_SET, SETS_TESTED, MEMO, ALL_ROWS, MEMBERS = range(11)
"""Places in `settings`. HORIZON: no row with a lower tick is to come. WITHIN -1: no bound."""
FREE, USED, MATCHES, ENTRIES, MEMBER_ROWS, GONE, FAULTS = range(7)
"""Places in `counts`: free cells, cells ever used, then how much of each output is written."""


class Search(NamedTuple):
    """Where searches stand, and what is free."""

    settings: Int64s
    keys: Int64s
    free: Int32s
    counts: Int64s


class Found(NamedTuple):
    """Where matches are written: a match, an output row, a row of a match; rows to forget, and rows at fault."""

    slots: Int64s
    numbers: Int64s
    match: Int64s
    member: Int64s
    rows: Int64s
    variables: Int64s
    targets: Int64s
    member_rows: Int64s
    member_variables: Int64s
    member_match: Int64s
    faults: Int64s
    gone: Int64s
    gone_slots: Int64s


@njit(cache=True, nogil=True)
def append(
    slots: Int32s,
    numbers: Int64s,
    ticks: Int64s,
    truth: Words,
    valid: Words,
    words: Int64s,
    search: Search,
    rows: Rows,
) -> None:
    """Rows (those of a key in order) become cells behind their key's last."""
    keys, links, counts = search.keys, rows.links, search.counts
    for i in range(len(slots)):
        if counts[FREE]:
            counts[FREE] -= 1
            cell = int(search.free[counts[FREE]])
        else:
            cell = counts[USED]
            counts[USED] += 1
        slot = slots[i]
        rows.row[cell] = numbers[i]
        rows.tick[cell] = ticks[i]
        rows.truth[cell] = truth[i]
        rows.valid[cell] = valid[i]
        for w in range(words.shape[1]):
            rows.words[cell, w] = words[i, w]
        if search.settings[MEMO]:
            rows.failed[cell] = 0
        rows.reported[cell] = 0
        tail = keys[slot, TAIL]
        links[cell, SLOT] = slot
        links[cell, NEXT] = -1
        links[cell, PREV] = tail
        links[cell, STATE] = 0
        links[cell, TAINT] = 0
        if tail < 0:
            keys[slot, HEAD] = cell
        else:
            links[tail, NEXT] = cell
        keys[slot, TAIL] = cell
        if keys[slot, START] < 0:
            keys[slot, START] = cell
            keys[slot, CURRENT] = -1
            keys[slot, FIRST_WAY] = 0


@njit(cache=True, nogil=True)
def restart(slots: Int32s, kept: Int64s, keys: Int64s, links: Int32s) -> None:
    """The search of each of these keys stands before its row number `kept`, of those just appended."""
    for i in range(len(slots)):
        slot = slots[i]
        cell = keys[slot, HEAD]
        for _ in range(kept[i]):
            cell = int(links[cell, NEXT])
        keys[slot, START] = cell
        keys[slot, KEPT] = kept[i]


@njit(cache=True, nogil=True, forceinline=True)
def release(slot: int, target: int, search: Search, rows: Rows, found: Found) -> None:
    """The search's start moves on to `target` (-1: behind the last row); cells too far behind it are freed."""
    keys, links, counts = search.keys, rows.links, search.counts
    at = keys[slot, START]
    kept = keys[slot, KEPT]
    while at != target and at >= 0:
        kept += 1
        at = int(links[at, NEXT])
    keys[slot, START] = target
    keys[slot, CURRENT] = -1
    keys[slot, FIRST_WAY] = 0
    head = keys[slot, HEAD]
    while kept > search.settings[BACK]:
        found.gone[counts[GONE]] = rows.row[head]
        found.gone_slots[counts[GONE]] = slot
        counts[GONE] += 1
        search.free[counts[FREE]] = head
        counts[FREE] += 1
        head = int(links[head, NEXT])
        kept -= 1
    if head >= 0:
        links[head, PREV] = -1
    else:
        keys[slot, TAIL] = -1
    keys[slot, HEAD] = head
    keys[slot, KEPT] = kept


@njit(cache=True, nogil=True)
def tell(
    slot: int, start: int, end: int, length: int, search: Search, rules: Rules, rows: Rows, found: Found
) -> None:
    """Write a match down: an entry for each output row, with the rows its navigation leads to."""
    settings, counts, links = search.settings, search.counts, rows.links
    match = counts[MATCHES]
    search.keys[slot, NUMBER] += 1
    found.slots[match] = slot
    found.numbers[match] = search.keys[slot, NUMBER]
    counts[MATCHES] += 1
    before, cell = (-1), int(start)
    for _ in range(length):
        variable = rules.variables[links[cell, STATE]]
        fold_sets(cell, before, variable, settings[SETS_TESTED], len(rules.sets), rules.sets, rows)
        before, cell = cell, int(links[cell, NEXT])
    cell = int(start)
    for _ in range(length):
        state = links[cell, STATE]
        if settings[MEMBERS]:
            member = counts[MEMBER_ROWS]
            found.member_rows[member] = rows.row[cell]
            found.member_variables[member] = rules.variables[state]
            found.member_match[member] = match
            counts[MEMBER_ROWS] += 1
        if rules.shown[state] if settings[ALL_ROWS] else cell == end:
            entry = counts[ENTRIES]
            found.match[entry] = match
            found.member[entry] = counts[MEMBER_ROWS] - 1
            found.rows[entry] = rows.row[cell]
            found.variables[entry] = rules.variables[state]
            for t in range(len(rules.targets)):
                held, first, offset = rules.targets[t, 0], rules.targets[t, 1], rules.targets[t, 2]
                seen = int(end) if rules.targets[t, 4] else cell
                at = find(seen, start, held, first, offset, rules, rows)
                if at >= 0:
                    at = shifted(at, rules.targets[t, 3], links)
                found.targets[entry, t] = rows.row[at] if at >= 0 else -1
            counts[ENTRIES] += 1
        cell = int(links[cell, NEXT])


@njit(cache=True, nogil=True)
def follows(end: int, ahead: int, links: Int32s) -> bool:
    """Whether so many rows are there behind a cell."""
    for _ in range(ahead):
        end = int(links[end, NEXT])
        if end < 0:
            return False
    return True


@njit(cache=True, nogil=True)
def accept(slot: int, search: Search, rules: Rules, rows: Rows, found: Found) -> bool:
    """Write the match at hand down and go on behind it; False where there is no room for it."""
    settings, counts, links = search.settings, search.counts, rows.links
    start, end = search.keys[slot, START], search.keys[slot, CURRENT]
    length, cell = 1, start
    while cell != end:
        cell = int(links[cell, NEXT])
        length += 1
    entries = length if settings[ALL_ROWS] else 1
    if counts[MATCHES] >= len(found.slots) or counts[ENTRIES] + entries > len(found.match):
        return False
    if settings[MEMBERS] and counts[MEMBER_ROWS] + length > len(found.member_rows):
        return False
    tell(slot, start, end, length, search, rules, rows, found)
    goal = int(links[end, NEXT])
    if settings[SKIP] == SKIP_NEXT:
        goal = int(links[start, NEXT])
    elif settings[SKIP] == SKIP_FIRST:
        goal = int(rows.firsts[end, settings[SKIP_SET]])
    elif settings[SKIP] == SKIP_LAST:
        goal = int(rows.lasts[end, settings[SKIP_SET]])
    release(slot, goal, search, rows, found)
    return True


@njit(cache=True, nogil=True, forceinline=True)
def fail(slot: int, search: Search, rows: Rows, found: Found) -> None:
    """All ways from the deepest cell are tried: back to the one before, or on to the next start."""
    keys, links = search.keys, rows.links
    start, current = keys[slot, START], keys[slot, CURRENT]
    if current < 0:
        release(slot, int(links[start, NEXT]), search, rows, found)
        return
    before = -1 if current == start else int(links[current, PREV])
    if search.settings[MEMO]:
        if not links[current, TAINT]:
            rows.failed[current] |= np.uint64(1) << np.uint64(links[current, STATE])
        elif before >= 0:
            links[before, TAINT] = 1
    keys[slot, CURRENT] = before


@njit(cache=True, nogil=True, forceinline=True)
def enter(
    slot: int, cell: int, target: int, search: Search, rules: Rules, rows: Rows, machine: Machine
) -> int:
    """Try a row as the next one of the way at hand, in state `target`: FALSE, TRUE, WAIT or FAULT."""
    settings = search.settings
    start, current = search.keys[slot, START], search.keys[slot, CURRENT]
    final, within = settings[FINAL], settings[WITHIN]
    if cell < 0:
        if not final and not (within >= 0 and settings[HORIZON] - rows.tick[start] >= within):
            return WAIT
        if current >= 0 and not final:
            rows.links[current, TAINT] = 1
        return FALSE
    if within >= 0 and rows.tick[cell] - rows.tick[start] >= within:
        if current >= 0:
            rows.links[current, TAINT] = 1
        return FALSE
    if settings[MEMO] and rows.failed[cell] >> np.uint64(target) & np.uint64(1):
        return FALSE
    variable = rules.variables[target]
    if rules.tested[variable] and not rows.truth[cell] >> np.uint64(variable) & np.uint64(1):
        return FALSE
    rows.links[cell, STATE] = target
    fold_sets(cell, current, variable, 0, settings[SETS_TESTED], rules.sets, rows)
    if len(rules.accumulators):
        fold_accumulators(cell, current, variable, rules, rows)
    if rules.code_begins[variable] == rules.code_begins[variable + 1]:
        return TRUE
    return test(variable, cell, start, final, rules, rows, machine)


@njit(cache=True, nogil=True)
def search_on(first: int, slots: Int32s, search: Search, rules: Rules, rows: Rows, found: Found) -> int:
    """Search on for these keys from number `first`; how many are done. Stops early where an output is full."""
    machine = Machine(
        np.empty(DEPTH_MAX + 2, np.int64), np.empty(DEPTH_MAX + 2, np.uint64), np.empty(DEPTH_MAX + 2, np.float64),
        np.empty(DEPTH_MAX + 2, np.int64),
    )  # fmt: skip
    keys, links, counts, settings = search.keys, rows.links, search.counts, search.settings
    for i in range(first, len(slots)):
        slot = int(slots[i])
        while keys[slot, START] >= 0:
            current = keys[slot, CURRENT]
            if current < 0:
                state, way, cell = 0, keys[slot, FIRST_WAY], keys[slot, START]
            else:
                state, way, cell = (
                    int(links[current, STATE]), int(links[current, WAY]), int(links[current, NEXT]),
                )  # fmt: skip
            at = rules.begins[state] + way
            if at >= rules.begins[state + 1]:
                fail(slot, search, rows, found)
                continue
            target = int(rules.ways[at])
            if target < 0:
                if settings[AHEAD] and not settings[FINAL] and not follows(current, settings[AHEAD], links):
                    break
                if not accept(slot, search, rules, rows, found):
                    return i
                continue
            met = enter(slot, cell, target, search, rules, rows, machine)
            if met == WAIT:
                break
            if met == FAULT and not rows.reported[cell]:
                if counts[FAULTS] >= len(found.faults):
                    return i
                rows.reported[cell] = 1
                found.faults[counts[FAULTS]] = rows.row[cell]
                counts[FAULTS] += 1
            if current < 0:
                keys[slot, FIRST_WAY] = way + 1
            else:
                links[current, WAY] = way + 1
            if met == TRUE:
                links[cell, WAY] = 0
                links[cell, TAINT] = 0
                keys[slot, CURRENT] = cell
    return len(slots)
