"""Set operations, VALUES, GROUPING, DISTINCT ON and ORDER BY: rows as DuckDB gives them, and what is refused."""

import duckdb
import pytest

import millrace
from millrace.errors import MillraceError

ROWS = [
    ("a", 1, 2.5),
    ("a", 1, None),
    ("b", 2, 1.0),
    (None, 3, 1.0),
    ("b", 2, 0.5),
    (None, None, 7.0),
    ("c", 9, 1.0),
]
OTHER = [("a", 1, 2.5), ("b", 2, 4.0), ("b", 5, 4.0), (None, 3, 0.0)]
SAME = [
    "SELECT k, v FROM t EXCEPT SELECT k, v FROM u",
    "SELECT k, v FROM t EXCEPT ALL SELECT k, v FROM u",
    "SELECT k, v FROM t INTERSECT SELECT k, v FROM u",
    "SELECT k, v FROM t INTERSECT ALL SELECT k, v FROM u",
    "SELECT k FROM t UNION SELECT k FROM u EXCEPT SELECT 'a'",
    "SELECT k FROM t UNION ALL SELECT k FROM u INTERSECT SELECT 'a'",
    "SELECT v FROM t EXCEPT SELECT v + 0.0 FROM u",
    "SELECT * FROM (SELECT k, v FROM t INTERSECT SELECT k, v FROM u) AS w WHERE v > 1",
    "VALUES (1, 'a'), (2, NULL)",
    "SELECT n, x + 1 FROM (VALUES (1, 2.5), (NULL, 3)) AS w(x, n)",
    "SELECT t.k, w.name FROM t JOIN (VALUES ('a', 'A'), ('b', 'B')) AS w(k, name) ON t.k = w.k",
    "SELECT k FROM t WHERE v IN (VALUES (1), (9))",
    "WITH w(x) AS (VALUES (1), (2)) SELECT sum(x) FROM w",
    "SELECT k, v, count(*), GROUPING(k), GROUPING(k, v), GROUPING(v, k) FROM t GROUP BY ROLLUP (k, v)",
    "SELECT k, v, GROUPING_ID(k, v) AS g FROM t GROUP BY CUBE (k, v) HAVING GROUPING(k) = 1",
    "SELECT CASE WHEN GROUPING(k) = 1 THEN 'all' ELSE k END, sum(f) FROM t GROUP BY GROUPING SETS ((k), ())",
    "SELECT GROUPING(k), count(*) FROM t GROUP BY k",
    "SELECT k FROM t WHERE v > 100 GROUP BY ROLLUP (k)",
]
ORDERED = [
    "SELECT k FROM t WHERE f IS NOT NULL ORDER BY f, v NULLS LAST LIMIT 4",
    "SELECT k, v FROM t ORDER BY f DESC NULLS LAST, v NULLS LAST, k NULLS LAST OFFSET 2",
    "SELECT k, count(*) AS n FROM t GROUP BY k ORDER BY sum(f) DESC, max(v) LIMIT 3",
    "SELECT k FROM t WHERE v IS NOT NULL ORDER BY -v, f NULLS LAST",
    "SELECT DISTINCT ON (k) k, v, f FROM t ORDER BY k NULLS LAST, v DESC NULLS LAST, f NULLS LAST",
    "SELECT DISTINCT ON (k) f FROM t ORDER BY k NULLS LAST, v DESC NULLS LAST, f NULLS LAST",
    "SELECT DISTINCT ON (k, v) k, f FROM t ORDER BY v NULLS LAST, k NULLS LAST, f NULLS LAST LIMIT 3",
    "SELECT k FROM t GROUP BY ROLLUP (k) ORDER BY GROUPING(k) DESC, k NULLS LAST",
    "SELECT k FROM t WHERE k IS NOT NULL UNION ALL SELECT k FROM u WHERE k IS NOT NULL ORDER BY reverse(k || 'x') LIMIT 3",
    "SELECT x FROM (VALUES (3, 'c'), (1, 'b'), (2, 'a')) AS w(x, y) ORDER BY y",
]


@pytest.fixture(scope="module")
def engines():  # type: ignore[no-untyped-def]
    oracle = duckdb.connect()
    with millrace.connect() as db:
        for name, rows in (("t", ROWS), ("u", OTHER)):
            db.execute(f"CREATE TABLE {name} (k STRING, v BIGINT, f DOUBLE)")
            db.push(name, [dict(zip("kvf", row, strict=True)) for row in rows])
            oracle.execute(f"CREATE TABLE {name} (k VARCHAR, v BIGINT, f DOUBLE)")
            oracle.executemany(f"INSERT INTO {name} VALUES (?, ?, ?)", rows)
        yield db, oracle
    oracle.close()


