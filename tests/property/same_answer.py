"""One query, two engines: ours over random cuts with restores in between, and DuckDB over all rows at once."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import duckdb
import pyarrow as pa

from millrace.cluster.capture import Restored
from millrace.cluster.dataflow import Dataflow
from millrace.cluster.vertex import Tap
from millrace.operators.batch import Batch
from millrace.operators.connectors.arrow import forget, register
from millrace.planner.plan import Plan
from millrace.planner.session import Planner

Rows = Counter[tuple[object, ...]]


def cuts(rows: pa.Table, rng: random.Random) -> Iterator[pa.RecordBatch]:
    """Batches of random sizes, some of them slices."""
    batch = rows.combine_chunks().to_batches()[0] if rows.num_rows else None
    start = 0
    while batch is not None and start < batch.num_rows:
        size = rng.choice([1, 2, 5, 17])
        yield batch.slice(start, size)
        start += size


def hashable(value: object) -> object:
    """A value that can be counted; floats as near as engines agree."""
    if isinstance(value, float):
        return float(f"{value:.12g}")
    if isinstance(value, list | tuple):
        return tuple(hashable(v) for v in value)
    if isinstance(value, dict):
        return tuple((k, hashable(v)) for k, v in value.items())
    return value


def rows_of(table: pa.Table | pa.RecordBatch) -> list[tuple[object, ...]]:
    """Rows as tuples."""
    columns = [column.to_pylist() for column in table.columns]
    return [tuple(map(hashable, row)) for row in zip(*columns, strict=True)]


def folded(batches: Sequence[Batch]) -> Rows:
    """Rows by their weights in sum. Fails where one was taken back that was not there."""
    found: Rows = Counter()
    for batch in batches:
        weights = [1] * batch.num_rows if batch.weights is None else batch.weights.tolist()
        for row, weight in zip(rows_of(batch.data), weights, strict=True):
            found[row] += weight
    assert all(n >= 0 for n in found.values()), (
        f"taken back, never sent: {[r for r, n in found.items() if n < 0][:3]}"
    )
    return +found


def run(plan: Plan, rng: random.Random, restarts: float) -> tuple[list[Batch], Dataflow]:
    """What the plan's last output sends; with probability `restarts` all goes on from a capture after a round."""
    position = plan.outputs[-1].node
    sent: list[Batch] = []

    def start(state: Restored | None) -> Dataflow:
        dataflow = Dataflow(stop_at_bad_rows=True)
        dataflow.extend(plan, [(position, Tap(sent.append))])
        if state is not None:
            dataflow.restore(state)
        return dataflow

    dataflow = start(None)
    held = dataflow.capture(changes=False)
    while not dataflow.ended:
        dataflow.poll()
        if rng.random() < max(restarts, 0.2):
            held = held.then(dataflow.capture(changes=rng.random() < 0.8))
            if rng.random() < restarts:
                dataflow = start(Restored.of(held))
                held = dataflow.capture(changes=False)
    return sent, dataflow


def ours(
    sql: str,
    tables: Mapping[str, pa.Table],
    rng: random.Random,
    *,
    restarts: float = 0.2,
    watermarks: Mapping[str, str] | None = None,
    before: str = "",
) -> Rows:
    """The folded answer; `before` are statements ahead of the query, `watermarks` what a source declares."""
    tokens = {name: register(list(cuts(rows, rng))) for name, rows in tables.items()}
    try:
        declared = [
            f"CREATE SOURCE {name} {(watermarks or {}).get(name, '')} WITH ('connector' = 'arrow', 'token' = '{token}')"
            for name, token in tokens.items()
        ]
        plan, _ = Planner().compile(";".join([*declared, before + sql]))
        sent, _ = run(plan, rng, restarts)
        return folded(sent)
    finally:
        for token in tokens.values():
            forget(token)


def theirs(sql: str, tables: Mapping[str, pa.Table]) -> Rows:
    """DuckDB's answer."""
    connection = duckdb.connect()
    connection.execute("SET threads = 1; SET TimeZone = 'UTC'")
    for name, rows in tables.items():
        connection.register(name, rows)
    return Counter(rows_of(connection.sql(sql).to_arrow_table()))


def check(
    sql: str,
    tables: Mapping[str, pa.Table],
    seeds: Sequence[int] = (0, 1),
    oracle: str | None = None,
    **options: object,
) -> None:
    """Fails where the answers differ; `oracle` is DuckDB's spelling of the query."""
    expected = theirs(oracle or sql, tables)
    for seed in seeds:
        found = ours(sql, tables, random.Random(seed), **options)  # type: ignore[arg-type]
        more, less = found - expected, expected - found
        assert not more and not less, (
            f"{sql}\nseed {seed}: {sum(more.values())} too many, e.g. {list(more)[:3]}; "
            f"{sum(less.values())} missing, e.g. {list(less)[:3]}"
        )
