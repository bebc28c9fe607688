"""Kernels that write rows of several columns as bytes, one cell after the other. Knows no table.

A cell is a byte 0 (null) or 1, then the value: its words, or its length in 8 bytes and its bytes. So
rows are equal exactly where their bytes are, and cells one after the other stay so.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from millrace.state.hash_kernels import NULL_LENGTH, stage
from millrace.state.memory_kernels import copy_bytes, internal, signed, store_u8, store_u64
from millrace.state.words import Addresses, Int64s, Kind, Words

_W128 = int(Kind.W128)
_FIRST_VARIABLE = int(Kind.VAR32)


@internal
def _cell_size(kind: int, words: Words, at: int, place: int, null: bool) -> int:
    if null:
        return 1
    if kind < _FIRST_VARIABLE:
        return 17 if kind == _W128 else 9
    return 9 + signed(words[at + place])


@internal
def _write_cell(kind: int, words: Words, at: int, place: int, null: bool, target: int) -> None:
    if null:
        store_u8(target, np.uint64(0))
        return
    store_u8(target, np.uint64(1))
    store_u64(target + 1, words[at + place])
    if kind == _W128:
        store_u64(target + 9, words[at + place + 1])
    elif kind >= _FIRST_VARIABLE:
        length = signed(words[at + place])
        if length > 16:
            copy_bytes(target + 9, signed(words[at + place + 2]), length)
        else:
            copy_bytes(target + 9, words.ctypes.data + (at + place + 1) * 8, length)


@njit(cache=True, nogil=True)
def encode(
    columns: Addresses,
    rows: int,
    stride: int,
    null_at: int,
    words: Words,
    hashes: Words,
    offsets: Int64s,
    target: int,
) -> None:
    """Fill `offsets` (rows + 1) where `target` is 0; then, called again, write the bytes at `target`."""
    chunk = hashes.shape[0]
    done = 0
    if target == 0:
        offsets[0] = 0
    while done < rows:
        count = min(chunk, rows - done)
        stage(columns, done, count, words.ctypes.data, stride, null_at, hashes.ctypes.data)
        for k in range(count):
            at = k * stride
            place = offsets[done + k]
            for c in range(columns.shape[0]):
                kind, word = columns[c, 0], columns[c, 5]
                if kind >= _FIRST_VARIABLE:
                    null = words[at + word] == NULL_LENGTH
                else:
                    null = (words[at + null_at] >> np.uint64(c)) & np.uint64(1) != 0
                if target != 0:
                    _write_cell(kind, words, at, word, null, target + place)
                place += _cell_size(kind, words, at, word, null)
            if target == 0:
                offsets[done + k + 1] = place
        done += count
