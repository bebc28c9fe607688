"""Conditions of pattern variables, tested with the rows matched so far. Searches nothing.

A row that is remembered is a *cell*; the cells of a key are linked in order. What aggregates and FIRST/LAST need is
kept in each cell as it was up to there on the way that is tried.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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
    MOD_I,
    MUL_F,
    MUL_I,
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
    TO_FLOAT,
)

# An element of a typed array is an array to the checkers, and a number to Numba.
Int64s = Any
Int32s = Any
Words = Any
Floats = Any
Bytes = Any

NEXT, PREV, STATE, WAY, TAINT, SLOT = range(6)
"""Columns of `links`: neighbours of a cell, the state it was entered with, the next way on, whether WITHIN cut, its key."""
FALSE, TRUE, WAIT, FAULT = range(4)
OK, NULL, WRONG = range(3)
"""Flags of the machine's values: each is worse than the one before, and the worst of two is that of their sum."""
_INT_MIN = -(2**63)


class Rules(NamedTuple):
    """What does not change: the automaton, the programs of conditions, and what measures look at."""

    ways: Int32s
    begins: Int32s
    variables: Int64s
    shown: Bytes
    tested: Bytes
    code_begins: Int64s
    codes: Int64s
    constants: Int64s
    navigations: Int64s
    accumulators: Int64s
    sets: Int64s
    targets: Int64s


class Rows(NamedTuple):
    """The cells: one item a cell. `floats` and `float_sums` are other views of `words` and `sums`."""

    links: Int32s
    row: Int64s
    tick: Int64s
    truth: Words
    valid: Words
    words: Int64s
    floats: Floats
    firsts: Int32s
    lasts: Int32s
    sums: Int64s
    float_sums: Floats
    marks: Words
    failed: Words
    reported: Bytes


class Machine(NamedTuple):
    """The values on the stack: as an integer, the low word of a wide one, as a float, and the flag."""

    ints: Int64s
    lows: Words
    reals: Floats
    flags: Int64s


@njit(cache=True, nogil=True, forceinline=True)
def find(cell: int, start: int, held: int, first: int, offset: int, rules: Rules, rows: Rows) -> int:
    """The cell that FIRST or LAST means up to `cell`; -1: there is none."""
    links = rows.links
    if held < 0:
        at = int(start if first else cell)
        for _ in range(offset):
            if at == (cell if first else start):
                return -1
            at = int(links[at, NEXT] if first else links[at, PREV])
        return at
    if not first:
        at = int(rows.lasts[cell, held])
        for _ in range(offset):
            if at < 0 or at == start:
                return -1
            at = int(rows.lasts[links[at, PREV], held])
        return at
    at = int(rows.firsts[cell, held])
    for _ in range(offset):
        while True:
            if at < 0 or at == cell:
                return -1
            at = int(links[at, NEXT])
            if rules.sets[held] >> rules.variables[links[at, STATE]] & 1:
                break
    return at


@njit(cache=True, nogil=True, forceinline=True)
def shifted(at: int, shift: int, links: Int32s) -> int:
    """The cell so many rows on; -1 before the first row, -2 behind the last."""
    while shift < 0 and at >= 0:
        at = int(links[at, PREV])
        shift += 1
    if at < 0:
        return -1
    while shift > 0:
        at = int(links[at, NEXT])
        if at < 0:
            return -2
        shift -= 1
    return at


@njit(cache=True, nogil=True, forceinline=True)
def fold_sets(cell: int, before: int, variable: int, low: int, high: int, sets: Int64s, rows: Rows) -> None:
    """First and last rows of sets `low` to `high`, up to a cell entered as `variable` behind `before` (-1: none)."""
    for held in range(low, high):
        first = -1 if before < 0 else int(rows.firsts[before, held])
        if sets[held] >> variable & 1:
            rows.lasts[cell, held] = cell
            rows.firsts[cell, held] = cell if first < 0 else first
        else:
            rows.lasts[cell, held] = -1 if before < 0 else rows.lasts[before, held]
            rows.firsts[cell, held] = first


@njit(cache=True, nogil=True, forceinline=True)
def fold_accumulators(cell: int, before: int, variable: int, rules: Rules, rows: Rows) -> None:
    """Accumulators up to a cell. `marks` has bit 2a where a has a value, bit 2a + 1 where it overflowed."""
    mark = np.uint64(0) if before < 0 else rows.marks[before]
    for a in range(len(rules.accumulators)):
        kind, held, column = rules.accumulators[a, 0], rules.accumulators[a, 1], rules.accumulators[a, 2]
        has = np.uint64(1) << np.uint64(2 * a)
        value = 0 if before < 0 else rows.sums[before, a]
        counted = held < 0 or rules.sets[held] >> variable & 1
        if counted and (column < 0 or rows.valid[cell] >> np.uint64(column) & np.uint64(1)):
            if kind == COUNT:
                value += 1
            elif not mark & has:
                value = rows.words[cell, column]
            elif kind == SUM_I:
                added = rows.words[cell, column]
                total = value + added
                if ((value ^ total) & (added ^ total)) < 0:
                    mark |= has << np.uint64(1)
                value = total
            elif kind == MIN_I:
                value = min(value, rows.words[cell, column])
            elif kind == MAX_I:
                value = max(value, rows.words[cell, column])
            else:
                own, new = rows.float_sums[before, a], rows.floats[cell, column]
                if kind == SUM_F:
                    own += new
                elif kind == MIN_F:
                    own = min(own, new)
                else:
                    own = max(own, new)
                rows.float_sums[cell, a] = own
                value = rows.sums[cell, a]
            mark |= has
        rows.sums[cell, a] = value
    rows.marks[cell] = mark


