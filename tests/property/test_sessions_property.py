"""Any rows, any order, any cuts: session windows are the connected groups of each key's rows."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millrace.operators.aggregates.calls import CHANGES, ON_CLOSE, AggregateCall
from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Batch
from millrace.operators.sessions import SessionAggregate

SCHEMA = pa.schema([("k", pa.int32()), ("ts", pa.int64()), ("v", pa.int64())])
CALLS = (AggregateCall("count", (), pa.int64()), AggregateCall("sum", (2,), pa.int64()))
ROWS = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(0, 3)), st.integers(0, 200), st.integers(-5, 5)), max_size=80
)


class World:
    vnodes = 8

    def __init__(self) -> None:
        self.gone = 0

    def now(self) -> int:
        return 0

    def late(self, batch: Batch) -> None:
        self.gone += batch.num_rows

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        raise AssertionError


def model(rows: list[tuple], gap: int, delay: int, lateness: int) -> tuple[Counter, int]:
    sessions: dict[object, list[list]] = {}
    late = 0
    mark = START_OF_TIME
    for key, time, value in rows:
        if time + gap + lateness <= mark:
            late += 1
        else:
            mine, rest = [time, time, 1, value], []
            for other in sessions.setdefault(key, []):
                near = other[0] - gap < time < other[1] + gap and other[1] + gap + lateness > mark
                if near:
                    mine = [
                        min(mine[0], other[0]),
                        max(mine[1], other[1]),
                        mine[2] + other[2],
                        mine[3] + other[3],
                    ]
                else:
                    rest.append(other)
            sessions[key] = [*rest, mine]
        mark = max(mark, time - delay)
    found = Counter(
        (key, first, last + gap, count, total)
        for key, kept in sessions.items()
        for first, last, count, total in kept
    )
    return found, late


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    ROWS,
    st.lists(st.integers(0, 80), max_size=6),
    st.integers(1, 30),
    st.integers(0, 60),
    st.sampled_from([0, 0, 7, 40]),
    st.booleans(),
    st.booleans(),
)
def test_sessions_are_connected_rows(rows, cuts, gap, delay, lateness, changes, renewed) -> None:
    spec = SessionAggregate(
        SCHEMA,
        1,
        gap,
        (0,),
        CALLS,
        ("k", "s", "e", "n", "t"),
        CHANGES if changes else ON_CLOSE,
        allowed_lateness=lateness,
        time_unit="us",
    )
    world = World()
    operator = spec.build(world)
    left: Counter = Counter()
    watermark = mark = START_OF_TIME
    marks = []
    for row in rows:
        marks.append(mark)
        mark = max(mark, row[1] - delay)
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    for start, end in itertools.pairwise(edges):
        columns = zip(*rows[start:end], strict=True)
        data = pa.record_batch(
            [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
        )
        out = operator.process(0, Batch(data, None, np.array(marks[start:end], np.int64)))
        reached = max(row[1] for row in rows[:end]) - delay
        if reached > watermark:
            watermark = reached
            out += operator.on_watermark(watermark)
        apply(left, out)
        if renewed:
            tables = {name: delta.rows for name, delta in operator.capture(changes=False).items()}
            operator = spec.build(world)
            operator.restore(tables)
    apply(left, operator.on_watermark(END_OF_TIME))
    want, late = model(rows, gap, delay, lateness)
    assert +left == want
    assert world.gone == late
    assert len(operator._index) == 0


def apply(left: Counter, batches: list[Batch]) -> None:
    for batch in batches:
        weights = [1] * batch.num_rows if batch.weights is None else batch.weights.tolist()
        for row, weight in zip(batch.data.to_pylist(), weights, strict=True):
            left[tuple(row.values())] += weight
            assert left[tuple(row.values())] >= 0
