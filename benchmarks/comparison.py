"""Compares two results as multisets of rows. Knows no engine."""

from __future__ import annotations

import duckdb
import pyarrow as pa


def difference(ours: pa.Table, theirs: pa.Table, compare: str = "") -> str:
    """'' where both hold the same rows, else what differs. `compare` is SQL over `result` to look through.

    Floating-point values are compared to 9 significant digits, since the order of additions is free;
    decimals and all else exactly; timestamps by the instant.
    """
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    views = []
    for name, table in (("ours", ours), ("theirs", theirs)):
        con.register("result", table)
        looked = con.sql(compare).to_arrow_table() if compare else table
        con.register(name, looked)
        columns = ", ".join(f"{_normal(field)} AS c{i}" for i, field in enumerate(looked.schema))
        con.execute(f"CREATE TEMP TABLE {name}_rows AS SELECT {columns} FROM {name}")
        con.unregister("result")
        views.append(looked)
    if len(views[0].schema) != len(views[1].schema):
        return f"{len(views[0].schema)} columns instead of {len(views[1].schema)}"
    missing, extra = (
        con.sql(f"SELECT * FROM {a}_rows EXCEPT ALL SELECT * FROM {b}_rows LIMIT 3").fetchall()
        for a, b in (("theirs", "ours"), ("ours", "theirs"))
    )
    if not missing and not extra:
        return ""
    return f"{views[0].num_rows:,} rows against {views[1].num_rows:,}; missing {missing}; extra {extra}"


def _normal(field: pa.Field) -> str:
    name = '"' + field.name.replace('"', '""') + '"'
    if pa.types.is_floating(field.type):
        return f"CASE WHEN {name} = 0 THEN '0' ELSE printf('%.8e', {name}::DOUBLE) END"
    if pa.types.is_integer(field.type):
        return f"{name}::HUGEINT"
    if pa.types.is_decimal(field.type):
        return f"{name}::DECIMAL(38, 9)"
    if pa.types.is_timestamp(field.type):
        return f"{name}::TIMESTAMP"
    return name
