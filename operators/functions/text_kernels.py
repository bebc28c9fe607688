"""Numba kernels over the offsets and bytes of string arrays. Knows no Arrow and no Unicode."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int32]


@njit(cache=True, nogil=True)
def count_byte(offsets: Offsets, data: Bytes, wanted: np.uint8, out: npt.NDArray[np.int64]) -> None:
    """How often a byte occurs in each string."""
    for row in range(len(offsets) - 1):
        count = 0
        for i in range(offsets[row], offsets[row + 1]):
            count += data[i] == wanted
        out[row] = count


@njit(cache=True, nogil=True)
def split_byte(
    offsets: Offsets, data: Bytes, mark: np.uint8, index: int, out_offsets: Offsets, out: Bytes, found: Bytes
) -> int:
    """Part `index` (from 0) of each string cut at the byte `mark`; `found` is 0 where there are fewer parts."""
    position = 0
    for row in range(len(offsets) - 1):
        i, end = offsets[row], offsets[row + 1]
        left = index
        while left > 0 and i < end:
            left -= data[i] == mark
            i += 1
        found[row] = left == 0
        if left == 0:
            while i < end and data[i] != mark:
                out[position] = data[i]
                position += 1
                i += 1
        out_offsets[row + 1] = position
    return position


@njit(cache=True, nogil=True)
def split_bytes(
    offsets: Offsets, data: Bytes, mark: Bytes, index: int, out_offsets: Offsets, out: Bytes, found: Bytes
) -> int:
    """As `split_byte`, for a delimiter of several bytes."""
    position, width = 0, len(mark)
    for row in range(len(offsets) - 1):
        i, end = offsets[row], offsets[row + 1]
        left = index
        begin = i
        while left >= 0:
            hit = -1
            while i <= end - width:
                same = True
                for k in range(width):
                    if data[i + k] != mark[k]:
                        same = False
                        break
                if same:
                    hit = i
                    break
                i += 1
            if left == 0 or hit < 0:
                break
            left -= 1
            i = hit + width
            begin = i
        found[row] = left == 0
        if left == 0:
            stop = end if hit < 0 else hit
            for k in range(begin, stop):
                out[position] = data[k]
                position += 1
        out_offsets[row + 1] = position
    return position


@njit(cache=True, nogil=True)
def extract_behind(
    offsets: Offsets,
    data: Bytes,
    literal: Bytes,
    before: Bytes,
    at_start: bool,
    stops: Bytes,
    shortest: int,
    out_offsets: Offsets,
    out: Bytes,
    found: Bytes,
) -> int:
    """What follows the first `literal` up to a byte of `stops` (a table of 256).

    The literal counts only behind a byte of `before` (a table of 256), or at the start where `at_start`, and
    only with at least `shortest` bytes following.
    """
    position, width = 0, len(literal)
    first = literal[0]
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        found[row] = 0
        i = begin
        while i <= end - width:
            if data[i] != first:
                i += 1
                continue
            same = at_start if i == begin else before[data[i - 1]] != 0
            k = 1
            while same and k < width:
                same = data[i + k] == literal[k]
                k += 1
            if same:
                stop = i + width
                while stop < end and stops[data[stop]] == 0:
                    stop += 1
                if stop - i - width >= shortest:
                    for j in range(i + width, stop):
                        out[position] = data[j]
                        position += 1
                    found[row] = 1
                    break
            i += 1
        out_offsets[row + 1] = position
    return position
