"""Numba kernel behind split watermarks: one pass over raw event times. Knows no Arrow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Int64s = npt.NDArray[np.int64]


@njit(cache=True, nogil=True)
def advance(
    values: Int64s,
    valid: npt.NDArray[np.bool_],
    scale: int,
    lowest: np.int64,
    highest: np.int64,
    lag: np.int64,
    current: np.int64,
    marks: Int64s,
) -> tuple[np.int64, bool]:
    """Carry the watermark `current` (µs) over `values`; returns it with whether any row was behind.

    A value is `scale` µs, or a nanosecond where `scale` is 0. Values above `highest` move nothing, those below
    `lowest` lie before everything. `valid` and `marks` may be empty: no nulls; watermarks before each row not wanted.
    """
    behind = False
    wanted = len(marks) > 0
    some_null = len(valid) > 0
    for i in range(len(values)):
        if wanted:
            marks[i] = current
        if some_null and not valid[i]:
            continue
        value = values[i]
        if value > highest:
            continue
        if value < lowest:
            behind = True
            continue
        if scale > 0:
            time = value * scale
        else:
            time = value // 1000
        if time <= current:
            behind = True
        elif time - lag > current:
            current = time - lag
    return current, behind
