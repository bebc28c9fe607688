"""The contract of sinks: write, seal, publish. Knows no particular connector."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from typing import ClassVar

import pyarrow as pa

from millrace.operators.batch import Batch
from millrace.operators.operator import Context
from millrace.operators.spec import serialisable


@serialisable
class Changelog(enum.Enum):
    """What a stream's rows mean to those that came before."""

    APPEND = "append"
    UPSERT = "upsert"
    """+1 replaces the row with the same key, −1 removes it."""
    RETRACT = "retract"
    """−1 takes back exactly one equal row sent before."""


class Commit(enum.Enum):
    """What a sink can promise about rows that a checkpoint covers."""

    TRANSACTIONAL = "transactional"
    """Publishing outbox `n` twice shows it once."""
    NONE = "none"
    """Rows are visible as they are written; after a restart some may be written again."""


class Sink(ABC):
    """Takes rows; what is sealed as outbox `n` becomes visible by `publish(n)`.

    `write` and `seal` come from one thread. `fence`, `marker` and `publish` come one at a time, in a cluster from
    another thread than those.
    """

    @abstractmethod
    def write(self, batch: Batch) -> None:
        """Take rows of the sink's schema in; a sink with Commit.NONE may show them at once."""

    def seal(self, checkpoint: int) -> bytes:
        """End outbox `checkpoint`: a description (or the rows) from which `publish` works even in another process.

        Empty where there is nothing to publish.
        """
        return b""

    def fence(self) -> None:
        """Refuse from now on whoever published under this sink's name before. Raises `Fenced` in its turn."""
        return

    def marker(self) -> int | None:
        """The greatest checkpoint that was published under this sink's name, asked for after `fence`.

        None where there is none, and where a sink knows by itself what it has shown.
        """
        return None

    def publish(self, checkpoint: int, outbox: bytes) -> None:
        """Make a sealed outbox visible; called in order of `checkpoint`, perhaps again after a crash."""
        return

    def close(self) -> None:
        """Release what is held. Rows not sealed are not shown."""
        return


class SinkSpec(ABC):
    """Base of sink specs (frozen dataclasses)."""

    title: ClassVar[str]
    commit: ClassVar[Commit]
    changelogs: ClassVar[frozenset[Changelog]]
    """Changelog modes the sink takes; the planner refuses others."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        serialisable(cls)

    @property
    @abstractmethod
    def input_schema(self) -> pa.Schema:
        """Columns of the rows it takes."""

    @property
    def row_key(self) -> tuple[int, ...] | None:
        """Columns by which the sink replaces rows, where it was told which (None: it does not, or was not told)."""
        return None

    @abstractmethod
    def build(self, context: Context, partition: int) -> Sink:
        """A sink of job partition `partition` (from 0)."""

    def in_job(self, job: str, sink: str, guarantee: str) -> SinkSpec:
        """The sink as job `job` runs it under this guarantee, where it is called `sink`.

        Names that are known outside begin with both: no other job has them, and they hold for the job's life.
        """
        return self

    def details(self) -> dict[str, str]:
        """What EXPLAIN shows of the sink."""
        return {}
