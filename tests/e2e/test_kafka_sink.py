"""The Kafka sinks against a real broker: formats, keys, tombstones, exactly once through crashes and zombies."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Producer
from tests.e2e.broker import Broker
from tests.e2e.kafka_rows import Clock, Reading, fill, messages, source_spec

import millrace
from millrace.errors import Fenced, Invalid
from millrace.operators.batch import Batch
from millrace.operators.connectors import registry
from millrace.operators.connectors.kafka.sink import KafkaOutboxSpec, KafkaSinkSpec, OutboxSink
from millrace.operators.sink import Changelog, Commit, Sink, SinkSpec
from millrace.operators.spec import decode, encode

SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string())])


def batch(*ids: int, weights: list[int] | None = None) -> Batch:
    rows = [{"id": i, "name": f"näme {i}"} for i in ids]
    return Batch(
        pa.RecordBatch.from_pylist(rows, schema=SCHEMA),
        None if weights is None else np.array(weights, np.int64),
    )


def sink_spec(
    broker: Broker,
    topic: str,
    format: str = "json",
    schema: pa.Schema = SCHEMA,
    mode: Changelog = Changelog.APPEND,
    key: tuple[str, ...] = (),
    **options: str,
) -> SinkSpec:
    given = {name.replace("_", "."): value for name, value in options.items()}
    settings = {"bootstrap.servers": broker.servers, "topic": topic, "format": format, **given}
    return decode(encode(registry.sink_spec("kafka", settings, schema, mode, key)))


def outbox(broker: Broker, topic: str, partition: int = 0) -> OutboxSink:
    spec = sink_spec(broker, topic, delivery="exactly_once", transactional_prefix=f"job-{topic}")
    assert isinstance(spec, KafkaOutboxSpec)
    assert spec.commit is Commit.TRANSACTIONAL
    sink = OutboxSink(spec, partition)
    sink.fence()
    sink.marker()
    return sink


def producer_of(sink: OutboxSink) -> Producer:
    assert sink._deliveries is not None
    return sink._deliveries.producer


def values(broker: Broker, topic: str) -> list[int]:
    return [json.loads(m.value())["id"] for m in messages(broker, topic)]


def round(sink: Sink, number: int, *ids: int) -> bytes:
    sink.write(batch(*ids))
    return sink.seal(number)


@pytest.mark.parametrize("format", ["json", "csv", "debezium-json"])
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_every_format_comes_back(broker: Broker, format: str, delivery: str) -> None:
    topic = broker.topic()
    schema = pa.schema(
        [
            ("b", pa.bool_()),
            ("i", pa.int64()),
            ("f", pa.float64()),
            ("s", pa.string()),
            ("t", pa.timestamp("us")),
        ]
    )
    rows = [
        {
            "b": True,
            "i": 2**62,
            "f": 0.1,
            "s": 'q"ö,\n',
            "t": pa.scalar(10**15 + 1, pa.timestamp("us")).as_py(),
        },
        {"b": None, "i": None, "f": None, "s": None, "t": None},
        {"b": False, "i": -1, "f": 1e300, "s": "", "t": pa.scalar(-1, pa.timestamp("us")).as_py()},
    ]
    spec = sink_spec(broker, topic, format, schema, delivery=delivery, transactional_prefix=topic)
    sink = spec.build(Clock(), 0)
    sink.write(Batch(pa.RecordBatch.from_pylist(rows, schema=schema)))
    sink.publish(1, sink.seal(1))
    sink.close()
    assert Reading(source_spec(broker, schema, format, topic=topic)).run().all == rows


def test_raw_values_with_key_partition_timestamp_and_headers(broker: Broker) -> None:
    topic = broker.topic(3)
    schema = pa.schema(
        [
            ("k", pa.int64()), ("v", pa.binary()), ("p", pa.int32()), ("ts", pa.timestamp("us")),
            ("h", pa.map_(pa.string(), pa.string())),
        ]
    )  # fmt: skip
    stamp = pa.scalar(1_700_000_000_123_000, pa.timestamp("us")).as_py()
    rows = [
        {"k": 7, "v": b"\x00\xff", "p": 2, "ts": stamp, "h": [("a", "ä"), ("b", None)]},
        {"k": None, "v": None, "p": 0, "ts": None, "h": None},
    ]
    options = {
        "partition": "p", "timestamp": "ts", "headers": "h", "key": "k", "value.fields-include": "except_key",
        "bootstrap.servers": broker.servers, "topic": topic, "format": "raw",
    }  # fmt: skip
    for delivery in ("at_least_once", "exactly_once"):
        spec = registry.sink_spec(
            "kafka",
            {**options, "delivery": delivery, "transactional.prefix": topic},
            schema,
            Changelog.APPEND,
            (),
        )
        sink = spec.build(Clock(), 0)
        sink.write(Batch(pa.RecordBatch.from_pylist(rows, schema=schema)))
        sink.publish(1, sink.seal(1))
        sink.close()
    found = messages(broker, topic)
    assert [(m.partition(), m.key(), m.value()) for m in found] == [(0, None, None)] * 2 + [
        (2, b"7", b"\x00\xff")
    ] * 2
    assert found[2].timestamp()[1] == 1_700_000_000_123
    assert found[2].headers() == found[3].headers() == [("a", "ä".encode()), ("b", None)]


def test_keys_choose_partitions_as_java_does(broker: Broker) -> None:
    topic = broker.topic(4)
    sink = sink_spec(broker, topic, key=("name",), key_format="raw").build(Clock(), 0)
    sink.write(
        Batch(
            pa.RecordBatch.from_pylist([{"id": 1, "name": n} for n in ("21", "foobar", "a")], schema=SCHEMA)
        )
    )
    sink.publish(1, sink.seal(1))
    sink.close()
    # murmur2 of these keys as Java's client computes it: -973932308, -790332482, and one more.
    by_key = {m.key(): m.partition() for m in messages(broker, topic)}
    assert by_key[b"21"] == (-973932308 & 0x7FFFFFFF) % 4
    assert by_key[b"foobar"] == (-790332482 & 0x7FFFFFFF) % 4


def test_removed_keys_become_tombstones(broker: Broker) -> None:
    topic = broker.topic()
    sink = sink_spec(broker, topic, mode=Changelog.UPSERT, key=("id",)).build(Clock(), 0)
    sink.write(batch(1, 2, 1, weights=[1, 1, -1]))
    sink.publish(1, sink.seal(1))
    sink.close()
    assert [(m.key(), m.value() is None) for m in messages(broker, topic)] == [
        (b"1", False),
        (b"2", False),
        (b"1", True),
    ]
    got = Reading(source_spec(broker, SCHEMA, topic=topic, mode="upsert", key="id")).run()
    assert got.weights[f"{topic}/0"] == [1, 1, -1]


def test_modes_a_sink_can_not_take_are_refused(broker: Broker) -> None:
    with pytest.raises(Invalid) as refused:
        sink_spec(broker, "t", mode=Changelog.RETRACT)
    assert refused.value.code == "MR1407"
    with pytest.raises(Invalid) as refused:
        registry.sink_spec(
            "kafka",
            {"bootstrap.servers": broker.servers, "topic": "t", "key": "name"},
            SCHEMA,
            Changelog.UPSERT,
            ("id",),
        )
    assert refused.value.code == "MR1481"
    with pytest.raises(Invalid) as refused:
        sink_spec(broker, "t", kafka_transactional_id="x")
    assert refused.value.code in ("MR1401", "MR1470")
    with pytest.raises(Invalid, match="no topic"):
        sink_spec(broker, "missing").build(Clock(), 0)


def test_outbox_is_seen_when_published_and_once(broker: Broker) -> None:
    topic = broker.topic()
    sink = outbox(broker, topic)
    first = round(sink, 5, 1, 2)
    second = round(sink, 6, 3)
    assert values(broker, topic) == []
    sink.publish(5, first)
    sink.publish(5, first)
    sink.publish(6, second)
    sink.publish(5, first)
    sink.publish(7, round(sink, 7))
    assert values(broker, topic) == [1, 2, 3]
    sink.close()


def test_crash_between_seal_and_publish_then_republish_gives_rows_once(broker: Broker) -> None:
    topic = broker.topic()
    dead = outbox(broker, topic)
    dead.publish(1, round(dead, 1, 1))
    lost, kept = round(dead, 2, 2), round(dead, 3, 3)
    del dead
    alive = outbox(broker, topic)
    assert alive.marker() == 1
    for number, sealed in ((1, b""), (2, lost), (3, kept)):
        alive.publish(number, sealed)
    alive.close()
    again = outbox(broker, topic)
    assert again.marker() == 3
    again.publish(3, kept)
    again.close()
    assert values(broker, topic) == [1, 2, 3]


def test_crash_within_the_transaction_leaves_nothing(broker: Broker) -> None:
    topic = broker.topic()
    dead = outbox(broker, topic)
    sealed = round(dead, 1, 1, 2)
    producer = producer_of(dead)
    producer.begin_transaction()
    producer.produce(topic, b'{"id": 99}')
    producer.flush()
    alive = outbox(broker, topic)
    assert alive.marker() is None
    alive.publish(1, sealed)
    alive.close()
    assert values(broker, topic) == [1, 2]


def test_zombie_is_fenced(broker: Broker) -> None:
    topic = broker.topic()
    zombie = outbox(broker, topic)
    zombie.publish(1, round(zombie, 1, 1))
    sealed = round(zombie, 2, 2)
    successor = outbox(broker, topic)
    successor.publish(2, sealed)
    with pytest.raises(Fenced) as fenced:
        zombie.publish(2, sealed)
    assert fenced.value.code == "MR4031"
    with pytest.raises(Fenced):
        zombie.publish(3, sealed)
    successor.publish(3, round(successor, 3, 3))
    successor.close()
    assert values(broker, topic) == [1, 2, 3]


def test_zombie_in_mid_transaction_is_fenced(broker: Broker) -> None:
    topic = broker.topic()
    zombie = outbox(broker, topic)
    producer = producer_of(zombie)
    producer.begin_transaction()
    producer.produce(topic, b'{"id": 99}')
    producer.flush()
    successor = outbox(broker, topic)
    successor.publish(1, round(successor, 1, 1))
    producer.produce(topic, b'{"id": 100}')
    with pytest.raises(Exception, match=r"(?i)fenc|epoch|newer"):
        producer.commit_transaction(10)
    successor.close()
    assert values(broker, topic) == [1]


def test_marker_is_found_behind_the_open_transaction_of_another(broker: Broker) -> None:
    topic = broker.topic()
    sink = outbox(broker, topic)
    place = sink._markers().place(sink.transactional_id)
    other = Producer({"bootstrap.servers": broker.servers, "transactional.id": f"other-{topic}"})
    other.init_transactions(30)
    other.begin_transaction()
    other.produce(sink._markers().topic, b"9", b"somebody/else/0", partition=place)
    other.flush()
    sealed = round(sink, 1, 1)
    sink.publish(1, sealed)
    ending = threading.Timer(1.5, lambda: other.commit_transaction(10))
    ending.start()
    begun = time.monotonic()
    successor = outbox(broker, topic)
    assert successor.marker() == 1
    assert time.monotonic() - begun > 0.5
    successor.publish(1, sealed)
    ending.join()
    successor.close()
    assert values(broker, topic) == [1]


def test_partitions_of_a_sink_have_their_own_markers(broker: Broker) -> None:
    topic = broker.topic()
    sinks = [outbox(broker, topic, partition) for partition in range(3)]
    for partition, sink in enumerate(sinks):
        for number in range(1, partition + 2):
            sink.publish(number, round(sink, number, 10 * partition + number))
        sink.close()
    assert [outbox(broker, topic, partition).marker() for partition in range(3)] == [1, 2, 3]
    assert sorted(values(broker, topic)) == [1, 11, 12, 21, 22, 23]
    assert broker.config("__millrace_markers")["cleanup.policy"] == "compact"


def test_sql_from_topic_to_topic(broker: Broker) -> None:
    source, target = broker.topic(2), broker.topic()
    for partition in range(2):
        rows = [
            json.dumps({"k": f"k{i % 5}", "v": i, "ts": 1_700_000_000_000 + i * 100}) for i in range(1000)
        ]
        fill(broker, source, rows, partition)
    with millrace.connect() as db:
        db.execute(
            f"""
            CREATE TABLE src (k VARCHAR, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND) WITH
              ('connector' = 'kafka', 'properties.bootstrap.servers' = '{broker.servers}', 'topic' = '{source}',
               'format' = 'json', 'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset');
            CREATE SINK out FROM (
              SELECT k, window_end AS at, count(*) AS n, sum(v) AS total
              FROM TABLE(TUMBLE(TABLE src, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY k, window_end
            ) INTO KAFKA (bootstrap.servers = '{broker.servers}', topic = '{target}', key = 'k') FORMAT JSON;
            """
        )
        assert db.wait(60)
    found = [json.loads(m.value()) for m in messages(broker, target)]
    assert {m.key() for m in messages(broker, target)} == {f"k{i}".encode() for i in range(5)}
    expected: dict[tuple[str, int], tuple[int, int]] = {}
    for i in list(range(1000)) * 2:
        key = (f"k{i % 5}", (1_700_000_000_000 + i * 100) // 10_000)
        n, total = expected.get(key, (0, 0))
        expected[key] = n + 1, total + i
    assert len(found) == len(expected)
    assert sorted((r["k"], r["n"], r["total"]) for r in found) == sorted(
        (k, *v) for (k, _), v in expected.items()
    )


def test_a_second_run_under_the_same_name_shows_its_rows_too(broker: Broker) -> None:
    source, target = broker.topic(), broker.topic()
    fill(broker, source, [json.dumps({"id": i}) for i in range(20)])
    for run in range(2):
        with millrace.connect() as db:
            db.execute(
                f"""
                CREATE SOURCE s (id BIGINT)
                  FROM KAFKA (bootstrap.servers = '{broker.servers}', topic = '{source}', stop = 'latest');
                CREATE SINK out FROM s INTO KAFKA (bootstrap.servers = '{broker.servers}', topic = '{target}',
                  delivery = 'exactly_once', transactional.prefix = 'again');
                """
            )
            assert db.wait(60)
        assert len(values(broker, target)) == 20 * (run + 1)


def test_sql_updates_by_key(broker: Broker) -> None:
    source, target = broker.topic(), broker.topic()
    fill(broker, source, [json.dumps({"k": f"k{i % 3}", "v": i}) for i in range(30)])
    with millrace.connect() as db:
        db.execute(
            f"""
            CREATE SOURCE s (k VARCHAR, v BIGINT)
              FROM KAFKA (bootstrap.servers = '{broker.servers}', topic = '{source}', stop = 'latest');
            CREATE TABLE t (k VARCHAR, total BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH
              ('connector' = 'upsert-kafka', 'bootstrap.servers' = '{broker.servers}', 'topic' = '{target}',
               'key.format' = 'raw', 'value.format' = 'json');
            INSERT INTO t SELECT k, sum(v) FROM s GROUP BY k;
            """
        )
        assert db.wait(60)
    last = {m.key(): json.loads(m.value())["total"] for m in messages(broker, target)}
    assert last == {f"k{j}".encode(): sum(range(j, 30, 3)) for j in range(3)}
    assert isinstance(KafkaSinkSpec.commit, Commit)


def test_sql_reads_and_makes_headers(broker: Broker) -> None:
    source, target = broker.topic(), broker.topic()
    fill(
        broker, source, ['{"id": 1}', '{"id": 2}'], keys=["a", None], headers=[("trace", b"t"), ("old", b"o")], timestamp=1234
    )  # fmt: skip
    with millrace.connect() as db:
        db.execute(
            f"""CREATE SOURCE s (id BIGINT) FROM KAFKA (bootstrap.servers = '{broker.servers}', topic = '{source}', stop = 'latest');
            CREATE SINK t FROM (
              SELECT id, _offset AS at, _topic AS topic, _key AS key, CAST(_timestamp AS STRING) AS ts, HEADER('trace') AS trace,
                HAS_HEADER('x') AS x, SET_HEADER('seen', _partition), REMOVE_HEADER('old')
              FROM s WHERE HAS_HEADER('old')
            ) INTO KAFKA (bootstrap.servers = '{broker.servers}', topic = '{target}') FORMAT JSON"""
        )
        assert db.wait(30)
        rows = db.query("SELECT _offset, HEADER_KEYS() AS keys FROM s ORDER BY _offset DESC LIMIT 1").rows()
        assert rows == [{"_offset": 1, "keys": ["trace", "old"]}]
    found = messages(broker, target)
    same = {"topic": source, "ts": "1970-01-01 00:00:01.234", "trace": "t", "x": False}
    assert [json.loads(m.value() or b"") for m in found] == [
        {"id": 1, "at": 0, "key": "a", **same},
        {"id": 2, "at": 1, "key": None, **same},
    ]
    assert [m.headers() for m in found] == [[("trace", b"t"), ("seen", b"0")]] * 2
