"""Every aggregate gives what DuckDB gives: any batch cut, nulls, filters, retraction, snapshots in between."""

from collections import Counter
from decimal import Decimal

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from tests.aggregates_oracle import Recorder, Store, built, call, cuts, fold, plain

from millrace.operators.aggregates import (
    CHANGES,
    EVERY_RECORD,
    FINAL,
    AggregateCall,
    Emission,
    GroupAggregate,
)
from millrace.operators.batch import END_OF_TIME, Batch

SCHEMA = pa.schema(
    [
        ("k", pa.string()),
        ("n", pa.int64()),
        ("i", pa.int16()),
        ("x", pa.float64()),
        ("y", pa.float32()),
        ("d", pa.decimal64(12, 2)),
        ("w", pa.decimal128(30, 4)),
        ("s", pa.string()),
        ("b", pa.bool_()),
        ("t", pa.timestamp("ms")),
        ("f", pa.bool_()),
        ("id", pa.int64()),
    ]
)
BY_ID = (("id", False, False),)
BY_ID_DOWN = (("id", True, True),)
BY_TEXT = (("s", False, False), ("id", True, False))


def c(name: str, *columns: str, **options: object) -> AggregateCall:
    return call(SCHEMA, name, *columns, **options)


CALLS: list[tuple[AggregateCall, str]] = [
    (c("count"), "count(*)"),
    (c("count", "n"), "count(n)"),
    (c("count", filter="f"), "count(*) filter (where f)"),
    (c("count", "s", filter="f"), "count(s) filter (where f)"),
    (c("count_if", "b"), "count(*) filter (where b)"),
    (c("sum", "n"), "sum(n)::bigint"),
    (c("sum", "i"), "sum(i)::bigint"),
    (c("sum", "x"), "sum(x)"),
    (c("sum", "y"), "sum(y)"),
    (c("sum", "d"), "sum(d)"),
    (c("sum", "w"), "sum(w)"),
    (c("sum", "n", filter="f"), "sum(n) filter (where f)::bigint"),
    (c("avg", "n"), "avg(n)"),
    (c("avg", "x"), "avg(x)"),
    *(
        (c(f, col), f"{f}({col})")
        for f in ("min", "max")
        for col in ["n", "i", "x", "y", "d", "w", "s", "b", "t"]
    ),
    (c("min", "s", filter="f"), "min(s) filter (where f)"),
    (c("max", "t", filter="f"), "max(t) filter (where f)"),
    *((c(f, "x"), f"{f}(x)") for f in ("var_samp", "var_pop", "stddev_samp", "stddev_pop")),
    *(
        (c(f, "x", "y"), f"nullif({f}(x, y), 'nan'::double)")
        for f in [
            "corr",
            "covar_pop",
            "covar_samp",
            "regr_slope",
            "regr_intercept",
            "regr_r2",
            "regr_count",
            "regr_avgx",
            "regr_avgy",
            "regr_sxx",
            "regr_syy",
            "regr_sxy",
        ]
    ),
    (c("bool_and", "b"), "bool_and(b)"),
    (c("bool_or", "b", filter="f"), "bool_or(b) filter (where f)"),
    *((c(f, "n"), f"{f}(n)") for f in ("bit_and", "bit_or", "bit_xor")),
    (c("count", "n", distinct=True), "count(distinct n)"),
    (c("count", "n", distinct=True, filter="f"), "count(distinct n) filter (where f)"),
    (c("count", "s", distinct=True), "count(distinct s)"),
    (
        c("count", "n", "b", distinct=True),
        "count(distinct case when n is null or b is null then null else (n, b) end)",
    ),
    (c("sum", "n", distinct=True), "sum(distinct n)::bigint"),
    (c("avg", "d", distinct=True, filter="f"), "null"),
    (c("median", "x"), "median(x)"),
    (c("percentile_cont", "x", fraction=0.3), "quantile_cont(x, 0.3)"),
    (c("percentile_cont", "x", fraction=1.0, filter="f"), "quantile_cont(x, 1.0) filter (where f)"),
    (c("percentile_disc", "n", fraction=0.3), "quantile_disc(n, 0.3)"),
    (c("percentile_disc", "s", fraction=0.75), "quantile_disc(s, 0.75)"),
    (c("array_agg", "n", order_by=BY_ID), "array_agg(n order by id)"),
    (
        c("array_agg", "s", order_by=BY_TEXT, filter="f"),
        "array_agg(s order by s nulls last, id desc) filter (where f)",
    ),
    (c("string_agg", "s", order_by=BY_ID, separator="; "), "string_agg(s, '; ' order by id)"),
    (
        c("string_agg", "s", distinct=True, order_by=(("s", True, False),), separator="-"),
        "string_agg(distinct s, '-' order by s desc)",
    ),
    (c("first_value", "n", order_by=BY_ID_DOWN), "first(n order by id desc)"),
    (c("last_value", "s", order_by=BY_ID), "last(s order by id)"),
    (c("first_value", "s", order_by=BY_TEXT), "first(s order by s nulls last, id desc)"),
    (c("arg_min", "s", "id"), "arg_min(s, id)"),
    (c("arg_max", "n", "id", filter="f"), "arg_max(n, id) filter (where f)"),
    (c("arg_max", "d", "id"), "arg_max(d, id)"),
]


