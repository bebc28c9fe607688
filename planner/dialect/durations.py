"""Intervals and durations: `INTERVAL '5' SECOND`, `'1 day 2 hours'`, `5m`, `250ms`; months apart from microseconds."""

from __future__ import annotations

import re
from fractions import Fraction

from millrace.errors import Invalid, MillraceError
from millrace.planner.dialect.cursor import Cursor
from millrace.planner.dialect.nodes import Interval
from millrace.planner.dialect.tokens import Kind, Token

SECOND_US = 1_000_000
_LENGTHS_US = {
    "MICROSECOND": 1,
    "MILLISECOND": 1_000,
    "SECOND": SECOND_US,
    "MINUTE": 60 * SECOND_US,
    "HOUR": 3600 * SECOND_US,
    "DAY": 86_400 * SECOND_US,
    "WEEK": 7 * 86_400 * SECOND_US,
}
_LENGTHS_MONTHS = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}
_SHORT = {
    "US": "MICROSECOND",
    "µS": "MICROSECOND",
    "USEC": "MICROSECOND",
    "MS": "MILLISECOND",
    "MSEC": "MILLISECOND",
    "MILLI": "MILLISECOND",
    "S": "SECOND",
    "SEC": "SECOND",
    "M": "MINUTE",
    "MIN": "MINUTE",
    "H": "HOUR",
    "HR": "HOUR",
    "D": "DAY",
    "W": "WEEK",
    "MON": "MONTH",
    "Y": "YEAR",
    "YR": "YEAR",
}
_FIELDS = ("YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND")
_AMOUNT = re.compile(r"\s*([+-]?)\s*(\d+(?:\.\d+)?|\.\d+)\s*([^\W\d_]+)\s*,?")
_CLOCK = re.compile(r"\s*([+-]?)(\d+):(\d{1,2})(?::(\d{1,2}(?:\.\d+)?))?\s*$")
_HINT = "write INTERVAL '5' MINUTE, '5 minutes', 5m, 10s or 250ms"
_US_MAX = 2**62


def unit_named(word: str) -> str | None:
    """The unit in full, upper case and singular, or None: `m`, `MIN` and `minutes` are MINUTE."""
    word = word.upper()
    for candidate in (word, word[:-1] if word.endswith("S") and len(word) > 2 else word):
        if candidate in _LENGTHS_US or candidate in _LENGTHS_MONTHS:
            return candidate
        if candidate in _SHORT:
            return _SHORT[candidate]
    return None


def parse_duration(text: str) -> int:
    """µs of a duration in words: `5m`, `1h30m`, `5 seconds`, `INTERVAL '5' SECOND`, `01:30:00`.

    Raises Invalid: MR1030 where it is none, MR1031 where it has months.
    """
    body = text.strip()
    quoted = re.fullmatch(r"INTERVAL\s+(?:'([^']*)'|(\S+))\s*(\w*)", body, re.IGNORECASE)
    if quoted is not None:
        body = f"{quoted[1] or quoted[2] or ''} {quoted[3]}"
    months, us = _amounts(body, text)
    if months:
        raise Invalid(
            f"'{text}' has months, which have no fixed length", code="MR1031", hint="say it in days"
        )
    return us


def read_interval(cursor: Cursor) -> Interval:
    """The interval literal behind the word INTERVAL, which has been taken."""
    start = cursor.previous()
    sign = -1 if cursor.take("-") else 1
    token = cursor.here
    if token.kind not in (Kind.STRING, Kind.NUMBER):
        cursor.unexpected("a number or a string after INTERVAL")
    cursor.advance()
    text = token.text
    complete = token.kind is Kind.STRING and re.search(r"[^\W\d_]", text) is not None
    first = unit_named(cursor.here.word) if cursor.here.kind is Kind.WORD and not complete else None
    try:
        if first is None:
            months, us = _amounts(text, text)
        else:
            unit = cursor.advance()
            _precision(cursor)
            if cursor.take("TO"):
                months, us = _span(cursor, text, unit, first)
            else:
                months, us = _single(text, first)
    except Invalid as error:
        raise cursor.error(error.message, error.code, error.hint, at=token) from None
    node = Interval(months=sign * months or None, us=sign * us or None)
    return cursor.placed(node, start)


def at_duration(cursor: Cursor) -> bool:
    """True where a constant duration stands: an interval, `5m`, `5 MINUTES` or a string."""
    token = cursor.here
    if token.word == "INTERVAL":
        return cursor.ahead().kind in (Kind.STRING, Kind.NUMBER) or cursor.ahead().word == "-"
    if token.kind is Kind.STRING:
        return True
    after = cursor.ahead()
    return token.kind is Kind.NUMBER and after.kind is Kind.WORD and _short_amounts(cursor) is not None


def read_duration(cursor: Cursor, what: str, least: int = 1) -> int:
    """µs of the constant duration at this place.

    Raises Invalid: MR1030 where none stands, MR1031 for months, MR1032 if it is under `least` µs.
    """
    token = cursor.here
    if not at_duration(cursor):
        if token.kind is Kind.NUMBER:
            cursor.fail(f"{what} of {token.text} has no unit", "MR1030", hint=_HINT)
        cursor.fail(f"expected {what} (a constant duration), found {token.shown()}", "MR1030", hint=_HINT)
    if cursor.take("INTERVAL"):
        node = read_interval(cursor)
        months, us = node.months, node.us
    elif token.kind is Kind.STRING:
        cursor.advance()
        try:
            months, us = _amounts(re.sub(r"^\s*INTERVAL\s+", "", token.text, flags=re.IGNORECASE), token.text)
        except Invalid as error:
            raise cursor.error(error.message, error.code, error.hint, at=token) from None
    else:
        months, us = _take_short(cursor)
    if months:
        hint = "a month has no fixed length: say it in days"
        cursor.fail(f"{what} can not be in months or years", "MR1031", hint=hint, at=token)
    if us < least:
        cursor.fail(f"{what} must be {'positive' if least else 'zero or more'}", "MR1032", at=token)
    return us


