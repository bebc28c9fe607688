"""How the vectorised readers read a column: the type they are asked for and the conversion of the whole column after."""

from __future__ import annotations

import base64
import binascii
import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.formats.lines import Mismatch
from millrace.operators.formats.records import TextLayout, is_json

_TO_UNIT = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a column: as `read`, then `convert`ed; it is for JSON values of the Python types `takes`.

    For texts, `pattern` says which of them it is for.
    """

    read: pa.DataType
    convert: Callable[[pa.Array], pa.Array]
    takes: frozenset[type]
    pattern: re.Pattern[str] | None = None

    def suits(self, sample: object) -> bool:
        """Whether this way is for columns that hold values like `sample`."""
        if type(sample) not in self.takes:
            return False
        return self.pattern is None or (
            isinstance(sample, str) and bool(self.pattern.fullmatch(sample.strip()))
        )


_TEXT = frozenset({str})
_NUMBERS = frozenset({int, Decimal})
_WHOLE = frozenset({int})


def _same(column: pa.Array) -> pa.Array:
    return column


def readings(field: pa.Field, layout: TextLayout) -> list[Reading]:
    """The ways to read a top-level JSON column, best first; none where only the slow path can."""
    type_ = field.type
    if is_json(field):
        return []
    if pa.types.is_boolean(type_):
        return [Reading(type_, _same, frozenset({bool}))]
    if pa.types.is_integer(type_) or pa.types.is_floating(type_):
        native = _WHOLE if pa.types.is_integer(type_) else _NUMBERS
        return [Reading(type_, _same, native), Reading(pa.string(), _cast(type_), _TEXT)]
    if pa.types.is_decimal(type_):
        return [Reading(type_, _same, _NUMBERS | _TEXT)]
    if pa.types.is_string(type_):
        return [Reading(type_, _same, _TEXT)]
    if pa.types.is_timestamp(type_):
        return _timestamps(type_, layout)
    if pa.types.is_date32(type_) or pa.types.is_time64(type_):
        return [Reading(pa.string(), _cast(type_), _TEXT)]
    if pa.types.is_binary(type_):
        return [Reading(pa.string(), _unbase64, _TEXT)]
    if pa.types.is_duration(type_):
        return [Reading(pa.int64(), _cast(type_), _WHOLE)]
    if pa.types.is_struct(type_) or pa.types.is_list(type_):
        kind: type = dict if pa.types.is_struct(type_) else list
        return [Reading(type_, _same, frozenset({kind}))] if _native(field) else []
    return []


def _native(field: pa.Field) -> bool:
    """Whether the JSON reader takes the type of a nested field as it stands, NOT NULL included."""
    type_ = field.type
    if is_json(field):
        return False
    if pa.types.is_struct(type_):
        members = [type_.field(i) for i in range(type_.num_fields)]
        return all(m.nullable and _native(m) for m in members)
    if pa.types.is_list(type_):
        return bool(type_.value_field.nullable) and _native(type_.value_field)
    return bool(
        pa.types.is_boolean(type_)
        or pa.types.is_integer(type_)
        or pa.types.is_floating(type_)
        or pa.types.is_decimal(type_)
        or pa.types.is_string(type_)
        or pa.types.is_timestamp(type_)
    )


_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def _timestamps(type_: pa.DataType, layout: TextLayout) -> list[Reading]:
    digits = _DIGITS[type_.unit]
    ways = []
    if layout.pattern is not None:
        ways.append(Reading(pa.string(), by_pattern(type_, layout.pattern), _TEXT))
    if type_.unit != "ns":
        finer = re.compile(rf"[^.]*\.\d{{{digits + 1},}}.*")
        exact = Reading(type_, _same, _TEXT, re.compile(rf"[^.]*(\.\d{{1,{max(digits, 1)}}}(?!\d).*)?"))
        ways += [exact, Reading(pa.timestamp("ns", type_.tz), coarser(type_), _TEXT, finer)]
    else:
        ways.append(Reading(type_, _same, _TEXT))
    ways.append(Reading(pa.int64(), epoch_numbers(type_, layout.number_unit), _WHOLE))
    return ways


def text_readings(field: pa.Field, layout: TextLayout) -> list[Reading]:
    """The ways to read a CSV column, best first; none where only the slow path can."""
    type_ = field.type
    if pa.types.is_decimal64(type_) or pa.types.is_decimal32(type_):
        return [Reading(pa.decimal128(type_.precision, type_.scale), _cast(type_), _TEXT)]
    if pa.types.is_date32(type_) or pa.types.is_time64(type_) or is_json(field):
        return [Reading(type_, _same, _TEXT)]
    if pa.types.is_timestamp(type_):
        return _text_timestamps(type_, layout)
    if pa.types.is_nested(type_):
        return []
    return readings(field, layout)[:1]


def _text_timestamps(type_: pa.DataType, layout: TextLayout) -> list[Reading]:
    number = Reading(pa.int64(), epoch_numbers(type_, layout.number_unit), _TEXT, re.compile(r"-?\d{5,}"))
    if layout.pattern is not None:
        return [Reading(pa.string(), by_pattern(type_, layout.pattern), _TEXT), number]
    zone = r"(Z|[+-]\d\d(:?\d\d)?)"
    digits = _DIGITS[type_.unit]
    fraction = rf"(\.\d{{1,{max(digits, 1)}}})?" if digits else ""
    ways = [number]
    for read_zone, suffix in ((None, ""), ("UTC", zone)):
        read = pa.timestamp(type_.unit, read_zone)
        convert = _same if read == type_ else _cast(type_)
        day = r"\d{4}-\d\d-\d\d"
        clock = rf"[T ]\d\d(:\d\d(:\d\d{fraction})?)?"
        exact = re.compile(rf"{day}({clock})?" if not suffix else rf"{day}{clock}{suffix}")
        ways.insert(0, Reading(read, convert, _TEXT, exact))
        if type_.unit != "ns":
            finer = re.compile(rf"{day}[T ]\d\d:\d\d:\d\d\.\d{{1,9}}{suffix}")
            ways.append(Reading(pa.timestamp("ns", read_zone), coarser(type_), _TEXT, finer))
    if type_.tz is None:
        ways[0], ways[1] = ways[1], ways[0]
    return ways


def _cast(type_: pa.DataType) -> Callable[[pa.Array], pa.Array]:
    def cast(column: pa.Array) -> pa.Array:
        return pc.cast(column, type_)

    return cast


def coarser(type_: pa.DataType) -> Callable[[pa.Array], pa.Array]:
    """Timestamps in ns to a coarser unit, rounding down (also before 1970)."""
    scale = 1_000_000_000 // _TO_UNIT[type_.unit]

    def convert(column: pa.Array) -> pa.Array:
        numbers = column.cast(pa.int64())
        low = pc.subtract(numbers, pc.if_else(pc.less(numbers, 0), scale - 1, 0))
        return pc.divide(low, scale).cast(type_)

    return convert


def epoch_numbers(type_: pa.DataType, unit: str) -> Callable[[pa.Array], pa.Array]:
    """Epoch numbers in `unit` to timestamps; raises ArrowInvalid where one is out of range."""
    source, target = _TO_UNIT[unit], _TO_UNIT[type_.unit]

    def convert(column: pa.Array) -> pa.Array:
        if target >= source:
            return pc.multiply_checked(column, target // source).cast(type_)
        scale = source // target
        low = pc.subtract_checked(column, pc.if_else(pc.less(column, 0), scale - 1, 0))
        return pc.divide(low, scale).cast(type_)

    return convert


def by_pattern(type_: pa.DataType, pattern: str) -> Callable[[pa.Array], pa.Array]:
    """Text to timestamps by a strptime pattern."""
    plain = "%f" not in pattern and "%z" not in pattern.lower()

    def convert(column: pa.Array) -> pa.Array:
        if plain:
            return pc.strptime(column, format=pattern, unit=type_.unit).cast(type_)
        moments = [None if v is None else _moment(v, pattern) for v in column.to_pylist()]
        return pa.array(moments, pa.timestamp("us", "UTC")).cast(type_, safe=False)

    return convert


def _moment(text: str, pattern: str) -> datetime.datetime:
    try:
        moment = datetime.datetime.strptime(text, pattern)
    except ValueError as error:
        raise Mismatch from error
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def _unbase64(column: pa.Array) -> pa.Array:
    try:
        values = [None if v is None else base64.b64decode(v, validate=True) for v in column.to_pylist()]
    except (binascii.Error, ValueError) as error:
        raise Mismatch from error
    return pa.array(values, pa.binary())


def unbase64(column: pa.Array) -> pa.Array:
    """Base64 text to bytes. Raises Mismatch where a value is not."""
    return _unbase64(column)
