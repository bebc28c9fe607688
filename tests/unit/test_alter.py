"""ALTER SOURCE: queries that come see new columns and options, those that run go on, all of it outlives the process."""

from pathlib import Path

import pytest

import millrace
from millrace.errors import MillraceError


def test_new_queries_see_a_new_column_and_running_ones_go_on() -> None:
    with millrace.connect() as db:
        db.execute("CREATE SOURCE s (k STRING, v BIGINT, w AS v + 1) WITH ('connector' = 'push')")
        db.execute("CREATE TABLE before AS SELECT k, sum(w) AS n FROM s GROUP BY k")
        whole = db.subscribe("SELECT * FROM s", "rows")
        assert db.execute("ALTER SOURCE s ADD COLUMN z INT").tuples() == [("altered source s",)]
        db.execute("ALTER SOURCE s ADD (y STRING, x AS z * 2)")
        assert [row["column"] for row in db.execute("DESCRIBE s")] == ["k", "v", "w", "z", "y", "x"]
        after = db.subscribe("SELECT k, v, x, y FROM s", "rows")
        db.push("s", {"k": "a", "v": 1, "z": 7, "y": "new"})
        db.push("s", {"k": "a", "v": 2})
        assert [after.poll(), after.poll()] == [
            {"k": "a", "v": 1, "x": 14, "y": "new"},
            {"k": "a", "v": 2, "x": None, "y": None},
        ]
        assert whole.poll() == {"k": "a", "v": 1, "w": 2}
        assert db.query("SELECT * FROM before").tuples() == [("a", 5)]
        assert "ADD COLUMN z INT" in str(db.execute("SHOW CREATE s").tuples()[0][1])


def test_options_are_set_and_reset(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(f"id,who\n1,{name}\n")
    with millrace.connect() as db:
        db.execute(
            f"CREATE SOURCE f (id INT, who STRING) WITH ('connector' = 'file', 'path' = '{tmp_path}/a.csv')"
        )
        db.execute(f"ALTER SOURCE f SET ('path' = '{tmp_path}/b.csv', 'bad_rows' = 'fail')")
        assert db.query("SELECT who FROM f").tuples() == [("b",)]
        db.execute("ALTER SOURCE f RESET ('bad_rows')")
        assert "bad rows" not in db.explain("SELECT who FROM f")


def test_an_altered_source_comes_back_with_the_database(tmp_path: Path) -> None:
    place = f"file://{tmp_path}"
    with millrace.connect(checkpoint_store=place) as db:
        db.execute("CREATE SOURCE s (k STRING) WITH ('connector' = 'push')")
        db.execute("CREATE TABLE old AS SELECT count(*) AS n FROM s")
        db.push("s", {"k": "a"})
        db.execute("ALTER SOURCE s ADD COLUMN v INT")
        db.execute("CREATE TABLE new AS SELECT sum(v) AS n FROM s")
        db.push("s", {"k": "b", "v": 5})
    with millrace.connect(checkpoint_store=place) as db:
        db.push("s", {"k": "c", "v": 6})
        assert db.query("SELECT old.n, new.n AS m FROM old, new").tuples() == [(3, 11)]


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("ALTER SOURCE nobody ADD COLUMN a INT", "MR1201"),
        ("ALTER SOURCE t ADD COLUMN a INT", "MR1205"),
        ("ALTER TABLE t ADD COLUMN a INT", "MR1935"),
        ("ALTER TABLE own ADD COLUMN a INT", "MR1935"),
        ("ALTER STREAM st SET ('a' = 'b')", "MR1935"),
        ("ALTER SOURCE s ADD COLUMN k INT", "MR1115"),
        ("ALTER SOURCE s ADD COLUMN x AS nope + 1", "MR1101"),
        ("ALTER SOURCE s SET ('nope' = '1')", "MR1401"),
        ("ALTER SOURCE s DROP COLUMN k", "MR1936"),
        ("ALTER SOURCE s RENAME COLUMN k TO z", "MR1936"),
        ("ALTER SOURCE s RENAME TO z", "MR1936"),
    ],
)
def test_what_can_not_be_altered_is_refused_and_nothing_changes(sql: str, code: str) -> None:
    with millrace.connect() as db:
        db.execute(
            "CREATE SOURCE s (k STRING) WITH ('connector' = 'push'); CREATE STREAM st AS SELECT k FROM s"
        )
        db.execute("CREATE TABLE t AS SELECT k FROM s; CREATE TABLE own (k STRING)")
        with pytest.raises(MillraceError) as caught:
            db.execute(sql)
        assert caught.value.code == code
        assert caught.value.position is not None
        assert [row["column"] for row in db.execute("DESCRIBE s")] == ["k"]
