"""Arrow columns as kernels see them: int64 and float64 views, masks; and back. Knows no aggregate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt

from millrace.operators.batch import Int64Array

Mask = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_AS_THEY_ARE = frozenset(
    kind.id for kind in (pa.int64(), pa.timestamp("us"), pa.time64("us"), pa.duration("us"), pa.decimal64(18))
)
_SIGN = np.int64(-(2**63))
_WIDTHS: dict[int, npt.DTypeLike] = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


@dataclass(slots=True)
class Rows:
    """Rows of one batch on their way into accumulators.

    `slots` is each row's group; `mask` (0 or 1 a row, None: all) says which rows count at all;
    `weights` are +1 or −1 and more (None: all +1); `sequence` is the arrival number of the first row.
    """

    slots: npt.NDArray[np.integer]
    arguments: tuple[pa.Array, ...]
    mask: Mask | None
    weights: Int64Array | None
    sequence: int = 0

    def selected(self) -> Rows:
        """Only the rows that count, with no mask."""
        if self.mask is None:
            return self
        rows = np.flatnonzero(self.mask)
        taken = pa.array(rows)
        return Rows(
            self.slots[rows],
            tuple(argument.take(taken) for argument in self.arguments),
            None,
            None if self.weights is None else self.weights[rows],
            self.sequence,
        )


def validity(array: pa.Array) -> Mask | None:
    """1 where the value is not null; None where none is."""
    if array.null_count == 0:
        return None
    if pt.is_null(array.type):
        return np.zeros(len(array), np.uint8)
    bitmap = array.buffers()[0]
    if bitmap is None:  # dictionaries and unions may keep nulls elsewhere
        return np.asarray(array.is_valid()).astype(np.uint8)
    return unpacked(bitmap, array.offset, len(array))


def truth(array: pa.BooleanArray) -> Mask:
    """1 where the BOOLEAN is true, 0 where it is false or null."""
    if pt.is_null(array.type):
        return np.zeros(len(array), np.uint8)
    bits = unpacked(array.buffers()[1], array.offset, len(array))
    known = validity(array)
    return bits if known is None else bits & known


def both(left: Mask | None, right: Mask | None) -> Mask | None:
    """Where both hold; None stands for everywhere."""
    if left is None or right is None:
        return right if left is None else left
    return left & right


def unpacked(bitmap: pa.Buffer, offset: int, length: int) -> Mask:
    """`length` bits from bit `offset` as bytes 0 or 1."""
    first, last = offset // 8, (offset + length + 7) // 8
    packed = np.frombuffer(bitmap, np.uint8, last - first, first)
    bits = np.unpackbits(packed, bitorder="little")
    return bits[offset % 8 : offset % 8 + length]


def is_word(kind: pa.DataType) -> bool:
    """Whether values of this type fit 64 bits and keep their order as int64 or float64."""
    return (
        pt.is_integer(kind)
        or pt.is_floating(kind)
        or pt.is_boolean(kind)
        or pt.is_decimal64(kind)
        or pt.is_decimal32(kind)
        or pt.is_date(kind)
        or pt.is_time(kind)
        or pt.is_timestamp(kind)
        or pt.is_duration(kind)
    )


def float64_of(array: pa.Array) -> Floats:
    """Values as float64, anything where null; a view where the type is DOUBLE."""
    if pt.is_null(array.type):
        return np.zeros(len(array))
    if not pt.is_floating(array.type):
        array = array.cast(pa.float64(), safe=False)
    width = array.type.bit_width // 8
    dtype = {2: np.float16, 4: np.float32, 8: np.float64}[width]
    values = (
        np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * width)
        if len(array)
        else _NO_FLOATS
    )
    return values.astype(np.float64, copy=False)


_NO_FLOATS = np.empty(0, np.float64)
_NO_INTS = np.empty(0, np.int64)


def int64_of(array: pa.Array) -> Int64Array:
    """Values as int64 that sort as the type does (UINT64 with its top bit flipped), anything where null."""
    kind = array.type
    if pt.is_null(kind):
        return np.zeros(len(array), np.int64)
    if len(array) == 0:
        return _NO_INTS
    if pt.is_boolean(kind):
        return unpacked(array.buffers()[1], array.offset, len(array)).astype(np.int64)
    width = kind.bit_width // 8
    dtype = _WIDTHS[width]
    if pt.is_unsigned_integer(kind):
        dtype = np.dtype(f"u{width}")
    values = np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * width)
    if pt.is_uint64(kind):
        return values.view(np.int64) ^ _SIGN
    return values.astype(np.int64, copy=False)


def from_int64(words: Int64Array, valid: Bools | None, kind: pa.DataType) -> pa.Array:
    """The inverse of `int64_of`; null where `valid` is false."""
    if kind.id in _AS_THEY_ARE:
        return from_values(np.ascontiguousarray(words), valid, kind)
    if pt.is_boolean(kind):
        return pa.array(words.astype(np.bool_), mask=None if valid is None else ~valid)
    if pt.is_uint64(kind):
        values = (words ^ _SIGN).view(np.uint64)
    elif pt.is_unsigned_integer(kind):
        values = words.astype(np.dtype(f"u{kind.bit_width // 8}"))
    else:
        values = words.astype(_WIDTHS[kind.bit_width // 8])
    return from_values(np.ascontiguousarray(values), valid, kind)


def from_float64(values: Floats, valid: Bools | None, kind: pa.DataType) -> pa.Array:
    """Floats as an Arrow array of a floating type."""
    dtype = {16: np.float16, 32: np.float32, 64: np.float64}[kind.bit_width]
    return from_values(np.ascontiguousarray(values.astype(dtype, copy=False)), valid, kind)


def from_values(values: npt.NDArray[np.generic], valid: Bools | None, kind: pa.DataType) -> pa.Array:
    """A fixed-width Arrow array over these bytes."""
    count = len(values)
    if valid is None or np.count_nonzero(valid) == count:
        return pa.Array.from_buffers(kind, count, [None, pa.py_buffer(values)], 0)
    bitmap = pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(kind, count, [bitmap, pa.py_buffer(values)])


def wide_words(array: pa.Array) -> Int64Array:
    """DECIMAL(38) values as rows of (low, high) words."""
    if len(array) == 0:
        return np.empty((0, 2), np.int64)
    words = np.frombuffer(array.buffers()[1], np.int64, 2 * len(array), array.offset * 16)
    return words.reshape(-1, 2)


def from_wide(low: Int64Array, high: Int64Array, valid: Bools | None, kind: pa.DataType) -> pa.Array:
    """(low, high) words as decimal128."""
    values = np.empty((len(low), 2), np.int64)
    values[:, 0], values[:, 1] = low, high
    return from_values(values, valid, kind)
