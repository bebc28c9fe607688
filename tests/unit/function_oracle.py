"""Runs one call of the function library on rows, and DuckDB on the same rows. Holds no cases."""

from __future__ import annotations

import atexit
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from millrace.operators.expressions.evaluate import compile_expression
from millrace.operators.expressions.tree import Call, Cast, Column, Expression, Literal
from millrace.operators.functions.registry import resolve
from millrace.operators.functions.types import is_decimal64, is_string


@dataclass(frozen=True)
class Constant:
    """An argument that is a literal in the query."""

    value: Any
    type: pa.DataType | None = None

    @property
    def literal(self) -> Literal:
        return Literal(self.value, self.type or pa.scalar(self.value).type)


def call(name: str, *arguments: Expression) -> Expression:
    """The call as the binder makes it: resolved, with casts."""
    untyped = [isinstance(a, Literal) and is_string(a.type) for a in arguments]
    signature = resolve(name, [a.type for a in arguments], untyped)
    cast = [a if a.type == p else Cast(a, p) for a, p in zip(arguments, signature.parameters, strict=True)]
    return Call(signature.name, tuple(cast), signature.returns)


def as_array(values: Any) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values)


def columns_of(arguments: Sequence[Any]) -> list[pa.Array]:
    return [as_array(a) for a in arguments if not isinstance(a, Constant)]


def build(name: str, arguments: Sequence[Any]) -> tuple[Expression, pa.RecordBatch]:
    """The call over a batch whose columns are a, b, c, …"""
    columns = columns_of(arguments)
    fields = [pa.field(chr(ord("a") + i), column.type) for i, column in enumerate(columns)]
    if not columns:
        columns, fields = [pa.array([0])], [pa.field("a", pa.int64())]
    batch = pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))
    parts: list[Expression] = []
    place = 0
    for argument in arguments:
        if isinstance(argument, Constant):
            parts.append(argument.literal)
        else:
            parts.append(Column(place, columns[place].type, fields[place].name))
            place += 1
    return call(name, *parts), batch


def evaluate(name: str, arguments: Sequence[Any]) -> pa.Array:
    """The results; checked to be the same for a slice of longer arrays, and of the type that was resolved."""
    expression, batch = build(name, arguments)
    compiled = compile_expression(expression, batch.schema)
    result = compiled(batch)
    assert result.type == expression.type, f"{result.type} instead of {expression.type}"
    result.validate(full=True)
    order = [*reversed(range(batch.num_rows)), *range(batch.num_rows)]
    longer = batch.take(pa.array(order, pa.int64()))
    sliced = compiled(longer.slice(batch.num_rows))
    assert same_rows(sliced.to_pylist(), result.to_pylist()), "a slice gives other results"
    return result


@lru_cache(maxsize=1)
def connection() -> duckdb.DuckDBPyConnection:
    made = duckdb.connect()
    atexit.register(made.close)
    made.execute("SET TimeZone = 'UTC'")
    return made


def duck(sql: str, arguments: Sequence[Any]) -> list[Any]:
    """What DuckDB computes for `sql` over the columns a, b, c, …, in row order."""
    columns = columns_of(arguments) or [pa.array([0])]
    wide = [
        c.cast(pa.decimal128(c.type.precision, c.type.scale)) if is_decimal64(c.type) else c for c in columns
    ]
    names = [chr(ord("a") + i) for i in range(len(wide))]
    table = pa.table([*wide, pa.array(np.arange(len(wide[0])))], names=[*names, "place"])
    connection().register("t", table)
    answer = connection().sql(f"SELECT {sql} AS x FROM t ORDER BY place").to_arrow_table()
    return list(answer.column("x").to_pylist())


def same(left: Any, right: Any) -> bool:
    """Equal, with room for the last digits of floats."""
    if isinstance(left, float) and isinstance(right, (float, int)):
        if math.isnan(left) or math.isnan(right):
            return math.isnan(left) and math.isnan(right)
        return left == right or math.isclose(left, right, rel_tol=1e-12, abs_tol=1e-15)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right)


def same_rows(left: Sequence[Any], right: Sequence[Any]) -> bool:
    return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))


def check(name: str, arguments: Sequence[Any], expected: str | list[Any]) -> None:
    """The call gives what is expected: the answer of DuckDB to SQL text, or a list."""
    got = evaluate(name, arguments).to_pylist()
    wanted = duck(expected, arguments) if isinstance(expected, str) else expected
    assert same_rows(got, wanted), f"{name}\n got    {got}\n wanted {wanted}"
