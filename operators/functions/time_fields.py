"""Fields of times and intervals: EXTRACT, DATE_PART and the functions named after one field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.errors import Invalid
from millrace.operators.functions import types as sql
from millrace.operators.functions.buffers import Int64s, broadcast, fixed_width, from_numbers, validity
from millrace.operators.functions.intervals import PER_SECOND, months_parts
from millrace.operators.functions.patterns import text_constant
from millrace.operators.functions.registry import Binding, Literals, Types, define
from millrace.operators.functions.row_error import Body, Value

DAY_S = 86_400
UNIT_NAMES = {
    "years": "year", "y": "year", "yr": "year", "yrs": "year", "quarters": "quarter", "months": "month", "mon": "month",
    "mons": "month", "weeks": "week", "w": "week", "weekofyear": "week", "days": "day", "d": "day", "dayofmonth": "day",
    "hours": "hour", "h": "hour", "hr": "hour", "hrs": "hour", "minutes": "minute", "m": "minute", "min": "minute",
    "mins": "minute", "seconds": "second", "s": "second", "sec": "second", "secs": "second", "ms": "millisecond",
    "milliseconds": "millisecond", "msec": "millisecond", "us": "microsecond", "microseconds": "microsecond",
    "usec": "microsecond", "ns": "nanosecond", "nanoseconds": "nanosecond", "dayofweek": "dow", "weekday": "dow",
    "dayofweek_iso": "isodow", "dayofyear": "doy", "yearofweek": "isoyear", "decades": "decade",
    "centuries": "century", "millenniums": "millennium", "sql_tsi_second": "second", "sql_tsi_minute": "minute",
    "sql_tsi_hour": "hour", "sql_tsi_day": "day", "sql_tsi_week": "week", "sql_tsi_month": "month",
    "sql_tsi_quarter": "quarter", "sql_tsi_year": "year",
}  # fmt: skip


def unit_name(text: str) -> str:
    """The field or unit by its one name: lower case, singular, spelled out."""
    low = text.strip().lower()
    return UNIT_NAMES.get(low, low)


def split_days(value: pa.Array) -> tuple[Int64s, Int64s, int]:
    """(days since the epoch, ticks since midnight, ticks per second) of a date or timestamp array."""
    if value.type == sql.DATE:
        return fixed_width(value, np.int32).astype(np.int64), np.zeros(len(value), np.int64), 1
    per_second = PER_SECOND[value.type.unit]
    days, rest = np.divmod(fixed_width(value, np.int64), DAY_S * per_second)
    return days, rest, per_second


def _years(days: Int64s) -> Int64s:
    return days.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970


def _months(days: Int64s) -> Int64s:
    return days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12 + 1


def _day_of_month(days: Int64s) -> Int64s:
    date = days.astype("datetime64[D]")
    return (date - date.astype("datetime64[M]").astype("datetime64[D]")).astype(np.int64) + 1


def _day_of_year(days: Int64s) -> Int64s:
    date = days.astype("datetime64[D]")
    return (date - date.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64) + 1


def _iso_year(days: Int64s) -> Int64s:
    return _years(days + 3 - (days + 3) % 7)


def _iso_week(days: Int64s) -> Int64s:
    return (_day_of_year(days + 3 - (days + 3) % 7) - 1) // 7 + 1


def _century(years: Int64s, size: int) -> Int64s:
    return (years + size - 1) // size


_OF_DAYS: dict[str, Callable[[Int64s], Int64s]] = {
    "year": _years,
    "quarter": lambda days: (_months(days) + 2) // 3,
    "month": _months,
    "week": _iso_week,
    "isoyear": _iso_year,
    "day": _day_of_month,
    "doy": _day_of_year,
    "dow": lambda days: (days + 4) % 7,
    "isodow": lambda days: (days + 3) % 7 + 1,
    "decade": lambda days: _years(days) // 10,
    "century": lambda days: _century(_years(days), 100),
    "millennium": lambda days: _century(_years(days), 1000),
    "julian": lambda days: days + 2_440_588,
}
_OF_TIME: dict[str, Callable[[Int64s, int], Int64s]] = {
    "hour": lambda ticks, per: ticks // (3600 * per),
    "minute": lambda ticks, per: ticks // (60 * per) % 60,
    "second": lambda ticks, per: ticks // per % 60,
    "millisecond": lambda ticks, per: _rescaled(ticks % (60 * per), per, 10**3),
    "microsecond": lambda ticks, per: _rescaled(ticks % (60 * per), per, 10**6),
    "nanosecond": lambda ticks, per: _rescaled(ticks % (60 * per), per, 10**9),
}
_ZERO_FIELDS = ("timezone", "timezone_hour", "timezone_minute")
_EPOCHS = {"epoch": 1, "epoch_ms": 10**3, "epoch_us": 10**6, "epoch_ns": 10**9}
FIELDS = (*_OF_DAYS, *_OF_TIME, *_EPOCHS, *_ZERO_FIELDS)


def _rescaled(ticks: Int64s, per: int, wanted: int) -> Int64s:
    return ticks * (wanted // per) if wanted >= per else ticks // (per // wanted)


def field_of(value: pa.Array, name: str) -> Int64s:
    """The field of each time; what stands at NULLs means nothing."""
    if pa.types.is_time(value.type):
        ticks, per = fixed_width(value.cast(sql.TIME), np.int64), 10**6
        return _rescaled(ticks, per, _EPOCHS[name]) if name in _EPOCHS else _OF_TIME[name](ticks, per)
    if name in _EPOCHS and value.type != sql.DATE:
        return _floor_rescaled(fixed_width(value, np.int64), PER_SECOND[value.type.unit], _EPOCHS[name])
    days, ticks, per = split_days(value)
    if name in _EPOCHS:
        return days * (DAY_S * _EPOCHS[name])
    if name in _OF_DAYS:
        return _OF_DAYS[name](days)
    return _OF_TIME[name](ticks, per) if name in _OF_TIME else np.zeros(len(value), np.int64)


def _floor_rescaled(ticks: Int64s, per: int, wanted: int) -> Int64s:
    return ticks * (wanted // per) if wanted >= per else np.floor_divide(ticks, per // wanted)


def _interval_field(value: pa.Array, name: str) -> Int64s:
    if value.type == sql.MONTHS:
        parts = months_parts(value)
        months, days = parts["months"].astype(np.int64), parts["days"].astype(np.int64)
        micros = _towards_zero(parts["nanoseconds"], 1000)
    else:
        micros = fixed_width(value.cast(sql.INTERVAL, safe=False), np.int64)
        months = np.zeros(len(micros), np.int64)
        days = _towards_zero(micros, DAY_S * 10**6)
        micros = micros - days * (DAY_S * 10**6)
    if name in _EPOCHS:
        years = _towards_zero(months, 12)
        seconds = years * 31_557_600 + (months - years * 12) * 30 * DAY_S + days * DAY_S
        whole = seconds * 10**6 + micros
        return _rescaled_towards_zero(whole, _EPOCHS[name])
    fields: dict[str, Callable[[], Int64s]] = {
        "year": lambda: _towards_zero(months, 12),
        "month": lambda: months - _towards_zero(months, 12) * 12,
        "quarter": lambda: (months - _towards_zero(months, 12) * 12) // 3 + 1,
        "day": lambda: days,
        "hour": lambda: _towards_zero(micros, 3_600_000_000),
        "minute": lambda: np.fmod(_towards_zero(micros, 60_000_000), 60),
        "second": lambda: np.fmod(_towards_zero(micros, 10**6), 60),
        "millisecond": lambda: _towards_zero(np.fmod(micros, 60_000_000), 1000),
        "microsecond": lambda: np.fmod(micros, 60_000_000),
    }
    return fields[name]() if name in fields else np.zeros(len(value), np.int64)


def _towards_zero(numbers: npt.NDArray[Any], step: int) -> Int64s:
    return (np.sign(numbers) * (np.abs(numbers) // step)).astype(np.int64)


def _rescaled_towards_zero(micros: Int64s, wanted: int) -> Int64s:
    return micros * (wanted // 10**6) if wanted >= 10**6 else _towards_zero(micros, 10**6 // wanted)


def extract(name: str, value: Value, rows: int) -> Value:
    """The field as BIGINT for each row."""
    whole = localised(broadcast(value, rows))
    numbers = _interval_field(whole, name) if sql.is_interval(whole.type) else field_of(whole, name)
    return from_numbers(np.asarray(numbers, np.int64), validity([whole], rows), pa.int64())


def localised(value: pa.Array) -> pa.Array:
    """A timestamp of a zone other than UTC as wall-clock time; anything else as it is."""
    if sql.is_timestamp(value.type) and value.type.tz not in (None, "UTC"):
        return pc.local_timestamp(value)
    return value


def _is_timely(type: pa.DataType) -> bool:
    return sql.is_timestamp(type) or sql.is_interval(type) or type == sql.DATE or bool(pa.types.is_time(type))


def _bind_field(types: Sequence[pa.DataType], marks: Sequence[bool]) -> Binding | None:
    if len(types) != 2 or not sql.is_string(types[0]):
        return None
    if _is_timely(types[1]):
        return (sql.STRING, types[1]), sql.BIGINT
    text = sql.is_string(types[1]) and marks[1]
    return ((sql.STRING, sql.TIMESTAMP), sql.BIGINT) if text or pa.types.is_null(types[1]) else None


@define("extract(STRING, TIMESTAMP) -> BIGINT", "extract(STRING, INTERVAL) -> BIGINT",
        description="a field of a time: year, quarter, month, week, day, dow, isodow, doy, hour, minute, second, epoch, …",
        aliases=("date_part", "datepart"), bind=_bind_field)  # fmt: skip
def _extract(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    name = unit_name(required_unit(literals, 0, "extract"))
    if name not in FIELDS or (pa.types.is_time(types[1]) and name not in (*_OF_TIME, *_EPOCHS)):
        raise Invalid(
            f"{sql.sql_name(types[1])} has no field {name!r}",
            code="MR1215",
            hint="fields: " + ", ".join(FIELDS),
        )
    return lambda values, rows: extract(name, values[1], rows)


def required_unit(literals: Literals, position: int, function: str) -> str:
    """The unit, which must be a constant."""
    unit = text_constant(literals, position)
    if unit is None:
        raise Invalid(f"{function} needs a constant unit", code="MR1215", hint="write it as text: 'hour'")
    return unit


def _bind_one(types: Sequence[pa.DataType], marks: Sequence[bool]) -> Binding | None:
    bound = _bind_field([sql.STRING, *types], [False, *marks])
    return None if bound is None else (bound[0][1:], bound[1])


def _define_field(field: str, *aliases: str, add: int = 0) -> None:
    name = aliases[0] if add else field

    @define(
        f"{name}(TIMESTAMP) -> BIGINT",
        description=f"the {field} of a time",
        aliases=aliases[1:] if add else aliases,
        bind=_bind_one,
    )
    def build(types: Types, returns: pa.DataType, literals: Literals) -> Body:
        if add:
            return lambda values, rows: pc.add(extract(field, values[0], rows), add)
        return lambda values, rows: extract(field, values[0], rows)


_define_field("year")
_define_field("quarter")
_define_field("month")
_define_field("week", "weekofyear")
_define_field("day", "dayofmonth")
_define_field("doy", "dayofyear")
_define_field("dow", "weekday")
_define_field("dow", "dayofweek", add=1)
_define_field("isodow")
_define_field("isoyear", "yearofweek")
_define_field("decade")
_define_field("century")
_define_field("millennium")
_define_field("hour")
_define_field("minute")
_define_field("second")
_define_field("millisecond")
_define_field("microsecond")
_define_field("epoch_us")
_define_field("epoch_ns")


@define("epoch(TIMESTAMP) -> DOUBLE", "epoch(INTERVAL) -> DOUBLE", description="seconds since 1970, with their fraction",
        bind=lambda types, marks: ((types[0],), sql.DOUBLE) if len(types) == 1 and _is_timely(types[0]) else None)  # fmt: skip
def _epoch(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    return lambda values, rows: pc.divide(
        pc.cast(extract("epoch_us", values[0], rows), pa.float64(), safe=False), 1e6
    )
