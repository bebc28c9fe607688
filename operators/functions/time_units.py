"""Times cut to units, moved by units, counted between, and made of parts."""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.errors import Invalid
from millrace.operators.functions import types as sql
from millrace.operators.functions.buffers import (
    Int64s,
    broadcast,
    fixed_width,
    from_numbers,
    validity,
)
from millrace.operators.functions.intervals import PER_SECOND, add_months
from millrace.operators.functions.patterns import text_constant
from millrace.operators.functions.registry import Binding, Literals, Types, define, scalar
from millrace.operators.functions.row_error import BAD_VALUE, OVERFLOW, Body, Value, ValueFault
from millrace.operators.functions.strings import row
from millrace.operators.functions.time_fields import DAY_S, localised, required_unit, split_days, unit_name

SECONDS = {"week": 7 * DAY_S, "day": DAY_S, "hour": 3600, "minute": 60, "second": 1}
FRACTIONS = {"millisecond": 10**3, "microsecond": 10**6, "nanosecond": 10**9}
MONTHS = {"month": 1, "quarter": 3, "year": 12, "decade": 120, "century": 1200, "millennium": 12_000}
_MONTH_OF_YEAR_1 = -1969 * 12


def _check_unit(unit: str, function: str) -> str:
    name = unit_name(unit)
    if name not in SECONDS and name not in FRACTIONS and name not in MONTHS:
        known = ", ".join((*FRACTIONS, *reversed(SECONDS), *MONTHS))
        raise Invalid(f"{function} knows no unit {unit!r}", code="MR1215", hint=f"units: {known}")
    return name


def truncate(value: pa.Array, unit: str, *, up: bool = False) -> pa.Array:
    """Each timestamp at the start of its unit (or, with `up`, of the next one unless it is a start)."""
    per_second = PER_SECOND[value.type.unit]
    ticks = fixed_width(value, np.int64)
    if unit in MONTHS:
        days, _, _ = split_days(value)
        months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
        base = _MONTH_OF_YEAR_1 if unit in ("century", "millennium") else -1970 * 12
        months = (months - base) // MONTHS[unit] * MONTHS[unit] + base
        cut = _month_ticks(months, per_second)
        if up:
            cut = np.where(cut < ticks, _month_ticks(months + MONTHS[unit], per_second), cut)
    else:
        step, origin = _step(unit, per_second)
        if step <= 1:
            return value
        cut = (ticks - origin) // step * step + origin
        if up:
            cut = np.where(cut < ticks, cut + step, cut)
    return from_numbers(cut, validity([value], len(value)), value.type)


def _month_ticks(months: Int64s, per_second: int) -> Int64s:
    return months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) * (DAY_S * per_second)


def _step(unit: str, per_second: int) -> tuple[int, int]:
    """(ticks of a unit, a tick at which one starts); weeks start on Mondays."""
    if unit in SECONDS:
        return SECONDS[unit] * per_second, -3 * DAY_S * per_second if unit == "week" else 0
    return per_second // FRACTIONS[unit], 0


def _define_cut(name: str, description: str, up: bool, *aliases: str) -> None:
    @define(
        f"{name}(STRING, TIMESTAMP) -> TIMESTAMP",
        f"{name}(TIMESTAMP, STRING) -> TIMESTAMP",
        description=description,
        aliases=aliases,
    )
    def build(types: Types, returns: pa.DataType, literals: Literals) -> Body:
        place = 0 if sql.is_string(types[0]) else 1
        unit = _check_unit(required_unit(literals, place, name), name)

        def body(values: Sequence[Value], rows: int) -> Value:
            value = broadcast(values[1 - place], rows)
            return _zoned(truncate(localised(value), unit, up=up), value.type)

        return body


def _zoned(wall: pa.Array, type: pa.DataType) -> pa.Array:
    if wall.type == type:
        return wall
    return pc.assume_timezone(wall, type.tz, ambiguous="earliest", nonexistent="earliest")


_define_cut(
    "date_trunc", "the start of the unit that a time is in", False, "datetrunc", "date_floor", "floor_time"
)
_define_cut("date_ceil", "the time, or the start of the next unit", True, "ceil_time")


@define("date_bin(INTERVAL, TIMESTAMP[, TIMESTAMP]) -> TIMESTAMP", description="the start of the bin of a width (from an origin) that a time is in",
        aliases=("time_bucket",), can_fail=True)  # fmt: skip
