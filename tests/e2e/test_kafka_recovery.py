"""A whole dataflow from topic to topic through crashes and a broker's restart: every row's effect once."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
from tests.e2e.broker import Broker
from tests.e2e.kafka_rows import Reading, fill, messages, source_spec
from tests.e2e.test_kafka_source import SCHEMA, value

from millrace.cluster.capture import Restored
from millrace.cluster.dataflow import Dataflow
from millrace.operators.connectors.kafka.sink import KafkaOutboxSpec
from millrace.planner.session import Planner

KEYS = 7


def job(broker: Broker, source: str, target: str) -> str:
    """Running totals by key, each change a record."""
    return f"""
        CREATE SOURCE s (k VARCHAR, v BIGINT) FROM KAFKA
          (bootstrap.servers = '{broker.servers}', topic = '{source}', stop = 'latest');
        CREATE SINK out FROM (SELECT k, sum(v) AS total, count(*) AS n FROM s GROUP BY k) INTO KAFKA
          (bootstrap.servers = '{broker.servers}', topic = '{target}', delivery = 'exactly_once',
           transactional.prefix = 'job-{target}');
        CREATE SINK copy FROM (SELECT v FROM s) INTO KAFKA
          (bootstrap.servers = '{broker.servers}', topic = '{target}-copy', delivery = 'exactly_once',
           transactional.prefix = 'job-{target}');
    """


@pytest.mark.parametrize("seed", range(3))
def test_crashes_at_any_step_neither_lose_nor_double(broker: Broker, seed: int) -> None:
    source, target = broker.topic(2), broker.topic()
    broker.topic(1, f"{target}-copy")
    for partition in range(2):
        numbers = range(partition, 400, 2)
        fill(broker, source, [json.dumps({"k": f"k{i % KEYS}", "v": i}) for i in numbers], partition)
    plan, _ = Planner().compile(job(broker, source, target))
    assert sum(isinstance(node.spec, KafkaOutboxSpec) for node in plan.nodes) == 2
    rng = random.Random(seed)
    number = 0
    durable: tuple[Restored, list[tuple[int, list[bytes]]]] | None = None
    crashes = 0
    while True:
        flow = Dataflow(batch_rows=rng.choice((5, 30, 400)))
        flow.extend(plan)
        if durable is not None:
            state, unpublished = durable
            for decided, sealed in unpublished:
                for sink, outbox in zip(flow.sinks, sealed, strict=True):
                    sink.sink.publish(decided, outbox)
            flow.restore(state)
        finished = False
        while not finished:
            for _ in range(rng.randrange(1, 4)):
                deadline = time.monotonic() + 20
                while not flow.poll() and not flow.ended:
                    assert time.monotonic() < deadline
                    time.sleep(0.001)
            number += 1
            sealed = [sink.sink.seal(number) for sink in flow.sinks]
            captured = Restored.of(flow.capture(changes=False))
            if crashes < 6 and rng.random() < 0.3:
                break
            earlier = [] if durable is None else durable[1]
            durable = (captured, [*earlier[-3:], (number, sealed)])
            if crashes < 6 and rng.random() < 0.3:
                break
            for sink, outbox in zip(flow.sinks, sealed, strict=True):
                sink.sink.publish(number, outbox)
                if crashes < 6 and rng.random() < 0.2:
                    break
            else:
                finished = flow.ended
                continue
            break
        flow.close()
        if finished:
            break
        crashes += 1
    assert crashes
    assert sorted(json.loads(m.value())["v"] for m in messages(broker, f"{target}-copy")) == list(range(400))
    last = {m.key(): json.loads(m.value()) for m in messages(broker, target)}
    for j in range(KEYS):
        mine = range(j, 400, KEYS)
        assert last[f"k{j}".encode()] == {"k": f"k{j}", "total": sum(mine), "n": len(mine)}
    # Each change of a total is there once and in order: counts by key only grow.
    counts: dict[bytes, int] = {}
    for message in messages(broker, target):
        n = json.loads(message.value())["n"]
        assert n > counts.get(message.key(), 0)
        counts[message.key()] = n


def test_source_and_sinks_live_through_a_restart_of_the_broker(tmp_path: Path) -> None:
    from tests.e2e import broker as kafka

    kafka.require()
    broker = kafka.Broker()
    try:
        source, target = broker.topic(), broker.topic()
        fill(broker, source, [value(i) for i in range(100)])
        reading = Reading(source_spec(broker, SCHEMA, topic=source, stop="never"))
        reading.until(lambda: len(reading.all) == 100)
        from tests.e2e.test_kafka_sink import outbox, round, sink_spec, values

        direct = sink_spec(broker, target).build(reading.clock, 0)
        exact = outbox(broker, target)
        exact.publish(1, round(exact, 1, 1))
        direct.publish(1, round(direct, 1, 2))
        (reader,) = reading.readers.values()
        reading.until(lambda: reader.caught_up)
        broker.stop()
        reading.until(lambda: not reader.caught_up)  # nobody says that there is nothing
        broker.start()
        reading.until(lambda: reader.caught_up)
        exact.publish(2, round(exact, 2, 3))
        direct.publish(2, round(direct, 2, 4))
        assert sorted(values(broker, target)) == [1, 2, 3, 4]
        fill(broker, source, [value(i) for i in range(100, 200)])
        reading.until(lambda: len(reading.all) == 200)
        assert [r["id"] for r in reading.all] == list(range(200))
        reading.close()
        direct.close()
        exact.close()
    finally:
        broker.close()
