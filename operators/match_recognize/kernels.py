"""The matcher: a depth-first search in order of preference, for each key, that waits where it needs a further row.

A row that is remembered is a *cell*; the cells of a key are linked in order. The rows of a match follow one another,
so the search's stack lies in the cells: the state a cell was entered with, and the next way to try from it. What
aggregates and FIRST/LAST need is kept the same way, as it was up to each cell.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from millrace.operators.match_recognize.programs import (
    ABS_F,
    ABS_I,
    ACC,
    ACC_AVG,
    ADD_F,
    ADD_I,
    AND,
    CHECK,
    COALESCE,
    COUNT,
    DEPTH_MAX,
    DIV_F,
    DIV_I,
    EQ_F,
    EQ_I,
    EQ_W,
    IS_FALSE,
    IS_NULL,
    IS_TRUE,
    LE_F,
    LE_I,
    LE_W,
    LT_F,
    LT_I,
    LT_W,
    MAX_I,
    MIN_F,
    MIN_I,
    MOD_F,
    MOD_I,
    MUL_F,
    MUL_I,
    NAV_F,
    NAV_I,
    NAV_W,
    NEG_F,
    NEG_I,
    NOT,
    OR,
    PUSH,
    PUSH_NULL,
    SAME_F,
    SAME_I,
    SAME_W,
    SCALE,
    SELECT,
    SUB_F,
    SUB_I,
    SUM_F,
    SUM_I,
    SWAP,
    TO_FLOAT,
)

NEXT, PREV, STATE, WAY, TAINT, SLOT = range(6)
"""Columns of `links`: neighbours of a cell, the state it was entered with, the next way on, whether WITHIN cut, its key."""
HEAD, TAIL, START, CURRENT, FIRST_WAY, KEPT, NUMBER = range(7)
"""Columns of `keys`: first and last cell, where the search stands (start, deepest cell, next way of the first row),
cells before the start, and the number of matches."""
SKIP_PAST, SKIP_NEXT, SKIP_FIRST, SKIP_LAST = range(4)
FINAL, HORIZON, WITHIN, BACK, AHEAD, SKIP, SKIP_SET, SETS_TESTED, MEMO, ALL_ROWS, MEMBERS = range(11)
"""Places in `settings`. HORIZON: no row with a lower tick is to come. WITHIN -1: no bound."""
FREE, USED, MATCHES, ENTRIES, ROWS, GONE, FAULTS = range(7)
"""Places in `counts`: free cells, cells ever used, then how much of each output is written."""
_OK, _NULL, _WRONG = 0, 1, 2
FALSE, TRUE, WAIT, FAULT = 0, 1, 2, 3
_INT_MIN = -(2**63)
_INT_MAX = 2**63 - 1


@njit(cache=True, nogil=True)
def append(slots, rows, ticks, truth, valid, words, keys, links, free, counts,
           cell_row, cell_tick, cell_truth, cell_valid, cell_words, failed, memo, reported):  # fmt: skip
    """Rows (those of a key in order) become cells behind their key's last."""
    width = words.shape[1]
    for i in range(len(slots)):
        if counts[FREE]:
            counts[FREE] -= 1
            cell = np.int64(free[counts[FREE]])
        else:
            cell = counts[USED]
            counts[USED] += 1
        slot = slots[i]
        cell_row[cell] = rows[i]
        cell_tick[cell] = ticks[i]
        cell_truth[cell] = truth[i]
        cell_valid[cell] = valid[i]
        for w in range(width):
            cell_words[cell, w] = words[i, w]
        if memo:
            failed[cell] = 0
        reported[cell] = 0
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
def restart(slots, kept, keys, links):
    """The search of each of these keys stands before its row number `kept`, of those just appended."""
    for i in range(len(slots)):
        slot = slots[i]
        cell = keys[slot, HEAD]
        for _ in range(kept[i]):
            cell = links[cell, NEXT]
        keys[slot, START] = cell
        keys[slot, KEPT] = kept[i]


