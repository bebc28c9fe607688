"""Conversions between types, PostgreSQL's where it has them. Decides nothing about implicit casts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.errors import Invalid
from millrace.operators.functions import time_text
from millrace.operators.functions import types as sql
from millrace.operators.functions.buffers import (
    broadcast,
    by_row,
    fixed_width,
    from_int64,
    from_numbers,
    int64_operand,
    validity,
)
from millrace.operators.functions.decimals import fit
from millrace.operators.functions.json_text import to_json_text
from millrace.operators.functions.row_error import (
    BAD_CAST,
    OVERFLOW,
    Body,
    RowError,
    Value,
    ValueFault,
    isolate,
)

_TRUE = ("t", "true", "y", "yes", "on", "1")
_FALSE = ("f", "false", "n", "no", "off", "0")
_UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def build_cast(source: pa.DataType, target: pa.DataType, *, safe: bool = False) -> Body:
    """The body that converts one value of `source`; with `safe` what does not convert becomes NULL.

    Raises Invalid (MR1213) where there is no conversion between the types.
    """
    body = _find(source, target)
    if body is None:
        raise Invalid(
            f"can not cast {sql.sql_name(source)} to {sql.sql_name(target)}",
            code="MR1213",
            hint="cast to STRING first, or use a function that makes the value",
        )
    return partial(_try_cast, body, target) if safe else body


def can_cast(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether there is a conversion at all."""
    return _find(source, target) is not None


