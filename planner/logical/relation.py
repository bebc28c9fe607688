"""What every node of the logical plan is: columns, event time, changelog mode, key and window bounds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import pyarrow as pa

from millrace.operators.sink import Changelog

Positions = tuple[int, ...]


@dataclass(frozen=True)
class Relation(ABC):
    """A node. What is derived is computed once and kept."""

    @property
    def inputs(self) -> tuple[Relation, ...]:
        """The relations it reads, one a port."""
        return ()

    @cached_property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """Its columns."""

    @property
    def event_time(self) -> int | None:
        """The column that the watermark speaks of."""
        return None

    @property
    def time_unit(self) -> str:
        """What an event time of integers counts: s, ms, us or ns."""
        return self.inputs[0].time_unit if self.inputs else "ms"

    @property
    def changelog(self) -> Changelog:
        """What rows mean to those before."""
        return Changelog.APPEND

    @property
    def key(self) -> Positions | None:
        """Columns that identify a row, where there are such."""
        return None

    @property
    def other_time(self) -> int | None:
        """Another column that the watermark speaks of as well: a joined pair has two times."""
        return None

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        """Columns that hold the start and the end of the window a row belongs to."""
        return (None, None)

    @property
    def window_last(self) -> int | None:
        """The column that holds window_time, the last instant of that window."""
        return None

    @property
    def bounded(self) -> bool:
        """Whether its rows end by themselves."""
        return all(item.bounded for item in self.inputs)

    def with_inputs(self, *inputs: Relation) -> Relation:
        """The same node over other inputs of the same shape."""
        assert not inputs
        return self

    def walk(self) -> Iterator[Relation]:
        """The node and all below it, top first."""
        yield self
        for item in self.inputs:
            yield from item.walk()


@dataclass(frozen=True)
class Unary(Relation):
    """Base of nodes with one input whose rows it passes on, perhaps not all."""

    input: Relation

    @property
    def inputs(self) -> tuple[Relation, ...]:
        return (self.input,)

    @cached_property
    def schema(self) -> pa.Schema:
        return self.input.schema

    @property
    def event_time(self) -> int | None:
        return self.input.event_time

    @property
    def changelog(self) -> Changelog:
        return self.input.changelog

    @property
    def key(self) -> Positions | None:
        return self.input.key

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        return self.input.bounds

    @property
    def window_last(self) -> int | None:
        return self.input.window_last

    def with_inputs(self, *inputs: Relation) -> Relation:
        (only,) = inputs
        return self if only is self.input else replace(self, input=only)


def place(columns: Positions, column: int | None) -> int | None:
    """Where a column is among those kept."""
    return columns.index(column) if column is not None and column in columns else None


def places(columns: Positions, wanted: Positions | None) -> Positions | None:
    """Where all wanted columns are among those kept; None if one is not."""
    if wanted is None or any(c not in columns for c in wanted):
        return None
    return tuple(columns.index(c) for c in wanted)
