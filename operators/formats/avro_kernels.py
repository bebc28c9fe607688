"""Avro records into column buffers by a flat program, one pass over all bytes. Knows no schemas.

An instruction is five numbers: what to do, the first place of its column in the buffers, the level whose row is
filled (0: the records themselves, others: the items of an array or map), and two arguments.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from millrace.operators.formats.avro_codes import (
    ADVANCE,
    BAD_BOOLEAN,
    BAD_BRANCH,
    BAD_LENGTH,
    BAD_SYMBOL,
    BAD_UTF8,
    BAD_VARINT,
    BOOLEAN,
    BYTES,
    DECIMAL,
    DOUBLE,
    END,
    ENUM,
    FAIL,
    FIXED,
    FLOAT,
    INT,
    JUMP,
    LEFT_OVER,
    LONG,
    LONG_DOUBLE,
    LOOP,
    NEXT,
    NO_MATCH,
    NULL,
    OUT_OF_RANGE,
    SET,
    SKIP,
    SKIP_BYTES,
    SKIP_LONG,
    STRING,
    TOO_PRECISE,
    TRUNCATED,
    UNION,
)


@njit(cache=True, nogil=True)
def valid_utf8(data, start, end):  # type: ignore[no-untyped-def]
    """Whether bytes are UTF-8 as the standard has it: no overlong forms, no surrogates, nothing past U+10FFFF."""
    i = start
    while i < end:
        c = data[i]
        if c < 0x80:
            i += 1
            continue
        if c < 0xC2 or c > 0xF4:
            return False
        more = 1 if c < 0xE0 else (2 if c < 0xF0 else 3)
        if i + more >= end:
            return False
        low = 0x80
        high = 0xBF
        if c == 0xE0:
            low = 0xA0
        elif c == 0xED:
            high = 0x9F
        elif c == 0xF0:
            low = 0x90
        elif c == 0xF4:
            high = 0x8F
        if data[i + 1] < low or data[i + 1] > high:
            return False
        for k in range(2, more + 1):
            if data[i + k] & 0xC0 != 0x80:
                return False
        i += more + 1
    return True


@njit(cache=True, nogil=True, inline="always")
def _long(data, at, end):  # type: ignore[no-untyped-def]
    """A zigzag varint: the value and where it ends; a negative end says how it failed."""
    result = np.uint64(0)
    shift = np.uint64(0)
    while at < end:
        c = np.uint64(data[at])
        at += 1
        result |= (c & np.uint64(0x7F)) << shift
        if c < np.uint64(0x80):
            return np.int64(result >> np.uint64(1)) ^ -np.int64(result & np.uint64(1)), at
        shift += np.uint64(7)
        if shift > np.uint64(63):
            return np.int64(0), np.int64(-BAD_VARINT)
    return np.int64(0), np.int64(-TRUNCATED)


@njit(cache=True, nogil=True)
def decimal_words(data, start, size):  # type: ignore[no-untyped-def]
    """Low and high 64 bits of a big-endian two's complement number, and whether it fits them."""
    negative = size > 0 and data[start] >= 0x80
    fill = np.uint64(0xFFFFFFFFFFFFFFFF) if negative else np.uint64(0)
    low = fill
    high = fill
    fits = True
    for k in range(size):
        if k < size - 16:
            fits = fits and np.uint64(data[start + k]) == (fill & np.uint64(0xFF))
            continue
        high = (high << np.uint64(8)) | (low >> np.uint64(56))
        low = (low << np.uint64(8)) | np.uint64(data[start + k])
    if size > 16 and (high >> np.uint64(63) == np.uint64(1)) != negative:
        fits = False
    return np.int64(low), np.int64(high), fits


@njit(cache=True, nogil=True)
def _within(low, high, bound_low, bound_high):  # type: ignore[no-untyped-def]
    """Whether the magnitude of a 128-bit number is below a bound."""
    a = np.uint64(low)
    b = np.uint64(high)
    if high < 0:
        a = ~a + np.uint64(1)
        b = ~b + (np.uint64(1) if a == np.uint64(0) else np.uint64(0))
    c = np.uint64(bound_low)
    d = np.uint64(bound_high)
    return b < d or (b == d and a < c)


