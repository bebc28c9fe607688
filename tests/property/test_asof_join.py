"""As-of joins over cut, disordered, re-sharded input give what DuckDB or a plain model gives in one shot."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from tests.timed_joins_harness import (
    SCHEMA,
    Partitions,
    Row,
    Surroundings,
    disordered,
    drive,
    record_batch,
    some_rows,
)

from millrace.operators.batch import END_OF_TIME, Batch
from millrace.operators.joins.asof import AsofJoin

ALL = (0, 1, 2, 3, 4, 5)


def distinct_times(rows: list[Row]) -> list[Row]:
    seen: set[tuple[object, object]] = set()
    return [r for r in rows if not ((r[0], r[1]) in seen or seen.add((r[0], r[1])))]


def model(left: list[Row], right: list[Row], spec: AsofJoin) -> Counter[tuple[object, ...]]:
    found: Counter[tuple[object, ...]] = Counter()
    limit = 10**12 if spec.tolerance is None else spec.tolerance // 1000
    for k, t, v in left:
        best: Row | None = None
        least = (0, 0)
        for row in right:
            if k is None or row[0] != k or t is None or row[1] is None:
                continue
            away = row[1] - t
            fits = {"backward": away <= 0, "forward": away >= 0, "nearest": True}[spec.direction]
            if not fits or abs(away) > limit or (spec.strict and away == 0):
                continue
            # Of two that are equally near the earlier one counts.
            if best is None or (abs(away), away) < least:
                best, least = row, (abs(away), away)
        if best is not None:
            found[(k, stamp(t), v, best[0], stamp(best[1]), best[2])] += 1
        elif spec.kind == "left":
            found[(k, stamp(t), v, None, None, None)] += 1
    return found


def stamp(ms: int | None) -> datetime | None:
    return (
        None
        if ms is None
        else datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None) + timedelta(milliseconds=ms)
    )


@pytest.mark.parametrize("direction", ["backward", "forward", "nearest"])
@pytest.mark.parametrize("kind", ["inner", "left"])
@pytest.mark.parametrize("tolerance", [None, 30_000])
@pytest.mark.parametrize("changes", [False, True])
def test_asof_join_equals_the_model(direction: str, kind: str, tolerance: int | None, changes: bool) -> None:
    for seed in range(6):
        rng = random.Random(f"{direction} {kind} {tolerance} {seed} {changes}")
        left = some_rows(rng, 60, 5, 400)
        right = distinct_times(some_rows(rng, rng.choice([8, 60]), 5, 400))
        spec = AsofJoin(
            SCHEMA,
            SCHEMA,
            kind,
            ((0, 0),),
            (1, 1),
            ALL,
            direction,
            direction != "nearest" and seed % 2 == 1,
            tolerance,
            changes,
        )
        disorder = rng.choice([0, 25, 90])
        parts = Partitions(spec)
        drive(parts, rng, (disordered(rng, left, disorder), disordered(rng, right, disorder)), disorder)
        assert +parts.out == model(left, right, spec), seed
        assert changes or parts.sent == sum(parts.out.values())
        assert not parts.context.late_rows
        assert all(operator.state_rows == 0 for operator in parts.operators)


@pytest.mark.parametrize("kind", ["inner", "left"])
@pytest.mark.parametrize("strict", [False, True])
def test_backward_equals_duckdb_held_back_and_as_changes(kind: str, strict: bool) -> None:
    for seed in range(6):
        rng = random.Random(f"{kind} {strict} {seed}")
        left, right = some_rows(rng, 80, 4, 400), distinct_times(some_rows(rng, 80, 4, 400))
        con = duckdb.connect()
        con.register("l", pa.Table.from_batches([record_batch(left)]))
        con.register("r", pa.Table.from_batches([record_batch(right)]))
        word = "LEFT" if kind == "left" else ""
        query = (
            f"SELECT l.*, r.* FROM l ASOF {word} JOIN r ON l.k = r.k AND l.ts {'>' if strict else '>='} r.ts"
        )
        batch = Counter(con.execute(query).fetchall())
        for changes in (False, True):
            spec = AsofJoin(SCHEMA, SCHEMA, kind, ((0, 0),), (1, 1), ALL, "backward", strict, None, changes)
            parts = Partitions(spec)
            drive(parts, rng, (disordered(rng, left, 60), disordered(rng, right, 60)), 60)
            assert +parts.out == batch, (seed, changes)


def test_right_row_within_the_disorder_corrects_what_was_sent() -> None:
    spec = AsofJoin(SCHEMA, SCHEMA, "left", ((0, 0),), (1, 1), (2, 5), changes=True)
    operator = spec.build(Surroundings())

    def sent(batches: list[Batch]) -> list[tuple[object, ...]]:
        return [
            (*row, weight)
            for b in batches
            for row, weight in zip(
                zip(*(c.to_pylist() for c in b.data.columns), strict=True), np.asarray(b.weights), strict=True
            )
        ]

    assert sent(operator.process(0, Batch(record_batch([("a", 100, 1)])))) == [(1, None, 1)]
    assert sent(operator.process(1, Batch(record_batch([("a", 50, 7)])))) == [(1, None, -1), (1, 7, 1)]
    assert sent(operator.process(1, Batch(record_batch([("a", 40, 8), ("a", 101, 9)])))) == []
    assert sent(operator.process(1, Batch(record_batch([("a", 60, 3)])))) == [(1, 7, -1), (1, 3, 1)]
    operator.on_watermark(100_001)
    assert operator.state_rows == 2
    late = operator.process(1, Batch(record_batch([("a", 70, 4)])))
    assert late == []


def test_state_keeps_the_last_of_each_key_only() -> None:
    spec = AsofJoin(SCHEMA, SCHEMA, "inner", ((0, 0),), (1, 1), ALL)
    operator = spec.build(Surroundings())
    for step in range(50):
        rows: list[Row] = [(f"k{i % 7}", step * 100 + i, i) for i in range(100)]
        operator.process(1, Batch(record_batch(rows)))
        operator.process(0, Batch(record_batch(rows)))
        operator.on_watermark((step * 100 + 99) * 1000)
        assert operator.state_rows <= 7 + 3
    operator.on_watermark(END_OF_TIME)
    assert operator.state_rows == 0


def test_forward_rows_without_a_match_hold_the_output_watermark_back() -> None:
    spec = AsofJoin(SCHEMA, SCHEMA, "inner", ((0, 0),), (1, 1), ALL, "forward")
    operator = spec.build(Surroundings())
    operator.process(0, Batch(record_batch([("a", 10, 1), ("b", 40, 2)])))
    assert operator.on_watermark(100_000) == []
    assert operator.output_watermark(100_000) == 10_000
    operator.process(1, Batch(record_batch([("a", 120, 3)])))
    assert [b.num_rows for b in operator.on_watermark(200_000)] == [1]
    assert operator.output_watermark(200_000) == 40_000
    assert np.int64(operator.state_rows) >= 1


@pytest.mark.parametrize("direction", ["backward", "forward", "nearest"])
@pytest.mark.parametrize("changes", [False, True])
def test_of_right_rows_with_one_time_the_one_that_arrived_last_counts(direction: str, changes: bool) -> None:
    spec = AsofJoin(SCHEMA, SCHEMA, "inner", ((0, 0),), (1, 1), (2, 5), direction, changes=changes)
    parts = Partitions(spec)
    at = 60 if direction == "forward" else 40
    parts.process(1, Batch(record_batch([("a", at, 7), ("a", at, 8), ("a", 500, 0)])))
    parts.process(0, Batch(record_batch([("a", 50, 1)])))
    parts.process(1, Batch(record_batch([("a", at, 9)])))
    parts.on_watermark(END_OF_TIME)
    assert +parts.out == Counter({(1, 9): 1})


@pytest.mark.parametrize("kind", ["inner", "left"])
def test_versions_of_keys_out_of_order_are_those_of_their_times(kind: str) -> None:
    for seed in range(4):
        rng = random.Random(f"versions {kind} {seed}")
        left = some_rows(rng, 60, 5, 400)
        right = distinct_times(some_rows(rng, rng.choice([8, 60]), 5, 400))
        spec = AsofJoin(SCHEMA, SCHEMA, kind, ((0, 0),), (1, 1), ALL, versions=True)
        disorder = rng.choice([0, 25, 90])
        parts = Partitions(spec)
        drive(parts, rng, (disordered(rng, left, disorder), disordered(rng, right, disorder)), disorder)
        assert +parts.out == model(left, right, spec), seed
        assert all(operator.state_rows == 0 for operator in parts.operators)
