"""Relations that put rows in order: ranks and top-N. Sorts nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from millrace.errors import Position
from millrace.operators.sink import Changelog
from millrace.operators.spec import serialisable
from millrace.planner.logical import Positions, Unary


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
    def changelog(self) -> Changelog:
        return Changelog.RETRACT if closing_end(self) is None else Changelog.APPEND


@dataclass(frozen=True)
class TopN(Unary):
    """The rows of each partition whose place in an order is above `offset` and at most `offset + limit`.

    `function` says how ties count; `rank_name` adds the place as a last column.
    """

    partition: Positions
    order: tuple[SortKey, ...]
    limit: int | None
    offset: int = 0
    rank_name: str | None = None
    function: str = "row_number"
    position: Position | None = field(default=None, compare=False)

    @cached_property
    def schema(self) -> pa.Schema:
        rank = [] if self.rank_name is None else [pa.field(self.rank_name, pa.int64())]
        return pa.schema([*self.input.schema, *rank])

    @property
    def changelog(self) -> Changelog:
        return Changelog.RETRACT if closing_end(self) is None else Changelog.APPEND


def closing_end(node: Ranking | TopN) -> int | None:
    """The end of the window by which a ranking is partitioned, where its rows are complete with the window."""
    end = node.input.bounds[1]
    closes = end in node.partition and node.input.event_time is not None
    return end if closes and node.input.changelog is Changelog.APPEND else None