@njit(cache=True, nogil=True)
def decode_records(  # type: ignore[no-untyped-def]
    data, starts, ends, code, table, first, floats, second, valid, room, counts, status, places, depth
):
    """Run the program for every record from `starts` to `ends`.

    `first`/`second`/`valid` are all columns' buffers one behind the other (`floats` is `first` seen as doubles):
    a number; start and length of text; low and high half of a decimal. `counts` are the rows of every level so far
    and `room` how many it may have. A record that fails leaves nothing: `status` says why and `places` by which
    instruction. Returns −1, or the level that had no room (then nothing counts).
    """
    levels = len(counts)
    before = np.zeros(levels, np.int64)
    loop_at = np.zeros(depth + 1, np.int64)
    loop_left = np.zeros(depth + 1, np.int64)
    loop_total = np.zeros(depth + 1, np.int64)
    one_float = np.zeros(1, np.uint32)
    as_float = one_float.view(np.float32)
    for row in range(len(starts)):
        at = np.int64(starts[row])
        end = np.int64(ends[row])
        for level in range(levels):
            before[level] = counts[level]
        top = 0
        pc = np.int64(0)
        fault = 0
        while True:
            op = code[pc, 0]
            if op == END:
                if at != end:
                    fault = LEFT_OVER
                break
            place = code[pc, 1]
            if place >= 0:
                place += counts[code[pc, 2]]
            if op == LONG or op == INT:  # noqa: SIM109 - a tuple is slow in Numba
                value, at = _long(data, at, end)
                if at < 0:
                    fault = -at
                    break
                if op == INT and (value < -2147483648 or value > 2147483647):
                    fault = OUT_OF_RANGE
                    break
                scale = code[pc, 3]
                if scale != 1:
                    if value > 9223372036854775807 // scale or value < -(9223372036854775807 // scale):
                        fault = OUT_OF_RANGE
                        break
                    value *= scale
                first[place] = value
                valid[place] = 1
            elif op == STRING or op == BYTES or op == SKIP_BYTES:  # noqa: SIM109 - a tuple is slow in Numba
                size, at = _long(data, at, end)
                if at < 0:
                    fault = -at
                    break
                if size < 0 or size > end - at:
                    fault = BAD_LENGTH if size < 0 else TRUNCATED
                    break
                if op == STRING:
                    bits = np.uint8(0)
                    for k in range(at, at + size):
                        bits |= data[k]
                    if bits >= 0x80 and not valid_utf8(data, at, at + size):
                        fault = BAD_UTF8
                        break
                if op != SKIP_BYTES:
                    first[place] = at
                    second[place] = size
                    valid[place] = 1
                at += size
            elif op == UNION:
                branch, at = _long(data, at, end)
                if at < 0:
                    fault = -at
                    break
                if branch < 0 or branch >= code[pc, 4]:
                    fault = BAD_BRANCH
                    break
                pc = table[code[pc, 3] + branch]
                continue
            elif op == JUMP:
                pc = code[pc, 3]
                continue
            elif op == NULL:
                first[place] = 0
                second[place] = 0
                valid[place] = 0
            elif op == DOUBLE or op == FLOAT:  # noqa: SIM109 - a tuple is slow in Numba
                size = 8 if op == DOUBLE else 4
                if end - at < size:
                    fault = TRUNCATED
                    break
                bits64 = np.uint64(0)
                for k in range(size):
                    bits64 |= np.uint64(data[at + k]) << np.uint64(8 * k)
                at += size
                if op == DOUBLE:
                    first[place] = np.int64(bits64)
                else:
                    one_float[0] = np.uint32(bits64)
                    floats[place] = np.float64(as_float[0])
                valid[place] = 1
            elif op == BOOLEAN:
                if at >= end:
                    fault = TRUNCATED
                    break
                if data[at] > 1:
                    fault = BAD_BOOLEAN
                    break
                first[place] = data[at]
                valid[place] = 1
                at += 1
            elif op == LONG_DOUBLE:
                value, at = _long(data, at, end)
                if at < 0:
                    fault = -at
                    break
                floats[place] = np.float64(value)
                valid[place] = 1
            elif op == FIXED or op == SKIP:  # noqa: SIM109 - a tuple is slow in Numba
                if end - at < code[pc, 3]:
                    fault = TRUNCATED
                    break
                if op == FIXED:
                    first[place] = at
                    second[place] = code[pc, 3]
                    valid[place] = 1
                at += code[pc, 3]
            elif op == DECIMAL:
                size = code[pc, 3]
                if size < 0:
                    size, at = _long(data, at, end)
                    if at < 0:
                        fault = -at
                        break
                if size < 0 or size > end - at:
                    fault = BAD_LENGTH if size < 0 else TRUNCATED
                    break
                low, high, fits = decimal_words(data, at, size)
                if not fits or not _within(low, high, table[code[pc, 4]], table[code[pc, 4] + 1]):
                    fault = TOO_PRECISE
                    break
                first[place] = low
                second[place] = high
                valid[place] = 1
                at += size
            elif op == ENUM:
                value, at = _long(data, at, end)
                if at < 0:
                    fault = -at
                    break
                if value < 0 or value >= code[pc, 4] or table[code[pc, 3] + value] < 0:
                    fault = BAD_SYMBOL
                    break
                first[place] = table[code[pc, 3] + value]
                valid[place] = 1
            elif op == SET:
                first[place] = code[pc, 3]
                second[place] = code[pc, 4]
                valid[place] = 1
            elif op == SKIP_LONG:
                value, at = _long(data, at, end)
                if at < 0:
                    fault = -at
                    break
            elif op == LOOP or op == NEXT:  # noqa: SIM109 - a tuple is slow in Numba
                # LOOP: column of counts, end in [3], level of items in [4]. NEXT: the same, its LOOP in [3].
                inner = code[pc, 4]
                begin = pc
                if op == NEXT:
                    begin = code[pc, 3]
                    if inner >= 0:
                        counts[inner] += 1
                    loop_left[top] -= 1
                else:
                    top += 1
                    loop_at[top] = pc
                    loop_left[top] = 0
                    loop_total[top] = 0
                if loop_left[top] == 0:
                    count, at = _long(data, at, end)
                    if at >= 0 and count < 0:
                        size, at = _long(data, at, end)
                        count = -count
                    if at < 0:
                        fault = -at
                        break
                    if count < 0 or count > end - at:
                        fault = BAD_LENGTH
                        break
                    loop_left[top] = count
                    loop_total[top] += count
                    if count == 0:
                        if place >= 0:
                            first[place] = loop_total[top]
                            valid[place] = 1
                        top -= 1
                        pc = code[begin, 3]
                        continue
                if inner >= 0 and counts[inner] >= room[inner]:
                    return inner
                pc = begin + 1
                continue
            elif op == ADVANCE:
                inner = code[pc, 4]
                counts[inner] += 1
                if counts[inner] >= room[inner]:
                    return inner
            elif op == FAIL:
                fault = NO_MATCH
                break
            pc += 1
        if fault != 0:
            for level in range(levels):
                counts[level] = before[level]
            places[row] = pc
        else:
            counts[0] += 1
        status[row] = fault
    return -1


@njit(cache=True, nogil=True)
def gather(data, starts, sizes, offsets, target):  # type: ignore[no-untyped-def]
    """Copy the pieces of `data` one behind the other to `target`, each to where `offsets` says."""
    for i in range(len(starts)):
        start = starts[i]
        to = offsets[i]
        for k in range(sizes[i]):
            target[to + k] = data[start + k]


@njit(cache=True, nogil=True)
def read_headers(data, starts, ends, ids):  # type: ignore[no-untyped-def]
    """The schema id of each message (magic 0, then four bytes), −1 where there is none."""
    for row in range(len(starts)):
        at = starts[row]
        if ends[row] - at < 5 or data[at] != 0:
            ids[row] = -1
            continue
        ids[row] = (
            (np.int64(data[at + 1]) << 24)
            | (np.int64(data[at + 2]) << 16)
            | (np.int64(data[at + 3]) << 8)
            | np.int64(data[at + 4])
        )
