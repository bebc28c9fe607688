"""Every benchmark query, and one for each kind of operator, gives DuckDB's rows in several partitions."""

import random

import duckdb
import pyarrow as pa
import pytest
from benchmarks.comparison import difference
from benchmarks.data import event_time, table
from benchmarks.queries import NEXMARK, NEXMARK_JOINS, SCENARIOS, Query
from tests.partitions_in_process import Partitions

from millrace.operators.connectors.arrow import forget, register
from millrace.planner.session import Planner

EVENTS = 2_000
SPLITS = 4
ORDERED = {"rows_window", "tumble_every_record"}
"""Queries whose answer depends on the order of arrival: their rows are one split."""
LEFT_OUT = {
    "group_by_1m",
    "group_by_10k",
    "tumble_10k",
    "interval_10",
    "interval_100",
    "stream_table_5k",
    "stream_table_1m",
}
"""Large ones, and those whose answer depends on when the table came that is looked up by processing time."""
QUERIES = [query for query in [*NEXMARK, *NEXMARK_JOINS, *SCENARIOS] if query.name not in LEFT_OUT]


def rows_of(query: Query) -> dict[str, pa.RecordBatch]:
    found = {name: pa.Table.from_batches(table(name, EVENTS)).combine_chunks() for name in query.tables}
    return {name: data.to_batches()[0] for name, data in found.items()}


def splits_of(batch: pa.RecordBatch, rng: random.Random, count: int) -> list[list[pa.RecordBatch]]:
    """The rows dealt out to splits, each in order and in random cuts."""
    found = []
    for split in range(count):
        rows = batch.take(pa.array(range(split, batch.num_rows, count)))
        cuts: list[pa.RecordBatch] = []
        start = 0
        while start < rows.num_rows:
            size = rng.choice([1, 20, 150, 400])
            cuts.append(rows.slice(start, size))
            start += size
        found.append(cuts)
    return found


def check(query: Query, seed: int, count: int, restarts: float) -> None:
    rng = random.Random(seed)
    rows = rows_of(query)
    splits = 1 if query.name in ORDERED else SPLITS
    tokens = {name: register(*splits_of(batch, rng, splits)) for name, batch in rows.items()}
    declared = []
    for name, token in tokens.items():
        column = event_time(name)
        watermark = f"(WATERMARK FOR {column})" if column else ""
        declared.append(f"CREATE SOURCE {name} {watermark} WITH ('connector' = 'arrow', 'token' = '{token}')")
    sink = f"CREATE SINK o FROM ({query.stream}) INTO BLACKHOLE ()"
    plan, _ = Planner().compile(";".join([*declared, sink]))
    try:
        partitions = Partitions(plan, count, rng)
        partitions.run(checkpoints=0.2 if restarts else 0.05, restarts=restarts, counts=(1, 2, 3))
    finally:
        for token in tokens.values():
            forget(token)
    (name,) = partitions.published
    assert partitions.late == 0
    connection = duckdb.connect()
    connection.execute("SET threads = 1; SET TimeZone = 'UTC'")
    for table_name, batch in rows.items():
        connection.register(table_name, pa.Table.from_batches([batch]))
    expected = connection.sql(query.batch).to_arrow_table()
    assert difference(partitions.folded(name), expected, query.compare) == ""


@pytest.mark.parametrize("place", range(len(QUERIES)), ids=[query.name for query in QUERIES])
def test_several_partitions_give_the_batch_answer(place: int) -> None:
    check(QUERIES[place], place, 2 + place % 2, restarts=0.1 * (place % 3 > 0))


COUNTS = "SELECT auction, count(*) AS n FROM bid GROUP BY auction"


def both(name: str, sql: str, tables: tuple[str, ...] = ("bid",), compare: str = "") -> Query:
    """A query that reads the same in DuckDB."""
    return Query(name, sql, sql.replace("dateTime", '"dateTime"'), tables, compare)


KINDS = [
    both("total", "SELECT count(*) AS n, max(price) AS m FROM bid"),
    both("total_of_totals", "SELECT sum(n) AS s FROM (SELECT count(*) AS n FROM bid)"),
    both("limit", "SELECT price FROM bid LIMIT 10", compare="SELECT count(*) FROM result"),
    both("top", "SELECT price, bidder, auction FROM bid ORDER BY price DESC, bidder, auction LIMIT 10"),
    both("distinct", "SELECT DISTINCT channel FROM bid"),
    both("top_of_groups", f"SELECT n, auction FROM ({COUNTS}) ORDER BY n DESC, auction LIMIT 5"),
    both("groups_of_groups", f"SELECT n, count(*) AS c FROM ({COUNTS}) GROUP BY n"),
    both(
        "rows_and_their_groups",
        f"SELECT auction, price FROM bid UNION ALL SELECT auction, n AS price FROM ({COUNTS})",
    ),
    both(
        "groups_joined_by_what_changes",
        f"""SELECT a.auction, a.n, b.channel, b.m FROM ({COUNTS}) a
            JOIN (SELECT channel, count(*) % 7 + 1 AS m FROM bid GROUP BY channel) b ON a.n = b.m""",
    ),
    both(
        "full_join_by_what_changes",
        f"""SELECT a.auction, a.n, b.bidder, b.n AS bn FROM ({COUNTS}) a
            FULL JOIN (SELECT bidder, count(*) AS n FROM bid WHERE price > 5000 GROUP BY bidder) b
            ON a.n = b.n AND a.auction % 10 = b.bidder % 10""",
    ),
    both(
        "groups_beside_the_total",
        f"SELECT a.auction, a.n, t.n AS total FROM ({COUNTS}) a CROSS JOIN (SELECT count(*) AS n FROM bid) t",
    ),
    Query(
        "join_on_an_expression",
        "SELECT a.id, b.price FROM auction a JOIN bid b ON a.id + 1 = b.auction + 1 WHERE b.price > 100",
        "SELECT a.id, b.price FROM auction a JOIN bid b ON a.id = b.auction WHERE b.price > 100",
        tables=("auction", "bid"),
    ),
    both(
        "semi",
        "SELECT id, seller FROM auction WHERE id IN (SELECT auction FROM bid WHERE price > 1000)",
        tables=("auction", "bid"),
    ),
    Query(
        "running",
        "SELECT auction, price, sum(price) OVER (PARTITION BY auction ORDER BY dateTime) AS s FROM bid",
        'SELECT auction, price, sum(price) OVER (PARTITION BY auction ORDER BY "dateTime") AS s FROM bid',
    ),
    Query(
        "running_over_all",
        "SELECT price, sum(price) OVER (ORDER BY dateTime) AS s FROM bid",
        'SELECT price, sum(price) OVER (ORDER BY "dateTime") AS s FROM bid',
    ),
    Query(
        "first_rows",
        """SELECT auction, bidder, price FROM (SELECT *, row_number() OVER
            (PARTITION BY auction, bidder ORDER BY dateTime, price) AS r FROM bid) WHERE r = 1""",
        """SELECT auction, bidder, price FROM (SELECT *, row_number() OVER
            (PARTITION BY auction, bidder ORDER BY "dateTime", price) AS r FROM bid) WHERE r = 1""",
    ),
    Query(
        "moving_filter",
        "SELECT auction, price FROM bid WHERE dateTime <= now() + INTERVAL '1' DAY",
        "SELECT auction, price FROM bid",
    ),
]


@pytest.mark.parametrize("query", KINDS, ids=lambda q: q.name)
def test_every_kind_of_operator_gives_the_batch_answer(query: Query) -> None:
    check(query, 1, 2, restarts=0)
    check(query, 2, 3, restarts=0.1)
