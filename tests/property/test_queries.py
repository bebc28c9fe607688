"""Every benchmark query gives DuckDB's multiset: at any batch size, in any cut, out of order within the bound, and
with the state captured and restored at random points."""

import random
from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from benchmarks.cep import CEP
from benchmarks.comparison import difference
from benchmarks.data import declared_side_input, event_time, read_side_input, table
from benchmarks.queries import NEXMARK, NEXMARK_JOINS, NEXMARK_SIDE_INPUTS, SCENARIOS, Query

from millrace.cluster.capture import Restored
from millrace.cluster.dataflow import Dataflow
from millrace.cluster.surroundings import VertexContext, VertexMetrics, wall_clock_us
from millrace.cluster.vertex import Tap
from millrace.operators.batch import Batch, concatenate
from millrace.operators.connectors.arrow import forget, register
from millrace.operators.materialize import Materialize, Materialized
from millrace.operators.sink import Changelog
from millrace.planner.plan import Node, Plan
from millrace.planner.session import Planner

EVENTS = 6_000
BOUND_S = 2
BATCH_SIZES = [1, 7, 1_024, 65_536]
ORDERED = {"rows_window", "tumble_every_record", *(q.name for q in CEP)}
"""Queries whose answer depends on the order of arrival, be it of rows of equal time."""
QUERIES = [
    q
    for q in [*NEXMARK, *NEXMARK_JOINS, *NEXMARK_SIDE_INPUTS, *CEP, *SCENARIOS]
    if q.name not in ("group_by_1m", "group_by_10k", "tumble_10k", "stream_table_1m")
]


def rows_of(query: Query, events: int) -> dict[str, pa.RecordBatch]:
    found = {name: pa.Table.from_batches(table(name, events)).combine_chunks() for name in query.tables}
    return {name: data.to_batches()[0] for name, data in found.items()}


def shuffled(batch: pa.RecordBatch, column: str | None, rng: random.Random) -> pa.RecordBatch:
    """The rows in an order that the watermark's bound allows."""
    if column is None:
        return batch
    at = np.asarray(batch.column(column).cast(pa.timestamp("us")).cast(pa.int64()))
    noise = np.random.default_rng(rng.randrange(2**32)).uniform(0, BOUND_S * 1e6, len(at))
    return batch.take(pa.array(np.argsort(at + noise, kind="stable")))


def cuts(batch: pa.RecordBatch, rng: random.Random, size: int | None) -> Iterator[pa.RecordBatch]:
    """Batches of `size` rows, or of random sizes."""
    start = 0
    while start < batch.num_rows:
        rows = size or rng.choice([1, 2, 5, 40, 300, 2_000])
        yield batch.slice(start, rows)
        start += rows


def plan_for(query: Query, tokens: dict[str, int]) -> tuple[Plan, int]:
    declarations = [declared_side_input()] if query.side_input else []
    for name, token in tokens.items():
        column = event_time(name)
        watermark = f"(WATERMARK FOR {column} AS {column} - INTERVAL '{BOUND_S}' SECOND)" if column else ""
        declarations.append(
            f"CREATE SOURCE {name} {watermark} WITH ('connector' = 'arrow', 'token' = '{token}')"
        )
    plan, _ = Planner().compile(";".join([*declarations, query.stream]))
    return plan, plan.outputs[-1].node


def fold(batches: list[Batch], node: Node) -> pa.Table:
    whole = concatenate(batches, node.schema)
    if node.changelog is Changelog.APPEND:
        return pa.Table.from_batches([whole.data], node.schema)
    held = Materialize(node.schema, node.key, node.changelog).build(
        VertexContext("folded", 1, wall_clock_us, VertexMetrics(), True)
    )
    assert isinstance(held, Materialized)
    for batch in batches:
        held.process(0, batch)
    return held.snapshot()


def run(query: Query, tokens: dict[str, int], rng: random.Random, *, restarts: float) -> pa.Table:
    """The folded output. After a round, with probability `restarts`, all goes on in a new dataflow from a capture."""
    plan, position = plan_for(query, tokens)
    sent: list[Batch] = []

    def start(state: Restored | None) -> Dataflow:
        dataflow = Dataflow(stop_at_bad_rows=True)
        dataflow.extend(plan, [(position, Tap(sent.append))])
        if state is not None:
            dataflow.restore(state)
        return dataflow

    dataflow = start(None)
    held = dataflow.capture(changes=False) if restarts else None
    while not dataflow.ended:
        dataflow.poll()
        if held is not None and rng.random() < max(restarts, 0.3):
            held = held.then(dataflow.capture(changes=rng.random() < 0.8))
            if rng.random() < restarts:
                dataflow = start(Restored.of(held))
                held = dataflow.capture(changes=False)
    assert sum(v.metrics.late_rows for v in dataflow.vertices) == 0
    return fold(sent, plan.nodes[position])


def check(
    query: Query, rng: random.Random, size: int | None, events: int, restarts: float, disorder: bool
) -> None:
    rows = rows_of(query, events)
    if disorder and query.name not in ORDERED:
        rows = {name: shuffled(batch, event_time(name), rng) for name, batch in rows.items()}
    tokens = {name: register(list(cuts(batch, rng, size))) for name, batch in rows.items()}
    try:
        ours = run(query, tokens, rng, restarts=restarts)
    finally:
        for token in tokens.values():
            forget(token)
    connection = duckdb.connect()
    connection.execute("SET threads = 1; SET TimeZone = 'UTC'")
    if query.side_input:
        connection.execute(read_side_input())
    for name, batch in rows.items():
        connection.register(name, pa.Table.from_batches([batch]))
    assert difference(ours, connection.sql(query.batch).to_arrow_table(), query.compare) == ""


@pytest.mark.parametrize("size", BATCH_SIZES)
@pytest.mark.parametrize("query", QUERIES, ids=lambda q: q.name)
def test_every_batch_size_gives_the_batch_answer(query: Query, size: int) -> None:
    events = 700 if size == 1 else EVENTS
    check(query, random.Random(size), size, events, restarts=0, disorder=False)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("query", QUERIES, ids=lambda q: q.name)
def test_random_cuts_and_disorder_give_the_batch_answer(query: Query, seed: int) -> None:
    check(query, random.Random(seed), None, EVENTS, restarts=0, disorder=True)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("query", QUERIES, ids=lambda q: q.name)
def test_capture_and_restore_anywhere_give_the_batch_answer(query: Query, seed: int) -> None:
    check(query, random.Random(100 + seed), None, EVENTS, restarts=0.15, disorder=True)
