"""Messages whose schemas are in a registry (magic 0, the schema's id, the record) into columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.batch import Int64Array
from millrace.operators.connectors.kafka.messages import Columns
from millrace.operators.connectors.kafka.schema_registry import Registered, client_of
from millrace.operators.connectors.kafka.schemas import ReadSchema, WriteSchema, schema_names
from millrace.operators.formats.avro_decode import AvroDecoder
from millrace.operators.formats.avro_encode import AvroEncoder
from millrace.operators.formats.avro_schema import AvroType, as_record, parse_avro
from millrace.operators.formats.columns import conform
from millrace.operators.formats.records import SYNTAX, UNKNOWN_SCHEMA

HEADER = 5


@dataclass(slots=True)
class Framed:
    """Messages one behind the other in `block`: where each record starts and ends, and its schema's id (−1: none)."""

    block: bytes
    starts: Int64Array
    ends: Int64Array
    ids: Int64Array


def framed(values: Sequence[bytes], *, headed: bool) -> Framed:
    """The messages in one block; without headers all have id 0."""
    block = b"".join(values)
    sizes = np.fromiter(map(len, values), np.int64, len(values))
    ends = np.cumsum(sizes)
    starts = ends - sizes
    ids = np.zeros(len(values), np.int64)
    if headed:
        from millrace.operators.formats.avro_kernels import read_headers  # Numba is heavy to import

        read_headers(np.frombuffer(block, np.uint8), starts, ends, ids)
        starts = starts + HEADER
    return Framed(block, starts, ends, ids)


class AvroValues:
    """Decodes values or keys by their writers' schemas. Raises nothing about the data, Unavailable MR3033."""

    def __init__(self, how: ReadSchema, schema: pa.Schema) -> None:
        self.schema = schema
        self._column = schema.names[0]
        self._reader = how.record(self._column)
        wanted = schema_names(schema.names, [f.name for f in self._reader.fields])
        self._decoder = AvroDecoder(self._reader, wanted)
        self._client = None if how.registry is None else client_of(how.registry)
        self._writers: dict[int, AvroType | str] = {0: self._reader} if how.registry is None else {}

    def decode(self, values: Sequence[bytes]) -> Columns:
        """All messages' columns; no value is None."""
        count = len(values)
        frames = framed(values, headed=self._client is not None)
        bad: dict[int, tuple[str, str]] = {}
        parts: list[pa.RecordBatch] = []
        order: list[Int64Array] = []
        for number in np.unique(frames.ids).tolist():
            rows = np.flatnonzero(frames.ids == number)
            writer = self._writer(number)
            if isinstance(writer, str):
                code = SYNTAX if number < 0 else UNKNOWN_SCHEMA
                bad |= dict.fromkeys(rows.tolist(), (code, writer))
                continue
            found = self._decoder.decode(frames.block, frames.starts[rows], frames.ends[rows], number, writer)
            kept = np.ones(len(rows), np.bool_)
            kept[list(found.bad)] = False
            bad |= {int(rows[i]): why for i, why in found.bad.items()}
            parts.append(found.data)
            order.append(rows[kept])
        places = np.concatenate(order) if order else np.zeros(0, np.int64)
        data = _in_order(parts, places, self._decoder.schema)
        places.sort()
        fitted = conform(data, self.schema)
        bad |= {int(places[row.line]): (row.code, row.reason) for row in fitted.bad}
        good = np.ones(count, np.bool_)
        good[list(bad)] = False
        return Columns(fitted.data, good, bad)

    def _writer(self, number: int) -> AvroType | str:
        """The writer's schema, or why there is none."""
        if number < 0:
            return "the message does not begin with the id of a schema"
        known = self._writers.get(number)
        if known is None:
            assert self._client is not None
            known = self._writers[number] = self._parsed(number, self._client.by_id(number))
        return known

    def _parsed(self, number: int, found: Registered | None) -> AvroType | str:
        if found is None:
            return f"the registry has no schema {number}"
        if found.language != "AVRO":
            return f"schema {number} is {found.language}, not Avro"
        try:
            return as_record(parse_avro(found.plain, f"schema {number}"), self._column)
        except Invalid as error:
            return error.message


class RegisteredRows:
    """Encodes rows by a schema, which it registers first. Raises Unavailable MR3033, Invalid MR1486."""

    def __init__(self, by: WriteSchema, columns: pa.Schema) -> None:
        self._encoder = AvroEncoder(parse_avro([by.text], "the sink's schema"), columns)
        self._prefix = b""
        if by.registry is not None:
            number = client_of(by.registry).register(by.subject, by.language.upper(), by.text)
            self._prefix = b"\0" + number.to_bytes(4, "big")

    def encode(self, rows: pa.RecordBatch) -> list[bytes | None]:
        """One message a row."""
        return [*self._encoder.encode(rows, self._prefix)]


def _in_order(parts: list[pa.RecordBatch], places: Int64Array, schema: pa.Schema) -> pa.RecordBatch:
    """The rows of all parts by the places of their messages."""
    if not parts:
        return pa.RecordBatch.from_pylist([], schema=schema)
    if len(parts) == 1:
        return parts[0]
    table = pa.Table.from_batches(parts).take(pa.array(np.argsort(places, kind="stable")))
    return table.combine_chunks().to_batches()[0] if table.num_rows else parts[0].slice(0, 0)
