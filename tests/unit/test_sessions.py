"""Session windows against a plain model and DuckDB: cuts, disorder, lateness, emission, capture and restore."""

from __future__ import annotations

import random
from collections import Counter

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from millrace.errors import Invalid, Unsupported
from millrace.operators.aggregates.calls import (
    CHANGES,
    EVERY_RECORD,
    ON_CLOSE,
    AggregateCall,
    Emission,
    EmissionKind,
)
from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Batch
from millrace.operators.operator import Operator
from millrace.operators.sessions import SessionAggregate
from millrace.state.hashing import hash_columns, vnodes_of

GAP = 10
SCHEMA = pa.schema([("k", pa.string()), ("ts", pa.timestamp("us")), ("v", pa.int64())])
CALLS = (
    AggregateCall("count", (), pa.int64()),
    AggregateCall("sum", (2,), pa.int64()),
    AggregateCall("max", (2,), pa.int64()),
)
NAMES = ("k", "window_start", "window_end", "n", "s", "m")


class World:
    """A context that remembers what was late or dead."""

    vnodes = 16

    def __init__(self) -> None:
        self.clock = 0
        self.late_rows: list[dict] = []
        self.dead_rows: list[dict] = []

    def now(self) -> int:
        return self.clock

    def late(self, batch: Batch) -> None:
        self.late_rows += batch.data.to_pylist()

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        self.dead_rows += batch.data.to_pylist()


def spec(emission=ON_CLOSE, lateness=0, **changes) -> SessionAggregate:
    fields = {
        "input": SCHEMA,
        "time": 1,
        "gap": GAP,
        "keys": (0,),
        "calls": CALLS,
        "names": NAMES,
        "emission": emission,
        "allowed_lateness": lateness,
    }
    return SessionAggregate(**{**fields, **changes})


def rows_of(count: int, seed: int, disorder: int, keys: int = 5, step: int = 4) -> list[tuple]:
    """Rows (key, time in µs, value), times out of order by up to about `disorder`."""
    rng = random.Random(seed)
    times = sorted((i * step + rng.randint(0, disorder), i) for i in range(count))
    names = ["a", "b", "ö", None, "long enough to live in an arena"][:keys]
    return [(rng.choice(names), i * step, rng.choice([None, *range(-9, 9)])) for _, i in times]


def table(rows: list[tuple]) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True)) if rows else [(), (), ()]
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def marks_of(rows: list[tuple], delay: int) -> np.ndarray:
    times = np.array([row[1] for row in rows], np.int64)
    before = np.concatenate([[START_OF_TIME], np.maximum.accumulate(times)[:-1] - delay - 1])
    return before


def run(
    operator: Operator, rows: list[tuple], delay: int, cuts: list[int], seen: list[list[Batch]] | None = None
) -> list[Batch]:
    """All output; the watermark is told after every cut."""
    data, marks = table(rows), marks_of(rows, delay)
    out: list[Batch] = []
    watermark = START_OF_TIME
    for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        if start == end:
            continue
        out += operator.process(0, Batch(data.slice(start, end - start), None, marks[start:end]))
        reached = max(row[1] for row in rows[:end]) - delay - 1
        if reached > watermark:
            watermark = reached
            out += operator.on_watermark(watermark)
    return out + operator.on_watermark(END_OF_TIME)


def folded(batches: list[Batch]) -> Counter:
    """The multiset that a changelog leaves; a retraction must take back a row that is there."""
    left: Counter = Counter()
    for batch in batches:
        weights = [1] * batch.num_rows if batch.weights is None else batch.weights.tolist()
        for row, weight in zip(batch.data.to_pylist(), weights, strict=True):
            row = tuple(row.values())
            left[row] += weight
            assert left[row] >= 0, f"{row} was taken back and is not there"
    return +left


def model(rows: list[tuple], delay: int, lateness: int = 0) -> tuple[Counter, Counter]:
    """Sessions and late rows by the rule, one row at a time."""
    marks = marks_of(rows, delay).tolist()
    sessions: dict[object, list[list]] = {}
    late: Counter = Counter()
    for (key, time, value), mark in zip(rows, marks, strict=True):
        if time + GAP + lateness <= mark:
            late[(key, time, value)] += 1
            continue
        mine = [time, time, [value]]
        rest = []
        for other in sessions.setdefault(key, []):
            near = other[0] - GAP < time < other[1] + GAP
            if near and other[1] + GAP + lateness > mark:
                mine = [min(mine[0], other[0]), max(mine[1], other[1]), mine[2] + other[2]]
            else:
                rest.append(other)
        sessions[key] = [*rest, mine]
    answer: Counter = Counter()
    epoch = np.datetime64(0, "us")
    for key, kept in sessions.items():
        for first, last, values in kept:
            known = [v for v in values if v is not None]
            bounds = [(epoch + np.timedelta64(t, "us")).item() for t in (first, last + GAP)]
            answer[(key, *bounds, len(values), sum(known) if known else None, max(known, default=None))] += 1
    return answer, late


