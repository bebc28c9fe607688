"""Table functions as logical relations: each row of a relation with the rows that are made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from millrace.errors import Position
from millrace.operators.expansion.spec import expanded_schema, made_schema
from millrace.operators.expressions.tree import Expression
from millrace.planner.logical import Positions, Relation, Unary


@dataclass(frozen=True)
class Expansion(Unary):
    """Rows of the input beside those that table function `function` makes of `arguments`; see the spec `Expand`.

    `outputs` are positions among the columns of the input and, behind them, the new ones; None: all.
    """

    function: str
    arguments: tuple[Expression, ...]
    made: pa.Schema
    outer: bool = False
    ordinality: bool = False
    condition: Expression | None = None
    outputs: Positions | None = None
    position: Position | None = field(default=None, compare=False)

    @property
    def kept(self) -> Positions:
        """The outputs, said in full."""
        width = len(self.input.schema) + len(made_schema(self.made, self.ordinality))
        return tuple(range(width)) if self.outputs is None else self.outputs

    @cached_property
    def schema(self) -> pa.Schema:
        return expanded_schema(self.input.schema, self.made, self.ordinality, self.outer, self.kept)

    def _place(self, column: int | None) -> int | None:
        return self.kept.index(column) if column is not None and column in self.kept else None

    @property
    def event_time(self) -> int | None:
        return self._place(self.input.event_time)

    @property
    def key(self) -> Positions | None:
        """With ordinality the row is known by its parent's key and its number."""
        below = self.input.key
        if not self.ordinality or below is None:
            return None
        last = len(self.input.schema) + len(self.made)
        places = [self._place(k) for k in (*below, last)]
        known = tuple(p for p in places if p is not None)
        return known if len(known) == len(places) else None

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        start, end = self.input.bounds
        return self._place(start), self._place(end)

    @property
    def window_last(self) -> int | None:
        return self._place(self.input.window_last)


def expanded(
    relation: Relation,
    function: str,
    arguments: tuple[Expression, ...],
    made: pa.Schema,
    *,
    ordinality: bool = False,
    position: Position | None = None,
) -> Expansion:
    """`relation` with the rows that the function makes of its rows."""
    return Expansion(relation, function, arguments, made, ordinality=ordinality, position=position)
