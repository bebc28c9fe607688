"""Decoding of JSON lines: one object a line."""

from __future__ import annotations

import decimal
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from millrace.operators.batch import Int64Array
from millrace.operators.formats.lines import LineDecoder, Mismatch, line_bounds, newline_offsets
from millrace.operators.formats.records import (
    ENCODING,
    SYNTAX,
    RecordError,
    TextLayout,
    is_json,
    shown,
)
from millrace.operators.formats.values import Converter, JsonText, converter
from millrace.operators.formats.vectors import Reading, readings


class JsonDecoder(LineDecoder):
    """JSON lines into `schema`'s columns by key; keys that are not columns are passed over, missing ones are NULL."""

    def __init__(self, schema: pa.Schema, layout: TextLayout) -> None:
        super().__init__(schema, layout)
        self._converters: list[tuple[str, Converter, bool]] = [
            (f.name, converter(f, layout), _keeps_text(f)) for f in self.record_schema
        ]
        self._keeps_text = any(keeps for _, _, keeps in self._converters)
        self._ways = [_Column(f, readings(f, layout)) for f in self.record_schema]
        self._texts = [f.name for f in self.record_schema if is_json(f)]
        self._columnar = all(column.ways or is_json(column.field) for column in self._ways)
        asked = [column for column in self._ways if column.ways]
        self._asked = asked or [
            _Column(pa.field("\0", pa.string()), [Reading(pa.string(), _same, frozenset())])
        ]

    def fast(self, block: bytes, count: int | None) -> pa.RecordBatch:
        if not self._columnar:
            raise Mismatch
        if not block.isascii():
            block.decode()
        newlines = newline_offsets(block)
        if not only_objects(block, newlines):
            raise Mismatch
        table = pj.read_json(
            pa.BufferReader(block),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=pj.ParseOptions(
                explicit_schema=pa.schema([(c.field.name, c.way.read) for c in self._asked]),
                newlines_in_values=False,
                unexpected_field_behavior="ignore",
            ),
        )
        lines = len(newlines) + (not block.endswith(b"\n"))
        if table.num_rows != lines and table.num_rows != (
            len(self.split(block)[0]) if count is None else count
        ):
            raise Mismatch
        columns = {
            c.field.name: c.way.convert(_one_chunk(table.column(i))) for i, c in enumerate(self._asked)
        }
        if self._texts:
            columns |= texts_of(block, self._texts, table.num_rows)
        arrays = [columns[name] for name in self.record_schema.names]
        return pa.RecordBatch.from_arrays(arrays, schema=self.record_schema)

    def adapt(self, records: Sequence[bytes]) -> bool:
        """Choose each column's reading by what kind of JSON value its first rows hold."""
        if not self._columnar:
            return False
        samples: dict[str, object] = {}
        for record in records:
            try:
                row = parse_object(record)
            except RecordError:
                continue
            for name, value in row.items():
                if value is not None:
                    samples.setdefault(name, value)
        changed = False
        for column in self._ways:
            sample = samples.get(column.field.name)
            chosen = next((way for way in column.ways if sample is not None and way.suits(sample)), None)
            if chosen is not None and chosen is not column.way:
                column.way = chosen
                changed = True
        return changed

    def slow(self, record: bytes) -> tuple[object, ...]:
        row = parse_object(record)
        if self._texts:
            for name, column in texts_of(record.replace(b"\n", b" "), self._texts, 1).items():
                text = column[0].as_py()
                row[name] = None if text is None else JsonText(text)
        return self.row_values(row)

    def row_values(self, row: dict[str, object]) -> tuple[object, ...]:
        """One parsed object as a row of converted values. Raises RecordError."""
        if not self._keeps_text:
            return tuple(convert(row.get(name)) for name, convert, _ in self._converters)
        return tuple(
            convert(_as_text(row.get(name)) if keeps else row.get(name))
            for name, convert, keeps in self._converters
        )