def _short_amounts(cursor: Cursor) -> str | None:
    """The text of `5m`, `1h30m` (in one piece) or `5 MINUTES` at this place."""
    number, word = cursor.here, cursor.ahead()
    if number.stop == word.start and not number.text[-1:].isalpha():
        glued = number.text + word.text
        try:
            _amounts(glued, glued)
        except Invalid:
            return None
        return glued
    return f"{number.text} {word.text}" if unit_named(word.word) else None


def _take_short(cursor: Cursor) -> tuple[int, int]:
    text = _short_amounts(cursor)
    assert text is not None
    cursor.advance(2)
    return _amounts(text, text)


def _precision(cursor: Cursor) -> None:
    if cursor.take("("):
        cursor.whole_number("digits")
        cursor.expect(")")


def _amounts(text: str, shown: str) -> tuple[int, int]:
    """Months and µs of `1 day 2 hours`, `5m`, `1 day 01:30:00`."""
    at, months, us, found = 0, Fraction(0), Fraction(0), False
    while at < len(text):
        clock = _CLOCK.match(text, at)
        if clock is not None:
            us += _clock_us(clock)
            found, at = True, clock.end()
            continue
        amount = _AMOUNT.match(text, at)
        if amount is None:
            if text[at:].strip() or not found:
                raise _unreadable(shown)
            break
        unit = unit_named(amount[3])
        if unit is None:
            raise _unreadable(shown)
        value = Fraction(amount[2]) * (-1 if amount[1] == "-" else 1)
        if unit in _LENGTHS_MONTHS:
            months += value * _LENGTHS_MONTHS[unit]
        else:
            us += value * _LENGTHS_US[unit]
        found, at = True, amount.end()
    if not found:
        raise _unreadable(shown)
    return _whole(months, shown), _whole(us, shown)


def _single(text: str, unit: str) -> tuple[int, int]:
    """`'5' SECOND`; `'5 seconds' SECOND` and the like are refused."""
    number = re.fullmatch(r"\s*([+-]?)\s*(\d+(?:\.\d+)?|\.\d+)\s*", text)
    if number is None:
        raise _unreadable(f"{text} {unit.lower()}")
    value = Fraction(number[2]) * (-1 if number[1] == "-" else 1)
    if unit in _LENGTHS_MONTHS:
        return _whole(value * _LENGTHS_MONTHS[unit], text), 0
    return 0, _whole(value * _LENGTHS_US[unit], text)


def _span(cursor: Cursor, text: str, unit: Token, first: str) -> tuple[int, int]:
    """`'1-6' YEAR TO MONTH`, `'1 02:03:04.5' DAY TO SECOND`: the fields from `first` to the one named next."""
    last = unit_named(cursor.here.word) if cursor.here.kind is Kind.WORD else None
    if last is None:
        cursor.unexpected(*_FIELDS)
    cursor.advance()
    _precision(cursor)
    if first not in _FIELDS or last not in _FIELDS or _FIELDS.index(first) >= _FIELDS.index(last):
        raise Invalid(f"INTERVAL … {first} TO {last} can not be", code="MR1030", hint=_HINT)
    if (first in _LENGTHS_MONTHS) != (last in _LENGTHS_MONTHS):
        raise Invalid(f"INTERVAL … {first} TO {last} can not be: months have no fixed length", code="MR1030")
    names = _FIELDS[_FIELDS.index(first) : _FIELDS.index(last) + 1]
    matched = re.fullmatch(r"\s*([+-]?)(\d+(?:[-: ]+\d+)*(?:\.\d+)?)\s*", text)
    values = re.split(r"[-: ]+", matched[2]) if matched else []
    if matched is None or len(values) != len(names):
        raise Invalid(f"'{text}' is no interval from {first} to {last}", code="MR1030", hint=_HINT)
    sign = -1 if matched[1] == "-" else 1
    months = sum(
        int(v) * _LENGTHS_MONTHS[n] for v, n in zip(values, names, strict=True) if n in _LENGTHS_MONTHS
    )
    us = sum(
        (Fraction(v) * _LENGTHS_US[n] for v, n in zip(values, names, strict=True) if n in _LENGTHS_US),
        Fraction(0),
    )
    return sign * months, sign * _whole(us, text)


def _clock_us(clock: re.Match[str]) -> Fraction:
    us = Fraction(int(clock[2]) * 3600 + int(clock[3]) * 60) * SECOND_US + Fraction(clock[4] or 0) * SECOND_US
    return -us if clock[1] == "-" else us


def _whole(value: Fraction, shown: str) -> int:
    if value.denominator != 1:
        raise Invalid(f"'{shown}' is finer than a microsecond (or a month)", code="MR1030", hint=_HINT)
    if abs(value.numerator) > _US_MAX:
        raise Invalid(f"'{shown}' is too long", code="MR1030", hint=_HINT)
    return value.numerator


def _unreadable(shown: str) -> MillraceError:
    return Invalid(f"'{shown}' is no duration", code="MR1030", hint=_HINT)
