"""Rows pushed from Python become batches of the declared columns; what does not fit is a bad record with a reason."""

from __future__ import annotations

import datetime
import decimal
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.errors import Invalid
from millrace.operators.batch import Batch
from millrace.operators.connectors import registry
from millrace.operators.connectors.push import PushSource, PushSpec, to_batches
from millrace.operators.spec import decode, encode

SCHEMA = pa.schema(
    [("id", pa.int64()), ("name", pa.string()), ("price", pa.float64()), ("at", pa.timestamp("us"))]
)
ROW = {"id": 1, "name": "ä", "price": 1.5, "at": datetime.datetime(2024, 1, 2, 3, 4, 5, 6)}
TEXT = {"id": "1", "name": "ä", "price": "1.5", "at": "2024-01-02 03:04:05.000006"}


@dataclass(frozen=True, slots=True)
class Trade:
    id: int
    name: str
    price: float | None = None


Pair = namedtuple("Pair", ["id", "name"])


class Surroundings:
    vnodes = 256

    def now(self) -> int:
        return 0

    def late(self, batch: Batch) -> None:
        raise AssertionError

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        raise AssertionError


def rows_of(data: object, schema: pa.Schema = SCHEMA) -> list[dict[str, object]]:
    batches, bad = to_batches(data, schema)
    assert not bad
    for batch in batches:
        batch.validate(full=True)
        assert batch.schema.equals(schema) and batch.num_rows
    return [row for batch in batches for row in batch.to_pylist()]


@pytest.mark.parametrize(
    "data",
    [
        ROW,
        [ROW],
        (dict(ROW, extra=1),),
        TEXT,
        iter([TEXT]),
        pa.RecordBatch.from_pylist([ROW], schema=SCHEMA),
        pa.Table.from_pylist([ROW]),
        pa.Table.from_pylist([TEXT]),
        [pa.RecordBatch.from_pylist([ROW]).select(["at", "price", "name", "id"])],
        pd.DataFrame([ROW], index=["label"]),
        pl.DataFrame([ROW]),
        pl.DataFrame([TEXT]),
        pl.DataFrame([ROW]).with_columns(pl.col("name").cast(pl.Categorical)),
    ],
    ids=lambda data: type(data).__name__,
)
def test_every_form_gives_the_same_row(data: object) -> None:
    assert rows_of(data) == [ROW]


def test_matching_batch_is_passed_on_as_it_is() -> None:
    batch = pa.RecordBatch.from_pylist([ROW] * 3, schema=SCHEMA).slice(1)
    batches, bad = to_batches(batch, SCHEMA)
    assert batches[0] is batch and not bad


def test_missing_columns_are_null() -> None:
    expected = {"id": 7, "name": "x", "price": None, "at": None}
    assert rows_of({"id": 7, "name": "x"}) == [expected]
    assert rows_of([Trade(7, "x"), Trade(7, "x")]) == [expected] * 2
    assert rows_of(Trade(7, "x")) == [expected]
    assert rows_of(Pair(7, "x")) == [expected]
    assert rows_of(pa.table({"name": ["x"], "id": [7]})) == [expected]


def test_null_in_a_not_null_column_is_a_bad_record() -> None:
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string())])
    for data in (
        [{"id": 1}, {"name": "x"}, {"id": None, "name": "y"}, {"id": 4}],
        pa.table({"id": [1, None, None, 4], "name": [None, "x", "y", None]}),
        pl.DataFrame({"id": [1, None, None, 4], "name": [None, "x", "y", None]}),
    ):
        batches, bad = to_batches(data, schema)
        assert [row["id"] for batch in batches for row in batch.to_pylist()] == [1, 4]
        assert [(b.code, b.position) for b in bad] == [("MR2104", "row 1"), ("MR2104", "row 2")]
        assert b"'x'" in bad[0].payload
    assert to_batches({"name": "x"}, schema)[1][0].code == "MR2104"


WRONG: list[tuple[pa.DataType, object]] = [
    (pa.int64(), "one"),
    (pa.int64(), 5.5),
    (pa.int64(), True),
    (pa.int64(), 2**63),
    (pa.int8(), 128),
    (pa.int64(), float("nan")),
    (pa.float64(), "x"),
    (pa.string(), b"\xff"),
    (pa.string(), True),
    (pa.string(), "\ud800"),
    (pa.string(), [1]),
    (pa.bool_(), 1),
    (pa.timestamp("us"), "yesterday"),
    (pa.timestamp("ms"), datetime.datetime(2024, 1, 1, 0, 0, 0, 1)),
    (pa.decimal128(4, 2), "123.45"),
    (pa.decimal128(4, 2), decimal.Decimal("1.234")),
    (pa.list_(pa.int64()), ["a"]),
    (pa.struct([("x", pa.int64())]), 5),
    (pa.date32(), "2024-13-01"),
]


@pytest.mark.parametrize(("type", "value"), WRONG, ids=str)
def test_value_that_does_not_fit_is_a_bad_record_and_the_others_pass(
    type: pa.DataType, value: object
) -> None:
    schema = pa.schema([("k", pa.int64()), ("v", type)])
    assert to_batches({"k": 0, "v": value}, schema)[0] == []
    batches, bad = to_batches([{"k": 0}, {"k": 1, "v": value}, {"k": 2, "v": None}], schema)
    assert [row["k"] for batch in batches for row in batch.to_pylist()] == [0, 2]
    assert [(b.code, b.split, b.position) for b in bad] == [("MR2102", "push", "row 1")]
    assert "column 'v'" in bad[0].reason


