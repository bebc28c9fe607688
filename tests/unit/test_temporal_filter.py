"""Temporal filters against a plain model: what is in at every moment, by either clock, with retractions and
restore."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from millrace.operators.batch import END_OF_TIME, Batch
from millrace.operators.sink import Changelog
from millrace.operators.spec import decode, encode
from millrace.operators.temporal_filter import Clock, TemporalFilter, TimeBound
from millrace.operators.union import UnionAll

SCHEMA = pa.schema([("ts", pa.timestamp("us")), ("v", pa.string())])
LAST_TEN = TimeBound(-10, False)


class World:
    """A context with a clock that tests set."""

    vnodes = 16

    def __init__(self) -> None:
        self.clock = 0

    def now(self) -> int:
        return self.clock

    def late(self, batch: Batch) -> None:
        raise AssertionError

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        raise AssertionError


def table(rows: list[tuple]) -> pa.RecordBatch:
    times, values = zip(*rows, strict=True)
    return pa.record_batch([pa.array(times, SCHEMA.field(0).type), pa.array(values)], schema=SCHEMA)


def apply(view: Counter, batches: list[Batch]) -> None:
    for batch in batches:
        assert batch.schema == SCHEMA
        times = batch.data.column("ts").cast(pa.int64()).to_pylist()
        weights = [1] * batch.num_rows if batch.weights is None else batch.weights.tolist()
        for row in zip(times, batch.data.column("v").to_pylist(), weights, strict=True):
            view[row[:2]] += row[2]
            assert view[row[:2]] >= 0
    for row in [row for row, count in view.items() if not count]:
        del view[row]


BOUNDS = [
    (LAST_TEN, None),
    (TimeBound(-10, True), None),
    (None, TimeBound(0, True)),
    (None, TimeBound(-7, False)),
    (LAST_TEN, TimeBound(0, True)),
    (TimeBound(-20, True), TimeBound(5, False)),
]


def inside(time: int | None, now: int, lower: TimeBound | None, upper: TimeBound | None) -> bool:
    if time is None:
        return False
    low = lower is None or time > now + lower.offset or (lower.inclusive and time == now + lower.offset)
    high = upper is None or time < now + upper.offset or (upper.inclusive and time == now + upper.offset)
    return low and high


@pytest.mark.parametrize("lower,upper", BOUNDS)
@pytest.mark.parametrize("clock", Clock)
@pytest.mark.parametrize("changelog", [False, True])
def test_the_view_is_the_filter_at_every_moment(lower, upper, clock: Clock, changelog: bool) -> None:
    spec = TemporalFilter(SCHEMA, 0, lower, upper, clock)
    assert decode(encode(spec)) == spec
    rng = random.Random(1)
    world = World()
    operator = spec.build(world)
    tables: dict[str, dict] = {}
    rows: Counter = Counter()
    view: Counter = Counter()
    now = 0
    for step in range(120):
        batch = []
        for _ in range(rng.randint(1, 4)):
            time = rng.choice([None, *range(now - 25, now + 25)])
            batch.append((time, rng.choice("ab"), 1))
            rows[batch[-1][:2]] += 1
            if changelog and rng.random() < 0.5:
                taken = rng.choice(sorted(+rows, key=str))
                batch.append((*taken, -1))
                rows[taken] -= 1
        world.clock = now
        weights = np.array([row[2] for row in batch]) if changelog else None
        apply(view, operator.process(0, Batch(table([row[:2] for row in batch]), weights)))
        now += rng.randint(1, 6)
        apply(view, operator.on_watermark(now))
        apply(view, operator.on_time(now))
        assert view == +Counter({r: c for r, c in rows.items() if inside(r[0], now, lower, upper)})
        fold(tables, operator.capture(changes=True))
        if step % 5 == 0:
            operator = spec.build(world)
            operator.restore({n: batch_of(t) for n, t in tables.items()})
            operator.on_time(now)
            operator.on_watermark(now)


def fold(tables: dict[str, dict], capture: dict) -> None:
    """Apply deltas as a store does: what was deleted goes, then what changed comes."""
    for name, delta in capture.items():
        kept = tables.setdefault(name, {"rows": {}, "empty": delta.rows.slice(0, 0)})
        if delta.complete:
            kept["rows"] = {}
        elif delta.deleted is not None:
            for row in delta.deleted.to_pylist():
                kept["rows"].pop(tuple(row[c] for c in delta.key), None)
        for at, row in enumerate(delta.rows.select(list(delta.key)).to_pylist()):
            kept["rows"][tuple(row.values())] = delta.rows.slice(at, 1)


def batch_of(table: dict) -> pa.RecordBatch:
    rows = list(table["rows"].values())
    return pa.concat_batches(rows) if rows else table["empty"]


def test_bounded_input_ends_at_its_last_time() -> None:
    operator = TemporalFilter(SCHEMA, 0, LAST_TEN, TimeBound(0, True), Clock.WATERMARK).build(World())
    view: Counter = Counter()
    apply(view, operator.process(0, Batch(table([(1, "a"), (20, "b"), (26, "c")]))))
    assert not view
    assert operator.output_watermark(15) == 1
    apply(view, operator.on_watermark(END_OF_TIME))
    assert set(view) == {(20, "b"), (26, "c")}
    assert operator.output_watermark(END_OF_TIME) == END_OF_TIME


def test_state_is_given_back_when_time_passes() -> None:
    world = World()
    operator = TemporalFilter(SCHEMA, 0, LAST_TEN, None).build(world)
    for step in range(300):
        world.clock = step * 10
        operator.on_time(world.clock)
        operator.process(0, Batch(table([(world.clock, "x")] * 20)))
    assert len(operator._present) <= 40


def test_nanoseconds_are_compared_exactly() -> None:
    schema = SCHEMA.set(0, pa.field("ts", pa.timestamp("ns")))
    world = World()
    operator = TemporalFilter(schema, 0, TimeBound(-1, False), None).build(world)
    world.clock = 1
    data = pa.record_batch(
        [pa.array([0, 1, 999, 1000], pa.timestamp("ns")), pa.array(list("abcd"))], schema=schema
    )
    (out,) = operator.process(0, Batch(data))
    assert out.data.column("v").to_pylist() == ["b", "c", "d"]
    (gone,) = operator.on_time(2)
    assert gone.data.column("v").to_pylist() == ["b", "c", "d"]
    assert gone.weights is not None and set(gone.weights.tolist()) == {-1}


def test_changelog_mode_follows_the_bounds() -> None:
    assert TemporalFilter(SCHEMA, 0, LAST_TEN, None).changelog is Changelog.RETRACT
    assert TemporalFilter(SCHEMA, 0, None, LAST_TEN).changelog is Changelog.APPEND
    assert TemporalFilter(SCHEMA, 0, LAST_TEN, None).details()["lower"] == "> now -1e-05 s"


def test_union_takes_the_names_of_the_first() -> None:
    spec = UnionAll(SCHEMA, 2)
    assert decode(encode(spec)) == spec
    operator = spec.build(World())
    assert operator.inputs == 2
    other = pa.record_batch([pa.array([1], pa.timestamp("us")), pa.array(["a"])], names=["x", "y"])
    (renamed,) = operator.process(1, Batch(other, np.array([-1])))
    assert renamed.schema == SCHEMA
    assert renamed.weights is not None and renamed.weights.tolist() == [-1]
    same = Batch(table([(1, "a")]))
    assert operator.process(0, same)[0] is same
