"""The nodes with several inputs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import pyarrow as pa

from millrace.errors import Position
from millrace.operators.expressions.tree import Expression
from millrace.operators.sink import Changelog
from millrace.planner.logical.relation import Positions, Relation


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
