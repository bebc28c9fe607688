"""Any frame over any rows in any cuts equals the frame written out."""

from __future__ import annotations

import itertools
from collections import Counter

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.batch import END_OF_TIME, Batch
from millrace.operators.over import Frame, FrameUnit, OverAggregate

SCHEMA = pa.schema([("k", pa.int32()), ("ts", pa.int64()), ("i", pa.int64()), ("v", pa.int64())])
BIG = pa.int64()
CALLS = (
    AggregateCall("count", (), BIG),
    AggregateCall("sum", (3,), BIG),
    AggregateCall("max", (3,), BIG),
    AggregateCall("first_value", (2,), BIG),
    AggregateCall("last_value", (2,), BIG),
    AggregateCall("lag", (2,), BIG, options=(("offset", 2),)),
    AggregateCall("lead", (2,), BIG),
)
ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 40), st.one_of(st.none(), st.integers(-9, 9))), max_size=60
)
BOUND = st.one_of(st.none(), st.integers(-6, 6))


class World:
    vnodes = 8

    def now(self) -> int:
        return 0

    def late(self, batch: Batch) -> None:
        raise AssertionError

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        raise AssertionError


def model(rows: list[tuple], frame: Frame) -> Counter:
    out: Counter = Counter()
    for key in {row[0] for row in rows}:
        mine = sorted(((time, i, v) for i, (k, time, v) in enumerate(rows) if k == key), key=lambda r: r[:2])
        for at, (time, i, _) in enumerate(mine):
            if frame.unit is FrameUnit.ROWS:
                low = 0 if frame.start is None else max(0, at + frame.start)
                high = len(mine) if frame.end is None else max(low, at + frame.end + 1)
                seen = mine[low:high]
            else:
                seen = [
                    row
                    for row in mine
                    if (frame.start is None or row[0] >= time + frame.start)
                    and (frame.end is None or row[0] <= time + frame.end)
                ]
            known = [row[2] for row in seen if row[2] is not None]
            out[
                (
                    i,
                    len(seen),
                    sum(known) if known else None,
                    max(known, default=None),
                    seen[0][1] if seen else None,
                    seen[-1][1] if seen else None,
                    mine[at - 2][1] if at >= 2 else None,
                    mine[at + 1][1] if at + 1 < len(mine) else None,
                )
            ] += 1
    return out


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    ROWS,
    st.lists(st.integers(0, 60), max_size=6),
    BOUND,
    BOUND,
    st.sampled_from(FrameUnit),
    st.booleans(),
    st.booleans(),
)
def test_frames_are_what_they_say(rows, cuts, start, end, unit, ahead, renewed) -> None:
    if start is not None and end is not None and start > end:
        start, end = end, start
    frame = Frame(unit, start, end)
    calls = CALLS if ahead else CALLS[:-1]
    spec = OverAggregate(SCHEMA, (0,), 1, frame, calls, tuple(f"c{n}" for n in range(len(calls))), "us")
    operator = spec.build(World())
    out: list[Batch] = []
    watermark = -100
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    for first, last in itertools.pairwise(edges):
        part = [(k, t, i, v) for i, (k, t, v) in enumerate(rows)][first:last]
        columns = zip(*part, strict=True)
        data = pa.record_batch(
            [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
        )
        out += operator.process(0, Batch(data))
        reached = min((row[1] for row in rows[last:]), default=watermark)
        if reached > watermark:
            watermark = reached
            out += operator.on_watermark(watermark)
        if renewed:
            tables = {name: delta.rows for name, delta in operator.capture(changes=False).items()}
            operator = spec.build(World())
            operator.restore(tables)
    out += operator.on_watermark(END_OF_TIME)
    width = None if ahead else -1
    want = Counter(row[:width] for row in model(rows, frame).elements())
    got = Counter(
        tuple(row.values())[2:3] + tuple(row.values())[4:] for b in out for row in b.data.to_pylist()
    )
    assert got == want
