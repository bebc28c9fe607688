"""Windows of event time over joins on time: a pair has two times, and a window may go by either. DuckDB's answer."""

import random
from datetime import datetime, timedelta

import duckdb
import pyarrow as pa
import pytest

import millrace
from millrace.errors import MillraceError

SCHEMA = pa.schema([("k", pa.int64()), ("v", pa.int64()), ("ts", pa.timestamp("ms"))])
WATERMARK = "WATERMARK FOR ts AS ts - INTERVAL '2' SECOND"
WITHIN = "a.k = b.k AND b.ts BETWEEN a.ts - INTERVAL '4' SECOND AND a.ts + INTERVAL '7' SECOND"
AFTER = "a.k = b.k AND b.ts BETWEEN a.ts + INTERVAL '1' SECOND AND a.ts + INTERVAL '7' SECOND"
CALLS = "count(*) AS n, sum(v) AS s"


def some(rng: random.Random, count: int) -> list[dict[str, object]]:
    """Rows by arrival, each at most two seconds behind one before it."""
    clock, rows = 0, []
    for number in range(count):
        clock += rng.choice((0, 1, 1, 3))
        at = datetime(2024, 1, 1) + timedelta(seconds=clock - rng.randint(0, 2))
        rows.append({"k": rng.randint(0, 2), "v": number, "ts": at})
    return rows


@pytest.mark.parametrize(
    "joined",
    [
        f"SELECT a.k, a.v, a.ts FROM a JOIN b ON {WITHIN}",
        f"SELECT a.k, b.v, b.ts FROM a JOIN b ON {WITHIN}",
        f"SELECT a.k, b.v, b.ts, a.ts AS other FROM a JOIN b ON {AFTER} WHERE a.v > 3",
        f"SELECT a.k, a.v, a.ts FROM a LEFT JOIN b ON {WITHIN}",
        f"SELECT b.k, b.v, b.ts FROM a RIGHT JOIN b ON {WITHIN}",
        f"SELECT a.k, a.v, a.ts FROM a SEMI JOIN b ON {AFTER}",
        f"SELECT c.k, c.v, c.ts FROM a JOIN b ON {WITHIN} JOIN b AS c ON c.k = a.k AND c.ts BETWEEN a.ts AND a.ts + INTERVAL '3' SECOND",
    ],
)
def test_tumbling_window_over_an_interval_join_equals_duckdb(joined: str) -> None:
    rng = random.Random(joined)
    ours = f"SELECT k, window_start AS w, {CALLS} FROM ({joined}) AS j GROUP BY k, TUMBLE(ts, INTERVAL '5' SECOND)"
    theirs = (
        f"SELECT k, time_bucket(INTERVAL '5' SECOND, ts) AS w, {CALLS} FROM ({joined}) AS j GROUP BY k, w"
    )
    con = duckdb.connect()
    with millrace.connect() as database:
        waiting = {name: some(rng, 60) for name in "ab"}
        for name, rows in waiting.items():
            con.register(name, pa.Table.from_pylist(rows, SCHEMA))
            database.execute(
                f"CREATE SOURCE {name} (k BIGINT, v BIGINT, ts TIMESTAMP(3), {WATERMARK}) WITH ('connector' = 'push')"
            )
        database.execute(f"CREATE TABLE found AS {ours}")
        closed = 0
        while any(waiting.values()):
            name = rng.choice([n for n in waiting if waiting[n]])
            size = rng.randint(1, 5)
            database.push(name, waiting[name][:size])
            waiting[name] = waiting[name][size:]
            closed = max(closed, len(database.query("SELECT * FROM found").tuples()))
        assert closed, "no window was over before the end of input"
        for name in "ab":
            database.end(name)
        found = sorted(database.query("SELECT * FROM found").tuples())
        metrics = database.metrics().arrow
    assert found == sorted(con.sql(theirs).fetchall())
    assert sum(metrics.column("late_rows").to_pylist()) == 0


def test_time_of_the_side_that_may_be_missing_is_no_event_time() -> None:
    with millrace.connect() as database:
        for name in "ab":
            database.execute(
                f"CREATE SOURCE {name} (k BIGINT, v BIGINT, ts TIMESTAMP(3), {WATERMARK}) WITH ('connector' = 'push')"
            )
        for kind in ("LEFT", "FULL"):
            joined = f"SELECT a.k, b.v, b.ts FROM a {kind} JOIN b ON {WITHIN}"
            with pytest.raises(MillraceError, match="MR1321"):
                database.explain(
                    f"SELECT k, {CALLS} FROM ({joined}) AS j GROUP BY k, TUMBLE(ts, INTERVAL '5' SECOND)"
                )
