"""From the messages of one split to a chunk of rows: value, key and metadata columns joined. Consumes nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pyarrow as pa

from millrace.operators.batch import Batch, Int64Array
from millrace.operators.connectors.kafka.messages import (
    Chunk,
    Columns,
    Pulled,
    Record,
    ValueDecoder,
    metadata_reader,
    payload,
)
from millrace.operators.connectors.kafka.registered import AvroValues
from millrace.operators.connectors.kafka.schemas import ReadSchema
from millrace.operators.formats.records import NULL_VALUE, TextLayout
from millrace.operators.source import BadRecord
from millrace.operators.spec import serialisable

VALUE = "value"
KEY = "key column"


@serialisable
@dataclass(frozen=True, slots=True)
class Decoding:
    """How messages become rows of `schema`.

    `origins` has one entry a column: VALUE and KEY columns are decoded from the message's value and key, others name
    what of the message they are (`offset`, `timestamp`, `headers.k`, …). `tombstones` is what a message without a
    value is: `skip`, `null` (a row without values) or `delete` (weight −1 for its key). `names` are all columns of a
    CSV value in order, also those that are not read. `value_schema` and `key_schema` are for Avro and Protobuf.
    """

    format: str
    key_format: str
    schema: pa.Schema
    origins: tuple[str, ...]
    names: tuple[str, ...]
    tombstones: str
    layout: TextLayout
    value_schema: ReadSchema | None = None
    key_schema: ReadSchema | None = None

    def of(self, origin: str) -> tuple[int, ...]:
        """Places of the columns with this origin."""
        return tuple(i for i, found in enumerate(self.origins) if found == origin)


SYSTEM_COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "_timestamp": (pa.timestamp("ms"), "timestamp"),
    "_partition": (pa.int32(), "partition"),
    "_offset": (pa.int64(), "offset"),
    "_topic": (pa.string(), "topic"),
    "_key": (pa.string(), "key"),
    "_headers": (pa.map_(pa.string(), pa.string()), "headers"),
}
"""Columns of every message that nobody declares: their types and origins."""


def with_system_columns(decoding: Decoding) -> Decoding:
    """The same with SYSTEM_COLUMNS behind its own, those aside whose names it has."""
    taken = {name.casefold() for name in decoding.schema.names}
    more = {name: what for name, what in SYSTEM_COLUMNS.items() if name not in taken}
    fields = [pa.field(name, type) for name, (type, _) in more.items()]
    return replace(
        decoding,
        schema=pa.schema([*decoding.schema, *fields]),
        origins=(*decoding.origins, *(origin for _, origin in more.values())),
    )


class Decoder:
    """Decodes the messages of one split. Used by one thread; produces the columns in `columns` (places)."""

    def __init__(self, decoding: Decoding, columns: Sequence[int]) -> None:
        self._how = decoding
        schema = decoding.schema
        self._columns = list(columns)
        self._output = pa.schema([schema.field(i) for i in columns])
        values = [i for i in columns if decoding.origins[i] == VALUE]
        # A record is found to be bad by reading it, so one column is read even where none is asked for.
        self._value_places = values or list(decoding.of(VALUE)[:1])
        self._key_places = [i for i in columns if decoding.origins[i] == KEY]
        self._values = self._decoder(
            decoding.format, self._value_places, decoding.names, decoding.value_schema
        )
        key_names = tuple(schema.field(i).name for i in decoding.of(KEY))
        self._keys = self._decoder(decoding.key_format, self._key_places, key_names, decoding.key_schema)
        self._metadata = {
            i: metadata_reader(schema.field(i), decoding.origins[i])
            for i in columns
            if decoding.origins[i] not in (VALUE, KEY)
        }
        self._null_fault = next(
            (schema.field(i).name for i in self._value_places if not schema.field(i).nullable), None
        )

    def _decoder(
        self, format: str, places: Sequence[int], names: Sequence[str], how: ReadSchema | None
    ) -> ValueDecoder | AvroValues | None:
        if not places:
            return None
        fields = [self._how.schema.field(i) for i in places]
        if how is not None:
            return AvroValues(how, pa.schema(fields))
        return ValueDecoder(format, pa.schema(fields), names, self._how.layout)

    @property
    def keeps_messages(self) -> bool:
        """Whether it needs more of the messages than their values."""
        return self._keys is not None or bool(self._metadata)

    def decode(self, pulled: Pulled, split: str) -> Chunk:
        """All rows of the messages of one split, in order. Raises nothing about the data."""
        values: list[bytes | None] = pulled.values
        messages, offsets = pulled.messages, pulled.offsets()
        following = int(offsets[-1]) + 1
        size = sum(len(value or b"") for value in values)
        gone = None
        if None in values:
            gone = np.fromiter((v is None for v in values), np.bool_, len(values))
            if self._how.tombstones == "skip":
                messages = [m for m, v in zip(messages, values, strict=False) if v is not None]
                values = [*(v for v in values if v is not None)]
                offsets = offsets[~gone]
                gone = None
        if not values:
            empty = pa.RecordBatch.from_pylist([], schema=self._output)
            return Chunk(Batch(empty), [], following, np.zeros(0, np.int64), size)
        (batch, rows), bad = self._read(messages, values, gone)
        records = [
            BadRecord(*why, split, f"offset {offsets[i]}", payload(values[i]))
            for i, why in sorted(bad.items())
        ]
        return Chunk(batch, records, following, None if rows is None else offsets[rows], size)

    def _read(
        self, messages: list[Record], values: list[bytes | None], gone: np.ndarray | None
    ) -> tuple[tuple[Batch, Int64Array | None], dict[int, tuple[str, str]]]:
        count = len(values)
        good = np.ones(count, np.bool_)
        bad: dict[int, tuple[str, str]] = {}
        value = self._with_tombstones(values, gone)
        key = self._key_columns(messages)
        metadata = {}
        for i, read in self._metadata.items():
            metadata[i], faults = read(messages)
            bad |= faults
        for part in (key, value):
            if part is not None:
                bad |= part.bad
        good[list(bad)] = False
        rows = np.flatnonzero(good)
        spread = rows
        if value is not None and value.counts is not None:
            per_message = np.zeros(count, np.int64)
            per_message[value.good] = value.counts
            spread = np.repeat(rows, per_message[rows])
        arrays: dict[int, pa.Array] = {}
        if value is not None:
            arrays |= _picked(self._value_places, value, good)
        whole = spread is rows and len(rows) == count
        take = pa.array(spread) if not whole else None
        if key is not None:
            full = _spread(key, count)
            arrays |= {
                place: column if take is None else column.take(take)
                for place, column in zip(self._key_places, full, strict=True)
            }
        arrays |= {i: a if take is None else a.take(take) for i, a in metadata.items()}
        weights = self._weights(value, good, gone, rows)
        batch = Batch(self._assembled(arrays, len(spread)), weights)
        one_to_one = value is None or value.counts is None
        return (batch, rows if one_to_one else None), bad

    def _assembled(self, arrays: dict[int, pa.Array], rows: int) -> pa.RecordBatch:
        if not self._columns:
            return pa.RecordBatch.from_arrays([pa.nulls(rows)], names=["_"]).select([])
        return pa.RecordBatch.from_arrays([arrays[i] for i in self._columns], schema=self._output)

    def _with_tombstones(self, values: list[bytes | None], gone: np.ndarray | None) -> Columns | None:
        """The value columns; a tombstone's are NULL."""
        if self._values is None:
            return None
        present = cast("list[bytes]", values) if gone is None else [v for v in values if v is not None]
        held = self._values.decode(present)
        if gone is None:
            return held
        places = np.flatnonzero(~gone)
        bad = {int(places[i]): why for i, why in held.bad.items()}
        good = np.ones(len(values), np.bool_)
        good[list(bad)] = False
        deletes = self._how.tombstones == "delete"
        if self._null_fault is not None and not deletes:
            reason = f"column '{self._null_fault}' is NOT NULL and the message has no value"
            bad |= {int(i): (NULL_VALUE, reason) for i in np.flatnonzero(gone)}
            good[gone] = False
        at = np.full(len(values), -1, np.int64)
        at[places[held.good]] = np.arange(held.data.num_rows)
        pick = at[good]
        index = pa.array(pick, mask=pick < 0)
        data = held.data.take(index) if held.data.num_rows else _nulls(held.data.schema, len(pick))
        return Columns(data, good, bad, held.weights, held.counts)

    def _key_columns(self, messages: list[Record]) -> Columns | None:
        if self._keys is None:
            return None
        keys = [m.key() for m in messages]
        if None not in keys:
            return self._keys.decode(cast("list[bytes]", keys))
        places = [i for i, key in enumerate(keys) if key is not None]
        held = self._keys.decode([key for key in keys if key is not None])
        good = np.zeros(len(keys), np.bool_)
        good[np.array(places, np.int64)[held.good]] = True
        bad = {places[i]: why for i, why in held.bad.items()}
        required = next((f.name for f in self._keys.schema if not f.nullable), None)
        if required is not None or self._how.tombstones == "delete":
            reason = f"the message has no key for column '{required or self._keys.schema.field(0).name}'"
            bad |= {i: (NULL_VALUE, reason) for i, key in enumerate(keys) if key is None}
        return Columns(held.data, good, bad)

    def _weights(
        self, value: Columns | None, good: np.ndarray, gone: np.ndarray | None, rows: Int64Array
    ) -> Int64Array | None:
        if self._how.tombstones == "delete" and gone is not None:
            return np.where(gone[rows], -1, 1).astype(np.int64)
        if value is None or value.weights is None:
            return None
        counts = value.counts
        assert counts is not None
        return value.weights[np.repeat(good[value.good], counts)]


def _picked(places: Sequence[int], value: Columns, good: np.ndarray) -> dict[int, pa.Array]:
    """The value columns of the messages that are good in all their parts."""
    keep = good[value.good]
    if value.counts is not None:
        keep = np.repeat(keep, value.counts)
    data = value.data if keep.all() else value.data.filter(pa.array(keep))
    return dict(zip(places, data.columns, strict=True))


def _spread(found: Columns, count: int) -> list[pa.Array]:
    """Columns with one row for each message, NULL for those that gave none."""
    if found.good.all():
        return list(found.data.columns)
    at = np.full(count, -1, np.int64)
    at[found.good] = np.arange(found.data.num_rows)
    if not found.data.num_rows:
        return [pa.nulls(count, f.type) for f in found.data.schema]
    index = pa.array(at, mask=at < 0)
    return [column.take(index) for column in found.data.columns]


def _nulls(schema: pa.Schema, count: int) -> pa.RecordBatch:
    fields = [f.with_nullable(True) for f in schema]
    return pa.RecordBatch.from_arrays([pa.nulls(count, f.type) for f in fields], schema=pa.schema(fields))
