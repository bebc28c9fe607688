"""The contract of sources: splits, readers and positions. Knows no particular connector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pyarrow as pa

from millrace.operators.batch import Batch
from millrace.operators.expressions.tree import Expression
from millrace.operators.operator import Context
from millrace.operators.spec import serialisable

Position = dict[str, int | str | bytes]
"""Where a split is to be read from; a reader's own small record, stored in checkpoints."""


@serialisable
@dataclass(frozen=True, slots=True)
class EventTime:
    """How rows get their event time and the split its watermark. All durations in µs.

    `column` indexes the source's schema: a timestamp, or BIGINT epoch `unit` (s, ms, us, ns).
    The watermark is the greatest time seen minus `out_of_orderness` (and minus 1 µs, so that a row equal to it may
    still follow). A row more than `future_skew` ahead of the clock does not move it. A split silent for `idle_timeout`
    stops holding the others back.
    """

    column: int
    out_of_orderness: int = 0
    idle_timeout: int | None = 5_000_000
    future_skew: int | None = 300_000_000
    unit: str = "ms"


@dataclass(frozen=True, slots=True)
class BadRecord:
    """One record that did not decode: `payload` as read, `position` for people (line, offset, row)."""

    code: str
    reason: str
    split: str
    position: str
    payload: bytes


@dataclass(slots=True)
class Polled:
    """What one poll brought: decoded rows in the source's schema, and the records that did not decode."""

    batch: Batch | None
    bad: list[BadRecord] = field(default_factory=list)


class SplitReader(ABC):
    """Reads one split in order. Driven by one thread."""

    split: str

    @abstractmethod
    def poll(self, max_rows: int) -> Polled | None:
        """Up to `max_rows` further rows; None where there is nothing now. Does not wait longer than a few ms."""

    @property
    @abstractmethod
    def position(self) -> Position:
        """Where a new reader must begin to get exactly the rows not yet polled."""

    @property
    @abstractmethod
    def ended(self) -> bool:
        """Whether a bounded split has given all it has."""

    @property
    def lag(self) -> int | None:
        """How many records there are that it has not read; None where it does not know. From any thread, at once."""
        return None

    @property
    def caught_up(self) -> bool:
        """Whether a poll in vain means that there is nothing, and not that it did not come yet.

        Only a split that has caught up can fall idle: what is on its way would be late.
        """
        return True

    def close(self) -> None:
        """Release files and connections."""
        return


class Source(ABC):
    """Finds splits and opens readers on them."""

    @abstractmethod
    def discover(self) -> list[str]:
        """Names of all splits there are now, stable and in order; called at start and while running."""

    def begin(self, splits: Sequence[str], *, first: bool) -> dict[str, Position]:
        """Where splits begin that nobody has read; a cluster asks once and keeps the answer.

        Those left out begin where `open(split, None)` says, which is then the same at any time. `first`: they were
        there when the source was first read.
        """
        return {}

    @abstractmethod
    def open(self, split: str, position: Position | None) -> SplitReader:
        """A reader on `split` from `position`, or from the configured start where that is None."""

    def close(self) -> None:
        """Release what the splits share."""
        return


class SourceSpec(ABC):
    """Base of source specs (frozen dataclasses): a connector with its options and the schema of its rows."""

    title: ClassVar[str]

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        serialisable(cls)

    @property
    @abstractmethod
    def output_schema(self) -> pa.Schema:
        """Columns of the decoded rows."""

    @property
    @abstractmethod
    def bounded(self) -> bool:
        """Whether the input ends by itself."""

    @property
    def replayable(self) -> bool:
        """Whether the same position gives the same rows again."""
        return True

    @property
    def keeps_rows(self) -> bool:
        """Whether rows that were read once are there for ever: neither retention nor compaction takes them."""
        return True

    @abstractmethod
    def build(self, context: Context) -> Source:
        """A source ready to discover."""

    @abstractmethod
    def with_columns(self, columns: tuple[int, ...]) -> SourceSpec:
        """The same source producing only these columns, in this order (projection pushdown)."""

    def with_metadata(self) -> SourceSpec:
        """The same source whose schema ends in further columns, of its records' metadata, that a query may name."""
        return self

    def details(self) -> dict[str, str]:
        """What EXPLAIN shows of the source."""
        return {}


@serialisable
@dataclass(frozen=True, slots=True)
class SourceInput:
    """A source as a plan holds it: columns computed from the decoded ones, then event time on the result."""

    source: SourceSpec
    computed: tuple[Expression, ...] | None
    schema: pa.Schema
    event_time: EventTime | None
    bad_rows: str = "skip"
    """`fail`, `skip` (counted) or the name of the dead-letter table."""
