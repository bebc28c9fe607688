"""The embedded database: declaring, pushing, subscribing, querying, and what happens when something is wrong."""

import asyncio
import dataclasses
import datetime
import threading
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import millrace
from millrace.database import Database
from millrace.errors import BadData, Invalid, MillraceError, Unavailable

TICKS = "CREATE SOURCE ticks (symbol STRING, price BIGINT) WITH ('connector' = 'push')"
TIMED = """
    CREATE SOURCE ticks (symbol STRING, price BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts)
    WITH ('connector' = 'push')
"""


def moment(second: int) -> datetime.datetime:
    return datetime.datetime(2026, 1, 1, 0, 0, second)


@pytest.fixture
def db() -> Database:
    database = millrace.connect()
    yield database
    database.close()


def test_push_reaches_a_subscription_before_it_returns(db: Database) -> None:
    db.execute(TICKS)
    rows = db.subscribe("SELECT symbol, price * 2 AS twice FROM ticks WHERE price > 0", "rows")
    assert db.push("ticks", [{"symbol": "a", "price": 1}, {"symbol": "b", "price": -1}]) == 2
    assert rows.poll() == {"symbol": "a", "twice": 2}
    assert rows.poll() is None


@pytest.mark.parametrize(
    "data",
    [
        {"symbol": "a", "price": 1},
        pa.table({"symbol": ["a"], "price": [1]}),
        pd.DataFrame({"symbol": ["a"], "price": [1]}),
        pl.DataFrame({"symbol": ["a"], "price": [1]}),
    ],
    ids=["dict", "arrow", "pandas", "polars"],
)
def test_push_takes_every_usual_form(db: Database, data: object) -> None:
    db.execute(TICKS)
    rows = db.subscribe("ticks", "rows")
    db.push("ticks", data)
    assert rows.poll() == {"symbol": "a", "price": 1}


def test_table_answers_queries_and_gives_later_readers_what_it_holds(db: Database) -> None:
    db.execute(TICKS)
    db.execute("CREATE TABLE totals AS SELECT symbol, sum(price) AS total FROM ticks GROUP BY symbol")
    db.push("ticks", [{"symbol": "a", "price": 1}, {"symbol": "b", "price": 5}])
    db.push("ticks", [{"symbol": "a", "price": 2}])
    assert sorted(db.query("SELECT * FROM totals").tuples()) == [("a", 3), ("b", 5)]
    assert db.query("SELECT symbol FROM totals WHERE total > 4").rows() == [{"symbol": "b"}]
    later = db.subscribe("totals", "rows")
    first = [later.poll(), later.poll()]
    assert sorted((row["symbol"], row["total"]) for row in first if row) == [("a", 3), ("b", 5)]
    db.push("ticks", [{"symbol": "b", "price": 1}])
    folded: dict[object, object] = {}
    while row := later.poll():
        if row["_weight"] == 1:
            folded[row["symbol"]] = row["total"]
    assert folded == {"b": 6}


def test_two_subscriptions_do_not_share_state_that_one_has_not_seen(db: Database) -> None:
    db.execute(TICKS)
    query = "SELECT symbol, count(*) AS n FROM ticks GROUP BY symbol"
    first = db.subscribe(query, "rows")
    db.push("ticks", {"symbol": "a", "price": 1})
    second = db.subscribe(query, "rows")
    db.push("ticks", {"symbol": "a", "price": 1})
    assert [row["n"] for row in iter(first.poll, None) if row["_weight"] == 1] == [1, 2]
    assert [row["n"] for row in iter(second.poll, None) if row["_weight"] == 1] == [1]


def test_subscription_gives_dataclasses_and_arrow(db: Database) -> None:
    @dataclasses.dataclass
    class Tick:
        symbol: str
        price: int

    db.execute(TICKS)
    objects, batches = db.subscribe("ticks", Tick), db.subscribe("ticks")
    db.push("ticks", {"symbol": "a", "price": 1})
    assert objects.poll() == Tick("a", 1)
    batch = batches.poll()
    assert isinstance(batch, pa.RecordBatch) and batch.to_pylist() == [{"symbol": "a", "price": 1}]


def test_dataclass_with_a_field_that_is_no_column_is_refused(db: Database) -> None:
    @dataclasses.dataclass
    class Wrong:
        nothing: str

    db.execute(TICKS)
    with pytest.raises(Invalid, match="nothing") as caught:
        db.subscribe("ticks", Wrong)
    assert caught.value.code == "MR1511"


