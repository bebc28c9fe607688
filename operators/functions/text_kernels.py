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
    # Indices are unsigned: signed ones make Numba test each access for counting from the end.
    for row in range(len(offsets) - 1):
        count = np.int64(0)
        for i in range(np.uint64(offsets[row]), np.uint64(offsets[row + 1])):
            count += data[i] == wanted
        out[row] = count


@njit(cache=True, nogil=True)
def split_byte(
    offsets: Offsets, data: Bytes, mark: np.uint8, index: int, out_offsets: Offsets, out: Bytes, found: Bytes
) -> int:
    """Part `index` (from 0) of each string cut at the byte `mark`; `found` is 0 where there are fewer parts."""
    position = np.uint64(0)
    one = np.uint64(1)
    for row in range(len(offsets) - 1):
        i, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        left = index
        while left > 0 and i < end:
            if data[i] == mark:
                left -= 1
            i += one
        found[row] = left == 0
        if left == 0:
            while i < end and data[i] != mark:
                out[position] = data[i]
                position += one
                i += one
        out_offsets[row + 1] = position
    return int(position)


@njit(cache=True, nogil=True)
def split_bytes(
    offsets: Offsets, data: Bytes, mark: Bytes, index: int, out_offsets: Offsets, out: Bytes, found: Bytes
) -> int:
    """As `split_byte`, for a delimiter of several bytes."""
    position, width = 0, len(mark)
    for row in range(len(offsets) - 1):
        i, end = offsets[row], offsets[row + 1]
        left = index
        begin, hit = i, -1
        while True:
            hit = -1
            while i <= end - width:
                k = 0
                while k < width and data[i + k] == mark[k]:
                    k += 1
                if k == width:
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
            for k in range(begin, end if hit < 0 else hit):
                out[position] = data[k]
                position += 1
        out_offsets[row + 1] = position
    return int(position)


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
    position, one = np.uint64(0), np.uint64(1)
    width, least = np.uint64(len(literal)), np.uint64(shortest)
    tail = width - one
    last = literal[tail]
    for row in range(len(offsets) - 1):
        begin, end = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        found[row] = 0
        i = begin + tail
        while i < end:
            # The last byte is looked for: in names and paths it is rarer than the first.
            if data[i] == last:
                start = i - tail
                k = np.uint64(0)
                while k < tail and data[start + k] == literal[k]:
                    k += one
                if k == tail and (at_start if start == begin else before[data[start - one]] != 0):
                    stop = i + one
                    while stop < end and stops[data[stop]] == 0:
                        stop += one
                    if stop - i > least:
                        for j in range(i + one, stop):
                            out[position] = data[j]
                            position += one
                        found[row] = 1
                        break
            i += one
        out_offsets[row + 1] = position
    return int(position)
