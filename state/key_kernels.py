"""Kernels of the key index: an open-addressing table over records of words. Knows no Arrow type.

A table entry is 0 or `tag << 32 | slot + 1`; the tag is the high half of the hash, and its low bits
are the entry's home, so that entries move without their records being read.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from millrace.state.hash_kernels import NULL_LENGTH, stage
from millrace.state.memory_kernels import (
    copy_bytes,
    inlined,
    internal,
    load_u64,
    lowest_bit,
    prefetch,
    same_bytes,
    signed,
    store_u32,
    store_u64,
)
from millrace.state.words import Addresses, Int64s, Slots, Words

LIVE, HINT, HIGH, ARENA_USED, ARENA_DEAD, CREATED = range(6)
"""Places in the `counts` array: live slots, first bitmap word that may have a free slot, one past the
highest slot, bytes used in the arena, of them bytes of removed keys, slots created in this call."""

_ENTRY_AHEAD, _RECORD_AHEAD, _VALUE_AHEAD = 24, 12, 6
_PREFETCH_FROM = 1 << 16
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_FULL = np.uint64(0xFFFFFFFFFFFFFFFF)
_LOW_HALF = np.uint64(0xFFFFFFFF)
_SHORT = np.uint64(16)


@inlined
def _is_long(length: np.uint64) -> np.bool_:
    """Whether a value of this length (all ones: null) has its bytes outside of its words."""
    return length + _ONE > _SHORT + _ONE


@internal
def _same_words(record: int, row: int, fixed: int, variable: int, arena: int) -> bool:
    """`_same_key` of any shape."""
    for j in range(fixed):
        if load_u64(record + j * 8) != load_u64(row + j * 8):
            return False
    for v in range(variable):
        kept, given = record + (fixed + 3 * v) * 8, row + (fixed + 3 * v) * 8
        length = load_u64(given)
        if load_u64(kept) != length or load_u64(kept + 8) != load_u64(given + 8):
            return False
        last, other = load_u64(kept + 16), load_u64(given + 16)
        if _is_long(length):
            if not same_bytes(arena + signed(last) + 8, signed(other) + 8, signed(length) - 8):
                return False
        elif last != other:
            return False
    return True


@inlined
def _same_key(record: int, row: int, fixed: int, variable: int, arena: int) -> bool:
    """Whether the record and the staged row at these addresses are one key; one number or one short text by itself."""
    words = fixed + 3 * variable
    if words == 0:
        return True
    if load_u64(record) != load_u64(row):
        return False
    if words == 1:
        return True
    if words == 3 and not _is_long(load_u64(row)):
        return load_u64(record + 8) == load_u64(row + 8) and load_u64(record + 16) == load_u64(row + 16)
    return _same_words(record, row, fixed, variable, arena)


@inlined
def _home(table: int, mask: np.uint64, hashes: int) -> int:
    """The address of the entry at which the search for the hash at `hashes` begins."""
    return table + signed(((load_u64(hashes) >> np.uint64(32)) & mask) << np.uint64(3))


@inlined
def _record(records: int, entry: np.uint64, size: int) -> int:
    """The address of an entry's record; of an empty entry that before the first, which may be prefetched only."""
    return records + (signed(np.uint64(entry & _LOW_HALF)) - 1) * size


@inlined
def _warm_entry(table: int, mask: np.uint64, hashes: int) -> None:
    prefetch(_home(table, mask, hashes))


@inlined
def _warm_record(table: int, mask: np.uint64, hashes: int, records: int, size: int) -> None:
    record = _record(records, load_u64(_home(table, mask, hashes)), size)
    prefetch(record)
    if size > 8:
        prefetch(record + size - 8)


@internal
def _warm_values(
    table: int, mask: np.uint64, hashes: int, records: int, fixed: int, variable: int, arena: int
) -> None:
    """Have the first long value of the key brought in that an entry tells of."""
    entry = load_u64(_home(table, mask, hashes))
    if entry != _ZERO:
        value = _record(records, entry, (fixed + 3 * variable) * 8) + fixed * 8
        if _is_long(load_u64(value)):
            prefetch(arena + signed(load_u64(value + 16)) + 8)


