"""The nodes at the bottom of a plan: sources, constant rows, and what is read by its name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import pyarrow as pa

from millrace.operators.side import DEAD_LETTER_SCHEMA
from millrace.operators.sink import Changelog
from millrace.operators.source import SourceInput
from millrace.planner.logical.relation import Positions, Relation, Unary, place, places


@dataclass(frozen=True)
class Scan(Relation):
    """The rows of a source; `columns` are the positions kept of those the source input has."""

    name: str
    input: SourceInput
    columns: Positions
    primary_key: Positions | None = None
    mode: Changelog = Changelog.APPEND
    offered: Positions = ()
    """Further positions of the source input, which only a query that names those columns reads."""

    @cached_property
    def schema(self) -> pa.Schema:
        return pa.schema([self.input.schema.field(c) for c in self.columns])

    @property
    def event_time(self) -> int | None:
        time = self.input.event_time
        return place(self.columns, None if time is None else time.column)

    @property
    def time_unit(self) -> str:
        return "ms" if self.input.event_time is None else self.input.event_time.unit

    @property
    def changelog(self) -> Changelog:
        return self.mode

    @property
    def key(self) -> Positions | None:
        return places(self.columns, self.primary_key)

    @property
    def bounded(self) -> bool:
        return self.input.source.bounded


@dataclass(frozen=True)
class Rows(Relation):
    """Columns alone: what an expression is bound over that belongs to no query. It never runs."""

    columns: pa.Schema

    @cached_property
    def schema(self) -> pa.Schema:
        return self.columns


@dataclass(frozen=True)
class Read(Unary):
    """A stream or table by name: the plan computes it once for all its readers, so no rule looks through it."""

    name: str
    table: bool = False
    snapshot: bool = False
    """What a table holds now is read, once: insertions only."""

    @property
    def changelog(self) -> Changelog:
        below = self.input.changelog
        kept = self.table and below is Changelog.UPSERT  # a table knows the row that it replaces
        return Changelog.APPEND if self.snapshot else Changelog.RETRACT if kept else below


def as_snapshot(relation: Relation) -> Relation:
    """The relation with every table in it read as it is now."""
    if isinstance(relation, Read):
        return replace(relation, snapshot=True) if relation.table else relation
    if not relation.inputs:
        return relation
    return relation.with_inputs(*(as_snapshot(item) for item in relation.inputs))


@dataclass(frozen=True)
class BadRecords(Unary):
    """The records of the source it reads that did not decode."""

    input: Scan

    @cached_property
    def schema(self) -> pa.Schema:
        return DEAD_LETTER_SCHEMA

    @property
    def event_time(self) -> int | None:
        return None

    @property
    def changelog(self) -> Changelog:
        return Changelog.APPEND

    @property
    def key(self) -> Positions | None:
        return None
