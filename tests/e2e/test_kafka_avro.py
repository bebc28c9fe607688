"""Avro through a real broker, its schemas in a registry: there and back, evolved mid-topic, refused where it must be.

The registry is `tests/schema_registry.py`, which says what it stands in for.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from tests import schema_registry
from tests.e2e.broker import Broker
from tests.e2e.kafka_rows import Reading, fill, messages, source_spec
from tests.schema_registry import SchemaRegistry

import millrace
from millrace.errors import Invalid, MillraceError, Unavailable
from millrace.operators.connectors import registry as connectors
from millrace.operators.connectors.kafka import schema_registry as client
from millrace.operators.connectors.kafka.registered import RegisteredRows
from millrace.operators.connectors.kafka.sink import KafkaSinkSpec
from millrace.operators.sink import Changelog
from millrace.operators.spec import decode, encode

_FIRST = {
    "type": "record",
    "name": "Order",
    "fields": [{"name": "id", "type": "int"}, {"name": "who", "type": "string"}],
}
_SECOND = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "id", "type": "long"},
        {"name": "who", "type": "string"},
    ],
}


@pytest.fixture
def registry() -> Iterator[SchemaRegistry]:
    with schema_registry.running() as found:
        yield found


def message(number: int, schema: Mapping[str, Any], row: Mapping[str, Any]) -> bytes:
    target = io.BytesIO(b"\0" + number.to_bytes(4, "big"))
    target.seek(0, io.SEEK_END)
    fastavro.schemaless_writer(target, fastavro.parse_schema(dict(schema)), row)
    return target.getvalue()


def test_there_and_back_with_schemas_that_change_mid_topic(broker: Broker, registry: SchemaRegistry) -> None:
    source, target = broker.topic(), broker.topic()
    first = registry.add(f"{source}-value", _FIRST)
    second = registry.add(f"{source}-value", _SECOND)
    values = [message(first, _FIRST, {"id": i, "who": f"wö{i}"}) for i in range(20)]
    values += [message(second, _SECOND, {"note": "n", "id": 2**40 + i, "who": "x"}) for i in range(20)]
    values += [message(first, _FIRST, {"id": i, "who": "late"}) for i in range(20, 30)]
    values += [
        b"\0\0\0\0\x63abc",
        b"no header",
        values[0][:-1],
        message(second, _SECOND, {"note": None, "id": -1, "who": ""}),
    ]
    fill(broker, source, values)
    got = Reading(source_spec(broker, None, "avro", topic=source, schema_registry_url=registry.url)).run()
    expected = [{"note": None, "id": i, "who": f"wö{i}"} for i in range(20)]
    expected += [{"note": "n", "id": 2**40 + i, "who": "x"} for i in range(20)]
    expected += [{"note": None, "id": i, "who": "late"} for i in range(20, 30)]
    expected.append({"note": None, "id": -1, "who": ""})
    assert got.all == expected
    assert [(b.position, b.code) for b in got.bad] == [
        ("offset 50", "MR2114"),
        ("offset 51", "MR2101"),
        ("offset 52", "MR2107"),
    ]
    assert "the registry has no schema 99" in got.bad[0].reason
    assert registry.asked.count(f"GET /schemas/ids/{first}") == 1

    where = f"'connector' = 'kafka', 'bootstrap.servers' = '{broker.servers}', 'schema.registry.url' = '{registry.url}'"
    with millrace.connect() as db:
        db.execute(
            f"""
            CREATE SOURCE s WITH ({where}, 'topic' = '{source}', 'format' = 'avro', 'stop' = 'latest');
            CREATE SINK o FROM (SELECT id, note, who, id * 1.5::DOUBLE AS f FROM s) INTO KAFKA (
              bootstrap.servers = '{broker.servers}', topic = '{target}', key = 'id', key.format = 'avro',
              'schema.registry.url' = '{registry.url}', delivery = 'exactly_once', transactional.prefix = '{target}'
            ) FORMAT AVRO;
            """
        )
        assert db.wait(60)
    assert set(registry.subjects) >= {f"{target}-value", f"{target}-key"}
    number = registry.subjects[f"{target}-value"][0]
    for found in messages(broker, target):
        assert found.value()[:5] == b"\0" + number.to_bytes(4, "big")
    back = Reading(
        source_spec(
            broker, None, "avro", topic=target, key="id", key_format="avro", schema_registry_url=registry.url
        )
    ).run()
    assert not back.bad
    assert back.all == [{**row, "f": row["id"] * 1.5} for row in expected]


def test_declared_columns_are_cast_and_tombstones_delete(broker: Broker, registry: SchemaRegistry) -> None:
    topic = broker.topic()
    key = {"type": "record", "name": "K", "fields": [{"name": "id", "type": "long"}]}
    keyed, number = registry.add(f"{topic}-key", key), registry.add(f"{topic}-value", _FIRST)
    keys = [message(keyed, key, {"id": i}) for i in (1, 2, 1)]
    rows = [message(number, _FIRST, {"id": i, "who": f"w{i}"}) for i in (1, 2)]
    fill(broker, topic, [*rows, None], keys=keys)
    schema = pa.schema([("ID", pa.int16()), ("who", pa.string())])
    got = Reading(
        source_spec(
            broker,
            schema,
            "avro",
            topic=topic,
            key="id",
            key_format="avro",
            mode="upsert",
            schema_registry_url=registry.url,
        )
    ).run()
    assert not got.bad
    assert got.all == [{"ID": 1, "who": "w1"}, {"ID": 2, "who": "w2"}, {"ID": 1, "who": None}]
    assert got.weights[f"{topic}/0"] == [1, 1, -1]


def test_without_a_registry_messages_are_bare_records(broker: Broker) -> None:
    topic = broker.topic()
    fill(broker, topic, [message(0, _FIRST, {"id": i, "who": "w"})[5:] for i in range(3)])
    text = '{"type":"record","name":"Order","fields":[{"name":"id","type":"int"},{"name":"who","type":"string"}]}'
    got = Reading(source_spec(broker, None, "avro", topic=topic, value_schema=text)).run()
    assert got.all == [{"id": i, "who": "w"} for i in range(3)]


def test_a_sink_names_its_subject_and_takes_a_schema(registry: SchemaRegistry) -> None:
    schema = pa.schema([("id", pa.int64()), ("who", pa.string())])
    options = {"bootstrap.servers": "nobody:1", "topic": "orders", "format": "avro"}
    options |= {"schema.registry.url": registry.url, "schema": json.dumps(_SECOND)}

    def subject(**more: str) -> str:
        given = {**options, **{name.replace("_", "."): value for name, value in more.items()}}
        spec = connectors.sink_spec("kafka", given, schema, Changelog.APPEND, ())
        assert isinstance(spec, KafkaSinkSpec)
        found = decode(encode(spec)).target.encoding.value_schema
        assert found is not None
        rows = RegisteredRows(found, schema)
        batch = pa.RecordBatch.from_pylist([{"id": 7, "who": "ä"}], schema=schema)
        number = registry.subjects[found.subject][-1]
        assert rows.encode(batch) == [message(number, _SECOND, {"note": None, "id": 7, "who": "ä"})]
        return str(found.subject)

    assert subject() == "orders-value"
    assert subject(subject_name_strategy="record") == "Order"
    assert subject(subject="mine") == "mine"
    assert not [asked for asked in registry.asked if asked.startswith("GET")]
    lacking = {**options, "schema": json.dumps(_FIRST | {"fields": _FIRST["fields"][:1]})}
    with pytest.raises(Invalid) as caught:
        connectors.sink_spec("kafka", lacking, schema, Changelog.APPEND, ())
    assert caught.value.code == "MR1488"


def test_what_can_not_be_is_refused_at_planning(
    broker: Broker, registry: SchemaRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ATTEMPTS", 1)
    topic = broker.topic()
    registry.add(f"{topic}-value", _FIRST)
    registry.add("proto-value", "syntax", "PROTOBUF")

    def refused(
        schema: pa.Schema | None = None, url: str = registry.url, format: str = "avro", **options: str
    ) -> MillraceError:
        given = {"topic": topic, "schema_registry_url": url, **options}
        with pytest.raises(MillraceError) as caught:
            source_spec(broker, schema, format, **given)
        return caught.value

    assert refused(pa.schema([("whom", pa.string())])).code == "MR1487"
    assert refused(pa.schema([("who", pa.list_(pa.int64()))])).code == "MR1487"
    assert refused(topic="other").code == "MR1484"
    assert refused(topic="proto").code == "MR1484"
    assert refused(value_schema="{").code == "MR1483"
    assert refused(url="ftp://x").code == "MR1485"
    assert refused(format="protobuf").code == "MR1916"
    union = {
        "type": "record",
        "name": "U",
        "fields": [{"name": "u", "type": ["int", "string"]}, _FIRST["fields"][0]],
    }
    registry.add("union-value", union)
    assert refused(topic="union").code == "MR1917"
    assert refused(pa.schema([("u", pa.string())]), topic="union").code == "MR1917"
    some = pa.schema([("id", pa.int64())])
    source_spec(broker, some, "avro", topic="union", schema_registry_url=registry.url)
    nowhere = {"url": "https://127.0.0.1:9", "schema_registry_ssl_ca_location": "/no/such.pem"}
    assert refused(None, **nowhere).code == "MR1485"
    down = refused(url="http://127.0.0.1:9")
    assert isinstance(down, Unavailable)
    assert down.code == "MR3033"
    registry.authorization = "Basic dTpw"
    assert isinstance(refused(), Invalid)
    options = {"schema_registry_basic_auth_user_info": "u:p"}
    spec = source_spec(broker, None, "avro", topic=topic, schema_registry_url=registry.url, **options)
    assert spec.output_schema.names == ["id", "who"]
    registry.authorization = "Bearer tok"
    options = {"schema_registry_bearer_auth_token": "tok"}
    source_spec(broker, None, "avro", topic=topic, schema_registry_url=registry.url, **options)
