"""Generated rows keep to their rules and depend on (seed, row number) alone."""

from __future__ import annotations

import datetime
import decimal
import uuid

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.errors import Invalid, Unsupported
from millrace.operators.batch import Batch
from millrace.operators.connectors import registry
from millrace.operators.connectors.datagen import DatagenSpec
from millrace.operators.source import Position, SourceSpec
from millrace.operators.spec import decode, encode


class Surroundings:
    """A context whose clock the test sets."""

    vnodes = 256

    def __init__(self) -> None:
        self.time = 0

    def now(self) -> int:
        return self.time

    def late(self, batch: Batch) -> None:
        raise AssertionError

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        raise AssertionError


EVERY = pa.schema(
    [
        ("boolean", pa.bool_()),
        ("tiny", pa.int8()),
        ("small", pa.int16()),
        ("whole", pa.int32()),
        ("big", pa.int64()),
        ("utiny", pa.uint8()),
        ("usmall", pa.uint16()),
        ("uwhole", pa.uint32()),
        ("ubig", pa.uint64()),
        ("single", pa.float32()),
        ("double", pa.float64()),
        ("money", pa.decimal64(18, 4)),
        ("cents", pa.decimal64(2, 2)),
        ("wide", pa.decimal128(30, 6)),
        ("text", pa.string()),
        pa.field("json", pa.string(), metadata={b"sql_type": b"JSON"}),
        ("bytes", pa.binary()),
        ("day", pa.date32()),
        ("clock", pa.time64("us")),
        ("at_ms", pa.timestamp("ms")),
        ("at_us", pa.timestamp("us")),
        ("at_ns", pa.timestamp("ns", "UTC")),
        ("span", pa.duration("us")),
        ("months", pa.month_day_nano_interval()),
        ("items", pa.list_(pa.int64())),
        ("map", pa.map_(pa.string(), pa.float64())),
        ("row", pa.struct([("x", pa.int32()), ("tags", pa.list_(pa.string()))])),
    ]
)


def spec_of(schema: pa.Schema, **options: object) -> SourceSpec:
    return registry.source_spec(
        "datagen", {k.replace("__", "."): str(v) for k, v in options.items()}, schema, None
    )


def read(spec: SourceSpec, split: str = "0", position: Position | None = None, size: int = 64) -> pa.Table:
    reader = spec.build(Surroundings()).open(split, position)
    batches = []
    while (polled := reader.poll(size)) is not None:
        assert polled.batch is not None and 0 < polled.batch.num_rows <= size
        batches.append(polled.batch.data)
    assert reader.ended
    table = pa.Table.from_batches(batches, spec.output_schema)
    table.validate(full=True)
    return table


def values(type: pa.DataType, rows: int = 2_000, **parameters: object) -> list:
    options = {f"fields__v__{k}": v for k, v in parameters.items()}
    return read(spec_of(pa.schema([("v", type)]), rows=rows, **options))["v"].to_pylist()


def test_every_type_has_a_default_rule() -> None:
    spec = spec_of(EVERY, rows=200)
    table = read(spec)
    assert table.schema.equals(EVERY) and table.num_rows == 200
    for name in EVERY.names:
        assert table[name].null_count == 0
        if name != "boolean":
            assert len(set(map(repr, table[name].to_pylist()))) > 10, name
    assert decode(encode(spec)) == spec


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(0, 200),
    splits=st.integers(1, 4),
    size=st.integers(1, 70),
    start=st.integers(0, 200),
    columns=st.lists(st.integers(0, len(EVERY) - 1), min_size=1, max_size=4, unique=True),
)
def test_rows_depend_on_seed_and_number_alone(
    rows: int, splits: int, size: int, start: int, columns: list[int]
) -> None:
    whole = read(spec_of(EVERY, rows=rows, seed=4))
    spec = spec_of(EVERY, rows=rows, seed=4, splits=splits).with_columns(tuple(columns))
    for split in range(splits):
        part = read(spec, str(split), {"row": start}, size)
        expected = [r for r in range(start, rows) if r % splits == split]
        assert part == whole.select(columns).take(pa.array(expected, pa.int64()))


def test_seeds_and_columns_differ() -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.int64())])
    one, other = read(spec_of(schema, rows=100)), read(spec_of(schema, rows=100, seed=1))
    assert one["a"] != one["b"] and one["a"] != other["a"]


def test_position_says_where_to_go_on() -> None:
    spec = spec_of(EVERY, rows=100, splits=3)
    reader = spec.build(Surroundings()).open("1", None)
    assert reader.position == {"row": 1}
    reader.poll(5)
    assert reader.position == {"row": 16}
    assert read(spec, "1", reader.position).num_rows == 33 - 5


