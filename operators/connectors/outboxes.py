"""Rows on their way to a database or table: kept until the checkpoint, as Arrow IPC in the outbox. Knows no target."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from millrace.errors import Corrupt
from millrace.operators.batch import Batch

WEIGHT = "__weight"
"""The last column of an outbox: +1 for a row that is there now, −1 for one that is gone."""


class RowOutbox:
    """Collects batches of `schema` until `seal`."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema.remove_metadata().append(pa.field(WEIGHT, pa.int8()))
        self._batches: list[pa.RecordBatch] = []

    def write(self, batch: Batch) -> None:
        """Take rows in."""
        weights = np.ones(batch.num_rows, np.int8) if batch.weights is None else np.sign(batch.weights)
        columns = [*batch.data.columns, pa.array(weights, pa.int8())]
        rows = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        counts = None if batch.weights is None else np.abs(batch.weights)
        if counts is not None and (counts != 1).any():
            rows = rows.take(np.arange(len(counts)).repeat(counts))
        self._batches.append(rows)

    def seal(self) -> bytes:
        """Everything written since the last time; empty where nothing was."""
        if not self._batches:
            return b""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(
            sink, self._schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
        ) as writer:
            for batch in self._batches:
                writer.write_batch(batch)
        self._batches.clear()
        return sink.getvalue().to_pybytes()


def rows_of(outbox: bytes, what: str) -> pa.Table:
    """The rows that `RowOutbox.seal` gave, with their weights. Raises Corrupt MR5042."""
    try:
        with pa.ipc.open_stream(outbox) as reader:
            return reader.read_all()
    except (pa.ArrowException, OSError) as error:
        raise Corrupt(f"{what} does not decode: {error}", code="MR5042") from error


def last_of_each(rows: pa.Table, key: list[str]) -> pa.Table:
    """The last row of every key."""
    places = pa.table({**{name: rows[name] for name in key}, "at": pa.array(np.arange(rows.num_rows))})
    last = places.group_by(key).aggregate([("at", "max")])["at_max"]
    return rows.take(last.combine_chunks())
