"""The nodes of windows and of GROUP BY."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from millrace.errors import Position
from millrace.operators.aggregates.calls import AggregateCall, Emission, EmissionKind, Window
from millrace.operators.sink import Changelog
from millrace.planner.logical.relation import Positions, Unary, place


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

    `time` None is processing time. `partition` belongs to sessions. With `keeps_late` rows whose windows are over pass
    too: who reads them tells which are late.
    """

    time: int | None
    window: AnyWindow
    partition: Positions = ()
    position: Position | None = field(default=None, compare=False)
    keeps_late: bool = False

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
    late_to_next: bool = False

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
        return (place(self.keys, start), place(self.keys, end))

    @property
    def window_last(self) -> int | None:
        return place(self.keys, self.input.window_last)


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
    late_to_next: bool = False

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