@njit(cache=True, nogil=True)
def find(cell, start, held, first, offset, links, sets, state_variable, firsts, lasts):
    """The cell that FIRST or LAST means up to `cell`; -1: there is none."""
    if held < 0:
        at = start if first else cell
        for _ in range(offset):
            if at == (cell if first else start):
                return -1
            at = links[at, NEXT] if first else links[at, PREV]
        return at
    if not first:
        at = lasts[cell, held]
        for _ in range(offset):
            if at < 0 or at == start:
                return -1
            at = lasts[links[at, PREV], held]
        return at
    at = firsts[cell, held]
    for _ in range(offset):
        while True:
            if at < 0 or at == cell:
                return -1
            at = links[at, NEXT]
            if sets[held] >> state_variable[links[at, STATE]] & 1:
                break
    return at


@njit(cache=True, nogil=True)
def shifted(at, shift, links):
    """The cell so many rows on; -1 before the first row, -2 behind the last."""
    while shift < 0 and at >= 0:
        at = links[at, PREV]
        shift += 1
    if at < 0:
        return -1
    while shift > 0:
        at = links[at, NEXT]
        if at < 0:
            return -2
        shift -= 1
    return at


@njit(cache=True, nogil=True)
def fold_sets(cell, before, variable, low, high, sets, firsts, lasts):
    """First and last rows of sets `low` to `high`, up to a cell entered as `variable` behind `before` (-1: first)."""
    for held in range(low, high):
        first = np.int32(-1) if before < 0 else firsts[before, held]
        if sets[held] >> variable & 1:
            lasts[cell, held] = cell
            firsts[cell, held] = cell if first < 0 else first
        else:
            lasts[cell, held] = np.int32(-1) if before < 0 else lasts[before, held]
            firsts[cell, held] = first


@njit(cache=True, nogil=True)
def fold_accumulators(
    cell, before, variable, accumulators, sets, cell_valid, words, floats, sums, float_sums, marks
):
    """Accumulators up to a cell. `marks` has bit 2a where a has a value, bit 2a + 1 where it overflowed."""
    mark = np.uint64(0) if before < 0 else marks[before]
    for a in range(len(accumulators)):
        kind, held, column = accumulators[a, 0], accumulators[a, 1], accumulators[a, 2]
        has = np.uint64(1) << np.uint64(2 * a)
        value = np.int64(0) if before < 0 else sums[before, a]
        counts_in = held < 0 or sets[held] >> variable & 1
        if counts_in and (column < 0 or cell_valid[cell] >> np.uint64(column) & np.uint64(1)):
            if kind == COUNT:
                value += 1
            elif not mark & has:
                value = words[cell, column]
            elif kind == SUM_I:
                added = words[cell, column]
                total = value + added
                if ((value ^ total) & (added ^ total)) < 0:
                    mark |= has << np.uint64(1)
                value = total
            elif kind == MIN_I:
                value = min(value, words[cell, column])
            elif kind == MAX_I:
                value = max(value, words[cell, column])
            else:
                own, new = float_sums[before, a], floats[cell, column]
                if kind == SUM_F:
                    own += new
                elif kind == MIN_F:
                    own = min(own, new)
                else:
                    own = max(own, new)
                float_sums[cell, a] = own
                value = sums[cell, a]
            mark |= has
        sums[cell, a] = value
    marks[cell] = mark


