"""SQL type names to Arrow types."""

from __future__ import annotations

import difflib
from functools import lru_cache

import pyarrow as pa

from millrace.planner.dialect.cursor import Cursor
from millrace.planner.dialect.preparation import prepare
from millrace.planner.dialect.tokens import Kind, tokenize
from millrace.planner.statements import SqlType

JSON_METADATA = ((b"sql_type", b"JSON"),)

_PLAIN = {
    "BOOLEAN": pa.bool_(),
    "BOOL": pa.bool_(),
    "TINYINT": pa.int8(),
    "INT1": pa.int8(),
    "SMALLINT": pa.int16(),
    "INT2": pa.int16(),
    "INT": pa.int32(),
    "INTEGER": pa.int32(),
    "INT4": pa.int32(),
    "BIGINT": pa.int64(),
    "INT8": pa.int64(),
    "LONG": pa.int64(),
    "UTINYINT": pa.uint8(),
    "USMALLINT": pa.uint16(),
    "UINTEGER": pa.uint32(),
    "UINT": pa.uint32(),
    "UBIGINT": pa.uint64(),
    "FLOAT": pa.float32(),
    "REAL": pa.float32(),
    "FLOAT4": pa.float32(),
    "DOUBLE": pa.float64(),
    "FLOAT8": pa.float64(),
    "STRING": pa.string(),
    "TEXT": pa.string(),
    "UUID": pa.string(),
    "BYTES": pa.binary(),
    "BYTEA": pa.binary(),
    "BLOB": pa.binary(),
    "DATE": pa.date32(),
}
_UNSIGNED = {pa.int8(): pa.uint8(), pa.int16(): pa.uint16(), pa.int32(): pa.uint32(), pa.int64(): pa.uint64()}
_DECIMALS = ("DECIMAL", "NUMERIC", "DEC")
_TEXTS = ("VARCHAR", "CHAR", "CHARACTER", "NVARCHAR")
_BINARIES = ("VARBINARY", "BINARY")
_TIMESTAMPS = ("TIMESTAMP", "DATETIME", "TIMESTAMPTZ", "TIMESTAMP_LTZ", "TIMESTAMP_NTZ")
_SIZED = (*_DECIMALS, *_TEXTS, *_BINARIES, *_TIMESTAMPS, "TIME")
_NESTED = ("ARRAY", "LIST", "MAP", "ROW", "STRUCT")
_NAMES = (*_PLAIN, *_SIZED, *_NESTED, "INTERVAL", "JSON", "JSONB")
_MONTH_UNITS = ("YEAR", "MONTH")
_TIME_UNITS = ("DAY", "HOUR", "MINUTE", "SECOND")

INTEGER_TEXTS = frozenset(name for name, type_ in _PLAIN.items() if pa.types.is_integer(type_))


def at_type(cursor: Cursor) -> bool:
    """True where a type's name stands."""
    return cursor.here.kind is Kind.WORD and cursor.here.word in _NAMES


@lru_cache(maxsize=1024)
def parse_type(text: str) -> SqlType:
    """The type that `text` names. Raises Invalid MR1020 (unknown), MR1021 (parameters), MR1010 (syntax)."""
    prepared, _ = prepare(text, {})
    cursor = Cursor(prepared, tokenize(prepared), None)
    found = read_type(cursor)
    if not cursor.at_end():
        cursor.leftover()
    return found


def read_type(cursor: Cursor) -> SqlType:
    """The type at this place; `[]` suffixes make arrays of it. Does not take NOT NULL."""
    cursor.enter()
    found = _element(cursor)
    while cursor.at("[", "]") or (cursor.at("ARRAY") and cursor.ahead().word != "["):
        cursor.advance(2 if cursor.at("[") else 1)
        found = SqlType(f"{found.text}[]", pa.list_(found.field("item")))
    cursor.leave()
    return found


def _element(cursor: Cursor) -> SqlType:
    if cursor.here.kind is not Kind.WORD:
        cursor.unexpected("a type")
    token = cursor.advance()
    name = token.word
    if name in _NESTED:
        return _nested(cursor, name)
    if name in _PLAIN:
        if name == "DOUBLE":
            cursor.take("PRECISION")
        found = SqlType(name, _PLAIN[name])
        if cursor.take("UNSIGNED"):
            if found.arrow not in _UNSIGNED:
                cursor.fail(f"{name} can not be UNSIGNED", "MR1021", at=token)
            return SqlType(f"{name} UNSIGNED", _UNSIGNED[found.arrow])
        return found
    if name in _DECIMALS:
        return _decimal(cursor)
    if name in _TEXTS or name in _BINARIES:
        if name == "CHARACTER":
            cursor.take("VARYING")
        sizes = _sizes(cursor, 1)
        kind, arrow = ("VARCHAR", pa.string()) if name in _TEXTS else ("BYTES", pa.binary())
        return SqlType(kind if not sizes or name in _BINARIES else f"{kind}({sizes[0]})", arrow)
    if name in ("JSON", "JSONB"):
        return SqlType("JSON", pa.string(), JSON_METADATA)
    if name == "TIME":
        return _time(cursor)
    if name in _TIMESTAMPS:
        return _timestamp(cursor, name)
    if name == "INTERVAL":
        return _interval(cursor)
    cursor.rewind(cursor.index - 1)
    return _unknown(cursor)


def _unknown(cursor: Cursor) -> SqlType:
    close = difflib.get_close_matches(cursor.here.word, _NAMES, 1, 0.6)
    hint = (
        f"did you mean {close[0]}?"
        if close
        else "types are BOOLEAN, INT, BIGINT, DOUBLE, DECIMAL(p, s), VARCHAR, …"
    )
    cursor.fail(f"there is no type {cursor.here.text}", "MR1020", hint=hint)


