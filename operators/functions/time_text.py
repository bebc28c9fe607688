"""Times and intervals as text and back, in PostgreSQL's and ISO 8601's forms. Knows no Arrow but its interval."""

from __future__ import annotations

import datetime
import re

import pyarrow as pa

from millrace.operators.functions.row_error import BAD_CAST, ValueFault

SECOND_US = 1_000_000
UNITS_US = {
    "microsecond": 1, "us": 1, "millisecond": 1000, "ms": 1000, "second": SECOND_US, "sec": SECOND_US,
    "s": SECOND_US, "minute": 60 * SECOND_US, "min": 60 * SECOND_US, "m": 60 * SECOND_US,
    "hour": 3600 * SECOND_US, "hr": 3600 * SECOND_US, "h": 3600 * SECOND_US, "day": 86_400 * SECOND_US,
    "d": 86_400 * SECOND_US, "week": 7 * 86_400 * SECOND_US, "w": 7 * 86_400 * SECOND_US,
}  # fmt: skip
UNITS_MONTHS = {
    "month": 1,
    "mon": 1,
    "quarter": 3,
    "year": 12,
    "yr": 12,
    "y": 12,
    "decade": 120,
    "century": 1200,
}

_TIMESTAMP = re.compile(
    r"\s*(\d{4,6})-(\d{1,2})-(\d{1,2})"
    r"(?:[T ]\s*(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9})\d*)?)?)?"
    r"\s*(Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?\s*"
)
_TIME = re.compile(r"\s*(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,6})\d*)?)?\s*")
_PART = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*([a-z]+)")
_CLOCK = re.compile(r"([+-]?)(\d+):(\d{2})(?::(\d{2})(?:\.(\d{1,6})\d*)?)?$")
_ISO = re.compile(
    r"([+-]?)P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?$"
)


def parse_timestamp(text: str) -> int:
    """Nanoseconds since the epoch; without an offset the text is in UTC. ValueFault where it is no timestamp."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise ValueFault(BAD_CAST, f"{text!r} is no timestamp")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        days = datetime.date(int(year), int(month), int(day)).toordinal() - 719_163
    except ValueError as error:
        raise ValueFault(BAD_CAST, f"{text!r} is no timestamp: {error}") from None
    h, m, s = int(hour or 0), int(minute or 0), int(second or 0)
    if h > 24 or m > 59 or s > 60 or (h == 24 and (m or s)):
        raise ValueFault(BAD_CAST, f"{text!r} is no timestamp: time of day out of range")
    seconds = days * 86_400 + h * 3600 + m * 60 + s - _offset(zone)
    return seconds * 10**9 + int((fraction or "0").ljust(9, "0"))


def _offset(zone: str | None) -> int:
    if zone is None or zone[0] not in "+-":
        return 0
    digits = zone[1:].replace(":", "")
    seconds = int(digits[:2]) * 3600 + int(digits[2:] or 0) * 60
    return -seconds if zone[0] == "-" else seconds


def parse_time(text: str) -> datetime.time:
    """The time of day; ValueFault where the text is none."""
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError("hours:minutes[:seconds] is wanted")
        hour, minute, second, fraction = match.groups()
        return datetime.time(int(hour), int(minute), int(second or 0), int((fraction or "0").ljust(6, "0")))
    except ValueError as error:
        raise ValueFault(BAD_CAST, f"{text!r} is no time: {error}") from None


def parse_interval(text: str) -> int:
    """Microseconds; ValueFault where the text is no interval or has months in it."""
    months, micros = _interval_parts(text)
    if months:
        raise ValueFault(BAD_CAST, f"{text!r} has months or years, which are no fixed length")
    return micros


def parse_calendar_interval(text: str) -> pa.MonthDayNano:
    """(months, days, nanoseconds); ValueFault where the text is no interval."""
    months, micros = _interval_parts(text)
    days, rest = divmod(abs(micros), UNITS_US["day"])
    sign = -1 if micros < 0 else 1
    return pa.MonthDayNano([months, sign * days, sign * rest * 1000])


def _interval_parts(text: str) -> tuple[int, int]:
    low = text.strip()
    iso = _ISO.fullmatch(low.upper())
    if iso and len(low) > 1:
        return _iso_parts(iso)
    low = low.lower()
    clock = _CLOCK.search(low)
    micros, months = 0.0, 0.0
    whole = 0
    if clock:
        whole = _clock_us(clock)
        low = low[: clock.start()].strip()
    rest = low
    for number, unit in _PART.findall(low):
        name = unit if unit in UNITS_US or unit in UNITS_MONTHS else unit.removesuffix("s")
        if name in UNITS_US:
            micros += round(float(number) * UNITS_US[name])
        elif name in UNITS_MONTHS:
            months += float(number) * UNITS_MONTHS[name]
        else:
            raise ValueFault(BAD_CAST, f"{text!r} is no interval: unknown unit {unit}")
        rest = rest.replace(number, "", 1).replace(unit, "", 1)
    if rest.strip() or (not clock and not low):
        raise ValueFault(BAD_CAST, f"{text!r} is no interval")
    return round(months), int(micros) + whole


def _clock_us(clock: re.Match[str]) -> int:
    sign, hours, minutes, seconds, fraction = clock.groups()
    total = (int(hours) * 3600 + int(minutes) * 60 + int(seconds or 0)) * SECOND_US
    total += int((fraction or "0").ljust(6, "0"))
    return -total if sign == "-" else total


def _iso_parts(iso: re.Match[str]) -> tuple[int, int]:
    sign, years, months, weeks, days, hours, minutes, seconds = iso.groups()
    factor = -1 if sign == "-" else 1
    total = (int(weeks or 0) * 7 + int(days or 0)) * UNITS_US["day"]
    total += int(hours or 0) * UNITS_US["hour"] + int(minutes or 0) * UNITS_US["minute"]
    total += round(float(seconds or 0) * SECOND_US)
    return factor * (int(years or 0) * 12 + int(months or 0)), factor * total


def format_interval(value: datetime.timedelta | pa.MonthDayNano) -> str:
    """The interval as PostgreSQL writes it: `1 year 2 mons 3 days 04:05:06.7`."""
    if isinstance(value, datetime.timedelta):
        months, total = 0, (value.days * 86_400 + value.seconds) * SECOND_US + value.microseconds
        days = int(total / UNITS_US["day"])
        total -= days * UNITS_US["day"]
    else:
        months, days, total = value.months, value.days, int(value.nanoseconds / 1000)
    parts = []
    for count, unit in ((int(months / 12), "year"), (months - int(months / 12) * 12, "mon"), (days, "day")):
        if count:
            parts.append(f"{count} {unit}{'' if count == 1 else 's'}")
    if total or not parts:
        seconds, micros = divmod(abs(total), SECOND_US)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        fraction = f".{micros:06}".rstrip("0") if micros else ""
        parts.append(("-" if total < 0 else "") + clock + fraction)
    return " ".join(parts)
