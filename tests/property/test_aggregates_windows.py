"""Windows against a plain model: any batch cut, disorder, lateness by row, snapshots in between; state is freed."""

from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.aggregates_oracle import Recorder, Store, built, call, cuts, fold, upserts

from millrace.operators.aggregates import (
    CHANGES,
    EVERY_RECORD,
    ON_CLOSE,
    Cumulate,
    Emission,
    EmissionKind,
    Hop,
    Tumble,
    Window,
    WindowAggregate,
    WindowAssign,
)
from millrace.operators.batch import END_OF_TIME, Batch

SCHEMA = pa.schema([("k", pa.string()), ("ts", pa.timestamp("ms")), ("v", pa.int64())])
CALLS = (
    call(SCHEMA, "count"),
    call(SCHEMA, "sum", "v"),
    call(SCHEMA, "max", "v"),
    call(SCHEMA, "count", "v", distinct=True),
    call(SCHEMA, "stddev_pop", "v"),
    call(SCHEMA, "string_agg", "k"),
)
NAMES = ("k", "window_start", "window_end", "n", "s", "m", "d", "sd", "t")

INTERVAL = Emission(EmissionKind.INTERVAL, 10)
UPSERT = Emission(EmissionKind.CHANGES, upsert=True)

windows = st.one_of(
    st.builds(Tumble, st.sampled_from([1_000, 60_000, 100_000]), st.sampled_from([0, 7_000])),
    st.builds(
        Hop,
        st.sampled_from([100_000, 70_000]),
        st.sampled_from([1_000, 30_000, 50_000, 70_000]),
        st.just(3_000),
    ),
    st.builds(
        Cumulate, st.just(120_000), st.sampled_from([20_000, 40_000, 120_000]), st.sampled_from([0, 5_000])
    ),
)


def windows_of(window: Window, us: int) -> list[tuple[int, int]]:
    """The windows that hold an instant, by definition."""
    match window:
        case Tumble(size, offset):
            start = (us - offset) // size * size + offset
            return [(start, start + size)]
        case Hop(size, slide, offset):
            last = (us - offset) // slide * slide + offset
            return [(s, s + size) for s in range(last, us - size, -slide)]
        case Cumulate(size, step, offset):
            start = (us - offset) // size * size + offset
            return [(start, end) for end in range(start + step, start + size + 1, step) if us < end]


class Input:
    """Random rows out of order, with the watermark that the rows before each row had set."""

    def __init__(self, seed: int, rows: int, delay_ms: int = 60) -> None:
        self.rng = np.random.default_rng(seed)
        rng = self.rng
        self.times = np.cumsum(rng.integers(0, 40, rows)) + rng.integers(-150, 50, rows)
        self.delay = delay_ms
        peaks = np.maximum.accumulate(self.times) - delay_ms
        self.marks = np.concatenate([[-(2**40)], peaks[:-1]]) * 1000
        self.keys = [f"k{i}" for i in rng.integers(0, 4, rows)]
        self.values = rng.integers(-9, 9, rows)
        times = pa.array(self.times).cast(pa.timestamp("ms"))
        self.data = pa.RecordBatch.from_arrays(
            [pa.array(self.keys), times, pa.array(self.values)], schema=SCHEMA
        )

    def batch(self, at: int, length: int) -> Batch:
        return Batch(self.data.slice(at, length), None, self.marks[at : at + length])

    def watermark(self, end: int) -> int:
        return int(self.times[:end].max() - self.delay) * 1000

    def expected(self, window: Window, lateness: int) -> tuple[Counter[tuple[object, ...]], int]:
        """Output rows by definition, and how many rows are late."""
        members: dict[tuple[str, int, int], list[int]] = defaultdict(list)
        late = 0
        for key, time, value, mark in zip(self.keys, self.times, self.values, self.marks, strict=True):
            still = [w for w in windows_of(window, int(time) * 1000) if w[1] + lateness > mark]
            late += not still
            for start, end in still:
                members[key, start, end].append(int(value))
        rows: Counter[tuple[object, ...]] = Counter()
        for (key, start, end), values in members.items():
            deviation = float(f"{np.std(values):.6g}")
            text = ",".join([key] * len(values))
            numbers = (len(values), sum(values), max(values), len(set(values)))
            rows[key, _time(start), _time(end), *numbers, deviation, text] = 1
        return rows, late


