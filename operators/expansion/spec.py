"""The spec of operators that make several rows, or none, of each row: UNNEST and other table functions. Runs none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from millrace.operators.expressions.text import to_sql
from millrace.operators.expressions.tree import Expression
from millrace.operators.operator import Context, Operator
from millrace.operators.spec import OperatorSpec

ORDINALITY = pa.field("ordinality", pa.int64())


def made_schema(made: pa.Schema, ordinality: bool) -> pa.Schema:
    """The new columns: what the function makes, and the number of the row among those of its parent, from 1."""
    return made.append(ORDINALITY) if ordinality else made


def expanded_schema(
    input: pa.Schema, made: pa.Schema, ordinality: bool, outer: bool, outputs: tuple[int, ...]
) -> pa.Schema:
    """Columns `outputs` of the input's and, behind them, the new ones."""
    fresh = [f.with_nullable(f.nullable or outer) for f in made_schema(made, ordinality)]
    both = [*input, *fresh]
    return pa.schema([both[at] for at in outputs])


@dataclass(frozen=True, slots=True)
class Expand(OperatorSpec):
    """Each row of `input` once for every row that table function `function` makes of `arguments`, with those columns.

    `made` are the function's columns; with `ordinality` a BIGINT counts them from 1. With `outer` a row of which
    nothing is made stays, the new columns NULL; `condition` (over the input's columns and the new ones) says then
    which of the made rows count. `outputs` are positions among both. Weights stay with their rows, so what is made of
    a row must always be the same. A row for which an argument or the function has no value is a dead letter.
    """

    title: ClassVar[str] = "Expand"

    input: pa.Schema
    function: str
    arguments: tuple[Expression, ...]
    made: pa.Schema
    outputs: tuple[int, ...]
    outer: bool = False
    ordinality: bool = False
    condition: Expression | None = None

    def __post_init__(self) -> None:
        assert self.outer or self.condition is None

    @property
    def output_schema(self) -> pa.Schema:
        return expanded_schema(self.input, self.made, self.ordinality, self.outer, self.outputs)

    def build(self, context: Context) -> Operator:
        from millrace.operators.expansion.operator import ExpandOperator  # breaks a cycle of types

        return ExpandOperator(self, context)  # pyright: ignore[reportArgumentType]

    def details(self) -> dict[str, str]:
        call = f"{self.function}({', '.join(map(to_sql, self.arguments))})"
        shown = {"each": f"{call}{' with ordinality' if self.ordinality else ''}"}
        shown["makes"] = ", ".join(made_schema(self.made, self.ordinality).names)
        if self.condition is not None:
            shown["where"] = to_sql(self.condition)
        if self.outer:
            shown["of none"] = "the row stays, with NULL"
        return shown
