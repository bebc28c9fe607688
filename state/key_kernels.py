"""Kernels of the key index: an open-addressing table over records of words. Knows no Arrow type.

A table entry is 0 or `tag << 32 | slot + 1`; the tag is the high half of the hash, and its low bits
are the entry's home, so that entries move without their records being read.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from millrace.state.hash_kernels import NULL_LENGTH, stage
from millrace.state.memory_kernels import copy_bytes, lowest_bit, prefetch, same_bytes
from millrace.state.words import Addresses, Int64s, Slots, Words

LIVE, HINT, HIGH, ARENA_USED, ARENA_DEAD, CREATED = range(6)
"""Places in the `counts` array: live slots, first bitmap word that may have a free slot, one past the
highest slot, bytes used in the arena, of them bytes of removed keys, slots created in this call."""

_BLOCK = 64
_PREFETCH_FROM = 1 << 14
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_FULL = np.uint64(0xFFFFFFFFFFFFFFFF)
_LOW_HALF = np.uint64(0xFFFFFFFF)
_SHORT = np.uint64(16)


@njit(inline="always")
def _same_key(records: Words, at: int, words: Words, row: int, fixed: int, variable: int, arena: int) -> bool:
    for j in range(fixed):
        if records[at + j] != words[row + j]:
            return False
    for v in range(variable):
        j = fixed + 3 * v
        length = words[row + j]
        if records[at + j] != length or records[at + j + 1] != words[row + j + 1]:
            return False
        if length <= _SHORT or length == NULL_LENGTH:
            if records[at + j + 2] != words[row + j + 2]:
                return False
        elif not same_bytes(
            arena + np.int64(records[at + j + 2]) + 8,
            np.int64(words[row + j + 2]) + 8,
            np.int64(length) - 8,
        ):
            return False
    return True


@njit(cache=True, nogil=True)
def _arena_need(words: Words, row: int, fixed: int, variable: int) -> int:
    need = 0
    for v in range(variable):
        length = words[row + fixed + 3 * v]
        if length > _SHORT and length != NULL_LENGTH:
            need += np.int64(length)
    return need


@njit(cache=True, nogil=True)
def _write_record(
    records: Words, at: int, words: Words, row: int, fixed: int, variable: int, arena: int, counts: Int64s
) -> None:
    for j in range(fixed + 3 * variable):
        records[at + j] = words[row + j]
    for v in range(variable):
        j = fixed + 3 * v
        length = words[row + j]
        if length > _SHORT and length != NULL_LENGTH:
            offset = counts[ARENA_USED]
            copy_bytes(arena + offset, np.int64(words[row + j + 2]), np.int64(length))
            records[at + j + 2] = np.uint64(offset)
            counts[ARENA_USED] = offset + np.int64(length)


@njit(inline="always")
def _take_slot(live: Words, counts: Int64s) -> int:
    """The lowest free slot, now live."""
    word = counts[HINT]
    while live[word] == _FULL:
        word += 1
    bit = lowest_bit(~live[word])
    live[word] |= _ONE << np.uint64(bit)
    counts[HINT] = word
    counts[LIVE] += 1
    slot = word * 64 + bit
    if slot >= counts[HIGH]:
        counts[HIGH] = slot + 1
    return slot


@njit(cache=True, nogil=True)
def _warm(
    table: Words, records: Words, stride: int, hashes: Words, base: int, count: int, mask: np.uint64
) -> None:
    """Have the entries of `count` rows, then the records they point to, brought into cache."""
    table_address = table.ctypes.data
    record_address = records.ctypes.data
    for k in range(count):
        prefetch(table_address + np.int64(((hashes[base + k] >> np.uint64(32)) & mask) << np.uint64(3)))
    for k in range(count):
        entry = table[(hashes[base + k] >> np.uint64(32)) & mask]
        if entry != _ZERO:
            prefetch(record_address + (np.int64(entry & _LOW_HALF) - 1) * stride * 8)


@njit(cache=True, nogil=True)
def upsert(
    columns: Addresses,
    start: int,
    rows: int,
    fixed: int,
    variable: int,
    null_at: int,
    table: Words,
    records: Words,
    slot_hashes: Words,
    live: Words,
    arena: int,
    arena_size: int,
    counts: Int64s,
    words: Words,
    hashes: Words,
    slots: Slots,
    created: Slots,
) -> int:
    """Slots of rows from `start`, made where absent; returns the row at which something must grow, or `rows`."""
    stride = fixed + 3 * variable
    mask = np.uint64(table.shape[0] - 1)
    capacity = slot_hashes.shape[0]
    limit = min(capacity, table.shape[0] // 2)
    warm = table.shape[0] >= _PREFETCH_FROM
    chunk = hashes.shape[0]
    done = start
    while done < rows:
        count = min(chunk, rows - done)
        stage(columns, done, count, words, stride, null_at, hashes, 0)
        for k in range(count):
            if warm and k % _BLOCK == 0:
                _warm(table, records, stride, hashes, k, min(_BLOCK, count - k), mask)
            tag = hashes[k] >> np.uint64(32)
            position = tag & mask
            while True:
                entry = table[position]
                if entry == _ZERO:
                    if counts[LIVE] >= limit:
                        return done + k
                    if variable > 0:
                        need = _arena_need(words, k * stride, fixed, variable)
                        if counts[ARENA_USED] + need > arena_size:
                            return done + k
                    slot = _take_slot(live, counts)
                    table[position] = (tag << np.uint64(32)) | np.uint64(slot + 1)
                    _write_record(records, slot * stride, words, k * stride, fixed, variable, arena, counts)
                    slot_hashes[slot] = hashes[k]
                    created[counts[CREATED]] = slot
                    counts[CREATED] += 1
                    break
                if (entry >> np.uint64(32)) == tag:
                    slot = np.int64(entry & _LOW_HALF) - 1
                    if _same_key(records, slot * stride, words, k * stride, fixed, variable, arena):
                        break
                position = (position + _ONE) & mask
            slots[done + k] = slot
        done += count
    return rows


@njit(cache=True, nogil=True)
def lookup(
    columns: Addresses,
    rows: int,
    fixed: int,
    variable: int,
    null_at: int,
    table: Words,
    records: Words,
    arena: int,
    words: Words,
    hashes: Words,
    slots: Slots,
) -> None:
    """Slots of rows, -1 where absent."""
    stride = fixed + 3 * variable
    mask = np.uint64(table.shape[0] - 1)
    warm = table.shape[0] >= _PREFETCH_FROM
    chunk = hashes.shape[0]
    done = 0
    while done < rows:
        count = min(chunk, rows - done)
        stage(columns, done, count, words, stride, null_at, hashes, 0)
        for k in range(count):
            if warm and k % _BLOCK == 0:
                _warm(table, records, stride, hashes, k, min(_BLOCK, count - k), mask)
            tag = hashes[k] >> np.uint64(32)
            position = tag & mask
            slot = -1
            while True:
                entry = table[position]
                if entry == _ZERO:
                    break
                if (entry >> np.uint64(32)) == tag:
                    found = np.int64(entry & _LOW_HALF) - 1
                    if _same_key(records, found * stride, words, k * stride, fixed, variable, arena):
                        slot = found
                        break
                position = (position + _ONE) & mask
            slots[done + k] = slot
        done += count


@njit(cache=True, nogil=True)
def remove(
    slots: Slots,
    fixed: int,
    variable: int,
    table: Words,
    records: Words,
    slot_hashes: Words,
    live: Words,
    counts: Int64s,
) -> int:
    """Free slots; returns how many were freed before one that is not live, or all."""
    stride = fixed + 3 * variable
    mask = np.uint64(table.shape[0] - 1)
    for i in range(slots.shape[0]):
        slot = np.int64(slots[i])
        if slot < 0 or slot >= counts[HIGH]:
            return i
        word, bit = slot >> 6, _ONE << np.uint64(slot & 63)
        if live[word] & bit == _ZERO:
            return i
        live[word] &= ~bit
        counts[LIVE] -= 1
        counts[HINT] = min(counts[HINT], word)
        counts[ARENA_DEAD] += _arena_need(records, slot * stride, fixed, variable)
        position = (slot_hashes[slot] >> np.uint64(32)) & mask
        while table[position] & _LOW_HALF != np.uint64(slot + 1):
            position = (position + _ONE) & mask
        _close_gap(table, position, mask)
    high = counts[HIGH]
    while high > 0 and (live[(high - 1) >> 6] >> np.uint64((high - 1) & 63)) & _ONE == _ZERO:
        high = ((high - 1) >> 6) << 6 if live[(high - 1) >> 6] == _ZERO else high - 1
    counts[HIGH] = high
    return slots.shape[0]


@njit(cache=True, nogil=True)
def _close_gap(table: Words, gap: np.uint64, mask: np.uint64) -> None:
    """Empty `gap` and move entries behind it so that every probe still reaches its own."""
    position = gap
    while True:
        position = (position + _ONE) & mask
        entry = table[position]
        if entry == _ZERO:
            break
        home = (entry >> np.uint64(32)) & mask
        if ((position - home) & mask) >= ((position - gap) & mask):
            table[gap] = entry
            gap = position
    table[gap] = _ZERO


@njit(cache=True, nogil=True)
def refill(table: Words, old: Words) -> None:
    """Enter all of `old` into the empty `table` of another size."""
    mask = np.uint64(table.shape[0] - 1)
    for i in range(old.shape[0]):
        entry = old[i]
        if entry != _ZERO:
            position = (entry >> np.uint64(32)) & mask
            while table[position] != _ZERO:
                position = (position + _ONE) & mask
            table[position] = entry


@njit(cache=True, nogil=True)
def live_slots(live: Words, high: int, out: Slots) -> int:
    """Live slots in ascending order; returns how many."""
    n = 0
    for word in range((high + 63) >> 6):
        bits = live[word]
        while bits != _ZERO:
            out[n] = word * 64 + lowest_bit(bits)
            n += 1
            bits &= bits - _ONE
    return n


@njit(cache=True, nogil=True)
def compact_arena(
    slots: Slots, records: Words, fixed: int, variable: int, arena: int, target: int, counts: Int64s
) -> None:
    """Copy the bytes of these slots from one arena to another, densely."""
    stride = fixed + 3 * variable
    used = 0
    for i in range(slots.shape[0]):
        at = np.int64(slots[i]) * stride + fixed
        for v in range(variable):
            length = records[at + 3 * v]
            if length > _SHORT and length != NULL_LENGTH:
                size = np.int64(length)
                copy_bytes(target + used, arena + np.int64(records[at + 3 * v + 2]), size)
                records[at + 3 * v + 2] = np.uint64(used)
                used += size
    counts[ARENA_USED] = used
    counts[ARENA_DEAD] = 0


@njit(cache=True, nogil=True)
def gather_words(slots: Slots, records: Words, stride: int, at: int, out: Words) -> None:
    """Word `at` of each slot's record."""
    for i in range(slots.shape[0]):
        out[i] = records[np.int64(slots[i]) * stride + at]


@njit(cache=True, nogil=True)
def gather_offsets(slots: Slots, records: Words, stride: int, at: int, offsets: Int64s) -> int:
    """Offsets (n + 1) of the variable-width values whose words start at `at`; returns the null count."""
    nulls = 0
    offsets[0] = 0
    for i in range(slots.shape[0]):
        length = records[np.int64(slots[i]) * stride + at]
        if length == NULL_LENGTH:
            nulls += 1
            length = _ZERO
        offsets[i + 1] = offsets[i] + np.int64(length)
    return nulls


@njit(cache=True, nogil=True)
def gather_bytes(
    slots: Slots, records: Words, stride: int, at: int, arena: int, offsets: Int64s, target: int
) -> None:
    """Copy the values to `target`; short ones are stored in the record itself."""
    record_address = records.ctypes.data
    for i in range(slots.shape[0]):
        place = np.int64(slots[i]) * stride + at
        length = offsets[i + 1] - offsets[i]
        if length <= 16:
            copy_bytes(target + offsets[i], record_address + (place + 1) * 8, length)
        else:
            copy_bytes(target + offsets[i], arena + np.int64(records[place + 2]), length)
