"""Tables that INSERT writes: replaced rows are taken back in everything that reads them; queries flow into them."""

import random
from collections.abc import Iterator

import pytest

import millrace
from millrace.database import Database
from millrace.errors import MillraceError

OWN = "CREATE TABLE t (id INT, name STRING, v BIGINT, PRIMARY KEY (id))"

KEYED_SINK = """
    CREATE SINK o FROM (SELECT k, v, count(*) AS n FROM s GROUP BY k, v) INTO CONSOLE () WITH (key = 'k')
"""


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


def test_query_flows_into_a_table_that_also_takes_single_rows(db: Database) -> None:
    db.execute(OWN)
    db.execute("CREATE SOURCE s (id INT, v BIGINT) WITH ('connector' = 'push')")
    db.execute("CREATE TABLE total AS SELECT sum(v) AS v FROM t")
    db.execute("INSERT INTO t (v, id) SELECT v * 10, id FROM s WHERE v > 0")
    db.push("s", [{"id": 1, "v": 1}, {"id": 2, "v": -1}])
    insert(db, (2, "x", 5))
    assert held(db, "t") == [(1, None, 10), (2, "x", 5)]
    db.push("s", [{"id": 2, "v": 2}])
    assert held(db, "t") == [(1, None, 10), (2, None, 20)]
    assert held(db, "total") == [(30,)]


def test_groups_flow_into_a_table_by_its_key(db: Database) -> None:
    db.execute("CREATE SOURCE s (k STRING, v BIGINT) WITH ('connector' = 'push')")
    db.execute("CREATE TABLE t (k STRING, total BIGINT, PRIMARY KEY (k))")
    db.execute("CREATE TABLE over_all AS SELECT sum(total) AS v, count(*) AS n FROM t")
    db.execute("INSERT INTO t SELECT k, sum(v) FROM s GROUP BY k HAVING sum(v) < 10")
    for k, v in (("a", 1), ("b", 2), ("a", 3), ("b", 20)):
        db.push("s", {"k": k, "v": v})
    assert held(db, "t") == [("a", 4)]
    assert held(db, "over_all") == [(4, 1)]


def test_null_in_a_column_that_takes_none_is_a_dead_letter(db: Database) -> None:
    db.execute("CREATE SOURCE s (v BIGINT) WITH ('connector' = 'push')")
    db.execute("CREATE TABLE t (v BIGINT NOT NULL)")
    db.execute("INSERT INTO t SELECT v FROM s")
    db.push("s", [{"v": 1}, {"v": None}])
    assert held(db, "t") == [(1,)]
    assert [row["code"] for row in db.dead_letters().rows()] == ["MR1522"]


@pytest.mark.parametrize(
    ("sql", "code", "says"),
    [
        ("INSERT INTO plain SELECT k, sum(v) FROM s GROUP BY k", "MR1342", "PRIMARY KEY"),
        ("INSERT INTO keyed SELECT k, sum(v) FROM s GROUP BY k, v", "MR1345", "differ in v only"),
        ("INSERT INTO wide SELECT k, v, count(*) FROM s GROUP BY k, v", "MR1345", "differ in v only"),
        ("INSERT INTO keyed SELECT k, v + 1 FROM keyed", "MR1346", "keyed"),
        ("INSERT INTO keyed SELECT k, v FROM derived", "MR1346", "keyed"),
        ("INSERT INTO derived SELECT k, v FROM s", "MR1208", "takes no rows"),
        (KEYED_SINK, "MR1345", "(k, v)"),
    ],
)
def test_what_a_table_or_sink_can_not_take_is_refused(db: Database, sql: str, code: str, says: str) -> None:
    db.execute(
        "CREATE SOURCE s (k STRING, v BIGINT) WITH ('connector' = 'push');"
        "CREATE TABLE plain (k STRING, v BIGINT);"
        "CREATE TABLE keyed (k STRING, v BIGINT, PRIMARY KEY (k));"
        "CREATE TABLE wide (k STRING, v BIGINT, n BIGINT, PRIMARY KEY (k));"
        "CREATE TABLE derived AS SELECT k, v FROM keyed WHERE v > 1;"
    )
    with pytest.raises(MillraceError) as caught:
        db.execute(sql)
    assert caught.value.code == code
    assert says in f"{caught.value.message} {caught.value.hint}"


def test_a_table_that_a_query_writes_keeps_its_source_from_being_dropped(db: Database) -> None:
    db.execute("CREATE SOURCE s (k STRING) WITH ('connector' = 'push'); CREATE TABLE t (k STRING)")
    db.execute("INSERT INTO t SELECT k FROM s")
    with pytest.raises(MillraceError, match="table t is built on it"):
        db.execute("DROP SOURCE s")
