"""random, rand_integer and uuid: another value for each row and call, evaluated once, and not over changes."""

import uuid

import pytest

import millrace
from millrace.errors import MillraceError
from millrace.operators.expressions.evaluate import VOLATILE_FUNCTIONS
from millrace.operators.functions import registry

SOURCES = """
CREATE SOURCE s (k STRING, n BIGINT) WITH ('connector' = 'push');
CREATE TABLE t (k STRING, n BIGINT, PRIMARY KEY (k));
"""


def test_each_row_and_each_call_has_a_value_of_its_own() -> None:
    with millrace.connect() as db:
        db.execute(SOURCES)
        seen = db.subscribe(
            "SELECT random() AS a, random() AS b, rand() + 1 AS c, uuid() AS d, gen_random_uuid() AS e, "
            "rand_integer(n) AS f FROM s",
            "rows",
        )
        db.push("s", [{"k": "x", "n": 5}] * 2_000 + [{"k": "x", "n": None}])
        rows = [seen.poll() for _ in range(2_001)]
        for name in "abcde":
            assert len({row[name] for row in rows if row is not None}) == 2_001
        assert all(0 <= row["a"] < 1 <= row["c"] < 2 and row["a"] != row["b"] for row in rows if row)
        assert 0.45 < sum(row["a"] for row in rows if row) / 2_001 < 0.55  # type: ignore[misc]
        assert all(uuid.UUID(str(row["d"])).version == 4 for row in rows if row)
        assert {row["f"] for row in rows[:-1] if row} == {0, 1, 2, 3, 4}
        assert rows[-1] is not None and rows[-1]["f"] is None


@pytest.mark.parametrize("name", ["random", "rand_integer", "uuid"])
def test_the_library_says_that_they_differ_from_call_to_call(name: str) -> None:
    function = registry.find(name)
    assert function is not None and not function.deterministic and name in VOLATILE_FUNCTIONS


def test_a_value_that_is_used_twice_is_computed_once() -> None:
    with millrace.connect() as db:
        db.execute(SOURCES)
        db.execute(
            "CREATE TABLE kept AS SELECT r AS a, r * 2 AS b FROM (SELECT random() AS r FROM s) WHERE r > 0.5"
        )
        db.push("s", [{"k": "x", "n": 1}] * 100)
        rows = db.query("SELECT a, b FROM kept").tuples()
        assert 0 < len(rows) < 100
        assert all(b == 2 * a > 1 for a, b in rows)  # type: ignore[operator]
        assert db.query("SELECT a, b FROM kept").tuples() == rows


def test_a_bound_below_one_is_a_row_error() -> None:
    with millrace.connect() as db:
        db.execute(SOURCES)
        seen = db.subscribe("SELECT rand_integer(n) AS r FROM s", "rows")
        db.push("s", [{"k": "x", "n": 0}, {"k": "y", "n": 1}])
        assert [seen.poll(), seen.poll()] == [{"r": 0}, None]
        assert len(db.dead_letters()) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT k, random() FROM t",
        "SELECT k, now() AS seen FROM t",
        "SELECT k FROM t WHERE random() > 0.5",
        "SELECT sum(random()) FROM t",
        "SELECT count(*), uuid() FROM s",
        "SELECT k, count(*) FROM s GROUP BY k HAVING random() > 0.5",
        "SELECT k, uuid() FROM (SELECT DISTINCT ON (k) k, n FROM s ORDER BY k, n)",
    ],
)
def test_rows_that_may_be_taken_back_can_not_have_such_values(sql: str) -> None:
    with millrace.connect() as db:
        db.execute(SOURCES)
        with pytest.raises(MillraceError) as caught:
            db.subscribe(sql)
        assert caught.value.code == "MR1956"
        assert caught.value.position is not None


def test_a_table_may_be_asked_once() -> None:
    with millrace.connect() as db:
        db.execute(SOURCES)
        db.execute("INSERT INTO t VALUES ('a', 1), ('b', 2)")
        assert len({row["u"] for row in db.query("SELECT k, uuid() AS u FROM t")}) == 2