def _date_bin(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    def body(values: Sequence[Value], rows: int) -> Value:
        arrays = [broadcast(v, rows) for v in values]
        per_us = PER_SECOND[returns.unit]
        width = fixed_width(arrays[0], np.int64) * per_us // 10**6
        if (width[np.asarray(arrays[0].is_valid())] <= 0).any():
            raise ValueFault(BAD_VALUE, "the width of bins must be positive")
        ticks = fixed_width(arrays[1], np.int64)
        origin = fixed_width(arrays[2].cast(returns), np.int64) if len(arrays) > 2 else np.int64(0)
        safe = np.maximum(width, 1)
        return from_numbers((ticks - origin) // safe * safe + origin, validity(arrays, rows), returns)

    return body


@define(
    "timestampadd(STRING, BIGINT, TIMESTAMP) -> TIMESTAMP",
    description="a time moved by so many units",
    can_fail=True,
)
def _timestampadd(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    unit = _check_unit(required_unit(literals, 0, "timestampadd"), "timestampadd")
    return lambda values, rows: move(broadcast(values[2], rows), broadcast(values[1], rows), unit)


def move(value: pa.Array, count: pa.Array, unit: str) -> pa.Array:
    """Each timestamp moved by so many units."""
    per_second = PER_SECOND[value.type.unit]
    bitmap = validity([value, count], len(value))
    if unit in MONTHS:
        days, rest, _ = split_days(value)
        moved = add_months(days, fixed_width(count, np.int64) * MONTHS[unit]) * (DAY_S * per_second) + rest
        return from_numbers(moved, bitmap, value.type)
    step = SECONDS[unit] * per_second if unit in SECONDS else per_second // FRACTIONS[unit]
    ticks = pc.cast(value, pa.int64()) if not value.type.tz else value.cast(pa.int64())
    if step == 0:
        return pc.cast(pc.add_checked(ticks, pc.divide(count, FRACTIONS[unit] // per_second)), value.type)
    return pc.cast(pc.add_checked(ticks, pc.multiply_checked(count, step)), value.type)


@define(
    "date_add(DATE, INT) -> DATE",
    description="a date so many days later",
    aliases=("adddate",),
    can_fail=True,
)
def _date_add(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    return lambda values, rows: pc.cast(pc.add_checked(pc.cast(values[0], pa.int32()), values[1]), returns)


@define(
    "date_sub(DATE, INT) -> DATE",
    description="a date so many days earlier",
    aliases=("subdate",),
    can_fail=True,
)
def _date_sub(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    return lambda values, rows: pc.cast(
        pc.subtract_checked(pc.cast(values[0], pa.int32()), values[1]), returns
    )


@scalar("add_months(TIMESTAMP, BIGINT) -> TIMESTAMP", description="a time so many months later")
def _add_months(values: Sequence[Value], rows: int) -> Value:
    return move(broadcast(values[0], rows), broadcast(values[1], rows), "month")


def _month_number(days: Int64s) -> Int64s:
    return days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


def units_between(start: pa.Array, end: pa.Array, unit: str) -> Int64s:
    """How many whole units lie from `start` to `end`; negative where `end` is earlier."""
    (days1, rest1, per), (days2, rest2, _) = split_days(start), split_days(end)
    if unit in MONTHS:
        months = _month_number(days2) - _month_number(days1)
        moved = add_months(days1, months) * (DAY_S * per) + rest1
        reached = days2 * (DAY_S * per) + rest2
        months -= (months > 0) & (moved > reached)
        months += (months < 0) & (moved < reached)
        return np.asarray(np.trunc(months / MONTHS[unit]), np.int64)
    ticks = (days2 - days1) * (DAY_S * per) + (rest2 - rest1)
    if unit in FRACTIONS and FRACTIONS[unit] >= per:
        return ticks * (FRACTIONS[unit] // per)
    step, _ = _step(unit, per)
    return np.sign(ticks) * (np.abs(ticks) // step)


def boundaries_between(start: pa.Array, end: pa.Array, unit: str) -> Int64s:
    """How many starts of a unit lie from `start` to `end`."""
    if unit in MONTHS:
        (days1, _, _), (days2, _, _) = split_days(start), split_days(end)
        base = _MONTH_OF_YEAR_1 if unit in ("century", "millennium") else -1970 * 12
        size = MONTHS[unit]
        return (_month_number(days2) - base) // size - (_month_number(days1) - base) // size
    return units_between(truncate(start, unit), truncate(end, unit), unit)


def _bind_between(types: Sequence[pa.DataType], marks: Sequence[bool]) -> Binding | None:
    if len(types) != 3 or not sql.is_string(types[0]):
        return None
    common = sql.common_type(types[1:], marks[1:])
    if common is None or not (sql.is_timestamp(common) or common in (sql.DATE, sql.STRING, sql.NULL)):
        return None
    kind = common if sql.is_timestamp(common) else sql.TIMESTAMP
    return (sql.STRING, kind, kind), sql.BIGINT


def _define_between(name: str, count: Any, description: str, *aliases: str) -> None:
    @define(
        f"{name}(STRING, TIMESTAMP, TIMESTAMP) -> BIGINT",
        description=description,
        aliases=aliases,
        bind=_bind_between,
    )
    def build(types: Types, returns: pa.DataType, literals: Literals) -> Body:
        unit = _check_unit(required_unit(literals, 0, name), name)

        def body(values: Sequence[Value], rows: int) -> Value:
            start, end = (broadcast(v, rows) for v in values[1:])
            return from_numbers(count(start, end, unit), validity([start, end], rows), returns)

        return body


_define_between(
    "timestampdiff", units_between, "how many whole units lie between two times", "datesub", "date_part_diff"
)
_define_between("date_diff", boundaries_between, "how many starts of a unit lie between two times", "age_in")


def _bind_datediff(types: Sequence[pa.DataType], marks: Sequence[bool]) -> Binding | None:
    if len(types) == 3:
        return _bind_between(types, marks)
    if len(types) != 2 or not all(
        sql.is_timestamp(t) or t in (sql.DATE, sql.NULL) or m for t, m in zip(types, marks, strict=True)
    ):
        return None
    return (sql.DATE, sql.DATE), sql.BIGINT


@define("datediff(STRING, TIMESTAMP, TIMESTAMP) -> BIGINT", "datediff(DATE, DATE) -> BIGINT",
        description="unit starts from the second to the third; days from the second date to the first", bind=_bind_datediff)  # fmt: skip
def _datediff(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    if len(types) == 2:
        return lambda values, rows: pc.cast(
            pc.subtract(pc.cast(values[0], pa.int32()), pc.cast(values[1], pa.int32())), returns
        )
    unit = _check_unit(required_unit(literals, 0, "datediff"), "datediff")

    def body(values: Sequence[Value], rows: int) -> Value:
        start, end = (broadcast(v, rows) for v in values[1:])
        return from_numbers(boundaries_between(start, end, unit), validity([start, end], rows), returns)

    return body


@define(
    "age(TIMESTAMP, TIMESTAMP) -> MONTHS",
    description="years, months, days and time from the second to the first",
)
def _age(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    def body(values: Sequence[Value], rows: int) -> Value:
        end, start = (broadcast(pc.cast(v, pa.timestamp("us"), safe=False), rows) for v in values)
        months = units_between(start, end, "month")
        days1, rest1, per = split_days(start)
        reached = add_months(days1, months) * (DAY_S * per) + rest1
        ticks = fixed_width(end, np.int64) - reached
        days = np.sign(ticks) * (np.abs(ticks) // (DAY_S * per))
        out = np.empty(rows, np.dtype([("months", np.int32), ("days", np.int32), ("nanoseconds", np.int64)]))
        out["months"], out["days"] = months, days
        out["nanoseconds"] = (ticks - days * (DAY_S * per)) * 1000
        return from_numbers(out, validity([start, end], rows), returns)

    return body


@scalar("last_day(DATE) -> DATE", description="the last day of the month")
def _last_day(values: Sequence[Value], rows: int) -> Value:
    value = broadcast(values[0], rows)
    month = fixed_width(value, np.int32).astype("datetime64[D]").astype("datetime64[M]")
    last = ((month + 1).astype("datetime64[D]").astype(np.int64) - 1).astype(np.int32)
    return from_numbers(last, validity([value], rows), sql.DATE)


@scalar("date(TIMESTAMP) -> DATE", description="the day of a time")
def _date(values: Sequence[Value], rows: int) -> Value:
    value = localised(broadcast(values[0], rows))
    days, _, _ = split_days(value)
    return from_numbers(days.astype(np.int32), validity([value], rows), sql.DATE)


def _made(make: Any) -> Any:
    try:
        return make()
    except (ValueError, OverflowError) as error:
        raise ValueFault(BAD_VALUE, str(error)) from None


@row(
    "make_date(BIGINT, BIGINT, BIGINT) -> DATE", description="the date of year, month and day", can_fail=True
)
def _make_date(year: int, month: int, day: int) -> datetime.date:
    return _made(lambda: datetime.date(year, month, day))


@row(
    "make_time(BIGINT, BIGINT, DOUBLE) -> TIME",
    description="the time of hour, minute and second",
    can_fail=True,
)
def _make_time(hour: int, minute: int, second: float) -> datetime.time:
    whole, micros = divmod(round(second * 1e6), 10**6)
    return _made(lambda: datetime.time(hour, minute, whole, micros))


@row("make_timestamp(BIGINT, BIGINT, BIGINT, BIGINT, BIGINT, DOUBLE) -> TIMESTAMP_US", "make_timestamp(BIGINT) -> TIMESTAMP_US",
     description="the timestamp of year, month, day, hour, minute and second, or of µs since 1970", can_fail=True)  # fmt: skip
def _make_timestamp(
    year: int, month: int = 0, day: int = 0, hour: int = 0, minute: int = 0, second: float = 0.0
) -> Any:
    if month == 0 and day == 0:
        return year
    whole, micros = divmod(round(second * 1e6), 10**6)
    return _made(lambda: datetime.datetime(year, month, day, hour, minute, whole, micros))


def _define_interval(name: str, micros: int) -> None:
    @define(
        f"{name}(DOUBLE) -> INTERVAL",
        f"{name}(BIGINT) -> INTERVAL",
        description=f"an interval of so many {name[3:]}",
        can_fail=True,
    )
    def build(types: Types, returns: pa.DataType, literals: Literals) -> Body:
        def body(values: Sequence[Value], rows: int) -> Value:
            if types[0] == sql.BIGINT:
                return pc.cast(pc.multiply_checked(values[0], micros), returns)
            return pc.cast(pc.cast(pc.round(pc.multiply(values[0], float(micros))), pa.int64()), returns)

        return body


for _name, _micros in (("to_microseconds", 1), ("to_milliseconds", 1000), ("to_seconds", 10**6), ("to_minutes", 60 * 10**6),
                       ("to_hours", 3600 * 10**6), ("to_days", DAY_S * 10**6), ("to_weeks", 7 * DAY_S * 10**6)):  # fmt: skip
    _define_interval(_name, _micros)


@row("to_months(BIGINT) -> MONTHS", description="an interval of so many months", can_fail=True)
def _to_months(count: int) -> pa.MonthDayNano:
    if abs(count) >= 2**31:
        raise ValueFault(OVERFLOW, f"{count} months are out of range")
    return pa.MonthDayNano([count, 0, 0])


@row("to_years(BIGINT) -> MONTHS", description="an interval of so many years", can_fail=True)
def _to_years(count: int) -> pa.MonthDayNano:
    return _to_months(12 * count)


def _bind_zone(types: Sequence[pa.DataType], marks: Sequence[bool]) -> Binding | None:
    if len(types) != 2 or not sql.is_string(types[1]):
        return None
    kind = sql.TIMESTAMP if types[0] == sql.DATE or (sql.is_string(types[0]) and marks[0]) else types[0]
    if not sql.is_timestamp(kind):
        return None
    return (kind, sql.STRING), pa.timestamp(kind.unit, None if kind.tz else "UTC")


@define("at time zone(TIMESTAMP, STRING) -> TIMESTAMP", description="wall-clock time of a zone as an instant; an instant as wall-clock time of a zone",
        aliases=("at_time_zone",), bind=_bind_zone, can_fail=True)  # fmt: skip
def _at_zone(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    zone = text_constant(literals, 1)
    if zone is None:
        raise Invalid(
            "AT TIME ZONE needs a constant zone", code="MR1215", hint="write it as text: 'Europe/Vienna'"
        )
    try:
        zoneinfo.ZoneInfo(zone)
    except (ValueError, zoneinfo.ZoneInfoNotFoundError):
        raise Invalid(
            f"unknown time zone {zone!r}", code="MR1215", hint="use a name such as 'Europe/Vienna'"
        ) from None

    def body(values: Sequence[Value], rows: int) -> Value:
        value = values[0]
        if types[0].tz:
            return pc.local_timestamp(pc.cast(value, pa.timestamp(types[0].unit, zone)))
        instant = pc.assume_timezone(value, zone, ambiguous="earliest", nonexistent="earliest")
        return pc.cast(instant, returns)

    return body


def _bind_timezone(types: Sequence[pa.DataType], marks: Sequence[bool]) -> Binding | None:
    if len(types) != 2:
        return None
    bound = _bind_zone(types[::-1], marks[::-1])
    return None if bound is None else (bound[0][::-1], bound[1])


@define(
    "timezone(STRING, TIMESTAMP) -> TIMESTAMP",
    description="AT TIME ZONE as a function",
    bind=_bind_timezone,
    can_fail=True,
)
def _timezone(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    inner = _at_zone(types[::-1], returns, literals[::-1])
    return lambda values, rows: inner(values[::-1], rows)


@row(
    "convert_tz(STRING, STRING, STRING) -> STRING",
    description="wall-clock text moved from one zone to another",
    can_fail=True,
)
def _convert_tz(text: str, source: str, target: str) -> str:
    try:
        wall = datetime.datetime.fromisoformat(text).replace(tzinfo=zoneinfo.ZoneInfo(source))
        return wall.astimezone(zoneinfo.ZoneInfo(target)).strftime("%Y-%m-%d %H:%M:%S")
    except zoneinfo.ZoneInfoNotFoundError as error:
        raise ValueFault(BAD_VALUE, f"unknown time zone {error}") from None
