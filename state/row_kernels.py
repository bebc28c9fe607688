"""Kernels that find and copy rows scattered over many Arrow chunks. Knows no Python object of a chunk."""

from __future__ import annotations

import numpy as np
from numba import njit

from millrace.state.memory_kernels import (
    copy_bytes,
    internal,
    is_set,
    load_i64,
    load_u8,
    load_u16,
    load_u32,
    load_u64,
    signed,
    store_u8,
    store_u16,
    store_u32,
    store_u64,
)
from millrace.state.words import Addresses, Int32s, Int64s

FIRST, COUNT, NUMBERS, ALIVE = range(4)
"""Columns of the chunk table: lowest row number, rows, address of the row numbers (0: they are
consecutive), address of a byte a row that is 0 where the row was removed (0: none was)."""

DATA, VALID, OFFSETS, BIT = range(4)
"""Columns of the table of one Arrow column: addresses (0: absent) and the bit offset."""

_NO_END = 2**63 - 1


@internal
def _listed(numbers: int, count: int, row: int) -> int:
    """Where a row is among the ascending numbers at an address, -1 where it is not."""
    low, high = 0, count
    while low < high:
        middle = (low + high) >> 1
        if load_i64(numbers + middle * 8) < row:
            low = middle + 1
        else:
            high = middle
    return low if low < count and load_i64(numbers + low * 8) == row else -1


@internal
def _chunk_of(table: Addresses, last: int, row: int) -> int:
    """The chunk that may have a row that is not in `last`: the one behind it, or what a search finds."""
    total = table.shape[0]
    after = last + 1
    if after < total and row >= table[after, FIRST] and (after + 1 == total or row < table[after + 1, FIRST]):
        return after
    low, high = 0, total
    while high - low > 1:
        middle = (low + high) >> 1
        if table[middle, FIRST] <= row:
            low = middle
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def locate(rows: Int64s, table: Addresses, chunks: Int32s, places: Int32s) -> int:
    """Chunk and place of each row; returns how many were found before one that is absent, or all."""
    total = table.shape[0]
    last = -1
    # Neighbours tend to be in one chunk, whose columns are at hand; at first there is none.
    first, end, count, numbers, alive = 0, 0, 0, 0, 0
    for i in range(rows.shape[0]):
        row = rows[i]
        if row < first or row >= end:
            if total == 0 or row < table[0, FIRST]:
                return i
            last = _chunk_of(table, last, row)
            first, count = table[last, FIRST], table[last, COUNT]
            numbers, alive = table[last, NUMBERS], table[last, ALIVE]
            end = table[last + 1, FIRST] if last + 1 < total else _NO_END
        place = row - first
        if numbers != 0:
            place = _listed(numbers, count, row)
        if place < 0 or place >= count or (alive != 0 and load_u8(alive + place) == 0):
            return i
        chunks[i] = last
        places[i] = place
    return rows.shape[0]


@njit(cache=True, nogil=True)
def kill(table: Addresses, chunks: Int32s, places: Int32s) -> int:
    """Mark located rows as removed; returns how many before one that already is, or all."""
    for i in range(chunks.shape[0]):
        address = table[chunks[i], ALIVE] + places[i]
        if load_u8(address) == 0:
            return i
        store_u8(address, np.uint64(0))
    return chunks.shape[0]


@njit(cache=True, nogil=True)
def gather_fixed(width: int, table: Addresses, chunks: Int32s, places: Int32s, target: int) -> None:
    """Copy values of `width` bytes, one a row, to `target`."""
    rows = chunks.shape[0]
    if width == 8:
        for i in range(rows):
            store_u64(target + i * 8, load_u64(table[chunks[i], DATA] + signed(places[i]) * 8))
    elif width == 4:
        for i in range(rows):
            store_u32(target + i * 4, load_u32(table[chunks[i], DATA] + signed(places[i]) * 4))
    elif width == 2:
        for i in range(rows):
            store_u16(target + i * 2, load_u16(table[chunks[i], DATA] + signed(places[i]) * 2))
    elif width == 1:
        for i in range(rows):
            store_u8(target + i, load_u8(table[chunks[i], DATA] + signed(places[i])))
    else:
        for i in range(rows):
            copy_bytes(target + i * width, table[chunks[i], DATA] + signed(places[i]) * width, width)


@njit(cache=True, nogil=True)
def gather_bits(which: int, table: Addresses, chunks: Int32s, places: Int32s, out: int) -> int:
    """Bits of the bitmap in column `which` of `table` (absent: all set) to `out`; returns how many are 0."""
    zeros = 0
    byte = np.uint64(0)
    rows = chunks.shape[0]
    for i in range(rows):
        chunk = chunks[i]
        address = table[chunk, which]
        if address == 0 or is_set(address, table[chunk, BIT] + signed(places[i])):
            byte |= np.uint64(1) << np.uint64(i & 7)
        else:
            zeros += 1
        if i & 7 == 7:
            store_u8(out + (i >> 3), byte)
            byte = np.uint64(0)
    if rows & 7:
        store_u8(out + (rows >> 3), byte)
    return zeros


@njit(cache=True, nogil=True)
def gather_offsets(
    narrow: bool, table: Addresses, chunks: Int32s, places: Int32s, sources: Int64s, offsets: Int64s
) -> None:
    """Address of each variable-width value, and offsets (n + 1) of the copies."""
    offsets[0] = 0
    for i in range(chunks.shape[0]):
        chunk = chunks[i]
        at = table[chunk, OFFSETS]
        if narrow:
            at += signed(places[i]) * 4
            first, end = signed(load_u32(at)), signed(load_u32(at + 4))
        else:
            at += signed(places[i]) * 8
            first, end = load_i64(at), load_i64(at + 8)
        sources[i] = table[chunk, DATA] + first
        offsets[i + 1] = offsets[i] + end - first


@njit(cache=True, nogil=True)
def gather_bytes(sources: Int64s, offsets: Int64s, target: int) -> None:
    """Copy each value from its address to its offset behind `target`."""
    for i in range(sources.shape[0]):
        copy_bytes(target + offsets[i], sources[i], offsets[i + 1] - offsets[i])