@internal
def _arena_need(record: int, fixed: int, variable: int) -> int:
    need = 0
    for v in range(variable):
        length = load_u64(record + (fixed + 3 * v) * 8)
        if _is_long(length):
            need += signed(length)
    return need


@internal
def _write_record(record: int, row: int, fixed: int, variable: int, arena: int, counts: Int64s) -> None:
    for j in range(fixed + 3 * variable):
        store_u64(record + j * 8, load_u64(row + j * 8))
    for v in range(variable):
        at = (fixed + 3 * v) * 8
        length = load_u64(row + at)
        if _is_long(length):
            offset = counts[ARENA_USED]
            copy_bytes(arena + offset, signed(load_u64(row + at + 16)), signed(length))
            store_u64(record + at + 16, np.uint64(offset))
            counts[ARENA_USED] = offset + signed(length)


@internal
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


@inlined
def _place(
    table: int,
    mask: np.uint64,
    limit: int,
    records: int,
    slot_hashes: int,
    live: Words,
    counts: Int64s,
    arena: int,
    arena_size: int,
    words: int,
    hashes: int,
    count: int,
    slots: int,
    created: int,
    fixed: int,
    variable: int,
    create: bool,
) -> int:
    """Slots of `count` staged rows; returns the row at which something must grow, or `count`.

    A row's entry is asked for `_ENTRY_AHEAD` rows before it is read, its record `_RECORD_AHEAD` and a
    long value `_VALUE_AHEAD`, so that the cache misses of many rows overlap.
    """
    size = (fixed + 3 * variable) * 8
    warm = mask >= np.uint64(_PREFETCH_FROM)
    long_values = warm and counts[ARENA_USED] > 0
    if warm:
        for k in range(min(_ENTRY_AHEAD, count)):
            _warm_entry(table, mask, hashes + k * 8)
        for k in range(min(_RECORD_AHEAD, count)):
            _warm_record(table, mask, hashes + k * 8, records, size)
    for k in range(count):
        if warm:
            if k + _ENTRY_AHEAD < count:
                _warm_entry(table, mask, hashes + (k + _ENTRY_AHEAD) * 8)
            if k + _RECORD_AHEAD < count:
                _warm_record(table, mask, hashes + (k + _RECORD_AHEAD) * 8, records, size)
            if long_values and k + _VALUE_AHEAD < count:
                _warm_values(table, mask, hashes + (k + _VALUE_AHEAD) * 8, records, fixed, variable, arena)
        hashed = load_u64(hashes + k * 8)
        tag = hashed >> np.uint64(32)
        position = tag & mask
        row = words + k * size
        while True:
            at = table + signed(position << np.uint64(3))
            entry = load_u64(at)
            if entry == _ZERO:
                slot = -1
                if create:
                    if counts[LIVE] >= limit:
                        return k
                    if variable and counts[ARENA_USED] + _arena_need(row, fixed, variable) > arena_size:
                        return k
                    slot = _take_slot(live, counts)
                    store_u64(at, (tag << np.uint64(32)) | np.uint64(slot + 1))
                    _write_record(records + slot * size, row, fixed, variable, arena, counts)
                    store_u64(slot_hashes + slot * 8, hashed)
                    store_u32(created + counts[CREATED] * 4, np.uint64(slot))
                    counts[CREATED] += 1
                break
            if (entry >> np.uint64(32)) == tag and _same_key(
                _record(records, entry, size), row, fixed, variable, arena
            ):
                slot = signed(np.uint64(entry & _LOW_HALF)) - 1
                break
            position = (position + _ONE) & mask
        store_u32(slots + k * 4, np.uint64(slot))
    return count