@pytest.mark.parametrize("delay,disorder", [(0, 0), (40, 40), (5, 60), (0, 30)])
@pytest.mark.parametrize("lateness", [0, 15])
def test_any_cut_gives_the_model(delay: int, disorder: int, lateness: int) -> None:
    for seed in range(4):
        rows = rows_of(300, seed, disorder)
        expected, late = model(rows, delay, lateness)
        rng = random.Random(seed)
        for cuts in ([], list(range(1, 300)), sorted(rng.sample(range(300), 9))):
            for emission in (ON_CLOSE, CHANGES):
                world = World()
                out = run(spec(emission, lateness).build(world), rows, delay, cuts)
                assert folded(out) == expected
                assert Counter(tuple(_plain(row)) for row in world.late_rows) == late


def _plain(row: dict) -> tuple:
    return (row["k"], int(np.datetime64(row["ts"], "us").astype(np.int64)), row["v"])


def test_in_order_equals_duckdb() -> None:
    rows = rows_of(2000, 3, 30)
    t = pa.table(table(rows))
    assert t.num_rows
    expected = duckdb.sql("""
        with marked as (
            select *, case when epoch_us(ts) - lag(epoch_us(ts)) over w < 10 then 0 else 1 end as starts
            from t window w as (partition by k order by ts)),
        numbered as (select *, sum(starts) over (partition by k order by ts, v rows unbounded preceding) as s from marked)
        select k, min(ts), max(ts) + interval '10 microseconds', count(*), sum(v)::bigint, max(v)
        from numbered group by k, s
    """).fetchall()
    out = run(spec().build(World()), rows, 40, [7, 100, 1500])
    assert folded(out) == Counter(expected)


@pytest.mark.parametrize("emission", [ON_CLOSE, CHANGES, Emission(EmissionKind.INTERVAL, 1000)])
@pytest.mark.parametrize("lateness", [0, 15])
def test_restore_at_every_boundary_continues(emission: Emission, lateness: int) -> None:
    rows = rows_of(160, 11, 30)
    expected, _ = model(rows, 12, lateness)
    data, marks = table(rows), marks_of(rows, 12)
    operator = spec(emission, lateness).build(World())
    tables: dict[str, dict] = {}
    out: list[Batch] = []
    watermark = START_OF_TIME
    for number, start in enumerate(range(0, 160, 9)):
        end = min(start + 9, 160)
        out += operator.process(0, Batch(data.slice(start, end - start), None, marks[start:end]))
        reached = max(row[1] for row in rows[:end]) - 13
        if reached > watermark:
            watermark = reached
            out += operator.on_watermark(watermark)
        if number % 3 == 2:
            out += operator.on_time(number * 1000)
        fold(tables, operator.capture(changes=True))
        whole: dict[str, dict] = {}
        if number % 5 == 0:
            fold(whole, operator.capture(changes=False))
            assert {n: len(t["rows"]) for n, t in whole.items()} == {
                n: len(t["rows"]) for n, t in tables.items()
            }
        if number % 2:
            operator = spec(emission, lateness).build(World())
            operator.restore(
                {
                    name: pa.RecordBatch.from_pylist(list(t["rows"].values()), t["schema"])
                    for name, t in tables.items()
                }
            )
    out += operator.on_watermark(END_OF_TIME)
    assert folded(out) == expected


def fold(tables: dict[str, dict], capture: dict) -> None:
    """Apply deltas as a store does: what was deleted goes, then what changed comes."""
    for name, delta in capture.items():
        kept = tables.setdefault(name, {"rows": {}, "schema": delta.rows.schema})
        if delta.complete:
            kept["rows"] = {}
        elif delta.deleted is not None:
            for row in delta.deleted.to_pylist():
                kept["rows"].pop(tuple(row[c] for c in delta.key), None)
        for row in delta.rows.to_pylist():
            kept["rows"][tuple(row[c] for c in delta.key)] = row


def test_memory_of_closed_sessions_is_given_back() -> None:
    operator = spec().build(World())
    for second in range(200):
        rows = [(f"user {second} {i}", second * 100, 1) for i in range(50)]
        operator.process(0, Batch(table(rows)))
        operator.on_watermark(second * 100)
    assert len(operator._index) <= 100
    assert len(operator._flags) <= 2048


def test_processing_time_sessions_close_as_time_passes() -> None:
    world = World()
    operator = spec(time=None).build(world)
    one = Batch(table([("a", 0, 1)]))
    world.clock = 1_000_000
    assert operator.process(0, one) == []
    assert operator.on_time(1_000_005) == []
    world.clock = 1_000_006
    assert operator.process(0, one) == []
    assert operator.on_time(1_000_010) == []
    (out,) = operator.on_time(1_000_016)
    assert out.data.column("n").to_pylist() == [2]


