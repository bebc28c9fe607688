"""The typed logical plan: immutable relations with derived schema, event time, changelog mode and key.

Columns are referred to by position, expressions are those of operator specs. Knows no SQL text and no operator.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import pyarrow as pa

from millrace.errors import Position
from millrace.operators.aggregates.calls import AggregateCall, Emission, EmissionKind, Window
from millrace.operators.expressions.tree import Column, Expression, Literal
from millrace.operators.side import DEAD_LETTER_SCHEMA
from millrace.operators.sink import Changelog
from millrace.operators.source import SourceInput
from millrace.operators.temporal_filter import Clock, TimeBound

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
class Scan(Relation):
    """The rows of a source; `columns` are the positions kept of those the source input has."""

    name: str
    input: SourceInput
    columns: Positions
    primary_key: Positions | None = None
    mode: Changelog = Changelog.APPEND

    @cached_property
    def schema(self) -> pa.Schema:
        return pa.schema([self.input.schema.field(c) for c in self.columns])

    @property
    def event_time(self) -> int | None:
        time = self.input.event_time
        return _place(self.columns, None if time is None else time.column)

    @property
    def time_unit(self) -> str:
        return "ms" if self.input.event_time is None else self.input.event_time.unit

    @property
    def changelog(self) -> Changelog:
        return self.mode

    @property
    def key(self) -> Positions | None:
        return _places(self.columns, self.primary_key)

    @property
    def bounded(self) -> bool:
        return self.input.source.bounded


@dataclass(frozen=True)
class Rows(Relation):
    """Constant rows, sent once; each row is one literal a column."""

    columns: pa.Schema
    rows: tuple[tuple[Literal, ...], ...]

    @cached_property
    def schema(self) -> pa.Schema:
        return self.columns


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
class LateInput(Unary):
    """The rows that came too late for the windowed aggregate it reads, with the columns of that one's input."""

    input: WindowedAggregate

    @cached_property
    def schema(self) -> pa.Schema:
        return self.input.input.schema

    @property
    def event_time(self) -> int | None:
        return None

    @property
    def changelog(self) -> Changelog:
        return Changelog.APPEND

    @property
    def key(self) -> Positions | None:
        return None

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        return (None, None)


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


@dataclass(frozen=True)
class Filter(Unary):
    """The rows for which `predicate` is true. An upsert stream is filtered only by columns of its key."""

    predicate: Expression


@dataclass(frozen=True)
class Project(Unary):
    """Columns computed from the input's, called `names`. `window_time`: this column is that of the bounds."""

    expressions: tuple[Expression, ...]
    names: tuple[str, ...]
    window_time: int | None = None

    @cached_property
    def schema(self) -> pa.Schema:
        below = self.input.schema
        return pa.schema(
            [
                below.field(e.index).with_name(n) if isinstance(e, Column) else pa.field(n, e.type)
                for e, n in zip(self.expressions, self.names, strict=True)
            ]
        )

    @cached_property
    def places(self) -> dict[int, int]:
        """Input column to the first output column that is just that."""
        found: dict[int, int] = {}
        for at, expression in enumerate(self.expressions):
            if isinstance(expression, Column):
                found.setdefault(expression.index, at)
        return found

    @property
    def event_time(self) -> int | None:
        below = self.input.event_time
        place = None if below is None else self.places.get(below)
        return self.window_last if place is None else place

    @property
    def window_last(self) -> int | None:
        below = self.input.window_last
        place = None if below is None else self.places.get(below)
        return self.window_time if place is None else place

    @property
    def key(self) -> Positions | None:
        below = self.input.key
        if below is None or any(k not in self.places for k in below):
            return None
        return tuple(self.places[k] for k in below)

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        start, end = self.input.bounds
        return (
            None if start is None else self.places.get(start),
            None if end is None else self.places.get(end),
        )


@dataclass(frozen=True)
class Session:
    """A session window: rows of one key not more than `gap` µs apart."""

    gap: int

    def __str__(self) -> str:
        return f"session {self.gap / 1e6:g} s"


AnyWindow = Window | Session


