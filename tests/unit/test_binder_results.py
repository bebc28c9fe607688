"""Queries bound, planned and run over a file give what DuckDB gives for the same rows."""

import datetime
import decimal
import random
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import millrace
from millrace.database import Database

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("k", pa.string()),
        ("v", pa.int32()),
        ("f", pa.float64()),
        ("d", pa.decimal128(10, 2)),
        ("ts", pa.timestamp("ms")),
        ("s", pa.struct([("x", pa.int32()), ("y", pa.string())])),
        ("a", pa.list_(pa.int32())),
    ]
)
SOURCE = """
CREATE SOURCE t (id BIGINT, k STRING, v INT, f DOUBLE, d DECIMAL(10, 2), ts TIMESTAMP(3), s ROW<x INT, y STRING>,
  a ARRAY<INT>, WATERMARK FOR ts AS ts - INTERVAL '2' SECOND)
WITH ('connector' = 'file', 'path' = '{}', 'format' = 'parquet')
"""
TEN = "TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' SECOND))"
BUCKET = "time_bucket(INTERVAL 10 SECOND, ts)"

SAME = [
    "SELECT k, count(*), sum(v), min(f), max(d) FROM t GROUP BY k",
    "SELECT k, v FROM t WHERE v > 10 AND k <> 'a'",
    "SELECT k AS g, sum(v) FROM t WHERE f < 0.5 GROUP BY g HAVING count(*) > 10 AND g IS NOT NULL",
    "SELECT upper(k), s.y AS yy, count(*) FROM t GROUP BY upper(k), s.y",
    "SELECT DISTINCT k, s.x FROM t",
    "SELECT k, s.y, sum(v) FROM t GROUP BY ROLLUP (k, s.y)",
    "SELECT k, s.y, count(*) FROM t GROUP BY CUBE (k, s.y)",
    "SELECT k, s.y, count(*) FROM t GROUP BY GROUPING SETS ((k), (s.y), ())",
    "SELECT k, count(*) FROM (SELECT k, v FROM t WHERE v IS NOT NULL UNION ALL SELECT k, v + 1 FROM t) GROUP BY k",
    "SELECT k FROM t UNION SELECT s.y FROM t",
    "WITH x AS (SELECT k, sum(v) AS s FROM t GROUP BY k) SELECT max(s), count(*) FROM x",
    "SELECT CASE WHEN v > 20 THEN 'hi' WHEN v IS NULL THEN 'none' ELSE 'lo' END, count(*) FROM t GROUP BY 1",
    "SELECT k, count(DISTINCT v), count(DISTINCT v) FILTER (WHERE f > 0.5) FROM t GROUP BY k",
    "SELECT count(*), sum(v) FROM t WHERE v > 1000",
    "SELECT id, v IN (1, 2), v NOT IN (1, NULL), v BETWEEN 3 AND 9, k LIKE '%a%', NOT (v > 3) FROM t WHERE id < 99",
    "SELECT id, ts + INTERVAL '1' HOUR, date_trunc('minute', ts), ts > '2024-01-01 00:05:00' FROM t WHERE id < 99",
    "SELECT id, a[1], s.x + 1 FROM t WHERE a[2] = 3",
]
TRANSLATED = [
    (
        (
            "SELECT k, TUMBLE_START(ts, INTERVAL '10' SECOND), count(*), sum(v) FROM t "
            "GROUP BY k, TUMBLE(ts, INTERVAL '10' SECOND)"
        ),
        f"SELECT k, {BUCKET}, count(*), sum(v) FROM t GROUP BY 1, 2",
    ),
    (
        f"SELECT window_start, window_end, sum(v) FROM {TEN} WHERE f > 0.2 GROUP BY window_start, window_end",
        f"SELECT {BUCKET} AS w, w + INTERVAL 10 SECOND, sum(v) FROM t WHERE f > 0.2 GROUP BY 1",
    ),
    (
        (
            "SELECT TUMBLE_START(window_time, INTERVAL '1' MINUTE), sum(c) FROM (SELECT window_time, k, count(*) AS c "
            f"FROM {TEN} GROUP BY window_start, window_end, window_time, k) GROUP BY TUMBLE(window_time, INTERVAL '1' MINUTE)"
        ),
        "SELECT time_bucket(INTERVAL 1 MINUTE, ts), count(*) FROM t GROUP BY 1",
    ),
    (
        (
            "SELECT window_start, max(c) FROM (SELECT window_start, window_end, k, count(*) AS c "
            f"FROM {TEN} GROUP BY window_start, window_end, k) GROUP BY window_start, window_end"
        ),
        f"SELECT w, max(c) FROM (SELECT {BUCKET} AS w, k, count(*) AS c FROM t GROUP BY 1, 2) GROUP BY w",
    ),
    (
        (
            "SELECT k, c, r FROM (SELECT *, RANK() OVER (PARTITION BY window_start, window_end ORDER BY c DESC) AS r "
            f"FROM (SELECT k, count(*) AS c, window_start, window_end FROM {TEN} GROUP BY k, window_start, window_end)) "
            "WHERE r <= 2 AND c > 3"
        ),
        (
            "SELECT k, c, r FROM (SELECT *, rank() OVER (PARTITION BY w ORDER BY c DESC) AS r "
            f"FROM (SELECT k, count(*) AS c, {BUCKET} AS w FROM t GROUP BY ALL)) WHERE r <= 2 AND c > 3"
        ),
    ),
    (
        f"SELECT DISTINCT k, window_end FROM {TEN}",
        f"SELECT DISTINCT k, {BUCKET} + INTERVAL 10 SECOND FROM t",
    ),
]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Database, duckdb.DuckDBPyConnection]]:
    rng = random.Random(5)
    time = datetime.datetime(2024, 1, 1)
    rows: list[dict[str, object]] = []
    for number in range(1500):
        time += datetime.timedelta(milliseconds=rng.randint(0, 400))
        rows.append(
            {
                "id": number,
                "k": rng.choice(["a", "b", "c", None, "é"]),
                "v": rng.choice([None, *range(50)]),
                "f": rng.random(),
                "d": decimal.Decimal(rng.randint(-1000, 1000)) / 100,
                "ts": time - datetime.timedelta(milliseconds=rng.randint(0, 1500)),
                "s": {"x": rng.randint(0, 3), "y": rng.choice("pq")},
                "a": [rng.randint(0, 4) for _ in range(rng.randint(0, 3))],
            }
        )
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    path: Path = tmp_path_factory.mktemp("rows") / "t.parquet"
    pq.write_table(table, path)
    oracle = duckdb.connect()
    oracle.register("t", table)
    with millrace.connect() as database:
        database.execute(SOURCE.format(path))
        yield database, oracle
    oracle.close()


def comparable(value: object) -> str:
    if isinstance(value, int | float | decimal.Decimal) and not isinstance(value, bool):
        return f"{float(value):.9g}"
    return str(value)


@pytest.mark.parametrize(("ours", "theirs"), [*((q, q) for q in SAME), *TRANSLATED])
def test_rows_are_those_of_duckdb(
    engines: tuple[Database, duckdb.DuckDBPyConnection], ours: str, theirs: str
) -> None:
    database, oracle = engines
    found = database.query(ours).arrow
    columns = [column.to_pylist() for column in found.columns]
    rows = sorted([comparable(v) for v in row] for row in zip(*columns, strict=True))
    expected = sorted([comparable(v) for v in row] for row in oracle.execute(theirs).fetchall())
    assert len(expected) > 0
    assert rows == expected
