"""A subscription: the rows of a stream as they come, to be iterated. Knows nothing of how they are made."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa

from millrace.errors import Invalid, MillraceError, Unavailable
from millrace.operators.batch import Batch

Item = TypeVar("Item")

WEIGHT = "_weight"
"""The int64 column that a changelog's batches carry: +1 inserts a row, −1 takes one back."""


class Subscription(Generic[Item]):
    """What follows on one stream, from the moment of subscribing, in the form asked for.

    Iterate it (`for`, `async for`), or `poll` it. Iteration ends when the input ends, or with `close`.
    At most `max_rows` rows wait; the next one makes the subscription fail with MR1510 rather than grow or
    stop the others. One reader at a time.
    """

    def __init__(
        self,
        name: str,
        schema: pa.Schema,
        convert: Callable[[pa.RecordBatch], list[Item]],
        *,
        changelog: bool,
        max_rows: int,
        on_close: Callable[[], None],
    ) -> None:
        self.name = name
        self.schema = schema.append(pa.field(WEIGHT, pa.int64())) if changelog else schema
        self._changelog = changelog
        self._convert = convert
        self._max_rows = max_rows
        self._on_close = on_close
        self._waiting: deque[Item] = deque()
        self._batches: deque[pa.RecordBatch] = deque()
        self._rows = 0
        self._ended = False
        self._failure: MillraceError | None = None
        self._changed = threading.Condition()
        self._wakers: list[Callable[[], None]] = []

    def deliver(self, batch: Batch) -> None:
        """Take one batch in; called by the runtime."""
        data = batch.data
        if self._changelog:
            weights = np.ones(batch.num_rows, np.int64) if batch.weights is None else batch.weights
            data = data.append_column(self.schema.field(len(self.schema) - 1), pa.array(weights))
        with self._changed:
            if self._ended:
                return
            if self._rows + data.num_rows > self._max_rows:
                self._fail_locked(
                    Unavailable(
                        f"subscription to {self.name!r} had {self._rows:,} rows waiting",
                        code="MR1510",
                        hint="read it faster, or subscribe with a larger max_rows",
                    )
                )
                return
            self._rows += data.num_rows
            self._batches.append(data)
            self._wake_locked()

    def finish(self) -> None:
        """No row follows; called by the runtime."""
        with self._changed:
            self._ended = True
            self._wake_locked()

    def fail(self, error: MillraceError) -> None:
        """The stream failed: what is waiting can still be read, then `error` is raised."""
        with self._changed:
            self._fail_locked(error)

    def poll(self, timeout: float | None = 0) -> Item | None:
        """The next item; None where none comes within `timeout` seconds (None: waits) or the stream ended."""
        with self._changed:
            while not self._waiting:
                if self._batches:
                    batch = self._batches.popleft()
                    self._rows -= batch.num_rows
                    self._waiting.extend(self._convert(batch))
                    continue
                if self._failure is not None:
                    raise self._failure
                if self._ended or not self._changed.wait(timeout):
                    return None
            return self._waiting.popleft()

    def close(self) -> None:
        """Stop the subscription; what is waiting is dropped."""
        with self._changed:
            self._ended = True
            self._batches.clear()
            self._waiting.clear()
            self._rows = 0
            self._wake_locked()
        self._on_close()

    def __iter__(self) -> Iterator[Item]:
        while (item := self.poll(timeout=None)) is not None:
            yield item

    async def __aiter__(self) -> AsyncIterator[Item]:
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(arrived.set)

        with self._changed:
            self._wakers.append(wake)
        try:
            while True:
                arrived.clear()
                item = self.poll()
                if item is not None:
                    yield item
                elif self._ended:
                    return
                else:
                    await arrived.wait()
        finally:
            with self._changed:
                self._wakers.remove(wake)

    def __enter__(self) -> Subscription[Item]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "ended" if self._ended else "open"
        return f"<Subscription to {self.name!r}: {state}, {self._rows + len(self._waiting):,} rows waiting>"

    def _fail_locked(self, error: MillraceError) -> None:
        self._failure = error
        self._ended = True
        self._wake_locked()

    def _wake_locked(self) -> None:
        self._changed.notify_all()
        for wake in self._wakers:
            wake()


def converter(form: str | type, schema: pa.Schema) -> Callable[[pa.RecordBatch], list[Any]]:
    """What makes items of a batch: "arrow", "rows" or a dataclass. Raises Invalid MR1504, MR1511."""
    match form:
        case "arrow":
            return as_batches
        case "rows":
            return as_rows
        case type():
            return as_objects(form, schema)
    raise Invalid(f"there is no form {form!r}", code="MR1504", hint="'arrow', 'rows' or a dataclass")


def as_batches(batch: pa.RecordBatch) -> list[pa.RecordBatch]:
    """Items that are whole Arrow batches."""
    return [batch]


def as_rows(batch: pa.RecordBatch) -> list[dict[str, object]]:
    """Items that are dicts."""
    return list(batch.to_pylist())


def as_objects(kind: type[Item], schema: pa.Schema) -> Callable[[pa.RecordBatch], list[Item]]:
    """Items that are instances of a dataclass, whose fields are picked from the columns by name.

    Raises Invalid MR1511 where `kind` is no dataclass or wants a column that is not there.
    """
    if not dataclasses.is_dataclass(kind):
        raise Invalid(
            f"{kind.__name__} is no dataclass",
            code="MR1511",
            hint="subscribe with 'arrow', 'rows' or a dataclass",
        )
    wanted = [field.name for field in dataclasses.fields(kind) if field.init]
    missing = [name for name in wanted if name not in schema.names]
    if missing:
        raise Invalid(
            f"{kind.__name__} has fields that are no columns: {', '.join(missing)}",
            code="MR1511",
            hint=f"the columns are {', '.join(schema.names)}",
        )

    def convert(batch: pa.RecordBatch) -> list[Item]:
        values = [batch.column(name).to_pylist() for name in wanted]
        return [kind(**dict(zip(wanted, row, strict=True))) for row in zip(*values, strict=True)]

    return convert