@njit(cache=True, nogil=True)
def find_or_create(
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
    create: bool,
) -> int:
    """Slots of rows from `start`, where absent made with `create` and -1 without.

    Returns the row at which something must grow, or `rows`.
    """
    mask = np.uint64(table.shape[0] - 1)
    limit = min(slot_hashes.shape[0], table.shape[0] // 2)
    chunk = hashes.shape[0]
    words_at, hashes_at = words.ctypes.data, hashes.ctypes.data
    done = start
    while done < rows:
        count = min(chunk, rows - done)
        stage(columns, done, count, words_at, fixed + 3 * variable, null_at, hashes_at)
        if fixed == 1 and variable == 0:
            reached = _place(
                table.ctypes.data,
                mask,
                limit,
                records.ctypes.data,
                slot_hashes.ctypes.data,
                live,
                counts,
                arena,
                arena_size,
                words_at,
                hashes_at,
                count,
                slots.ctypes.data + done * 4,
                created.ctypes.data,
                signed(1),
                signed(0),
                create,
            )
        else:
            reached = _place(
                table.ctypes.data,
                mask,
                limit,
                records.ctypes.data,
                slot_hashes.ctypes.data,
                live,
                counts,
                arena,
                arena_size,
                words_at,
                hashes_at,
                count,
                slots.ctypes.data + done * 4,
                created.ctypes.data,
                fixed,
                variable,
                create,
            )
        done += reached
        if reached < count:
            return done
    return rows


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
        slot = signed(slots[i])
        if slot < 0 or slot >= counts[HIGH]:
            return i
        word, bit = slot >> 6, _ONE << np.uint64(slot & 63)
        if live[word] & bit == _ZERO:
            return i
        live[word] &= ~bit
        counts[LIVE] -= 1
        counts[HINT] = min(counts[HINT], word)
        counts[ARENA_DEAD] += _arena_need(records.ctypes.data + slot * stride * 8, fixed, variable)
        position = (slot_hashes[slot] >> np.uint64(32)) & mask
        while table[position] & _LOW_HALF != np.uint64(slot + 1):
            position = (position + _ONE) & mask
        _close_gap(table, position, mask)
    high = counts[HIGH]
    while high > 0 and (live[(high - 1) >> 6] >> np.uint64((high - 1) & 63)) & _ONE == _ZERO:
        high = ((high - 1) >> 6) << 6 if live[(high - 1) >> 6] == _ZERO else high - 1
    counts[HIGH] = high
    return slots.shape[0]


@internal
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
        at = signed(slots[i]) * stride + fixed
        for v in range(variable):
            length = records[at + 3 * v]
            if _is_long(length):
                size = signed(length)
                copy_bytes(target + used, arena + signed(records[at + 3 * v + 2]), size)
                records[at + 3 * v + 2] = np.uint64(used)
                used += size
    counts[ARENA_USED] = used
    counts[ARENA_DEAD] = 0


@njit(cache=True, nogil=True)
def gather_words(slots: Slots, records: Words, stride: int, at: int, out: Words) -> None:
    """Word `at` of each slot's record."""
    for i in range(slots.shape[0]):
        out[i] = records[signed(slots[i]) * stride + at]


@njit(cache=True, nogil=True)
def gather_offsets(slots: Slots, records: Words, stride: int, at: int, offsets: Int64s) -> int:
    """Offsets (n + 1) of the variable-width values whose words start at `at`; returns the null count."""
    nulls = 0
    offsets[0] = 0
    for i in range(slots.shape[0]):
        length = records[signed(slots[i]) * stride + at]
        if length == NULL_LENGTH:
            nulls += 1
            length = _ZERO
        offsets[i + 1] = offsets[i] + signed(length)
    return nulls


@njit(cache=True, nogil=True)
def gather_bytes(
    slots: Slots, records: Words, stride: int, at: int, arena: int, offsets: Int64s, target: int
) -> None:
    """Copy the values to `target`; short ones are stored in the record itself."""
    record_address = records.ctypes.data
    for i in range(slots.shape[0]):
        place = signed(slots[i]) * stride + at
        length = offsets[i + 1] - offsets[i]
        if length <= 16:
            copy_bytes(target + offsets[i], record_address + (place + 1) * 8, length)
        else:
            copy_bytes(target + offsets[i], arena + signed(records[place + 2]), length)
