"""From rows to Kafka records: keys, values, headers and partitions of a batch at once. Sends nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.errors import Corrupt
from millrace.operators.batch import Batch
from millrace.operators.connectors.kafka.registered import RegisteredRows
from millrace.operators.connectors.kafka.schemas import WriteSchema
from millrace.operators.formats.encoding import csv_lines, debezium_json, json_lines
from millrace.operators.sink import Changelog
from millrace.operators.spec import serialisable

_HEADERS = pa.map_(pa.string(), pa.binary())
_RECORDS = pa.schema(
    [
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("partition", pa.int32()),
        ("timestamp", pa.int64()),
        ("headers", _HEADERS),
    ]
)


@serialisable
@dataclass(frozen=True, slots=True)
class Encoding:
    """How rows of `schema` become records. All columns are places; `partition`, `timestamp` and `headers` may be −1.

    `changelog` says what weight −1 means: a tombstone for the key (UPSERT), or `op` d in a change record (RETRACT).
    """

    format: str
    key_format: str
    schema: pa.Schema
    changelog: Changelog
    key: tuple[int, ...] = ()
    value: tuple[int, ...] = ()
    partition: int = -1
    timestamp: int = -1
    headers: int = -1
    delimiter: str = ","
    value_schema: WriteSchema | None = None
    key_schema: WriteSchema | None = None


@dataclass(slots=True)
class Records:
    """Records in order; a list that is None stands for nothing in every record. `timestamps` are ms."""

    keys: Sequence[bytes | None] | None
    values: Sequence[bytes | None]
    partitions: Sequence[int | None] | None = None
    timestamps: Sequence[int | None] | None = None
    headers: Sequence[list[tuple[str, bytes | None]] | None] | None = None

    def __len__(self) -> int:
        return len(self.values)


class RecordEncoder:
    """Makes records of batches. Schemas are registered with the first rows; raises Unavailable MR3033 for that."""

    def __init__(self, how: Encoding) -> None:
        self._how = how
        self._written: tuple[RegisteredRows | None, RegisteredRows | None] | None = None

    def records(self, batch: Batch) -> Records:
        """The records of a batch, in order."""
        how = self._how
        if self._written is None:
            self._written = (
                _rows(how.value_schema, how.schema, how.value),
                _rows(how.key_schema, how.schema, how.key),
            )
        return _records_of(batch, how, *self._written)


def _rows(by: WriteSchema | None, schema: pa.Schema, places: Sequence[int]) -> RegisteredRows | None:
    return None if by is None else RegisteredRows(by, pa.schema([schema.field(i) for i in places]))


def _records_of(
    batch: Batch, how: Encoding, written: RegisteredRows | None, key_written: RegisteredRows | None
) -> Records:
    data, weights = batch.data, batch.weights
    if how.changelog is Changelog.APPEND and weights is not None and (weights != 1).any():
        assert (weights > 0).all(), "an append stream holds a retraction"
        data, weights = data.take(pa.array(np.repeat(np.arange(len(weights)), weights))), None
    value = data.select(list(how.value))
    values = _values(value, weights, how) if written is None else written.encode(value)
    if how.changelog is Changelog.UPSERT and weights is not None:
        for i in np.flatnonzero(weights < 0).tolist():
            values[i] = None
    return Records(
        _keys(data, how) if key_written is None else key_written.encode(data.select(list(how.key))),
        values,
        None if how.partition < 0 else pc.cast(data.column(how.partition), pa.int32()).to_pylist(),
        None if how.timestamp < 0 else _milliseconds(data.column(how.timestamp)),
        None if how.headers < 0 else data.column(how.headers).to_pylist(),
    )


def _values(data: pa.RecordBatch, weights: Any, how: Encoding) -> list[bytes | None]:
    match how.format:
        case "json":
            return _divided(json_lines(data))
        case "debezium-json":
            return _divided(debezium_json(data, weights))
        case "raw":
            return _texts(data.column(0))
        case _:
            block = csv_lines(data, how.delimiter)
            if block.count(b"\n") == data.num_rows:
                return _divided(block)
            rows = (data.slice(i, 1) for i in range(data.num_rows))
            return [csv_lines(row, how.delimiter)[:-1] for row in rows]


def _keys(data: pa.RecordBatch, how: Encoding) -> list[bytes | None] | None:
    if not how.key:
        return None
    if how.key_format == "raw":
        return _texts(data.column(how.key[0]))
    return _divided(json_lines(data.select(list(how.key))))


def _divided(block: bytes) -> list[bytes | None]:
    lines: list[bytes | None] = list(block.split(b"\n"))
    lines.pop()
    return lines


def _texts(column: pa.Array) -> list[bytes | None]:
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return column.to_pylist()
    return pc.cast(column, pa.string()).cast(pa.binary()).to_pylist()


def _milliseconds(column: pa.Array) -> list[int | None]:
    if pa.types.is_timestamp(column.type):
        column = pc.cast(column, pa.timestamp("ms", column.type.tz), safe=False).cast(pa.int64())
    return column.to_pylist()


def to_outbox(parts: Sequence[Records]) -> bytes:
    """Records as Arrow IPC, in order; nothing for no records."""
    if not any(len(part) for part in parts):
        return b""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _RECORDS) as writer:
        for part in parts:
            columns = [part.keys, part.values, part.partitions, part.timestamps, part.headers]
            arrays = [
                pa.nulls(len(part), field.type) if column is None else pa.array(column, field.type)
                for column, field in zip(columns, _RECORDS, strict=True)
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=_RECORDS))
    return sink.getvalue().to_pybytes()


def from_outbox(outbox: bytes, what: str) -> list[Records]:
    """What `to_outbox` was given. Raises Corrupt MR5042."""
    if not outbox:
        return []
    try:
        with pa.ipc.open_stream(outbox) as reader:
            batches = list(reader)
    except (pa.ArrowException, OSError) as error:
        raise Corrupt(f"{what} does not decode: {error}", code="MR5042") from error
    return [_unpacked(batch) for batch in batches]


def _unpacked(batch: pa.RecordBatch) -> Records:
    keys, values, partitions, timestamps, headers = (
        None if column.null_count == len(column) else column.to_pylist() for column in batch.columns
    )
    return Records(keys, values or [None] * batch.num_rows, partitions, timestamps, headers)
