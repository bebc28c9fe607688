"""Times moved by intervals, differences of times, and intervals scaled. Knows no function names but + and -."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.functions import types as sql
from millrace.operators.functions.buffers import Int64s, broadcast, fixed_width, from_numbers, validity
from millrace.operators.functions.registry import Binding
from millrace.operators.functions.row_error import DIVISION_BY_ZERO, OVERFLOW, Body, Value, ValueFault

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
DAY_US = 86_400_000_000
_MONTHS_LAYOUT = np.dtype([("months", np.int32), ("days", np.int32), ("nanoseconds", np.int64)])


def bind_add(types: Sequence[pa.DataType], literals: Sequence[bool]) -> Binding | None:
    left, right = types
    forward = _bind_move(left, right, literals[1])
    if forward is not None:
        return forward
    backward = _bind_move(right, left, literals[0])
    if backward is not None:
        (moved, step), returns = backward
        return (step, moved), returns
    return None


def _bind_move(
    moved: pa.DataType, step: pa.DataType, literal: bool, *, minus: bool = False
) -> Binding | None:
    """The binding of `moved` + `step`, where that is a time and something it can be moved by."""
    interval = sql.is_interval(step) or pa.types.is_null(step)
    if literal and sql.is_string(step) and not minus and _is_timely(moved):
        interval, step = True, sql.INTERVAL
    if moved == sql.DATE and sql.is_integer(step):
        return (sql.DATE, sql.INT), sql.DATE
    if moved == sql.DATE and interval:
        return (sql.TIMESTAMP, step if step == sql.MONTHS else sql.INTERVAL), sql.TIMESTAMP
    if sql.is_timestamp(moved) and interval:
        return (moved, step if step == sql.MONTHS else pa.duration(moved.unit)), moved
    if pa.types.is_time(moved) and interval and step != sql.MONTHS:
        return (sql.TIME, sql.INTERVAL), sql.TIME
    if sql.is_interval(moved) and interval:
        both = sql.MONTHS if sql.MONTHS in (moved, step) else sql.INTERVAL
        return (both, both), both
    return None


def _is_timely(type: pa.DataType) -> bool:
    return sql.is_timestamp(type) or sql.is_interval(type) or type in (sql.DATE, sql.TIME)


def bind_subtract(types: Sequence[pa.DataType], literals: Sequence[bool]) -> Binding | None:
    left, right = types
    if left == sql.DATE and (right == sql.DATE or (sql.is_string(right) and literals[1])):
        return (sql.DATE, sql.DATE), sql.BIGINT
    points = [sql.is_timestamp(t) or t == sql.DATE for t in types]
    if points[0] and sql.is_string(right) and literals[1]:
        return (left, left), sql.INTERVAL
    if points[1] and sql.is_string(left) and literals[0]:
        return (right, right), sql.INTERVAL
    if all(points):
        common = sql.common_type(types)
        assert common is not None
        return (common, common), sql.INTERVAL
    if all(pa.types.is_time(t) for t in types):
        return (sql.TIME, sql.TIME), sql.INTERVAL
    return _bind_move(left, right, literals[1], minus=True)


def bind_scale(types: Sequence[pa.DataType], *, commutes: bool) -> Binding | None:
    left, right = types
    if pa.types.is_duration(left) and sql.is_number(right):
        return (sql.INTERVAL, sql.BIGINT if sql.is_integer(right) else sql.DOUBLE), sql.INTERVAL
    if commutes and sql.is_number(left) and pa.types.is_duration(right):
        return (sql.BIGINT if sql.is_integer(left) else sql.DOUBLE, sql.INTERVAL), sql.INTERVAL
    if left == sql.MONTHS and sql.is_integer(right) and commutes:
        return (sql.MONTHS, sql.BIGINT), sql.MONTHS
    if commutes and sql.is_integer(left) and right == sql.MONTHS:
        return (sql.BIGINT, sql.MONTHS), sql.MONTHS
    return None


def add(types: Sequence[pa.DataType], returns: pa.DataType, *, subtract: bool) -> Body:
    """The body of + or - for the bindings above."""
    left, right = types
    if returns == sql.MONTHS:
        return _add_months_intervals(-1 if subtract else 1)
    if sql.MONTHS in (left, right):
        order = (0, 1) if right == sql.MONTHS else (1, 0)
        return lambda values, rows: move_by_months(
            broadcast(values[order[0]], rows), values[order[1]], rows, -1 if subtract else 1
        )
    if returns == sql.DATE:
        return _move_date(types, subtract)
    if pa.types.is_time(returns):
        return _move_time(types, subtract)
    if returns == sql.BIGINT:
        return lambda values, rows: pc.subtract(_days(values[0]), _days(values[1]))
    function = pc.subtract_checked if subtract else pc.add_checked
    if returns == sql.INTERVAL and left != sql.INTERVAL:
        return lambda values, rows: pc.cast(function(values[0], values[1]), returns, safe=False)
    return lambda values, rows: function(values[0], values[1])


def _days(value: Value) -> Value:
    return pc.cast(pc.cast(value, pa.int32()), pa.int64())


def _move_date(types: Sequence[pa.DataType], subtract: bool) -> Body:
    function = pc.subtract_checked if subtract else pc.add_checked
    order = (0, 1) if types[0] == sql.DATE else (1, 0)

    def body(values: Sequence[Value], rows: int) -> Value:
        days = pc.cast(values[order[0]], pa.int32())
        return pc.cast(function(days, values[order[1]]), sql.DATE)

    return body


def _move_time(types: Sequence[pa.DataType], subtract: bool) -> Body:
    """A time of day moved by an interval comes round at midnight."""
    order = (0, 1) if pa.types.is_time(types[0]) else (1, 0)

    def body(values: Sequence[Value], rows: int) -> Value:
        time, step = (broadcast(values[i], rows) for i in order)
        a, b = fixed_width(time, np.int64), fixed_width(step, np.int64)
        moved = np.mod(a - b if subtract else a + b, DAY_US)
        return from_numbers(moved, validity([time, step], rows), sql.TIME)

    return body


def months_parts(value: pa.Array) -> npt.NDArray[np.void]:
    """A month_day_nano_interval array as a structured view (months, days, nanoseconds)."""
    buffer = value.buffers()[1]
    if buffer is None or not len(value):
        return np.zeros(len(value), _MONTHS_LAYOUT)
    return np.frombuffer(buffer, _MONTHS_LAYOUT, len(value) + value.offset)[value.offset :]


def add_months(days: Int64s, months: Int64s) -> Int64s:
    """Days since the epoch moved by whole months; a day past the month's end becomes its last day."""
    date = days.astype("datetime64[D]")
    month = date.astype("datetime64[M]")
    day = (date - month.astype("datetime64[D]")).astype(np.int64)
    target = month + months.astype("timedelta64[M]")
    length = ((target + 1).astype("datetime64[D]") - target.astype("datetime64[D]")).astype(np.int64)
    return target.astype("datetime64[D]").astype(np.int64) + np.minimum(day, length - 1)


