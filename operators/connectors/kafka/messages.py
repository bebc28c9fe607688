"""From Kafka messages to rows: values, keys and metadata of many messages at once. Consumes nothing itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import KafkaError

from millrace.operators.batch import Batch, Int64Array, concatenate
from millrace.operators.formats.csv_lines import CsvDecoder
from millrace.operators.formats.debezium import DebeziumDecoder
from millrace.operators.formats.json_lines import JsonDecoder
from millrace.operators.formats.lines import LineDecoder
from millrace.operators.formats.records import (
    ENCODING,
    NULL_VALUE,
    PAYLOAD_BYTES_MAX,
    SYNTAX,
    TextLayout,
)
from millrace.operators.source import BadRecord

Mask = npt.NDArray[np.bool_]


class Record(Protocol):
    """A message as a consumer gives it; `error` is None for all that are rows, and then nothing else is."""

    def error(self) -> KafkaError | None: ...
    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def leader_epoch(self) -> int | None: ...
    def timestamp(self) -> tuple[int, int]: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> list[tuple[str, bytes | None]] | None: ...


@dataclass(slots=True)
class Columns:
    """Some columns of many messages: `rows` has one row for each message that is true in `good`.

    Where a message gives other than one row, `counts` says how many each good one gives.
    """

    data: pa.RecordBatch
    good: Mask
    bad: dict[int, tuple[str, str]] = field(default_factory=dict)
    weights: Int64Array | None = None
    counts: Int64Array | None = None


@dataclass(slots=True)
class Chunk:
    """Messages of one split as rows, in order; `next` is the offset after the last of them.

    `offsets` holds the offset of each row's message, where every message gives one row.
    """

    batch: Batch
    bad: list[BadRecord]
    next: int
    offsets: Int64Array | None
    size: int


class Pulled:
    """Messages of one split before they are decoded, in order: no more of them than decoding asks for.

    Message objects are let go of at once where only their values count: thousands of them alive make the garbage
    collector run all the time.
    """

    def __init__(self) -> None:
        self.values: list[bytes | None] = []
        self.messages: list[Record] = []
        self._offsets: list[Int64Array] = []

    def add(self, messages: list[Record], *, keep: bool) -> None:
        """Take further messages; `keep` their objects too."""
        first, following = messages[0].offset(), messages[-1].offset() + 1
        if following - first == len(messages):
            self._offsets.append(np.arange(first, following, dtype=np.int64))
        else:
            self._offsets.append(np.fromiter((m.offset() for m in messages), np.int64, len(messages)))
        self.values.extend([m.value() for m in messages])
        if keep:
            self.messages.extend(messages)

    def offsets(self) -> Int64Array:
        """The offset of every message."""
        return np.concatenate(self._offsets)


class ValueDecoder:
    """Bytes of many messages into columns by a line format; each message is one record."""

    def __init__(self, format: str, schema: pa.Schema, names: Sequence[str], layout: TextLayout) -> None:
        self.schema = schema
        self._raw = format == "raw"
        self._json = format in ("json", "debezium-json")
        self._changes: _Changes | None = None
        self._lines: LineDecoder | None = None
        if format == "json":
            self._lines = JsonDecoder(schema, layout)
        elif format == "csv":
            self._lines = CsvDecoder(schema, layout, names)
        elif format == "debezium-json":
            self._lines = self._changes = _Changes(schema, layout)

    def decode(self, values: Sequence[bytes]) -> Columns:
        """All messages' columns; no value is None."""
        if self._raw:
            return self._texts(values)
        assert self._lines is not None
        block = b"\n".join(values)
        if block.count(b"\n") == len(values) - 1 and b"" not in values:
            found = self._whole(block, len(values))
            if found is not None:
                return found
        return self._careful(values)

    def _whole(self, block: bytes, count: int) -> Columns | None:
        assert self._lines is not None
        decoded = self._lines.decode(block)
        batch = decoded.batch
        counts = self._changes.counts if self._changes is not None else None
        records = batch.num_rows if counts is None else len(counts)
        if records + len(decoded.bad) != count:
            return None
        good = np.ones(count, np.bool_)
        bad = {row.line: (row.code, row.reason) for row in decoded.bad}
        good[list(bad)] = False
        return Columns(batch.data, good, bad, batch.weights, counts)

    def _careful(self, values: Sequence[bytes]) -> Columns:
        """The same where a value is blank or spans lines: JSON is put on one line, what else fails goes singly."""
        good = np.zeros(len(values), np.bool_)
        places = [i for i, value in enumerate(values) if value.strip()]
        empty: tuple[str, str] = (SYNTAX, "the value is empty")
        bad: dict[int, tuple[str, str]] = dict.fromkeys(set(range(len(values))) - set(places), empty)
        if not places:
            return Columns(pa.RecordBatch.from_pylist([], schema=self.schema), good, bad)
        kept = [_one_line(values[i]) if self._json else values[i].rstrip(b"\r\n") for i in places]
        block = b"\n".join(kept)
        found = self._whole(block, len(kept)) if block.count(b"\n") == len(kept) - 1 else None
        if found is None:
            found = self._singly(kept)
        good[np.array(places)[found.good]] = True
        bad |= {places[i]: why for i, why in found.bad.items()}
        return Columns(found.data, good, bad, found.weights, found.counts)

    def _singly(self, values: Sequence[bytes]) -> Columns:
        assert self._lines is not None
        good = np.zeros(len(values), np.bool_)
        bad: dict[int, tuple[str, str]] = {}
        batches: list[Batch] = []
        counts: list[int] = []
        for i, value in enumerate(values):
            decoded = self._lines.decode(value)
            rows = decoded.batch.num_rows
            if decoded.bad:
                bad[i] = (decoded.bad[0].code, decoded.bad[0].reason)
            elif rows == 0 or (rows > 1 and self._changes is None):
                bad[i] = (SYNTAX, f"the value holds {rows} records")
            else:
                good[i] = True
                batches.append(decoded.batch)
                counts.append(rows)
        whole = concatenate(batches, self.schema)
        sizes = None if self._changes is None else np.array(counts, np.int64)
        return Columns(whole.data, good, bad, whole.weights, sizes)

    def _texts(self, values: Sequence[bytes]) -> Columns:
        column, good, bad = texts(values, self.schema.field(0))
        data = pa.RecordBatch.from_arrays(
            [column.filter(pa.array(good)) if bad else column], schema=self.schema
        )
        return Columns(data, good, bad)


