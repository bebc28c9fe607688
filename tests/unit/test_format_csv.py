"""CSV: quotes, headers, NULL, every type, and bad records that leave their neighbours alone."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from decimal import Decimal

import pyarrow as pa
import pytest

from millrace.operators.formats.csv_lines import CsvDecoder, header_names, split_fields
from millrace.operators.formats.records import Decoded, TextLayout

TWO = pa.schema([("a", pa.int64()), ("b", pa.string())])
PLAIN = TextLayout()


def decode(
    text: str | bytes, schema: pa.Schema = TWO, layout: TextLayout = PLAIN, names: Sequence[str] | None = None
) -> Decoded:
    data = text.encode() if isinstance(text, str) else text
    return CsvDecoder(schema, layout, names or schema.names).decode(data)


def rows(decoded: Decoded) -> list[tuple[object, ...]]:
    return [tuple(r.values()) for r in decoded.batch.data.to_pylist()]


def test_quotes_newlines_and_empty_texts() -> None:
    text = '1,"x, ""y""\nz"\r\n2,""\n3,\n4,plain "text"\n5,"é"'
    decoded = decode(text)
    assert rows(decoded) == [(1, 'x, "y"\nz'), (2, ""), (3, None), (4, 'plain "text"'), (5, "é")]
    assert decoded.bad == []


@pytest.mark.parametrize(
    ("text", "type_", "expected"),
    [
        ("1", pa.int8(), 1),
        (" 1 ", pa.int64(), 1),
        ("300", pa.int8(), "MR2103"),
        ("1.0", pa.int64(), 1),
        ("abc", pa.int64(), "MR2102"),
        ("1.5e3", pa.float64(), 1500.0),
        ("1e400", pa.float64(), "MR2103"),
        ("TRUE", pa.bool_(), True),
        ("0", pa.bool_(), False),
        ("maybe", pa.bool_(), "MR2102"),
        ("1.25", pa.decimal64(10, 2), Decimal("1.25")),
        ("1.255", pa.decimal64(10, 2), Decimal("1.26")),
        ("123456789012345678.5", pa.decimal128(20, 1), Decimal("123456789012345678.5")),
        ("123456789", pa.decimal64(10, 2), "MR2103"),
        ("1,5", pa.decimal64(10, 2), "MR2105"),
        ("2024-02-29", pa.date32(), datetime.date(2024, 2, 29)),
        ("2024-02-30", pa.date32(), "MR2109"),
        ("10:11:12", pa.time64("us"), datetime.time(10, 11, 12)),
        ("2024-01-02 03:04:05", pa.timestamp("ms"), datetime.datetime(2024, 1, 2, 3, 4, 5)),
        ("2024-01-02T03:04:05Z", pa.timestamp("ms"), datetime.datetime(2024, 1, 2, 3, 4, 5)),
        ("2024-01-02T03:04:05+01:00", pa.timestamp("us"), datetime.datetime(2024, 1, 2, 2, 4, 5)),
        ("2024-01-02 03:04:05.1234567", pa.timestamp("ms"), datetime.datetime(2024, 1, 2, 3, 4, 5, 123_000)),
        ("1704164645000", pa.timestamp("us"), datetime.datetime(2024, 1, 2, 3, 4, 5)),
        ("aGk=", pa.binary(), b"hi"),
        ('"[1,2]"', pa.list_(pa.int64()), [1, 2]),
        ("", pa.float64(), None),
    ],
)
@pytest.mark.parametrize("count", [1, 80])
def test_values_of_each_type(text: str, type_: pa.DataType, expected: object, count: int) -> None:
    decoded = decode(f"x,{text}\n" * count, pa.schema([("a", pa.string()), ("b", type_)]))
    if isinstance(expected, str) and expected.startswith("MR"):
        assert [b.code for b in decoded.bad] == [expected] * count
    else:
        assert rows(decoded) == [("x", expected)] * count


def test_columns_are_found_by_name() -> None:
    decoded = decode(
        "x,1,2\ny,3,4\n", pa.schema([("c", pa.int64()), ("a", pa.string())]), names=["a", "b", "c"]
    )
    assert rows(decoded) == [(2, "x"), (4, "y")]


def test_a_column_that_the_header_lacks_makes_every_record_bad() -> None:
    decoded = decode("1,x\n2,y\n", names=["a", "c"])
    assert [(b.code, b.reason) for b in decoded.bad] == [("MR2105", "the header has no column 'b'")] * 2


def test_field_counts() -> None:
    decoded = decode("1,x\n2\n3,y,z\n4,w\n")
    assert rows(decoded) == [(1, "x"), (4, "w")]
    assert [(b.reason, b.payload) for b in decoded.bad] == [
        ("expected 2 fields, got 1", b"2"),
        ("expected 2 fields, got 3", b"3,y,z"),
    ]


def test_a_stray_quote_costs_one_line() -> None:
    decoded = decode('1,x\n2,"open\n3,y\n4,z\n')
    assert rows(decoded) == [(1, "x"), (3, "y"), (4, "z")]
    assert [(b.line, b.payload) for b in decoded.bad] == [(1, b'2,"open')]
    decoded = decode('1,x\n2,"open\n3,y\n4,"z"\n5,w\n')
    assert rows(decoded) == [(1, "x"), (3, "y"), (4, "z"), (5, "w")]


def test_a_bad_value_in_a_record_of_two_lines_is_one_bad_record() -> None:
    decoded = decode('1,"a\nb"\nx,"c\nd"\n2,"e\nf"\n')
    assert rows(decoded) == [(1, "a\nb"), (2, "e\nf")]
    assert [(b.line, b.payload) for b in decoded.bad] == [(2, b'x,"c\nd"')]


def test_layouts() -> None:
    layout = TextLayout(delimiter="|", quote="'", escape="\\", null_text="\\N", comment="#")
    decoded = decode("# a comment\n1|'x|y'\n2|\\\\N\n#3|z\n4|a\\|b\n5|\n", layout=layout)
    assert [r[0] for r in rows(decoded)] == [1, 2, 4, 5]
    assert [r[1] for r in rows(decoded)][0::2] == ["x|y", "a|b"]
    assert rows(decode("1,NA\n2,\n", layout=TextLayout(null_text="NA"))) == [(1, None), (2, "")]
    assert rows(decode('1;x"y\n', layout=TextLayout(delimiter=";", quote=""))) == [(1, 'x"y')]
    assert rows(decode("1\tx\n", layout=TextLayout(delimiter="\t"))) == [(1, "x")]


def test_invalid_utf8_is_a_bad_record() -> None:
    decoded = decode(b"1,ok\n2,\xff\xfe\n3,fine\n")
    assert rows(decoded) == [(1, "ok"), (3, "fine")]
    assert [(b.code, b.payload) for b in decoded.bad] == [("MR2106", b"2,\xff\xfe")]


def test_not_null_columns() -> None:
    schema = pa.schema([pa.field("a", pa.int64(), nullable=False), ("b", pa.string())])
    decoded = decode("1,x\n,y\n", schema)
    assert rows(decoded) == [(1, "x")] and [b.code for b in decoded.bad] == ["MR2104"]


def test_headers_and_fields() -> None:
    assert header_names(b'\xef\xbb\xbfa, b ,"c,d"\r\n', PLAIN) == ["a", "b", "c,d"]
    assert split_fields('"a""b",c,""', PLAIN) == [('a"b', True), ("c", False), ("", True)]


def test_whole_records_end_outside_quotes() -> None:
    decoder = CsvDecoder(TWO, PLAIN, TWO.names)
    assert decoder.complete(b'1,x\n2,"a\nb') == 4
    assert decoder.complete(b'1,x\n2,"a\nb"\n3') == 12
    assert decoder.complete(b"1,x") == 0
