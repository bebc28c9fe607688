"""Kernels that turn key columns into words and hashes, a chunk of rows at a time. Knows no table.

The hash is part of the file format (vnodes, Kafka partitions): no constant and no step may change.
A row's *words* identify it: one a fixed-width column (two for 128 bits), then, where `null_at >= 0`,
one whose bit c says that fixed column c is null, then three a variable-width column: its length (all
ones for null), its first 8 bytes, and its next 8 bytes or, over 16 bytes, the address of the first.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from millrace.state.memory_kernels import (
    is_set,
    load_i8,
    load_i16,
    load_i32,
    load_u8,
    load_u16,
    load_u32,
    load_u64,
    multiply_fold,
    widened_f32_bits,
)
from millrace.state.words import Addresses, Int16s, Int32s, Int64s, Kind, Uint16s, Words

_SEED = np.uint64(0x6D696C6C72616365)
_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_LOW = np.uint64(0xA0761D6478BD642F)
_HIGH = np.uint64(0xE7037ED1A0B428DB)
_SPREAD = np.uint64(0x8EBC6AF09C88C6E3)
_NULL = np.uint64(0x589965CC75374CC3)

_ONE = np.uint64(1)
_ZERO = np.uint64(0)
NULL_LENGTH = np.uint64(0xFFFFFFFFFFFFFFFF)
_SIGN = np.uint64(0x8000000000000000)
_MAGNITUDE = np.uint64(0x7FFFFFFFFFFFFFFF)
_INFINITE = np.uint64(0x7FF0000000000000)
_NAN = np.uint64(0x7FF8000000000000)

# Plain integers, since Numba freezes globals but does not take an enum's members apart.
_BOOL, _I8, _I16, _I32, _W64 = int(Kind.BOOL), int(Kind.I8), int(Kind.I16), int(Kind.I32), int(Kind.W64)
_U8, _U16, _U32, _F32, _F64 = int(Kind.U8), int(Kind.U16), int(Kind.U32), int(Kind.F32), int(Kind.F64)
_W128, _VAR32 = int(Kind.W128), int(Kind.VAR32)
_FIRST_VARIABLE = int(Kind.VAR32)


@njit(inline="always")
def combine(before: np.uint64, value: np.uint64) -> np.uint64:
    """Fold one more value into a hash; a bijection of `value`."""
    x = before * _STEP + value
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


@njit(inline="always")
def _canonical(bits: np.uint64) -> np.uint64:
    """One bit pattern for all NaN, and 0.0 for -0.0."""
    if (bits & _MAGNITUDE) > _INFINITE:
        return _NAN
    if bits == _SIGN:
        return _ZERO
    return bits


@njit(inline="always")
def _first_bytes(address: int, length: int) -> np.uint64:
    """Up to 8 bytes as one word, zero-padded, without reading beyond them."""
    if length >= 8:
        return load_u64(address)
    if length >= 4:
        shift = np.uint64(8 * (length - 4))
        return load_u32(address) | (load_u32(address + length - 4) << shift)
    if length == 0:
        return _ZERO
    word = load_u8(address)
    if length > 1:
        word |= load_u8(address + 1) << np.uint64(8)
    if length > 2:
        word |= load_u8(address + 2) << np.uint64(16)
    return word


@njit(inline="always")
def _next_bytes(address: int, length: int) -> np.uint64:
    """Bytes 8 to 16 as one word, zero-padded; `length` is at most 16."""
    if length <= 8:
        return _ZERO
    return load_u64(address + length - 8) >> np.uint64(8 * (16 - length))


@njit(inline="always")
def _hash_short(low: np.uint64, high: np.uint64, length: np.uint64) -> np.uint64:
    return multiply_fold(low ^ _LOW, high ^ _HIGH) ^ (high * _SPREAD + length)


@njit(cache=True, nogil=True)
def _hash_long(address: int, length: int) -> np.uint64:
    """Hash of more than 16 bytes: blocks of 16, the last one overlapping."""
    acc = np.uint64(length) * _SPREAD
    done = 0
    while done + 16 < length:
        folded = multiply_fold(load_u64(address + done) ^ _LOW ^ acc, load_u64(address + done + 8) ^ _HIGH)
        acc = folded ^ ((acc << np.uint64(27)) | (acc >> np.uint64(37)))
        done += 16
    tail = address + length - 16
    folded = multiply_fold(load_u64(tail) ^ _LOW ^ acc, load_u64(tail + 8) ^ _HIGH)
    return folded ^ ((acc << np.uint64(27)) | (acc >> np.uint64(37)))


@njit(cache=True, nogil=True)
def _load_words(
    kind: int, data: int, bit: int, start: int, count: int, words: Words, stride: int, at: int
) -> None:
    """Widen `count` values of a fixed-width column from row `start` into word `at` of each row."""
    if kind == _W64:
        for k in range(count):
            words[k * stride + at] = load_u64(data + (start + k) * 8)
    elif kind == _I32:
        for k in range(count):
            words[k * stride + at] = np.uint64(load_i32(data + (start + k) * 4))
    elif kind == _I16:
        for k in range(count):
            words[k * stride + at] = np.uint64(load_i16(data + (start + k) * 2))
    elif kind == _I8:
        for k in range(count):
            words[k * stride + at] = np.uint64(load_i8(data + start + k))
    elif kind == _U32:
        for k in range(count):
            words[k * stride + at] = load_u32(data + (start + k) * 4)
    elif kind == _U16:
        for k in range(count):
            words[k * stride + at] = load_u16(data + (start + k) * 2)
    elif kind == _U8:
        for k in range(count):
            words[k * stride + at] = load_u8(data + start + k)
    elif kind == _F64:
        for k in range(count):
            words[k * stride + at] = _canonical(load_u64(data + (start + k) * 8))
    elif kind == _F32:
        for k in range(count):
            words[k * stride + at] = _canonical(widened_f32_bits(data + (start + k) * 4))
    elif kind == _BOOL:
        for k in range(count):
            words[k * stride + at] = _ONE if is_set(data, bit + start + k) else _ZERO
    elif kind == _W128:
        for k in range(count):
            words[k * stride + at] = load_u64(data + (start + k) * 16)
            words[k * stride + at + 1] = load_u64(data + (start + k) * 16 + 8)


@njit(cache=True, nogil=True)
def _stage_fixed(
    column: Addresses,
    place: int,
    start: int,
    count: int,
    words: Words,
    stride: int,
    at: int,
    null_at: int,
    hashes: Words,
    base: int,
) -> None:
    """Words and hashes of one fixed-width column; column number `place` is its bit in the null word."""
    kind, data, valid, bit = column[0], column[1], column[2], column[4]
    if data != 0:
        _load_words(kind, data, bit, start, count, words, stride, at)
    wide = kind == _W128
    for k in range(count):
        if (valid != 0 and not is_set(valid, bit + start + k)) or data == 0:
            words[k * stride + at] = _ZERO
            if wide:
                words[k * stride + at + 1] = _ZERO
            if null_at >= 0:
                words[k * stride + null_at] |= _ONE << np.uint64(place)
            hashes[base + k] = combine(hashes[base + k], _NULL)
            continue
        low = words[k * stride + at]
        mixed = combine(hashes[base + k], low)
        if wide:
            high = words[k * stride + at + 1]
            # A 128-bit value that fits in 64 bits hashes like the 64-bit one.
            if high != (_ZERO - (low >> np.uint64(63))):
                mixed = combine(mixed, high)
        hashes[base + k] = mixed


@njit(cache=True, nogil=True)
def _stage_variable(
    column: Addresses, start: int, count: int, words: Words, stride: int, at: int, hashes: Words, base: int
) -> None:
    """Words and hashes of one variable-width column."""
    narrow = column[0] == _VAR32
    data, valid, offsets, bit = column[1], column[2], column[3], column[4]
    for k in range(count):
        place = k * stride + at
        if valid != 0 and not is_set(valid, bit + start + k):
            words[place] = NULL_LENGTH
            words[place + 1] = _ZERO
            words[place + 2] = _ZERO
            hashes[base + k] = combine(hashes[base + k], _NULL)
            continue
        if narrow:
            first = np.int64(load_u32(offsets + (start + k) * 4))
            length = np.int64(load_u32(offsets + (start + k) * 4 + 4)) - first
        else:
            first = np.int64(load_u64(offsets + (start + k) * 8))
            length = np.int64(load_u64(offsets + (start + k) * 8 + 8)) - first
        address = data + first
        low = _first_bytes(address, length)
        words[place] = np.uint64(length)
        words[place + 1] = low
        if length <= 16:
            high = _next_bytes(address, length)
            words[place + 2] = high
            value = _hash_short(low, high, np.uint64(length))
        else:
            words[place + 2] = np.uint64(address)
            value = _hash_long(address, length)
        hashes[base + k] = combine(hashes[base + k], value)


@njit(cache=True, nogil=True)
def stage(
    columns: Addresses,
    start: int,
    count: int,
    words: Words,
    stride: int,
    null_at: int,
    hashes: Words,
    base: int,
) -> None:
    """Fill `words[:count * stride]` and `hashes[base : base + count]` for rows from `start`.

    `columns` has a row a column: kind, data, validity, offsets (addresses; 0 where absent), bit offset,
    place of its first word.
    """
    for k in range(count):
        hashes[base + k] = _SEED
    if null_at >= 0:
        for k in range(count):
            words[k * stride + null_at] = _ZERO
    for c in range(columns.shape[0]):
        column = columns[c]
        if column[0] >= _FIRST_VARIABLE:
            _stage_variable(column, start, count, words, stride, column[5], hashes, base)
        else:
            _stage_fixed(column, c, start, count, words, stride, column[5], null_at, hashes, base)


@njit(cache=True, nogil=True)
def hash_rows(columns: Addresses, rows: int, words: Words, stride: int, chunk: int, hashes: Words) -> None:
    """Hashes of `rows` rows; `words` is scratch of `chunk * stride`."""
    done = 0
    while done < rows:
        count = min(chunk, rows - done)
        stage(columns, done, count, words, stride, -1, hashes, done)
        done += count


@njit(cache=True, nogil=True)
def vnodes_of(hashes: Words, vnodes: int, out: Uint16s) -> None:
    """The low 32 bits of each hash scaled to `vnodes`; tables use the high ones."""
    for i in range(hashes.shape[0]):
        out[i] = np.uint16(((hashes[i] & np.uint64(0xFFFFFFFF)) * np.uint64(vnodes)) >> np.uint64(32))


@njit(cache=True, nogil=True)
def partition_rows(vnodes: Uint16s, owner_of_vnode: Int16s, order: Int32s, bounds: Int64s) -> None:
    """Stable counting sort of rows by owner: owner o has `order[bounds[o] : bounds[o + 1]]`."""
    owners = bounds.shape[0] - 1
    bounds[:] = 0
    for i in range(vnodes.shape[0]):
        bounds[owner_of_vnode[vnodes[i]] + 1] += 1
    for owner in range(owners):
        bounds[owner + 1] += bounds[owner]
    cursor = bounds[:owners].copy()
    for i in range(vnodes.shape[0]):
        owner = owner_of_vnode[vnodes[i]]
        order[cursor[owner]] = i
        cursor[owner] += 1