@dataclass(frozen=True)
class AssignWindow(Unary):
    """Each row once for every window it is in, with window_start, window_end and window_time behind its columns.

    `time` None is processing time. `partition` belongs to sessions.
    """

    time: int | None
    window: AnyWindow
    partition: Positions = ()
    position: Position | None = field(default=None, compare=False)

    @property
    def bound_type(self) -> pa.DataType:
        """The type of the three columns."""
        return bound_type(self.input.schema, self.time)

    @cached_property
    def schema(self) -> pa.Schema:
        names = ("window_start", "window_end", "window_time")
        return pa.schema([*self.input.schema, *(pa.field(n, self.bound_type) for n in names)])

    @property
    def key(self) -> Positions | None:
        return None

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        width = len(self.input.schema)
        return (width, width + 1)

    @property
    def window_last(self) -> int | None:
        return len(self.input.schema) + 2


@dataclass(frozen=True)
class Aggregate(Unary):
    """GROUP BY without a window of its own: the keys, then the calls. No calls is DISTINCT.

    `window_end` is the place among `keys` of the end of a window that the rows carry already.
    """

    keys: Positions
    calls: tuple[AggregateCall, ...]
    names: tuple[str, ...]
    emission: Emission
    window_end: int | None = None
    allowed_lateness: int = 0
    late_table: str | None = None

    @cached_property
    def schema(self) -> pa.Schema:
        return grouped_schema(self.input.schema, self.keys, (), self.calls, self.names)

    @property
    def event_time(self) -> int | None:
        return self.window_end

    @property
    def changelog(self) -> Changelog:
        if not self.calls and self.keys and self.input.changelog is Changelog.APPEND:
            return Changelog.APPEND
        return emitted_mode(self.emission, self.allowed_lateness)

    @property
    def key(self) -> Positions | None:
        return None if self.emission.kind is EmissionKind.EVERY_RECORD else tuple(range(len(self.keys)))

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        start, end = self.input.bounds
        return (_place(self.keys, start), _place(self.keys, end))

    @property
    def window_last(self) -> int | None:
        return _place(self.keys, self.input.window_last)


@dataclass(frozen=True)
class WindowedAggregate(Unary):
    """GROUP BY keys and a window: the keys, window_start and window_end as `with_bounds` asks, then the calls."""

    time: int | None
    window: AnyWindow
    keys: Positions
    calls: tuple[AggregateCall, ...]
    names: tuple[str, ...]
    emission: Emission
    with_bounds: tuple[bool, bool] = (True, True)
    allowed_lateness: int = 0
    late_table: str | None = None

    @property
    def bound_type(self) -> pa.DataType:
        """The type of the bounds."""
        return bound_type(self.input.schema, self.time)

    @cached_property
    def schema(self) -> pa.Schema:
        bounds = (self.bound_type,) * sum(self.with_bounds)
        return grouped_schema(self.input.schema, self.keys, bounds, self.calls, self.names)

    @property
    def event_time(self) -> int | None:
        return None if self.time is None else self.bounds[1]

    @property
    def time_unit(self) -> str:
        return self.input.time_unit

    @property
    def changelog(self) -> Changelog:
        return emitted_mode(self.emission, self.allowed_lateness)

    @property
    def key(self) -> Positions | None:
        if not any(self.with_bounds) or self.emission.kind is EmissionKind.EVERY_RECORD:
            return None
        return tuple(range(len(self.keys) + sum(self.with_bounds)))

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        at = len(self.keys)
        start, end = self.with_bounds
        return (at if start else None, at + start if end else None)

    @property
    def window_last(self) -> int | None:
        return None


@dataclass(frozen=True)
class MovingFilter(Unary):
    """Rows whose `time` is between bounds that move with now(); they are taken back as time passes."""

    time: int
    lower: TimeBound | None
    upper: TimeBound | None
    clock: Clock = Clock.PROCESSING

    @property
    def changelog(self) -> Changelog:
        return self.input.changelog if self.lower is None else Changelog.RETRACT


