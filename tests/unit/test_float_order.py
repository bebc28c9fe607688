"""Comparisons of floating-point numbers put NaN last and hold it equal to itself, as DuckDB and PostgreSQL do."""

import itertools

import duckdb
import pyarrow as pa
import pytest

import millrace

VALUES = [float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1.5, None]
PAIRS = list(itertools.product(VALUES, VALUES))
ROWS = pa.table(
    {"x": [a for a, _ in PAIRS], "y": [b for _, b in PAIRS]},
    pa.schema([("x", pa.float64()), ("y", pa.float64())]),
)
SIGNS = ("=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM")


@pytest.mark.parametrize("operand", ["y", "CAST('NaN' AS DOUBLE)", "1.5"])
def test_comparisons_with_nan_equal_duckdb(operand: str) -> None:
    shown = ", ".join(
        f"x {sign} {operand} AS c{i}, {operand} {sign} x AS d{i}" for i, sign in enumerate(SIGNS)
    )
    sql = f"SELECT {shown}, x IN ({operand}, 7.0) AS e FROM {{}}"
    with millrace.connect() as database:
        database.execute("CREATE TABLE t (x DOUBLE, y DOUBLE)")
        database.execute("CREATE SOURCE s (x DOUBLE, y DOUBLE) WITH ('connector' = 'push')")
        database.execute(f"CREATE TABLE found AS {sql.format('s')}")
        database.push("s", ROWS)
        found = database.query("SELECT * FROM found").tuples()
    con = duckdb.connect()
    con.register("s", ROWS)
    assert sorted(found, key=repr) == sorted(con.sql(sql.format("s")).fetchall(), key=repr)