@njit(cache=True, nogil=True, forceinline=True)
def copy(source: int, target: int, machine: Machine) -> None:
    """Put a value in another place."""
    machine.ints[target] = machine.ints[source]
    machine.lows[target] = machine.lows[source]
    machine.reals[target] = machine.reals[source]
    machine.flags[target] = machine.flags[source]


@njit(cache=True, nogil=True, forceinline=True)
def push(
    op: int, x: int, top: int, cell: int, start: int, final: int, rules: Rules, rows: Rows, machine: Machine
) -> bool:
    """Push a constant, a value of another row or an aggregate; False where a row to come decides what it is."""
    ints, lows, reals, flags = machine.ints, machine.lows, machine.reals, machine.flags
    flags[top] = NULL
    if op == PUSH:
        flags[top] = OK
        ints[top] = rules.constants[x]
        lows[top] = np.uint64(rules.constants[x + 1])
        reals[top] = rules.constants[x : x + 1].view(np.float64)[0]
    elif op >= ACC:
        mark = rows.marks[cell] >> np.uint64(2 * x)
        if mark & np.uint64(2):
            flags[top] = WRONG
        elif mark & np.uint64(1) or rules.accumulators[x, 0] == COUNT:
            flags[top] = OK
            ints[top] = rows.sums[cell, x]
            reals[top] = rows.float_sums[cell, x]
            if op == ACC_AVG:
                total = reals[top] if rules.accumulators[x, 0] == SUM_F else np.float64(ints[top])
                reals[top] = total / rows.sums[cell, x + 1]
    elif op != PUSH_NULL:
        held, first, offset = rules.navigations[x, 0], rules.navigations[x, 1], rules.navigations[x, 2]
        shift, column = rules.navigations[x, 3], rules.navigations[x, 4]
        found = find(cell, start, held, first, offset, rules, rows)
        if found >= 0 and shift != 0:
            found = shifted(found, shift, rows.links)
            if found == -2 and not final:
                return False
        if found >= 0 and rows.valid[found] >> np.uint64(column) & np.uint64(1):
            flags[top] = OK
            ints[top] = rows.words[found, column]
            reals[top] = rows.floats[found, column]
            if op == NAV_W:
                lows[top] = np.uint64(rows.words[found, column + 1])
    return True


@njit(cache=True, nogil=True, forceinline=True)
def ask(op: int, top: int, machine: Machine) -> None:
    """NOT, and the tests of a value for NULL, true and false."""
    ints, flags = machine.ints, machine.flags
    if op == NOT:
        ints[top] = 1 - ints[top]
        return
    if op == IS_NULL:
        ints[top] = 1 if flags[top] == NULL else 0
    else:
        ints[top] = 1 if flags[top] == OK and (ints[top] != 0) == (op == IS_TRUE) else 0
    flags[top] = WRONG if flags[top] == WRONG else OK


@njit(cache=True, nogil=True, forceinline=True)
def choose(op: int, top: int, machine: Machine) -> None:
    """Operations on the two values on top that make something of NULL."""
    ints, flags = machine.ints, machine.flags
    left, right = flags[top], flags[top + 1]
    if op == COALESCE:
        if left == NULL:
            copy(top + 1, top, machine)
    elif op in (AND, OR):
        decides = 0 if op == AND else 1
        settled = (left == OK and ints[top] == decides) or (right == OK and ints[top + 1] == decides)
        ints[top] = decides if settled else 1 - decides
        flags[top] = OK if settled else max(left, right)
    elif left != OK or right != OK:
        ints[top] = 1 if left == right else 0
        flags[top] = WRONG if WRONG in (left, right) else OK
    elif op == SAME_F:
        ints[top] = 1 if machine.reals[top] == machine.reals[top + 1] else 0
    else:
        low = op == SAME_I or machine.lows[top] == machine.lows[top + 1]
        ints[top] = 1 if low and ints[top] == ints[top + 1] else 0


@njit(cache=True, nogil=True, forceinline=True)
def one(op: int, x: int, top: int, constants: Int64s, machine: Machine) -> None:
    """An operation on the value on top, which is one."""
    ints, reals, flags = machine.ints, machine.reals, machine.flags
    if op in (NEG_I, ABS_I):
        if ints[top] == _INT_MIN:
            flags[top] = WRONG
        elif op == NEG_I or ints[top] < 0:
            ints[top] = -ints[top]
    elif op == NEG_F:
        reals[top] = -reals[top]
    elif op == ABS_F:
        reals[top] = abs(reals[top])
    elif op == TO_FLOAT:
        reals[top] = np.float64(ints[top]) / 10.0**x
    elif op == SCALE:
        multiply(x, top, machine)
    elif ints[top] < constants[x] or ints[top] > constants[x + 1]:
        flags[top] = WRONG


