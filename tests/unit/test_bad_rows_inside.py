"""Rows that do not compute inside a job go where the source says that its bad rows go."""

from collections.abc import Iterator

import pytest

import millrace
from millrace.database import Database
from millrace.errors import BadData


@pytest.fixture
def db() -> Iterator[Database]:
    with millrace.connect() as database:
        yield database


def source(db: Database, name: str, bad_rows: str) -> None:
    db.execute(
        f"CREATE SOURCE {name} (k STRING, v BIGINT) WITH ('connector' = 'push', 'bad_rows' = '{bad_rows}')"
    )


def test_failed_row_stands_in_the_table_of_the_source(db: Database) -> None:
    source(db, "s", "bad")
    db.execute("CREATE TABLE shares AS SELECT k, 100 / v AS share FROM s")
    db.execute("CREATE TABLE sums AS SELECT CAST(k AS INT) AS k, sum(v) AS v FROM s WHERE v < 5 GROUP BY 1")
    db.push("s", [{"k": "1", "v": 4}, {"k": "2", "v": 0}, {"k": "x", "v": 1}])
    assert sorted(db.query("SELECT * FROM shares").tuples()) == [("1", 25.0), ("x", 100.0)]
    assert sorted(db.query("SELECT * FROM sums").tuples()) == [(1, 4), (2, 0)]
    found = db.query("SELECT code, payload FROM bad").tuples()
    assert sorted(str(payload) for _, payload in found) == [
        """b'{"k": "2", "v": 0}'""",
        """b'{"k": "x", "v": 1}'""",
    ]


def test_decode_errors_and_row_errors_share_the_table(db: Database) -> None:
    source(db, "s", "bad")
    db.execute("CREATE TABLE t AS SELECT 1 / v AS x FROM s")
    db.push("s", [{"k": "a", "v": "no number"}, {"k": "b", "v": 0}])
    assert db.query("SELECT count(*) FROM bad").tuples() == [(2,)]


def test_row_error_far_below_a_join_reaches_the_table(db: Database) -> None:
    source(db, "s", "bad")
    source(db, "other", "skip")
    db.execute("CREATE TABLE t AS SELECT a.v / b.v AS x FROM other a JOIN s b ON a.k = b.k")
    db.push("other", {"k": "a", "v": 6})
    db.push("s", [{"k": "a", "v": 0}, {"k": "a", "v": 3}])
    assert db.query("SELECT x FROM t").tuples() == [(2.0,)]
    assert db.query("SELECT count(*) FROM bad").tuples() == [(1,)]


def test_reader_of_dead_letters_does_not_feed_itself(db: Database) -> None:
    source(db, "s", "bad")
    db.execute("CREATE TABLE t AS SELECT 1 / v AS x FROM s")
    db.execute("CREATE TABLE again AS SELECT CAST(reason AS INT) AS x FROM bad")
    db.push("s", {"k": "a", "v": 0})
    assert db.query("SELECT count(*) FROM bad").tuples() == [(1,)]
    assert db.query("SELECT * FROM again").tuples() == []


def test_fail_stops_at_a_row_that_does_not_compute(db: Database) -> None:
    source(db, "s", "fail")
    db.execute("CREATE TABLE t AS SELECT 1 / v AS x FROM s")
    with pytest.raises(BadData) as caught:
        db.push("s", {"k": "a", "v": 0})
    assert caught.value.code.startswith("MR20")


def test_skip_counts_the_row_and_goes_on(db: Database) -> None:
    source(db, "s", "skip")
    db.execute("CREATE TABLE t AS SELECT 1 / v AS x FROM s")
    db.push("s", [{"k": "a", "v": 0}, {"k": "a", "v": 1}])
    assert db.query("SELECT x FROM t").tuples() == [(1.0,)]
    assert len(db.dead_letters()) == 1
