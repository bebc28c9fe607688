"""Avro records against fastavro: random schemas and records, writers' evolution, and what fails and how."""

from __future__ import annotations

import datetime
import io
import json
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millrace.errors import BadData, Invalid, Unsupported
from millrace.operators.formats.avro_decode import AvroColumns, AvroDecoder
from millrace.operators.formats.avro_encode import AvroEncoder
from millrace.operators.formats.avro_schema import arrow_schema, parse_avro, schema_of

UTC = datetime.UTC


def record(*fields: object, name: str = "R") -> dict[str, Any]:
    """A record of fields that are (name, type) or (name, type, default)."""
    made = []
    for field in fields:
        assert isinstance(field, tuple)
        made.append(dict(zip(("name", "type", "default"), field, strict=False)))
    return {"type": "record", "name": name, "fields": made}


def written(schema: dict[str, Any], rows: Sequence[Any]) -> list[bytes]:
    parsed = fastavro.parse_schema(schema)
    values = []
    for row in rows:
        target = io.BytesIO()
        fastavro.schemaless_writer(target, parsed, row)
        values.append(target.getvalue())
    return values


def decoded(
    values: Sequence[bytes],
    writer: dict[str, Any],
    reader: dict[str, Any] | None = None,
    wanted: Sequence[str] | None = None,
) -> AvroColumns:
    target = parse_avro([json.dumps(reader or writer)], "the reader's schema")
    names = [f.name for f in target.fields] if wanted is None else wanted
    ends = np.cumsum(np.array([len(v) for v in values], np.int64))
    starts = ends - np.array([len(v) for v in values], np.int64)
    source = parse_avro([json.dumps(writer)], "the writer's schema")
    found = AvroDecoder(target, names).decode(b"".join(values), starts, ends, 1, source)
    found.data.validate(full=True)
    return found


def plain(value: Any) -> Any:
    """A value as fastavro gives it, as Arrow gives it."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, uuid.UUID):
        return str(value)
    return value


def as_rows(found: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows, with maps as dicts."""

    def tidy(value: Any, type: pa.DataType) -> Any:
        if value is None:
            return None
        if pa.types.is_map(type):
            return {k: tidy(v, type.item_type) for k, v in value}
        if pa.types.is_list(type):
            return [tidy(v, type.value_type) for v in value]
        if pa.types.is_struct(type):
            return {f.name: tidy(value[f.name], f.type) for f in type}
        return value

    return [{f.name: tidy(row[f.name], f.type) for f in found.schema} for row in found.to_pylist()]


_LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    ("boolean", st.booleans()),
    ("int", st.integers(-(2**31), 2**31 - 1)),
    ("long", st.integers(-(2**63), 2**63 - 1)),
    ("float", st.floats(width=32, allow_nan=False)),
    ("double", st.floats(allow_nan=False)),
    ("string", st.text(max_size=12)),
    ("bytes", st.binary(max_size=12)),
    ({"type": "int", "logicalType": "date"}, st.dates()),
    (
        {"type": "long", "logicalType": "timestamp-micros"},
        st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1), timezones=st.just(UTC)),
    ),
    ({"type": "long", "logicalType": "time-micros"}, st.times()),
    ({"type": "string", "logicalType": "uuid"}, st.uuids()),
    (
        {"type": "bytes", "logicalType": "decimal", "precision": 26, "scale": 4},
        st.integers(-(10**26) + 1, 10**26 - 1).map(lambda n: Decimal(n).scaleb(-4)),
    ),
    (
        {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        st.integers(-(10**9) + 1, 10**9 - 1).map(lambda n: Decimal(n).scaleb(-2)),
    ),
]


