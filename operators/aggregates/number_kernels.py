"""Kernels that count, sum and compare numbers by group.

Groups are rows of words: group s is at address `words + s * step`, and `at_…` are distances in bytes
from there, -1 where a word is not kept. `slots` (int32), `values`, `mask` (a byte a row), `weights` and
`trace` are addresses too, the last three 0 where there is none: one compiled variant serves all.
`trace` has `width` words a row, for the group's words as they are after that row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from millrace.state.memory_kernels import (
    inlined,
    load_f64,
    load_i32,
    load_i64,
    load_u8,
    prefetch,
    store_f64,
    store_i64,
)

AHEAD = 16
"""So many rows ahead the words of a group are asked for: with many groups each is a miss."""


@inlined
def _add(address: int, by: int) -> None:
    store_i64(address, load_i64(address) + by)


@inlined
def _group(words: int, step: int, slots: int, row: int, count: int) -> int:
    """The address of a row's group."""
    if row + AHEAD < count:
        prefetch(words + load_i32(slots + (row + AHEAD) * 4) * step)
    return words + load_i32(slots + row * 4) * step


@inlined
def _copy_words(group: int, target: int, width: int) -> None:
    for word in range(width):
        store_i64(target + word * 8, load_i64(group + word * 8))


@njit(cache=True, nogil=True)
def count_rows(words: int, step: int, slots: int, count: int, mask: int, weights: int, trace: int) -> None:
    """Add the weights of the rows that count to the word at 0."""
    for i in range(count):
        group = _group(words, step, slots, i, count)
        weight = 1 if weights == 0 else load_i64(weights + i * 8)
        if mask != 0:
            weight *= np.int64(load_u8(mask + i))
        total = load_i64(group) + weight
        store_i64(group, total)
        if trace != 0:
            store_i64(trace + i * 8, total)


@njit(cache=True, nogil=True)
def merge_counts(
    words: int, step: int, slots: int, count: int, source: int, source_step: int, others: int
) -> None:
    """Add the counts of groups `others` of `source`."""
    for i in range(count):
        _add(_group(words, step, slots, i, count), load_i64(source + load_i32(others + i * 4) * source_step))


@inlined
def _add_exactly(total: int, value: int) -> None:
    """Exact to 128 bits: the word at `total` wraps, the one behind it counts how often."""
    before = load_i64(total)
    after = before + value
    store_i64(total, after)
    if ((before ^ after) & (value ^ after)) < 0:
        _add(total + 8, 1 if value >= 0 else -1)


@inlined
def _subtract_exactly(total: int, value: int) -> None:
    before = load_i64(total)
    after = before - value
    store_i64(total, after)
    if ((before ^ value) & (before ^ after)) < 0:
        _add(total + 8, 1 if value < 0 else -1)


@njit(cache=True, nogil=True)
def add_int64(
    words: int,
    step: int,
    slots: int,
    count: int,
    values: int,
    mask: int,
    weights: int,
    trace: int,
    width: int,
    at_sum: int,
    at_min: int,
    at_max: int,
    at_rows: int,
) -> None:
    """The word at 0 counts; sum (with its carry behind), min and max. At `at_rows` (0: nowhere) all rows are counted."""
    for i in range(count):
        group = _group(words, step, slots, i, count)
        weight = 1 if weights == 0 else load_i64(weights + i * 8)
        if at_rows != 0:
            _add(group + at_rows, weight)
        if mask == 0 or load_u8(mask + i) != 0:
            value = load_i64(values + i * 8)
            _add(group, weight)
            if at_sum >= 0:
                for _ in range(weight):
                    _add_exactly(group + at_sum, value)
                for _ in range(-weight):
                    _subtract_exactly(group + at_sum, value)
            if at_min >= 0:
                store_i64(group + at_min, min(load_i64(group + at_min), value))
            if at_max >= 0:
                store_i64(group + at_max, max(load_i64(group + at_max), value))
        if trace != 0:
            _copy_words(group, trace + i * width * 8, width)


@njit(cache=True, nogil=True)
def merge_int64(
    words: int,
    step: int,
    slots: int,
    count: int,
    source: int,
    source_step: int,
    others: int,
    at_sum: int,
    at_min: int,
    at_max: int,
) -> None:
    """Add the groups `others` of `source` to groups `slots`."""
    for i in range(count):
        group = _group(words, step, slots, i, count)
        other = source + load_i32(others + i * 4) * source_step
        _add(group, load_i64(other))
        if at_sum >= 0:
            _add_exactly(group + at_sum, load_i64(other + at_sum))
            _add(group + at_sum + 8, load_i64(other + at_sum + 8))
        if at_min >= 0:
            store_i64(group + at_min, min(load_i64(group + at_min), load_i64(other + at_min)))
        if at_max >= 0:
            store_i64(group + at_max, max(load_i64(group + at_max), load_i64(other + at_max)))