@njit(cache=True, nogil=True, forceinline=True)
def multiply(factor: int, top: int, machine: Machine) -> None:
    """The value on top times a factor, if that is an integer of 64 bits."""
    value = machine.ints[top]
    product = value * factor
    if factor != 0 and (product // factor != value or (factor == -1 and value == _INT_MIN)):
        machine.flags[top] = WRONG
    machine.ints[top] = product


@njit(cache=True, nogil=True, forceinline=True)
def two(op: int, top: int, machine: Machine) -> None:
    """An operation on the two values on top, neither NULL; the first one's place takes the result."""
    ints, reals = machine.ints, machine.reals
    a, b = ints[top], ints[top + 1]
    x, y = reals[top], reals[top + 1]
    low, other = machine.lows[top], machine.lows[top + 1]
    if op < DIV_I:
        add(op, top, machine)
    elif op < EQ_I:
        divide(op, top, machine)
    elif op == EQ_I:
        ints[top] = 1 if a == b else 0
    elif op == LT_I:
        ints[top] = 1 if a < b else 0
    elif op == LE_I:
        ints[top] = 1 if a <= b else 0
    elif op == EQ_F:
        ints[top] = 1 if x == y else 0
    elif op == LT_F:
        ints[top] = 1 if x < y else 0
    elif op == LE_F:
        ints[top] = 1 if x <= y else 0
    elif op == EQ_W:
        ints[top] = 1 if a == b and low == other else 0
    elif op == LT_W:
        ints[top] = 1 if a < b or (a == b and low < other) else 0
    else:
        ints[top] = 1 if a < b or (a == b and low <= other) else 0


@njit(cache=True, nogil=True, forceinline=True)
def add(op: int, top: int, machine: Machine) -> None:
    """Sums, differences and products."""
    ints, reals, flags = machine.ints, machine.reals, machine.flags
    a, b = ints[top], ints[top + 1]
    if op == ADD_I:
        total = a + b
        if ((a ^ total) & (b ^ total)) < 0:
            flags[top] = WRONG
        ints[top] = total
    elif op == SUB_I:
        total = a - b
        if ((a ^ b) & (a ^ total)) < 0:
            flags[top] = WRONG
        ints[top] = total
    elif op == MUL_I:
        multiply(b, top, machine)
    elif op == ADD_F:
        reals[top] = reals[top] + reals[top + 1]
    elif op == SUB_F:
        reals[top] = reals[top] - reals[top + 1]
    elif op == MUL_F:
        reals[top] = reals[top] * reals[top + 1]


@njit(cache=True, nogil=True, forceinline=True)
def divide(op: int, top: int, machine: Machine) -> None:
    """Quotients, of integers towards zero, and remainders."""
    ints, reals, flags = machine.ints, machine.reals, machine.flags
    a, b = ints[top], ints[top + 1]
    x, y = reals[top], reals[top + 1]
    if op in (DIV_I, MOD_I):
        if b == 0 or a == _INT_MIN or b == _INT_MIN:
            flags[top] = WRONG
            return
        quotient = abs(a) // abs(b)
        if (a < 0) != (b < 0):
            quotient = -quotient
        ints[top] = quotient if op == DIV_I else a - quotient * b
    elif y == 0.0:
        flags[top] = WRONG
    else:
        reals[top] = x / y if op == DIV_F else np.fmod(x, y)


@njit(cache=True, nogil=True)
def test(variable: int, cell: int, start: int, final: int, rules: Rules, rows: Rows, machine: Machine) -> int:
    """Whether a variable's condition holds with the row of `cell` tentatively its: FALSE, TRUE, WAIT or FAULT."""
    top = -1
    for at in range(rules.code_begins[variable], rules.code_begins[variable + 1]):
        op, x = rules.codes[at, 0], rules.codes[at, 1]
        if op <= ACC_AVG:
            top += 1
            if not push(op, x, top, cell, start, final, rules, rows, machine):
                return WAIT
        elif op <= CHECK:
            if machine.flags[top] == OK:
                one(op, x, top, rules.constants, machine)
        elif op <= IS_FALSE:
            ask(op, top, machine)
        elif op <= LE_W:
            top -= 1
            machine.flags[top] = max(machine.flags[top], machine.flags[top + 1])
            if machine.flags[top] == OK:
                two(op, top, machine)
        elif op <= SAME_W:
            top -= 1
            choose(op, top, machine)
        elif op == SELECT:
            top -= 2
            if machine.flags[top + 2] == WRONG:
                machine.flags[top] = WRONG
            elif machine.flags[top + 2] == OK and machine.ints[top + 2] != 0:
                copy(top + 1, top, machine)
        else:
            copy(top, top + 1, machine)
            copy(top - 1, top, machine)
            copy(top + 1, top - 1, machine)
    if machine.flags[0] == WRONG:
        return FAULT
    return TRUE if machine.flags[0] == OK and machine.ints[0] != 0 else FALSE