@st.composite
def typed(draw: st.DrawFn, depth: int, names: list[int]) -> tuple[Any, st.SearchStrategy[Any]]:
    """A schema and a strategy of its values."""
    kind = draw(
        st.sampled_from(
            ["leaf"] * 4 + ["null", "record", "array", "map", "enum", "fixed"][: 6 if depth else 1]
        )
    )
    names.append(0)
    name = f"T{len(names)}"
    match kind:
        case "null":
            inner, values = draw(typed(0 if depth == 0 else depth - 1, names))
            if isinstance(inner, list):
                return inner, values
            order = draw(st.booleans())
            return (["null", inner] if order else [inner, "null"]), st.none() | values
        case "record":
            members = [draw(typed(depth - 1, names)) for _ in range(draw(st.integers(1, 3)))]
            fields = [(f"m{i}", schema) for i, (schema, _) in enumerate(members)]
            return record(*fields, name=name), st.fixed_dictionaries(
                {f"m{i}": values for i, (_, values) in enumerate(members)}
            )
        case "array" | "map":
            inner, values = draw(typed(depth - 1, names))
            if kind == "array":
                return {"type": "array", "items": inner}, st.lists(values, max_size=4)
            return {"type": "map", "values": inner}, st.dictionaries(st.text(max_size=4), values, max_size=3)
        case "enum":
            return {"type": "enum", "name": name, "symbols": ["A", "B", "C"]}, st.sampled_from("ABC")
        case "fixed":
            return {"type": "fixed", "name": name, "size": 5}, st.binary(min_size=5, max_size=5)
    return draw(st.sampled_from(_LEAVES))


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    names: list[int] = []
    columns = [draw(typed(2, names)) for _ in range(draw(st.integers(1, 4)))]
    schema = record(*((f"c{i}", made) for i, (made, _) in enumerate(columns)))
    values = st.fixed_dictionaries({f"c{i}": strategy for i, (_, strategy) in enumerate(columns)})
    return schema, draw(st.lists(values, max_size=6))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables(), st.data())
def test_random_records_are_what_fastavro_wrote(
    table: tuple[dict[str, Any], list[dict[str, Any]]], data: st.DataObject
) -> None:
    schema, rows = table
    values = written(schema, rows)
    found = decoded(values, schema)
    assert not found.bad
    assert as_rows(found.data) == [plain(row) for row in rows]
    wanted = data.draw(st.lists(st.sampled_from([f["name"] for f in schema["fields"]]), unique=True))
    if wanted:
        part = decoded(values, schema, wanted=wanted)
        assert as_rows(part.data) == [{name: plain(row[name]) for name in wanted} for row in rows]


def test_fields_that_have_no_column_type_are_passed_over() -> None:
    schema = record(
        ("u", ["int", "string", {"type": "array", "items": ["null", "double", "bytes"]}]),
        ("duration", {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}),
        ("id", "long"),
    )
    plain_schema = json.loads(json.dumps(schema).replace('"logicalType": "duration"', '"x": 0'))
    us: list[Any] = [1, "x", [None, 0.5, b"yz"], [], "ä"]
    rows = [{"u": u, "duration": b"123456789012", "id": i} for i, u in enumerate(us)]
    found = decoded(written(plain_schema, rows), schema, wanted=["id"])
    assert found.data.to_pylist() == [{"id": i} for i in range(5)]


def test_many_rows_with_lists_outgrow_the_first_room() -> None:
    schema = record(("id", "long"), ("tags", {"type": "array", "items": "string"}))
    rows = [{"id": i, "tags": [f"t{j}" for j in range(i % 9)]} for i in range(3000)]
    assert as_rows(decoded(written(schema, rows), schema).data) == rows


