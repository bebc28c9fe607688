"""Rows of words that accumulators share, and what numbers make of infinities, overflow and counts on the way."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.aggregates.families import COUNT_ROWS, build_set
from millrace.operators.aggregates.group_words import GroupWords

SCHEMA = pa.schema([("x", pa.float64()), ("n", pa.int64()), ("keep", pa.bool_())])
INF, NAN = math.inf, math.nan


def test_each_joiner_keeps_its_initial_words_through_growth_and_shrinking() -> None:
    groups = GroupWords()
    assert [groups.join([1]), groups.join([2, 3]), groups.join([4, 5, 6])] == [0, 1, 3]
    groups.grow(1024)
    groups.rows[7, :6] = 9
    groups.grow(5000)
    assert groups.step == 64 and groups.address % 64 == 0
    assert groups.gather(np.array([7, 0, 4999]))[:, :].tolist() == [
        [9] * 6,
        [1, 2, 3, 4, 5, 6],
        [1, 2, 3, 4, 5, 6],
    ]
    groups.shrink(1024)
    groups.reset(np.array([7]))
    assert groups.gather(np.array([7], np.int32), 1, 2).tolist() == [[2, 3]]


def test_a_run_of_groups_is_no_view_of_a_column() -> None:
    groups = GroupWords()
    groups.join([5])
    groups.grow(8192)
    found = groups.gather(np.arange(100, 6000, dtype=np.int32))
    groups.rows[:] = 0
    assert found.shape == (5900, 1) and (found == 5).all()


def results(rows: list[tuple[float | None, int]], *, retracting: bool) -> list[object]:
    """sum, avg, min, max of x, and the counts of x and of rows, over rows of (x, weight) in one group."""
    extremes = [] if retracting else ["min", "max"]
    calls = [AggregateCall(name, (0,), pa.float64()) for name in ["sum", "avg", *extremes]]
    calls += [AggregateCall("count", (0,), pa.int64()), COUNT_ROWS]
    accumulators = build_set(calls, SCHEMA, retracting=retracting)
    accumulators.grow(1)
    for x, weight in rows:
        batch = pa.RecordBatch.from_pydict({"x": [x], "n": [0], "keep": [True]}, schema=SCHEMA)
        accumulators.update(np.zeros(1, np.int32), batch, np.array([weight]) if retracting else None)
    return [outcome.values[0].as_py() for outcome in accumulators.results(np.zeros(1, np.int32))]


@pytest.mark.parametrize(
    ("values", "total", "least", "greatest"),
    [
        ([1.0, INF, 2.0], INF, 1.0, INF),
        ([-INF, 1.0, -INF], -INF, -INF, 1.0),
        ([INF, -INF, 1.0], NAN, -INF, INF),
        ([NAN, 1.0, INF], NAN, 1.0, NAN),
        ([1e308, 1e308, -1e308], INF, -1e308, 1e308),
        ([1e16, 1.0, -1e16], 1.0, -1e16, 1e16),
    ],
)
def test_an_infinite_sum_stays_what_it_is(
    values: list[float], total: float, least: float, greatest: float
) -> None:
    found = results([(value, 1) for value in [*values, None]], retracting=False)
    expected = [total, total / 3, least, greatest, 3, 4]
    assert [repr(value) for value in found] == [repr(value) for value in expected]


def test_infinities_and_nan_can_be_taken_back() -> None:
    rows: list[tuple[float | None, int]] = [(1.5, 1), (INF, 1), (NAN, 1), (-INF, 1), (None, 1)]
    taken: list[tuple[float | None, int]] = [(INF, -1), (NAN, -1)]
    assert results(rows + taken, retracting=True) == [-INF, -INF, 2, 3]
    assert results([*rows, *taken, (-INF, -1)], retracting=True) == [1.5, 1.5, 1, 2]


@pytest.mark.parametrize("kind", ["update", "running"])
def test_rows_are_counted_once_beside_numbers_of_some_of_them(kind: str) -> None:
    calls = [
        COUNT_ROWS,
        AggregateCall("count", (), pa.int64(), filter=2),
        AggregateCall("sum", (1,), pa.int64()),
        AggregateCall("sum", (0,), pa.float64(), filter=2),
    ]
    accumulators = build_set(calls, SCHEMA, retracting=False)
    accumulators.grow(3)
    columns = {"x": [1.0, 2.0, None, 4.0], "n": [None, 5, 6, None], "keep": [True, False, True, None]}
    batch = pa.RecordBatch.from_pydict(columns, schema=SCHEMA)
    slots = np.array([2, 0, 2, 2])
    if kind == "update":
        accumulators.update(slots, batch, None)
    else:
        running = accumulators.running(slots, batch, None)
        assert [outcome.values.to_pylist() for outcome in running] == [
            [1, 1, 2, 3],
            [1, 0, 2, 2],
            [None, 5, 6, 6],
            [1.0, None, 1.0, 1.0],
        ]
    found = accumulators.results(np.array([0, 1, 2]))
    assert [outcome.values.to_pylist() for outcome in found] == [
        [1, 0, 3],
        [0, 0, 2],
        [5, None, 6],
        [None, None, 1.0],
    ]
