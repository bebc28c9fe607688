"""The `push` source: rows come from Python in whatever form they are, and leave as batches of the declared columns."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import ClassVar

import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.batch import Batch
from millrace.operators.connectors.coercion import to_batches
from millrace.operators.connectors.options import Kind, Option, Options
from millrace.operators.connectors.registry import Connector
from millrace.operators.operator import Context
from millrace.operators.source import BadRecord, Polled, Position, Source, SourceSpec, SplitReader

__all__ = ["CONNECTOR", "PushReader", "PushSource", "PushSpec", "to_batches"]

SPLIT = "push"


@dataclass(frozen=True, slots=True)
class PushSpec(SourceSpec):
    """Columns of the rows that will be pushed. `name` is the source's name, so that two are never taken for one.

    `columns` are those that are read, all where None; what is pushed has all columns of `schema`.
    """

    title: ClassVar[str] = "push"
    schema: pa.Schema
    name: str = ""
    wal: bool | None = None
    """Whether rows are logged to disk before `push` returns; None: where the database keeps checkpoints."""
    columns: tuple[int, ...] | None = None

    @property
    def output_schema(self) -> pa.Schema:
        return (
            self.schema if self.columns is None else pa.schema([self.schema.field(i) for i in self.columns])
        )

    @property
    def bounded(self) -> bool:
        return False

    @property
    def replayable(self) -> bool:
        return False

    def build(self, context: Context) -> PushSource:
        return PushSource(self)

    def with_columns(self, columns: tuple[int, ...]) -> PushSpec:
        chosen = columns if self.columns is None else tuple(self.columns[i] for i in columns)
        return replace(self, columns=chosen)

    def project(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The columns that are read of a batch of `schema`, or of one with more columns behind, without a copy."""
        if self.columns is not None:
            return batch.select(list(self.columns))
        return batch if batch.num_columns == len(self.schema) else batch.select(range(len(self.schema)))


class PushSource(Source):
    """A queue of batches from any threads to the one that polls. It has one split, which ends with `close`."""

    def __init__(self, spec: PushSpec) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._waiting: deque[tuple[pa.RecordBatch | None, list[BadRecord]]] = deque()
        self._closed = False

    def push(self, data: object) -> int:
        """Convert `data` (see `to_batches`) and queue it; answers how many rows fitted the columns.

        Raises Invalid MR1441 after `close`, MR1440 where `data` is nothing that holds rows.
        """
        batches, bad = to_batches(data, self._spec.schema)
        with self._lock:
            if self._closed:
                raise Invalid(
                    f"push source {self._spec.name!r} was ended", code="MR1441", hint="create another source"
                )
            self._waiting.extend((self._spec.project(batch), []) for batch in batches)
            if bad:
                self._waiting.append((None, bad))
        return sum(batch.num_rows for batch in batches)

    def discover(self) -> list[str]:
        return [SPLIT]

    def open(self, split: str, position: Position | None) -> PushReader:
        return PushReader(self, 0 if position is None else int(position["row"]))

    def close(self) -> None:
        """No row follows; what is queued is still read."""
        with self._lock:
            self._closed = True

    def take(self, max_rows: int) -> Polled | None:
        """The oldest queued rows, at most `max_rows`; None where there are none."""
        with self._lock:
            if not self._waiting:
                return None
            data, bad = self._waiting.popleft()
            if data is not None and data.num_rows > max_rows:
                self._waiting.appendleft((data.slice(max_rows), bad))
                data, bad = data.slice(0, max_rows), []
        return Polled(None if data is None else Batch(data), bad)

    @property
    def drained(self) -> bool:
        """Whether it is closed and all was read."""
        with self._lock:
            return self._closed and not self._waiting


class PushReader(SplitReader):
    """Reads the queue. The position counts rows and serves for people only: what was read is gone."""

    def __init__(self, source: PushSource, row: int) -> None:
        self.split = SPLIT
        self._source = source
        self._row = row

    def poll(self, max_rows: int) -> Polled | None:
        polled = self._source.take(max_rows)
        if polled is not None and polled.batch is not None:
            self._row += polled.batch.num_rows
        return polled

    @property
    def position(self) -> Position:
        return {"row": self._row}

    @property
    def ended(self) -> bool:
        return self._source.drained


def source(options: Options, declared: pa.Schema | None, format: str | None) -> SourceSpec:
    """The spec of declared columns. Raises Invalid MR1442 without columns, MR1435 with a format."""
    if declared is None or not len(declared):
        raise Invalid(
            "a push source needs its columns declared",
            code="MR1442",
            hint="CREATE SOURCE name (column TYPE, …) WITH ('connector' = 'push')",
        )
    if format is not None:
        raise Invalid(
            f"rows are pushed as they are, without a format {format!r}", code="MR1435", hint="leave it out"
        )
    wal = options.flag("wal") if "wal" in options.given else None
    return PushSpec(declared, wal=wal)


CONNECTOR = Connector(
    name="push",
    doc="Rows that Python hands over: db.push(name, rows).",
    source_options=(Option("wal", "log rows to disk before they are acknowledged", Kind.FLAG),),
    source=source,
)
