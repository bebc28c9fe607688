"""Top-N, ranks, de-duplication, QUALIFY and LIMIT in SQL: what is planned, and what comes out."""

from __future__ import annotations

from collections import Counter

import pytest

from millrace.database import Database
from millrace.errors import Invalid, MillraceError
from millrace.operators.connectors.arrow import register
from millrace.operators.sink import Changelog
from millrace.planner.session import Planner

SOURCE = (
    "CREATE SOURCE ticks (k STRING, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts) WITH ('connector' = 'push')"
)
ROWS = [
    {"k": "a", "v": 3, "ts": "2024-01-01 00:00:01"},
    {"k": "b", "v": 5, "ts": "2024-01-01 00:00:02"},
    {"k": "a", "v": 7, "ts": "2024-01-01 00:00:03"},
    {"k": "b", "v": None, "ts": "2024-01-01 00:00:04"},
    {"k": "a", "v": 5, "ts": "2024-01-01 00:00:05"},
]


@pytest.fixture
def db():
    with Database() as database:
        database.execute(SOURCE)
        yield database


def titles(sql: str) -> list[str]:
    plan, _ = Planner().compile(f"{SOURCE}; {sql}")
    return [getattr(node.spec, "title", "Source") for node in plan.nodes]


def last(db: Database, query: str, rows: list[dict] = ROWS) -> list[tuple]:
    """What a reader has of a query after rows came one by one."""
    reader = db.subscribe(query, "rows")
    for row in rows:
        db.push("ticks", row)
    counts: Counter = Counter()
    while (got := reader.poll()) is not None:
        counts[tuple(v for n, v in got.items() if n != "_weight")] += got.get("_weight", 1)
        assert min(counts.values()) >= 0
    return sorted(counts.elements(), key=repr)


RANKED = "SELECT k, v FROM (SELECT *, {f} OVER (PARTITION BY k ORDER BY v {d}) AS r FROM ticks) WHERE r {c}"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (RANKED.format(f="ROW_NUMBER()", d="DESC NULLS LAST", c="<= 1"), [("a", 7), ("b", 5)]),
        (RANKED.format(f="ROW_NUMBER()", d="DESC", c="= 1"), [("a", 7), ("b", None)]),
        (RANKED.format(f="ROW_NUMBER()", d="", c="= 2"), [("a", 5), ("b", None)]),
        (RANKED.format(f="RANK()", d="", c="BETWEEN 2 AND 3"), [("a", 5), ("a", 7), ("b", None)]),
        (RANKED.format(f="DENSE_RANK()", d="", c="< 2"), [("a", 3), ("b", 5)]),
        (RANKED.format(f="ROW_NUMBER()", d="", c="> 2"), [("a", 7)]),
        ("SELECT k, v FROM ticks QUALIFY ROW_NUMBER() OVER (PARTITION BY k ORDER BY v) = 1", [("a", 3), ("b", 5)]),
        ("SELECT v FROM ticks ORDER BY v LIMIT 2", [(3,), (5,)]),
        ("SELECT v FROM ticks ORDER BY v DESC LIMIT 2", [(7,), (None,)]),
        ("SELECT v FROM ticks ORDER BY v LIMIT 2 OFFSET 1", [(5,), (5,)]),
        ("SELECT k, v FROM (SELECT * FROM ticks ORDER BY v LIMIT 1)", [("a", 3)]),
        ("SELECT v FROM ticks LIMIT 2", [(3,), (5,)]),
        ("SELECT v FROM ticks LIMIT 0", []),
        ("SELECT k, count(*) AS n FROM ticks GROUP BY k ORDER BY n DESC LIMIT 1", [("a", 3)]),
        (
            ("SELECT k, s FROM (SELECT k, s, RANK() OVER (ORDER BY s DESC) AS r FROM "
            "(SELECT k, sum(v) AS s FROM ticks GROUP BY k)) WHERE r <= 1"),
            [("a", 15)],
        ),
        (
            ("SELECT k, r FROM (SELECT k, ROW_NUMBER() OVER (ORDER BY n) AS r FROM "
            "(SELECT k, count(*) AS n FROM ticks GROUP BY k))"),
            [("a", 2), ("b", 1)],
        ),
        ("SELECT count(*) AS n FROM (SELECT v FROM ticks ORDER BY v LIMIT 2)", [(2,)]),
    ],
)  # fmt: skip
def test_query_answers_as_of_the_last_row(db: Database, query: str, expected: list[tuple]) -> None:
    assert last(db, query) == sorted(expected, key=repr)


def test_rank_in_the_output_moves_with_the_rows(db: Database) -> None:
    query = "SELECT v, r FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY v) AS r FROM ticks) WHERE r <= 2"
    assert last(db, query) == [(3, 1), (5, 1), (5, 2), (None, 2)]