@njit(cache=True, nogil=True)
def test(begin, end, cell, start, final, codes, constants, navigations, accumulators, links, sets, state_variable,
         firsts, lasts, cell_valid, words, floats, sums, float_sums, marks, ints, lows, reals, flags):  # fmt: skip
    """Whether a condition holds with the row of `cell` tentatively in its state: FALSE, TRUE, WAIT or FAULT."""
    top = -1
    for at in range(begin, end):
        op, x = codes[at, 0], codes[at, 1]
        if op <= NAV_W and op >= NAV_I:
            top += 1
            flags[top] = _NULL
            found = find(cell, start, navigations[x, 0], navigations[x, 1], navigations[x, 2], links, sets,
                         state_variable, firsts, lasts)  # fmt: skip
            if found >= 0 and navigations[x, 3] != 0:
                found = shifted(found, navigations[x, 3], links)
                if found == -2 and not final:
                    return WAIT
            column = navigations[x, 4]
            if found >= 0 and cell_valid[found] >> np.uint64(column) & np.uint64(1):
                flags[top] = _OK
                if op == NAV_F:
                    reals[top] = floats[found, column]
                else:
                    ints[top] = words[found, column]
                    if op == NAV_W:
                        lows[top] = np.uint64(words[found, column + 1])
        elif op == PUSH:
            top += 1
            flags[top] = _OK
            ints[top] = constants[x]
            lows[top] = np.uint64(constants[x + 1])
            reals[top] = constants[x : x + 1].view(np.float64)[0]
        elif op == PUSH_NULL:
            top += 1
            flags[top] = _NULL
        elif op == ACC or op == ACC_AVG:
            top += 1
            mark = marks[cell] >> np.uint64(2 * x)
            flags[top] = _OK if mark & np.uint64(1) or accumulators[x, 0] == COUNT else _NULL
            if mark & np.uint64(2):
                flags[top] = _WRONG
            ints[top] = sums[cell, x]
            reals[top] = float_sums[cell, x]
            if op == ACC_AVG and flags[top] == _OK:
                total = float_sums[cell, x] if accumulators[x, 0] == SUM_F else np.float64(sums[cell, x])
                reals[top] = total / sums[cell, x + 1]
        elif op == SWAP:
            ints[top], ints[top - 1] = ints[top - 1], ints[top]
            lows[top], lows[top - 1] = lows[top - 1], lows[top]
            reals[top], reals[top - 1] = reals[top - 1], reals[top]
            flags[top], flags[top - 1] = flags[top - 1], flags[top]
        elif op == AND or op == OR:
            top -= 1
            decides = 0 if op == AND else 1
            left = flags[top] == _OK and ints[top] == decides
            right = flags[top + 1] == _OK and ints[top + 1] == decides
            if left or right:
                flags[top] = _OK
                ints[top] = decides
            else:
                flags[top] = max(flags[top], flags[top + 1])
                ints[top] = 1 - decides
        elif op == NOT:
            ints[top] = 1 - ints[top]
        elif op == IS_NULL:
            ints[top] = 1 if flags[top] == _NULL else 0
            flags[top] = _WRONG if flags[top] == _WRONG else _OK
        elif op == IS_TRUE or op == IS_FALSE:
            ints[top] = 1 if flags[top] == _OK and (ints[top] != 0) == (op == IS_TRUE) else 0
            flags[top] = _WRONG if flags[top] == _WRONG else _OK
        elif op == SELECT:
            # Condition on top, then its value, then what stands otherwise.
            top -= 2
            if flags[top + 2] == _WRONG:
                flags[top] = _WRONG
            elif flags[top + 2] == _OK and ints[top + 2] != 0:
                ints[top], lows[top], reals[top], flags[top] = (
                    ints[top + 1],
                    lows[top + 1],
                    reals[top + 1],
                    flags[top + 1],
                )
        elif op == COALESCE:
            top -= 1
            if flags[top] == _NULL:
                ints[top], lows[top], reals[top], flags[top] = (
                    ints[top + 1],
                    lows[top + 1],
                    reals[top + 1],
                    flags[top + 1],
                )
        elif op == SAME_I or op == SAME_F or op == SAME_W:
            top -= 1
            if flags[top] == _WRONG or flags[top + 1] == _WRONG:
                flags[top] = _WRONG
            elif flags[top] == _NULL or flags[top + 1] == _NULL:
                ints[top] = 1 if flags[top] == flags[top + 1] else 0
                flags[top] = _OK
            elif op == SAME_F:
                ints[top] = 1 if reals[top] == reals[top + 1] else 0
            else:
                same = ints[top] == ints[top + 1] and (op == SAME_I or lows[top] == lows[top + 1])
                ints[top] = 1 if same else 0
        elif (
            op == NEG_I
            or op == NEG_F
            or op == ABS_I
            or op == ABS_F
            or op == TO_FLOAT
            or op == SCALE
            or op == CHECK
        ):
            one(op, x, top, constants, ints, reals, flags)
        else:
            top -= 1
            flags[top] = max(flags[top], flags[top + 1])
            if flags[top] == _OK:
                two(op, top, ints, lows, reals, flags)
    if flags[0] == _WRONG:
        return FAULT
    return TRUE if flags[0] == _OK and ints[0] != 0 else FALSE


