"""The nodes that pass rows on one by one: filters and projections."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from millrace.operators.expressions.tree import Column, Expression
from millrace.operators.sink import Changelog
from millrace.operators.temporal_filter import Clock, TimeBound
from millrace.planner.logical.relation import Positions, Unary


@dataclass(frozen=True)
class Filter(Unary):
    """The rows for which `predicate` is true. An upsert stream is filtered only by columns of its key."""

    predicate: Expression

    @property
    def other_time(self) -> int | None:
        return self.input.other_time


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
        place = self._place(self.input.event_time)
        place = self.other_time if place is None else place
        return self.window_last if place is None else place

    @property
    def other_time(self) -> int | None:
        return self._place(self.input.other_time)

    def _place(self, column: int | None) -> int | None:
        return None if column is None else self.places.get(column)

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
class Repeated(Unary):
    """Each row as often as the last column says, without that column.

    `once`: that is never more than one time. `rising`: the number never falls, so no row is taken back.
    """

    once: bool
    rising: bool

    @cached_property
    def schema(self) -> pa.Schema:
        return pa.schema(list(self.input.schema)[:-1])

    @property
    def changelog(self) -> Changelog:
        return Changelog.APPEND if self.rising else Changelog.RETRACT

    @property
    def key(self) -> Positions | None:
        return tuple(range(len(self.schema))) if self.once else None
