"""OVER windows against DuckDB: frames, functions, cuts, disorder, ties, nulls, capture and restore."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from decimal import Decimal

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from millrace.errors import Invalid
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.aggregates.signatures import resolve_aggregate
from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Batch
from millrace.operators.over import (
    WINDOW_FUNCTIONS,
    Frame,
    FrameUnit,
    OverAggregate,
    needs_whole_partition,
    window_function_type,
)
from millrace.state.hashing import hash_columns, vnodes_of

SCHEMA = pa.schema(
    [
        ("k", pa.string()),
        ("ts", pa.timestamp("us")),
        ("i", pa.int64()),
        ("x", pa.int64()),
        ("f", pa.float64()),
        ("s", pa.string()),
        ("b", pa.bool_()),
        ("d", pa.decimal64(12, 2)),
    ]
)
ROWS, RANGE = FrameUnit.ROWS, FrameUnit.RANGE


class World:
    """A context that remembers what was late or dead."""

    vnodes = 16

    def __init__(self) -> None:
        self.late_rows: list[dict] = []
        self.dead_rows: list[dict] = []

    def now(self) -> int:
        return 0

    def late(self, batch: Batch) -> None:
        self.late_rows += batch.data.to_pylist()

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        self.dead_rows += batch.data.to_pylist()


def call(text: str) -> AggregateCall:
    """`name(column, …; option=value) [filter]` as a call."""
    name, _, rest = text.partition("(")
    inside, _, condition = rest.partition(")")
    inside, _, options = inside.partition(";")
    arguments = tuple(SCHEMA.get_field_index(c.strip()) for c in inside.split(",") if c.strip())
    types = tuple(SCHEMA.field(a).type for a in arguments)
    if name in WINDOW_FUNCTIONS:
        kind = window_function_type(name, types)
    else:
        kind = resolve_aggregate(name, types).returns
    pairs = tuple((k.strip(), int(v)) for k, v in (o.split("=") for o in options.split(",") if o))
    return AggregateCall(
        name, arguments, kind, filter=SCHEMA.get_field_index("b") if condition else None, options=pairs
    )


def rows_of(count: int, seed: int, disorder: int) -> pa.RecordBatch:
    rng = random.Random(seed)
    base = sorted((i // 2 * 3 + rng.randint(0, disorder), i) for i in range(count))
    columns = [
        [rng.choice(["a", "b", "ö", None]) for _ in base],
        [i // 2 * 3 for _, i in base],
        list(range(count)),
        [rng.choice([None, *range(-50, 50)]) for _ in base],
        [rng.choice([None, 0.5, -1.25, 1e9, 3.0, 7.75]) for _ in base],
        [rng.choice([None, "u", "v", "a long string that is no short one"]) for _ in base],
        [rng.choice([None, True, False]) for _ in base],
        [None if rng.random() < 0.1 else Decimal(rng.randint(-9999, 9999)) / 4 for _ in base],
    ]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def spec_of(frame: Frame, calls: list[str], order: int | None = 1, keys=(0,)) -> OverAggregate:
    made = tuple(call(text) for text in calls)
    return OverAggregate(SCHEMA, keys, order, frame, made, tuple(f"c{n}" for n in range(len(made))))


def run(operator, data: pa.RecordBatch, delay: int, cuts: list[int]) -> list[Batch]:
    """All output, the watermark told after every cut."""
    times = data.column("ts").cast(pa.int64()).to_numpy()
    out: list[Batch] = []
    watermark = START_OF_TIME
    promised = START_OF_TIME
    for start, end in zip([0, *cuts], [*cuts, data.num_rows], strict=True):
        if start == end:
            continue
        out += operator.process(0, Batch(data.slice(start, end - start)))
        reached = int(times[:end].max()) - delay
        if reached > watermark:
            watermark = reached
            sent = operator.on_watermark(watermark)
            for batch in sent:
                assert batch.data.column("ts").cast(pa.int64()).to_numpy().min() >= promised
            out += sent
            promised = operator.output_watermark(watermark)
            assert promised <= watermark
    return out + operator.on_watermark(END_OF_TIME)


def plain(value: object) -> object:
    if isinstance(value, float):
        return "nan" if math.isnan(value) else float(f"{value:.9g}")
    return value


def multiset(batches: list[Batch]) -> Counter:
    return Counter(
        (row["i"], *(plain(row[c]) for c in row if c.startswith("c")))
        for batch in batches
        for row in batch.data.to_pylist()
    )


def sql_of(text: str) -> str:
    name, _, rest = text.partition("(")
    inside, _, condition = rest.partition(")")
    inside, _, options = inside.partition(";")
    pairs = dict(o.strip().split("=") for o in options.split(",") if o)
    if name == "count" and not inside:
        inside = "*"
    for option in ("offset", "n", "default"):
        if option in pairs:
            inside = f"{inside}, {pairs[option]}" if inside else pairs[option]
    return f"{name}({inside})" + (" filter (where b)" if condition else "")


def expected(data: pa.RecordBatch, frame: Frame, calls: list[str], order: str, keys: str = "k") -> Counter:
    t = pa.table(data.set_column(7, "d", data.column("d").cast(pa.decimal128(12, 2))))
    assert t.num_rows

    def bound(offset: int | None, side: str) -> str:
        if offset is None:
            return f"unbounded {side}"
        if offset == 0:
            return "current row"
        amount = abs(offset) if frame.unit is ROWS else f"interval {abs(offset)} microseconds"
        return f"{amount} {'preceding' if offset < 0 else 'following'}"

    window = f"(partition by {keys} order by {order} {frame.unit.value} between {bound(frame.start, 'preceding')} and {bound(frame.end, 'following')})"
    selected = ", ".join(f"{sql_of(text)} over {window} as c{n}" for n, text in enumerate(calls))
    found = duckdb.sql(f"select i, {selected} from t").fetchall()
    return Counter(tuple(plain(value) for value in row) for row in found)


NUMBERS = ["count()", "count(s)", "sum(x)", "avg(x)", "min(x)", "max(f)", "sum(d)", "max(x)F", "min(f)"]
FLOATS = ["sum(f)", "avg(f)", "avg(f)F", "count(f)", "count()F"]
OTHERS = ["min(s)", "stddev_samp(x)", "string_agg(s)", "lag(s)", "first_value(s)", "last_value(x)"]
PLACES = [
    "row_number()",
    "lag(f; offset=3)",
    "first_value(f)",
    "lag(d)",
    "first_value(b)",
    "lag(x; offset=2,default=7)",
    "nth_value(x; n=2)",
    "lead(s)",
    "sum(x)",
]
MIXES = {
    "numbers": NUMBERS,
    "floats": FLOATS,
    "others": OTHERS,
    "places": PLACES,
    "alone": ["avg(f)"],
}
ROW_FRAMES = [
    Frame(ROWS, -4, 0),
    Frame(ROWS, 0, 0),
    Frame(ROWS, None, 0),
    Frame(ROWS, -9, -2),
    Frame(ROWS, -2, 3),
    Frame(ROWS, 1, 4),
    Frame(ROWS, None, None),
    Frame(ROWS, None, -1),
    Frame(ROWS, -1, None),
]
RANGE_FRAMES = [
    Frame(RANGE, -20, 0),
    Frame(RANGE, None, 0),
    Frame(RANGE, 0, 0),
    Frame(RANGE, -30, -6),
    Frame(RANGE, -7, 12),
    Frame(RANGE, None, None),
]


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("frame", ROW_FRAMES, ids=str)
def test_row_frames_equal_duckdb(frame: Frame, mix: str) -> None:
    check(frame, MIXES[mix], "ts, i")


@pytest.mark.parametrize("mix", ["numbers", "floats"])
@pytest.mark.parametrize("frame", RANGE_FRAMES, ids=str)
def test_range_frames_equal_duckdb(frame: Frame, mix: str) -> None:
    check(frame, MIXES[mix], "ts")


@pytest.mark.parametrize("frame", RANGE_FRAMES, ids=str)
def test_ranks_and_ties_equal_duckdb(frame: Frame) -> None:
    check(frame, ["rank()", "dense_rank()", "stddev_pop(x)", "min(s)", "count()"], "ts")


def check(frame: Frame, calls: list[str], order: str) -> None:
    for seed, disorder, cuts in (
        (1, 0, []),
        (1, 40, [*range(1, 120)]),
        (2, 40, sorted(random.Random(1).sample(range(120), 9))),
    ):
        data = rows_of(120, seed, disorder)
        want = expected(data, frame, calls, order)
        world = World()
        got = multiset(run(spec_of(frame, calls).build(world), data, disorder, cuts))
        assert got == want
        assert not world.late_rows and not world.dead_rows


def test_whole_partition_functions_equal_duckdb() -> None:
    calls = ["ntile(; n=4)", "percent_rank()", "cume_dist()", "row_number()"]
    data = rows_of(200, 5, 30)
    # Of rows of equal time ntile may divide either way: order by arrival as we do.
    want = expected(data, Frame(ROWS, None, 0), calls, "ts, i")
    made = spec_of(Frame(ROWS, None, 0), calls)
    assert made.needs_whole_partition
    got = multiset(run(made.build(World()), data, 30, [50, 51, 120]))
    drop = [0, 1, 4]
    assert Counter(tuple(r[j] for j in drop) for r in got.elements()) == Counter(
        tuple(r[j] for j in drop) for r in want.elements()
    )
    ranks = ["percent_rank()", "cume_dist()", "rank()"]
    want = expected(data, Frame(RANGE, None, 0), ranks, "ts")
    assert multiset(run(spec_of(Frame(RANGE, None, 0), ranks).build(World()), data, 30, [77])) == want


@pytest.mark.parametrize("frame", [Frame(ROWS, -4, 0), Frame(ROWS, None, 0), Frame(ROWS, -2, 2)], ids=str)
def test_order_of_arrival_equals_duckdb(frame: Frame) -> None:
    calls = ["avg(f)", "sum(x)", "lag(s)", "row_number()", "min(s)"]
    data = rows_of(200, 6, 50)
    for cuts in ([], list(range(1, 200)), [13, 140]):
        operator = spec_of(frame, calls, order=None).build(World())
        assert multiset(run(operator, data, 50, cuts)) == expected(data, frame, calls, "i")


def test_no_partition_is_one_partition() -> None:
    frame, calls = Frame(ROWS, -9, 0), ["sum(x)", "lag(x)"]
    data = rows_of(150, 7, 20)
    got = multiset(run(spec_of(frame, calls, keys=()).build(World()), data, 20, [70]))
    assert got == expected(data, frame, calls, "ts, i", "1")


RESTORED = [
    (Frame(ROWS, -4, 0), NUMBERS + FLOATS + ["first_value(b)", "lag(f; offset=3)"]),
    (Frame(RANGE, -20, 0), NUMBERS + FLOATS),
    (Frame(RANGE, None, 0), ["sum(x)", "rank()", "min(s)"]),
    (Frame(ROWS, None, 0), ["string_agg(s)"]),
    (Frame(ROWS, None, 0), ["first_value(s)", "nth_value(s; n=3)", "last_value(s)"]),
    (Frame(ROWS, -3, 2), ["sum(x)", "lead(s)", "row_number()", "lag(x; offset=5)", "lag(s; offset=5)"]),
    (Frame(RANGE, -9, 9), ["count()", "stddev_pop(x)"]),
    (Frame(ROWS, None, None), ["count()"]),
]


@pytest.mark.parametrize("frame,calls", RESTORED, ids=[str(f) for f, _ in RESTORED])
@pytest.mark.parametrize("order", [1, None])
def test_restore_at_every_boundary_continues(frame: Frame, calls: list[str], order: int | None) -> None:
    if order is None and frame.unit is RANGE:
        return
    data = rows_of(150, 8, 30)
    times = data.column("ts").cast(pa.int64()).to_numpy()
    spec = spec_of(frame, calls, order)
    operator = spec.build(World())
    tables: dict[str, dict] = {}
    out: list[Batch] = []
    watermark = START_OF_TIME
    for number, start in enumerate(range(0, 150, 7)):
        out += operator.process(0, Batch(data.slice(start, 7)))
        reached = int(times[: start + 7].max()) - 30
        if reached > watermark:
            watermark = reached
            out += operator.on_watermark(watermark)
        fold(tables, operator.capture(changes=True))
        if number % 4 == 0:
            whole: dict[str, dict] = {}
            fold(whole, operator.capture(changes=False))
            assert {n: set(t["rows"]) for n, t in whole.items()} == {
                n: set(t["rows"]) for n, t in tables.items()
            }
        if number % 2:
            operator = spec.build(World())
            operator.restore({n: batch_of(t) for n, t in tables.items()})
    out += operator.on_watermark(END_OF_TIME)
    by = {None: "i", 1: "ts, i" if frame.unit is ROWS else "ts"}[order]
    assert multiset(out) == expected(data, frame, calls, by)


MOVED = [
    (Frame(RANGE, -20, 0), ["avg(f)", "min(s)"]),
    (Frame(ROWS, -3, 2), ["sum(x)", "row_number()"]),
    (Frame(ROWS, None, None), ["count()"]),
]


@pytest.mark.parametrize("frame,calls", MOVED, ids=[str(f) for f, _ in MOVED])
def test_partitions_divide_and_unite_by_vnode(frame: Frame, calls: list[str]) -> None:
    data = rows_of(150, 8, 30)
    times = data.column("ts").cast(pa.int64()).to_numpy()
    vnodes = vnodes_of(hash_columns([data.column("k")]), 16)
    spec = spec_of(frame, calls)
    operators = [spec.build(World())]
    owners = [np.zeros(16, int), np.arange(16) % 2, np.arange(16) // 8, np.zeros(16, int)]
    out: list[Batch] = []
    for step, start in enumerate(range(0, 150, 30)):
        owner = owners[min(step, 3)]
        if step:
            tables = [operator.capture(changes=False) for operator in operators]
            operators = [spec.build(World()) for _ in range(owner.max() + 1)]
            for number, operator in enumerate(operators):
                mine = {}
                for name in tables[0]:
                    rows = pa.concat_batches([t[name].rows for t in tables])
                    keep = owner[rows.column("_vnode").to_numpy()] == number
                    mine[name] = rows.filter(pa.array(keep))
                operator.restore(mine)
        for number, operator in enumerate(operators):
            keep = owner[vnodes[start : start + 30]] == number
            part = data.slice(start, 30).filter(pa.array(keep))
            if part.num_rows:
                out += operator.process(0, Batch(part))
            out += operator.on_watermark(int(times[: start + 30].max()) - 30)
    for operator in operators:
        out += operator.on_watermark(END_OF_TIME)
    assert multiset(out) == expected(data, frame, calls, "ts, i" if frame.unit is ROWS else "ts")


def batch_of(table: dict) -> pa.RecordBatch:
    rows = list(table["rows"].values())
    random.Random(1).shuffle(rows)
    return pa.concat_batches(rows) if rows else table["empty"]


def fold(tables: dict[str, dict], capture: dict) -> None:
    """Apply deltas as a store does: what was deleted goes, then what changed comes."""
    for name, delta in capture.items():
        kept = tables.setdefault(name, {"rows": {}, "empty": delta.rows.slice(0, 0)})
        if delta.complete:
            kept["rows"] = {}
        elif delta.deleted is not None:
            for row in delta.deleted.to_pylist():
                kept["rows"].pop(tuple(row[c] for c in delta.key), None)
        keys = delta.rows.select(list(delta.key)).to_pylist() if delta.key else [{}] * delta.rows.num_rows
        for at, row in enumerate(keys):
            kept["rows"][tuple(row.values())] = delta.rows.slice(at, 1)


def test_late_rows_are_told_by_row() -> None:
    data = rows_of(100, 9, 40)
    times = data.column("ts").cast(pa.int64()).to_numpy()
    marks = np.concatenate([[START_OF_TIME], np.maximum.accumulate(times)[:-1] - 10])
    late = set(np.flatnonzero(times < marks).tolist())
    assert late
    for cuts in ([0, 100], [*range(101)], [0, 31, 100]):
        world = World()
        operator = spec_of(Frame(ROWS, -3, 0), ["sum(x)"]).build(world)
        out = []
        for start, end in itertools.pairwise(cuts):
            out += operator.process(0, Batch(data.slice(start, end - start), None, marks[start:end]))
            out += operator.on_watermark(int(times[:end].max()) - 10)
        out += operator.on_watermark(END_OF_TIME)
        assert {row["i"] for row in world.late_rows} == late
        kept = data.take(pa.array(sorted(set(range(100)) - late)))
        assert multiset(out) == expected(kept, Frame(ROWS, -3, 0), ["sum(x)"], "ts, i")


def test_a_huge_value_and_nan_leave_with_their_row() -> None:
    schema = SCHEMA
    values = [1.0, 1e300, float("nan"), float("inf"), 2.0, 3.0, 4.0, 5.0]
    data = rows_of(8, 1, 0).set_column(0, "k", pa.array(["a"] * 8)).set_column(4, "f", pa.array(values))
    data = pa.RecordBatch.from_arrays(data.columns, schema=schema)
    out = run(spec_of(Frame(ROWS, -1, 0), ["sum(f)", "max(f)"], None).build(World()), data, 0, [3, 6])
    rows = [row for batch in out for row in batch.data.to_pylist()]
    assert [row["c0"] for row in rows[4:]] == [math.inf, 5.0, 7.0, 9.0]
    assert rows[1]["c1"] == 1e300 and math.isnan(rows[2]["c1"]) and math.isnan(rows[3]["c1"])


def test_a_sum_beyond_bigint_is_a_dead_letter() -> None:
    data = rows_of(3, 1, 0).set_column(0, "k", pa.array(["a"] * 3))
    data = data.set_column(3, "x", pa.array([2**62, 2**62, 5]))
    data = pa.RecordBatch.from_arrays(data.columns, schema=SCHEMA)
    world = World()
    out = run(spec_of(Frame(ROWS, -1, 0), ["sum(x)"], None).build(world), data, 0, [])
    assert [row["c0"] for batch in out for row in batch.data.to_pylist()] == [2**62, 2**62 + 5]
    assert len(world.dead_rows) == 1


def test_memory_follows_the_frame() -> None:
    operator = spec_of(Frame(RANGE, -1000, 0), ["sum(x)", "min(s)", "max(f)"]).build(World())
    sizes = []
    for step in range(60):
        data = rows_of(400, step, 0)
        keys = pa.array([f"{step} {i % 50}" for i in range(400)])
        times = pa.array(np.arange(400) * 100 + step * 2_000_000).cast(pa.timestamp("us"))
        data = pa.RecordBatch.from_arrays([keys, times, *data.columns[2:]], schema=SCHEMA)
        operator.process(0, Batch(data))
        operator.on_watermark(step * 2_000_000 + 50_000)
        sizes.append(len(operator._index))
    assert max(sizes) <= 150
    assert len(operator._log._store) < 1000
    assert operator._capacity <= 1024


def test_frames_refuse_what_makes_no_sense() -> None:
    with pytest.raises(Invalid) as backwards:
        Frame(ROWS, 3, 1)
    assert backwards.value.code == "MR1331"
    with pytest.raises(Invalid) as untimed:
        spec_of(Frame(RANGE, -5, 0), ["sum(x)"], None)
    assert untimed.value.code == "MR1332"
    with pytest.raises(Invalid) as negative:
        spec_of(Frame(ROWS, -5, 0), ["lag(x; offset=-1)"])
    assert negative.value.code == "MR1337"


def test_what_needs_the_whole_partition() -> None:
    assert needs_whole_partition(call("ntile(; n=2)"), Frame(ROWS, None, 0))
    assert needs_whole_partition(call("sum(x)"), Frame(ROWS, -1, None))
    assert not needs_whole_partition(call("lead(x)"), Frame(RANGE, None, 0))
    assert not needs_whole_partition(call("sum(x)"), Frame(ROWS, -5, 5))