@njit(cache=True, nogil=True)
def one(op, x, top, constants, ints, reals, flags):
    """An operation on the value on top."""
    if flags[top] != _OK:
        return
    if op == NEG_I or op == ABS_I:
        if ints[top] == _INT_MIN:
            flags[top] = _WRONG
        elif op == NEG_I or ints[top] < 0:
            ints[top] = -ints[top]
    elif op == NEG_F:
        reals[top] = -reals[top]
    elif op == ABS_F:
        reals[top] = abs(reals[top])
    elif op == TO_FLOAT:
        reals[top] = np.float64(ints[top])
        if x:
            reals[top] = reals[top] / 10.0**x
    elif op == SCALE:
        scaled(top, x, ints, flags)
    elif ints[top] < constants[x] or ints[top] > constants[x + 1]:
        flags[top] = _WRONG


@njit(cache=True, nogil=True)
def scaled(top, factor, ints, flags):
    """A product of integers, if it is one."""
    value = ints[top]
    product = value * factor
    if factor != 0 and (product // factor != value or (factor == -1 and value == _INT_MIN)):
        flags[top] = _WRONG
    ints[top] = product


@njit(cache=True, nogil=True)
def two(op, top, ints, lows, reals, flags):
    """An operation on the two values on top, neither null; the first one's place takes the result."""
    a, b = ints[top], ints[top + 1]
    if op == EQ_I:
        ints[top] = 1 if a == b else 0
    elif op == LT_I:
        ints[top] = 1 if a < b else 0
    elif op == LE_I:
        ints[top] = 1 if a <= b else 0
    elif op == EQ_F:
        ints[top] = 1 if reals[top] == reals[top + 1] else 0
    elif op == LT_F:
        ints[top] = 1 if reals[top] < reals[top + 1] else 0
    elif op == LE_F:
        ints[top] = 1 if reals[top] <= reals[top + 1] else 0
    elif op == EQ_W:
        ints[top] = 1 if a == b and lows[top] == lows[top + 1] else 0
    elif op == LT_W:
        ints[top] = 1 if a < b or (a == b and lows[top] < lows[top + 1]) else 0
    elif op == LE_W:
        ints[top] = 1 if a < b or (a == b and lows[top] <= lows[top + 1]) else 0
    elif op == ADD_I:
        total = a + b
        if ((a ^ total) & (b ^ total)) < 0:
            flags[top] = _WRONG
        ints[top] = total
    elif op == SUB_I:
        total = a - b
        if ((a ^ b) & (a ^ total)) < 0:
            flags[top] = _WRONG
        ints[top] = total
    elif op == MUL_I:
        scaled(top, b, ints, flags)
    elif op == ADD_F:
        reals[top] = reals[top] + reals[top + 1]
    elif op == SUB_F:
        reals[top] = reals[top] - reals[top + 1]
    elif op == MUL_F:
        reals[top] = reals[top] * reals[top + 1]
    elif op == DIV_I or op == MOD_I:
        if b == 0 or (b == -1 and a == _INT_MIN):
            flags[top] = _WRONG
        else:
            # Towards zero, as SQL divides.
            quotient = abs(a) // abs(b) if a != _INT_MIN else -(a // abs(b))
            if (a < 0) != (b < 0):
                quotient = -quotient
            ints[top] = quotient if op == DIV_I else a - quotient * b
    elif op == DIV_F or op == MOD_F:
        if reals[top + 1] == 0.0:
            flags[top] = _WRONG
        elif op == DIV_F:
            reals[top] = reals[top] / reals[top + 1]
        else:
            reals[top] = np.fmod(reals[top], reals[top + 1])


@njit(cache=True, nogil=True)
def release(slot, target, back, keys, links, free, counts, cell_row, gone, gone_slots):
    """The search's start moves on to `target` (-1: behind the last row); cells too far behind it are freed."""
    at = keys[slot, START]
    kept = keys[slot, KEPT]
    while at != target and at >= 0:
        kept += 1
        at = links[at, NEXT]
    keys[slot, START] = target
    keys[slot, CURRENT] = -1
    keys[slot, FIRST_WAY] = 0
    head = keys[slot, HEAD]
    while kept > back:
        gone[counts[GONE]] = cell_row[head]
        gone_slots[counts[GONE]] = slot
        counts[GONE] += 1
        free[counts[FREE]] = head
        counts[FREE] += 1
        head = links[head, NEXT]
        kept -= 1
    if head >= 0:
        links[head, PREV] = -1
    else:
        keys[slot, TAIL] = -1
    keys[slot, HEAD] = head
    keys[slot, KEPT] = kept


@njit(cache=True, nogil=True)
def tell(slot, start, end, length, settings, keys, links, sets, state_variable, state_shown, firsts, lasts, targets,
         cell_row, counts, match_slots, match_numbers, entry_match, entry_member, entry_rows, entry_variable, entry_targets,
         member_rows, member_variable, member_match):  # fmt: skip
    """Write a match down: an entry for each output row, with the rows its navigation leads to."""
    match = counts[MATCHES]
    keys[slot, NUMBER] += 1
    match_slots[match] = slot
    match_numbers[match] = keys[slot, NUMBER]
    counts[MATCHES] += 1
    before, cell = -1, start
    for _ in range(length):
        variable = state_variable[links[cell, STATE]]
        fold_sets(cell, before, variable, settings[SETS_TESTED], len(sets), sets, firsts, lasts)
        before, cell = cell, links[cell, NEXT]
    cell = start
    for _ in range(length):
        state = links[cell, STATE]
        variable = state_variable[state]
        if settings[MEMBERS]:
            member_rows[counts[ROWS]] = cell_row[cell]
            member_variable[counts[ROWS]] = variable
            member_match[counts[ROWS]] = match
            counts[ROWS] += 1
        if cell == end if not settings[ALL_ROWS] else state_shown[state]:
            entry = counts[ENTRIES]
            entry_match[entry] = match
            entry_member[entry] = counts[ROWS] - 1
            entry_rows[entry] = cell_row[cell]
            entry_variable[entry] = variable
            for t in range(len(targets)):
                seen_from = end if targets[t, 4] else cell
                found = find(seen_from, start, targets[t, 0], targets[t, 1], targets[t, 2], links, sets, state_variable,
                             firsts, lasts)  # fmt: skip
                if found >= 0:
                    found = shifted(found, targets[t, 3], links)
                entry_targets[entry, t] = cell_row[found] if found >= 0 else -1
            counts[ENTRIES] += 1
        cell = links[cell, NEXT]


@njit(cache=True, nogil=True)
def follows(end, ahead, links):
    """Whether so many rows are there behind a cell."""
    for _ in range(ahead):
        end = links[end, NEXT]
        if end < 0:
            return False
    return True


@njit(cache=True, nogil=True)
def search(first, slots, settings, keys, links, free, counts, ways, begins, state_variable, state_shown, row_tested,
           code_begins, codes, constants, navigations, accumulators, sets, targets, cell_row, cell_tick, cell_truth,
           cell_valid, words, floats, firsts, lasts, sums, float_sums, marks, failed, reported, gone, gone_slots, faults,
           match_slots, match_numbers, entry_match, entry_member, entry_rows, entry_variable, entry_targets,
           member_rows, member_variable, member_match):  # fmt: skip
    """Search on for these keys from number `first`; how many are done. Stops early where an output is full."""
    ints, lows = np.empty(DEPTH_MAX + 2, np.int64), np.empty(DEPTH_MAX + 2, np.uint64)
    reals, flags = np.empty(DEPTH_MAX + 2, np.float64), np.empty(DEPTH_MAX + 2, np.int64)
    final, horizon, within, memo = settings[FINAL], settings[HORIZON], settings[WITHIN], settings[MEMO]
    for i in range(first, len(slots)):
        slot = slots[i]
        while True:
            start = keys[slot, START]
            if start < 0:
                break
            current = keys[slot, CURRENT]
            if current < 0:
                state, way, cell = 0, keys[slot, FIRST_WAY], start
            else:
                state, way, cell = links[current, STATE], links[current, WAY], links[current, NEXT]
            at = begins[state] + way
            if at >= begins[state + 1]:
                if current < 0:
                    release(
                        slot,
                        links[start, NEXT],
                        settings[BACK],
                        keys,
                        links,
                        free,
                        counts,
                        cell_row,
                        gone,
                        gone_slots,
                    )
                    continue
                before = np.int64(-1) if current == start else np.int64(links[current, PREV])
                if memo:
                    if not links[current, TAINT]:
                        failed[current] |= np.uint64(1) << np.uint64(state)
                    elif before >= 0:
                        links[before, TAINT] = 1
                keys[slot, CURRENT] = before
                continue
            target = ways[at]
            if target < 0:
                if settings[AHEAD] and not final and not follows(current, settings[AHEAD], links):
                    break
                length = 1
                cell = start
                while cell != current:
                    cell = links[cell, NEXT]
                    length += 1
                entries = length if settings[ALL_ROWS] else 1
                if counts[MATCHES] >= len(match_slots) or counts[ENTRIES] + entries > len(entry_match):
                    return i
                if settings[MEMBERS] and counts[ROWS] + length > len(member_rows):
                    return i
                tell(slot, start, current, length, settings, keys, links, sets, state_variable, state_shown, firsts, lasts,
                     targets, cell_row, counts, match_slots, match_numbers, entry_match, entry_member, entry_rows,
                     entry_variable, entry_targets, member_rows, member_variable, member_match)  # fmt: skip
                goal = links[current, NEXT]
                if settings[SKIP] == SKIP_NEXT:
                    goal = links[start, NEXT]
                elif settings[SKIP] == SKIP_FIRST:
                    goal = firsts[current, settings[SKIP_SET]]
                elif settings[SKIP] == SKIP_LAST:
                    goal = lasts[current, settings[SKIP_SET]]
                release(slot, goal, settings[BACK], keys, links, free, counts, cell_row, gone, gone_slots)
                continue
            met = TRUE
            if cell < 0:
                if not final and not (within >= 0 and horizon - cell_tick[start] >= within):
                    break
                met = FALSE
                if current >= 0:
                    links[current, TAINT] = 1
            elif within >= 0 and cell_tick[cell] - cell_tick[start] >= within:
                met = FALSE
                if current >= 0:
                    links[current, TAINT] = 1
            elif memo and failed[cell] >> np.uint64(target) & np.uint64(1):
                met = FALSE
            else:
                variable = state_variable[target]
                if row_tested[variable] and not cell_truth[cell] >> np.uint64(variable) & np.uint64(1):
                    met = FALSE
                else:
                    links[cell, STATE] = target
                    fold_sets(cell, current, variable, 0, settings[SETS_TESTED], sets, firsts, lasts)
                    if len(accumulators):
                        fold_accumulators(cell, current, variable, accumulators, sets, cell_valid, words, floats, sums,
                                          float_sums, marks)  # fmt: skip
                    if code_begins[variable] < code_begins[variable + 1]:
                        met = test(code_begins[variable], code_begins[variable + 1], cell, start, final, codes, constants,
                                   navigations, accumulators, links, sets, state_variable, firsts, lasts, cell_valid, words,
                                   floats, sums, float_sums, marks, ints, lows, reals, flags)  # fmt: skip
                        if met == WAIT:
                            break
                        if met == FAULT:
                            if not reported[cell]:
                                if counts[FAULTS] >= len(faults):
                                    return i
                                reported[cell] = 1
                                faults[counts[FAULTS]] = cell_row[cell]
                                counts[FAULTS] += 1
                            met = FALSE
            if current < 0:
                keys[slot, FIRST_WAY] = way + 1
            else:
                links[current, WAY] = way + 1
            if met == TRUE:
                links[cell, WAY] = 0
                links[cell, TAINT] = 0
                keys[slot, CURRENT] = cell
    return len(slots)
