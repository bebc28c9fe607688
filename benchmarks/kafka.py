"""Kafka to Kafka: 100-byte JSON records into a tumbling aggregate and back, beside what a bare consumer reads.

Starts a broker of its own; needs Java, and Maven for the first time.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from tests.e2e.broker import Broker, missing

from millrace.database import connect

RECORDS = 1_000_000
PARTITIONS = 2
RUNS = 3
KEYS = 1_000
FLOOR = 400_000
"""Records a second and core that the exactly-once road must reach."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One run: seconds by the clock and of this process' CPU, and what came out."""

    wall_s: float
    cpu_s: float
    records: int


def run(as_json: bool) -> None:
    """Print one line a road: records a second, and a second of CPU. Each run is a process of its own."""
    reason = missing()
    if reason is not None:
        raise SystemExit(reason)
    broker = Broker()
    try:
        topic = broker.topic(PARTITIONS)
        _fill(broker.servers, topic)
        rows = {road: _measure(broker, road, topic) for road in ("consume", "at_least_once", "exactly_once")}
    finally:
        broker.close()
    for road, timings in rows.items():
        cpu = statistics.median(t.cpu_s for t in timings)
        wall = statistics.median(t.wall_s for t in timings)
        row = {
            "benchmark": f"kafka_{road}",
            "records": RECORDS,
            "record_bytes": len(_record(0)),
            "wall_s": round(wall, 3),
            "cpu_s": round(cpu, 3),
            "records_per_s": round(RECORDS / wall),
            "records_per_cpu_s": round(RECORDS / cpu),
            "floor": FLOOR if road == "exactly_once" else None,
            "spread": round(max(t.cpu_s for t in timings) / min(t.cpu_s for t in timings) - 1, 3),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}",
        }
        if as_json:
            print(json.dumps(row))
        else:
            print(
                f"{road:<16} {row['records_per_s']:>11,} records/s {row['records_per_cpu_s']:>11,} a CPU-second"
                f"  spread {row['spread']:.0%}"
            )


def _record(i: int) -> bytes:
    """About 100 bytes."""
    return (
        (
            f'{{"id":{i:08d},"symbol":"SYM{i * 7919 % KEYS:05d}","price":{100 + i % 977 / 8:.3f},"size":{1 + i % 100},'
            f'"ts":{1_700_000_000_000 + i // 10},"venue":"XN"}}'
        )
        .replace('"id":0', '"id":1', 1)
        .encode()
    )


def _fill(servers: str, topic: str) -> None:
    producer = Producer(
        {"bootstrap.servers": servers, "linger.ms": 20, "queue.buffering.max.messages": 500_000}
    )
    for i in range(RECORDS):
        while True:
            try:
                producer.produce(topic, _record(i), partition=i % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0


def _measure(broker: Broker, road: str, topic: str) -> list[Timing]:
    timings = []
    for _ in range(RUNS):
        target = broker.topic(PARTITIONS)
        command = [sys.executable, "-m", "benchmarks.kafka", road, broker.servers, topic, target]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        timings.append(Timing(**json.loads(answer.stdout.splitlines()[-1])))
    return timings


def _consume(servers: str, topic: str) -> int:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "bench", "enable.partition.eof": True,
                         "queued.min.messages": 200_000, "fetch.queue.backoff.ms": 5})  # fmt: skip
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
    ended = records = 0
    while ended < PARTITIONS:
        for message in consumer.consume(20_000, 0.01):
            error = message.error()
            if error is None:
                records += 1
            else:
                assert error.code() == KafkaError._PARTITION_EOF
                ended += 1
    consumer.close()
    return records


def _aggregate(servers: str, topic: str, target: str, delivery: str) -> int:
    with connect() as db:
        db.execute(
            f"""
            CREATE SOURCE trades (id BIGINT, symbol VARCHAR, price DOUBLE, size BIGINT, ts TIMESTAMP(3),
              WATERMARK FOR ts) FROM KAFKA (bootstrap.servers = '{servers}', topic = '{topic}', stop = 'latest');
            CREATE SINK out FROM (
              SELECT symbol, window_end AS at, count(*) AS n, sum(price * size) AS turnover, max(price) AS top
              FROM TABLE(TUMBLE(TABLE trades, DESCRIPTOR(ts), INTERVAL '5' SECOND)) GROUP BY symbol, window_end
            ) INTO KAFKA (bootstrap.servers = '{servers}', topic = '{target}', key = 'symbol',
                          delivery = '{delivery}', transactional.prefix = '{target}');
            """
        )
        assert db.wait(600)
        records = db.progress().rows_in
        assert not db.progress().dead_rows
    return records


def main() -> None:
    """One run of one road, for `run`."""
    road, servers, topic, target = sys.argv[1:]
    if road != "consume":
        _warm()
    before = resource.getrusage(resource.RUSAGE_SELF)
    begun = time.perf_counter()
    records = _consume(servers, topic) if road == "consume" else _aggregate(servers, topic, target, road)
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert records == RECORDS, records
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "records": records}))


def _warm() -> None:
    """Load the kernels that the query uses."""
    with connect() as db:
        db.execute(
            """
            CREATE SOURCE trades (id BIGINT, symbol VARCHAR, price DOUBLE, size BIGINT, ts TIMESTAMP(3),
              WATERMARK FOR ts) WITH ('connector' = 'push');
            CREATE SINK out FROM (
              SELECT symbol, window_end AS at, count(*) AS n, sum(price * size) AS turnover, max(price) AS top
              FROM TABLE(TUMBLE(TABLE trades, DESCRIPTOR(ts), INTERVAL '5' SECOND)) GROUP BY symbol, window_end
            ) INTO BLACKHOLE ();
            """
        )
        db.push(
            "trades", [{"id": i, "symbol": "A", "price": 1.0, "size": 1, "ts": 1000 * i} for i in range(20)]
        )
        db.end("trades")
        db.wait(60)


if __name__ == "__main__":
    main()