def test_limit_of_a_table_that_is_written_to_follows_the_table(db: Database) -> None:
    db.execute(
        "CREATE TABLE t (k STRING, v BIGINT, PRIMARY KEY (k)); INSERT INTO t VALUES ('a', 1), ('b', 2)"
    )
    db.execute("CREATE TABLE first AS SELECT k, v FROM t ORDER BY v LIMIT 1")
    assert db.query("SELECT * FROM first").tuples() == [("a", 1)]
    db.execute("INSERT INTO t VALUES ('a', 9)")
    assert db.query("SELECT * FROM first").tuples() == [("b", 2)]
    rows = db.subscribe("SELECT v FROM t ORDER BY v LIMIT 1", "rows")
    assert rows.poll() == {"v": 2, "_weight": 1}


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE STREAM s AS SELECT * FROM ticks ORDER BY v",
        "CREATE TABLE s AS SELECT * FROM ticks ORDER BY v",
        "CREATE SINK s FROM (SELECT * FROM ticks ORDER BY v) INTO CONSOLE ()",
    ],
)
def test_order_without_limit_of_rows_without_end_is_refused(db: Database, sql: str) -> None:
    with pytest.raises(Invalid) as caught:
        db.execute(sql)
    assert caught.value.code == "MR1344" and caught.value.position is not None
    with pytest.raises(Invalid) as caught:
        db.subscribe("SELECT * FROM ticks ORDER BY v")
    assert caught.value.code == "MR1344"


def test_order_by_what_has_no_order_is_refused() -> None:
    with pytest.raises(MillraceError) as caught:
        titles("CREATE STREAM s AS SELECT * FROM (SELECT ARRAY[v] AS a FROM ticks) ORDER BY a LIMIT 2")
    assert caught.value.code == "MR1347"


def test_limit_of_a_stream_and_of_a_sink_is_in_the_plan() -> None:
    assert "TopN" in titles("CREATE STREAM s AS SELECT * FROM ticks ORDER BY v LIMIT 3")
    assert "TopN" in titles("CREATE SINK s FROM (SELECT * FROM ticks ORDER BY v LIMIT 3) INTO BLACKHOLE ()")
    assert "TopN" in titles("CREATE STREAM s AS SELECT * FROM ticks LIMIT 3")


def test_changelog_and_key_of_ranked_rows() -> None:
    planner = Planner()
    first = "SELECT * FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY v) AS r FROM ticks)"
    plan, _ = planner.compile(
        f"{SOURCE}; CREATE STREAM one AS SELECT k, v FROM ({first}) WHERE r = 1;"
        f"CREATE STREAM two AS {first} WHERE r <= 2; CREATE STREAM some AS SELECT * FROM ticks LIMIT 3"
    )
    one, two, some = (plan.nodes[plan.output(name).node] for name in ("one", "two", "some"))
    assert (one.changelog, one.key, one.event_time) == (Changelog.RETRACT, (0,), None)
    assert (two.changelog, two.key, two.event_time) == (Changelog.RETRACT, (0, 3), None)
    assert some.changelog is Changelog.APPEND


def test_last_row_of_a_key_is_an_upsert_where_the_reader_knows_rows_by_key() -> None:
    planner = Planner()
    newest = "SELECT k, v FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY ts DESC) AS r FROM ticks) WHERE r = 1"
    plan, _ = planner.compile(f"{SOURCE}; CREATE SINK s FROM ({newest}) INTO BLACKHOLE () WITH ('key' = 'k')")
    assert [n.changelog for n in plan.nodes if getattr(n.spec, "title", "") == "TopN"] == [Changelog.UPSERT]


def test_explain_says_order_rank_limit_and_state(db: Database) -> None:
    text = db.explain("CREATE STREAM s AS SELECT k, v FROM ticks ORDER BY v DESC LIMIT 3 OFFSET 1")
    for part in ("TopN", "v desc", "row_number", "limit", "the first 4 rows", "retract"):
        assert part in text, text


def test_ranks_in_windows_are_appended_and_late_windows_stay_closed(db: Database) -> None:
    query = """
        SELECT window_start, k, n FROM (
          SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY n DESC) AS r FROM (
            SELECT k, count(*) AS n, window_start, window_end
            FROM TABLE(TUMBLE(TABLE ticks, DESCRIPTOR(ts), INTERVAL '2' SECOND)) GROUP BY k, window_start, window_end))
        WHERE r <= 1"""
    reader = db.subscribe(query, "rows")
    for row in ROWS:
        db.push("ticks", row)
    db.end("ticks")
    rows = []
    while (got := reader.poll()) is not None:
        assert "_weight" not in got
        rows.append((got["window_start"].second, got["k"], got["n"]))
    assert [(second, n) for second, _, n in rows] == [(0, 1), (2, 1), (4, 1)]


def test_windows_close_by_the_watermark_where_the_event_time_is_not_selected(db: Database) -> None:
    rows = "SELECT k, v, window_start, window_end FROM TABLE(TUMBLE(TABLE ticks, DESCRIPTOR(ts), INTERVAL '2' SECOND))"
    top = f"SELECT k, v FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY v) AS r FROM ({rows})) WHERE r = 1"
    assert "WindowTopN" in titles(f"CREATE STREAM s AS {top}")
    reader = db.subscribe(top, "rows")
    for row in ROWS:
        db.push("ticks", row)
    db.end("ticks")
    found = []
    while (got := reader.poll()) is not None:
        found.append(tuple(got.values()))
    assert found == [("a", 3), ("b", 5), ("a", 5)]


def test_source_of_batches_gives_the_same_in_one_go(db: Database) -> None:
    import pyarrow as pa

    batch = pa.RecordBatch.from_pylist([{"k": r["k"], "v": r["v"]} for r in ROWS])
    db.execute(f"CREATE SOURCE b WITH ('connector' = 'arrow', 'token' = '{register([batch])}')")
    top = "SELECT k, v, r FROM (SELECT *, RANK() OVER (PARTITION BY k ORDER BY v DESC) AS r FROM b) WHERE r <= 1"
    assert sorted(db.query(top).tuples()) == [("a", 7, 1), ("b", None, 1)]