def plain(rows: list[tuple[object, ...]]) -> list[list[str]]:
    return [[f"{float(v):.9g}" if not isinstance(v, str | None) else str(v) for v in row] for row in rows]  # type: ignore[arg-type]


@pytest.mark.parametrize("sql", SAME)
def test_rows_are_those_of_duckdb(engines, sql: str) -> None:  # type: ignore[no-untyped-def]
    db, oracle = engines
    expected = sorted(plain(oracle.execute(sql).fetchall()))
    assert expected
    assert sorted(plain(db.query(sql).tuples())) == expected


@pytest.mark.parametrize("sql", ORDERED)
def test_rows_come_in_the_order_asked_for(engines, sql: str) -> None:  # type: ignore[no-untyped-def]
    db, oracle = engines
    answer = db.query(sql)
    found = oracle.execute(sql)
    assert answer.columns == [column[0] for column in found.description]
    assert plain(answer.tuples()) == plain(found.fetchall())


REFUSED = [
    ("SELECT k, v FROM t EXCEPT SELECT k FROM u", "MR1108"),
    ("SELECT k FROM t INTERSECT SELECT v FROM u", "MR1111"),
    ("SELECT * FROM (VALUES (1, 2), (3)) AS w", "MR1050"),
    ("VALUES (1), ('a')", "MR1136"),
    ("VALUES (1), (true)", "MR1111"),
    ("VALUES (1 / 0)", "MR1119"),
    ("SELECT GROUPING(v), count(*) FROM t GROUP BY k", "MR1143"),
    ("SELECT GROUPING(k) FROM t", "MR1143"),
    ("SELECT GROUPING() FROM t GROUP BY k", "MR1150"),
    ("SELECT k FROM t WHERE GROUPING(k) = 0", "MR1152"),
    ("SELECT DISTINCT ON (k) k, v FROM t ORDER BY v", "MR1149"),
    ("SELECT DISTINCT ON (k) k, v FROM t ORDER BY v, k", "MR1149"),
    ("SELECT DISTINCT k FROM t ORDER BY v", "MR1107"),
]


@pytest.mark.parametrize(("sql", "code"), REFUSED)
def test_what_has_no_meaning_is_refused_at_its_place(engines, sql: str, code: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(MillraceError) as caught:
        engines[0].query(sql)
    assert caught.value.code == code
    assert caught.value.position is not None


def test_intersection_of_streams_is_append_only_and_a_difference_is_not() -> None:
    with millrace.connect() as db:
        db.execute(
            "CREATE SOURCE a (k STRING) WITH ('connector' = 'push'); CREATE SOURCE b (k STRING) WITH ('connector' = 'push')"
        )
        both = db.subscribe("SELECT k FROM a INTERSECT ALL SELECT k FROM b", "rows")
        only = db.subscribe("SELECT k FROM a EXCEPT SELECT k FROM b", "rows")
        db.push("a", [{"k": "x"}, {"k": "x"}, {"k": "y"}])
        db.push("b", [{"k": "x"}])
        assert [both.poll(1), both.poll()] == [{"k": "x"}, None]
        found = [only.poll() for _ in range(3)]
        assert found == [{"k": "x", "_weight": 1}, {"k": "y", "_weight": 1}, {"k": "x", "_weight": -1}]
        db.push("b", [{"k": "x"}, {"k": "x"}])
        assert [both.poll(), both.poll(), only.poll()] == [{"k": "x"}, None, None]


def test_hidden_columns_of_order_by_are_seen_by_nobody() -> None:
    with millrace.connect() as db:
        db.execute("CREATE SOURCE a (k STRING, v BIGINT) WITH ('connector' = 'push')")
        assert db.execute("DESCRIBE SELECT k FROM a ORDER BY v LIMIT 1").tuples() == [("k", "string", "yes")]
        db.execute("CREATE TABLE top AS SELECT k FROM a ORDER BY v LIMIT 1")
        first = db.subscribe("SELECT k FROM a ORDER BY v DESC LIMIT 1", "rows")
        db.push("a", [{"k": "x", "v": 1}])
        db.push("a", [{"k": "y", "v": 2}])
        assert db.query("SELECT * FROM top").rows() == [{"k": "x"}]
        assert [first.poll() for _ in range(3)] == [
            {"k": "x", "_weight": 1},
            {"k": "x", "_weight": -1},
            {"k": "y", "_weight": 1},
        ]
