"""Columns that kernels cannot read in place, made into ones that they can. Knows no table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.errors import Unsupported
from millrace.state.words import Int64s, Layout, buffers_of, cached_kind, kinds_of

_CHUNK_ROWS = 512


def readable(column: pa.Array) -> pa.Array:
    """An array with the same identity of values that is read in place; nested values become bytes.

    Raises `Unsupported` for types whose values have no identity here (unions).
    """
    data_type = column.type
    if cached_kind(data_type) is not None:
        return column
    t = pa.types
    if t.is_dictionary(data_type):
        return readable(column.dictionary_decode())
    if isinstance(data_type, pa.BaseExtensionType):
        return readable(column.storage)
    if t.is_run_end_encoded(data_type):
        return readable(pc.run_end_decode(column))
    if t.is_float16(data_type):
        return column.cast(pa.float32())
    if t.is_string_view(data_type):
        return column.cast(pa.large_string())
    if t.is_decimal256(data_type):
        return column.view(pa.binary(32)).cast(pa.large_binary())
    if t.is_binary_view(data_type) or t.is_fixed_size_binary(data_type):
        return column.cast(pa.large_binary())
    if t.is_struct(data_type):
        offsets, data = _encoded(column.flatten(), len(column))
        return _binary(column, offsets, data)
    if t.is_list(data_type) or t.is_large_list(data_type) or t.is_map(data_type):
        return _list_bytes(column, column.offsets.to_numpy().astype(np.int64))
    if t.is_fixed_size_list(data_type):
        first = column.offset
        return _list_bytes(column, np.arange(first, first + len(column) + 1) * data_type.list_size)
    raise Unsupported(
        f"a value of type {data_type} cannot be a key", code="MR1951", hint="cast it to a type with equality"
    )


def readable_type(data_type: pa.DataType) -> pa.DataType:
    """The type that `readable` makes of a column of `data_type`."""
    return data_type if cached_kind(data_type) is not None else readable(pa.nulls(0, data_type)).type


def is_encoded(data_type: pa.DataType) -> bool:
    """Whether the values cannot be had back from what `readable` makes by a cast."""
    if pa.types.is_dictionary(data_type):
        return is_encoded(data_type.value_type)
    return (
        pa.types.is_nested(data_type)
        or pa.types.is_decimal256(data_type)
        or pa.types.is_run_end_encoded(data_type)
        or isinstance(data_type, pa.BaseExtensionType)
    )


def _list_bytes(column: pa.Array, bounds: Int64s) -> pa.Array:
    """Lists as the bytes of their elements, one after the other; `bounds` has n + 1 places in the child."""
    child = column.values.slice(int(bounds[0]), int(bounds[-1] - bounds[0]))
    offsets, data = _encoded([child], len(child))
    return _binary(column, offsets[bounds - bounds[0]], data)


def _binary(column: pa.Array, offsets: Int64s, data: pa.Buffer) -> pa.Array:
    validity = None
    if column.null_count:
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        validity = pa.py_buffer(np.packbits(valid, bitorder="little"))
    buffers = [validity, pa.py_buffer(np.ascontiguousarray(offsets)), data]
    return pa.Array.from_buffers(pa.large_binary(), len(column), buffers)


def _encoded(columns: Sequence[pa.Array], rows: int) -> tuple[Int64s, pa.Buffer]:
    """Offsets (rows + 1) and the bytes of rows of these columns."""
    offsets: Int64s = np.zeros(rows + 1, np.int64)
    plain = [readable(column) for column in columns]
    if not rows:
        return offsets, pa.py_buffer(b"")
    from millrace.state import encoding_kernels  # deferred: Numba is slow to import

    layout = Layout.of(kinds_of(plain), nulls=True)
    buffers, _kept = buffers_of(plain, layout.kinds, layout.places)
    words = np.empty(_CHUNK_ROWS * layout.stride, np.uint64)
    hashes = np.empty(_CHUNK_ROWS, np.uint64)
    scratch = (buffers, rows, layout.stride, layout.null_at, words, hashes, offsets)
    encoding_kernels.encode(*scratch, 0)
    data = np.empty(max(int(offsets[-1]), 1), np.uint8)
    encoding_kernels.encode(*scratch, data.ctypes.data)
    return offsets, pa.py_buffer(data)
