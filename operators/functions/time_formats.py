"""Times as text by a format and back: strftime's, Java's (Flink) and PostgreSQL's letters."""

from __future__ import annotations

import calendar
import datetime
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.errors import Invalid
from millrace.operators.functions import types as sql
from millrace.operators.functions.buffers import broadcast, by_row, fixed_width
from millrace.operators.functions.casts import build_cast
from millrace.operators.functions.intervals import PER_SECOND
from millrace.operators.functions.patterns import text_constant
from millrace.operators.functions.registry import Binding, Literals, Types, define, scalar
from millrace.operators.functions.row_error import BAD_VALUE, Body, Value, ValueFault
from millrace.operators.functions.time_fields import extract, localised
from millrace.operators.functions.time_text import parse_timestamp

EPOCH = datetime.datetime(1970, 1, 1)
_SECONDS = {"day": 86_400, "hour": 3600, "minute": 60, "second": 1}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a format: how it is written, how it is matched, and the shortest span it depends on."""

    write: Callable[[datetime.datetime], str]
    match: str
    name: str
    span: str


def _number(attribute: str, width: int, span: str, name: str | None = None) -> Field:
    digits = rf"\d{{1,{max(width, 2)}}}" if width != 4 else r"\d{4,5}"
    return Field(lambda t: f"{getattr(t, attribute):0{width}}", digits, name or attribute, span)


def _fraction(width: int) -> Field:
    return Field(
        lambda t: f"{t.microsecond:06}"[:width].ljust(width, "0"),
        rf"\d{{1,{max(width, 6)}}}",
        "fraction",
        "tick",
    )


def _names(
    names: Sequence[str], pick: Callable[[datetime.datetime], int], kind: str, case: Callable[[str], str]
) -> Field:
    shown = [case(name) for name in names]
    return Field(lambda t: shown[pick(t)], "|".join(name for name in names if name), kind, "day")


_MONTHS, _MON = list(calendar.month_name), list(calendar.month_abbr)
_DAYS, _DY = list(calendar.day_name), list(calendar.day_abbr)


def _hour12(t: datetime.datetime) -> str:
    return f"{(t.hour + 11) % 12 + 1:02}"


def _same(text: str) -> str:
    return text


FIELDS: dict[str, Field] = {
    "year": _number("year", 4, "day"),
    "year2": Field(lambda t: f"{t.year % 100:02}", r"\d{2}", "year2", "day"),
    "isoyear": Field(lambda t: f"{t.isocalendar()[0]:04}", r"\d{4}", "skip", "day"),
    "month": _number("month", 2, "day"),
    "month1": _number("month", 1, "day"),
    "month_name": _names(_MONTHS, lambda t: t.month, "month_name", _same),
    "MONTH_NAME": _names(_MONTHS, lambda t: t.month, "month_name", str.upper),
    "mon": _names(_MON, lambda t: t.month, "mon", _same),
    "MON": _names(_MON, lambda t: t.month, "mon", str.upper),
    "day": _number("day", 2, "day"),
    "day1": _number("day", 1, "day"),
    "day_name": _names(_DAYS, datetime.datetime.weekday, "skip", _same),
    "DAY_NAME": _names(_DAYS, datetime.datetime.weekday, "skip", str.upper),
    "dy": _names(_DY, datetime.datetime.weekday, "skip", _same),
    "DY": _names(_DY, datetime.datetime.weekday, "skip", str.upper),
    "doy": Field(lambda t: f"{t.timetuple().tm_yday:03}", r"\d{1,3}", "doy", "day"),
    "isodow": Field(lambda t: str(t.isoweekday()), r"\d", "skip", "day"),
    "dow0": Field(lambda t: str(t.isoweekday() % 7), r"\d", "skip", "day"),
    "dow1": Field(lambda t: str(t.isoweekday() % 7 + 1), r"\d", "skip", "day"),
    "week": Field(lambda t: f"{t.isocalendar()[1]:02}", r"\d{1,2}", "skip", "day"),
    "quarter": Field(lambda t: str((t.month + 2) // 3), r"\d", "skip", "day"),
    "hour": _number("hour", 2, "hour"),
    "hour1": _number("hour", 1, "hour"),
    "hour12": Field(_hour12, r"\d{1,2}", "hour12", "hour"),
    "minute": _number("minute", 2, "minute"),
    "second": _number("second", 2, "second"),
    "fraction3": _fraction(3),
    "fraction6": _fraction(6),
    "fraction9": _fraction(9),
    "AM": Field(lambda t: "AM" if t.hour < 12 else "PM", "AM|PM", "half", "hour"),
    "am": Field(lambda t: "am" if t.hour < 12 else "pm", "AM|PM", "half", "hour"),
    "zone": Field(lambda t: "+00", r"Z|[+-]\d{2}(?::?\d{2})?", "zone", "day"),
    "zone4": Field(lambda t: "+0000", r"Z|[+-]\d{2}(?::?\d{2})?", "zone", "day"),
    "zone_name": Field(lambda t: "UTC", "[A-Z]+", "skip", "day"),
    "epoch": Field(lambda t: str(int((t - EPOCH).total_seconds())), r"-?\d+", "epoch", "second"),
}
_STRFTIME = {
    "Y": "year", "y": "year2", "G": "isoyear", "m": "month", "-m": "month1", "B": "month_name", "b": "mon", "h": "mon",
    "d": "day", "-d": "day1", "A": "day_name", "a": "dy", "j": "doy", "u": "isodow", "w": "dow0", "V": "week",
    "H": "hour", "-H": "hour1", "I": "hour12", "M": "minute", "S": "second", "f": "fraction6", "g": "fraction3",
    "n": "fraction9", "p": "AM", "z": "zone", "Z": "zone_name", "s": "epoch",
}  # fmt: skip
_STRFTIME_GROUPS = {"F": "%Y-%m-%d", "T": "%H:%M:%S", "R": "%H:%M", "D": "%m/%d/%y", "c": "%a %b %d %H:%M:%S %Y", "x": "%Y-%m-%d", "X": "%H:%M:%S"}  # fmt: skip
_JAVA = {
    "yyyy": "year", "uuuu": "year", "y": "year", "u": "year", "yy": "year2", "YYYY": "isoyear", "MM": "month", "M": "month1",
    "MMM": "mon", "MMMM": "month_name", "LL": "month", "dd": "day", "d": "day1", "DDD": "doy", "D": "doy", "EEEE": "day_name",
    "EEE": "dy", "EE": "dy", "E": "dy", "HH": "hour", "H": "hour1", "hh": "hour12", "h": "hour12", "mm": "minute", "m": "minute",
    "ss": "second", "s": "second", "S": "fraction1", "SS": "fraction2", "SSS": "fraction3", "SSSSSS": "fraction6",
    "SSSSSSSSS": "fraction9", "a": "AM", "Q": "quarter", "w": "week", "ww": "week", "e": "isodow", "X": "zone", "XX": "zone4",
    "Z": "zone4", "z": "zone_name", "XXX": "zone",
}  # fmt: skip
_POSTGRES = {
    "YYYY": "year", "Y,YYY": "year", "YY": "year2", "IYYY": "isoyear", "MM": "month", "MON": "MON", "Mon": "mon", "mon": "mon",
    "MONTH": "MONTH_NAME", "Month": "month_name", "month": "month_name", "DD": "day", "DDD": "doy", "DAY": "DAY_NAME",
    "Day": "day_name", "DY": "DY", "Dy": "dy", "D": "dow1", "ID": "isodow", "IW": "week", "WW": "week", "Q": "quarter",
    "HH24": "hour", "HH12": "hour12", "HH": "hour12", "MI": "minute", "SS": "second", "MS": "fraction3", "US": "fraction6",
    "FF3": "fraction3", "FF6": "fraction6", "FF9": "fraction9", "AM": "AM", "PM": "AM", "am": "am", "pm": "am", "TZ": "zone_name",
    "OF": "zone", "TZH": "zone",
}  # fmt: skip
_JAVA_TOKEN = re.compile(r"'(?:[^']|'')*'|([A-Za-z])\1*|.", re.DOTALL)
_POSTGRES_TOKEN = re.compile(
    "|".join(sorted(map(re.escape, _POSTGRES), key=len, reverse=True)) + r'|"[^"]*"|.', re.DOTALL
)


def _field(name: str) -> Field:
    return FIELDS.get(name) or _fraction(int(name.removeprefix("fraction")))


def parse_strftime(text: str) -> list[Field | str]:
    """The fields and literal texts of a strftime format."""
    for letter, group in _STRFTIME_GROUPS.items():
        text = text.replace("%" + letter, group)
    out: list[Field | str] = []
    for token in re.findall(r"%-?.|[^%]+|%$", text, re.DOTALL):
        if not token.startswith("%"):
            out.append(token)
        elif token == "%%":
            out.append("%")
        elif token[1:] in _STRFTIME:
            out.append(_field(_STRFTIME[token[1:]]))
        else:
            raise ValueFault(BAD_VALUE, f"unknown format field {token!r}")
    return out


def parse_java(text: str) -> list[Field | str]:
    """The fields and literal texts of a Java (Flink) date format; a `%` makes it a strftime format."""
    if "%" in text:
        return parse_strftime(text)
    out: list[Field | str] = []
    for token in (found[0] for found in _JAVA_TOKEN.finditer(text)):
        if token.startswith("'") and len(token) > 1:
            out.append("'" if token == "''" else token[1:-1].replace("''", "'"))
        elif token[0].isalpha():
            if token not in _JAVA:
                raise ValueFault(BAD_VALUE, f"unknown format field {token!r}")
            out.append(_field(_JAVA[token]))
        else:
            out.append(token)
    return out


def parse_postgres(text: str) -> list[Field | str]:
    """The fields and literal texts of a to_char format; text in double quotes stands for itself."""
    out: list[Field | str] = []
    for token in _POSTGRES_TOKEN.findall(text.replace("FM", "")):
        if token in _POSTGRES:
            out.append(_field(_POSTGRES[token]))
        else:
            out.append(token[1:-1] if token.startswith('"') and len(token) > 1 else token)
    return out


Parse = Callable[[str], list[Field | str]]


def _constant_format(parse: Parse, text: str) -> list[Field | str]:
    try:
        return parse(text)
    except ValueFault as fault:
        raise Invalid(
            f"format {text!r}: {fault}", code="MR1216", hint="see the list of format fields"
        ) from fault


def write(items: Sequence[Field | str], time: datetime.datetime) -> str:
    """The time as text."""
    return "".join(item if isinstance(item, str) else item.write(time) for item in items)


def format_times(value: pa.Array, items: Sequence[Field | str]) -> pa.Array:
    """Timestamps as text: each distinct time, cut to what the format shows, is written once."""
    per_second = PER_SECOND[value.type.unit]
    spans = {item.span for item in items if isinstance(item, Field)}
    span = next((name for name in ("tick", "second", "minute", "hour", "day") if name in spans), "day")
    step = 1 if span == "tick" else _SECONDS[span] * per_second
    numbers = fixed_width(value, np.int64) // step
    ticks = pa.array(numbers, mask=np.asarray(value.is_null()) if value.null_count else None)
    encoded = ticks.dictionary_encode()
    texts = []
    for count in encoded.dictionary.to_pylist():
        micros = count * step * (10**6 // per_second) if per_second <= 10**6 else count * step // 1000
        try:
            texts.append(write(items, EPOCH + datetime.timedelta(microseconds=micros)))
        except OverflowError:
            raise ValueFault(BAD_VALUE, "a time before year 1 or after 9999 has no text") from None
    return pa.array(texts, pa.string()).take(encoded.indices)


def _define_format(form: str, parse: Parse, description: str, *aliases: str) -> None:
    name = form.partition("(")[0]

    def bind(types: Sequence[pa.DataType], marks: Sequence[bool]) -> Binding | None:
        if len(types) != 2:
            return None
        if name == "strftime" and sql.is_string(types[0]) and not sql.is_string(types[1]):
            inner = bind([types[1], types[0]], [False, False])
            return None if inner is None else ((sql.STRING, inner[0][0]), sql.STRING)
        kind = types[0] if sql.is_timestamp(types[0]) else sql.TIMESTAMP
        fits = sql.is_timestamp(types[0]) or types[0] in (sql.DATE, sql.NULL) or sql.is_string(types[0])
        return ((kind, sql.STRING), sql.STRING) if fits and sql.is_string(types[1]) else None

    @define(form, description=description, aliases=aliases, bind=bind, can_fail=True)
    def build(types: Types, returns: pa.DataType, literals: Literals) -> Body:
        place = 0 if sql.is_timestamp(types[0]) else 1
        text = text_constant(literals, 1 - place)
        if text is not None:
            items = _constant_format(parse, text)
            return lambda values, rows: format_times(localised(broadcast(values[place], rows)), items)
        cached = lru_cache(maxsize=256)(parse)
        return lambda values, rows: by_row(
            lambda time, wanted: write(cached(wanted), time.replace(tzinfo=None)),
            [values[place], values[1 - place]], rows, returns, name,
        )  # fmt: skip


_define_format(
    "strftime(TIMESTAMP, STRING) -> STRING", parse_strftime, "a time as text, by %Y %m %d %H %M %S …"
)
_define_format(
    "date_format(TIMESTAMP, STRING) -> STRING", parse_java, "a time as text, by yyyy MM dd HH mm ss …"
)
_define_format(
    "to_char(TIMESTAMP, STRING) -> STRING", parse_postgres, "a time as text, by YYYY MM DD HH24 MI SS …"
)


@dataclass(frozen=True, slots=True)
class Reader:
    """A format compiled for reading."""

    pattern: re.Pattern[str]
    names: tuple[str, ...]
    text: str

    def read(self, text: str) -> int:
        """µs since the epoch; ValueFault where the text is not of this format."""
        found = self.pattern.fullmatch(text.strip())
        if found is None:
            raise ValueFault(BAD_VALUE, f"{text!r} is not of the form {self.text!r}")
        parts = dict(zip(self.names, found.groups(), strict=True))
        if "epoch" in parts:
            return int(parts["epoch"]) * 10**6
        try:
            return _assemble(parts)
        except ValueError as error:
            raise ValueFault(BAD_VALUE, f"{text!r}: {error}") from None


def _assemble(parts: dict[str, str]) -> int:
    year = int(parts.get("year", 1970))
    if "year2" in parts:
        short = int(parts["year2"])
        year = short + (2000 if short < 69 else 1900)
    month = int(parts.get("month", 1))
    if "mon" in parts:
        month = [name.lower() for name in _MON].index(parts["mon"].lower())
    if "month_name" in parts:
        month = [name.lower() for name in _MONTHS].index(parts["month_name"].lower())
    hour = int(parts.get("hour", 0))
    if "hour12" in parts:
        hour = int(parts["hour12"]) % 12 + (12 if parts.get("half", "AM").upper() == "PM" else 0)
    micro = int(parts.get("fraction", "0")[:6].ljust(6, "0"))
    day = int(parts.get("day", 1))
    time = datetime.datetime(
        year, month, day, hour, int(parts.get("minute", 0)), int(parts.get("second", 0)), micro
    )
    if "doy" in parts:
        time = time.replace(month=1, day=1) + datetime.timedelta(days=int(parts["doy"]) - 1)
    micros = (time - EPOCH) // datetime.timedelta(microseconds=1)
    zone = parts.get("zone", "Z")
    if zone != "Z":
        digits = zone[1:].replace(":", "")
        offset = (int(digits[:2]) * 60 + int(digits[2:] or 0)) * 60 * 10**6
        micros -= -offset if zone[0] == "-" else offset
    return micros


@lru_cache(maxsize=256)
def compile_reader(parse: Parse, text: str) -> Reader:
    """The reader for a format. Raises ValueFault."""
    names: list[str] = []
    pieces: list[str] = []
    for item in parse(text):
        if isinstance(item, str):
            pieces.append(r"\s+" if item.isspace() else re.escape(item))
        else:
            names.append(item.name if item.name != "skip" else f"skip{len(names)}")
            fixed = item.match if item.name != "fraction" else r"\d{1,9}"
            pieces.append(f"({fixed})")
    return Reader(re.compile("".join(pieces), re.IGNORECASE), tuple(names), text)


def _read_default(text: str) -> int:
    return parse_timestamp(text) // 1000


def _define_reading(
    form: str, *forms: str, parse: Parse, description: str, aliases: Sequence[str] = ()
) -> None:
    name = form.partition("(")[0]

    @define(form, *forms, description=description, aliases=aliases, can_fail=True)
    def build(types: Types, returns: pa.DataType, literals: Literals) -> Body:
        if sql.is_number(types[0]):
            scaled = partial(_from_seconds, returns)
            return lambda values, rows: scaled(values[0])
        if not sql.is_string(types[0]) or len(types) == 1:
            return build_cast(types[0], returns)
        if text_constant(literals, 1) is not None:
            _constant_format(parse, str(text_constant(literals, 1)))

        def body(values: Sequence[Value], rows: int) -> Value:
            micros = by_row(
                lambda text, wanted: compile_reader(parse, wanted).read(text), values, rows, pa.int64(), name
            )
            times = pc.cast(micros, pa.timestamp("us"))
            return build_cast(pa.timestamp("us"), returns)([times], rows)

        return body


def _from_seconds(returns: pa.DataType, value: Value) -> Value:
    if sql.is_integer(value.type):
        return pc.cast(pc.multiply_checked(pc.cast(value, pa.int64()), 10**6), returns)
    micros = pc.round(pc.multiply(pc.cast(value, pa.float64()), 1e6))
    return pc.cast(pc.cast(micros, pa.int64()), returns)


def parse_guess(text: str) -> list[Field | str]:
    """A format whose dialect its letters tell: % strftime, yyyy or HH:mm Java, else PostgreSQL."""
    if "%" in text:
        return parse_strftime(text)
    return parse_java(text) if re.search("yy|mm|dd|uu", text) else parse_postgres(text)


_define_reading(
    "strptime(STRING, STRING) -> TIMESTAMP_US",
    parse=parse_strftime,
    description="text read by a strftime format",
)
_define_reading("to_timestamp(STRING[, STRING]) -> TIMESTAMP_US", "to_timestamp(BIGINT) -> TIMESTAMP_LTZ", "to_timestamp(DOUBLE) -> TIMESTAMP_LTZ",
                parse=parse_guess, description="text (by a format) as a timestamp; seconds since 1970 as an instant")  # fmt: skip
_define_reading(
    "to_date(STRING[, STRING]) -> DATE",
    "to_date(TIMESTAMP) -> DATE",
    parse=parse_guess,
    description="text (by a format) as a date",
)


@define("to_timestamp_ltz(BIGINT, BIGINT) -> TIMESTAMP_LTZ", "to_timestamp_ltz(BIGINT) -> TIMESTAMP_LTZ",
        description="seconds (precision 0) or milliseconds (3) since 1970 as an instant", can_fail=True)  # fmt: skip
def _to_timestamp_ltz(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    def body(values: Sequence[Value], rows: int) -> Value:
        precision = values[1].as_py() if len(values) > 1 and isinstance(values[1], pa.Scalar) else 3
        if precision not in (0, 3, 6):
            raise ValueFault(BAD_VALUE, f"precision {precision} is none of 0, 3, 6")
        return pc.cast(pc.multiply_checked(values[0], 10 ** (6 - precision)), returns)

    return body


@define("epoch_ms(TIMESTAMP) -> BIGINT", "epoch_ms(BIGINT) -> TIMESTAMP_US", description="milliseconds since 1970 of a time, and back",
        aliases=("to_epoch_ms", "unix_millis"), can_fail=True)  # fmt: skip
def _epoch_ms(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    if sql.is_integer(types[0]):
        return lambda values, rows: pc.cast(pc.multiply_checked(values[0], 1000), returns)

    return lambda values, rows: extract("epoch_ms", values[0], rows)


@define("from_unixtime(BIGINT[, STRING]) -> STRING", description="seconds since 1970 as text", can_fail=True)
def _from_unixtime(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    text = text_constant(literals, 1) if len(types) > 1 else "yyyy-MM-dd HH:mm:ss"
    if text is None:
        raise Invalid(
            "from_unixtime needs a constant format", code="MR1216", hint="write it as text: 'yyyy-MM-dd'"
        )
    items = _constant_format(parse_java, text)
    return lambda values, rows: format_times(pc.cast(broadcast(values[0], rows), pa.timestamp("s")), items)


@define(
    "unix_timestamp(TIMESTAMP) -> BIGINT",
    "unix_timestamp(STRING[, STRING]) -> BIGINT",
    description="seconds since 1970",
    can_fail=True,
)
def _unix_timestamp(types: Types, returns: pa.DataType, literals: Literals) -> Body:

    if len(types) == 2:
        return lambda values, rows: by_row(
            lambda text, wanted: compile_reader(parse_java, wanted).read(text) // 10**6,
            values,
            rows,
            returns,
            "unix_timestamp",
        )
    read = build_cast(types[0], sql.TIMESTAMP) if sql.is_string(types[0]) else None
    return lambda values, rows: extract("epoch", values[0] if read is None else read(values, rows), rows)


def _define_name(name: str, letters: str, description: str) -> None:
    @scalar(f"{name}(TIMESTAMP) -> STRING", description=description)
    def body(values: Sequence[Value], rows: int) -> Value:
        return format_times(localised(broadcast(values[0], rows)), parse_strftime(letters))


_define_name("dayname", "%A", "the name of the day")
_define_name("monthname", "%B", "the name of the month")
