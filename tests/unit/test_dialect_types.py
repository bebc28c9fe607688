"""Type names to Arrow types, and durations to microseconds."""

from __future__ import annotations

import pyarrow as pa
import pytest

from millrace.errors import Invalid, MillraceError
from millrace.planner.dialect.durations import parse_duration
from millrace.planner.dialect.types import parse_type

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("text", "arrow"),
    [
        ("boolean", pa.bool_()),
        ("TINYINT", pa.int8()),
        ("SMALLINT", pa.int16()),
        ("INT", pa.int32()),
        ("INTEGER", pa.int32()),
        ("BIGINT", pa.int64()),
        ("TINYINT UNSIGNED", pa.uint8()),
        ("BIGINT UNSIGNED", pa.uint64()),
        ("UINTEGER", pa.uint32()),
        ("FLOAT", pa.float32()),
        ("REAL", pa.float32()),
        ("DOUBLE", pa.float64()),
        ("DOUBLE PRECISION", pa.float64()),
        ("DECIMAL(10, 2)", pa.decimal64(10, 2)),
        ("NUMERIC(18)", pa.decimal64(18, 0)),
        ("DECIMAL(19, 4)", pa.decimal128(19, 4)),
        ("VARCHAR", pa.string()),
        ("VARCHAR(20)", pa.string()),
        ("CHARACTER VARYING(20)", pa.string()),
        ("STRING", pa.string()),
        ("TEXT", pa.string()),
        ("BYTES", pa.binary()),
        ("VARBINARY(20)", pa.binary()),
        ("DATE", pa.date32()),
        ("TIME", pa.time64("us")),
        ("TIMESTAMP", pa.timestamp("us")),
        ("TIMESTAMP(0)", pa.timestamp("ms")),
        ("TIMESTAMP(3)", pa.timestamp("ms")),
        ("TIMESTAMP(6)", pa.timestamp("us")),
        ("TIMESTAMP(9)", pa.timestamp("ns")),
        ("TIMESTAMP(3) WITHOUT TIME ZONE", pa.timestamp("ms")),
        ("TIMESTAMP(3) WITH TIME ZONE", pa.timestamp("ms", "UTC")),
        ("TIMESTAMP(3) WITH LOCAL TIME ZONE", pa.timestamp("ms", "UTC")),
        ("TIMESTAMP_LTZ(3)", pa.timestamp("ms", "UTC")),
        ("TIMESTAMPTZ", pa.timestamp("us", "UTC")),
        ("INTERVAL", pa.duration("us")),
        ("INTERVAL DAY TO SECOND(3)", pa.duration("us")),
        ("INTERVAL YEAR TO MONTH", pa.month_day_nano_interval()),
        ("ARRAY<INT>", pa.list_(pa.int32())),
        ("INT[]", pa.list_(pa.int32())),
        ("INT ARRAY", pa.list_(pa.int32())),
        ("INT[][]", pa.list_(pa.list_(pa.int32()))),
        ("ARRAY<INT NOT NULL>", pa.list_(pa.field("item", pa.int32(), False))),
        ("MAP<STRING, ARRAY<INT>>", pa.map_(pa.string(), pa.list_(pa.int32()))),
        ("ROW<a INT, b STRING>", pa.struct([("a", pa.int32()), ("b", pa.string())])),
        ("ROW(a INT, b STRING)", pa.struct([("a", pa.int32()), ("b", pa.string())])),
        ("STRUCT<a: INT, `b c` STRING>", pa.struct([("a", pa.int32()), ("b c", pa.string())])),
    ],
)
def test_types(text: str, arrow: pa.DataType) -> None:
    found = parse_type(text)
    assert found.arrow == arrow
    assert parse_type(text.lower()).arrow.id == arrow.id
    assert parse_type(found.text) == found


def test_json_is_text_that_says_so() -> None:
    field = parse_type("JSON").field("x")
    assert field.type == pa.string()
    assert field.metadata == {b"sql_type": b"JSON"}
    inner = parse_type("ARRAY<JSON>").arrow.value_field
    assert inner.metadata == {b"sql_type": b"JSON"}
    assert parse_type("STRING").field("x", nullable=False) == pa.field("x", pa.string(), False)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("INTT", "MR1020"),
        ("", "MR1010"),
        ("INT INT", "MR1013"),
        ("ARRAY", "MR1010"),
        ("ARRAY<INT", "MR1010"),
        ("MAP<INT>", "MR1010"),
        ("ROW<INT>", "MR1010"),
        ("DECIMAL(0)", "MR1021"),
        ("DECIMAL(39)", "MR1021"),
        ("DECIMAL(5, 6)", "MR1021"),
        ("DECIMAL(1, 2, 3)", "MR1021"),
        ("TIMESTAMP(10)", "MR1021"),
        ("TIME(9)", "MR1021"),
        ("STRING UNSIGNED", "MR1021"),
        ("TIMESTAMPTZ WITHOUT TIME ZONE", "MR1021"),
        ("INTERVAL MONTH TO DAY", "MR1021"),
        ("TIME WITH TIME ZONE", "MR1980"),
        ("ARRAY<" * 100 + "INT" + ">" * 100, "MR1012"),
    ],
)
def test_types_that_can_not_be(text: str, code: str) -> None:
    with pytest.raises(MillraceError) as caught:
        parse_type(text)
    assert caught.value.code == code


def test_a_misspelt_type_is_guessed() -> None:
    with pytest.raises(Invalid) as caught:
        parse_type("BIGNIT")
    assert caught.value.hint == "did you mean BIGINT?"


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("5m", 300 * SECOND),
        ("10s", 10 * SECOND),
        ("250ms", 250_000),
        ("15us", 15),
        ("1h30m", 5400 * SECOND),
        ("1h 30m", 5400 * SECOND),
        ("0.5s", 500_000),
        ("2 days", 172_800 * SECOND),
        ("1 week", 604_800 * SECOND),
        ("5 SECONDS", 5 * SECOND),
        ("1 day 2 hours", 93_600 * SECOND),
        ("01:30:00", 5400 * SECOND),
        ("1 day 01:30", 91_800 * SECOND),
        ("INTERVAL '5' SECOND", 5 * SECOND),
        ("interval '5 seconds'", 5 * SECOND),
        ("INTERVAL 5 MINUTES", 300 * SECOND),
        ("-5m", -300 * SECOND),
        ("0s", 0),
    ],
)
def test_durations(text: str, us: int) -> None:
    assert parse_duration(text) == us


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "MR1030"),
        ("5", "MR1030"),
        ("m", "MR1030"),
        ("5 fortnights", "MR1030"),
        ("5m x", "MR1030"),
        ("0.1us", "MR1030"),
        ("999999999999 weeks", "MR1030"),
        ("1 month", "MR1031"),
        ("INTERVAL '1' YEAR", "MR1031"),
    ],
)
def test_durations_that_can_not_be(text: str, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_duration(text)
    assert caught.value.code == code
