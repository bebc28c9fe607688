"""Values at the edges: numbers beyond a DOUBLE, times without a zone, narrow columns, octets, failing aggregates."""

import datetime
import json
from pathlib import Path

import pytest

import millrace
from millrace.errors import MillraceError

UTC = datetime.UTC


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT 1e400", "MR1147"),
        ("SELECT -1e400", "MR1147"),
        ("SELECT 1" + "0" * 400 + ".5", "MR1147"),
        ("SELECT CAST('1e400' AS DOUBLE)", "MR1136"),
        ("SELECT x'abc'", "MR1148"),
        ("CREATE STREAM x", "MR1067"),
        ("CREATE STREAM x (a INT)", "MR1067"),
    ],
)
def test_what_has_no_value_is_refused_at_its_place(sql: str, code: str) -> None:
    with millrace.connect() as db, pytest.raises(MillraceError) as caught:
        db.execute(sql)
    assert caught.value.code == code
    assert caught.value.position is not None


def test_a_text_of_digits_beyond_a_double_is_a_row_error_and_the_word_is_not() -> None:
    with millrace.connect() as db:
        db.execute(
            "CREATE TABLE t (s STRING); INSERT INTO t VALUES ('1e400'), ('inf'), ('-Infinity'), ('1e3'), (NULL), (' 1e999 ')"
        )
        found = {str(row["d"]) for row in db.query("SELECT CAST(s AS DOUBLE) AS d FROM t")}
        assert found == {"inf", "-inf", "1000.0", "None"}
        assert [
            row["d"] for row in db.query("SELECT TRY_CAST(s AS DOUBLE) AS d FROM t WHERE s = '1e400'")
        ] == [None]
        assert db.query("SELECT x'00ff' AS b").rows() == [{"b": b"\x00\xff"}]


def test_pushed_text_with_and_without_a_zone_is_a_time() -> None:
    with millrace.connect() as db:
        db.execute("CREATE TABLE t (id INT, at TIMESTAMP(3) WITH TIME ZONE)")
        db.push("t", [{"id": 1, "at": "2023-12-31 23:00:02"}, {"id": 2, "at": "2023-12-31T23:00:02+01:00"}])
        db.push("t", {"id": 3, "at": "2023-12-31 23:00:02Z"})
        db.push("t", {"id": 4, "at": "yesterday"})
        found = dict(db.query("SELECT id, at FROM t").tuples())
        one = datetime.datetime(2023, 12, 31, 23, 0, 2, tzinfo=UTC)
        assert found == {1: one, 2: one - datetime.timedelta(hours=1), 3: one}
        assert len(db.dead_letters()) == 1


def test_constants_are_converted_to_the_columns_they_are_written_into() -> None:
    with millrace.connect() as db:
        db.execute("CREATE TABLE t (a SMALLINT, b BIGINT, c TIMESTAMP(3), d DECIMAL(5, 1), PRIMARY KEY (a))")
        db.execute("INSERT INTO t VALUES (1, 2.0, TIMESTAMP '2026-01-01 00:00:00.1234', 1.25)")
        db.execute("UPDATE t SET b = 7.0")
        at = datetime.datetime(2026, 1, 1, 0, 0, 0, 123_000)
        assert [(a, b, c) for a, b, c, _ in db.query("SELECT * FROM t").tuples()] == [(1, 7, at)]
        with pytest.raises(MillraceError) as caught:
            db.execute("INSERT INTO t VALUES (70000, 1, NULL, NULL)")
        assert caught.value.code == "MR1119"


class Broken:
    """An aggregate that fails at 13."""

    def __init__(self) -> None:
        self.most = 0

    def accumulate(self, values) -> None:  # type: ignore[no-untyped-def]
        if 13 in values.to_pylist():
            raise RuntimeError("13 is unlucky")

    def result(self) -> int:
        return self.most


def test_an_aggregate_of_a_user_that_raises_is_told_by_its_name() -> None:
    with millrace.connect() as db:
        db.register_aggregate("broken", Broken, ["BIGINT"], "BIGINT")
        db.execute("CREATE TABLE t (v BIGINT); INSERT INTO t VALUES (1), (13)")
        with pytest.raises(MillraceError) as caught:
            db.query("SELECT broken(v) FROM t")
        assert caught.value.code == "MR2012"
        assert "Broken" in caught.value.message and "13 is unlucky" in caught.value.message
        assert db.query("SELECT broken(v) AS b FROM t WHERE v < 13").rows() == [{"b": 0}]


def test_a_file_of_changes_is_a_changelog(tmp_path: Path) -> None:
    def row(k: str, v: int) -> dict[str, object]:
        return {"k": k, "v": v}

    lines = [
        {"before": None, "after": row("a", 1), "op": "c"},
        {"before": None, "after": row("b", 2), "op": "c"},
        {"before": row("a", 1), "after": row("a", 5), "op": "u"},
        {"before": row("b", 2), "after": None, "op": "d"},
    ]
    path = tmp_path / "changes.json"
    path.write_text("\n".join(map(json.dumps, lines)))
    with millrace.connect() as db:
        db.execute(f"CREATE SOURCE c (k STRING, v BIGINT) FROM FILE (path = '{path}') FORMAT DEBEZIUM")
        assert db.query("SELECT * FROM c").tuples() == [("a", 5)]
        assert db.query("SELECT sum(v) AS s, count(*) AS n FROM c").tuples() == [(5, 1)]
        assert "rows: changes" in db.explain("SELECT * FROM c")
        sql = f"SELECT k FROM q WITH ('q.type' = 'file_source', 'q.path' = '{path}', 'q.format' = 'debezium')"
        assert db.query(sql).tuples() == [("a",)]
