"""JSON lines: every type, what is refused and why, and that the fast road is taken where it can be."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from millrace.operators.formats.json_lines import JsonDecoder
from millrace.operators.formats.records import Decoded, TextLayout
from millrace.operators.formats.values import parse_timestamp

UTC = datetime.UTC


def decode(
    text: str | bytes, *fields: tuple[str, pa.DataType] | pa.Field, timestamp: str = "auto"
) -> Decoded:
    data = text.encode() if isinstance(text, str) else text
    return JsonDecoder(pa.schema(list(fields)), TextLayout(timestamp=timestamp)).decode(data)


def one(text: str, type_: pa.DataType, timestamp: str = "auto") -> object:
    decoded = decode(f'{{"a":{text}}}\n', ("a", type_), timestamp=timestamp)
    if decoded.bad:
        return decoded.bad[0].code
    return decoded.batch.data.column(0)[0].as_py()


@pytest.mark.parametrize(
    ("text", "type_", "expected"),
    [
        ("1", pa.int8(), 1),
        ("300", pa.int8(), "MR2103"),
        ("-1", pa.uint32(), "MR2103"),
        ("18446744073709551615", pa.uint64(), 2**64 - 1),
        ("9223372036854775808", pa.int64(), "MR2103"),
        ("1.0", pa.int64(), 1),
        ("1.5", pa.int64(), "MR2102"),
        ('"12"', pa.int64(), 12),
        ('"x"', pa.int64(), "MR2102"),
        ("true", pa.int64(), "MR2102"),
        ("[1]", pa.int64(), "MR2102"),
        ("1e400", pa.float64(), "MR2103"),
        ('"1.5"', pa.float64(), 1.5),
        ("true", pa.bool_(), True),
        ('"true"', pa.bool_(), True),
        ('"yes"', pa.bool_(), "MR2102"),
        ("0.1", pa.decimal64(18, 1), Decimal("0.1")),
        ("12345678901234.5678", pa.decimal64(18, 4), Decimal("12345678901234.5678")),
        ("12345678901234567890123456.789", pa.decimal128(38, 3), Decimal("12345678901234567890123456.789")),
        ("1.255", pa.decimal64(10, 2), Decimal("1.26")),
        ("-1.255", pa.decimal64(10, 2), Decimal("-1.26")),
        ("1e3", pa.decimal64(10, 2), Decimal("1000.00")),
        ("99999.99", pa.decimal64(6, 2), "MR2103"),
        ('"abc"', pa.decimal64(6, 2), "MR2108"),
        ('"é\\u0000\\n"', pa.string(), "é\x00\n"),
        ("12.50", pa.string(), "12.50"),
        ("null", pa.string(), None),
        ('"aGk="', pa.binary(), b"hi"),
        ('"a"', pa.binary(), "MR2102"),
        ('"2024-02-29"', pa.date32(), datetime.date(2024, 2, 29)),
        ('"2023-02-29"', pa.date32(), "MR2109"),
        ('"10:11:12.5"', pa.time64("us"), datetime.time(10, 11, 12, 500_000)),
        ('"25:00:00"', pa.time64("us"), "MR2109"),
        ("[1,null,3]", pa.list_(pa.int32()), [1, None, 3]),
        ('[1,"x"]', pa.list_(pa.int32()), "MR2102"),
        ('{"b":1,"c":[{"d":"x"}]}', pa.struct([("b", pa.int64()), ("c", pa.list_(pa.struct([("d", pa.string())])))]),
         {"b": 1, "c": [{"d": "x"}]}),
        ('{"x":1,"y":null}', pa.map_(pa.string(), pa.int32()), [("x", 1), ("y", None)]),
    ],
)  # fmt: skip
def test_values_of_each_type(text: str, type_: pa.DataType, expected: object) -> None:
    assert one(text, type_) == expected


@pytest.mark.parametrize(
    ("text", "unit", "format", "expected"),
    [
        ('"2024-01-02T03:04:05"', "us", "auto", "2024-01-02 03:04:05"),
        ('"2024-01-02 03:04:05.123456"', "us", "auto", "2024-01-02 03:04:05.123456"),
        ('"2024-01-02T03:04:05.123456789Z"', "ms", "auto", "2024-01-02 03:04:05.123"),
        ('"1969-12-31T23:59:59.9999Z"', "ms", "auto", "1969-12-31 23:59:59.999"),
        ('"2024-01-02T03:04:05+02:00"', "us", "auto", "2024-01-02 01:04:05"),
        ('"2024-01-02T03:04:05-0330"', "us", "auto", "2024-01-02 06:34:05"),
        ('"2024-01-02"', "ms", "auto", "2024-01-02 00:00:00"),
        ("1704164645000", "us", "auto", "2024-01-02 03:04:05"),
        ("1704164645", "ms", "s", "2024-01-02 03:04:05"),
        ("1704164645.5", "ms", "s", "2024-01-02 03:04:05.5"),
        ('"1704164645000"', "ms", "auto", "2024-01-02 03:04:05"),
        ("1704164645000001", "ms", "us", "2024-01-02 03:04:05"),
        ("-1", "ms", "us", "1969-12-31 23:59:59.999"),
        ('"02/01/2024 03:04:05"', "us", "%d/%m/%Y %H:%M:%S", "2024-01-02 03:04:05"),
        ('"02/01/2024 03:04:05.25"', "us", "%d/%m/%Y %H:%M:%S.%f", "2024-01-02 03:04:05.25"),
        ('"2024-13-02T03:04:05"', "us", "auto", "MR2109"),
        ('"yesterday"', "us", "auto", "MR2109"),
        ("true", "us", "auto", "MR2109"),
        ("9223372036854775807", "ms", "s", "MR2103"),
    ],
)
@pytest.mark.parametrize("zone", [None, "UTC"])
@pytest.mark.parametrize("rows", [1, 100])
def test_timestamps(text: str, unit: str, format: str, expected: str, zone: str | None, rows: int) -> None:
    column = ("a", pa.timestamp(unit, zone))
    decoded = decode(f'{{"a":{text}}}\n' * rows, column, timestamp=format)
    if expected.startswith("MR"):
        assert [b.code for b in decoded.bad] == [expected] * rows
        return
    assert decoded.bad == []
    moment = datetime.datetime.fromisoformat(expected)
    assert decoded.batch.data.column(0).to_pylist() == [moment.replace(tzinfo=UTC) if zone else moment] * rows


@pytest.mark.parametrize(
    "text", ["", "x", "2024-1-02", "2024-01-02T24:00:00", "2024-01-02T10:61", "2024-01-02Z"]
)
def test_what_is_no_timestamp(text: str) -> None:
    assert parse_timestamp(text) is None


def test_missing_keys_are_null_and_not_null_is_held() -> None:
    decoded = decode(
        '{"a":1}\n{"b":2}\n{"a":null,"b":3}\n', pa.field("a", pa.int64(), nullable=False), ("b", pa.int64())
    )
    assert decoded.batch.data.to_pylist() == [{"a": 1, "b": None}]
    assert [(b.code, b.line, b.payload) for b in decoded.bad] == [
        ("MR2104", 1, b'{"b":2}'),
        ("MR2104", 2, b'{"a":null,"b":3}'),
    ]
    assert decoded.bad[0].reason == "column 'a' is NOT NULL and has no value"


JSON = pa.field("j", pa.string(), metadata={b"sql_type": b"JSON"})


@pytest.mark.parametrize(
    "fields", [(JSON,), (("a", pa.int64()), JSON), (("m", pa.map_(pa.string(), pa.int8())), JSON)]
)
def test_json_columns_keep_their_text(fields: tuple[pa.Field, ...]) -> None:
    texts = ['{"x":[1, 2.50,"é}"],"j":{}}', "[]", "7", "null", "true", '"a\\"b,"', " 1e2 "]
    lines = [f'{{"a":1,"b":{{"j":0}},"j":{text},"c":"j"}}' for text in texts] + [
        '{"a":1}',
        '{"j":[1],"j":[2]}',
    ]
    decoded = decode("\n".join(lines), *fields)
    expected = ['{"x":[1, 2.50,"é}"],"j":{}}', "[]", "7", None, "true", '"a\\"b,"', "1e2", None, "[2]"]
    assert decoded.bad == []
    assert decoded.batch.data.column("j").to_pylist() == expected


def test_json_columns_beside_bad_lines() -> None:
    lines = ['{"j":{"a":1}}'] * 70 + ['{"j":{"a":}}'] + ['{"j":[2]}'] * 20
    decoded = decode("\n".join(lines), JSON)
    assert decoded.batch.data.column("j").to_pylist() == ['{"a":1}'] * 70 + ["[2]"] * 20
    assert [b.line for b in decoded.bad] == [70]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{oops", "MR2101"),
        (b"[1,2]", "MR2101"),
        (b"7", "MR2101"),
        (b'{"a":1}{"a":2}', "MR2101"),
        (b'{"a":1,}', "MR2101"),
        (b'{"a":1', "MR2101"),
        (b'{"s":"\xff"}', "MR2106"),
        (b'{"s":"\\ud800"}', "MR2106"),
        (b'{"s":"a\x01b"}', "MR2101"),
        (b"\x00\x00\x00", "MR2101"),
        (b"null", "MR2101"),
        (b" null", "MR2101"),
        (b'{"a":1} \tnull', "MR2101"),
        (b'null{"a":1}', "MR2101"),
        (b"[" * 100_000, "MR2101"),
        (b'{"a":' + b"1" * 5_000 + b"}", "MR2101"),
        ('{"a":1}'.encode("utf-16-le"), "MR2101"),
    ],
)
def test_a_bad_line_leaves_the_others_alone(line: bytes, code: str) -> None:
    good = b'{"a":1,"s":"x"}\n'
    data = good * 70 + line + b"\n" + good * 50
    decoded = decode(data, ("a", pa.int64()), ("s", pa.string()))
    assert decoded.batch.num_rows == 120
    assert [(b.code, b.line, b.offset) for b in decoded.bad] == [(code, 70, 70 * len(good))]


def test_blank_lines_and_line_ends_do_not_matter() -> None:
    decoded = decode(b'\r\n{"a":1}\r\n  \n\n{"a":2}', ("a", pa.int64()))
    assert decoded.batch.data.column(0).to_pylist() == [1, 2] and decoded.bad == []
    assert decode(b"", ("a", pa.int64())).batch.num_rows == 0
    assert decode(b"\n \n", ("a", pa.int64())).batch.num_rows == 0


def test_columns_keep_the_reading_that_suits_them() -> None:
    schema = pa.schema([("p", pa.float64()), ("t", pa.timestamp("us"))])
    decoder = JsonDecoder(schema, TextLayout())
    block = b'{"p":"1.5","t":1704164645000}\n' * 100
    assert decoder.decode(block).batch.num_rows == 100
    assert decoder.attempt(block, None) is not None
    assert decoder.decode(b'{"p":1.5,"t":"2024-01-02T03:04:05Z"}\n' * 100).batch.num_rows == 100


def test_a_stray_object_in_two_lines_is_two_bad_records() -> None:
    decoded = decode('{"a":\n1}\n{"a":2}\n', ("a", pa.int64()))
    assert decoded.batch.data.column(0).to_pylist() == [2]
    assert [b.line for b in decoded.bad] == [0, 1]
