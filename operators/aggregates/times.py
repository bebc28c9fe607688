"""Time columns as int64 µs and back. Knows no window."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pt

from millrace.operators.aggregates.columns import from_int64, int64_of
from millrace.operators.batch import Int64Array

_RATIOS = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}


def ratio_of(kind: pa.DataType, integer_unit: str) -> tuple[int, int]:
    """µs = value * multiplier // divisor, for a timestamp, a date, or an integer that counts `integer_unit`s."""
    if pt.is_timestamp(kind):
        return _RATIOS[kind.unit]
    if pt.is_date32(kind):
        return 86_400_000_000, 1
    if pt.is_date64(kind):
        return _RATIOS["ms"]
    return _RATIOS[integer_unit]


def microseconds(column: pa.Array, integer_unit: str) -> Int64Array:
    """Times as µs since the epoch, rounded down; anything where null."""
    multiplier, divisor = ratio_of(column.type, integer_unit)
    values = int64_of(column)
    if multiplier != 1:
        return values * multiplier
    return values if divisor == 1 else values // divisor


def from_microseconds(us: Int64Array, kind: pa.DataType, integer_unit: str) -> pa.Array:
    """µs as a time column of type `kind`, rounded down."""
    multiplier, divisor = ratio_of(kind, integer_unit)
    if multiplier != 1:
        us = us // multiplier
    elif divisor != 1:
        us = us * divisor
    return from_int64(us, None, kind)