class _Changes(DebeziumDecoder):
    """Notes how many rows each envelope of the last block gave."""

    def __init__(self, schema: pa.Schema, layout: TextLayout) -> None:
        super().__init__(schema, layout)
        self.counts: Int64Array = np.zeros(0, np.int64)

    def weights(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Int64Array | None]:
        self.counts = 1 + np.asarray(pc.equal(batch.column(2), "u").cast(pa.int64()))
        return super().weights(batch)


def _one_line(value: bytes) -> bytes:
    """A JSON value on one line; what is no JSON stays none."""
    if b"\n" not in value and b"\r" not in value:
        return value
    try:
        json.loads(value)
    except ValueError:
        return value.replace(b"\n", b"\x01").replace(b"\r", b"\x01")
    return value.replace(b"\n", b" ").replace(b"\r", b" ")


def texts(
    values: Sequence[bytes | None], column: pa.Field
) -> tuple[pa.Array, Mask, dict[int, tuple[str, str]]]:
    """Bytes as a column of text or bytes, and which of them are no UTF-8 or missing where they may not be."""
    good = np.ones(len(values), np.bool_)
    bad: dict[int, tuple[str, str]] = {}
    array = pa.array(values, pa.binary())
    if pa.types.is_string(column.type):
        try:
            array = array.cast(pa.string())
        except pa.ArrowInvalid:
            kept: list[bytes | None] = list(values)
            for i, value in enumerate(values):
                try:
                    _ = None if value is None else value.decode()
                except UnicodeDecodeError as error:
                    bad[i] = (ENCODING, f"invalid UTF-8 at byte {error.start}")
                    kept[i] = None
            array = pa.array(kept, pa.binary()).cast(pa.string())
    if not column.nullable and array.null_count:
        for i in np.flatnonzero(np.asarray(array.is_null())).tolist():
            bad.setdefault(i, (NULL_VALUE, f"column '{column.name}' is NOT NULL and has no value"))
    good[list(bad)] = False
    return array, good, bad


MetadataReader = Callable[[Sequence[Record]], tuple[pa.Array, dict[int, tuple[str, str]]]]


def metadata_reader(column: pa.Field, key: str) -> MetadataReader:
    """How the metadata column of this key (`offset`, `headers.k`, …) is made of messages."""
    if key.startswith("headers."):
        name = key.removeprefix("headers.")
        return lambda messages: _text_column([_header(m, name) for m in messages], column)
    match key:
        case "key":
            return lambda messages: _text_column([_bytes(m.key()) for m in messages], column)
        case "headers":
            return lambda messages: (_headers(messages, column.type), {})
    plain = _PLAIN[key]
    return lambda messages: (pc.cast(plain(messages), column.type), {})


def _timestamps(messages: Sequence[Record]) -> pa.Array:
    stamps = np.array([m.timestamp()[1] for m in messages], np.int64)
    return pa.array(stamps, pa.int64(), mask=stamps < 0).cast(pa.timestamp("ms", "UTC"))


_PLAIN: dict[str, Callable[[Sequence[Record]], pa.Array]] = {
    "offset": lambda messages: pa.array([m.offset() for m in messages], pa.int64()),
    "partition": lambda messages: pa.array([m.partition() for m in messages], pa.int32()),
    "topic": lambda messages: pa.array([m.topic() for m in messages], pa.string()),
    "timestamp": _timestamps,
    "timestamp-type": lambda messages: pa.array(
        [("NoTimestampType", "CreateTime", "LogAppendTime")[m.timestamp()[0]] for m in messages], pa.string()
    ),
    "leader-epoch": lambda messages: pa.array([m.leader_epoch() for m in messages], pa.int32()),
}


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _header(message: Record, name: str) -> bytes | None:
    """The last header of that name."""
    found = None
    for key, value in message.headers() or ():
        if key == name:
            found = _bytes(value)
    return found


def _text_column(
    values: Sequence[bytes | None], column: pa.Field
) -> tuple[pa.Array, dict[int, tuple[str, str]]]:
    array, _, bad = texts(values, column)
    return array, bad


def _headers(messages: Sequence[Record], type: pa.DataType) -> pa.Array:
    text = pa.types.is_string(type.item_type)
    rows = []
    for message in messages:
        row = {key: _bytes(value) for key, value in message.headers() or ()}
        rows.append(
            [(k, v.decode(errors="replace") if text and v is not None else v) for k, v in row.items()]
        )
    return pa.array(rows, type)


def payload(value: bytes | None) -> bytes:
    """What a bad record keeps of a message's value."""
    return b"" if value is None else value[:PAYLOAD_BYTES_MAX]


__all__ = ["Chunk", "Columns", "ValueDecoder", "metadata_reader", "payload", "texts"]
