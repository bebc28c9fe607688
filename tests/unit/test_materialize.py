"""Materialised tables hold the folded changelog, and continue after a restore as if never stopped."""

import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from millrace.operators.batch import Batch
from millrace.operators.consolidate import consolidate
from millrace.operators.materialize import Materialize, Materialized
from millrace.operators.sink import Changelog
from millrace.state.snapshot import fold

SCHEMA = pa.schema([("k", pa.string()), ("v", pa.int64())])


class Surroundings:
    vnodes = 16

    def now(self) -> int:
        return 0

    def late(self, batch: Batch) -> None:
        raise AssertionError

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        raise AssertionError


def build(key: tuple[int, ...] | None, changelog: Changelog) -> Materialized:
    table = Materialize(SCHEMA, key, changelog).build(Surroundings())
    assert isinstance(table, Materialized)
    return table


def batch(rows: list[tuple[str | None, int, int]]) -> Batch:
    data = pa.RecordBatch.from_pydict({"k": [r[0] for r in rows], "v": [r[1] for r in rows]}, SCHEMA)
    return Batch(data, np.array([r[2] for r in rows], np.int64))


def rows_of(table: pa.Table) -> Counter[tuple[object, object]]:
    return Counter(zip(table["k"].to_pylist(), table["v"].to_pylist(), strict=True))


def changes(
    seed: int, keyed: bool
) -> list[tuple[list[tuple[str | None, int, int]], Counter[tuple[object, object]]]]:
    """Random changelog batches with what the table must hold after each."""
    rng = random.Random(seed)
    held: Counter[tuple[object, object]] = Counter()
    steps = []
    for _ in range(30):
        rows: list[tuple[str | None, int, int]] = []
        for _ in range(rng.randrange(1, 12)):
            key = rng.choice(["a", "b", "ü", None, ""])
            present = [row for row in held.elements() if row[0] == key]
            if present and rng.random() < (1.0 if keyed else 0.5):
                gone = rng.choice(present)
                held[gone] -= 1
                rows.append((key, gone[1], -1))  # type: ignore[arg-type]
                if keyed and rng.random() < 0.3:
                    continue
            value = rng.randrange(5)
            held[key, value] += 1
            rows.append((key, value, 1))
        held = +held
        steps.append((rows, Counter(held)))
    return steps


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("key", [(0,), None])
def test_retract_stream_folds_and_survives_restore_at_every_batch(
    seed: int, key: tuple[int, ...] | None
) -> None:
    table = build(key, Changelog.RETRACT)
    full = table.capture(changes=False)["rows"].rows
    for rows, expected in changes(seed, keyed=key is not None):
        table.process(0, batch(rows))
        assert rows_of(table.snapshot()) == expected
        delta = table.capture(changes=True)["rows"]
        full = fold(full, [(delta.rows, delta.deleted)], list(delta.key))
        restored = build(key, Changelog.RETRACT)
        restored.restore({"rows": full})
        assert rows_of(restored.snapshot()) == expected
        table = restored if seed % 2 else table
        if table is restored:
            full = table.capture(changes=False)["rows"].rows


def test_upsert_last_row_of_a_key_wins() -> None:
    table = build((0,), Changelog.UPSERT)
    table.process(0, batch([("a", 1, 1), ("b", 1, 1), ("a", 2, 1)]))
    table.process(0, batch([("b", 1, -1), ("c", 3, 1), ("c", 3, -1)]))
    assert rows_of(table.snapshot()) == Counter({("a", 2): 1})


def test_append_keeps_order_through_restore() -> None:
    table = build(None, Changelog.APPEND)
    table.process(0, Batch(batch([("b", 1, 1), ("a", 2, 1)]).data))
    first = table.capture(changes=False)["rows"]
    table.process(0, Batch(batch([("c", 3, 1)]).data))
    second = table.capture(changes=True)["rows"]
    assert second.rows.num_rows == 1
    restored = build(None, Changelog.APPEND)
    restored.restore({"rows": fold(first.rows, [(second.rows, second.deleted)], list(second.key))})
    assert restored.snapshot().to_pydict() == {"k": ["b", "a", "c"], "v": [1, 2, 3]}


def test_consolidate_cancels_equal_rows() -> None:
    folded = consolidate(batch([("a", 1, 1), ("b", 2, 1), ("a", 1, -1), ("b", 2, 1), (None, 3, -1)]))
    assert folded.data.to_pydict() == {"k": ["b", None], "v": [2, 3]}
    assert folded.weights is not None and folded.weights.tolist() == [2, -1]


@pytest.mark.parametrize("seed", range(4))
def test_upserts_become_changes_that_fold_to_the_table(seed: int) -> None:
    rng = random.Random(seed)
    table = build((0,), Changelog.UPSERT)
    held: dict[str | None, int] = {}
    folded: Counter[tuple[object, object]] = Counter()
    for step in range(40):
        rows = [
            (rng.choice(["a", "b", "ü", None, ""]), rng.randrange(3), rng.choice([1, 1, 1, -1]))
            for _ in range(rng.randrange(1, 9))
        ]
        for key, value, weight in rows:
            if weight > 0:
                held[key] = value
            else:
                held.pop(key, None)
        for out in table.process(0, batch(rows)):
            assert out.weights is not None
            for key, value, weight in zip(*out.data.to_pydict().values(), out.weights, strict=True):
                folded[(key, value)] += int(weight)
                assert folded[(key, value)] in (-1, 0, 1)
        assert +folded == Counter(held.items()) == rows_of(table.snapshot())
        assert not -folded
        if step == 20:
            state = table.capture(changes=False)
            table = build((0,), Changelog.UPSERT)
            table.restore({name: delta.rows for name, delta in state.items()})


def test_upsert_that_changes_nothing_is_not_sent_on() -> None:
    table = build((0,), Changelog.UPSERT)
    table.process(0, batch([("a", 1, 1)]))
    assert table.process(0, batch([("a", 2, 1), ("a", 1, 1), ("b", 1, -1)])) == []