def can_fail(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether a value of `source` may have no counterpart in `target`."""
    if source == target or pa.types.is_null(source) or source == sql.BOOLEAN:
        return False
    if sql.is_string(target) and not sql.is_bytes(source):
        return False
    return sql.coercion_cost(source, target) is None or sql.is_decimal(target)


def _try_cast(body: Body, target: pa.DataType, values: Sequence[Value], rows: int) -> Value:
    value = values[0]
    while True:
        try:
            return body([value], rows)
        except RowError as fault:
            bad = fault.rows
        except (pa.ArrowException, ValueError, ArithmeticError) as error:
            bad = isolate(body, [value], rows, error, "CAST").rows
        if isinstance(value, pa.Scalar):
            return pa.scalar(None, target)
        value = _blank(value, bad)


def _blank(value: pa.Array, bad: np.ndarray) -> pa.Array:
    """The array with NULL at the marked rows."""
    indices = pa.array(np.arange(len(value)), mask=bad)
    return value.take(indices)


def _find(source: pa.DataType, target: pa.DataType) -> Body | None:
    if source == target:
        return lambda values, rows: values[0]
    if pa.types.is_null(source):
        return lambda values, rows: pa.scalar(None, target)
    if sql.is_string(source):
        return _from_string(target)
    if sql.is_string(target):
        return _to_string(source)
    if target == sql.BOOLEAN:
        return _to_boolean(source)
    if sql.is_number(target):
        return _to_number(source, target)
    if pa.types.is_nested(target):
        return _to_nested(source, target)
    return _to_time(source, target)


def _plain(target: pa.DataType) -> Body:
    return lambda values, rows: pc.cast(values[0], target)


def _to_boolean(source: pa.DataType) -> Body | None:
    if sql.is_integer(source):
        return lambda values, rows: pc.not_equal(values[0], pa.scalar(0, source))
    return None


def _to_number(source: pa.DataType, target: pa.DataType) -> Body | None:
    if source == sql.BOOLEAN:
        if sql.is_decimal(target):
            return lambda values, rows: pc.cast(
                pc.cast(pc.cast(values[0], pa.int64()), pa.decimal128(38, target.scale)), target
            )
        return _plain(target)
    if not sql.is_number(source):
        return None
    if sql.is_decimal(target):
        return _to_decimal(source, target)
    if sql.is_decimal(source) and sql.is_integer(target):
        return partial(_decimal_to_integer, target)
    if sql.is_float(source) and sql.is_integer(target):
        return partial(_float_to_integer, target)
    if sql.is_integer(source) and sql.is_float(target):
        return lambda values, rows: pc.cast(values[0], target, safe=False)
    return _plain(target)


def _float_to_integer(target: pa.DataType, values: Sequence[Value], rows: int) -> Value:
    return pc.cast(pc.round(values[0], 0, "half_to_even"), target)


def _decimal_to_integer(target: pa.DataType, values: Sequence[Value], rows: int) -> Value:
    value = values[0]
    wide = pc.cast(value, pa.decimal256(value.type.precision + 1, value.type.scale))
    return pc.cast(pc.round(wide, 0, "half_towards_infinity"), target)


def _to_decimal(source: pa.DataType, target: pa.DataType) -> Body:
    if sql.is_float(source):

        def exact(number: float) -> Decimal:
            if not math.isfinite(number):
                raise ValueFault(OVERFLOW, f"{number} is no decimal")
            return fit(Decimal(repr(number)), target)

        def from_float(values: Sequence[Value], rows: int) -> Value:
            return by_row(exact, values, rows, target, "CAST")

        return from_float
    p1, s1 = sql.digits(source)
    up = target.scale - s1
    quick = up >= 0 and p1 + up <= min(sql.FAST_DIGITS, target.precision)

    def body(values: Sequence[Value], rows: int) -> Value:
        value = values[0]
        if quick and not isinstance(value, pa.Scalar):
            numbers = int64_operand(value) * np.int64(10**up)
            return from_int64(np.asarray(numbers), validity([value], rows), target)
        inner = pa.decimal256(max(p1, target.precision) + abs(up) + 1, s1)
        wide = pc.cast(value, inner)
        if up < 0:
            wide = pc.round(wide, target.scale, "half_towards_infinity")
        return pc.cast(wide, target)

    return body


def _from_string(target: pa.DataType) -> Body | None:
    if sql.is_string(target):
        return _plain(target)
    if target == sql.BOOLEAN:
        return _string_to_boolean
    if sql.is_integer(target) or sql.is_float(target):
        pattern = _INTEGER_TEXT if sql.is_integer(target) else _FLOAT_TEXT
        return partial(_string_to_number, target, pattern)
    if sql.is_decimal(target):
        return partial(_string_to_decimal, target)
    if sql.is_bytes(target):
        return _plain(target)
    if sql.is_timestamp(target):
        return partial(_string_to_timestamp, target)
    if target == sql.DATE:
        return partial(_string_to_date)
    if pa.types.is_time(target):
        return lambda values, rows: by_row(time_text.parse_time, values, rows, target, "CAST")
    if pa.types.is_duration(target):
        return partial(_string_to_interval, target)
    if target == sql.MONTHS:
        return lambda values, rows: by_row(time_text.parse_calendar_interval, values, rows, target, "CAST")
    return None


_INTEGER_TEXT = r"^[+-]?[0-9]+$"
_FLOAT_TEXT = r"(?i)^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?$|^[+-]?(inf|infinity)$|^nan$"


def _string_to_number(target: pa.DataType, pattern: str, values: Sequence[Value], rows: int) -> Value:
    try:
        return _in_range(pc.cast(values[0], target), values[0], target)
    except pa.ArrowInvalid:
        text = pc.utf8_trim_whitespace(values[0])
        good = pc.match_substring_regex(text, pattern)
        if isinstance(good, pa.Scalar):
            if good.as_py() is False:
                raise ValueFault(BAD_CAST, f"{values[0].as_py()!r} is no {sql.sql_name(target)}") from None
        else:
            bad = ~np.asarray(good.fill_null(True))
            if bad.any():
                sample = values[0][int(np.argmax(bad))].as_py()
                raise RowError(BAD_CAST, f"CAST: {sample!r} is no {sql.sql_name(target)}", bad) from None
        text = pc.replace_substring_regex(text, r"^\+", "")
        return _in_range(pc.cast(text, target), values[0], target)


def _in_range(made: Value, text: Value, target: pa.DataType) -> Value:
    """The numbers, where none is infinite that was written in digits."""
    if not sql.is_float(target):
        return made
    digits = pc.and_(pc.is_inf(made), pc.match_substring_regex(text, "[0-9]"))
    if isinstance(digits, pa.Scalar):
        if digits.as_py():
            raise ValueFault(BAD_CAST, f"{text.as_py()!r} is too large for a {sql.sql_name(target)}")
        return made
    if pc.any(digits).as_py():
        bad = np.asarray(digits.fill_null(False))
        sample = text[int(np.argmax(bad))].as_py()
        raise RowError(BAD_CAST, f"CAST: {sample!r} is too large for a {sql.sql_name(target)}", bad)
    return made


def _string_to_decimal(target: pa.DataType, values: Sequence[Value], rows: int) -> Value:
    try:
        return pc.cast(values[0], target)
    except pa.ArrowInvalid:
        return by_row(partial(_parse_decimal, target), values, rows, target, "CAST")


def _parse_decimal(target: pa.DataType, text: str) -> Decimal:
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        raise ValueFault(BAD_CAST, f"{text!r} is no {sql.sql_name(target)}") from None
    if not number.is_finite() or "_" in text:
        raise ValueFault(BAD_CAST, f"{text!r} is no {sql.sql_name(target)}")
    return fit(number, target)


def _string_to_boolean(values: Sequence[Value], rows: int) -> Value:
    text = pc.utf8_lower(pc.utf8_trim_whitespace(broadcast(values[0], rows)))
    true = pc.is_in(text, value_set=pa.array(_TRUE))
    known = pc.or_(true, pc.is_in(text, value_set=pa.array(_FALSE)))
    bad = ~np.asarray(known) & ~np.asarray(text.is_null())
    if bad.any():
        sample = text[int(np.argmax(bad))].as_py()
        raise RowError(BAD_CAST, f"CAST: {sample!r} is no BOOLEAN", bad)
    return pc.if_else(text.is_null(), pa.scalar(None, pa.bool_()), true)


def _string_to_timestamp(target: pa.DataType, values: Sequence[Value], rows: int) -> Value:
    naive = pa.timestamp(target.unit)
    try:
        parsed = pc.cast(values[0], naive)
        return pc.cast(parsed, target)
    except pa.ArrowException:
        divisor = _UNIT_NS[target.unit]
        numbers = by_row(
            lambda text: time_text.parse_timestamp(text) // divisor, values, rows, pa.int64(), "CAST"
        )
        return pc.cast(pc.cast(numbers, naive), target)


def _string_to_date(values: Sequence[Value], rows: int) -> Value:
    try:
        return pc.cast(values[0], sql.DATE)
    except pa.ArrowException:
        days = by_row(
            lambda text: time_text.parse_timestamp(text) // 86_400_000_000_000,
            values,
            rows,
            pa.int32(),
            "CAST",
        )
        return pc.cast(days, sql.DATE)


def _string_to_interval(target: pa.DataType, values: Sequence[Value], rows: int) -> Value:
    micros = by_row(time_text.parse_interval, values, rows, pa.int64(), "CAST")
    return pc.cast(pc.cast(micros, sql.INTERVAL), target, safe=False)


def _to_string(source: pa.DataType) -> Body | None:
    if sql.is_timestamp(source):
        return partial(_timestamp_to_string, bool(source.tz))
    if pa.types.is_time(source):
        return lambda values, rows: _without_zeros(pc.cast(values[0], sql.STRING))
    if sql.is_interval(source):
        return lambda values, rows: by_row(time_text.format_interval, values, rows, sql.STRING, "CAST")
    if pa.types.is_nested(source):
        return lambda values, rows: by_row(to_json_text, values, rows, sql.STRING, "CAST")
    if sql.is_float(source):
        return partial(_float_to_string, source)
    return _plain(sql.STRING)


def _float_to_string(source: pa.DataType, values: Sequence[Value], rows: int) -> Value:
    text = pc.cast(values[0], sql.STRING)
    for found, written in ((r"^inf$", "Infinity"), (r"^-inf$", "-Infinity"), (r"^-?nan$", "NaN")):
        text = pc.replace_substring_regex(text, found, written)
    return text


def _without_zeros(text: Value) -> Value:
    pointed = pc.match_substring(text, ".")
    return pc.if_else(pointed, pc.utf8_rtrim(pc.utf8_rtrim(text, "0"), "."), text)


def _timestamp_to_string(zoned: bool, values: Sequence[Value], rows: int) -> Value:
    naive = pc.cast(values[0], pa.timestamp(values[0].type.unit))
    text = _without_zeros(pc.cast(naive, sql.STRING))
    return pc.binary_join_element_wise(text, "+00", "") if zoned else text


def _floor_ticks(value: pa.Array, step: int) -> np.ndarray:
    return np.floor_divide(fixed_width(value, np.int64), step)


def _to_time(source: pa.DataType, target: pa.DataType) -> Body | None:
    if sql.is_timestamp(source):
        if sql.is_timestamp(target):
            return partial(_change_unit, target)
        if target == sql.DATE:
            return _timestamp_to_date
        if pa.types.is_time(target):
            return _timestamp_to_time
        return None
    if source == sql.DATE and sql.is_timestamp(target):
        return lambda values, rows: pc.cast(pc.cast(values[0], pa.timestamp(target.unit)), target)
    if pa.types.is_duration(source):
        if pa.types.is_duration(target):
            return lambda values, rows: pc.cast(values[0], target, safe=False)
        if target == sql.MONTHS:
            return _duration_to_months
    if pa.types.is_time(source) and pa.types.is_time(target):
        return lambda values, rows: pc.cast(values[0], target, safe=False)
    if sql.is_bytes(source) and sql.is_bytes(target):
        return _plain(target)
    return None


def _duration_to_months(values: Sequence[Value], rows: int) -> Value:
    value = broadcast(pc.cast(values[0], sql.INTERVAL), rows)
    out = np.zeros(rows, np.dtype([("months", np.int32), ("days", np.int32), ("nanoseconds", np.int64)]))
    out["nanoseconds"] = fixed_width(value, np.int64) * 1000
    return from_numbers(out, validity([value], rows), sql.MONTHS)


def _change_unit(target: pa.DataType, values: Sequence[Value], rows: int) -> Value:
    value = values[0]
    step = _UNIT_NS[target.unit] // _UNIT_NS[value.type.unit]
    if step <= 1:
        naive = pc.cast(value, pa.timestamp(value.type.unit))
        return pc.cast(pc.cast(naive, pa.timestamp(target.unit)), target)
    if isinstance(value, pa.Scalar):
        ticks = pc.cast(value, pa.int64()).as_py()
        return pa.scalar(None if ticks is None else ticks // step, pa.int64()).cast(target)
    return from_numbers(_floor_ticks(value, step), validity([value], rows), target)


def _timestamp_to_date(values: Sequence[Value], rows: int) -> Value:
    value = broadcast(values[0], rows)
    days = _floor_ticks(value, 86_400 * 10**9 // _UNIT_NS[value.type.unit])
    return from_numbers(days.astype(np.int32), validity([value], rows), sql.DATE)


def _timestamp_to_time(values: Sequence[Value], rows: int) -> Value:
    value = broadcast(values[0], rows)
    per_day = 86_400 * 10**9 // _UNIT_NS[value.type.unit]
    rest = np.mod(fixed_width(value, np.int64), per_day)
    scale = _UNIT_NS[value.type.unit]
    micros = rest * (scale // 1000) if scale >= 1000 else rest // 1000
    return from_numbers(micros, validity([value], rows), sql.TIME)


def _to_nested(source: pa.DataType, target: pa.DataType) -> Body | None:
    if sql.is_list(source) and sql.is_list(target):
        inner = _find(source.value_type, target.value_type)
        return None if inner is None else partial(_cast_list, inner, target)
    if pa.types.is_struct(source) and pa.types.is_struct(target) and source.num_fields == target.num_fields:
        bodies = [_find(a.type, b.type) for a, b in zip(source, target, strict=True)]
        if any(body is None for body in bodies):
            return None
        return partial(_cast_struct, [body for body in bodies if body is not None], target)
    if pa.types.is_map(source) and pa.types.is_map(target):
        return _plain(target)
    return None


def _cast_list(inner: Body, target: pa.DataType, values: Sequence[Value], rows: int) -> Value:
    value = broadcast(values[0], rows)
    lengths = pc.list_value_length(value)
    items = pc.list_flatten(value)
    converted = broadcast(inner([items], len(items)), len(items))
    offsets = np.zeros(rows + 1, np.int32)
    np.cumsum(np.asarray(lengths.fill_null(0)), out=offsets[1:])
    mask = value.is_null() if value.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets), converted, type=target, mask=mask)


def _cast_struct(
    bodies: Sequence[Callable[..., Value]], target: pa.DataType, values: Sequence[Value], rows: int
) -> Value:
    value = broadcast(values[0], rows)
    children = [
        broadcast(body([child], rows), rows) for body, child in zip(bodies, value.flatten(), strict=True)
    ]
    return pa.StructArray.from_arrays(children, fields=list(target), mask=value.is_null())
