"""Rows as bytes: JSON lines, CSV and Debezium JSON, a column at a time."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.batch import Int64Array
from millrace.operators.formats.records import is_json

_NEEDS_ESCAPE = r'[\x00-\x1f"\\]'
_NEEDS_MORE = r"[\x00-\x08\x0b\x0c\x0e-\x1f]"


def json_lines(batch: pa.RecordBatch) -> bytes:
    """One JSON object a row, each ended by a newline; NULL is null, NaN and infinities are null too.

    Timestamps are ISO text (with Z where the type has a zone), decimals numbers with all their digits, BYTES base64.
    """
    return _lines(_objects(batch))


def debezium_json(batch: pa.RecordBatch, weights: Int64Array | None) -> bytes:
    """One envelope a row: op c with `after` for +1, op d with `before` for −1."""
    rows = _objects(batch)
    if weights is None:
        return _lines(_join('{"before":null,"after":', rows, ',"op":"c"}'))
    inserted = pa.array(weights > 0)
    added = _join('{"before":null,"after":', rows, ',"op":"c"}')
    removed = _join('{"before":', rows, ',"after":null,"op":"d"}')
    return _lines(pc.if_else(inserted, added, removed))


def csv_header(schema: pa.Schema, delimiter: str) -> bytes:
    """The line that names the columns."""
    names = _quoted(pa.array(schema.names, pa.string()), delimiter)
    return (delimiter.join(names.to_pylist()) + "\n").encode()


def csv_lines(batch: pa.RecordBatch, delimiter: str) -> bytes:
    """One record a row: quoted only where needed, NULL as nothing, an empty text as two quotes."""
    if batch.num_rows == 0:
        return b""
    pieces: list[pa.Array | str] = []
    for column, field in zip(batch.columns, batch.schema, strict=True):
        text = _csv_text(column, field)
        if not _is_bare(field):
            text = _quoted(text, delimiter)
        pieces += [text.fill_null(""), delimiter]
    pieces.pop()
    return _lines(_join(*pieces))


def _csv_text(column: pa.Array, field: pa.Field) -> pa.Array:
    if pa.types.is_nested(field.type):
        mask = column.is_null()
        return pc.if_else(mask, pa.scalar(None, pa.string()), _value_texts(column, field))
    if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
        return _base64(column)
    return _plain_text(column)


def _is_bare(field: pa.Field) -> bool:
    """Whether the text of the type never needs quotes."""
    type_ = field.type
    return not (pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_nested(type_))


def _quoted(column: pa.Array, delimiter: str) -> pa.Array:
    special = "".join(f"\\x{ord(c):02x}" if ord(c) < 128 else c for c in (delimiter, '"', "\r", "\n"))
    needs = pc.or_(pc.match_substring_regex(column, f"[{special}]"), pc.equal(column, ""))
    needs = needs.fill_null(False)
    if needs.true_count == 0:
        return column
    doubled = _join('"', pc.replace_substring(column, '"', '""'), '"')
    return pc.if_else(needs, doubled, column)


def _objects(batch: pa.RecordBatch) -> pa.Array:
    """Each row as the text of a JSON object."""
    if batch.num_columns == 0:
        return pa.array(["{}"] * batch.num_rows, pa.string())
    pieces: list[pa.Array | str] = []
    before = "{"
    for column, field in zip(batch.columns, batch.schema, strict=True):
        pieces += [f"{before}{json.dumps(field.name, ensure_ascii=False)}:", _value_texts(column, field)]
        before = ","
    return _join(*pieces, "}")


def _value_texts(column: pa.Array, field: pa.Field) -> pa.Array:
    """Each value as JSON text."""
    type_ = field.type
    if is_json(field):
        return pa.array([_json_value(v) for v in column.to_pylist()], pa.string())
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return _string_texts(column.cast(pa.string())).fill_null("null")
    if pa.types.is_boolean(type_) or pa.types.is_integer(type_) or pa.types.is_decimal(type_):
        return pc.cast(column, pa.string()).fill_null("null")
    if pa.types.is_floating(type_):
        finite = pc.if_else(pc.is_finite(column), column, pa.scalar(None, type_))
        return pc.cast(finite, pa.string()).fill_null("null")
    if pa.types.is_duration(type_):
        return pc.cast(column.cast(pa.int64()), pa.string()).fill_null("null")
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_):
        return _join('"', _base64(column), '"').fill_null("null")
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_) or pa.types.is_time(type_):
        return _join('"', _plain_text(column), '"').fill_null("null")
    return pa.array(
        [json.dumps(_plain(v, type_), ensure_ascii=False) for v in column.to_pylist()], pa.string()
    )


def _plain_text(column: pa.Array) -> pa.Array:
    """Values of a flat type as text: ISO with T for timestamps."""
    type_ = column.type
    if pa.types.is_timestamp(type_):
        if type_.tz not in (None, "UTC"):
            column = column.cast(pa.timestamp(type_.unit, "UTC"))
        return pc.replace_substring(pc.cast(column, pa.string()), " ", "T", max_replacements=1)
    if pa.types.is_duration(type_):
        column = column.cast(pa.int64())
    return pc.cast(column, pa.string())


def _base64(column: pa.Array) -> pa.Array:
    values = [None if v is None else base64.b64encode(v).decode() for v in column.to_pylist()]
    return pa.array(values, pa.string())


def _string_texts(column: pa.Array) -> pa.Array:
    needs = pc.match_substring_regex(column, _NEEDS_ESCAPE).fill_null(False)
    if needs.true_count:
        escaped = pc.replace_substring(column, "\\", "\\\\")
        for plain, text in (('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
            escaped = pc.replace_substring(escaped, plain, text)
        rest = pc.match_substring_regex(escaped, _NEEDS_MORE).fill_null(False)
        if rest.true_count:
            rows = np.flatnonzero(rest.to_numpy(zero_copy_only=False))
            texts = [json.dumps(v, ensure_ascii=False)[1:-1] for v in column.take(pa.array(rows)).to_pylist()]
            escaped = pc.replace_with_mask(escaped, rest, pa.array(texts, pa.string()))
        column = escaped
    return _join('"', column, '"')


def _json_value(text: str | None) -> str:
    if text is None:
        return "null"
    try:
        value = json.loads(text, parse_float=decimal.Decimal)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    if "\n" in text or "\r" in text or (isinstance(value, float) and not math.isfinite(value)):
        return json.dumps(json.loads(text), ensure_ascii=False)
    return text


def _plain(value: object, type_: pa.DataType) -> object:
    """A nested value in what `json.dumps` takes."""
    if value is None:
        return None
    if pa.types.is_struct(type_):
        assert isinstance(value, dict)
        return {f.name: _plain(value.get(f.name), f.type) for f in type_}
    if pa.types.is_map(type_):
        assert isinstance(value, list)
        return {str(_plain(k, type_.key_type)): _plain(v, type_.item_type) for k, v in value}
    if isinstance(value, list):
        return [_plain(v, type_.value_type) for v in value]
    if isinstance(value, decimal.Decimal):
        return _Number(str(value)) if value.is_finite() else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value // datetime.timedelta(microseconds=1)
    return value if isinstance(value, bool | int | str) else str(value)


class _Number(float):
    """A number that is written with the digits it was given."""

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str

    def __repr__(self) -> str:
        return self.text


def _join(*pieces: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*pieces, "", null_handling="emit_null")


def _lines(texts: pa.Array) -> bytes:
    """All texts, each ended by a newline."""
    if len(texts) == 0:
        return b""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    ended = _join(texts, "\n")
    offsets = np.frombuffer(ended.buffers()[1], np.int32)[ended.offset : ended.offset + len(ended) + 1]
    return bytes(memoryview(ended.buffers()[2])[offsets[0] : offsets[-1]])
