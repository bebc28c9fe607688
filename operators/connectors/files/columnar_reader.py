"""Reads one Parquet or Arrow file batch by batch, only the columns asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from millrace.operators.batch import Batch
from millrace.operators.connectors.files.storage import Storage
from millrace.operators.formats.columns import Conformed, conform
from millrace.operators.formats.records import CORRUPT_BLOCK, FIELD_COUNT, PAYLOAD_BYTES_MAX, TRUNCATED
from millrace.operators.source import BadRecord, Polled, Position, SplitReader

_FAILURES = (pa.ArrowException, OSError, ValueError, KeyError, IndexError, NotImplementedError, MemoryError)
_PATIENCE = 100
"""How many looks an unreadable file of a followed folder gets without growing, before it is bad."""


class ColumnarReader(SplitReader):
    """Rows of one file; the position is a row group (Parquet) or record batch (Arrow) and rows given out of it."""

    def __init__(
        self,
        split: str,
        storage: Storage,
        format: str,
        schema: pa.Schema,
        *,
        follow: bool,
        ready: Callable[[], bool],
        position: Position | None,
    ) -> None:
        self.split = split
        self._storage = storage
        self._parquet = format == "parquet"
        self._schema = schema
        self._follow = follow
        self._ready = ready
        at = position or {}
        self._group = int(at.get("group", 0))
        self._row = int(at.get("row", 0))
        self._groups: _Groups | None = None
        self._rows: Iterator[pa.RecordBatch] | None = None
        self._rest: pa.RecordBatch | None = None
        self._at = 0
        self._done = False
        self._looks = 0
        self._size = -1

    @property
    def ended(self) -> bool:
        # In a followed folder a columnar file is whole once it can be read, so that it ends too.
        return self._done and not self._follow

    @property
    def position(self) -> Position:
        return {"group": self._group, "row": self._row}

    def poll(self, max_rows: int) -> Polled | None:
        if self._done:
            return None
        if self._groups is None:
            failed = self._open()
            if failed is not None or self._groups is None:
                return failed
        if self._group >= self._groups.count:
            self._finish()
            return None
        try:
            data = self._next(max_rows)
        except _FAILURES as error:
            return self._bad_group(error)
        if data is None:
            self._group, self._row, self._rows, self._at = self._group + 1, 0, None, 0
            return Polled(None)
        found: Conformed = conform(data, self._schema)
        start = self._row
        self._row += data.num_rows
        self._at = self._row
        bad = [
            BadRecord(row.code, row.reason, self.split, self._where(start + row.line), row.payload)
            for row in found.bad
        ]
        return Polled(Batch(found.data) if found.data.num_rows else None, bad)

    def close(self) -> None:
        self._rows = self._rest = None
        if self._groups is not None:
            self._groups.close()
            self._groups = None

    def _where(self, row: int) -> str:
        return f"{'row group' if self._parquet else 'batch'} {self._group}, row {row}"

    def _open(self) -> Polled | None:
        try:
            opener = _ParquetGroups if self._parquet else _arrow_groups
            groups = opener(self._storage.arrow(self.split), self._schema.names)
        except _FAILURES as error:
            return self._unreadable(error)
        if groups.missing:
            self._groups = groups
            name = groups.missing[0]
            reason = f"the file has no column '{name}'; none of its {groups.rows} rows is read"
            self._finish()
            return Polled(None, [BadRecord(FIELD_COUNT, reason, self.split, "schema", b"")])
        self._groups = groups
        return None

    def _unreadable(self, error: Exception) -> Polled | None:
        state = self._storage.state(self.split)
        size = -1 if state is None else state.size
        if self._follow:
            if not self._ready():
                return None
            self._looks = self._looks + 1 if size == self._size else 0
            self._size = size
            if self._looks < _PATIENCE:
                return None
        self._done = True
        self._group += 1
        return Polled(
            None, [BadRecord(TRUNCATED, f"the file can not be read: {error}", self.split, "file", b"")]
        )

    def _bad_group(self, error: Exception) -> Polled:
        assert self._groups is not None
        rows = self._groups.rows_of(self._group)
        left = "" if rows is None else f" ({rows - self._row} rows)"
        reason = f"{self._where(self._row)} and what follows in it{left} can not be read: {error}"
        where = self._where(self._row)
        lost = self._groups.skips
        self._group, self._row, self._rows, self._rest, self._at = self._group + 1, 0, None, None, 0
        if not lost:
            self._group = max(self._group, self._groups.count)
            self._finish()
        payload = str(error).encode()[:PAYLOAD_BYTES_MAX]
        return Polled(None, [BadRecord(CORRUPT_BLOCK, reason, self.split, where, payload)])

    def _next(self, max_rows: int) -> pa.RecordBatch | None:
        """The next rows of the current group, None at its end."""
        assert self._groups is not None
        if self._rows is None:
            self._rows = self._groups.read(self._group, max_rows)
            self._rest, self._at = None, 0
        while True:
            data = self._rest if self._rest is not None else next(self._rows, None)
            self._rest = None
            if data is None:
                return None
            if self._at + data.num_rows <= self._row:
                self._at += data.num_rows
                continue
            if self._at < self._row:
                data = data.slice(self._row - self._at)
                self._at = self._row
            if data.num_rows > max_rows:
                self._rest = data.slice(max_rows)
                data = data.slice(0, max_rows)
            data.validate(full=True)
            return data

    def _finish(self) -> None:
        self._done = True
        self.close()


class _Groups:
    """The groups of rows of a file: how many, and the rows of each as batches."""

    count: int
    rows: int
    missing: list[str]
    skips: bool
    """Whether a group can be read when the one before it can't."""

    def read(self, group: int, max_rows: int) -> Iterator[pa.RecordBatch]:
        raise NotImplementedError

    def rows_of(self, group: int) -> int | None:
        return None

    def close(self) -> None:
        return


