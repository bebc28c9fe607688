"""Kafka over TLS with a password: the settings pass through to every client, and who is refused is told so."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from tests.e2e.broker import PASSWORD, USER, Broker
from tests.e2e.kafka_rows import Clock, fill, messages

import millrace
from millrace.errors import Invalid, MillraceError
from millrace.operators.batch import Batch
from millrace.operators.connectors import registry
from millrace.operators.sink import Changelog

SCHEMA = pa.schema([("id", pa.int64())])


def settings(broker: Broker, spelling: str = "kafka", password: str = PASSWORD) -> dict[str, str]:
    given = {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(broker.authority),
        "sasl.mechanism": "PLAIN",
        "sasl.username": USER,
        "sasl.password": password,
    }
    return {f"{spelling}.{name}": value for name, value in given.items()}


@pytest.mark.parametrize("spelling", ["kafka", "properties"])
def test_rows_go_through_tls_in_and_out(broker: Broker, spelling: str) -> None:
    source, target = broker.topic(), broker.topic()
    fill(broker, source, [json.dumps({"id": i}) for i in range(50)])
    options = ", ".join(f"'{name}' = '{value}'" for name, value in settings(broker, spelling).items())
    with millrace.connect() as db:
        db.execute(
            f"""
            CREATE SOURCE s (id BIGINT) FROM KAFKA (bootstrap.servers = '{broker.secure_servers}',
              topic = '{source}', stop = 'latest', {options});
            CREATE SINK once FROM s INTO KAFKA (bootstrap.servers = '{broker.secure_servers}', topic = '{target}',
              delivery = 'exactly_once', transactional.prefix = '{target}', {options});
            """
        )
        assert db.wait(60)
    assert [json.loads(m.value() or b"")["id"] for m in messages(broker, target)] == list(range(50))


def test_a_wrong_password_is_told_and_the_right_one_is_not_shown(broker: Broker) -> None:
    topic = broker.topic()
    given = {"bootstrap.servers": broker.secure_servers, "topic": topic, **settings(broker, password="wrong")}
    sink = None
    with pytest.raises(MillraceError) as refused:
        sink = registry.sink_spec("kafka", given, SCHEMA, Changelog.APPEND, ()).build(Clock(), 0)
        sink.write(Batch(pa.RecordBatch.from_pydict({"id": [1]}, schema=SCHEMA)))
        sink.seal(1)
    assert refused.value.code in ("MR1471", "MR3030")
    assert "wrong" not in str(refused.value)
    assert sink is None


def test_settings_on_which_guarantees_rest_are_refused(broker: Broker) -> None:
    for name in ("enable.auto.commit", "transactional.id"):
        given = {"bootstrap.servers": broker.servers, "topic": "t", f"kafka.{name}": "true"}
        with pytest.raises(Invalid) as refused:
            registry.sink_spec("kafka", given, SCHEMA, Changelog.APPEND, ())
        assert refused.value.code == "MR1470"


def test_sql_writes_keys_headers_partitions_and_tombstones(broker: Broker) -> None:
    source, target, changes = broker.topic(), broker.topic(3), broker.topic()
    fill(broker, source, [json.dumps({"k": f"k{i % 3}", "v": i, "p": i % 3}) for i in range(9)])
    with millrace.connect() as db:
        db.execute(
            f"""
            CREATE SOURCE s (k VARCHAR, v BIGINT, p INT)
              FROM KAFKA (bootstrap.servers = '{broker.servers}', topic = '{source}', stop = 'latest');
            CREATE SINK told FROM (SELECT k, v, p, MAP['from', k, 'by', 'test'] AS h FROM s) INTO KAFKA
              (bootstrap.servers = '{broker.servers}', topic = '{target}', key = 'k', partition = 'p', headers = 'h',
               value.fields-include = 'except_key');
            CREATE SINK few FROM (SELECT k, sum(v) AS total FROM s GROUP BY k HAVING sum(v) < 10) INTO KAFKA
              (bootstrap.servers = '{broker.servers}', topic = '{changes}');
            """
        )
        assert db.wait(60)
    found = messages(broker, target)
    assert len(found) == 9
    for message in found:
        key = (message.key() or b"").decode()
        value = json.loads(message.value() or b"")
        assert f"k{message.partition()}" == key == f"k{value['v'] % 3}"
        assert set(value) == {"v", "p"} or set(value) == {"v"}
        assert dict(message.headers() or []) == {"from": key.encode(), "by": b"test"}
    last = {m.key(): m.value() for m in messages(broker, changes)}
    # Totals: k0 9, k1 12, k2 15. Those that grew beyond the limit are taken back by a message without a value.
    assert json.loads(last[b"k0"] or b"") == {"k": "k0", "total": 9}
    assert last.get(b"k1") is None and last.get(b"k2") is None
