"""LATE DATA TO on joins on time: late rows of either side go to one table, and nothing else changes."""

from collections.abc import Iterator

import pytest

import millrace
from millrace.database import Database
from millrace.errors import MillraceError
from millrace.planner.session import Planner

SOURCES = """
CREATE SOURCE a (k VARCHAR, ts TIMESTAMP(3), v BIGINT, WATERMARK FOR ts) WITH ('connector' = 'push');
CREATE SOURCE b (k VARCHAR, ts TIMESTAMP(3), w BIGINT, WATERMARK FOR ts) WITH ('connector' = 'push');
"""
JOINS = {
    "interval": "a LEFT JOIN b ON a.k = b.k AND b.ts BETWEEN a.ts - INTERVAL '1' SECOND AND a.ts",
    "as-of": "a ASOF LEFT JOIN b MATCH_CONDITION (a.ts >= b.ts) ON a.k = b.k",
    "version": "a LEFT JOIN b FOR SYSTEM_TIME AS OF a.ts ON a.k = b.k",
    "computed key": "a LEFT JOIN b ON upper(a.k) = b.k AND b.ts BETWEEN a.ts - INTERVAL '1' SECOND AND a.ts",
}


@pytest.fixture
def db() -> Iterator[Database]:
    with millrace.connect() as database:
        database.execute(SOURCES)
        yield database


def push(db: Database, source: str, second: int, value: int) -> None:
    column = "v" if source == "a" else "w"
    db.push(source, [{"k": "x", "ts": f"2024-01-01T00:00:{second:02}", column: value}])


def late(db: Database, table: str = "lates") -> list[tuple[object, ...]]:
    return [
        (r["k"], r["v"], r["k_1"], r["w"])
        for r in db.query(f"SELECT k, v, k_1, w FROM {table}").arrow.to_pylist()
    ]


@pytest.mark.parametrize("kind", JOINS)
@pytest.mark.parametrize("emit", ["", "EMIT CHANGES"])
def test_late_rows_of_either_side_go_to_the_table(db: Database, kind: str, emit: str) -> None:
    db.execute(f"CREATE TABLE j AS SELECT v, w FROM {JOINS[kind]} WHERE v > 0 {emit} LATE DATA TO lates")
    for source in "ab":
        push(db, source, 10, 1)
        push(db, source, 30, 2)
    push(db, "a", 5, 3)
    push(db, "b", 6, 4)
    push(db, "a", 40, 5)
    push(db, "b", 40, 6)
    assert set(late(db)) == {("x", 3, None, None), (None, None, "x", 4)}


def test_the_join_runs_once() -> None:
    text = f"{SOURCES} CREATE TABLE j AS SELECT v, w FROM {JOINS['interval']} LATE DATA TO lates;"
    plan, _ = Planner().compile(text)
    titles = [type(node.spec).__name__ for node in plan.nodes]
    assert titles.count("IntervalJoin") == 1 and titles.count("LateRows") == 1
    assert [(late.table, type(plan.nodes[late.node].spec).__name__) for late in plan.late] == [
        ("lates", "IntervalJoin")
    ]


def test_windows_of_two_streams(db: Database) -> None:
    sides = [
        f"(SELECT * FROM TABLE(TUMBLE(TABLE {s}, DESCRIPTOR(ts), INTERVAL '10' SECOND))) AS {s}" for s in "ab"
    ]
    equal = "a.k = b.k AND a.window_start = b.window_start AND a.window_end = b.window_end"
    db.execute(f"CREATE TABLE j AS SELECT v, w FROM {sides[0]} JOIN {sides[1]} ON {equal} LATE DATA TO lates")
    for source in "ab":
        push(db, source, 12, 1)
        push(db, source, 30, 2)
    push(db, "a", 11, 3)
    push(db, "b", 50, 4)
    assert late(db) == [("x", 3, None, None)]


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT v FROM a LATE DATA TO l", "MR1324"),
        ("SELECT v FROM a JOIN b ON a.k = b.k LATE DATA TO l", "MR1324"),
        ("SELECT v FROM a JOIN b FOR SYSTEM_TIME AS OF PROCTIME() ON a.k = b.k LATE DATA TO l", "MR1324"),
        (f"SELECT v FROM {JOINS['interval']} ALLOW LATENESS INTERVAL '1' SECOND LATE DATA TO l", "MR1324"),
        (f"SELECT v FROM {JOINS['interval']} LATE DATA TO a", "MR1202"),
        (
            f"SELECT v FROM {JOINS['interval']} ASOF JOIN b AS c MATCH_CONDITION (a.ts >= c.ts) ON a.k = c.k LATE DATA TO l",
            "MR1324",
        ),
    ],
)
def test_what_is_refused(db: Database, sql: str, code: str) -> None:
    with pytest.raises(MillraceError) as caught:
        db.execute("CREATE TABLE j AS " + sql)
    assert caught.value.code == code, caught.value
