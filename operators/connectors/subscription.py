"""The `subscription` sink: a bounded queue of batches from the thread that runs a job to one that reads its rows."""

from __future__ import annotations

import enum
import threading
from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from millrace.errors import Invalid, MillraceError, Unavailable
from millrace.operators.batch import Batch
from millrace.operators.connectors.options import Kind, Option, Options
from millrace.operators.connectors.registry import Connector
from millrace.operators.operator import Context
from millrace.operators.sink import Changelog, Commit, Sink, SinkSpec
from millrace.operators.spec import serialisable

MAX_ROWS = 1_000_000


@serialisable
class Full(enum.Enum):
    """What happens to a batch for which a queue has no room."""

    BLOCK = "block"
    """The writer waits; not for a reader on the writer's own thread."""
    REFUSE = "refuse"
    """The queue fails: the reader gets what waits and then MR1510. No row is left out silently."""


class BatchQueue:
    """Batches in order from one writer to one reader, at most `max_rows` rows of them (one batch always fits)."""

    def __init__(self, name: str, max_rows: int = MAX_ROWS, full: Full = Full.BLOCK) -> None:
        self.name = name
        self._max_rows = max_rows
        self._full = full
        self._batches: deque[Batch] = deque()
        self._rows = 0
        self._ended = False
        self._closed = False
        self._failure: MillraceError | None = None
        self._changed = threading.Condition()

    @property
    def rows(self) -> int:
        """Rows that wait to be read."""
        return self._rows

    def put(self, batch: Batch) -> bool:
        """Queue a batch, after waiting for room under BLOCK; False where nobody reads it any more."""
        with self._changed:
            while not self._has_room(batch.num_rows):
                if self._full is Full.REFUSE:
                    self._fail(
                        Unavailable(
                            f"subscription {self.name!r} had {self._rows:,} rows waiting and no room for more",
                            code="MR1510",
                            hint="read faster, raise max_rows, or let the writer wait: full = block",
                        )
                    )
                    return False
                self._changed.wait()
            if self._closed or self._failure is not None:
                return False
            assert not self._ended, f"subscription {self.name} was ended"
            self._batches.append(batch)
            self._rows += batch.num_rows
            self._changed.notify_all()
            return True

    def get(self, timeout: float | None = None) -> Batch | None:
        """The next batch; None at the end, or where `timeout` seconds brought none (see `ended`).

        Raises what the writer failed with, after all that it wrote before.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._batches or self._ended or self._closed or self._failure, timeout
            )
            if self._batches:
                batch = self._batches.popleft()
                self._rows -= batch.num_rows
                self._changed.notify_all()
                return batch
            if self._failure is not None:
                raise self._failure
            return None

    @property
    def ended(self) -> bool:
        """Whether nothing waits and nothing will come."""
        with self._changed:
            return not self._batches and (self._ended or self._closed)

    def end(self) -> None:
        """The writer has no more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def fail(self, error: MillraceError) -> None:
        """The writer met `error` and writes no more."""
        with self._changed:
            self._fail(error)

    def close(self) -> None:
        """The reader wants no more: what waits is dropped, a writer that waits goes on."""
        with self._changed:
            self._closed = True
            self._batches.clear()
            self._rows = 0
            self._changed.notify_all()

    def _fail(self, error: MillraceError) -> None:
        self._failure = self._failure or error
        self._changed.notify_all()

    def _has_room(self, rows: int) -> bool:
        if self._closed or self._failure is not None or not self._batches:
            return True
        return self._rows + rows <= self._max_rows


_queues: dict[str, BatchQueue] = {}
_queues_lock = threading.Lock()


def queue(name: str, max_rows: int = MAX_ROWS, full: Full = Full.BLOCK) -> BatchQueue:
    """The queue of this name in this process, made on first use by sink or reader; limits are those of the first."""
    with _queues_lock:
        return _queues.setdefault(name, BatchQueue(name, max_rows, full))


def forget(name: str) -> None:
    """Close the queue of this name and make it unknown, so that the name can be used anew."""
    with _queues_lock:
        known = _queues.pop(name, None)
    if known is not None:
        known.close()


@dataclass(frozen=True, slots=True)
class SubscriptionSpec(SinkSpec):
    """Rows of `schema` for whoever reads queue `name`; a changelog's batches have their weights."""

    title: ClassVar[str] = "subscription"
    commit: ClassVar[Commit] = Commit.NONE
    changelogs: ClassVar[frozenset[Changelog]] = frozenset(Changelog)
    schema: pa.Schema
    name: str
    max_rows: int = MAX_ROWS
    full: Full = Full.BLOCK

    @property
    def input_schema(self) -> pa.Schema:
        return self.schema

    def build(self, context: Context, partition: int) -> Sink:
        return SubscriptionSink(queue(self.name, self.max_rows, self.full))


class SubscriptionSink(Sink):
    """Puts batches on a queue; closing it ends the reader's iteration."""

    def __init__(self, target: BatchQueue) -> None:
        self._target = target

    def write(self, batch: Batch) -> None:
        self._target.put(batch)

    def close(self) -> None:
        self._target.end()


def sink(options: Options, schema: pa.Schema, changelog: Changelog, key: tuple[str, ...]) -> SinkSpec:
    """The spec. Raises Invalid MR1461 where no row may wait."""
    rows = options.integer("max_rows") or 0
    if rows < 1:
        raise Invalid(f"subscription option max_rows is {rows}; it is at least 1", code="MR1461")
    return SubscriptionSpec(schema, options.required("name"), rows, Full(options.required("full")))


CONNECTOR = Connector(
    name="subscription",
    doc="Rows for a reader in the same process.",
    sink_options=(
        Option("name", "what the reader calls it", required=True),
        Option("max_rows", "how many rows may wait", Kind.INTEGER, default=str(MAX_ROWS)),
        Option(
            "full", "what to do when they are so many", default="block", choices=tuple(f.value for f in Full)
        ),
    ),
    sink=sink,
)
