"""The contract between an operator and whoever drives it. Knows no particular operator and no clock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from millrace.operators.batch import Batch

VNODE = "_vnode"
"""Name of the uint16 column that every state table carries."""


@dataclass(frozen=True, slots=True)
class StateDelta:
    """One state table of one operator as captured.

    `rows` holds the table's columns and `_vnode`; `key` names the columns that identify a row.
    Where `complete`, `rows` is the whole table; otherwise it is the rows inserted or changed since the
    last capture, and `deleted` (key columns and `_vnode`) those removed since. What is captured is
    never written to again by the operator.
    """

    key: tuple[str, ...]
    rows: pa.RecordBatch
    deleted: pa.RecordBatch | None = None
    complete: bool = True


Capture = dict[str, StateDelta]
"""Everything an operator remembers, by state-table name."""


class Context(Protocol):
    """What an operator may ask of its surroundings."""

    vnodes: int
    """Number of vnodes of the job, fixed for life (256 by default)."""

    def now(self) -> int:
        """Processing time in µs since the epoch."""
        ...

    def late(self, batch: Batch) -> None:
        """Hand over rows that came after everything they belong to had closed.

        They have the operator's input schema; of a join, the columns of both sides (`joins.late`).
        """
        ...

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        """Hand over rows that did not compute, with an error code and the reason."""
        ...


@dataclass(slots=True)
class OperatorMetrics:
    """Counters that every operator keeps; more go to `extra` by name."""

    rows_in: int = 0
    rows_out: int = 0
    late_rows: int = 0
    dead_rows: int = 0
    extra: dict[str, int] = field(default_factory=dict)


class Operator(ABC):
    """One node of a dataflow, driven by one thread.

    The driver calls `process` for each batch, then `on_watermark` whenever the minimum over the
    operator's inputs rises, and `on_time` from time to time. What a call returns goes downstream before
    the watermark that caused it. Batches with no rows are never passed and need not be returned.
    """

    inputs: int = 1
    """How many input ports there are, numbered from 0."""

    @property
    def state_rows(self) -> int | None:
        """How many rows are remembered, where the operator can tell at once."""
        return None

    @property
    def state_bytes(self) -> int | None:
        """How many bytes these take, with all that finds them."""
        return None

    @abstractmethod
    def process(self, port: int, batch: Batch) -> Iterable[Batch]:
        """Take one batch of input `port` in; it must not be written to.

        The answer is read to its end before the next call: what comes of one batch may be too much to be made at once.
        """

    def on_watermark(self, watermark: int) -> list[Batch]:
        """No row older than `watermark` (µs) follows on any port; END_OF_TIME when all input has ended.

        Rises strictly from call to call.
        """
        return []

    def output_watermark(self, watermark: int) -> int:
        """What may be promised downstream once `on_watermark(watermark)` has returned."""
        return watermark

    def on_time(self, now: int) -> list[Batch]:
        """Processing time has come to `now` (µs). Called before each poll round and at least every 100 ms."""
        return []

    def capture(self, *, changes: bool) -> Capture:
        """What the operator remembers; with `changes`, only what changed since the last capture."""
        return {}

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        """Load whole state tables (as `StateDelta.rows`) into a new operator before its first batch.

        Rows of several former partitions may be concatenated; only owned vnodes are passed.
        """
        assert not tables, f"{type(self).__name__} keeps no state"

    def close(self) -> None:
        """Free what is held; called once, last."""
        return


class StatelessOperator(Operator):
    """An operator with one input and nothing to remember."""

    def process(self, port: int, batch: Batch) -> list[Batch]:
        out = self.apply(batch)
        return [out] if out is not None and out.num_rows else []

    @abstractmethod
    def apply(self, batch: Batch) -> Batch | None:
        """The output of one batch, or None where no row is left."""
