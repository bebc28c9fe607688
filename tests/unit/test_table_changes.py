"""UPDATE and DELETE of own tables, and SUBSCRIBE in scripts: as DuckDB has it, all or nothing, seen by readers."""

import random
from pathlib import Path

import duckdb
import pytest

import millrace
from millrace.errors import MillraceError

TABLE = "CREATE TABLE t (id INT NOT NULL, k STRING, v BIGINT, PRIMARY KEY (id))"
ROWS = "INSERT INTO t VALUES (1, 'a', 10), (2, 'b', NULL), (3, 'a', 30), (4, NULL, 40)"
CHANGES = [
    "UPDATE t SET v = v + 1 WHERE k = 'a'",
    "UPDATE t SET k = 'z', v = id * 100",
    "UPDATE t SET k = upper(k) WHERE v > (SELECT avg(v) FROM t)",
    "UPDATE t SET id = id + 1",
    "UPDATE t SET id = 9, k = NULL WHERE id = 2",
    "UPDATE t SET v = 7 WHERE k IN ('b', 'c')",
    "UPDATE t SET v = 1 WHERE v > 1000",
    "DELETE FROM t WHERE v > 10",
    "DELETE FROM t WHERE k IS NULL OR id = 1",
    "DELETE FROM t WHERE id IN (SELECT max(id) FROM t)",
    "DELETE FROM t",
]


@pytest.mark.parametrize("sql", CHANGES)
def test_the_table_is_afterwards_what_duckdb_has(sql: str) -> None:
    oracle = duckdb.connect()
    oracle.execute(TABLE.replace("STRING", "VARCHAR"))
    oracle.execute(ROWS)
    with millrace.connect() as db:
        db.execute(TABLE)
        db.execute(ROWS)
        db.execute("CREATE TABLE total AS SELECT k, count(*) AS n, sum(v) AS s FROM t GROUP BY k")
        if "id + 1" in sql:  # checked by DuckDB row by row
            oracle.execute(
                "DELETE FROM t; INSERT INTO t VALUES (2, 'a', 10), (3, 'b', NULL), (4, 'a', 30), (5, NULL, 40)"
            )
            count = 4
        else:
            count = oracle.execute(sql).fetchall()[0][0]
        assert db.execute(sql).tuples()[0][0] in (f"updated {count} rows", f"deleted {count} rows")
        for query in ("SELECT * FROM t", "SELECT k, count(*), sum(v) FROM t GROUP BY k"):
            ours = db.query(query if "GROUP" not in query else "SELECT * FROM total").tuples()
            assert sorted(ours, key=repr) == sorted(oracle.execute(query).fetchall(), key=repr)


def test_many_changes_in_a_row_agree_with_duckdb() -> None:
    rng = random.Random(3)
    oracle = duckdb.connect()
    oracle.execute("CREATE TABLE t (id INT, k VARCHAR, v BIGINT)")
    with millrace.connect() as db:
        db.execute(TABLE)
        for step in range(40):
            sql = rng.choice(
                (
                    f"INSERT INTO t VALUES ({step}, '{rng.choice('abc')}', {rng.randrange(9)})",
                    f"UPDATE t SET v = v * 2, k = '{rng.choice('abc')}' WHERE v < {rng.randrange(9)}",
                    f"DELETE FROM t WHERE v = {rng.randrange(9)} AND k <> '{rng.choice('abc')}'",
                    f"UPDATE t SET id = id + 1000 WHERE id = {rng.randrange(40)}",
                )
            )
            db.execute(sql)
            oracle.execute(sql)
            found = sorted(db.query("SELECT * FROM t").tuples(), key=repr)
            assert found == sorted(oracle.execute("SELECT * FROM t").fetchall(), key=repr), sql


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("UPDATE t SET w = 1", "MR1101"),
        ("UPDATE t SET v = 1, v = 2", "MR1117"),
        ("UPDATE t SET v = 'x'", "MR1136"),
        ("UPDATE t SET v = k", "MR1110"),
        ("UPDATE t SET v = 1 WHERE nope = 1", "MR1101"),
        ("DELETE FROM plain", "MR1950"),
        ("UPDATE total SET n = 1", "MR1950"),
        ("DELETE FROM s", "MR1950"),
        ("DELETE FROM nobody", "MR1201"),
        ("UPDATE t SET v = 1 / (v - 10)", "MR1145"),
        ("SUBSCRIBE t AS OF EPOCH 3", "MR1957"),
        ("SUBSCRIBE nobody", "MR1201"),
        ("SUBSCRIBE t WHERE nope > 1", "MR1101"),
    ],
)
def test_what_can_not_be_changed_is_refused_at_its_place(sql: str, code: str) -> None:
    with millrace.connect() as db:
        db.execute(
            f"{TABLE}; CREATE TABLE plain (a INT); CREATE SOURCE s (a INT) WITH ('connector' = 'push')"
        )
        db.execute("CREATE TABLE total AS SELECT count(*) AS n FROM t")
        db.execute(ROWS)
        with pytest.raises(MillraceError) as caught:
            db.execute(sql)
        assert caught.value.code == code
        assert caught.value.position is not None
        assert len(db.query("SELECT * FROM t WHERE v = 10")) == 1


@pytest.mark.parametrize(
    ("sql", "code"), [("UPDATE t SET id = 1 WHERE id > 2", "MR1146"), ("UPDATE t SET id = NULL", "MR1119")]
)
def test_a_change_that_would_lose_rows_changes_none(sql: str, code: str) -> None:
    with millrace.connect() as db:
        db.execute(TABLE)
        db.execute(ROWS)
        before = db.query("SELECT * FROM t").tuples()
        with pytest.raises(MillraceError) as caught:
            db.execute(sql)
        assert caught.value.code == code
        assert db.query("SELECT * FROM t").tuples() == before


def test_changes_outlive_the_process(tmp_path: Path) -> None:
    place = f"file://{tmp_path}"
    with millrace.connect(checkpoint_store=place) as db:
        db.execute(TABLE)
        db.execute(ROWS)
        db.execute("UPDATE t SET v = 0, id = id + 10 WHERE id < 3; DELETE FROM t WHERE id = 3")
        held = sorted(db.query("SELECT id, v FROM t").tuples())
    assert held == [(4, 40), (11, 0), (12, 0)]
    with millrace.connect(checkpoint_store=place) as db:
        assert sorted(db.query("SELECT id, v FROM t").tuples()) == held


def test_a_script_shows_the_rows_of_a_subscription(capsys: pytest.CaptureFixture[str]) -> None:
    with millrace.connect() as db:
        db.execute(TABLE)
        db.execute("INSERT INTO t VALUES (1, 'a', 10)")
        assert db.execute("SUBSCRIBE t WHERE v > 5").tuples() == [("subscribed to t",)]
        db.execute("INSERT INTO t VALUES (2, 'b', 3), (1, 'c', 7)")
        assert db.subscribe("SUBSCRIBE TO t WHERE v < 5", "rows").poll() == {
            "id": 2,
            "k": "b",
            "v": 3,
            "_weight": 1,
        }
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["t"]
    assert [line for line in lines if line[0] in "+-"] == [
        ["+", "1", "|", "a", "|", "10"],
        ["-", "1", "|", "a", "|", "10"],
        ["+", "1", "|", "c", "|", "7"],
    ]
