"""One value at a time: the exact meaning of text and JSON values in each column type, with a reason where there is none.

The vectorised readers are the fast road; what they refuse is decided here, so this must take all that they take.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import decimal
import json
import math
import re
from collections.abc import Callable

import pyarrow as pa

from millrace.errors import Unsupported
from millrace.operators.formats.records import (
    BAD_NUMBER,
    BAD_TIME,
    ENCODING,
    NULL_VALUE,
    OUT_OF_RANGE,
    WRONG_TYPE,
    RecordError,
    TextLayout,
    is_json,
    shown,
)

Converter = Callable[[object], object]
"""A parsed value (None, bool, int, Decimal, float, str, list, dict) → what `pa.array` takes. Raises RecordError."""

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_INTEGER = re.compile(r"[+-]?\d{1,40}(?:\.0*)?")
_HEX = re.compile(r"-?0[xX][0-9a-fA-F]{1,16}")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?")
_TIMESTAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d)(?::?(\d\d)(?::?(\d\d)(?:[.,](\d+))?)?)?)?\s?(Z|z|[+-]\d\d(?::?\d\d)?)?"
)
_TIME = re.compile(r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?")
_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()
_TRUE = frozenset({"true", "t", "1"})
_FALSE = frozenset({"false", "f", "0"})
_EXACT = decimal.Context(prec=80)


def type_name(type_: pa.DataType) -> str:
    """The type as an error message names it."""
    if pa.types.is_string(type_):
        return "VARCHAR"
    if pa.types.is_decimal(type_):
        return f"DECIMAL({type_.precision},{type_.scale})"
    fixed = {"int64": "BIGINT", "int32": "INT", "int16": "SMALLINT", "int8": "TINYINT", "double": "DOUBLE"}
    name = fixed.get(str(type_))
    if name is None:
        name = "TIMESTAMP" if pa.types.is_timestamp(type_) else str(type_).upper()
    return name


def converter(column: pa.Field, layout: TextLayout) -> Converter:
    """The conversion of one column, with the NOT NULL check and the column's name in every reason."""
    convert = _converter(column, layout)
    name, nullable = column.name, column.nullable

    def checked(value: object) -> object:
        if value is None:
            if nullable:
                return None
            raise RecordError(NULL_VALUE, f"column '{name}' is NOT NULL and has no value")
        try:
            result = convert(value)
        except RecordError as error:
            raise RecordError(error.code, f"column '{name}': {error.reason}") from None
        if result is None and not nullable:
            raise RecordError(NULL_VALUE, f"column '{name}' is NOT NULL and has no value")
        return result

    return checked


def _converter(column: pa.Field, layout: TextLayout) -> Converter:
    type_ = column.type
    if is_json(column):
        return _json_text
    if pa.types.is_boolean(type_):
        return _boolean
    if pa.types.is_integer(type_):
        return _integer(type_)
    if pa.types.is_floating(type_):
        return _floating(type_)
    if pa.types.is_decimal(type_):
        return _decimal(type_)
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return _text
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_):
        return _bytes
    if pa.types.is_timestamp(type_):
        return _timestamp(type_, layout)
    if pa.types.is_date32(type_):
        return _date
    if pa.types.is_time64(type_):
        return _time(type_)
    if pa.types.is_duration(type_):
        return _integer(pa.int64())
    return _nested(column, layout)


def _nested(column: pa.Field, layout: TextLayout) -> Converter:
    type_ = column.type
    if pa.types.is_struct(type_):
        members = [(type_.field(i).name, converter(type_.field(i), layout)) for i in range(type_.num_fields)]

        def struct(value: object) -> object:
            value = _parsed(value)
            if not isinstance(value, dict):
                raise _wrong(value, type_)
            return {name: convert(value.get(name)) for name, convert in members}

        return struct
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        item = converter(type_.value_field, layout)

        def items(value: object) -> object:
            value = _parsed(value)
            if not isinstance(value, list):
                raise _wrong(value, type_)
            return [item(v) for v in value]

        return items
    if pa.types.is_map(type_):
        key, entry = converter(type_.key_field, layout), converter(type_.item_field, layout)

        def mapping(value: object) -> object:
            value = _parsed(value)
            if not isinstance(value, dict):
                raise _wrong(value, type_)
            return [(key(k), entry(v)) for k, v in value.items()]

        return mapping
    raise Unsupported(
        f"column '{column.name}' of type {type_} can not be read from text",
        code="MR1911",
        hint="read it as VARCHAR and convert it in the query",
    )


