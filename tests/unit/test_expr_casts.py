"""Casts between types against DuckDB, or PostgreSQL's documented answer; TRY_CAST; errors by row."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal as D
from typing import Any

import pyarrow as pa
import pytest
from tests.unit.function_oracle import as_array, duck, same_rows

from millrace.errors import Invalid
from millrace.operators.expressions.evaluate import compile_expression
from millrace.operators.expressions.tree import Cast, Column
from millrace.operators.functions.row_error import RowError

US, MS, UTC = pa.timestamp("us"), pa.timestamp("ms"), pa.timestamp("us", "UTC")
MONEY = pa.array([D("1.25"), None, D("-3.50"), D("0.05"), D("2.50")], pa.decimal64(10, 2))
TIMES = pa.array(
    [
        dt.datetime(2024, 2, 29, 13, 5, 59, 123456),
        None,
        dt.datetime(1969, 12, 31, 23, 59, 59),
        dt.datetime(1, 1, 1),
    ],
    US,
)


def cast(values: Any, target: pa.DataType, *, safe: bool = False) -> pa.Array:
    column = as_array(values)
    schema = pa.schema([("a", column.type)])
    compiled = compile_expression(Cast(Column(0, column.type, "a"), target, safe), schema)
    result = compiled(pa.RecordBatch.from_arrays([column], schema=schema))
    assert result.type == target
    longer = pa.concat_arrays([column, column])
    sliced = compiled(pa.RecordBatch.from_arrays([longer], schema=schema).slice(len(column)))
    assert same_rows(sliced.to_pylist(), result.to_pylist())
    return result


CASES: list[tuple[Any, pa.DataType, str | list[Any]]] = [
    ([1, None, -7], pa.int32(), "a::INT"),
    ([1, None, -7], pa.float64(), "a::DOUBLE"),
    ([1, None, 0], pa.bool_(), "a::BOOLEAN"),
    ([1, None, -7], pa.decimal64(10, 2), "a::DECIMAL(10,2)"),
    ([2**63 - 1, None], pa.decimal128(22, 3), "a::DECIMAL(22,3)"),
    ([1.5, 2.5, -2.5, None, 1e15], pa.int64(), "a::BIGINT"),
    ([1.005, -2.675, None], pa.decimal64(10, 2), [D("1.01"), D("-2.68"), None]),
    ([0.1, 1e20, None, -0.0], pa.string(), ["0.1", "1e+20", None, "-0"]),
    ([float("inf"), float("nan")], pa.string(), ["Infinity", "NaN"]),
    (MONEY, pa.decimal64(8, 1), "a::DECIMAL(8,1)"),
    (MONEY, pa.decimal64(18, 6), "a::DECIMAL(18,6)"),
    (MONEY, pa.decimal128(30, 5), "a::DECIMAL(30,5)"),
    (MONEY, pa.int32(), "a::INT"),
    (MONEY, pa.float64(), "a::DOUBLE"),
    (MONEY, pa.string(), "a::VARCHAR"),
    ([True, None, False], pa.string(), "a::VARCHAR"),
    ([True, None, False], pa.int32(), "a::INT"),
    ([True, None, False], pa.decimal64(3, 1), "a::DECIMAL(3,1)"),
    (["1", " 42 ", None, "-7", "+3"], pa.int64(), [1, 42, None, -7, 3]),
    (["1.5", "1e3", None, "nan", "-Infinity"], pa.float64(), "a::DOUBLE"),
    (["1.255", None, "-3", "1e2", " 7 "], pa.decimal64(10, 2), [D("1.26"), None, D(-3), D(100), D(7)]),
    (["t", "FALSE", " yes ", "off", None, "1", "0"], pa.bool_(), [True, False, True, False, None, True, False]),
    (["2024-02-29 13:05:59.123456", "2024-02-29", None, "2024-02-29T01:02"], US, "a::TIMESTAMP"),
    (["2024-02-29T13:05:59Z", "2024-02-29 13:05:59+02", "2024-02-29 13:05:59.5", None], UTC, "a::TIMESTAMPTZ"),
    (["2024-02-29 13:05:59.1239"], MS, [dt.datetime(2024, 2, 29, 13, 5, 59, 123000)]),
    (["2024-02-29T13:05:59+02:00", "2024-02-29 13:05:59"], US, [dt.datetime(2024, 2, 29, 11, 5, 59), dt.datetime(2024, 2, 29, 13, 5, 59)]),
    (["2024-02-29", None, "2024-02-29 23:00:00"], pa.date32(), [dt.date(2024, 2, 29), None, dt.date(2024, 2, 29)]),
    (["13:05:59.5", None, "1:02"], pa.time64("us"), [dt.time(13, 5, 59, 500000), None, dt.time(1, 2)]),
    (["5 minutes", "1 day 02:03:04", "PT1H30M", None, "-2 hours"], pa.duration("us"),
     [dt.timedelta(minutes=5), dt.timedelta(days=1, seconds=7384), dt.timedelta(hours=1.5), None, dt.timedelta(hours=-2)]),
    (["1 year 2 months 3 days", None], pa.month_day_nano_interval(), [pa.MonthDayNano([14, 3, 0]), None]),
    (["añ", None], pa.binary(), [b"a\xc3\xb1", None]),
    (pa.array([b"a\xc3\xb1", None]), pa.string(), ["añ", None]),
    (TIMES, pa.string(), "a::VARCHAR"),
    (TIMES.cast(UTC), pa.string(), "a::VARCHAR"),
    (TIMES, MS, [dt.datetime(2024, 2, 29, 13, 5, 59, 123000), None, dt.datetime(1969, 12, 31, 23, 59, 59), dt.datetime(1, 1, 1)]),
    (pa.array([-1], US), pa.timestamp("s"), [dt.datetime(1969, 12, 31, 23, 59, 59)]),
    (TIMES, pa.date32(), "a::DATE"),
    (TIMES, pa.time64("us"), "a::TIME"),
    (TIMES, UTC, "a::TIMESTAMPTZ"),
    (pa.array([dt.date(2024, 2, 29), None]), US, "a::TIMESTAMP"),
    (pa.array([dt.date(2024, 2, 29), None]), pa.string(), "a::VARCHAR"),
    (pa.array([dt.time(1, 2, 3, 400000), None]), pa.string(), "a::VARCHAR"),
    (pa.array([93_784_500_000, -1_000_000, None, 0], pa.duration("us")), pa.string(), ["1 day 02:03:04.5", "-00:00:01", None, "00:00:00"]),
    (pa.array([(14, 3, 1_000_000_000)], pa.month_day_nano_interval()), pa.string(), ["1 year 2 mons 3 days 00:00:01"]),
    (pa.array([[1, None], None, []], pa.list_(pa.int64())), pa.list_(pa.string()), [["1", None], None, []]),
    (pa.array([{"x": 1}, None], pa.struct([("x", pa.int64())])), pa.struct([("y", pa.float64())]), [{"y": 1.0}, None]),
    (pa.array([[1, 2], None], pa.list_(pa.int64())), pa.string(), ["[1,2]", None]),
    (pa.nulls(2), pa.int64(), [None, None]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "target", "expected"), CASES, ids=[f"{i}-{c[1]}" for i, c in enumerate(CASES)]
)
def test_cast_gives_the_reference_answer(values: Any, target: pa.DataType, expected: str | list[Any]) -> None:
    got = cast(values, target).to_pylist()
    wanted = duck(expected, [values]) if isinstance(expected, str) else expected
    assert same_rows(got, wanted), f"\n got    {got}\n wanted {wanted}"


ERRORS: list[tuple[Any, pa.DataType]] = [
    (["1", "x"], pa.int64()),
    (["1", "1_0"], pa.int64()),
    (["1", "99999999999"], pa.int32()),
    (["1", "1.5"], pa.int64()),
    (["1", ""], pa.float64()),
    (["1", "1e9"], pa.decimal64(5, 2)),
    (["1", "NaN"], pa.decimal64(5, 2)),
    (["t", "maybe"], pa.bool_()),
    (["2024-02-28", "2023-02-29"], US),
    (["2024-02-28", "soon"], pa.date32()),
    (["01:02", "25:00"], pa.time64("us")),
    (["1 day", "1 month"], pa.duration("us")),
    (["1 day", "1 lightyear"], pa.month_day_nano_interval()),
    ([1, 2**40], pa.int32()),
    ([1, -1], pa.uint8()),
    ([1.0, 1e19], pa.int64()),
    ([1.0, float("nan")], pa.int64()),
    ([1.0, float("inf")], pa.decimal64(5, 2)),
    ([1, 1000], pa.decimal64(5, 2)),
    (pa.array([D("1.00"), D("99999999.99")], pa.decimal64(10, 2)), pa.decimal64(5, 2)),
    (pa.array([D("1.00"), D("99999999.99")], pa.decimal64(10, 2)), pa.int16()),
    (pa.array([b"a", b"\xff"]), pa.string()),
]


@pytest.mark.parametrize(("values", "target"), ERRORS, ids=[f"{i}-{c[1]}" for i, c in enumerate(ERRORS)])
def test_value_that_does_not_convert_is_the_error_of_its_row(values: Any, target: pa.DataType) -> None:
    with pytest.raises(RowError) as caught:
        cast(values, target)
    assert caught.value.rows.tolist() == [False, True]
    assert caught.value.code in ("MR2001", "MR2003", "MR2007")
    tried = cast(values, target, safe=True)
    assert tried.is_valid().to_pylist() == [True, False]


def test_cast_without_a_conversion_is_refused() -> None:
    with pytest.raises(Invalid, match="can not cast") as caught:
        cast(pa.array([dt.date(2024, 1, 1)]), pa.float64())
    assert caught.value.code == "MR1213"