def test_changes_take_back_sessions_that_join() -> None:
    operator = spec(CHANGES).build(World())
    (first,) = operator.process(0, Batch(table([("a", 0, 1), ("a", 15, 2)])))
    assert first.data.column("n").to_pylist() == [1, 1]
    (second,) = operator.process(0, Batch(table([("a", 8, 3)])))
    assert second.weights is not None
    assert second.weights.tolist() == [-1, -1, 1]
    assert second.data.column("n").to_pylist() == [1, 1, 3]


def test_a_row_at_the_end_starts_a_new_session() -> None:
    out = run(spec().build(World()), [("a", 0, 1), ("a", 10, 1), ("a", 19, 1)], 0, [])
    assert sorted(row["n"] for batch in out for row in batch.data.to_pylist()) == [1, 2]


def test_interval_sends_the_last_state_once() -> None:
    operator = spec(Emission(EmissionKind.INTERVAL, 1000)).build(World())
    assert operator.process(0, Batch(table([("a", 0, 1)]))) == []
    (first,) = operator.on_time(0)
    assert first.data.column("n").to_pylist() == [1]
    operator.process(0, Batch(table([("a", 1, 1)])))
    operator.process(0, Batch(table([("a", 2, 1)])))
    assert operator.on_time(500) == []
    (second,) = operator.on_time(1000)
    assert second.data.column("n").to_pylist() == [1, 3]
    assert operator.on_watermark(100) == []
    assert operator.on_watermark(END_OF_TIME) == []


def test_null_times_are_dead_letters() -> None:
    world = World()
    operator = spec().build(world)
    assert operator.process(0, Batch(table([("a", None, 1)]))) == []
    operator.process(0, Batch(table([("a", None, 1), ("b", 3, 2)])))
    assert [row["k"] for row in world.dead_rows] == ["a", "a"]
    (out,) = operator.on_watermark(END_OF_TIME)
    assert out.data.column("k").to_pylist() == ["b"]


@pytest.mark.parametrize(
    "kind,unit", [(pa.timestamp("ms"), "ms"), (pa.timestamp("ns"), "ms"), (pa.int64(), "s")]
)
def test_bounds_have_the_type_of_the_time(kind: pa.DataType, unit: str) -> None:
    schema = SCHEMA.set(1, pa.field("ts", kind))
    operator = spec(input=schema, gap=10_000_000, time_unit=unit).build(World())
    per_second = {"timestamp[ms]": 1000, "timestamp[ns]": 10**9, "int64": 1}[str(kind)]
    times = pa.array([5 * per_second, 12 * per_second, 22 * per_second], pa.int64()).cast(kind)
    operator.process(0, Batch(pa.record_batch([["a"] * 3, times, [1, 2, 3]], schema=schema)))
    (out,) = operator.on_watermark(END_OF_TIME)
    ends = out.data.column("window_end").cast(pa.int64()).to_pylist()
    assert sorted(ends) == [22 * per_second, 32 * per_second]
    assert out.schema == operator._spec.output_schema


def test_no_key_is_one_group() -> None:
    operator = spec(keys=(), names=NAMES[1:]).build(World())
    operator.process(0, Batch(table([("a", 0, 1), ("b", 9, 1), ("c", 30, 1)])))
    (out,) = operator.on_watermark(END_OF_TIME)
    assert sorted(out.data.column("n").to_pylist()) == [1, 2]


def test_a_gap_of_zero_and_every_record_are_refused() -> None:
    with pytest.raises(Invalid, match="gap") as refused:
        spec(gap=0)
    assert refused.value.code == "MR1330"
    with pytest.raises(Unsupported) as unsupported:
        spec(EVERY_RECORD)
    assert unsupported.value.code == "MR1907"


def test_partitions_divide_and_unite_by_vnode() -> None:
    rows = rows_of(200, 4, 30)
    expected, _ = model(rows, 35)
    data = table(rows)
    vnodes = vnodes_of(hash_columns([data.column("k")]), 16)
    operators: list[Operator] = [spec().build(World())]
    owners = [np.zeros(16, int), np.arange(16) % 3, np.arange(16) // 8, np.zeros(16, int)]
    out: list[Batch] = []
    for step, start in enumerate(range(0, 200, 40)):
        owner = owners[min(step, 3)]
        if step:
            tables = [operator.capture(changes=False) for operator in operators]
            operators = [spec().build(World()) for _ in range(owner.max() + 1)]
            for number, operator in enumerate(operators):
                whole = {n: pa.concat_batches([t[n].rows for t in tables]) for n in tables[0]}
                mine = {n: owner[t.column("_vnode").to_numpy()] == number for n, t in whole.items()}
                operator.restore({n: t.filter(pa.array(mine[n])) for n, t in whole.items()})
        for number, operator in enumerate(operators):
            keep = owner[vnodes[start : start + 40]] == number
            part = data.slice(start, 40).filter(pa.array(keep))
            if part.num_rows:
                out += operator.process(0, Batch(part))
            out += operator.on_watermark(max(row[1] for row in rows[: start + 40]) - 36)
    for operator in operators:
        out += operator.on_watermark(END_OF_TIME)
    assert folded(out) == expected