def _parsed(value: object) -> object:
    """A nested value that stands as JSON text (in CSV) as what it says."""
    if isinstance(value, str):
        try:
            return json.loads(value, parse_float=decimal.Decimal)
        except (ValueError, RecursionError):
            return value
    return value


def _wrong(value: object, type_: pa.DataType) -> RecordError:
    return RecordError(WRONG_TYPE, f"{shown(value)} is no {type_name(type_)}")


def _text(value: object) -> object:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RecordError(ENCODING, f"{ascii(value)[:60]} holds half a surrogate pair") from None
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | decimal.Decimal | float):
        return str(value)
    raise _wrong(value, pa.string())


def _json_text(value: object) -> object:
    if isinstance(value, JsonText):
        return value.text
    return _text(value)


class JsonText:
    """A JSON value kept as the text it was written in."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def _bytes(value: object) -> object:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise _wrong(value, pa.binary())
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise RecordError(WRONG_TYPE, f"{shown(value)} is no base64 text") from None


def _boolean(value: object) -> object:
    if isinstance(value, bool):
        return value
    lowered = str(value).strip().lower() if isinstance(value, str | int) else ""
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise _wrong(value, pa.bool_())


def _integer(type_: pa.DataType) -> Converter:
    signed = pa.types.is_signed_integer(type_)
    bits = type_.bit_width
    least, most = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)

    def convert(value: object) -> object:
        number: int
        if isinstance(value, bool):
            raise _wrong(value, type_)
        if isinstance(value, int):
            number = value
        elif isinstance(value, decimal.Decimal) and value.is_finite() and abs(value.adjusted()) < 40:
            if value != value.to_integral_value(context=_EXACT):
                raise _wrong(value, type_)
            number = int(value)
        elif isinstance(value, str):
            text = value.strip()
            if _INTEGER.fullmatch(text):
                number = int(text.partition(".")[0])
            elif _HEX.fullmatch(text):
                number = int(text, 16)
                number -= (1 << bits) if signed and most < number < (1 << bits) else 0
            else:
                raise _wrong(value, type_)
        else:
            raise _wrong(value, type_)
        if not least <= number <= most:
            raise RecordError(OUT_OF_RANGE, f"{shown(number)} is out of the range of {type_name(type_)}")
        return number

    return convert


def _floating(type_: pa.DataType) -> Converter:
    def convert(value: object) -> object:
        if isinstance(value, bool):
            raise _wrong(value, type_)
        if isinstance(value, str):
            text = value.strip()
            lowered = text.lower().lstrip("+-")
            if lowered not in ("nan", "inf", "infinity") and not _NUMBER.fullmatch(text):
                raise _wrong(value, type_)
            special = not lowered[:1].isdigit() and lowered[:1] != "."
            number = float(text)
        elif isinstance(value, int | decimal.Decimal | float):
            special = isinstance(value, float)
            try:
                number = float(value)
            except OverflowError:
                number, special = math.inf, False
        else:
            raise _wrong(value, type_)
        if math.isinf(number) and not special:
            raise RecordError(OUT_OF_RANGE, f"{shown(value)} is out of the range of {type_name(type_)}")
        return number

    return convert


def _decimal(type_: pa.DataType) -> Converter:
    step = decimal.Decimal(1).scaleb(-type_.scale)
    digits = type_.precision

    def convert(value: object) -> object:
        if isinstance(value, bool):
            raise _wrong(value, type_)
        if isinstance(value, str):
            text = value.strip()
            if not _NUMBER.fullmatch(text):
                raise RecordError(BAD_NUMBER, f"{shown(value)} is no {type_name(type_)}")
            number = decimal.Decimal(text)
        elif isinstance(value, int | decimal.Decimal):
            number = decimal.Decimal(value)
        else:
            raise _wrong(value, type_)
        if not number.is_finite() or (number.adjusted() >= digits - type_.scale and number):
            raise RecordError(OUT_OF_RANGE, f"{shown(value)} does not fit {type_name(type_)}")
        rounded = number.quantize(step, rounding=decimal.ROUND_HALF_UP, context=_EXACT)
        if rounded and rounded.adjusted() >= digits - type_.scale:
            raise RecordError(OUT_OF_RANGE, f"{shown(value)} does not fit {type_name(type_)}")
        return rounded

    return convert


def _timestamp(type_: pa.DataType, layout: TextLayout) -> Converter:
    per_second = _PER_SECOND[type_.unit]
    number_scale = _PER_SECOND[layout.number_unit]
    pattern = layout.pattern

    def bounded(ticks: int, value: object) -> int:
        if not -(2**63) <= ticks < 2**63:
            raise RecordError(OUT_OF_RANGE, f"{shown(value)} is out of the range of {type_}")
        return ticks

    def convert(value: object) -> object:
        if isinstance(value, str):
            nanos = parse_timestamp(value, pattern)
            if nanos is not None:
                return bounded(nanos * per_second // 1_000_000_000, value)
            if not _NUMBER.fullmatch(value.strip()):
                raise RecordError(BAD_TIME, f"{shown(value)} is no timestamp")
            value = decimal.Decimal(value.strip())
        if isinstance(value, bool) or not isinstance(value, int | decimal.Decimal):
            raise RecordError(BAD_TIME, f"{shown(value)} is no timestamp")
        if isinstance(value, decimal.Decimal) and (not value.is_finite() or abs(value.adjusted()) > 40):
            raise RecordError(OUT_OF_RANGE, f"{shown(value)} is out of the range of {type_}")
        return bounded(math.floor(_EXACT.multiply(decimal.Decimal(value), per_second) / number_scale), value)

    return convert


def parse_timestamp(text: str, pattern: str | None = None) -> int | None:
    """Nanoseconds since the epoch of ISO text (UTC where no zone stands), or by `pattern`; None where it is neither."""
    text = text.strip()
    if pattern is not None:
        try:
            moment = datetime.datetime.strptime(text, pattern)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=datetime.UTC)
            since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
            return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
        except (ValueError, OverflowError):
            pass
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    hours, minutes, seconds = int(hour or 0), int(minute or 0), int(second or 0)
    if hours > 23 or minutes > 59 or seconds > 59 or (zone and hour is None):
        return None
    try:
        days = datetime.date(int(year), int(month), int(day)).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
    total = days * 86_400 + hours * 3_600 + minutes * 60 + seconds
    if zone and zone not in "Zz":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        if int(digits[:2]) > 23 or int(digits[2:]) > 59:
            return None
        offset = int(digits[:2]) * 3_600 + int(digits[2:]) * 60
        total -= offset if zone[0] == "+" else -offset
    return total * 1_000_000_000 + int((fraction or "0")[:9].ljust(9, "0"))


def _date(value: object) -> object:
    if isinstance(value, str):
        nanos = parse_timestamp(value)
        if nanos is not None:
            return nanos // 86_400_000_000_000
    elif isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31:
        return value
    raise RecordError(BAD_TIME, f"{shown(value)} is no date")


def _time(type_: pa.DataType) -> Converter:
    per_second = _PER_SECOND[type_.unit]

    def convert(value: object) -> object:
        match = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise RecordError(BAD_TIME, f"{shown(value)} is no time of day")
        hours, minutes, seconds = int(match[1]), int(match[2]), int(match[3] or 0)
        if hours > 23 or minutes > 59 or seconds > 59:
            raise RecordError(BAD_TIME, f"{shown(value)} is no time of day")
        nanos = int((match[4] or "0")[:9].ljust(9, "0"))
        return (hours * 3_600 + minutes * 60 + seconds) * per_second + nanos * per_second // 1_000_000_000

    return convert