def test_iteration_ends_when_the_input_is_ended(db: Database) -> None:
    db.execute(TIMED)
    windows = db.subscribe(
        "SELECT symbol, window_start, sum(price) AS total FROM ticks "
        "GROUP BY symbol, TUMBLE(ts, INTERVAL '10' SECOND)",
        "rows",
    )
    db.push("ticks", [{"symbol": "a", "price": p, "ts": moment(p)} for p in (1, 2, 11)])
    assert windows.poll() == {"symbol": "a", "window_start": moment(0), "total": 3}
    assert windows.poll() is None
    db.end("ticks")
    assert list(windows) == [{"symbol": "a", "window_start": moment(10), "total": 11}]


def test_async_iteration_sees_rows_pushed_from_another_thread(db: Database) -> None:
    db.execute(TICKS)
    rows = db.subscribe("ticks", "rows")

    async def read() -> list[object]:
        return [row["price"] async for row in rows]

    def write() -> None:
        for price in range(5):
            db.push("ticks", {"symbol": "a", "price": price})
        db.end("ticks")

    writer = threading.Timer(0.05, write)
    writer.start()
    assert asyncio.run(asyncio.wait_for(read(), 10)) == [0, 1, 2, 3, 4]
    writer.join()


def test_slow_reader_fails_alone(db: Database) -> None:
    db.execute(TICKS)
    slow = db.subscribe("ticks", "rows", max_rows=3)
    quick = db.subscribe("ticks", "rows")
    for price in range(5):
        db.push("ticks", {"symbol": "a", "price": price})
    assert len(list(iter(quick.poll, None))) == 5
    with pytest.raises(Unavailable) as caught:
        list(iter(slow.poll, None))
    assert caught.value.code == "MR1510"


def test_rows_that_do_not_fit_become_dead_letters(db: Database) -> None:
    db.execute(TICKS)
    rows = db.subscribe("SELECT 10 / price AS q FROM ticks", "rows")
    db.push(
        "ticks", [{"symbol": "a", "price": "many"}, {"symbol": "a", "price": 0}, {"symbol": "a", "price": 5}]
    )
    assert [row["q"] for row in iter(rows.poll, None)] == [2]
    reasons = " ".join(str(row["reason"]) for row in db.dead_letters())
    assert len(db.dead_letters()) == 2 and "zero" in reasons and "many" in reasons


def test_bad_rows_fail_stops_the_job_with_the_reason() -> None:
    with millrace.connect(bad_rows="fail") as db:
        db.execute(TICKS)
        db.subscribe("SELECT 10 / price AS q FROM ticks", "rows")
        with pytest.raises(BadData, match="zero"):
            db.push("ticks", {"symbol": "a", "price": 0})


