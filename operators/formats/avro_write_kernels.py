"""Columns into Avro records by a flat program, all rows into one buffer. Knows no schemas."""

from __future__ import annotations

import numpy as np
from numba import njit

from millrace.operators.formats.avro_codes import (
    PUT_BITS,
    PUT_BYTES,
    PUT_CONSTANT,
    PUT_DECIMAL,
    PUT_END,
    PUT_FIXED,
    PUT_ITEMS,
    PUT_LONG,
    PUT_NEXT,
    PUT_NULLABLE,
    PUT_REQUIRED,
)


@njit(cache=True, nogil=True, inline="always")
def _put_long(out, at, value):  # type: ignore[no-untyped-def]
    left = np.uint64((value << 1) ^ (value >> 63))
    while left >= np.uint64(0x80):
        out[at] = np.uint8(left & np.uint64(0x7F)) | np.uint8(0x80)
        left >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(left)
    return at + 1


@njit(cache=True, nogil=True)
def encode_records(  # type: ignore[no-untyped-def]
    rows, prefix, code, first, second, valid, data, out, ends, levels, depth
):
    """Write every row behind `prefix` to `out`; `ends` says where each ends.

    Returns −1, −2 where `out` is too small, or the place of the instruction that met NULL where none may be (the row
    is then in `ends[0]`).
    """
    rows_at = np.zeros(levels, np.int64)
    loop_at = np.zeros(depth + 1, np.int64)
    loop_left = np.zeros(depth + 1, np.int64)
    room = len(out)
    at = np.int64(0)
    for row in range(rows):
        if at + len(prefix) + 32 > room:
            return -2
        for k in range(len(prefix)):
            out[at + k] = prefix[k]
        at += len(prefix)
        rows_at[0] = row
        top = 0
        pc = np.int64(0)
        while True:
            op = code[pc, 0]
            if op == PUT_END:
                break
            if at + 48 > room:
                return -2
            place = code[pc, 1]
            if place >= 0:
                place += rows_at[code[pc, 2]]
            if op == PUT_NULLABLE:
                # The branch of the value in [3], shifted past it the one of null; where a NULL goes on in [4].
                if valid[place] == 0:
                    out[at] = np.uint8((1 - code[pc, 3]) << 1)
                    at += 1
                    pc = code[pc, 4]
                    continue
                out[at] = np.uint8(code[pc, 3] << 1)
                at += 1
            elif op == PUT_REQUIRED:
                if valid[place] == 0:
                    ends[0] = row
                    return pc
            elif op == PUT_LONG:
                at = _put_long(out, at, first[place])
            elif op == PUT_BITS:
                bits = np.uint64(first[place])
                for k in range(code[pc, 3]):
                    out[at + k] = np.uint8((bits >> np.uint64(8 * k)) & np.uint64(0xFF))
                at += code[pc, 3]
            elif op == PUT_BYTES or op == PUT_FIXED:  # noqa: SIM109 - a tuple is slow in Numba
                size = second[place]
                if at + size + 48 > room:
                    return -2
                if op == PUT_BYTES:
                    at = _put_long(out, at, size)
                elif size != code[pc, 3]:
                    ends[0] = row
                    return pc
                start = first[place]
                for k in range(size):
                    out[at + k] = data[start + k]
                at += size
            elif op == PUT_DECIMAL:
                low = np.uint64(first[place])
                high = np.uint64(second[place])
                size = code[pc, 3]
                if size < 0:
                    fill = np.uint64(0xFF) if second[place] < 0 else np.uint64(0)
                    size = 16
                    while size > 1:
                        k = size - 1
                        head = (high >> np.uint64(8 * (k - 8))) if k >= 8 else (low >> np.uint64(8 * k))
                        k -= 1
                        following = (high >> np.uint64(8 * (k - 8))) if k >= 8 else (low >> np.uint64(8 * k))
                        if head & np.uint64(0xFF) != fill or (following ^ fill) & np.uint64(0x80):
                            break
                        size -= 1
                    at = _put_long(out, at, size)
                if at + size + 48 > room:
                    return -2
                for i in range(size):
                    k = size - 1 - i
                    if k >= 16:
                        out[at + i] = np.uint8(0xFF) if second[place] < 0 else np.uint8(0)
                        continue
                    word = (high >> np.uint64(8 * (k - 8))) if k >= 8 else (low >> np.uint64(8 * k))
                    out[at + i] = np.uint8(word & np.uint64(0xFF))
                at += size
            elif op == PUT_CONSTANT:
                out[at] = np.uint8(code[pc, 3])
                at += 1
            elif op == PUT_ITEMS:
                count = second[place]
                if count == 0:
                    out[at] = 0
                    at += 1
                    pc = code[pc, 3]
                    continue
                at = _put_long(out, at, count)
                top += 1
                loop_at[top] = pc
                loop_left[top] = count
                rows_at[code[pc, 4]] = first[place]
            elif op == PUT_NEXT:
                loop_left[top] -= 1
                rows_at[code[pc, 4]] += 1
                if loop_left[top] > 0:
                    pc = loop_at[top] + 1
                    continue
                out[at] = 0
                at += 1
                top -= 1
            pc += 1
        ends[row] = at
    return -1
