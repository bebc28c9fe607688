"""Tables that INSERT writes: replaced rows are taken back in everything that reads them; queries flow into them."""

import random
from collections.abc import Iterator

import pytest

import millrace
from millrace.database import Database

OWN = "CREATE TABLE t (id INT, name STRING, v BIGINT, PRIMARY KEY (id))"


@pytest.fixture
def db() -> Iterator[Database]:
    with millrace.connect() as database:
        yield database


def insert(db: Database, *rows: tuple[object, ...]) -> None:
    values = ", ".join("(" + ", ".join("NULL" if v is None else repr(v) for v in row) + ")" for row in rows)
    db.execute(f"INSERT INTO t VALUES {values}")


def held(db: Database, name: str) -> list[tuple[object, ...]]:
    return sorted(db.query(f"SELECT * FROM {name}").tuples(), key=repr)


def test_filter_forgets_a_row_that_no_longer_passes(db: Database) -> None:
    db.execute(OWN)
    db.execute("CREATE TABLE large AS SELECT id, v FROM t WHERE v > 10")
    insert(db, (1, "a", 20), (2, "b", 5))
    assert held(db, "large") == [(1, 20)]
    insert(db, (1, "a", 3), (2, "b", 50))
    assert held(db, "large") == [(2, 50)]


def test_aggregates_and_joins_follow_replaced_rows(db: Database) -> None:
    db.execute(OWN)
    db.execute("CREATE SOURCE s (id INT, w BIGINT) WITH ('connector' = 'push')")
    db.execute("CREATE TABLE sums AS SELECT name, sum(v) AS total, count(*) AS n FROM t GROUP BY name")
    db.execute("CREATE TABLE names AS SELECT DISTINCT name FROM t")
    db.execute("CREATE TABLE joined AS SELECT s.id, s.w, t.name FROM s JOIN t ON s.id = t.id")
    db.execute("CREATE TABLE both AS SELECT v FROM t WHERE v > 1 UNION ALL SELECT w FROM s")
    db.push("s", [{"id": 1, "w": 7}, {"id": 2, "w": 8}])
    insert(db, (1, "a", 1), (2, "a", 2), (3, "b", 3))
    insert(db, (2, "b", 10), (3, "b", 4))
    assert held(db, "sums") == [("a", 1, 1), ("b", 14, 2)]
    assert held(db, "names") == [("a",), ("b",)]
    assert held(db, "joined") == [(1, 7, "a"), (2, 8, "b")]
    assert held(db, "both") == [(10,), (4,), (7,), (8,)]


def test_subscription_is_told_what_is_taken_back(db: Database) -> None:
    db.execute(OWN)
    insert(db, (1, "a", 1))
    rows = db.subscribe("SELECT name, v FROM t", "rows")
    insert(db, (1, "b", 2))
    found = [(row["name"], row["_weight"]) for row in iter(rows.poll, None)]
    assert found == [("a", 1), ("a", -1), ("b", 1)]


@pytest.mark.parametrize("seed", range(3))
def test_random_replacements_give_what_a_query_over_the_table_gives(db: Database, seed: int) -> None:
    rng = random.Random(seed)
    db.execute(OWN)
    query = "SELECT name, count(*) AS n, max(v) AS m FROM t WHERE v % 3 <> 0 GROUP BY name"
    db.execute(f"CREATE TABLE kept AS {query}")
    for _ in range(15):
        insert(
            db,
            *((rng.randrange(8), rng.choice("abc"), rng.randrange(20)) for _ in range(rng.randrange(1, 6))),
        )
        assert held(db, "kept") == sorted(db.query(query).tuples(), key=repr)
