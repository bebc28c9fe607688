"""Joins and subqueries from SQL: what is planned, what comes out, what is refused."""

from collections import Counter

import pytest

import millrace
from millrace.database import Database
from millrace.errors import Invalid
from millrace.operators.joins.regular_spec import RegularJoin
from millrace.planner.session import Planner

SOURCES = """
CREATE SOURCE a (id BIGINT, k BIGINT, x STRING) WITH ('connector' = 'push');
CREATE SOURCE b (id BIGINT, k BIGINT, y STRING) WITH ('connector' = 'push');
CREATE SOURCE c (id BIGINT, k BIGINT, z STRING) WITH ('connector' = 'push');
"""


@pytest.fixture
def db() -> Database:
    database = millrace.connect()
    database.execute(SOURCES)
    database.execute("CREATE TABLE t (id BIGINT, y STRING, PRIMARY KEY (id))")
    yield database
    database.close()


def joins(sql: str) -> list[RegularJoin]:
    plan, _ = Planner().compile(SOURCES + sql)
    return [node.spec for node in plan.nodes if isinstance(node.spec, RegularJoin)]


def after(db: Database, query: str) -> Counter[tuple[object, ...]]:
    db.execute(f"CREATE TABLE result AS {query}")
    db.execute("INSERT INTO t VALUES (1, 'one'), (2, 'two')")
    rows_a = [(1, 1, "p"), (2, None, "q"), (None, 3, "r")]
    rows_b = [(1, 1, "u"), (1, 2, "v"), (3, None, "w")]
    db.push("a", [dict(zip(("id", "k", "x"), r, strict=True)) for r in rows_a])
    db.push("b", [dict(zip(("id", "k", "y"), r, strict=True)) for r in rows_b])
    db.execute("INSERT INTO t VALUES (1, 'uno')")
    db.push("a", {"id": 1, "k": 9, "x": "late"})
    table = db.query("SELECT * FROM result").arrow
    return Counter(zip(*(column.to_pylist() for column in table.columns), strict=True))


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        (
            "SELECT id, x, y FROM a FULL JOIN b USING (id) WHERE id = 3 OR x = 'r'",
            [(3, None, "w"), (None, "r", None)],
        ),
        ("SELECT id, y FROM a RIGHT JOIN b USING (id) WHERE id = 3", [(3, "w")]),
        ("SELECT x, y FROM a NATURAL JOIN b", [("p", "u")]),
        (
            "SELECT x, t.y FROM a LEFT JOIN t FOR SYSTEM_TIME AS OF PROCTIME() ON a.id = t.id",
            [("p", "one"), ("q", "two"), ("r", None), ("late", "uno")],
        ),
        ("SELECT x, t.y FROM a JOIN t ON a.id = t.id", [("p", "uno"), ("q", "two"), ("late", "uno")]),
        ("SELECT x FROM a WHERE k NOT IN (SELECT k FROM b WHERE id = 1)", [("r",), ("late",)]),
        ("SELECT x FROM a WHERE k NOT IN (SELECT k FROM b)", []),
        ("SELECT x FROM a WHERE k NOT IN (SELECT k FROM b WHERE id = 77)", [("p",), ("q",), ("r",), ("late",)]),
        ("SELECT x FROM a WHERE (id, k) IN (SELECT id, k FROM b)", [("p",)]),
        (
            "SELECT x, (SELECT count(*) FROM b WHERE b.id = a.id) AS n FROM a",
            [("p", 2), ("q", 0), ("r", 0), ("late", 2)],
        ),
        ("SELECT x, k IN (SELECT k FROM b) AS known FROM a WHERE x <> 'late'", [("p", True), ("q", None), ("r", None)]),
        ("SELECT id, count(*) AS n FROM a GROUP BY id HAVING count(*) >= (SELECT max(k) FROM b)", [(1, 2)]),
        ("SELECT x FROM a WHERE EXISTS (SELECT 1 FROM b, c WHERE b.id = a.id AND b.id = c.id)", []),
    ],
)  # fmt: skip
def test_result(db: Database, query: str, rows: list[tuple[object, ...]]) -> None:
    assert after(db, query) == Counter(rows)


def test_where_equalities_are_keys_and_order_the_joins() -> None:
    first, second = joins("SELECT x, y, z FROM a, b, c WHERE a.k = c.k AND b.id = c.id AND a.id > 3")
    assert [len(j.left_keys) for j in (first, second)] == [1, 1]
    assert first.condition is None and second.condition is None


def test_expression_keys_are_computed_before_the_join() -> None:
    (join,) = joins("SELECT x, y FROM a JOIN b ON a.id + 1 = b.k AND lower(x) <> y")
    assert join.left.names[join.left_keys[0]] == "_join_key0"
    assert join.condition is not None


def test_state_is_kept_by_key_where_the_input_has_one() -> None:
    (join,) = joins("SELECT x, n FROM a JOIN (SELECT k, count(*) AS n FROM b GROUP BY k) g ON a.k = g.k")
    assert join.details()["state"] == "left: a list of rows a key; right: one row a key"


def test_time_to_live_is_set_for_what_follows() -> None:
    assert joins("SELECT x, y FROM a JOIN b ON a.id = b.id")[0].ttl is None
    assert joins("SET state.ttl = '1 hour'; SELECT x, y FROM a JOIN b ON a.id = b.id")[0].ttl == 3_600_000_000


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT x FROM a WHERE k = (SELECT k FROM b)", "MR1922"),
        ("SELECT x FROM a WHERE k = (SELECT k, id FROM b)", "MR1139"),
        ("SELECT x FROM a WHERE k IN (SELECT k, id FROM b)", "MR1151"),
        ("SELECT x FROM a WHERE EXISTS (SELECT max(k) FROM b WHERE b.id = a.id)", "MR1903"),
        ("SELECT x FROM a JOIN a ON a.id = a.id", "MR1113"),
        ("SELECT a.x FROM a RIGHT JOIN b FOR SYSTEM_TIME AS OF PROCTIME() ON a.id = b.id", "MR1943"),
    ],
)
def test_refused_with_code_and_place(sql: str, code: str) -> None:
    with pytest.raises(Invalid) as error:
        Planner().compile(SOURCES + sql)
    assert error.value.code == code
    assert error.value.position is not None


def test_sink_key_that_does_not_know_the_rows_apart_is_refused() -> None:
    query = "SELECT k PRIMARY KEY, id, count(*) AS n FROM a GROUP BY k, id"
    with pytest.raises(Invalid, match="k") as error:
        Planner().compile(SOURCES + f"CREATE SINK s FROM ({query}) INTO BLACKHOLE ()")
    assert error.value.code == "MR1345" and "(k, id)" in (error.value.hint or "")
