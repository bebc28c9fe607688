"""Compares two results as multisets of rows. Knows no engine."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa

TOLERANCE = 1e-9


def difference(ours: pa.Table, theirs: pa.Table, compare: str = "") -> str:
    """'' where both hold the same rows, else what differs. `compare` is SQL over `result` to look through.

    Floating-point values may differ by a relative 1e-9, since the order of additions is free; decimals and
    all else are equal exactly, timestamps by the instant.
    """
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    sides = [_normal(con, table, compare) for table in (ours, theirs)]
    if len(sides[0].schema) != len(sides[1].schema):
        return f"{len(sides[0].schema)} columns instead of {len(sides[1].schema)}"
    if sides[0].num_rows != sides[1].num_rows:
        return f"{sides[0].num_rows:,} rows instead of {sides[1].num_rows:,}"
    wrong = np.zeros(sides[0].num_rows, bool)
    for mine, other in zip(sides[0].columns, sides[1].columns, strict=True):
        wrong |= _unequal(mine.combine_chunks(), other.combine_chunks())
    if not wrong.any():
        return ""
    first = np.flatnonzero(wrong)[:3].tolist()
    examples = "; ".join(
        f"{tuple(sides[0].slice(row, 1).to_pylist()[0].values())} instead of "
        f"{tuple(sides[1].slice(row, 1).to_pylist()[0].values())}"
        for row in first
    )
    return f"{int(wrong.sum()):,} of {len(wrong):,} sorted rows differ: {examples}"


def _normal(con: duckdb.DuckDBPyConnection, table: pa.Table, compare: str) -> pa.Table:
    """The rows under neutral names and types, sorted: first by what must be exact, then by the rest."""
    con.register("result", table)
    looked = con.sql(compare).to_arrow_table() if compare else table
    con.register("looked", looked)
    columns = ", ".join(f"{_cast(field)} AS c{i}" for i, field in enumerate(looked.schema))
    floats = [f"c{i}" for i, field in enumerate(looked.schema) if pa.types.is_floating(field.type)]
    exact = [f"c{i}" for i, field in enumerate(looked.schema) if not pa.types.is_floating(field.type)]
    order = ", ".join(f"{name} NULLS FIRST" for name in exact + floats)
    found = con.sql(f"SELECT {columns} FROM looked ORDER BY {order}").to_arrow_table()
    con.unregister("looked")
    con.unregister("result")
    return found


def _cast(field: pa.Field) -> str:
    name = '"' + field.name.replace('"', '""') + '"'
    if pa.types.is_integer(field.type) or (pa.types.is_decimal(field.type) and field.type.scale == 0):
        return f"{name}::HUGEINT::VARCHAR"
    if pa.types.is_floating(field.type):
        return f"{name}::DOUBLE"
    if pa.types.is_decimal(field.type):
        return f"{name}::DECIMAL(38, 9)"
    return f"{name}::TIMESTAMP" if pa.types.is_timestamp(field.type) else name


def _unequal(mine: pa.Array, other: pa.Array) -> np.ndarray:
    nulls, others = (np.asarray(side.is_null()) for side in (mine, other))
    if pa.types.is_floating(mine.type) and pa.types.is_floating(other.type):
        left, right = (np.asarray(side.fill_null(0.0)) for side in (mine, other))
        close = np.isclose(left, right, rtol=TOLERANCE, atol=1e-300, equal_nan=True)
        return (nulls != others) | ~(close | nulls)
    left, right = (np.array(side.to_pylist(), object) for side in (mine, other))
    return left != right
