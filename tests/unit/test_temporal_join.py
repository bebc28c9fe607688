"""Temporal joins against versions with ends, and by processing time with capture and restore."""

import numpy as np
import pyarrow as pa
from tests.timed_joins_harness import SCHEMA, Partitions, Row, Surroundings, record_batch

from millrace.operators.batch import END_OF_TIME, Batch
from millrace.operators.joins.asof import AsofJoin
from millrace.operators.joins.temporal import LatestJoin


def rows_of(batches: list[Batch]) -> list[tuple[object, ...]]:
    return sorted(
        (row for b in batches for row in zip(*(c.to_pylist() for c in b.data.columns), strict=True)), key=str
    )


def changes(rows: list[Row], weights: list[int]) -> Batch:
    return Batch(record_batch(rows), np.array(weights, np.int64))


def test_a_deleted_version_ends_and_an_updated_one_is_replaced() -> None:
    spec = AsofJoin(SCHEMA, SCHEMA, "left", ((0, 0),), (1, 1), (2, 5), versions=True)
    operator = spec.build(Surroundings())
    operator.process(1, changes([("a", 10, 1), ("b", 10, 5)], [1, 1]))
    operator.process(1, changes([("a", 10, 1), ("a", 20, 2)], [-1, 1]))
    operator.process(1, changes([("a", 30, 2)], [-1]))
    operator.process(1, changes([("a", 40, 3)], [1]))
    left = [("a", t, t) for t in (5, 10, 19, 20, 29, 30, 39, 40, 99)]
    operator.process(0, Batch(record_batch(left)))
    found = dict(rows_of(operator.on_watermark(END_OF_TIME)))  # type: ignore[arg-type]
    assert found == {5: None, 10: 1, 19: 1, 20: 2, 29: 2, 30: None, 39: None, 40: 3, 99: 3}


def test_a_version_that_ends_at_a_time_of_its_own_ends_whatever_follows_in_the_batch() -> None:
    spec = AsofJoin(SCHEMA, SCHEMA, "left", ((0, 0),), (1, 1), (2, 5), versions=True)
    for cuts in ([4], [1, 3], [2, 2], [1, 1, 1, 1]):
        operator = spec.build(Surroundings())
        rows: list[Row] = [("a", 10, 1), ("a", 15, 1), ("a", 20, 2), ("b", 15, 9)]
        weights = [1, -1, 1, 1]
        for size in cuts:
            operator.process(1, changes(rows[:size], weights[:size]))
            rows, weights = rows[size:], weights[size:]
        operator.process(0, Batch(record_batch([("a", t, t) for t in (10, 14, 15, 19, 20)])))
        found = dict(rows_of(operator.on_watermark(END_OF_TIME)))  # type: ignore[arg-type]
        assert found == {10: 1, 14: 1, 15: None, 19: None, 20: 2}, cuts


def test_inserts_and_updates_within_one_batch_leave_each_version_its_time() -> None:
    spec = AsofJoin(SCHEMA, SCHEMA, "left", ((0, 0),), (1, 1), (2, 5), versions=True)
    operator = spec.build(Surroundings())
    history: list[Row] = [("a", 10, 1), ("a", 10, 1), ("a", 20, 2), ("a", 20, 2), ("a", 20, 3), ("a", 25, 3)]
    operator.process(1, changes(history, [1, -1, 1, -1, 1, -1]))
    operator.process(0, Batch(record_batch([("a", t, t) for t in (9, 10, 19, 20, 24, 25)])))
    found = dict(rows_of(operator.on_watermark(END_OF_TIME)))  # type: ignore[arg-type]
    assert found == {9: None, 10: 1, 19: 1, 20: 3, 24: 3, 25: None}


def test_versions_in_any_order_and_batches_give_what_the_history_says() -> None:
    spec = AsofJoin(SCHEMA, SCHEMA, "left", ((0, 0),), (1, 1), (2, 5), versions=True)
    for seed in range(30):
        random = np.random.default_rng(seed)
        times = random.choice(200, 40, replace=False)
        keys = [f"k{k}" for k in random.integers(0, 4, 40)]
        weights = np.where(
            random.random(40) < 0.4, -1, 1
        )  # every version and every end has a time of its own
        history: list[Row] = [(k, int(t), i) for i, (k, t) in enumerate(zip(keys, times, strict=True))]
        operator = spec.build(Surroundings())
        cuts = np.sort(random.integers(0, 41, 5))
        for low, high in zip([0, *cuts], [*cuts, 40], strict=True):
            if low < high:
                operator.process(1, changes(history[low:high], weights[low:high].tolist()))
        asked: list[Row] = [(f"k{i % 4}", int(t), i) for i, t in enumerate(random.integers(0, 210, 60))]
        operator.process(0, Batch(record_batch(asked)))
        found = dict(rows_of(operator.on_watermark(END_OF_TIME)))  # type: ignore[arg-type]
        for key, time, number in asked:
            own = [(t, i) for k, t, i in history if k == key and t <= time]
            last = max(own)[1] if own else None
            assert found[number] == (None if last is None or weights[last] < 0 else last), (seed, key, time)


def test_versions_are_kept_until_the_watermark_passes() -> None:
    spec = AsofJoin(SCHEMA, SCHEMA, "inner", ((0, 0),), (1, 1), (2, 5), versions=True)
    operator = spec.build(Surroundings())
    for step in range(20):
        operator.process(1, changes([("a", step, step)], [1]))
    assert operator.state_rows == 20
    operator.on_watermark(15_000)
    assert operator.state_rows == 6
    operator.process(0, Batch(record_batch([("a", 15, 100), ("a", 17, 101)])))
    assert rows_of(operator.on_watermark(18_001)) == [(100, 15), (101, 17)]


def test_latest_survives_capture_changes_and_resharding() -> None:
    spec = LatestJoin(SCHEMA, SCHEMA, "inner", ((0, 0),), (0, 2, 5))
    parts = Partitions(spec)
    parts.process(1, Batch(record_batch([(f"k{i}", 0, i) for i in range(10)])))
    parts.checkpoint(changes=False)
    parts.process(1, changes([("k1", 0, 1), ("k2", 0, 2), ("k2", 0, 22), ("k3", 0, 3)], [-1, -1, 1, -1]))
    parts.process(1, changes([("k3", 0, 33), (None, 0, 44)], [1, 1]))
    parts.checkpoint(changes=True)
    parts.reshard(3)
    parts.process(0, Batch(record_batch([(f"k{i}", 0, i) for i in range(5)] + [(None, 0, 9)])))
    assert sorted(parts.out) == [("k0", 0, 0), ("k2", 2, 22), ("k3", 3, 33), ("k4", 4, 4)]
    assert isinstance(parts.operators[0].capture(changes=False)["rows"].rows, pa.RecordBatch)