def random_rows(rng: np.random.Generator, rows: int, first_id: int = 0, groups: int = 5) -> pa.RecordBatch:
    def holes() -> np.ndarray:
        return rng.random(rows) < 0.15

    words = np.array(["", "a", "ab", "Ä", "日本", "zz", "a much longer text than the others"], object)
    cents = [Decimal(int(v)).scaleb(-2) for v in rng.integers(-(10**6), 10**6, rows)]
    wide = [Decimal(int(v) * 10**12 + 1).scaleb(-4) for v in rng.integers(-(10**6), 10**6, rows)]
    keys = [None if g == 0 else f"key {g}" for g in rng.integers(0, groups, rows)]
    return pa.RecordBatch.from_arrays(
        [
            pa.array(keys, pa.string()),
            pa.array(rng.integers(-4, 5, rows), mask=holes()),
            pa.array(rng.integers(-30000, 30000, rows).astype(np.int16), mask=holes()),
            pa.array(np.round(rng.normal(0, 100, rows), 3), mask=holes()),
            pa.array(rng.integers(-50, 50, rows).astype(np.float32) / 8, mask=holes()),
            pa.array(cents, pa.decimal64(12, 2), mask=holes()),
            pa.array(wide, pa.decimal128(30, 4), mask=holes()),
            pa.array(words[rng.integers(0, len(words), rows)], pa.string(), mask=holes()),
            pa.array(rng.random(rows) < 0.5, mask=holes()),
            pa.array(rng.integers(0, 10**6, rows), mask=holes()).cast(pa.timestamp("ms")),
            pa.array(rng.random(rows) < 0.6, mask=holes()),
            pa.array(np.arange(first_id, first_id + rows)),
        ],
        schema=SCHEMA,
    )


def expected(
    rows: pa.RecordBatch, calls: list[tuple[AggregateCall, str]], keys: bool
) -> Counter[tuple[object, ...]]:
    t = pa.Table.from_batches([rows])
    t = t.set_column(5, "d", t["d"].cast(pa.decimal128(12, 2)))
    texts = ", ".join(sql for _, sql in calls)
    query = f"select {'k, ' if keys else ''}{texts} from t {'group by k' if keys else ''}"
    found = duckdb.sql(query).fetchall()
    return Counter(tuple(plain(v) if not isinstance(v, tuple) else v for v in row) for row in found)


def assert_same(
    got: Counter[tuple[object, ...]],
    want: Counter[tuple[object, ...]],
    calls: list[tuple[AggregateCall, str]],
) -> None:
    """Equal multisets of distinct groups; floats to 1e-9 of their size, or of the data's."""
    assert set(got.values()) <= {1}
    keys = len(next(iter(want))) - len(calls) if want else 0
    mine, theirs = ({row[:keys]: row[keys:] for row in rows} for rows in (got, want))
    assert mine.keys() == theirs.keys()
    for key, row in mine.items():
        for (_, text), a, b in zip(calls, row, theirs[key], strict=True):
            if isinstance(a, float) and isinstance(b, float):
                assert a == pytest.approx(b, rel=1e-7, abs=1e-6), (key, text)
            else:
                assert a == b, (key, text)


def spec_of(
    calls: list[tuple[AggregateCall, str]], emission: Emission, *, keys: bool = True, retract: bool = False
):
    names = (("k",) if keys else ()) + tuple(f"c{i}" for i in range(len(calls)))
    return GroupAggregate(SCHEMA, (0,) if keys else (), tuple(a for a, _ in calls), names, emission, retract)


CHECKED = [pair for pair in CALLS if pair[1] != "null"]