RIGHT: list[tuple[pa.DataType, object, object]] = [
    (pa.int64(), 5.0, 5),
    (pa.int64(), "5", 5),
    (pa.float64(), 5, 5.0),
    (pa.float32(), 1.5, 1.5),
    (pa.string(), 5, "5"),
    (pa.decimal128(6, 2), "12.5", decimal.Decimal("12.50")),
    (pa.decimal64(6, 2), 3, decimal.Decimal("3.00")),
    (pa.timestamp("ms"), 1000, datetime.datetime(1970, 1, 1, 0, 0, 1)),
    (pa.timestamp("ms"), datetime.datetime(1970, 1, 1, 0, 0, 1), datetime.datetime(1970, 1, 1, 0, 0, 1)),
    (
        pa.timestamp("us"),
        datetime.datetime(2024, 1, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
        datetime.datetime(2024, 1, 1),
    ),
    (
        pa.timestamp("us", "UTC"),
        datetime.datetime(2024, 1, 1),
        datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    ),
    (pa.date32(), datetime.date(2024, 1, 1), datetime.date(2024, 1, 1)),
    (pa.date32(), "2024-01-01", datetime.date(2024, 1, 1)),
    (pa.binary(), b"\xff", b"\xff"),
    (pa.list_(pa.int64()), [1, None], [1, None]),
    (pa.struct([("x", pa.int64())]), {"x": 1}, {"x": 1}),
    (pa.map_(pa.string(), pa.int64()), {"a": 1}, [("a", 1)]),
    (pa.duration("us"), datetime.timedelta(seconds=1), datetime.timedelta(seconds=1)),
]


@pytest.mark.parametrize(("type", "value", "expected"), RIGHT, ids=str)
def test_value_that_loses_nothing_is_taken(type: pa.DataType, value: object, expected: object) -> None:
    schema = pa.schema([("v", type)])
    assert rows_of({"v": value}, schema) == [{"v": expected}]
    assert rows_of([{"v": None}, {"v": value}], schema) == [{"v": None}, {"v": expected}]


def test_arrow_columns_of_other_types_are_cast_row_by_row_where_needed() -> None:
    schema = pa.schema([("v", pa.int8()), ("k", pa.int64())])
    table = pa.table({"v": pa.chunked_array([[1.0, 2.5], [300.0, None, 4.0]]), "k": [0, 1, 2, 3, 4]})
    batches, bad = to_batches(table, schema)
    assert [row["k"] for batch in batches for row in batch.to_pylist()] == [0, 3, 4]
    assert [b.position for b in bad] == ["row 1", "row 2"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(st.none(), st.integers(-(2**65), 2**65), st.floats(), st.text(max_size=3), st.booleans())
    )
)
def test_rows_in_are_rows_through_and_bad_ones_together(values: list[Any]) -> None:
    schema = pa.schema([("row", pa.int64()), ("v", pa.int64())])
    rows = [{"row": i, "v": v} for i, v in enumerate(values)]
    batches, bad = to_batches(rows, schema)
    through = [row["row"] for batch in batches for row in batch.to_pylist()]
    assert sorted(through + [int(b.position.split()[1]) for b in bad]) == list(range(len(values)))
    alone = [i for row in rows for i in ([row["row"]] if to_batches(row, schema)[0] else [])]
    assert alone == through


def test_what_holds_no_rows_is_refused() -> None:
    for data in (5, "text", None, [5], [ROW, 5]):
        with pytest.raises(Invalid, match="MR1440"):
            to_batches(data, SCHEMA)
    for table in (pa.table({"x": [1]}), pa.table({"x": pa.array([], pa.int64())})):
        with pytest.raises(Invalid, match="MR1443"):
            to_batches(table, SCHEMA)
    batches, bad = to_batches([{"nothing": 1}, ROW], SCHEMA)
    assert len(batches) == 1 and bad[0].code == "MR2150"
    assert to_batches([], SCHEMA) == ([], [])
    assert to_batches(pa.Table.from_batches([], SCHEMA), SCHEMA) == ([], [])


def test_source_gives_what_was_pushed_until_it_is_closed() -> None:
    spec = PushSpec(SCHEMA, "trades").with_columns((1, 0))
    source = spec.build(Surroundings())
    assert isinstance(source, PushSource) and source.discover() == ["push"]
    reader = source.open("push", None)
    assert reader.poll(10) is None and not reader.ended
    assert source.push([dict(ROW, id=i) for i in range(5)] + [dict(ROW, id="x")]) == 5
    seen: list[int] = []
    bad = 0
    while (polled := reader.poll(2)) is not None:
        bad += len(polled.bad)
        if polled.batch is not None:
            assert polled.batch.num_rows <= 2 and polled.batch.schema.equals(spec.output_schema)
            seen += polled.batch.data["id"].to_pylist()
    assert seen == [0, 1, 2, 3, 4] and bad == 1 and reader.position == {"row": 5}
    source.push(ROW)
    source.close()
    assert not reader.ended
    assert reader.poll(2) is not None and reader.ended
    with pytest.raises(Invalid, match="MR1441"):
        source.push(ROW)


def test_connector_needs_columns_and_takes_no_format() -> None:
    spec = registry.source_spec("push", {}, SCHEMA, None)
    assert spec == PushSpec(SCHEMA) and decode(encode(spec)) == spec
    assert not spec.bounded and not spec.replayable
    with pytest.raises(Invalid, match="MR1442"):
        registry.source_spec("memory", {}, None, None)
    with pytest.raises(Invalid, match="MR1435"):
        registry.source_spec("push", {}, SCHEMA, "json")
    logged = registry.source_spec("push", {"wal": "true"}, SCHEMA, None)
    assert logged == PushSpec(SCHEMA, wal=True) and decode(encode(logged)) == logged