def _sizes(cursor: Cursor, most: int) -> list[int]:
    if not cursor.take("("):
        return []
    token = cursor.here
    if cursor.take("MAX"):
        sizes = [2**31 - 1]
    else:
        sizes = cursor.commas(lambda: cursor.whole_number("a size"))
    cursor.expect(")")
    if len(sizes) > most:
        cursor.fail(f"a type with {len(sizes)} parameters: at most {most} here", "MR1021", at=token)
    return sizes


def _decimal(cursor: Cursor) -> SqlType:
    token = cursor.previous()
    sizes = _sizes(cursor, 2)
    precision = sizes[0] if sizes else 38
    scale = sizes[1] if len(sizes) > 1 else (0 if sizes else 9)
    if not 1 <= precision <= 38 or scale > precision:
        cursor.fail(
            f"DECIMAL({precision}, {scale}) can not be: 1 to 38 digits, and no more of them behind the point",
            "MR1021",
            at=token,
        )
    arrow = pa.decimal64(precision, scale) if precision <= 18 else pa.decimal128(precision, scale)
    return SqlType(f"DECIMAL({precision}, {scale})", arrow)


def _zone(cursor: Cursor) -> bool | None:
    """True for WITH [LOCAL] TIME ZONE, False for WITHOUT, None where neither is said."""
    if cursor.take("WITH", "TIME", "ZONE") or cursor.take("WITH", "LOCAL", "TIME", "ZONE"):
        return True
    return False if cursor.take("WITHOUT", "TIME", "ZONE") else None


def _time(cursor: Cursor) -> SqlType:
    token = cursor.previous()
    sizes = _sizes(cursor, 1)
    if _zone(cursor):
        cursor.fail(
            "TIME WITH TIME ZONE is not supported", "MR1980", hint="use TIME or TIMESTAMP_LTZ", at=token
        )
    if sizes and sizes[0] > 6:
        cursor.fail(f"TIME({sizes[0]}): at most 6 digits of a second", "MR1021", at=token)
    return SqlType(f"TIME({sizes[0]})" if sizes else "TIME", pa.time64("us"))


def _timestamp(cursor: Cursor, name: str) -> SqlType:
    token = cursor.previous()
    sizes = _sizes(cursor, 1)
    said = _zone(cursor)
    zoned = name in ("TIMESTAMPTZ", "TIMESTAMP_LTZ") or bool(said)
    if said is False and zoned:
        cursor.fail(f"{name} WITHOUT TIME ZONE contradicts itself", "MR1021", at=token)
    digits = sizes[0] if sizes else 6
    if digits > 9:
        cursor.fail(f"{name}({digits}): at most 9 digits of a second", "MR1021", at=token)
    unit = "ms" if digits <= 3 else "us" if digits <= 6 else "ns"
    suffix = " WITH TIME ZONE" if zoned else ""
    text = f"TIMESTAMP({digits}){suffix}" if sizes else f"TIMESTAMP{suffix}"
    return SqlType(text, pa.timestamp(unit, "UTC" if zoned else None))


def _interval(cursor: Cursor) -> SqlType:
    token = cursor.previous()
    start = _unit(cursor)
    if start is None:
        return SqlType("INTERVAL", pa.duration("us"))
    stop = start
    if cursor.take("TO"):
        stop = _unit(cursor) or cursor.unexpected(*_MONTH_UNITS, *_TIME_UNITS)
    if (start in _MONTH_UNITS) != (stop in _MONTH_UNITS):
        cursor.fail(f"INTERVAL {start} TO {stop} can not be: months have no fixed length", "MR1021", at=token)
    arrow = pa.month_day_nano_interval() if start in _MONTH_UNITS else pa.duration("us")
    return SqlType(f"INTERVAL {start}" if start == stop else f"INTERVAL {start} TO {stop}", arrow)


def _unit(cursor: Cursor) -> str | None:
    unit = cursor.take_any((*_MONTH_UNITS, *_TIME_UNITS))
    if unit is not None:
        _sizes(cursor, 1)
    return unit


def _nested(cursor: Cursor, name: str) -> SqlType:
    closer = {"<": ">", "(": ")"}.get(cursor.here.word)
    if closer is None:
        cursor.unexpected(f"< and the type inside {name}")
    cursor.advance()
    if name in ("ARRAY", "LIST"):
        item, nullable = _item(cursor)
        _close(cursor, closer)
        return SqlType(f"ARRAY<{_written(item, nullable)}>", pa.list_(item.field("item", nullable)))
    if name == "MAP":
        key, _ = _item(cursor)
        cursor.expect(",")
        value, nullable = _item(cursor)
        _close(cursor, closer)
        arrow = pa.map_(key.field("key", False), value.field("value", nullable))
        return SqlType(f"MAP<{key.text}, {_written(value, nullable)}>", arrow)
    fields: list[pa.Field] = []
    texts: list[str] = []

    def field() -> None:
        label = cursor.label("a field's name").name
        cursor.take(":")
        item, nullable = _item(cursor)
        fields.append(item.field(label, nullable))
        escaped = label.replace('"', '""')
        texts.append(f'"{escaped}" {_written(item, nullable)}')

    cursor.commas(field)
    _close(cursor, closer)
    return SqlType(f"ROW<{', '.join(texts)}>", pa.struct(fields))


def _item(cursor: Cursor) -> tuple[SqlType, bool]:
    found = read_type(cursor)
    not_null = cursor.take("NOT", "NULL")
    if not not_null:
        cursor.take("NULL")
    return found, not not_null


def _written(item: SqlType, nullable: bool) -> str:
    return item.text if nullable else f"{item.text} NOT NULL"


def _close(cursor: Cursor, closer: str) -> None:
    cursor.expect(closer)