def _time(us: int) -> object:
    return pa.scalar(us // 1000, pa.timestamp("ms")).as_py()


def rounded(rows: Counter[tuple[object, ...]]) -> Counter[tuple[object, ...]]:
    """With the deviation to 6 digits."""
    return Counter({(*r[:7], float(f"{r[7]:.6g}"), r[8]): n for r, n in rows.items()})


@settings(max_examples=60, deadline=None)
@given(
    window=windows,
    emission=st.sampled_from([ON_CLOSE, CHANGES, UPSERT, INTERVAL, EVERY_RECORD]),
    lateness=st.sampled_from([0, 100_000]),
    seed=st.integers(0, 10**6),
    restart=st.booleans(),
)
def test_windows_equal_their_definition(
    window: Window, emission: Emission, lateness: int, seed: int, restart: bool
) -> None:
    source = Input(seed, 150)
    spec = WindowAggregate(SCHEMA, 1, window, (0,), CALLS, NAMES, emission, allowed_lateness=lateness)
    context = Recorder()
    operator, store, sent, watermark = built(spec, context), Store(), [], -(2**62)
    for at, length in cuts(source.rng, 150, 0):
        sent += operator.process(0, source.batch(at, length))
        if source.watermark(at + length) > watermark:
            watermark = source.watermark(at + length)
            sent += operator.on_watermark(watermark)
        sent += operator.on_time(at)
        if restart:
            store.apply(operator, changes=source.rng.random() < 0.8)
            if source.rng.random() < 0.5:
                operator = store.load(built(spec, context))
    sent += operator.on_watermark(END_OF_TIME)
    want, late = source.expected(window, lateness)
    if emission is EVERY_RECORD:
        assert all(batch.weights is None for batch in sent)
        last = {row[:3]: row for batch in sent for row in fold([batch])}
        assert last.keys() == {row[:3] for row in want}
        assert sum(b.num_rows for b in sent) == sum(int(str(row[3])) for row in want)
    elif emission is UPSERT:
        assert rounded(upserts(sent, 3)) == want
    else:
        assert rounded(fold(sent)) == want
    if emission is ON_CLOSE and not lateness:
        assert all(batch.weights is None for batch in sent)
    assert context.late_rows == late
    assert operator.capture(changes=False)["groups"].rows.num_rows == 0


@settings(max_examples=40, deadline=None)
@given(window=windows, seed=st.integers(0, 10**6), size=st.sampled_from([1, 7, 0]))
def test_assignment_gives_every_row_its_windows(window: Window, seed: int, size: int) -> None:
    source = Input(seed, 80)
    context = Recorder()
    operator = built(WindowAssign(SCHEMA, 1, window), context)
    sent: Counter[tuple[object, ...]] = Counter()
    for at, length in cuts(source.rng, 80, size):
        fold(operator.process(0, source.batch(at, length)), sent)
    want: Counter[tuple[object, ...]] = Counter()
    late = 0
    for key, time, value, mark in zip(source.keys, source.times, source.values, source.marks, strict=True):
        still = [w for w in windows_of(window, int(time) * 1000) if w[1] > mark]
        late += not still
        for start, end in still:
            want[key, _time(int(time) * 1000), int(value), _time(start), _time(end), _time(end - 1000)] += 1
    assert sent == want
    assert context.late_rows == late


@settings(max_examples=30, deadline=None)
@given(window=windows, seed=st.integers(0, 10**6), emission=st.sampled_from([ON_CLOSE, CHANGES]))
def test_windows_take_rows_back(window: Window, seed: int, emission: Emission) -> None:
    source = Input(seed, 60, delay_ms=10**6)
    rng = source.rng
    order, weights, gone = [], [], set()
    for row in range(60):
        order.append(row)
        weights.append(1)
        if rng.random() < 0.5:
            victim = int(rng.integers(0, row + 1))
            if victim not in gone:
                gone.add(victim)
                order.append(victim)
                weights.append(-1)
    rows, signs = source.data.take(pa.array(order)), np.array(weights)
    calls, names = CALLS[:5], NAMES[:8]
    spec = WindowAggregate(SCHEMA, 1, window, (0,), calls, names, emission, retracting_input=True)
    operator = built(spec, Recorder())
    sent = fold([])
    for at, length in cuts(rng, len(order), 0):
        fold(operator.process(0, Batch(rows.slice(at, length), signs[at : at + length])), sent)
    fold(operator.on_watermark(END_OF_TIME), sent)
    remaining = [row for row in range(60) if row not in gone]
    plain_spec = WindowAggregate(SCHEMA, 1, window, (0,), calls, names, ON_CLOSE)
    straight = built(plain_spec, Recorder())
    data = source.data.take(pa.array(remaining, pa.int64()))
    out = straight.process(0, Batch(data)) if remaining else []
    want = fold(out + straight.on_watermark(END_OF_TIME))

    def loose(found: Counter[tuple[object, ...]]) -> Counter[tuple[object, ...]]:
        return Counter({(*r[:7], round(float(str(r[7])), 5)): n for r, n in found.items()})

    assert loose(sent) == loose(want)