@inlined
def _add_float(total: int, value: float, weight: int, special: bool) -> None:
    """Knuth's exact sum: what is lost by rounding is kept in the word behind.

    With `special` the next three words count NaN, +inf and -inf apart, so that they can be taken back.
    """
    if special and not np.isfinite(value):
        kind = 2 if np.isnan(value) else (3 if value > 0 else 4)
        _add(total + kind * 8, weight)
        return
    term = value * weight
    before = load_f64(total)
    after = before + term
    added = after - before
    store_f64(total, after)
    store_f64(total + 8, load_f64(total + 8) + ((before - (after - added)) + (term - added)))


@inlined
def _lower(address: int, value: float) -> None:
    """Keep the smaller; NaN, which is larger than any number, stands for none."""
    kept = load_f64(address)
    store_f64(address, value if value < kept or np.isnan(kept) else kept)


@inlined
def _raise(address: int, value: float) -> None:
    kept = load_f64(address)
    store_f64(address, value if value > kept or np.isnan(value) else kept)


@njit(cache=True, nogil=True)
def add_float64(
    words: int,
    step: int,
    slots: int,
    count: int,
    values: int,
    mask: int,
    weights: int,
    trace: int,
    width: int,
    at_sum: int,
    at_min: int,
    at_max: int,
    at_rows: int,
    special: bool,
) -> None:
    """As `add_int64`, for what `_add_float` says of `special`. NaN is larger than any number."""
    for i in range(count):
        group = _group(words, step, slots, i, count)
        weight = 1 if weights == 0 else load_i64(weights + i * 8)
        if at_rows != 0:
            _add(group + at_rows, weight)
        if mask == 0 or load_u8(mask + i) != 0:
            value = load_f64(values + i * 8)
            _add(group, weight)
            if at_sum >= 0:
                _add_float(group + at_sum, value, weight, special)
            if at_min >= 0:
                _lower(group + at_min, value)
            if at_max >= 0:
                _raise(group + at_max, value)
        if trace != 0:
            _copy_words(group, trace + i * width * 8, width)


@njit(cache=True, nogil=True)
def merge_float64(
    words: int,
    step: int,
    slots: int,
    count: int,
    source: int,
    source_step: int,
    others: int,
    at_sum: int,
    at_min: int,
    at_max: int,
    special: bool,
) -> None:
    """Add the groups `others` of `source` to groups `slots`."""
    for i in range(count):
        group = _group(words, step, slots, i, count)
        other = source + load_i32(others + i * 4) * source_step
        _add(group, load_i64(other))
        if at_sum >= 0:
            _add_float(group + at_sum, load_f64(other + at_sum), 1, special)
            store_f64(group + at_sum + 8, load_f64(group + at_sum + 8) + load_f64(other + at_sum + 8))
            if special:
                for kind in range(2, 5):
                    _add(group + at_sum + kind * 8, load_i64(other + at_sum + kind * 8))
        if at_min >= 0:
            _lower(group + at_min, load_f64(other + at_min))
        if at_max >= 0:
            _raise(group + at_max, load_f64(other + at_max))


@njit(inline="always")
def _add_pair(words: Any, slot: Any, low: int, high: int) -> None:
    before = np.uint64(words[slot, 1])
    after = before + np.uint64(low)
    words[slot, 1] = np.int64(after)
    words[slot, 2] += high + (1 if after < before else 0)


@njit(cache=True, nogil=True)
def add_wide(words: Any, slots: Any, pairs: Any, mask: Any, weights: Any, trace: Any) -> None:
    """128-bit sums in arrays, of which None is absent: columns are count, low word, high word; `pairs` holds (low, high) of each row."""
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
def fill_rows(words: int, step: int, start: int, end: int, initial: int, width: int) -> None:
    """Set groups from `start` to `end` to the words at `initial`."""
    for row in range(start, end):
        _copy_words(initial, words + row * step, width)


@njit(cache=True, nogil=True)
def gather_rows(words: int, step: int, slots: int, count: int, width: int, out: int) -> None:
    """Word j of the i-th group of `slots` to place `j * count + i` of `out`."""
    for i in range(count):
        group = _group(words, step, slots, i, count)
        for word in range(width):
            store_i64(out + (word * count + i) * 8, load_i64(group + word * 8))


@njit(cache=True, nogil=True)
def distinct_slots(slots: Any, marks: Any, add: int, out: Any, rows: Any, found: Any) -> int:
    """The slots in order of first appearance, once each, into `out`; where that is into `rows`; marks into `found`.

    `marks` is a byte a slot, whose highest bit is 0 before and after; the bits `add` are set in each.
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
        marks[np.uint64(out[i])] = found[i] | add
    return count


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
