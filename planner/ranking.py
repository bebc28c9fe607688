"""Relations that put rows in an order by values: ranks and top-N. Knows no SQL text and no operator."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from millrace.errors import Position
from millrace.operators.sink import Changelog
from millrace.operators.spec import serialisable
from millrace.planner.logical import AssignWindow, Positions, Relation, Unary, WindowedAggregate


@serialisable
@dataclass(frozen=True, slots=True)
class SortKey:
    """One ORDER BY item: a column, its direction and where NULLs go."""

    column: int
    descending: bool = False
    nulls_first: bool = False


@dataclass(frozen=True)
class Ranking(Unary):
    """The input's columns and the rank of each row (`function`: row_number, rank, dense_rank) in its partition."""

    partition: Positions
    order: tuple[SortKey, ...]
    function: str
    name: str
    position: Position | None = field(default=None, compare=False)

    @cached_property
    def schema(self) -> pa.Schema:
        return pa.schema([*self.input.schema, pa.field(self.name, pa.int64())])

    @property
    def event_time(self) -> int | None:
        return self.input.event_time if self._keeps_time else None

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        return self.input.bounds if self._keeps_time else (None, None)

    @property
    def changelog(self) -> Changelog:
        return _top_mode(self)

    @property
    def key(self) -> Positions | None:
        return _top_key(self.input, self.partition, len(self.input.schema), self.function)

    @property
    def _keeps_time(self) -> bool:
        return not self.order or self.input.bounds[1] in self.partition


@dataclass(frozen=True)
class TopN(Unary):
    """The rows of each partition whose place in an order is above `offset` and at most `offset + limit`.

    `function` says how ties count; `rank_name` adds the place as a last column; `upsert` says only what replaces. Where `partition` has the
    end of a window of an append-only input, a window's rows come once, when it is over; elsewhere the
    output is a changelog that has no event time, since old rows come and go as others do.
    """

    partition: Positions
    order: tuple[SortKey, ...]
    limit: int | None
    offset: int = 0
    rank_name: str | None = None
    function: str = "row_number"
    position: Position | None = field(default=None, compare=False)
    upsert: bool = False

    @cached_property
    def schema(self) -> pa.Schema:
        rank = [] if self.rank_name is None else [pa.field(self.rank_name, pa.int64())]
        return pa.schema([*self.input.schema, *rank])

    @property
    def event_time(self) -> int | None:
        return self.input.event_time if self._keeps_time else None

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        return self.input.bounds if self._keeps_time else (None, None)

    @property
    def changelog(self) -> Changelog:
        return Changelog.UPSERT if self.upsert else _top_mode(self)

    @property
    def key(self) -> Positions | None:
        if self.limit == 1 and self.function == "row_number" and self.partition:
            return self.partition
        rank = None if self.rank_name is None else len(self.input.schema)
        return _top_key(self.input, self.partition, rank, self.function)

    @property
    def keeps_one(self) -> bool:
        """Whether each partition has one row from its first on, which others replace: `upsert` may then be set."""
        once = self.limit == 1 and self.offset == 0 and self.function == "row_number"
        appends = self.input.changelog is Changelog.APPEND and self.changelog is Changelog.RETRACT
        return once and appends and bool(self.partition)

    @property
    def _keeps_time(self) -> bool:
        return not self.order or self.input.bounds[1] in self.partition


def closing_end(below: Relation, partition: Positions) -> int | None:
    """The column with the end of the window that a partition of `below` is over with; None: it never is."""
    end = below.bounds[1]
    if end is None or end not in partition or not _of_event_time(below):
        return None
    return end if below.changelog is Changelog.APPEND else None


def _of_event_time(below: Relation) -> bool:
    """Whether the windows of its rows are over when a watermark says so: none is of processing time."""
    times = [node.time for node in below.walk() if isinstance(node, AssignWindow | WindowedAggregate)]
    return bool(times) and None not in times


def _top_mode(node: Ranking | TopN) -> Changelog:
    if closing_end(node.input, node.partition) is not None:
        return Changelog.APPEND
    # The first rows to arrive stay the first.
    stays = not node.order and node.input.changelog is Changelog.APPEND
    return Changelog.APPEND if stays else Changelog.RETRACT


def _top_key(below: Relation, partition: Positions, rank: int | None, function: str) -> Positions | None:
    """Columns that identify a ranked row. The key of an append-only input is only declared, so not relied on."""
    if rank is not None and function == "row_number":
        return (*partition, rank)
    kept = below.changelog is not Changelog.APPEND or closing_end(below, partition) is not None
    return below.key if kept else None