class _ParquetGroups(_Groups):
    def __init__(self, source: pa.NativeFile, names: list[str]) -> None:
        self._source = source
        self._file = pq.ParquetFile(source, pre_buffer=False)
        self._names = names
        known = set(self._file.schema_arrow.names)
        self.count = self._file.num_row_groups
        self.rows = self._file.metadata.num_rows
        self.missing = [name for name in names if name not in known]
        self.skips = True

    def read(self, group: int, max_rows: int) -> Iterator[pa.RecordBatch]:
        batches = self._file.iter_batches(
            batch_size=max_rows, row_groups=[group], columns=self._names, use_threads=False
        )
        return (batch.select(self._names) for batch in batches)

    def rows_of(self, group: int) -> int | None:
        return int(self._file.metadata.row_group(group).num_rows)

    def close(self) -> None:
        self._file.close()
        self._source.close()


class _ArrowFileGroups(_Groups):
    def __init__(self, source: pa.NativeFile, names: list[str]) -> None:
        self._source = source
        self._names = names
        known = pa.ipc.open_file(source).schema
        self.missing = [name for name in names if name not in known.names]
        places = sorted({known.get_field_index(name) for name in names} - {-1})
        self._file = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=places))
        self.count = self._file.num_record_batches
        self.rows = -1
        self.skips = True

    def read(self, group: int, max_rows: int) -> Iterator[pa.RecordBatch]:
        yield self._file.get_batch(group).select(self._names)

    def close(self) -> None:
        self._source.close()


class _ArrowStreamGroups(_Groups):
    def __init__(self, source: pa.NativeFile, names: list[str]) -> None:
        self._source = source
        self._names = names
        self._stream = pa.ipc.open_stream(source)
        known = set(self._stream.schema.names)
        self.missing = [name for name in names if name not in known]
        self.count = 1 << 62
        self.rows = -1
        self.skips = False
        self._next = 0

    def read(self, group: int, max_rows: int) -> Iterator[pa.RecordBatch]:
        while self._next < group:
            self._stream.read_next_batch()
            self._next += 1
        try:
            batch = self._stream.read_next_batch()
        except StopIteration:
            self.count = group
            return
        self._next += 1
        yield batch.select(self._names)

    def close(self) -> None:
        self._stream.close()
        self._source.close()


def _arrow_groups(source: pa.NativeFile, names: list[str]) -> _Groups:
    magic = source.read(6)
    source.seek(0)
    return _ArrowFileGroups(source, names) if magic == b"ARROW1" else _ArrowStreamGroups(source, names)
