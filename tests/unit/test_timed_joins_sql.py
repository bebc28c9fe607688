"""Joins on time in SQL: which form is planned, what EXPLAIN says, and what comes out."""

from collections import Counter

import duckdb
import numpy as np
import pyarrow as pa
import pytest

import millrace
from millrace.errors import Invalid
from millrace.operators.connectors.arrow import register
from millrace.planner.session import Planner

TABLES = """
CREATE SOURCE a (k BIGINT, x BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '4' SECOND) WITH ('connector' = 'push');
CREATE SOURCE b (k BIGINT, y BIGINT, ts TIMESTAMP(6), WATERMARK FOR ts AS ts - INTERVAL '4' SECOND) WITH ('connector' = 'push');
"""


def explain(query: str) -> str:
    return Planner().explain(TABLES + query + ";")


@pytest.mark.parametrize(
    ("condition", "bounds"),
    [
        (
            "b.ts BETWEEN a.ts - INTERVAL '5' SECOND AND a.ts + INTERVAL '1' MINUTE",
            "-5 s <= right.ts - left.ts <= 60 s",
        ),
        ("a.ts BETWEEN b.ts - INTERVAL '5' SECOND AND b.ts", "0 s <= right.ts - left.ts <= 5 s"),
        ("a.ts <= b.ts AND b.ts < a.ts + INTERVAL '5' SECOND", "0 s <= right.ts - left.ts < 5 s"),
        ("b.ts - a.ts <= INTERVAL '5' SECOND AND a.ts < b.ts", "0 s < right.ts - left.ts <= 5 s"),
        (
            "a.ts + INTERVAL '1' SECOND >= b.ts AND a.ts - INTERVAL '2' SECOND <= b.ts",
            "-2 s <= right.ts - left.ts <= 1 s",
        ),
        (
            "b.ts >= a.ts AND b.ts >= a.ts + INTERVAL '1' SECOND AND b.ts <= a.ts + INTERVAL '9' SECOND AND b.ts <= a.ts + INTERVAL '8' SECOND",
            "1 s <= right.ts - left.ts <= 8 s",
        ),
    ],
)
def test_bounds_are_found_in_any_arrangement(condition: str, bounds: str) -> None:
    for query in (
        f"SELECT x, y FROM a JOIN b ON a.k = b.k AND {condition} AND x < y",
        f"SELECT x, y FROM a, b WHERE a.k = b.k AND {condition} AND x < y AND x > 3",
        f"SELECT x, y FROM a LEFT JOIN b ON {condition} AND a.k = b.k WHERE x > 3",
        f"SELECT x FROM a SEMI JOIN b ON a.k = b.k AND {condition}",
    ):
        shown = explain(query)
        assert "IntervalJoin" in shown and bounds in shown, shown
        assert "left.k = right.k" in shown


def test_within_is_a_bound_on_both_sides() -> None:
    assert "-300 s <= right.ts - left.ts <= 300 s" in explain(
        "SELECT x, y FROM a JOIN b ON a.k = b.k WITHIN INTERVAL '5' MINUTE"
    )
    assert "-60 s <= right.ts - left.ts <= 300 s" in explain(
        "SELECT x, y FROM a JOIN b ON a.k = b.k WITHIN (1m, 5m)"
    )
    with pytest.raises(Invalid, match="WITHIN needs an event time on both sides"):
        Planner().explain(
            "CREATE SOURCE c (k BIGINT) WITH ('connector' = 'push');"
            + TABLES
            + "SELECT x FROM a JOIN c ON a.k = c.k WITHIN 1m;"
        )


def test_half_a_bound_is_a_regular_join() -> None:
    assert "IntervalJoin" not in explain("SELECT x, y FROM a JOIN b ON a.k = b.k AND b.ts >= a.ts")


def test_windows_of_both_sides_make_a_window_join() -> None:
    query = """SELECT l.window_start, x, y FROM TUMBLE(a, ts, INTERVAL '1' MINUTE) l {kind} JOIN TUMBLE(b, ts, INTERVAL '1' MINUTE) r
        ON l.k = r.k AND l.window_start = r.window_start AND l.window_end = r.window_end"""
    for kind in ("", "LEFT", "FULL"):
        shown = explain(query.format(kind=kind))
        assert "WindowJoin" in shown and "until the watermark passes the end of their window" in shown


def sources() -> tuple[str, duckdb.DuckDBPyConnection]:
    rng = np.random.default_rng(5)
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    script = ""
    for name, value in (("a", "x"), ("b", "y")):
        ts = np.sort(rng.integers(0, 600_000, 400))
        data = pa.table(
            {
                "k": pa.array(rng.integers(0, 6, 400)),
                value: pa.array(rng.integers(0, 100, 400)),
                "ts": pa.array(ts).cast(pa.timestamp("ms")),
            }
        )
        con.register(name, data)
        token = register(data.to_batches(max_chunksize=37))
        script += (
            f"CREATE SOURCE {name} (WATERMARK FOR ts) WITH ('connector' = 'arrow', 'token' = '{token}');"
        )
    return script, con


QUERIES = [
    (
        "SELECT a.k, x, y AS other FROM a LEFT JOIN b ON a.k = b.k AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '3' SECOND",
        None,
    ),
    (
        """SELECT a.k, count(*) AS n, window_start FROM a JOIN b ON a.k = b.k WITHIN INTERVAL '9' SECOND
        GROUP BY a.k, TUMBLE(a.ts, INTERVAL '1' MINUTE)""",
        """SELECT a.k, count(*) AS n, time_bucket(INTERVAL 1 MINUTE, a.ts) FROM a JOIN b ON a.k = b.k
        AND b.ts BETWEEN a.ts - INTERVAL 9 SECOND AND a.ts + INTERVAL 9 SECOND GROUP BY 1, 3""",
    ),
    (
        """SELECT l.k, l.window_end, n, m FROM
        (SELECT k, count(*) AS n, window_start, window_end FROM TUMBLE(a, ts, INTERVAL '20' SECOND) GROUP BY k, window_start, window_end) l
        FULL JOIN (SELECT k, max(y) AS m, window_start, window_end FROM TUMBLE(b, ts, INTERVAL '20' SECOND) GROUP BY k, window_start, window_end) r
        ON l.k = r.k AND l.window_start = r.window_start AND l.window_end = r.window_end""",
        """SELECT l.k, l.w + INTERVAL 20 SECOND, n, m FROM
        (SELECT k, count(*) AS n, time_bucket(INTERVAL 20 SECOND, ts) AS w FROM a GROUP BY ALL) l
        FULL JOIN (SELECT k, max(y) AS m, time_bucket(INTERVAL 20 SECOND, ts) AS w FROM b GROUP BY ALL) r USING (k, w)""",
    ),
    (
        """SELECT a.k, x, c.y AS y1, d.y AS y2 FROM a, b c, b d WHERE a.k = c.k AND a.k = d.k AND c.y < d.y
        AND c.ts BETWEEN a.ts AND a.ts + INTERVAL '9' SECOND AND d.ts BETWEEN a.ts - INTERVAL '9' SECOND AND a.ts""",
        None,
    ),
    (
        "SELECT x FROM a ANTI JOIN b ON a.k = b.k AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '3' SECOND",
        None,
    ),
]


@pytest.mark.parametrize(("stream", "batch"), QUERIES)
def test_result_equals_one_shot(stream: str, batch: str | None) -> None:
    script, con = sources()
    with millrace.connect() as database:
        database.execute(script)
        ours = Counter(database.query(stream).tuples())
    assert ours == Counter(con.execute(batch or stream).fetchall())
