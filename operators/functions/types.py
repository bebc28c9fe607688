"""SQL's rules about Arrow types: names, implicit coercion, common supertypes and decimal sizes. Computes no values."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

BOOLEAN = pa.bool_()
INT = pa.int32()
BIGINT = pa.int64()
DOUBLE = pa.float64()
STRING = pa.string()
BYTES = pa.binary()
DATE = pa.date32()
TIME = pa.time64("us")
TIMESTAMP = pa.timestamp("us")
INTERVAL = pa.duration("us")
MONTHS = pa.month_day_nano_interval()
NULL = pa.null()

FAST_DIGITS = 18
"""Decimals up to this precision are held as scaled 64-bit integers."""
MOST_DIGITS = 38

_SIGNED = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}
_UNSIGNED = {8: pa.uint8(), 16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}
_INTEGER_NAMES = {8: "TINYINT", 16: "SMALLINT", 32: "INT", 64: "BIGINT"}
_INTEGER_DIGITS = {8: 3, 16: 5, 32: 10, 64: 19}
_UNITS = ("s", "ms", "us", "ns")
_UNIT_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def is_integer(type: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type))


def is_decimal(type: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(type))


def is_float(type: pa.DataType) -> bool:
    return bool(pa.types.is_floating(type))


def is_number(type: pa.DataType) -> bool:
    return is_integer(type) or is_decimal(type) or is_float(type)


def is_string(type: pa.DataType) -> bool:
    return bool(pa.types.is_string(type) or pa.types.is_large_string(type))


def is_bytes(type: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type) or pa.types.is_large_binary(type))


def is_timestamp(type: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(type))


def is_interval(type: pa.DataType) -> bool:
    return bool(pa.types.is_duration(type)) or type == MONTHS


def is_list(type: pa.DataType) -> bool:
    return bool(pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type))


def is_decimal64(type: pa.DataType) -> bool:
    return bool(pa.types.is_decimal64(type))


def decimal_type(precision: int, scale: int) -> pa.DataType:
    """The Arrow type of DECIMAL(precision, scale): 64 bits to 18 digits, else 128."""
    return pa.decimal64(precision, scale) if precision <= FAST_DIGITS else pa.decimal128(precision, scale)


def capped_decimal(precision: int, scale: int) -> pa.DataType:
    """DECIMAL(precision, scale); past 38 digits the scale gives way, down to 6, before the integer part does."""
    if precision > MOST_DIGITS:
        scale = max(MOST_DIGITS - (precision - scale), min(scale, 6))
        precision = MOST_DIGITS
    return decimal_type(precision, scale)


def digits(type: pa.DataType) -> tuple[int, int]:
    """(precision, scale) of a decimal or integer type; BIGINT counts as DECIMAL(19, 0)."""
    if is_decimal(type):
        return type.precision, type.scale
    assert is_integer(type)
    return (20 if type == pa.uint64() else _INTEGER_DIGITS[type.bit_width]), 0


def sql_name(type: pa.DataType) -> str:
    """The type as SQL writes it, for messages."""
    if is_integer(type):
        name = _INTEGER_NAMES[type.bit_width]
        return name if pa.types.is_signed_integer(type) else f"{name} UNSIGNED"
    if is_decimal(type):
        return f"DECIMAL({type.precision}, {type.scale})"
    if is_timestamp(type):
        zone = " WITH TIME ZONE" if type.tz else ""
        return f"TIMESTAMP({_UNIT_DIGITS[type.unit]}){zone}" if type.unit != "us" else f"TIMESTAMP{zone}"
    if is_interval(type):
        return "INTERVAL"
    if is_list(type):
        return f"ARRAY<{sql_name(type.value_type)}>"
    if pa.types.is_map(type):
        return f"MAP<{sql_name(type.key_type)}, {sql_name(type.item_type)}>"
    if pa.types.is_struct(type):
        return "ROW<" + ", ".join(f"{f.name} {sql_name(f.type)}" for f in type) + ">"
    if pa.types.is_time(type):
        return "TIME"
    names = {
        BOOLEAN: "BOOLEAN",
        pa.float32(): "FLOAT",
        DOUBLE: "DOUBLE",
        STRING: "STRING",
        BYTES: "BYTES",
        DATE: "DATE",
        NULL: "NULL",
    }
    return names.get(type, str(type).upper())


def _common_integer(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    signed = [pa.types.is_signed_integer(left), pa.types.is_signed_integer(right)]
    if all(signed) or not any(signed):
        return left if left.bit_width >= right.bit_width else right
    positive, other = (right, left) if signed[0] else (left, right)
    bits = max(other.bit_width, 2 * positive.bit_width)
    return _SIGNED[bits] if bits <= 64 else decimal_type(20, 0)


def _common_timestamp(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    unit = max(left.unit, right.unit, key=_UNITS.index)
    return pa.timestamp(unit, left.tz or right.tz)


def _common_nested(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    if is_list(left) and is_list(right):
        item = _common(left.value_type, right.value_type)
        return None if item is None else pa.list_(item)
    if pa.types.is_map(left) and pa.types.is_map(right):
        key, item = _common(left.key_type, right.key_type), _common(left.item_type, right.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    if pa.types.is_struct(left) and pa.types.is_struct(right) and left.num_fields == right.num_fields:
        items = [_common(a.type, b.type) for a, b in zip(left, right, strict=True)]
        if any(item is None for item in items):
            return None
        return pa.struct([pa.field(a.name, item) for a, item in zip(left, items, strict=True)])
    return None


def _common_number(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    if is_integer(left) and is_integer(right):
        return _common_integer(left, right)
    if is_float(left) or is_float(right):
        both = is_float(left) and is_float(right)
        return left if both and left.bit_width >= right.bit_width else right if both else DOUBLE
    (p1, s1), (p2, s2) = digits(left), digits(right)
    scale = max(s1, s2)
    return capped_decimal(max(p1 - s1, p2 - s2) + scale, scale)


def _common(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    if left == right or pa.types.is_null(right):
        return left
    if pa.types.is_null(left):
        return right
    if is_number(left) and is_number(right):
        return _common_number(left, right)
    if is_timestamp(left) and is_timestamp(right):
        return _common_timestamp(left, right)
    if left == DATE and is_timestamp(right):
        return right
    if is_timestamp(left) and right == DATE:
        return left
    if pa.types.is_duration(left) and pa.types.is_duration(right):
        return INTERVAL
    if is_interval(left) and is_interval(right):
        return MONTHS
    return _common_nested(left, right)


def common_type(types: Iterable[pa.DataType], literals: Iterable[bool] | None = None) -> pa.DataType | None:
    """The narrowest type that holds all `types`, or None where there is none.

    Integers widen, integer with decimal is decimal, anything with a float is a float. `literals` says which of
    `types` are untyped string literals: those take the type of the others.
    """
    kinds = list(types)
    marks = [False] * len(kinds) if literals is None else list(literals)
    result: pa.DataType | None = NULL
    for kind, literal in zip(kinds, marks, strict=True):
        if not (literal and is_string(kind)):
            result = _common(result, kind)
        if result is None:
            return None
    if result == NULL and any(marks):
        return STRING
    return result


def can_coerce(source: pa.DataType, target: pa.DataType, *, literal: bool = False) -> bool:
    """Whether a value of `source` becomes `target` without being asked; `literal`: it is a string literal."""
    return coercion_cost(source, target, literal=literal) is not None


def coercion_cost(source: pa.DataType, target: pa.DataType, *, literal: bool = False) -> int | None:
    """How far the implicit way from `source` to `target` is: 0 for none to go, None for no way."""
    if source == target:
        return 0
    if pa.types.is_null(source):
        return 1
    if is_string(source):
        if is_string(target):
            return 0
        timely = is_timestamp(target) or is_interval(target) or target in (DATE, TIME)
        return 6 if literal and (timely or is_number(target) or target in (BOOLEAN, BYTES)) else None
    if is_integer(source) and is_integer(target):
        if _common_integer(source, target) == target:
            return 1 + (target.bit_width > 32)
        return None
    if is_number(source) and is_number(target):
        if is_float(target):
            narrow = 3 if target == DOUBLE else 4
            return narrow if not is_float(source) else (1 if target == DOUBLE else None)
        if is_float(source) or is_integer(target):
            return None
        return 2
    if _common(source, target) == target:
        return 2
    return None
