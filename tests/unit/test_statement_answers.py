"""What statements answer: settings, EXPLAIN ANALYZE, sources declared by a query, words for what was done."""

import json
from pathlib import Path

import pytest

import millrace
from millrace.errors import MillraceError
from millrace.settings import Settings

TABLE = "CREATE TABLE t (k STRING, v BIGINT); INSERT INTO t VALUES ('a', 1), ('b', 0), ('a', 5)"


def test_explain_analyze_runs_the_query_and_shows_rows_of_each_operator() -> None:
    with millrace.connect() as db:
        db.execute(TABLE)
        plan = [
            row[0] for row in db.execute("EXPLAIN ANALYZE SELECT k, sum(10 / v) FROM t GROUP BY k").tuples()
        ]
        ran = [str(line).partition("ran: ")[2] for line in plan if "ran: " in str(line)]
        assert [text.rsplit(", ", 1)[0] for text in ran if "compute" not in text] == ["2 rows in, 1 rows out"]
        assert next(text for text in ran if "compute" in text).startswith("3 rows in, 2 rows out")
        assert next(text for text in ran if "compute" in text).endswith("1 did not decode or compute")
        text = "\n".join(
            str(row[0])
            for row in db.execute("EXPLAIN ANALYZE (FORMAT JSON) SELECT k FROM t WHERE v > 0").tuples()
        )
        measured = [node["measured"] for node in json.loads(text)["nodes"] if "measured" in node]
        assert [(one["rows_in"], one["rows_out"]) for one in measured] == [(3, 2)]


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("EXPLAIN ANALYZE CREATE STREAM x AS SELECT k FROM t", "MR1955"),
        ("EXPLAIN ANALYZE SELECT k FROM s", "MR1503"),
    ],
)
def test_explain_analyze_of_what_does_not_answer_is_refused(sql: str, code: str) -> None:
    with millrace.connect() as db:
        db.execute(TABLE)
        db.execute("CREATE SOURCE s (k STRING) WITH ('connector' = 'push')")
        with pytest.raises(MillraceError) as caught:
            db.execute(sql)
        assert caught.value.code == code


def test_statements_without_rows_say_what_they_did() -> None:
    with millrace.connect() as db:
        db.execute(TABLE)

        def said(sql: str) -> object:
            return db.execute(sql).tuples()[0][0]

        assert said("DROP TABLE IF EXISTS nobody") == "nothing to do: there is nothing to drop"
        assert said("CREATE TABLE IF NOT EXISTS t (k STRING)") == "nothing to do: it is there already"
        db.execute("CREATE SINK out INTO BLACKHOLE ()")
        assert said("INSERT INTO out SELECT k FROM t") == "writing into out"


def test_a_query_that_declares_its_source_answers_with_rows(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id,name\n1,a\n2,b\n")
    with millrace.connect() as db:
        sql = f"SELECT id FROM q WITH ('q.type' = 'file_source', 'q.path' = '{tmp_path}/x.csv', 'q.format' = 'csv')"
        assert db.execute(sql).tuples() == [(1,), (2,)]
        assert db.query(sql).tuples() == [(1,), (2,)]
        assert db.progress().rows_out == 4


def test_describe_of_a_query_names_its_columns() -> None:
    with millrace.connect() as db:
        db.execute(TABLE)
        assert db.execute("DESCRIBE SELECT k, v + 1 AS w FROM t").tuples() == [
            ("k", "string", "yes"),
            ("w", "int64", "yes"),
        ]


def test_late_rows_of_a_subscription_do_not_take_its_place() -> None:
    with millrace.connect() as db:
        db.execute(
            "CREATE SOURCE s (k STRING, ts TIMESTAMP(3), WATERMARK FOR ts) WITH ('connector' = 'push')"
        )
        seen = db.subscribe(
            "SELECT k, count(*) AS n FROM s GROUP BY k, TUMBLE(ts, INTERVAL '1' MINUTE) LATE DATA TO late",
            "rows",
        )
        for second in (1, 70, 2):
            db.push("s", {"k": "a", "ts": f"2026-01-01T00:{second // 60:02}:{second % 60:02}"})
        assert seen.poll() == {"k": "a", "n": 1}


def test_settings_hold_for_what_comes_and_can_be_reset() -> None:
    with millrace.connect() as db:
        db.execute(f"{TABLE}; SET bad_rows = 'fail'; SET batch.max_rows = 10; SET state.ttl = '1h'")
        with pytest.raises(MillraceError) as caught:
            db.query("SELECT 1 / v FROM t")
        assert caught.value.code == "MR2002"
        db.execute("RESET bad_rows")
        assert len(db.query("SELECT 1 / v FROM t")) == 2
        db.execute("RESET")
        assert db.settings == Settings()


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("RESET nothing", "MR1540"),
        ("SET nothing = 1", "MR1540"),
        ("SET bad_rows = 'no name'", "MR1541"),
        ("SET vnodes = 3", "MR1542"),
    ],
)
def test_settings_that_do_not_do_are_refused_at_their_place(sql: str, code: str) -> None:
    with millrace.connect() as db, pytest.raises(MillraceError) as caught:
        db.execute(f"SELECT 1;\n{sql}")
    assert caught.value.code == code
    assert caught.value.position is not None and caught.value.position.line == 2


def test_every_running_node_has_a_name() -> None:
    with millrace.connect() as db:
        db.execute(TABLE)
        db.execute("CREATE SINK out FROM (SELECT k, count(*) AS n FROM t GROUP BY k) INTO BLACKHOLE ()")
        assert None not in [row["name"] for row in db.execute("SHOW METRICS")]