@dataclass(slots=True)
class _Column:
    """A column with the ways to read it and the one in use."""

    field: pa.Field
    ways: list[Reading]
    way: Reading = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.ways:
            self.way = self.ways[0]


def _same(column: pa.Array) -> pa.Array:
    return column


def texts_of(block: bytes, keys: Sequence[str], rows: int) -> dict[str, pa.Array]:
    """The values of top-level keys as the text they are written in, null as NULL; lines must be valid objects.

    Raises Mismatch where there are not `rows` lines.
    """
    # Numba is slow to import, and only JSON columns need it.
    from millrace.operators.formats.json_kernels import copy_pieces, value_spans

    line_starts, line_ends = line_bounds(block)
    if len(line_starts) != rows:
        raise Mismatch
    data = np.frombuffer(block, np.uint8)
    starts, ends = np.empty(rows, np.int64), np.empty(rows, np.int64)
    found: dict[str, pa.Array] = {}
    for key in keys:
        name = np.frombuffer(json.dumps(key, ensure_ascii=False)[1:-1].encode(), np.uint8)
        value_spans(data, line_starts, line_ends, name, starts, ends)
        offsets = np.zeros(rows + 1, np.int32)
        np.cumsum(ends - starts, out=offsets[1:])
        body = np.empty(int(offsets[-1]), np.uint8)
        copy_pieces(data, starts, ends, body)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(body)]
        array = pa.Array.from_buffers(pa.string(), rows, buffers)
        absent = pc.or_(pa.array(starts < 0), pc.equal(array, "null"))
        found[key] = pc.if_else(absent, pa.scalar(None, pa.string()), array)
    return found


def only_objects(block: bytes, newlines: Int64Array) -> bool:
    """Whether every line begins as an object, and no null follows one: Arrow's reader crashes on a null by itself.

    `newlines` are the offsets of all line ends.
    """
    if b"null" in block and b"}null" in block.translate(None, b" \t\r"):
        return False
    data = np.frombuffer(block, np.uint8)
    following = newlines[:-1] + 1 if block.endswith(b"\n") else newlines + 1
    if block.startswith(b"{") and (data[following] == ord("{")).all():
        return True
    starts, _ = line_bounds(block)
    first = data[starts]
    others = starts[first != ord("{")].tolist()
    return all(block[at : at + 1].isspace() and block[at : at + 200].lstrip()[:1] == b"{" for at in others)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _keeps_text(field: pa.Field) -> bool:
    return is_json(field) or pa.types.is_string(field.type)


def _as_text(value: object) -> object:
    """What stands in a JSON or VARCHAR column for a parsed value: text as it is, the rest as JSON text."""
    if value is None or isinstance(value, str | JsonText):
        return value
    return JsonText(json_text(value)) if isinstance(value, dict | list) else value


def json_text(value: object) -> str:
    """A parsed value as compact JSON text; decimals keep their digits."""
    if isinstance(value, dict):
        return (
            "{"
            + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{json_text(v)}" for k, v in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(map(json_text, value)) + "]"
    if isinstance(value, decimal.Decimal):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def parse_object(record: bytes) -> dict[str, object]:
    """One line as an object; numbers with a fraction are Decimals. Raises RecordError."""
    try:
        text = record.decode()
    except UnicodeDecodeError as error:
        raise RecordError(ENCODING, f"invalid UTF-8 at byte {error.start}") from None
    try:
        value = json.loads(text, parse_float=decimal.Decimal)
    except json.JSONDecodeError as error:
        raise RecordError(SYNTAX, f"not valid JSON at character {error.pos + 1}: {error.msg}") from None
    except RecursionError:
        raise RecordError(SYNTAX, "JSON is nested too deeply") from None
    except (ValueError, ArithmeticError) as error:
        raise RecordError(SYNTAX, f"not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise RecordError(SYNTAX, f"expected an object, got {shown(value)}")
    return value