def test_rate_paces_by_the_clock() -> None:
    surroundings = Surroundings()
    spec = registry.source_spec("generator", {"rows-per-second": "100"}, pa.schema([("v", pa.int64())]), None)
    assert not spec.bounded
    reader = spec.build(surroundings).open("0", {"row": 50})
    counts = []
    for now in (0, 5_000, 100_000, 1_000_000):
        surroundings.time = now
        polled = reader.poll(1_000)
        counts.append(0 if polled is None or polled.batch is None else polled.batch.num_rows)
    assert counts == [1, 0, 10, 90] and not reader.ended


def test_times_advance_with_rows() -> None:
    start = datetime.datetime(2024, 1, 1)
    ms = datetime.timedelta(milliseconds=1)
    assert values(pa.timestamp("ms"), 3) == [start, start + ms, start + 2 * ms]
    assert values(pa.timestamp("s"), 3, start="2020-02-02T00:00:00+01:00", step="30s")[
        2
    ] == datetime.datetime(2020, 2, 1, 23, 1)
    assert values(pa.int64(), 2, kind="time", start="1970-01-01", step="2s") == [0, 2000]
    generate = DatagenSpec(pa.schema([("v", pa.timestamp("us"))]), rate=4).generators()[0][0]
    assert generate(np.arange(2)).to_pylist() == [start, start + 250 * ms]
    late = values(pa.timestamp("us"), 1000, max_delay="10ms")
    behind = [start + i * ms - time for i, time in enumerate(late)]
    assert min(behind) >= datetime.timedelta(0) and ms < max(behind) <= 10 * ms


def test_bounds_hold_and_are_reached() -> None:
    assert set(values(pa.int64(), min=-2, max=2)) == {-2, -1, 0, 1, 2}
    assert set(values(pa.uint8())) <= set(range(256))
    assert min(values(pa.int64(), min=-(2**63), max=2**63 - 1)) < -(2**62)
    assert max(values(pa.uint64(), max=2**64 - 1)) > 2**63
    assert set(values(pa.int8(), min=-128, max=127)) == set(range(-128, 128))
    assert all(5 <= v < 6 for v in values(pa.float64(), min=5))
    money = values(pa.decimal64(6, 2), min="-1.5", max="1.25")
    assert min(money) == decimal.Decimal("-1.50") and max(money) == decimal.Decimal("1.25")
    assert min(values(pa.decimal128(30, 1), min="-3", max="-1")) == decimal.Decimal("-3.0")
    days = values(pa.date32(), min="2024-02-01", max="2024-02-03")
    assert set(days) == {datetime.date(2024, 2, d) for d in (1, 2, 3)}
    times = values(pa.timestamp("ms"), min="2024-02-01", max="2024-02-02")
    assert datetime.datetime(2024, 2, 1) <= min(times) < max(times) <= datetime.datetime(2024, 2, 2)
    assert set(values(pa.int64(), min=7, max=7)) == {7}
    assert set(values(pa.int64(), min=2_000_000)) == {2_000_000}


def test_distributions() -> None:
    ranks = np.array(values(pa.int64(), 50_000, min=1, max=1000, distribution="zipf"))
    share = [np.mean(ranks == k) for k in (1, 2, 4)]
    assert ranks.min() == 1 and ranks.max() == 1000 and share[0] > share[1] > share[2] > 0.02
    assert np.mean(np.array(values(pa.int64(), 20_000, max=9, distribution="zipf", exponent=0.0)) == 9) > 0.08
    normal = np.array(values(pa.float64(), 50_000, distribution="normal", mean=10, stddev=2))
    assert abs(normal.mean() - 10) < 0.05 and abs(normal.std() - 2) < 0.05
    clipped = np.array(values(pa.int32(), 5_000, distribution="normal", min=0, max=10, mean=5, stddev=5))
    assert clipped.min() == 0 and clipped.max() == 10
    even = np.array(values(pa.int64(), 50_000, max=9))
    assert np.abs(np.bincount(even) / 50_000 - 0.1).max() < 0.01


def test_sequences_count_and_end_the_rows() -> None:
    assert values(pa.int32(), 3, kind="sequence", start=5) == [5, 6, 7]
    assert values(pa.string(), 2, kind="sequence", prefix="k-", step=10) == ["k-0", "k-10"]
    assert values(pa.decimal64(5, 2), 2, kind="sequence", start=1) == [
        decimal.Decimal("1.00"),
        decimal.Decimal("2.00"),
    ]
    spec = spec_of(
        pa.schema([("v", pa.int64()), ("w", pa.int64())]), fields__v__kind="sequence", fields__v__end=9
    )
    assert spec.bounded
    assert read(spec.with_columns((1,))).num_rows == 10
    assert values(pa.int64(), 100, kind="sequence", start=3, end=1, step=-1) == [3, 2, 1]
    assert len(values(pa.int8(), 1_000, kind="sequence")) == 128
    assert len(values(pa.decimal64(5, 2), 5_000, kind="sequence", start=990)) == 10


