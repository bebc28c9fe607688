"""Kernels that count, sum and compare numbers by group. Rows of `words` are groups; columns are named by position.

`mask`, `weights` and `trace` may be None, for which Numba compiles a variant without them.
`trace[i]` receives the group's words as they are after row i.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from millrace.state.memory_kernels import prefetch

AHEAD = 16
"""So many rows ahead the words of a group are asked for: with many groups each is a miss."""


@njit(cache=True, nogil=True)
def count_rows(words: Any, slots: Any, mask: Any, weights: Any, trace: Any) -> None:
    """words[slot, 0] += weight."""
    for i in range(len(slots)):
        slot = np.uint64(slots[i])
        step = 1
        if weights is not None:
            step = weights[i]
        if mask is not None:
            step *= mask[i]
        words[slot, 0] += step
        if trace is not None:
            trace[i, 0] = words[slot, 0]


@njit(cache=True, nogil=True)
def merge_counts(words: Any, slots: Any, source: Any, source_slots: Any) -> None:
    """Add the counts of groups `source_slots` of `source` to groups `slots`."""
    for i in range(len(slots)):
        words[np.uint64(slots[i]), 0] += source[np.uint64(source_slots[i]), 0]


@njit(inline="always")
def _add(words: Any, slot: Any, at: int, value: int) -> None:
    """Exact to 128 bits: words[at] wraps, words[at + 1] counts how often."""
    before = words[slot, at]
    after = before + value
    words[slot, at] = after
    if ((before ^ after) & (value ^ after)) < 0:
        words[slot, at + 1] += 1 if value >= 0 else -1


@njit(inline="always")
def _subtract(words: Any, slot: Any, at: int, value: int) -> None:
    before = words[slot, at]
    after = before - value
    words[slot, at] = after
    if ((before ^ value) & (before ^ after)) < 0:
        words[slot, at + 1] += 1 if value < 0 else -1


@njit(cache=True, nogil=True)
def add_int64(
    words: Any,
    slots: Any,
    values: Any,
    mask: Any,
    weights: Any,
    trace: Any,
    at_sum: int,
    at_min: int,
    at_max: int,
) -> None:
    """Column 0 counts; sum (with its carry behind), min and max where their position is not negative."""
    address, width = words.ctypes.data, words.shape[1] * 8
    for i in range(len(slots)):
        if i + AHEAD < len(slots):
            prefetch(address + np.int64(slots[i + AHEAD]) * width)
        slot = np.uint64(slots[i])
        if mask is not None and mask[i] == 0:
            if trace is not None:
                trace[i, :] = words[slot, :]
            continue
        value = values[i]
        if weights is None:
            words[slot, 0] += 1
            if at_sum >= 0:
                _add(words, slot, at_sum, value)
        else:
            weight = weights[i]
            words[slot, 0] += weight
            if at_sum >= 0:
                for _ in range(weight):
                    _add(words, slot, at_sum, value)
                for _ in range(-weight):
                    _subtract(words, slot, at_sum, value)
        if at_min >= 0 and value < words[slot, at_min]:
            words[slot, at_min] = value
        if at_max >= 0 and value > words[slot, at_max]:
            words[slot, at_max] = value
        if trace is not None:
            trace[i, :] = words[slot, :]


@njit(cache=True, nogil=True)
def merge_int64(
    words: Any, slots: Any, source: Any, source_slots: Any, at_sum: int, at_min: int, at_max: int
) -> None:
    """Add the groups `source_slots` of `source` to groups `slots`."""
    for i in range(len(slots)):
        slot, other = np.uint64(slots[i]), np.uint64(source_slots[i])
        words[slot, 0] += source[other, 0]
        if at_sum >= 0:
            _add(words, slot, at_sum, source[other, at_sum])
            words[slot, at_sum + 1] += source[other, at_sum + 1]
        if at_min >= 0:
            words[slot, at_min] = min(words[slot, at_min], source[other, at_min])
        if at_max >= 0:
            words[slot, at_max] = max(words[slot, at_max], source[other, at_max])


@njit(inline="always")
def _add_float(words: Any, floats: Any, slot: Any, at: int, value: float, weight: int) -> None:
    """Neumaier's compensated sum at (at, at + 1); at + 2 … at + 4 count NaN, +inf and -inf apart."""
    if not np.isfinite(value):
        kind = 2 if np.isnan(value) else (3 if value > 0 else 4)
        words[slot, at + kind] += weight
        return
    term = value * weight
    before = floats[slot, at]
    after = before + term
    if abs(before) >= abs(term):
        floats[slot, at + 1] += (before - after) + term
    else:
        floats[slot, at + 1] += (term - after) + before
    floats[slot, at] = after


