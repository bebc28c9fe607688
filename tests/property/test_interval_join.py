"""Interval and window joins over cut, disordered, re-sharded input give what DuckDB gives in one shot."""

import random
from collections import Counter

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from tests.timed_joins_harness import (
    SCHEMA,
    Partitions,
    Surroundings,
    disordered,
    drive,
    record_batch,
    some_rows,
)

from millrace.operators.batch import END_OF_TIME, Batch
from millrace.operators.expressions.tree import Call, Column
from millrace.operators.joins import interval_operator
from millrace.operators.joins.interval import IntervalJoin, WindowJoin

KINDS = ("inner", "left", "right", "full", "semi", "anti")
LESS = Call("<", (Column(2, pa.int64(), "v"), Column(5, pa.int64(), "v")), pa.bool_())


def expected(sides, kind: str, on: str) -> Counter[tuple[object, ...]]:
    con = duckdb.connect()
    for name, rows in zip(("a", "b"), sides, strict=True):
        con.register(f"{name}_rows", pa.Table.from_batches([record_batch(rows)]))
        con.execute(f"CREATE TABLE {name} AS FROM {name}_rows")
    columns = "a.k, a.ts, a.v" if kind in ("semi", "anti") else "a.k, a.ts, a.v, b.k, b.ts, b.v"
    return Counter(con.execute(f"SELECT {columns} FROM a {kind} JOIN b ON {on}").fetchall())


def outputs(kind: str) -> tuple[int, ...]:
    return (0, 1, 2) if kind in ("semi", "anti") else (0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bounds", [(-40, 60), (0, 30), (20, 50), (-50, -10)])
def test_interval_join_equals_one_shot(
    kind: str, bounds: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(5):
        rng = random.Random(f"{kind} {bounds} {seed}")
        monkeypatch.setattr(interval_operator, "ROWS_PER_ASKED", rng.choice([0, 1, 16]))
        sides = (some_rows(rng, 60, 5, 400), some_rows(rng, rng.choice([6, 60]), 5, 400))
        condition = LESS if seed % 2 else None
        opened = (seed % 3 == 0, seed % 3 == 1)
        spec = IntervalJoin(
            SCHEMA,
            SCHEMA,
            kind,
            ((0, 0),),
            (1, 1),
            bounds[0] * 1000,
            bounds[1] * 1000,
            outputs(kind),
            condition,
            opened,
        )
        parts = Partitions(spec)
        disorder = rng.choice([0, 25, 90])
        drive(
            parts, rng, (disordered(rng, sides[0], disorder), disordered(rng, sides[1], disorder)), disorder
        )
        low, high = ("<" if o else "<=" for o in opened)
        on = (
            f"a.k = b.k AND a.ts + INTERVAL ({bounds[0]}) MILLISECOND {low} b.ts"
            f" AND b.ts {high} a.ts + INTERVAL ({bounds[1]}) MILLISECOND"
            + (" AND a.v < b.v" if condition else "")
        )
        # An open bound leaves out one µs, and times are ms apart.
        assert +parts.out == expected(sides, kind, on), seed
        assert not parts.context.late_rows
        assert all(operator.state_rows == 0 for operator in parts.operators)


@pytest.mark.parametrize("kind", KINDS)
def test_window_join_equals_one_shot(kind: str) -> None:
    for seed in range(6):
        rng = random.Random(f"{kind} {seed}")
        sides = [
            [(k, (t or 0) // 50 * 50 + 50, v) for k, t, v in some_rows(rng, 50, 4, 300)] for _ in range(2)
        ]
        spec = WindowJoin(SCHEMA, SCHEMA, kind, ((0, 0),), (1, 1), outputs(kind))
        parts = Partitions(spec)
        drive(parts, rng, (sides[0], sides[1]), 1)
        assert +parts.out == expected(sides, kind, "a.k = b.k AND a.ts = b.ts"), seed
        assert not parts.context.late_rows


def test_interval_join_without_keys_and_with_many_matches() -> None:
    rng = random.Random(1)
    sides = (some_rows(rng, 150, 1, 100), some_rows(rng, 150, 1, 100))
    spec = IntervalJoin(SCHEMA, SCHEMA, "full", (), (1, 1), -30_000, 30_000, outputs("full"))
    parts = Partitions(spec, keys=())
    drive(parts, rng, (disordered(rng, sides[0], 40), disordered(rng, sides[1], 40)), 40, largest=60)
    on = "b.ts BETWEEN a.ts - INTERVAL 30 MILLISECOND AND a.ts + INTERVAL 30 MILLISECOND"
    assert +parts.out == expected(sides, "full", on)


def test_late_rows_go_to_the_late_output_whatever_the_cut() -> None:
    rows = [("a", 100, 0), ("a", 200, 1), ("a", 120, 2), ("a", 190, 3), ("a", 240, 4)]
    marks = np.array([-(2**62), 90_000, 190_000, 190_000, 190_000])
    for cut in range(1, 5):
        context = Surroundings()
        spec = IntervalJoin(SCHEMA, SCHEMA, "left", ((0, 0),), (1, 1), 0, 10_000, outputs("left"))
        operator = spec.build(context)
        whole = Batch(record_batch(rows), None, marks)
        out = [*operator.process(0, whole.slice(0, cut)), *operator.process(0, whole.slice(cut))]
        out += operator.on_watermark(230_000)
        assert [b.data.column(2).to_pylist() for b in context.late_rows] == [[2]]
        assert sorted(v for b in out for v in b.data.column(2).to_pylist()) == [0, 1, 3]
        assert operator.output_watermark(230_000) == 220_000
        assert [v for b in operator.on_watermark(END_OF_TIME) for v in b.data.column(2).to_pylist()] == [4]


def test_state_and_its_memory_go_when_the_watermark_passes() -> None:
    schema = pa.schema([("k", pa.int64()), ("ts", pa.timestamp("us")), ("v", pa.int64())])
    spec = IntervalJoin(schema, schema, "full", ((0, 0),), (1, 1), -1000, 1000, (0, 1, 2, 5))
    operator = spec.build(Surroundings())
    sizes = []
    for step in range(60):
        ticks = np.arange(step * 4000, (step + 1) * 4000)
        data = pa.RecordBatch.from_arrays(
            [pa.array(ticks), pa.array(ticks).cast(pa.timestamp("us")), pa.array(ticks)], schema=schema
        )
        for port in (0, 1):
            operator.process(port, Batch(data))
        operator.on_watermark(int(ticks[-1]))
        sizes.append(operator.state_bytes)
        assert operator.state_rows <= 2 * 1001
    assert max(sizes[30:]) <= 1.1 * max(sizes[10:30])
    operator.on_watermark(END_OF_TIME)
    assert operator.state_rows == 0
    assert operator.metrics.extra["expired"] == 60 * 8000