@dataclass(frozen=True)
class Union(Relation):
    """All rows of several relations with equal column types; names are the first one's."""

    parts: tuple[Relation, ...]

    @property
    def inputs(self) -> tuple[Relation, ...]:
        return self.parts

    @cached_property
    def schema(self) -> pa.Schema:
        first = self.parts[0].schema
        return pa.schema([pa.field(f.name, f.type, metadata=f.metadata) for f in first])

    @property
    def event_time(self) -> int | None:
        times = {part.event_time for part in self.parts}
        return times.pop() if len(times) == 1 else None

    @property
    def changelog(self) -> Changelog:
        appends = all(part.changelog is Changelog.APPEND for part in self.parts)
        return Changelog.APPEND if appends else Changelog.RETRACT

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        all_bounds = {part.bounds for part in self.parts}
        return all_bounds.pop() if len(all_bounds) == 1 else (None, None)

    def with_inputs(self, *inputs: Relation) -> Relation:
        same = all(a is b for a, b in zip(inputs, self.parts, strict=True))
        return self if same else Union(inputs)


@dataclass(frozen=True)
class Join(Relation):
    """Two relations by a condition over the columns of both, the left one's first.

    `kind` is inner, left, right, full, semi, anti or cross; `equal` pairs of left and right columns that must be
    equal; `null_equal` such pairs where NULL equals NULL; `condition` what else must hold.
    """

    left: Relation
    right: Relation
    kind: str
    equal: tuple[tuple[int, int], ...]
    condition: Expression | None = None
    position: Position | None = field(default=None, compare=False)
    null_equal: tuple[tuple[int, int], ...] = ()
    ttl: int | None = None

    @property
    def inputs(self) -> tuple[Relation, ...]:
        return (self.left, self.right)

    @cached_property
    def schema(self) -> pa.Schema:
        if self.kind in ("semi", "anti"):
            return self.left.schema
        left, right = list(self.left.schema), list(self.right.schema)
        if self.kind in ("right", "full"):
            left = [f.with_nullable(True) for f in left]
        if self.kind in ("left", "full"):
            right = [f.with_nullable(True) for f in right]
        return pa.schema([*left, *right])

    @property
    def changelog(self) -> Changelog:
        appends = all(item.changelog is Changelog.APPEND for item in self.inputs)
        kinds = ("inner", "cross", "semi")
        return Changelog.APPEND if appends and self.kind in kinds else Changelog.RETRACT

    @property
    def key(self) -> Positions | None:
        """The keys of both sides; one side's where a row of it has one match at most."""
        left, right = self.left.key, self.right.key
        if self.kind in ("semi", "anti") or left is None:
            return left if self.kind in ("semi", "anti") else None
        if right is None:
            return None
        pairs = (*self.equal, *self.null_equal)
        width = len(self.left.schema)
        moved = tuple(k + width for k in right)
        if set(right) <= {b for _, b in pairs} and self.kind in ("inner", "cross", "left"):
            return left
        if set(left) <= {a for a, _ in pairs} and self.kind in ("inner", "cross", "right"):
            return moved
        return (*left, *moved)

    def with_inputs(self, *inputs: Relation) -> Relation:
        left, right = inputs
        same = left is self.left and right is self.right
        return self if same else replace(self, left=left, right=right)


def emitted_mode(emission: Emission, allowed_lateness: int) -> Changelog:
    """The changelog mode of what an aggregate sends."""
    if emission.appends and not allowed_lateness:
        return Changelog.APPEND
    return Changelog.UPSERT if emission.upsert else Changelog.RETRACT


def bound_type(schema: pa.Schema, time: int | None) -> pa.DataType:
    """The type of window bounds: the time column's, timestamp[ms, UTC] for processing time."""
    return pa.timestamp("ms", "UTC") if time is None else schema.field(time).type


def grouped_schema(
    below: pa.Schema,
    keys: Positions,
    bounds: tuple[pa.DataType, ...],
    calls: tuple[AggregateCall, ...],
    names: tuple[str, ...],
) -> pa.Schema:
    """Columns of an aggregate's output: keys, window bounds, calls."""
    types = [*bounds, *(call.type for call in calls)]
    fields = [below.field(k).with_name(n) for k, n in zip(keys, names, strict=False)]
    fields += [pa.field(n, t) for n, t in zip(names[len(keys) :], types, strict=True)]
    return pa.schema(fields)


def _place(columns: Positions, column: int | None) -> int | None:
    return columns.index(column) if column is not None and column in columns else None


def _places(columns: Positions, wanted: Positions | None) -> Positions | None:
    if wanted is None or any(c not in columns for c in wanted):
        return None
    return tuple(columns.index(c) for c in wanted)