@njit(cache=True, nogil=True)
def add_float64(
    words: Any,
    floats: Any,
    slots: Any,
    values: Any,
    mask: Any,
    weights: Any,
    trace: Any,
    at_sum: int,
    at_min: int,
    at_max: int,
) -> None:
    """As `add_int64`; `floats` is a view of the memory of `words`. NaN is larger than any number."""
    address, width = words.ctypes.data, words.shape[1] * 8
    for i in range(len(slots)):
        if i + AHEAD < len(slots):
            prefetch(address + np.int64(slots[i + AHEAD]) * width)
        slot = np.uint64(slots[i])
        if mask is not None and mask[i] == 0:
            if trace is not None:
                trace[i, :] = words[slot, :]
            continue
        value = values[i]
        weight = 1
        if weights is not None:
            weight = weights[i]
        words[slot, 0] += weight
        if at_sum >= 0:
            _add_float(words, floats, slot, at_sum, value, weight)
        if at_min >= 0 and (value < floats[slot, at_min] or np.isnan(floats[slot, at_min])):
            floats[slot, at_min] = value
        if at_max >= 0 and (value > floats[slot, at_max] or np.isnan(value)):
            floats[slot, at_max] = value
        if trace is not None:
            trace[i, :] = words[slot, :]


@njit(cache=True, nogil=True)
def merge_float64(
    words: Any,
    floats: Any,
    slots: Any,
    source: Any,
    source_floats: Any,
    source_slots: Any,
    at_sum: int,
    at_min: int,
    at_max: int,
) -> None:
    """Add the groups `source_slots` of `source` to groups `slots`."""
    for i in range(len(slots)):
        slot, other = np.uint64(slots[i]), np.uint64(source_slots[i])
        words[slot, 0] += source[other, 0]
        if at_sum >= 0:
            _add_float(words, floats, slot, at_sum, source_floats[other, at_sum], 1)
            floats[slot, at_sum + 1] += source_floats[other, at_sum + 1]
            for kind in range(2, 5):
                words[slot, at_sum + kind] += source[other, at_sum + kind]
        if at_min >= 0:
            value = source_floats[other, at_min]
            if value < floats[slot, at_min] or np.isnan(floats[slot, at_min]):
                floats[slot, at_min] = value
        if at_max >= 0:
            value = source_floats[other, at_max]
            if value > floats[slot, at_max] or np.isnan(value):
                floats[slot, at_max] = value


@njit(inline="always")
def _add_pair(words: Any, slot: Any, low: int, high: int) -> None:
    before = np.uint64(words[slot, 1])
    after = before + np.uint64(low)
    words[slot, 1] = np.int64(after)
    words[slot, 2] += high + (1 if after < before else 0)


@njit(cache=True, nogil=True)
def add_wide(words: Any, slots: Any, pairs: Any, mask: Any, weights: Any, trace: Any) -> None:
    """128-bit sums: columns are count, low word, high word; `pairs` holds (low, high) of each row."""
    for i in range(len(slots)):
        slot = np.uint64(slots[i])
        if mask is None or mask[i] != 0:
            weight = 1
            if weights is not None:
                weight = weights[i]
            words[slot, 0] += weight
            low, high = pairs[i, 0], pairs[i, 1]
            for _ in range(weight):
                _add_pair(words, slot, low, high)
            for _ in range(-weight):
                _add_pair(words, slot, -low, ~high if low != 0 else -high)
        if trace is not None:
            trace[i, :] = words[slot, :]


@njit(cache=True, nogil=True)
def merge_wide(words: Any, slots: Any, source: Any, source_slots: Any) -> None:
    """Add 128-bit sums."""
    for i in range(len(slots)):
        slot, other = np.uint64(slots[i]), np.uint64(source_slots[i])
        words[slot, 0] += source[other, 0]
        _add_pair(words, slot, source[other, 1], source[other, 2])


@njit(cache=True, nogil=True)
def distinct_slots(slots: Any, marks: Any, out: Any, rows: Any, found: Any) -> int:
    """The slots in order of first appearance, once each, into `out`; where that is into `rows`; marks into `found`.

    `marks` is a byte a slot, whose highest bit is 0 before and after.
    """
    count = 0
    for i in range(len(slots)):
        slot = np.uint64(slots[i])
        mark = marks[slot]
        if mark < 128:
            marks[slot] = mark | 128
            out[count] = slots[i]
            rows[count] = i
            found[count] = mark
            count += 1
    for i in range(count):
        marks[np.uint64(out[i])] = found[i]
    return count


@njit(cache=True, nogil=True)
def fill_rows(words: Any, start: int, initial: Any) -> None:
    """Set the rows from `start` on to `initial`."""
    for row in range(start, words.shape[0]):
        for column in range(words.shape[1]):
            words[row, column] = initial[column]


@njit(cache=True, nogil=True)
def gather_rows(words: Any, slots: Any, out: Any) -> None:
    """out[j, i] = words[slots[i], j]."""
    address, width = words.ctypes.data, words.shape[1] * 8
    for i in range(len(slots)):
        if i + AHEAD < len(slots):
            prefetch(address + np.int64(slots[i + AHEAD]) * width)
        slot = np.uint64(slots[i])
        for column in range(words.shape[1]):
            out[column, i] = words[slot, column]


@njit(cache=True, nogil=True)
def occurrences(slots: Any, counts: Any, out: Any) -> int:
    """How many earlier rows have the same slot; returns the largest. `counts` is all 0 before and after."""
    largest = 0
    for i in range(len(slots)):
        slot = np.uint64(slots[i])
        out[i] = counts[slot]
        counts[slot] += 1
        largest = max(largest, out[i])
    for i in range(len(slots)):
        counts[np.uint64(slots[i])] = 0
    return largest
