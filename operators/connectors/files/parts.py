"""Writers of one file each, by format: rows in, bytes on local disk. Knows nothing of checkpoints."""

from __future__ import annotations

import os
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from millrace.operators.batch import Batch, Int64Array
from millrace.operators.formats.encoding import csv_header, csv_lines, debezium_json, json_lines

WEIGHT = "__weight"
OP = "op"


class PartWriter(Protocol):
    """One file being written."""

    def write(self, batch: Batch) -> None:
        """Append rows."""
        ...

    @property
    def size(self) -> int:
        """Bytes written so far, about."""
        ...

    def finish(self) -> None:
        """Complete the file and sync it to disk."""
        ...

    def abandon(self) -> None:
        """Close without completing."""
        ...


def file_schema(schema: pa.Schema, change_column: str) -> pa.Schema:
    """Columns of the file: those of the rows, and the one that says what a row does where there is one."""
    if not change_column:
        return schema
    type_ = pa.int64() if change_column == WEIGHT else pa.string()
    return schema.append(pa.field(change_column, type_, nullable=False))


def file_rows(batch: Batch, schema: pa.Schema, change_column: str) -> pa.RecordBatch:
    """The batch in the file's columns (`schema`); weights of +n without a change column are n rows."""
    data, weights = batch.data, batch.weights
    if not change_column:
        if weights is not None and (weights != 1).any():
            assert (weights > 0).all(), "an append stream holds a retraction"
            data = data.take(pa.array(np.repeat(np.arange(len(weights)), weights)))
        return pa.RecordBatch.from_arrays(data.columns, schema=schema)
    given: Int64Array = np.ones(batch.num_rows, np.int64) if weights is None else weights
    if change_column == WEIGHT:
        change = pa.array(given)
    else:
        change = pa.array(np.where(given > 0, "insert", "delete"), pa.string())
    return pa.RecordBatch.from_arrays([*data.columns, change], schema=schema)


def part_writer(
    path: str,
    format: str,
    schema: pa.Schema,
    change_column: str,
    delimiter: str,
    header: bool,
    codec: str | None,
) -> PartWriter:
    """A writer of a new file at `path`."""
    if format in ("parquet", "arrow"):
        return _ColumnarPart(path, format, file_schema(schema, change_column), change_column, codec)
    return _TextPart(
        path, format, file_schema(schema, change_column), change_column, delimiter, header, codec
    )


class _TextPart:
    def __init__(
        self,
        path: str,
        format: str,
        schema: pa.Schema,
        change_column: str,
        delimiter: str,
        header: bool,
        codec: str | None,
    ) -> None:
        self._path = path
        self._format = format
        self._schema = schema
        self._change_column = change_column
        self._delimiter = delimiter
        self._size = 0
        self._out: pa.NativeFile = pa.OSFile(path, "wb")
        if codec is not None:
            self._out = pa.CompressedOutputStream(self._out, codec)
        if header and format == "csv":
            self._put(csv_header(schema, delimiter))

    def _put(self, data: bytes) -> None:
        self._out.write(data)
        self._size += len(data)

    def write(self, batch: Batch) -> None:
        if self._format == "debezium-json":
            self._put(debezium_json(batch.data, batch.weights))
            return
        rows = file_rows(batch, self._schema, self._change_column)
        self._put(json_lines(rows) if self._format == "json" else csv_lines(rows, self._delimiter))

    @property
    def size(self) -> int:
        return self._size

    def finish(self) -> None:
        self._out.close()
        sync(self._path)

    def abandon(self) -> None:
        self._out.close()


class _ColumnarPart:
    def __init__(
        self, path: str, format: str, schema: pa.Schema, change_column: str, codec: str | None
    ) -> None:
        self._path = path
        self._schema = schema
        self._change_column = change_column
        self._size = 0
        self._out = pa.OSFile(path, "wb")
        if format == "parquet":
            self._writer = pq.ParquetWriter(
                self._out, schema, compression=codec or "snappy", write_page_checksum=True
            )
        else:
            options = pa.ipc.IpcWriteOptions(compression=codec if codec in ("zstd", "lz4") else None)
            self._writer = pa.ipc.new_file(self._out, schema, options=options)

    def write(self, batch: Batch) -> None:
        rows = file_rows(batch, self._schema, self._change_column)
        self._writer.write_batch(rows)
        self._size += rows.nbytes

    @property
    def size(self) -> int:
        return self._size

    def finish(self) -> None:
        self._writer.close()
        self._out.close()
        sync(self._path)

    def abandon(self) -> None:
        self._writer.close()
        self._out.close()


def sync(path: str) -> None:
    """Make a file's bytes, or a folder's entries, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
