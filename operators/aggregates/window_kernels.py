"""Kernels that place rows in panes and windows. All times out are int64 µs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

NO_PANE = -(2**63)


@njit(cache=True, nogil=True)
def panes(
    times: Any,
    mask: Any,
    multiplier: int,
    divisor: int,
    width: int,
    offset: int,
    factor: int,
    shift: int,
    out: Any,
) -> None:
    """index * factor + shift of each row's pane [index * width + offset, …); NO_PANE where masked.

    Divides only when a row leaves the pane of the row before.
    """
    value, first, beyond = np.int64(0), np.int64(0), np.int64(0)
    for i in range(len(times)):
        if mask is not None and mask[i] == 0:
            out[i] = NO_PANE
            continue
        time = times[i]
        if time < first or time >= beyond:
            index = (time * multiplier // divisor - offset) // width
            start = index * width + offset
            # Bounds in the column's own unit, so that the next rows need no conversion.
            first = -((-start * divisor) // multiplier)
            beyond = -((-(start + width) * divisor) // multiplier)
            value = index * factor + shift
        out[i] = value


@njit(cache=True, nogil=True)
def expand_hop(
    pane: Any,
    marks: Any,
    watermark: int,
    size: int,
    slide: int,
    width: int,
    offset: int,
    rows: Any,
    ends: Any,
) -> int:
    """Every row once for each of its windows that is not over; returns how many. `rows`: the input row."""
    count = 0
    for i in range(len(pane)):
        start = pane[i]
        if start == NO_PANE:
            continue
        mark = watermark
        if marks is not None:
            mark = max(mark, marks[i])
        last = start - (start - offset) % slide
        total = (last + size - start - width) // slide + 1
        for k in range(total - 1, -1, -1):
            end = last - k * slide + size
            if end > mark:
                rows[count], ends[count] = i, end
                count += 1
    return count


@njit(cache=True, nogil=True)
def expand_cumulate(
    pane: Any, marks: Any, watermark: int, size: int, step: int, offset: int, rows: Any, ends: Any
) -> int:
    """Every row once for each of its cumulating windows that is not over."""
    count = 0
    for i in range(len(pane)):
        start = pane[i]
        if start == NO_PANE:
            continue
        mark = watermark
        if marks is not None:
            mark = max(mark, marks[i])
        final = start - (start - offset) % size + size
        end = start + step
        while end <= final:
            if end > mark:
                rows[count], ends[count] = i, end
                count += 1
            end += step
    return count


@njit(cache=True, nogil=True)
def number_keys(keys: Any, scratch: Any, numbers: Any, first: Any) -> int:
    """Number the distinct `keys` from 0 in order of appearance; `first` has the row where each appears.

    `scratch` has -1 for every key, before and after. Returns how many there are.
    """
    count = 0
    for i in range(len(keys)):
        key = np.uint64(keys[i])
        number = scratch[key]
        if number < 0:
            number = count
            scratch[key] = number
            first[count] = i
            count += 1
        numbers[i] = number
    for i in range(count):
        scratch[np.uint64(keys[first[i]])] = -1
    return count


@njit(cache=True, nogil=True)
def use_keys(keys: Any, uses: Any) -> None:
    """Count one more use of each key."""
    for i in range(len(keys)):
        uses[np.uint64(keys[i])] += 1


@njit(cache=True, nogil=True)
def release_keys(keys: Any, uses: Any, unused: Any) -> int:
    """Count one use less of each key; those with none left go to `unused`."""
    count = 0
    for i in range(len(keys)):
        key = np.uint64(keys[i])
        uses[key] -= 1
        if uses[key] == 0:
            unused[count] = keys[i]
            count += 1
    return count


@njit(cache=True, nogil=True)
def sort_slots(times: Any, none: int, first: int, width: int, counts: Any, out: Any) -> None:
    """Slots by their time, a multiple of `width` from `first` (`none`: no time); `counts` is 0, one for each multiple."""
    for slot in range(len(times)):
        if times[slot] != none:
            counts[(times[slot] - first) // width] += 1
    at = 0
    for i in range(len(counts)):
        here = counts[i]
        counts[i] = at
        at += here
    for slot in range(len(times)):
        if times[slot] != none:
            place = (times[slot] - first) // width
            out[counts[place]] = slot
            counts[place] += 1