def test_file_to_file_runs_to_its_end(db: Database, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("k,v\na,1\nb,2\na,3\n")
    db.execute(f"""
        CREATE SOURCE numbers FROM FILE (path = '{tmp_path}/in.csv') FORMAT CSV;
        CREATE SINK totals FROM (SELECT k, sum(v) AS total FROM numbers GROUP BY k EMIT FINAL)
        INTO FILE (path = '{tmp_path}/out.csv') FORMAT CSV;
    """)
    assert db.wait(30)
    db.close()
    assert sorted((tmp_path / "out.csv").read_text().split()[1:]) == ["a,4", "b,2"] or sorted(
        (tmp_path / "out.csv").read_text().replace('"', "").split()[1:]
    ) == ["a,4", "b,2"]


def test_every_query_reads_a_file_from_its_start(db: Database, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("k,v\na,1\nb,2\n")
    db.execute(f"CREATE SOURCE numbers FROM FILE (path = '{tmp_path}/in.csv') FORMAT CSV")
    db.execute("CREATE TABLE kept AS SELECT * FROM numbers")
    assert db.wait(30)
    assert len(db.query("SELECT * FROM numbers")) == 2
    assert sorted(row["v"] for row in db.subscribe("numbers", "rows")) == [1, 2]
    assert len(db.query("SELECT * FROM kept")) == 2


def test_late_rows_and_dead_letters_go_to_their_tables(db: Database) -> None:
    db.execute("""
        CREATE SOURCE ticks (symbol STRING, price BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts)
        WITH ('connector' = 'push');
        CREATE TABLE windows AS SELECT symbol, window_start, count(*) AS n FROM ticks
        GROUP BY symbol, TUMBLE(ts, INTERVAL '10' SECOND) LATE DATA TO too_late;
    """)
    late = db.subscribe("too_late", "rows")
    db.push("ticks", {"symbol": "a", "price": 1, "ts": moment(25)})
    db.push("ticks", {"symbol": "b", "price": 2, "ts": moment(3)})
    row = late.poll()
    assert row is not None and row["symbol"] == "b"


def test_query_is_ordered_and_limited(db: Database) -> None:
    db.execute("CREATE TABLE limits (symbol STRING, most BIGINT, PRIMARY KEY (symbol))")
    db.execute("INSERT INTO limits VALUES ('a', 3), ('b', NULL), ('c', 1), ('d', 2)")
    assert db.query("SELECT most, symbol FROM limits ORDER BY most DESC NULLS LAST LIMIT 2").tuples() == [
        (3, "a"),
        (2, "d"),
    ]
    assert db.query(
        "SELECT most, symbol FROM limits ORDER BY most NULLS FIRST LIMIT 2 OFFSET 1"
    ).tuples() == [(1, "c"), (2, "d")]
    rows = db.subscribe("SELECT most FROM limits ORDER BY most LIMIT 1", "rows")
    assert rows.poll() == {"most": 1, "_weight": 1}


def test_push_sources_with_equal_columns_are_two(db: Database) -> None:
    db.execute(f"{TICKS}; {TICKS.replace('ticks', 'tocks')}")
    ticks, tocks = db.subscribe("ticks", "rows"), db.subscribe("tocks", "rows")
    db.push("tocks", {"symbol": "a", "price": 1})
    assert ticks.poll() is None and tocks.poll() == {"symbol": "a", "price": 1}


def test_query_over_endless_input_is_refused(db: Database) -> None:
    db.execute(TICKS)
    with pytest.raises(Invalid, match="never ends") as caught:
        db.query("SELECT * FROM ticks")
    assert caught.value.code == "MR1503"


def test_statements_before_a_wrong_one_have_taken_effect(db: Database) -> None:
    with pytest.raises(Invalid) as caught:
        db.execute(f"{TICKS}; CREATE TABLE t AS SELECT pirce FROM ticks")
    assert caught.value.position is not None and "price" in (caught.value.hint or "")
    assert "ticks" in db.names() and "t" not in db.names()


def test_error_shows_the_place_in_the_text(db: Database) -> None:
    with pytest.raises(MillraceError) as caught:
        db.execute("SELECT\n  nonsense(1)")
    text = str(caught.value)
    assert "2:3" in text and "^^^^" in text and "[MR" in text


def test_a_checkpoint_needs_a_place(db: Database) -> None:
    with pytest.raises(Invalid, match="MR1560"):
        db.execute("CHECKPOINT")


@pytest.mark.parametrize(
    "statement", ["SHOW SOURCES", "SHOW FUNCTIONS LIKE 'split%'", "DESCRIBE EXTENDED ticks", "SHOW SETTINGS"]
)
def test_show_and_describe_answer_rows(db: Database, statement: str) -> None:
    db.execute(TICKS)
    assert len(db.execute(statement)) > 0


def test_insert_values_feeds_a_table_of_ours(db: Database) -> None:
    db.execute("CREATE TABLE limits (symbol STRING, most BIGINT, PRIMARY KEY (symbol))")
    db.execute("INSERT INTO limits VALUES ('a', 1), ('b', 2)")
    db.execute("INSERT INTO limits VALUES ('a', 7)")
    assert sorted(db.query("SELECT * FROM limits").tuples()) == [("a", 7), ("b", 2)]


def test_dropped_table_stops_and_its_name_is_free(db: Database) -> None:
    db.execute(TICKS)
    db.execute(
        "CREATE TABLE seen AS SELECT symbol FROM ticks; CREATE TABLE prices AS SELECT price FROM ticks"
    )
    running = len(db.metrics())
    db.execute("DROP TABLE seen")
    assert len(db.metrics()) < running
    with pytest.raises(Invalid, match="seen"):
        db.query("SELECT * FROM seen")
    db.execute("CREATE TABLE seen AS SELECT price FROM ticks")
    db.push("ticks", {"symbol": "a", "price": 4})
    assert db.query("SELECT * FROM seen").rows() == db.query("SELECT * FROM prices").rows() == [{"price": 4}]


def test_closed_subscription_frees_what_only_it_needed(db: Database) -> None:
    db.execute(TICKS)
    with db.subscribe("SELECT symbol, count(*) AS n FROM ticks GROUP BY symbol"):
        assert len(db.metrics()) > 0
    assert len(db.metrics()) == 0


def test_closed_database_says_so(db: Database) -> None:
    rows = db.subscribe("SELECT 1 AS one", "rows")
    db.close()
    assert list(rows) in ([], [{"one": 1}])
    with pytest.raises(Invalid, match="closed"):
        db.execute("SELECT 1")


def test_result_is_shown_as_text_and_html(db: Database) -> None:
    result = db.execute("SELECT 1 AS one, 'a<b' AS text")
    assert "one" in repr(result) and "(1 row)" in repr(result)
    assert "a&lt;b" in result._repr_html_()
