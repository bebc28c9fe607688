"""The relation that looks rows up in a table as it is. Chooses no operator."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import pyarrow as pa

from millrace.errors import Position
from millrace.operators.expressions.tree import Expression
from millrace.planner.logical import Positions, Relation


@dataclass(frozen=True)
class TableLookup(Relation):
    """Each row of `left` with the rows of `right` that match when it comes. `kind` is inner or left."""

    left: Relation
    right: Relation
    kind: str
    equal: tuple[tuple[int, int], ...]
    condition: Expression | None = None
    position: Position | None = field(default=None, compare=False)
    null_equal: tuple[tuple[int, int], ...] = ()

    @property
    def inputs(self) -> tuple[Relation, ...]:
        return (self.left, self.right)

    @cached_property
    def schema(self) -> pa.Schema:
        right = list(self.right.schema)
        if self.kind == "left":
            right = [f.with_nullable(True) for f in right]
        return pa.schema([*self.left.schema, *right])

    @property
    def event_time(self) -> int | None:
        return self.left.event_time

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        return self.left.bounds

    @property
    def window_last(self) -> int | None:
        return self.left.window_last

    @property
    def key(self) -> Positions | None:
        return None

    def with_inputs(self, *inputs: Relation) -> Relation:
        left, right = inputs
        same = left is self.left and right is self.right
        return self if same else replace(self, left=left, right=right)
