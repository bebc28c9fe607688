"""How key columns are laid out as 64-bit words, and where their Arrow buffers are. Knows no kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.errors import Unsupported

Words = npt.NDArray[np.uint64]
Addresses = npt.NDArray[np.int64]
Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Int16s = npt.NDArray[np.int16]
Uint16s = npt.NDArray[np.uint16]
Slots = npt.NDArray[np.int32]

KEY_COLUMNS_MAX = 64


class Kind(IntEnum):
    """How the values of a column are read; from VAR32 on they vary in length."""

    BOOL = 0
    I8 = 1
    I16 = 2
    I32 = 3
    W64 = 4
    U8 = 5
    U16 = 6
    U32 = 7
    F32 = 8
    F64 = 9
    W128 = 10
    NULL = 11
    VAR32 = 12
    VAR64 = 13


_INTEGERS = {
    pa.int8(): Kind.I8,
    pa.int16(): Kind.I16,
    pa.int32(): Kind.I32,
    pa.int64(): Kind.W64,
    pa.uint8(): Kind.U8,
    pa.uint16(): Kind.U16,
    pa.uint32(): Kind.U32,
    pa.uint64(): Kind.W64,
}


def kind_of(data_type: pa.DataType) -> Kind | None:
    """How a column of this type is read in place, or None where it must be encoded first."""
    t = pa.types
    if data_type in _INTEGERS:
        return _INTEGERS[data_type]
    if t.is_string(data_type) or t.is_binary(data_type):
        return Kind.VAR32
    if t.is_large_string(data_type) or t.is_large_binary(data_type):
        return Kind.VAR64
    if t.is_boolean(data_type):
        return Kind.BOOL
    if t.is_float64(data_type):
        return Kind.F64
    if t.is_float32(data_type):
        return Kind.F32
    if t.is_date32(data_type) or t.is_time32(data_type):
        return Kind.I32
    if t.is_temporal(data_type) and data_type != pa.month_day_nano_interval():
        return Kind.W64
    if t.is_decimal(data_type):
        return {32: Kind.I32, 64: Kind.W64, 128: Kind.W128}.get(data_type.bit_width)
    if data_type == pa.month_day_nano_interval():
        return Kind.W128
    if t.is_null(data_type):
        return Kind.NULL
    return None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the words of each key column are in a row of `stride` words.

    Fixed-width columns come first, then the null word at `null_at` (-1: no null can be told), then
    three words for each of `variable` columns.
    """

    kinds: tuple[Kind, ...]
    places: tuple[int, ...]
    fixed: int
    variable: int
    null_at: int
    stride: int

    @classmethod
    def of(cls, kinds: Sequence[Kind], *, nulls: bool) -> Layout:
        """The layout for columns of these kinds; with `nulls`, fixed-width columns may be null."""
        if len(kinds) > KEY_COLUMNS_MAX:
            raise Unsupported(
                f"{len(kinds)} key columns are more than {KEY_COLUMNS_MAX}",
                code="MR1909",
                hint="combine some of them into a ROW value",
            )
        fixed = 0
        places = [0] * len(kinds)
        for c, kind in enumerate(kinds):
            if kind < Kind.VAR32:
                places[c] = fixed
                fixed += 2 if kind is Kind.W128 else 1
        null_at = fixed if nulls else -1
        compared = fixed + int(nulls)
        variable = 0
        for c, kind in enumerate(kinds):
            if kind >= Kind.VAR32:
                places[c] = compared + 3 * variable
                variable += 1
        return cls(tuple(kinds), tuple(places), compared, variable, null_at, compared + 3 * variable)


def buffers_of(
    columns: Sequence[pa.Array], kinds: Sequence[Kind], places: Sequence[int]
) -> tuple[Addresses, list[Words]]:
    """One row a column for `stage`: kind, data, validity, offsets, bit offset, place, end of data.

    The columns must be of these kinds. They must outlive the addresses, and so must the list: the values
    of columns of less than 64 bits, or of floats, as the words they are told apart by.
    """
    kept: list[Words] = []
    rows = [_buffer_row(*given, kept) for given in zip(columns, kinds, places, strict=True)]
    return np.array(rows, np.int64).reshape(-1, 7), kept


def kinds_of(columns: Sequence[pa.Array]) -> tuple[Kind, ...]:
    """The kinds of columns that are all read in place."""
    kinds = tuple(kind for kind in (cached_kind(column.type) for column in columns) if kind is not None)
    assert len(kinds) == len(columns), "a column was not made readable"
    return kinds


_KIND_CACHE: dict[pa.DataType, Kind | None] = {}


def cached_kind(data_type: pa.DataType) -> Kind | None:
    """`kind_of`, remembered: it is asked for each column of each batch."""
    try:
        return _KIND_CACHE[data_type]
    except KeyError:
        kind = _KIND_CACHE[data_type] = kind_of(data_type)
        return kind


_WIDENED: dict[Kind, npt.DTypeLike] = {
    Kind.I8: np.int8,
    Kind.U8: np.uint8,
    Kind.I16: np.int16,
    Kind.U16: np.uint16,
    Kind.I32: np.int32,
    Kind.U32: np.uint32,
    Kind.F32: np.float32,
    Kind.F64: np.float64,
}


def _words_of(column: pa.Array, kind: Kind) -> Words:
    """A word a value: integers widened, one bit pattern for all NaN, and 0.0 for -0.0; anything where null."""
    offset, count = column.offset, len(column)
    data = column.buffers()[1]
    if kind is Kind.BOOL:
        first = offset // 8
        bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=first), bitorder="little")
        return bits[offset - 8 * first : offset - 8 * first + count].astype(np.uint64)
    dtype = np.dtype(_WIDENED[kind])
    values = np.frombuffer(data, dtype, count, offset * dtype.itemsize)
    if kind not in (Kind.F32, Kind.F64):
        return values.astype(np.int64).view(np.uint64)
    floats = values.astype(np.float64)
    floats += 0.0
    floats[np.isnan(floats)] = np.nan
    return floats.view(np.uint64)


def _buffer_row(
    column: pa.Array, kind: Kind, place: int, kept: list[Words]
) -> tuple[int, int, int, int, int, int, int]:
    if kind is Kind.NULL:
        return (kind, 0, 0, 0, 0, place, 0)
    offset = column.offset
    buffers = column.buffers()
    valid = buffers[0].address if buffers[0] is not None and column.null_count else 0
    data = 0 if buffers[-1] is None else buffers[-1].address
    if kind < Kind.VAR32:
        if kind is Kind.W64 or kind is Kind.W128:
            return (kind, data + offset * (8 if kind is Kind.W64 else 16), valid, 0, offset, place, 0)
        if data:
            kept.append(_words_of(column, kind))
            data = kept[-1].ctypes.data
        return (Kind.W64, data, valid, 0, offset, place, 0)
    offsets = 0 if buffers[1] is None else buffers[1].address
    end = data + buffers[2].size if data else 0
    return (kind, data, valid, offsets + offset * (4 if kind is Kind.VAR32 else 8), offset, place, end)
