"""The Kafka source against a real broker: formats, positions, starts, discovery, transactions and metadata."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from tests.e2e.broker import Broker
from tests.e2e.kafka_rows import Reading, fill, source_spec

import millrace
from millrace.errors import Corrupt, Invalid
from millrace.operators.spec import decode, encode

SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string())])


def row(i: int) -> dict[str, object]:
    return {"id": i, "name": None if i % 7 == 0 else f"näme {i}"}


def value(i: int) -> str:
    return json.dumps(row(i), ensure_ascii=False)


def test_rows_of_all_partitions_come_in_order(broker: Broker) -> None:
    topic = broker.topic(3)
    for partition in range(3):
        fill(broker, topic, [value(i) for i in range(partition, 3000, 3)], partition)
    got = Reading(source_spec(broker, SCHEMA, topic=topic)).run()
    assert list(got.rows) == [f"{topic}/{p}" for p in range(3)]
    for partition in range(3):
        assert got.rows[f"{topic}/{partition}"] == [row(i) for i in range(partition, 3000, 3)]
    assert not got.bad


@pytest.mark.parametrize("max_rows", [1, 7, 1000])
def test_restart_at_any_cut_gives_exactly_the_rest(broker: Broker, max_rows: int) -> None:
    topic = broker.topic(2)
    for partition in range(2):
        fill(broker, topic, ["oops" if i % 11 == 3 else value(i) for i in range(60)], partition)
    spec = source_spec(broker, SCHEMA, topic=topic)
    good = [row(i) for i in range(60) if i % 11 != 3]
    first = Reading(spec, max_rows=max_rows)
    first.until(lambda: len(first.all) >= 20)
    positions = first.positions()
    first.close()
    second = Reading(decode(encode(spec)), positions, max_rows=max_rows).run()
    for split in first.rows:
        assert first.rows[split] + second.rows[split] == good
    assert len(first.bad) + len(second.bad) == 2 * sum(i % 11 == 3 for i in range(60))


def test_bad_records_say_where_they_stood(broker: Broker) -> None:
    topic = broker.topic(2)
    fill(broker, topic, [value(1), "{oops", value(2), "", " ", '{"id": "x"}', b"\xff\xfe", "[1]"], 1)
    got = Reading(source_spec(broker, SCHEMA, topic=topic)).run()
    assert got.rows[f"{topic}/1"] == [row(1), row(2)]
    assert [(b.split, b.position) for b in got.bad] == [
        (f"{topic}/1", f"offset {i}") for i in (1, 3, 4, 5, 6, 7)
    ]
    assert got.bad[0].payload == b"{oops"


def test_values_that_span_lines_are_one_record(broker: Broker) -> None:
    topic = broker.topic()
    fill(broker, topic, [json.dumps(row(1), indent=2), value(2), '{"id": 3, "name": "a\nb"}', '{"id":4}\n'])
    got = Reading(source_spec(broker, SCHEMA, topic=topic)).run()
    assert got.all == [row(1), row(2), {"id": 4, "name": None}]
    assert [b.position for b in got.bad] == ["offset 2"]


def test_csv_and_raw(broker: Broker) -> None:
    topic = broker.topic()
    fill(broker, topic, ["1,a", '2,"b,""c\nd"', "x,y", "3", '"4', "5,e\n"])
    got = Reading(source_spec(broker, SCHEMA, "csv", topic=topic)).run()
    assert got.all == [{"id": 1, "name": "a"}, {"id": 2, "name": 'b,"c\nd'}, {"id": 5, "name": "e"}]
    assert [b.position for b in got.bad] == ["offset 2", "offset 3", "offset 4"]
    raw = Reading(source_spec(broker, pa.schema([("line", pa.string())]), "raw", topic=topic)).run()
    assert [r["line"] for r in raw.all] == ["1,a", '2,"b,""c\nd"', "x,y", "3", '"4', "5,e\n"]


def test_debezium_changes_carry_weights(broker: Broker) -> None:
    topic = broker.topic()
    changes = [
        {"before": None, "after": {"id": 1, "name": "a"}, "op": "c"},
        {"before": {"id": 1, "name": "a"}, "after": {"id": 1, "name": "b"}, "op": "u"},
        {"before": {"id": 1, "name": "b"}, "after": None, "op": "d"},
    ]
    fill(broker, topic, [*(json.dumps(c) for c in changes), None, "{"])
    schema = pa.schema([*SCHEMA, pa.field("at", pa.int64(), metadata={b"metadata": b"offset"})])
    spec = source_spec(broker, schema, "debezium-json", topic=topic)
    got = Reading(spec, max_rows=1).run()
    split = f"{topic}/0"
    assert [(r["name"], r["at"], w) for r, w in zip(got.rows[split], got.weights[split], strict=True)] == [
        ("a", 0, 1), ("a", 1, -1), ("b", 1, 1), ("b", 2, -1)
    ]  # fmt: skip
    assert [b.position for b in got.bad] == ["offset 4"]


def test_metadata_columns(broker: Broker) -> None:
    topic = broker.topic()
    fill(
        broker, topic, [value(1), None], keys=["k1", None], headers=[("h", b"x"), ("h", b"y")], timestamp=1234
    )
    wanted = {
        "o": (pa.int64(), "offset"), "p": (pa.int32(), "_partition"), "t": (pa.string(), "topic"),
        "ts": (pa.timestamp("ms"), "timestamp"), "k": (pa.string(), "key"), "h": (pa.string(), "headers.h"),
        "all": (pa.map_(pa.string(), pa.binary()), "headers"),
    }  # fmt: skip
    schema = pa.schema(
        [*SCHEMA, *(pa.field(n, t, metadata={b"metadata": k.encode()}) for n, (t, k) in wanted.items())]
    )
    spec = source_spec(broker, schema, topic=topic, tombstones="null")
    got = Reading(spec).run().all
    stamp = pa.scalar(1234, pa.timestamp("ms")).as_py()
    assert got == [
        row(1) | {"o": 0, "p": 0, "t": topic, "ts": stamp, "k": "k1", "h": "y", "all": [("h", b"y")]},
        {
            "id": None,
            "name": None,
            "o": 1,
            "p": 0,
            "t": topic,
            "ts": stamp,
            "k": None,
            "h": "y",
            "all": [("h", b"y")],
        },
    ]
    assert Reading(spec.with_columns((4, 0))).run().all == [{"t": topic, "id": 1}, {"t": topic, "id": None}]
    counted = Reading(spec.with_columns(()))
    counted.until(lambda: all(r.ended for r in counted.readers.values()))
    assert len(counted.close().all) == 2


def test_keys_and_tombstones_are_upserts(broker: Broker) -> None:
    topic = broker.topic()
    fill(broker, topic, [value(1), value(2), None, '{"name":"z"}', None], keys=["1", "2", "1", "x", None])
    got = Reading(source_spec(broker, SCHEMA, topic=topic, mode="upsert", key="id")).run()
    split = f"{topic}/0"
    assert list(zip([r["id"] for r in got.rows[split]], got.weights[split], strict=True)) == [
        (1, 1),
        (2, 1),
        (1, -1),
    ]
    assert [b.position for b in got.bad] == ["offset 3", "offset 4"]


def test_starts(broker: Broker) -> None:
    topic = broker.topic(2)
    fill(broker, topic, [value(1)], 0, timestamp=1000)
    fill(broker, topic, [value(2)], 0, timestamp=2000)
    fill(broker, topic, [value(3)], 1, timestamp=1500)

    def ids(**options: str) -> list[object]:
        return [r["id"] for r in Reading(source_spec(broker, SCHEMA, topic=topic, **options)).run().all]

    assert ids() == [1, 2, 3]
    assert ids(start="latest") == []
    assert ids(start="timestamp", start_timestamp="1400") == [2, 3]
    assert ids(start="timestamp", start_timestamp="1970-01-01T00:00:01.800Z") == [2]
    assert ids(start="offsets", start_offsets="0:1,1:0") == [2, 3]
    assert ids(
        scan_startup_mode="specific-offsets", start_offsets="partition:0,offset:2;partition:1,offset:0"
    ) == [3]


def test_latest_reads_only_what_follows_and_new_partitions_whole(broker: Broker) -> None:
    topic = broker.topic(1)
    fill(broker, topic, [value(1)])
    spec = source_spec(broker, SCHEMA, topic=topic, start="latest", stop="never", discovery_interval="1ms")
    reading = Reading(spec)
    fill(broker, topic, [value(2)])
    broker.grow(topic, 2)
    fill(broker, topic, [value(3)], 1)
    reading.until(lambda: len(reading.readers) == 2 or reading.discover())
    reading.until(lambda: len(reading.all) == 2)
    assert reading.close().all == [row(2), row(3)]


def test_pattern_finds_topics_that_appear(broker: Broker) -> None:
    stem = broker.topic(1)
    reading = Reading(
        source_spec(broker, SCHEMA, topic_pattern=f"{stem}(-x)?", stop="never", discovery_interval="1ms")
    )
    assert list(reading.readers) == [f"{stem}/0"]
    other = broker.topic(2, f"{stem}-x")
    broker.topic(1, f"{stem}-y")
    fill(broker, other, [value(5)], 1)
    reading.until(lambda: len(reading.readers) == 3 or reading.discover())
    reading.until(lambda: len(reading.all) == 1)
    assert reading.close().rows[f"{other}/1"] == [row(5)]


def test_read_committed_passes_over_aborted_rows(broker: Broker) -> None:
    from confluent_kafka import Producer

    topic = broker.topic()
    producer = Producer({"bootstrap.servers": broker.servers, "transactional.id": topic})
    producer.init_transactions(30)
    for numbers, commit in (((1, 2), True), ((3, 4), False), ((5,), True), ((6,), False)):
        producer.begin_transaction()
        for i in numbers:
            producer.produce(topic, value(i))
        producer.flush()
        producer.commit_transaction(30) if commit else producer.abort_transaction(30)
    got = Reading(source_spec(broker, SCHEMA, topic=topic)).run()
    assert [r["id"] for r in got.all] == [1, 2, 5]
    loose = Reading(source_spec(broker, SCHEMA, topic=topic, isolation_level="read_uncommitted")).run()
    assert [r["id"] for r in loose.all] == [1, 2, 3, 4, 5, 6]


def test_deleted_offsets_are_an_error_and_no_gap(broker: Broker) -> None:
    from confluent_kafka import TopicPartition

    topic = broker.topic()
    fill(broker, topic, [value(i) for i in range(10)])
    broker.admin.delete_records([TopicPartition(topic, 0, 5)])[TopicPartition(topic, 0)].result(30)
    spec = source_spec(broker, SCHEMA, topic=topic)
    assert [r["id"] for r in Reading(spec).run().all] == [5, 6, 7, 8, 9]
    reading = Reading(spec, {f"{topic}/0": {"offset": 2, "stop": 10}})
    with pytest.raises(Corrupt, match="offset 2"):
        reading.run()
    reading.close()


def test_missing_topic_is_named(broker: Broker) -> None:
    with pytest.raises(Invalid, match="no topic 'nope'"):
        Reading(source_spec(broker, SCHEMA, topic="nope"))


def test_sql_reads_topics(broker: Broker) -> None:
    topic = broker.topic(2)
    for partition in range(2):
        fill(broker, topic, [value(i) for i in range(100)], partition, timestamp=1_700_000_000_000)
    with millrace.connect() as db:
        db.execute(
            f"""CREATE SOURCE s (id BIGINT, name VARCHAR, part INT METADATA FROM 'partition', at TIMESTAMP(3) METADATA FROM 'timestamp')
            FROM KAFKA (bootstrap.servers = '{broker.servers}', topic = '{topic}', stop = 'latest') FORMAT JSON"""
        )
        answer = db.query(
            "SELECT part, count(*) AS n, sum(id) AS total, min(at) AS at FROM s GROUP BY part ORDER BY part"
        )
        assert [(r["part"], r["n"], r["total"]) for r in answer.rows()] == [(0, 100, 4950), (1, 100, 4950)]
        inferred = db.query(f"SELECT max(id) AS m FROM 'kafka://{broker.servers}/{topic}?stop=latest'")
        assert inferred.rows() == [{"m": 99}]