@pytest.mark.parametrize("size", [1, 7, 1024, 0])
@pytest.mark.parametrize("keys", [True, False])
def test_every_function_equals_duckdb(size: int, keys: bool) -> None:
    rng = np.random.default_rng(size + keys)
    rows = random_rows(rng, 150)
    operator = built(spec_of(CHECKED, FINAL, keys=keys), Recorder())
    for at, length in cuts(rng, rows.num_rows, size):
        assert operator.process(0, Batch(rows.slice(at, length))) == []
    assert_same(fold(operator.on_watermark(END_OF_TIME)), expected(rows, CHECKED, keys), CHECKED)


def changelog(rng: np.random.Generator, rows: int) -> tuple[pa.RecordBatch, np.ndarray, np.ndarray]:
    """Rows with weights: some rows are taken back later; and which rows remain."""
    inserted = random_rows(rng, rows)
    order: list[int] = []
    weights: list[int] = []
    remain = np.ones(rows, bool)
    for row in range(rows):
        order.append(row)
        weights.append(1)
        while rng.random() < 0.4:
            candidates = np.flatnonzero(remain[: row + 1])
            if not len(candidates):
                break
            victim = int(rng.choice(candidates))
            remain[victim] = False
            order.append(victim)
            weights.append(-1)
    return inserted.take(pa.array(order)), np.array(weights, np.int64), remain


@pytest.mark.parametrize("size", [1, 7, 1024, 0])
def test_every_function_takes_rows_back(size: int) -> None:
    rng = np.random.default_rng(size)
    rows, weights, remain = changelog(rng, 120)
    operator = built(spec_of(CHECKED, CHANGES, retract=True), Recorder())
    sent = fold([])
    for at, length in cuts(rng, rows.num_rows, size):
        fold(operator.process(0, Batch(rows.slice(at, length), weights[at : at + length])), sent)
        seen = rows.slice(0, at + length)
        if size != 1 or at % 20 == 0:
            totals = np.zeros(120, np.int64)
            np.add.at(totals, np.asarray(seen["id"]), weights[: at + length])
            left = random_rows_by_id(rows, np.flatnonzero(totals))
            assert_same(sent, expected(left, CHECKED, True), CHECKED)
    fold(operator.on_watermark(END_OF_TIME), sent)
    assert_same(sent, expected(random_rows_by_id(rows, np.flatnonzero(remain)), CHECKED, True), CHECKED)


def random_rows_by_id(rows: pa.RecordBatch, ids: np.ndarray) -> pa.RecordBatch:
    first: dict[int, int] = {}
    for place, number in enumerate(rows["id"].to_pylist()):
        first.setdefault(number, place)
    return rows.take(pa.array([first[int(i)] for i in ids], pa.int64()))


