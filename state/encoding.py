"""Columns that kernels cannot read in place, made into ones that they can. Knows no table."""

from __future__ import annotations

import pyarrow as pa

from millrace.errors import Unsupported
from millrace.state.words import cached_kind


def readable(column: pa.Array) -> pa.Array:
    """An array with the same identity of values that is read in place."""
    if cached_kind(column.type) is not None:
        return column
    data_type = column.type
    if pa.types.is_dictionary(data_type):
        return readable(column.dictionary_decode())
    if pa.types.is_float16(data_type):
        return column.cast(pa.float32())
    if pa.types.is_string_view(data_type):
        return column.cast(pa.large_string())
    if pa.types.is_binary_view(data_type):
        return column.cast(pa.large_binary())
    if pa.types.is_fixed_size_binary(data_type):
        return column.cast(pa.large_binary())
    raise Unsupported(f"{data_type} cannot be a key", code="MR1951")


def readable_type(data_type: pa.DataType) -> pa.DataType:
    """The type that `readable` makes of a column of `data_type`."""
    return readable(pa.array([], data_type)).type
