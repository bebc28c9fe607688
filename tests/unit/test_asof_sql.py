"""ASOF JOIN and FOR SYSTEM_TIME AS OF in SQL: what is planned, what is refused, and what comes out."""

from collections import Counter
from datetime import datetime

import duckdb
import numpy as np
import pyarrow as pa
import pytest

import millrace
from millrace.errors import MillraceError
from millrace.operators.connectors.arrow import register
from millrace.planner.session import Planner

TABLES = """
CREATE SOURCE t (s VARCHAR, ts TIMESTAMP(3), v BIGINT, WATERMARK FOR ts AS ts - INTERVAL '4' SECOND) WITH ('connector' = 'push');
CREATE SOURCE q (s VARCHAR, ts TIMESTAMP(3), bid BIGINT, WATERMARK FOR ts AS ts - INTERVAL '4' SECOND) WITH ('connector' = 'push');
CREATE SOURCE n (s VARCHAR, bid BIGINT) WITH ('connector' = 'push');
"""


@pytest.mark.parametrize(
    ("join", "match"),
    [
        ("ASOF JOIN q MATCH_CONDITION(t.ts >= q.ts) ON t.s = q.s", "the last right row with ts <= left.ts"),
        ("ASOF JOIN q ON t.s = q.s AND t.ts >= q.ts", "the last right row with ts <= left.ts"),
        ("ASOF LEFT JOIN q MATCH_CONDITION(q.ts < t.ts) USING (s)", "the last right row with ts < left.ts"),
        ("ASOF JOIN q MATCH_CONDITION(t.ts <= q.ts) ON t.s = q.s", "the first right row with ts >= left.ts"),
        (
            "ASOF JOIN q MATCH_CONDITION(t.ts >= q.ts AND t.ts - q.ts <= INTERVAL '5' SECOND) ON t.s = q.s",
            "ts <= left.ts, at most 5 s away",
        ),
        ("ASOF JOIN q MATCH_CONDITION(NEAREST(t.ts, q.ts)) ON t.s = q.s", "nearest to left.ts"),
    ],
)
def test_spellings(join: str, match: str) -> None:
    shown = " ".join(Planner().explain(f"{TABLES} SELECT v, bid FROM t {join};").replace("│", " ").split())
    assert "AsofJoin" in shown and match in shown, shown
    assert "emit: when the watermark makes it final" in shown and "rows: append-only" in shown


def test_emit_changes_sends_at_once() -> None:
    shown = Planner().explain(
        TABLES + "SELECT v, bid FROM t ASOF JOIN q MATCH_CONDITION(t.ts >= q.ts) ON t.s = q.s EMIT CHANGES;"
    )
    assert "emit: at once, corrected by later right rows" in shown and "rows: changes" in shown


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("SELECT v FROM t ASOF JOIN q ON t.s = q.s", "MR1327"),
        (
            "SELECT v FROM t ASOF JOIN q MATCH_CONDITION(t.ts >= q.ts + INTERVAL '1' SECOND) ON t.s = q.s",
            "MR1327",
        ),
        ("SELECT v FROM t ASOF JOIN q MATCH_CONDITION(t.ts >= q.ts) ON t.s = q.s AND t.v < q.bid", "MR1943"),
        ("SELECT v FROM t ASOF JOIN n MATCH_CONDITION(t.ts >= n.bid) ON t.s = n.s", "MR1325"),
        ("SELECT v FROM t FOR SYSTEM_TIME AS OF PROCTIME()", "MR1138"),
        ("SELECT t.v FROM t FULL JOIN q FOR SYSTEM_TIME AS OF t.ts ON t.s = q.s", "MR1138"),
        ("SELECT t.v FROM t JOIN n FOR SYSTEM_TIME AS OF t.ts ON t.s = n.s", "MR1325"),
    ],
)
def test_what_can_not_be_executed_is_refused(query: str, code: str) -> None:
    with pytest.raises(MillraceError) as caught:
        Planner().compile(TABLES + query)
    assert caught.value.code == code, caught.value


def feeds() -> tuple[str, duckdb.DuckDBPyConnection]:
    rng = np.random.default_rng(7)
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    script = ""
    for name, value in (("t", "v"), ("q", "bid")):
        ts = np.sort(rng.choice(600_000, 500, replace=False))
        data = pa.table(
            {
                "s": pa.array([("a", "b", "c", None)[i] for i in rng.integers(0, 4, 500)], pa.string()),
                value: pa.array(np.arange(500)),
                "ts": pa.array(ts).cast(pa.timestamp("ms")),
            }
        )
        con.register(name, data)
        token = register(data.to_batches(max_chunksize=41))
        script += (
            f"CREATE SOURCE {name} (WATERMARK FOR ts) WITH ('connector' = 'arrow', 'token' = '{token}');"
        )
    return script, con


@pytest.mark.parametrize("side", ["", "LEFT"])
@pytest.mark.parametrize("compare", [">=", ">", "<=", "<"])
@pytest.mark.parametrize("emit", ["", "EMIT CHANGES"])
def test_asof_result_equals_duckdb(side: str, compare: str, emit: str) -> None:
    script, con = feeds()
    stream = f"SELECT t.s, v, bid AS quote FROM t ASOF {side} JOIN q MATCH_CONDITION(t.ts {compare} q.ts) ON t.s = q.s {emit}"
    with millrace.connect() as database:
        database.execute(script)
        ours = Counter(database.query(stream).tuples())
    batch = f"SELECT t.s, v, bid FROM t ASOF {side} JOIN q ON t.s = q.s AND t.ts {compare} q.ts"
    assert ours == Counter(con.execute(batch).fetchall())


def test_append_only_table_as_of_event_time_is_the_last_version_before() -> None:
    script, con = feeds()
    with millrace.connect() as database:
        database.execute(script)
        ours = Counter(
            database.query(
                "SELECT t.s, v, bid FROM t LEFT JOIN q FOR SYSTEM_TIME AS OF t.ts ON t.s = q.s"
            ).tuples()
        )
    assert ours == Counter(
        con.execute("SELECT t.s, v, bid FROM t ASOF LEFT JOIN q ON t.s = q.s AND t.ts >= q.ts").fetchall()
    )


def at(second: int) -> datetime:
    return datetime(2026, 1, 1, 0, 0, second)


def test_processing_time_takes_the_latest_at_arrival_and_leaves_it() -> None:
    with millrace.connect() as database:
        database.execute(TABLES)
        database.execute("CREATE TABLE latest AS SELECT s, max(bid) AS bid FROM n GROUP BY s")
        rows = database.subscribe(
            "SELECT t.v, r.bid FROM t LEFT JOIN latest FOR SYSTEM_TIME AS OF PROCTIME() AS r ON t.s = r.s",
            "rows",
        )
        database.push("t", {"s": "a", "v": 1, "ts": at(1)})
        database.push("n", [{"s": "a", "bid": 5}, {"s": "b", "bid": 6}])
        database.push("t", [{"s": "a", "v": 2, "ts": at(2)}, {"s": None, "v": 3, "ts": at(2)}])
        database.push("n", {"s": "a", "bid": 9})
        database.push("t", {"s": "a", "v": 4, "ts": at(3)})
        found = [(row["v"], row["bid"]) for row in iter(rows.poll, None)]
    assert sorted(found) == [(1, None), (2, 5), (3, None), (4, 9)]