@pytest.mark.parametrize("retract", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_restored_operator_goes_on_as_if_never_stopped(seed: int, retract: bool) -> None:
    rng = np.random.default_rng(seed)
    if retract:
        rows, weights, _ = changelog(rng, 100)
    else:
        rows, weights = random_rows(rng, 120), None
    spec = spec_of(CALLS, CHANGES, retract=retract)
    straight, stopped, store = built(spec, Recorder()), built(spec, Recorder()), Store()
    for at, length in cuts(rng, rows.num_rows, 0):
        batch = Batch(rows.slice(at, length), None if weights is None else weights[at : at + length])
        assert fold(straight.process(0, batch)) == fold(stopped.process(0, batch))
        store.apply(stopped, changes=rng.random() < 0.8)
        if rng.random() < 0.5:
            stopped = store.load(built(spec, Recorder()))
    assert fold(straight.on_watermark(END_OF_TIME)) == fold(stopped.on_watermark(END_OF_TIME))


def test_running_values_after_every_record() -> None:
    rng = np.random.default_rng(5)
    rows = random_rows(rng, 60)
    for size in (1, 13, 60):
        operator = built(spec_of(CHECKED, EVERY_RECORD), Recorder())
        out = [b for at, n in cuts(rng, 60, size) for b in operator.process(0, Batch(rows.slice(at, n)))]
        got = pa.Table.from_batches([b.data for b in out])
        assert got.num_rows == 60 and all(b.weights is None for b in out)
        for row in (0, 11, 30, 59):
            want = expected(rows.slice(0, row + 1), CHECKED, True)
            mine = fold([Batch(got.slice(row, 1).to_batches()[0])])
            (key,) = {line[0] for line in mine}
            assert_same(mine, Counter(line for line in want.elements() if line[0] == key), CHECKED)


def test_exact_average_of_decimals() -> None:
    cells = [Decimal("0.01"), Decimal("0.01"), Decimal("0.03"), None, Decimal("-999999999999999.99")]
    schema = pa.schema([("d", pa.decimal64(18, 2))])
    spec = GroupAggregate(schema, (), (call(schema, "avg", "d"), call(schema, "sum", "d")), ("a", "s"), FINAL)
    operator = built(spec, Recorder())
    operator.process(
        0, Batch(pa.RecordBatch.from_arrays([pa.array(cells, schema.field(0).type)], schema=schema))
    )
    (batch,) = operator.on_watermark(END_OF_TIME)
    assert batch.data.to_pylist() == [
        {"a": Decimal("-249999999999999.985000"), "s": Decimal("-999999999999999.94")}
    ]


def test_sum_beyond_bigint_is_a_dead_letter_until_it_fits_again() -> None:
    schema = pa.schema([("k", pa.int64()), ("n", pa.int64())])
    spec = GroupAggregate(
        schema, (0,), (call(schema, "sum", "n"),), ("k", "s"), CHANGES, retracting_input=True
    )
    context = Recorder()
    operator = built(spec, context)

    def send(n: int, weight: int) -> list[Batch]:
        data = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([n])], schema=schema)
        return operator.process(0, Batch(data, np.array([weight])))

    sent = fold(send(2**63 - 1, 1))
    fold(send(1, 1), sent)
    assert not sent and [code for _, code in context.dead] == ["MR2020"]
    fold(send(1, -1), sent)
    assert sent == {(1, 2**63 - 1): 1}


def test_approximate_distinct_counts_are_close() -> None:
    schema = pa.schema([("k", pa.int64()), ("s", pa.string())])
    spec = GroupAggregate(schema, (0,), (call(schema, "approx_count_distinct", "s"),), ("k", "c"), FINAL)
    operator = built(spec, Recorder())
    n = 60_000
    values = pa.array([f"v{i}" for i in range(n)])
    keys = pa.array(np.where(np.arange(n) < 100, 0, 1))
    for _ in range(2):
        operator.process(0, Batch(pa.RecordBatch.from_arrays([keys, values], schema=schema)))
    counts = dict(fold(operator.on_watermark(END_OF_TIME)).keys())
    assert abs(counts[0] - 100) <= 5 and abs(counts[1] / (n - 100) - 1) < 0.1


def test_not_a_number_is_the_greatest_and_can_be_taken_back() -> None:
    schema = pa.schema([("x", pa.float64())])
    calls = tuple(call(schema, f, "x") for f in ("min", "max", "sum"))
    spec = GroupAggregate(schema, (), calls, ("a", "b", "c"), CHANGES, retracting_input=True)
    operator = built(spec, Recorder())
    sent = fold([])
    for value, weight in (
        (1.5, 1),
        (float("nan"), 1),
        (float("inf"), 1),
        (float("nan"), -1),
        (float("inf"), -1),
    ):
        data = pa.RecordBatch.from_arrays([pa.array([value])], schema=schema)
        out = operator.process(0, Batch(data, np.array([weight])))
        fold(out, sent)
        if np.isnan(value) and weight > 0:
            assert sent == {(1.5, "NaN", "NaN"): 1}
    assert sent == {(1.5, 1.5, 1.5): 1}


def test_not_a_number_is_greater_than_infinity_whichever_comes_first() -> None:
    schema = pa.schema([("x", pa.float64())])
    calls = tuple(call(schema, f, "x") for f in ("min", "max"))
    for values in ([float("inf"), float("nan")], [float("nan"), float("inf")]):
        for size in (1, 2):
            spec = GroupAggregate(schema, (), calls, ("a", "b"), CHANGES, retracting_input=True)
            operator = built(spec, Recorder())
            sent = fold([])
            for first in range(0, 2, size):
                data = pa.RecordBatch.from_arrays([pa.array(values[first : first + size])], schema=schema)
                fold(operator.process(0, Batch(data, np.ones(size, np.int64))), sent)
            assert sent == {(float("inf"), "NaN"): 1}
            data = pa.RecordBatch.from_arrays([pa.array([float("inf")])], schema=schema)
            fold(operator.process(0, Batch(data, np.array([-1]))), sent)
            assert sent == {("NaN", "NaN"): 1}