@pytest.mark.parametrize(
    ("writer", "reader", "value", "expected"),
    [
        ("int", "long", 7, 7),
        ("int", "float", 7, 7.0),
        ("long", "double", -7, -7.0),
        ("float", "double", 0.5, 0.5),
        ("string", "bytes", "ä", "ä".encode()),
        ("bytes", "string", "ä".encode(), "ä"),
        ("int", ["null", "long"], 3, 3),
        (["null", "int"], "long", 3, 3),
        (["int", "double"], "double", 3, 3.0),
        (["int", "double"], "double", 2.5, 2.5),
        (["null", "string"], ["string", "null"], None, None),
        (
            {"type": "long", "logicalType": "timestamp-millis"},
            {"type": "long", "logicalType": "timestamp-micros"},
            datetime.datetime(2024, 1, 2, tzinfo=UTC),
            datetime.datetime(2024, 1, 2, tzinfo=UTC),
        ),
        (
            {"type": "int", "logicalType": "time-millis"},
            {"type": "int", "logicalType": "time-millis"},
            datetime.time(1, 2, 3, 4000),
            datetime.time(1, 2, 3, 4000),
        ),
        (
            {"type": "enum", "name": "E", "symbols": ["A", "B"]},
            {"type": "enum", "name": "E", "symbols": ["B", "Z"], "default": "Z"},
            "A",
            "Z",
        ),
        (
            {"type": "fixed", "name": "F", "size": 6, "logicalType": "decimal", "precision": 12, "scale": 2},
            {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2},
            Decimal("-1234567890.12"),
            Decimal("-1234567890.12"),
        ),
        (
            {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"},
            {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"},
            uuid.UUID("12345678-1234-5678-9234-567812345678").bytes,
            "12345678-1234-5678-9234-567812345678",
        ),
    ],
)
def test_a_writers_type_is_read_as_the_readers(writer: Any, reader: Any, value: Any, expected: Any) -> None:
    plain_writer = json.loads(json.dumps(writer).replace('"logicalType": "uuid"', '"x": 0'))
    values = written(record(("a", plain_writer)), [{"a": value}])
    found = decoded(values, record(("a", writer)), record(("a", reader)))
    assert not found.bad
    assert found.data.to_pylist() == [{"a": expected}]


def test_fields_added_removed_renamed_and_moved() -> None:
    writer = record(("gone", {"type": "map", "values": ["null", "long"]}), ("old", "int"), ("b", "string"))
    reader = record(
        ("b", "string"),
        ("new", "long"),
        ("text", "string", "dé"),
        ("number", ["null", "double"], None),
        ("ratio", "double", 1.5),
        ("list", {"type": "array", "items": "string"}, ["x", "yz"]),
        ("part", record(("p", "int", 4), ("q", ["null", "string"], None), name="P"), {"p": 9}),
        ("price", {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 1}, "\u00ff"),
    )
    reader["fields"][1]["aliases"] = ["old"]
    rows = [{"gone": {"k": 1, "n": None}, "old": i, "b": f"b{i}"} for i in range(200)]
    found = decoded(written(writer, rows), writer, reader)
    assert not found.bad
    rest = {
        "text": "dé",
        "number": None,
        "ratio": 1.5,
        "list": ["x", "yz"],
        "part": {"p": 9, "q": None},
        "price": Decimal("-0.1"),
    }
    assert found.data.to_pylist() == [{"b": f"b{i}", "new": i, **rest} for i in range(200)]


def test_a_writer_that_does_not_resolve_makes_every_record_bad() -> None:
    writer, reader = record(("a", "string")), record(("a", "int"))
    found = decoded(written(writer, [{"a": "x"}] * 2), writer, reader)
    assert found.data.num_rows == 0
    assert found.bad == dict.fromkeys(
        range(2),
        (
            "MR2102",
            "the writer's schema does not resolve: field 'a': string can not be read as int",
        ),
    )


def test_records_that_are_broken_are_bad_and_leave_nothing_behind() -> None:
    schema = record(
        ("s", "string"),
        ("l", {"type": "array", "items": "long"}),
        ("u", ["null", "int"]),
        ("d", {"type": "bytes", "logicalType": "decimal", "precision": 3, "scale": 0}),
    )
    good = {"s": "ok", "l": [1, 2], "u": 5, "d": Decimal(12)}
    [whole] = written(schema, [good])
    cases = {
        whole[:-1]: ("MR2107", "field 'd': the record ends before it is whole"),
        whole + b"\0": ("MR2101", "bytes are left behind the record"),
        b"\x02\xff" + whole[3:]: ("MR2106", "field 's': text is no UTF-8"),
        b"\x01" + whole: ("MR2101", "field 's': a length or a count can not be"),
        b"\xff" * 11: ("MR2101", "field 's': a number has more than ten bytes"),
        whole[:7] + b"\x04" + whole[8:]: ("MR2101", "field 'u': a union has no such branch"),
        whole[:-2] + b"\x04\x7f\xff": ("MR2101", "field 'd': a decimal has more digits than its precision"),
        b"": ("MR2107", "field 's': the record ends before it is whole"),
    }
    values = [v for broken in cases for v in (broken, whole)]
    found = decoded(values, schema)
    assert found.data.to_pylist() == [good] * len(cases)
    assert found.bad == {2 * i: why for i, why in enumerate(cases.values())}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=20))
def test_no_bytes_break_the_decoder(values: list[bytes]) -> None:
    schema = record(
        ("s", ["null", "string"]),
        ("m", {"type": "map", "values": {"type": "array", "items": "string"}}),
        ("r", record(("x", "double"), ("y", ["null", "bytes", "int"]), name="Q")),
    )
    reader = record(
        ("s", ["null", "string"]),
        ("m", {"type": "map", "values": {"type": "array", "items": "string"}}),
    )
    found = decoded(values, schema, reader)
    assert found.data.num_rows + len(found.bad) == len(values)