def test_no_columns_still_count_rows() -> None:
    reader = spec_of(EVERY, rows=9).with_columns(()).build(Surroundings()).open("0", None)
    polled = reader.poll(100)
    assert polled is not None and polled.batch is not None
    assert (polled.batch.num_rows, polled.batch.schema.names) == (9, [])


def test_choices_constants_and_uuids() -> None:
    assert set(values(pa.string(), values="a, b,c")) == {"a", "b", "c"}
    assert set(values(pa.int64(), values="1,5")) == {1, 5}
    skewed = values(pa.string(), values="a,b,c,d", distribution="zipf", exponent=2)
    assert skewed.count("a") > skewed.count("b") > skewed.count("d")
    assert set(values(pa.timestamp("us"), value="2024-01-01 00:00:00")) == {datetime.datetime(2024, 1, 1)}
    ids = values(pa.string(), kind="uuid")
    assert len(set(ids)) == 2_000 and all(
        uuid.UUID(i).version == 4 and str(uuid.UUID(i)) == i for i in ids[:50]
    )


def test_text_length_prefix_and_nulls() -> None:
    assert all(len(v) == 13 and v.isalpha() and v.islower() for v in values(pa.string(), length=13))
    assert set(values(pa.string(), 5, length=0)) == {""}
    assert {v[:5] for v in values(pa.string(), prefix="user-", max=9)} == {"user-"}
    assert all(len(v) == 16 for v in values(pa.binary(), length=16))
    assert all(len(v) == 2 for v in values(pa.list_(pa.bool_()), length=2))
    sparse = values(pa.string(), null_rate=0.25)
    assert 0.2 < sum(v is None for v in sparse) / len(sparse) < 0.3
    assert set(values(pa.int64(), **{"null-rate": 1})) == {None}
    assert values(pa.list_(pa.int64()), 500, null_rate=0.5).count(None) > 200


@pytest.mark.parametrize("field", [f for f in EVERY if not pa.types.is_struct(f.type)], ids=lambda f: f.name)
def test_every_type_may_be_null(field: pa.Field) -> None:
    nulls = values(field.type, 400, null_rate=0.5).count(None)
    assert 150 < nulls < 250


def test_members_of_a_row_have_their_own_rules() -> None:
    schema = pa.schema([("r", pa.struct([("x", pa.int64()), ("y", pa.string())]))])
    rows = read(spec_of(schema, rows=20, fields__r__x__kind="sequence", fields__r__y__values="a"))[
        "r"
    ].to_pylist()
    assert rows[3] == {"x": 3, "y": "a"}


INT = pa.schema([("v", pa.int64())])


@pytest.mark.parametrize(
    ("schema", "options", "code"),
    [
        (INT, {"fields.w.min": "1"}, "MR1450"),
        (INT, {"fields.v": "1"}, "MR1450"),
        (INT, {"fields.v.minimum": "1"}, "MR1451"),
        (INT, {"fields.v.min": "x"}, "MR1452"),
        (INT, {"fields.v.min": "5", "fields.v.max": "4"}, "MR1452"),
        (INT, {"fields.v.kind": "magic"}, "MR1452"),
        (INT, {"fields.v.null_rate": "2"}, "MR1452"),
        (INT, {"fields.v.values": "a"}, "MR1452"),
        (INT, {"fields.v.kind": "sequence", "fields.v.end": "-1"}, "MR1452"),
        (pa.schema([("v", pa.int8())]), {"fields.v.kind": "sequence", "fields.v.end": "128"}, "MR1452"),
        (pa.schema([("v", pa.int8())]), {"fields.v.max": "128"}, "MR1452"),
        (pa.schema([("v", pa.decimal64(4, 2))]), {"fields.v.max": "100"}, "MR1452"),
        (pa.schema([("v", pa.timestamp("ms"))]), {"fields.v.start": "now"}, "MR1452"),
        (pa.schema([pa.field("v", pa.int64(), nullable=False)]), {"fields.v.null_rate": "0.1"}, "MR1452"),
        (INT, {"fields.v.length": "3"}, "MR1453"),
        (INT, {"fields.v.kind": "uuid"}, "MR1453"),
        (pa.schema([("v", pa.bool_())]), {"fields.v.kind": "sequence"}, "MR1453"),
        (None, {}, "MR1454"),
        (INT, {"rows": "-1"}, "MR1455"),
        (INT, {"splits": "0"}, "MR1455"),
        (INT, {"rate": "nan"}, "MR1455"),
    ],
)
def test_wrong_options_are_refused(schema: pa.Schema | None, options: dict[str, str], code: str) -> None:
    with pytest.raises(Invalid, match=code):
        registry.source_spec("datagen", options, schema, None)


def test_type_without_a_rule_and_a_format_are_refused() -> None:
    with pytest.raises(Unsupported, match="MR1961"):
        registry.source_spec("datagen", {}, pa.schema([("v", pa.map_(pa.float64(), pa.int64()))]), None)
    with pytest.raises(Invalid, match="MR1435"):
        registry.source_spec("datagen", {}, INT, "csv")
