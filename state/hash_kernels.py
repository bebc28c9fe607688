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
    inlined,
    internal,
    is_set,
    load_u8,
    load_u32,
    load_u64,
    multiply_fold,
    signed,
    store_u64,
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
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
NULL_LENGTH = _ALL

# Plain integers, since Numba freezes globals but does not take an enum's members apart.
_W128, _VAR32 = int(Kind.W128), int(Kind.VAR32)
_FIRST_VARIABLE = int(Kind.VAR32)


@inlined
def combine(before: np.uint64, value: np.uint64) -> np.uint64:
    """Fold one more value into a hash; a bijection of `value`."""
    x = before * _STEP + value
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


@inlined
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


@inlined
def _next_bytes(address: int, length: int) -> np.uint64:
    """Bytes 8 to 16 as one word, zero-padded; `length` is at most 16."""
    if length <= 8:
        return _ZERO
    return load_u64(address + length - 8) >> np.uint64(8 * (16 - length))


@inlined
def _lowest_bytes(count: int) -> np.uint64:
    """A mask of the lowest `count` bytes: none below 0, all from 8 on."""
    if count >= 8:
        return _ALL
    return (_ONE << np.uint64(8 * max(count, 0))) - _ONE


@inlined
def _hash_short(low: np.uint64, high: np.uint64, length: np.uint64) -> np.uint64:
    return multiply_fold(low ^ _LOW, high ^ _HIGH) ^ (high * _SPREAD + length)


@internal
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


@internal
def _stage_fixed(
    column: Addresses, place: int, start: int, count: int, words: int, step: int, null_word: int, hashes: int
) -> None:
    """Words and hashes of one fixed-width column; column number `place` is its bit in the null word."""
    kind, data, valid, bit = column[0], column[1], column[2], column[4]
    wide = kind == _W128
    if valid == 0 and data != 0 and not wide:
        for k in range(count):
            value = load_u64(data + (start + k) * 8)
            store_u64(words + k * step, value)
            store_u64(hashes + k * 8, combine(load_u64(hashes + k * 8), value))
        return
    for k in range(count):
        low, high, mixed = _ZERO, _ZERO, load_u64(hashes + k * 8)
        if data == 0 or (valid != 0 and not is_set(valid, bit + start + k)):
            mixed = combine(mixed, _NULL)
            if null_word != 0:
                at = null_word + k * step
                store_u64(at, load_u64(at) | (_ONE << np.uint64(place)))
        elif wide:
            low, high = load_u64(data + (start + k) * 16), load_u64(data + (start + k) * 16 + 8)
            mixed = combine(mixed, low)
            # A 128-bit value that fits in 64 bits hashes like the 64-bit one.
            if high != (_ZERO - (low >> np.uint64(63))):
                mixed = combine(mixed, high)
        else:
            low = load_u64(data + (start + k) * 8)
            mixed = combine(mixed, low)
        store_u64(words + k * step, low)
        if wide:
            store_u64(words + k * step + 8, high)
        store_u64(hashes + k * 8, mixed)


@inlined
def _stage_value(address: int, length: int, end: int, words: int, hashes: int) -> None:
    """Words and hash of one variable-width value; bytes up to `end` may be read."""
    if length <= 16:
        if address + 16 <= end:
            low = load_u64(address) & _lowest_bytes(length)
            high = load_u64(address + 8) & _lowest_bytes(length - 8)
        else:
            low = _first_bytes(address, length)
            high = _next_bytes(address, length)
        value = _hash_short(low, high, np.uint64(length))
    else:
        low = load_u64(address)
        high = np.uint64(address)
        value = _hash_long(address, length)
    store_u64(words, np.uint64(length))
    store_u64(words + 8, low)
    store_u64(words + 16, high)
    store_u64(hashes, combine(load_u64(hashes), value))


@internal
def _stage_variable(column: Addresses, start: int, count: int, words: int, step: int, hashes: int) -> None:
    """Words and hashes of one variable-width column."""
    data, valid, offsets, bit, end = column[1], column[2], column[3], column[4], column[6]
    if column[0] == _VAR32 and valid == 0:
        first = signed(load_u32(offsets + start * 4))
        for k in range(count):
            last = signed(load_u32(offsets + (start + k) * 4 + 4))
            _stage_value(data + first, last - first, end, words + k * step, hashes + k * 8)
            first = last
        return
    narrow = column[0] == _VAR32
    for k in range(count):
        if valid != 0 and not is_set(valid, bit + start + k):
            store_u64(words + k * step, NULL_LENGTH)
            store_u64(words + k * step + 8, _ZERO)
            store_u64(words + k * step + 16, _ZERO)
            store_u64(hashes + k * 8, combine(load_u64(hashes + k * 8), _NULL))
            continue
        if narrow:
            first = signed(load_u32(offsets + (start + k) * 4))
            last = signed(load_u32(offsets + (start + k) * 4 + 4))
        else:
            first = signed(load_u64(offsets + (start + k) * 8))
            last = signed(load_u64(offsets + (start + k) * 8 + 8))
        _stage_value(data + first, last - first, end, words + k * step, hashes + k * 8)


@internal
def stage(
    columns: Addresses, start: int, count: int, words: int, stride: int, null_at: int, hashes: int
) -> None:
    """Fill `count * stride` words and `count` hashes, at those addresses, for rows from `start`.

    `columns` has a row a column: kind, data, validity, offsets (addresses; 0 where absent), bit offset,
    place of its first word, end of the data. Values of fixed width are 64 or 128 bits wide.
    """
    step = stride * 8
    for k in range(count):
        store_u64(hashes + k * 8, _SEED)
    null_word = 0
    if null_at >= 0:
        null_word = words + null_at * 8
        for k in range(count):
            store_u64(null_word + k * step, _ZERO)
    for c in range(columns.shape[0]):
        column = columns[c]
        at = words + column[5] * 8
        if column[0] >= _FIRST_VARIABLE:
            _stage_variable(column, start, count, at, step, hashes)
        else:
            _stage_fixed(column, c, start, count, at, step, null_word, hashes)


@njit(cache=True, nogil=True)
def hash_rows(columns: Addresses, rows: int, words: int, stride: int, chunk: int, hashes: int) -> None:
    """Hashes of `rows` rows to address `hashes`; at `words` is scratch for `chunk * stride` words."""
    done = 0
    while done < rows:
        count = min(chunk, rows - done)
        stage(columns, done, count, words, stride, -1, hashes + done * 8)
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