def test_names_refer_to_types_of_other_schemas() -> None:
    other = {"type": "record", "name": "P", "namespace": "a.b", "fields": [{"name": "x", "type": "int"}]}
    mine = {
        "type": "record",
        "name": "R",
        "namespace": "a.b",
        "fields": [{"name": "p", "type": "P"}, {"name": "q", "type": ["null", "a.b.P"]}],
    }
    found = parse_avro([json.dumps(other), json.dumps(mine)], "it")
    point = pa.struct([("x", pa.int32())])
    assert arrow_schema(found) == pa.schema([("p", point), ("q", point)])


@pytest.mark.parametrize(
    ("schema", "code"),
    [
        ("{", "MR1483"),
        ('{"type": "record"}', "MR1483"),
        ('{"type": "record", "name": "R", "fields": [{"name": "a", "type": "what"}]}', "MR1483"),
        ('["null", ["int"]]', "MR1483"),
        (
            '{"type": "record", "name": "R", "fields": [{"name": "a", "type": ["null", "R"]}]}',
            "MR1914",
        ),
        ('{"type": "record", "name": "R", "fields": [{"name": "a", "type": ["int", "string"]}]}', "MR1917"),
        ('{"type": "record", "name": "R", "fields": [{"name": "a", "type": "null"}]}', "MR1917"),
        (
            json.dumps(record(("a", {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}))),
            "MR1917",
        ),
    ],
)
def test_schemas_without_columns_are_refused(schema: str, code: str) -> None:
    with pytest.raises((Invalid, Unsupported)) as caught:
        arrow_schema(parse_avro([schema], "it"))
    assert caught.value.code == code


def encoded(rows: pa.RecordBatch, schema: dict[str, Any]) -> list[bytes]:
    return AvroEncoder(parse_avro([json.dumps(schema)], "it"), rows.schema).encode(rows, b"")


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables(), st.data())
def test_what_is_written_is_what_fastavro_writes(
    table: tuple[dict[str, Any], list[dict[str, Any]]], data: st.DataObject
) -> None:
    schema, rows = table
    values = written(schema, rows)
    batch = decoded(values, schema).data
    low = data.draw(st.integers(0, len(rows)))
    high = data.draw(st.integers(low, len(rows)))
    parsed = fastavro.parse_schema(schema)
    back = [
        fastavro.schemaless_reader(io.BytesIO(v), parsed, None)
        for v in encoded(batch.slice(low, high - low), schema)
    ]
    assert back == rows[low:high]


def test_columns_make_a_schema_that_reads_them_back() -> None:
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            ("small", pa.uint8()),
            ("text", pa.string()),
            ("ts", pa.timestamp("ms")),
            ("price", pa.decimal64(12, 2)),
            ("tags", pa.list_(pa.string())),
            ("at", pa.struct([("x", pa.float64()), ("y", pa.list_(pa.int32()))])),
            ("more", pa.map_(pa.string(), pa.int64())),
        ]
    )
    rows = [
        {
            "id": i,
            "small": i % 200,
            "text": None if i % 5 == 0 else f"ö{i}",
            "ts": datetime.datetime(2024, 1, 1, 0, 0, i % 60),
            "price": Decimal(-i).scaleb(-2),
            "tags": None if i % 3 == 0 else [f"t{j}" if j else None for j in range(i % 4)],
            "at": None if i % 4 == 0 else {"x": i / 2, "y": [1, None, i]},
            "more": [(f"k{i}", i), ("n", None)],
        }
        for i in range(500)
    ]
    text = schema_of(schema, "Row")
    made = json.loads(text)
    batch = pa.RecordBatch.from_pylist(rows, schema=schema)
    for part in (batch, batch.slice(13, 100)):
        found = decoded(encoded(part, made), made)
        assert not found.bad
        wide = pa.RecordBatch.from_arrays(
            [a.cast(f.type) for a, f in zip(found.data.columns, schema, strict=True)], schema=schema
        )
        assert wide.to_pylist() == part.to_pylist()


def test_what_a_schema_does_not_take_is_refused() -> None:
    rows = pa.record_batch({"a": pa.array([1, None])})
    with pytest.raises(BadData) as null:
        encoded(rows, record(("a", "long")))
    assert null.value.code == "MR2115"
    for schema in (record(("b", "long")), record(("a", "long"), ("b", "long")), record(("a", "bytes"))):
        with pytest.raises(Invalid) as caught:
            encoded(rows, schema)
        assert caught.value.code == "MR1488"
    with pytest.raises(Unsupported) as type_:
        schema_of(pa.schema([("a", pa.duration("us"))]), "R")
    assert type_.value.code == "MR1915"