def move_by_months(times: pa.Array, step: Value, rows: int, sign: int) -> pa.Array:
    """Timestamps moved by calendar intervals, as PostgreSQL does: months, then days, then time."""
    steps = broadcast(step, rows)
    parts = months_parts(steps)
    per_second = PER_SECOND[times.type.unit]
    day = 86_400 * per_second
    numbers = fixed_width(times, np.int64)
    days, rest = np.divmod(numbers, day)
    moved = add_months(days, sign * parts["months"].astype(np.int64)) + sign * parts["days"].astype(np.int64)
    nanoseconds = parts["nanoseconds"] * np.int64(sign)
    units = nanoseconds // (10**9 // per_second)
    return from_numbers(moved * day + rest + units, validity([times, steps], rows), times.type)


def _add_months_intervals(sign: int) -> Body:
    def body(values: Sequence[Value], rows: int) -> Value:
        left, right = (broadcast(v, rows) for v in values)
        a, b = months_parts(left), months_parts(right)
        out = np.empty(rows, _MONTHS_LAYOUT)
        for name in ("months", "days", "nanoseconds"):
            out[name] = a[name] + sign * b[name]
        return from_numbers(out, validity([left, right], rows), sql.MONTHS)

    return body


def negate(returns: pa.DataType) -> Body:
    def body(values: Sequence[Value], rows: int) -> Value:
        value = broadcast(values[0], rows)
        if returns == sql.MONTHS:
            out = np.empty(rows, _MONTHS_LAYOUT)
            for name in ("months", "days", "nanoseconds"):
                out[name] = -months_parts(value)[name]
            return from_numbers(out, validity([value], rows), returns)
        return from_numbers(-fixed_width(value, np.int64), validity([value], rows), returns)

    return body


def scale(types: Sequence[pa.DataType], returns: pa.DataType, *, divide: bool) -> Body:
    """An interval times (or through) a number."""
    order = (0, 1) if sql.is_interval(types[0]) else (1, 0)

    def months(values: Sequence[Value], rows: int) -> Value:
        interval, factor = (broadcast(values[i], rows) for i in order)
        out = np.empty(rows, _MONTHS_LAYOUT)
        for name in ("months", "days", "nanoseconds"):
            out[name] = months_parts(interval)[name] * fixed_width(factor, np.int64)
        return from_numbers(out, validity([interval, factor], rows), returns)

    def body(values: Sequence[Value], rows: int) -> Value:
        interval, factor = (values[i] for i in order)
        ticks = pc.cast(interval, pa.int64())
        if factor.type == sql.BIGINT and not divide:
            return pc.cast(pc.multiply_checked(ticks, factor), returns)
        exact = pc.cast(ticks, pa.float64(), safe=False)
        number = pc.cast(factor, pa.float64(), safe=False)
        if divide and _has_zero(number):
            raise ValueFault(DIVISION_BY_ZERO, "division by zero")
        result = pc.round(pc.divide(exact, number) if divide else pc.multiply(exact, number))
        bound = (
            pc.max(pc.abs(result)).as_py() if not isinstance(result, pa.Scalar) else abs(result.as_py() or 0)
        )
        if bound is not None and bound >= 2.0**63:
            raise ValueFault(OVERFLOW, "interval out of range")
        return pc.cast(pc.cast(result, pa.int64()), returns)

    return months if returns == sql.MONTHS else body


def _has_zero(number: Value) -> bool:
    found = pc.equal(number, 0.0)
    return bool(found.as_py()) if isinstance(found, pa.Scalar) else bool(pc.any(found).as_py())
