"""A SQL file from Kafka to Kafka in one process, exactly once through SIGKILL: the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from tests.chaos.verdict import Verdict, check_copies, check_totals, check_windows
from tests.chaos.workload import Feeder, Topics, aggregating, copying, windows_of
from tests.e2e.broker import Broker
from tests.e2e.kafka_rows import messages

SOURCE = Path(__file__).parents[2] / "src"
EVENTS = 20_000
PARTITIONS = 3


def sent(broker: Broker, topic: str) -> int:
    """How far the topic's partitions have come, markers of transactions too."""
    consumer = Consumer({"bootstrap.servers": broker.servers, "group.id": "look", "log_level": 2})
    try:
        found = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        return sum(consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=30)[1] for p in found)
    finally:
        consumer.close()


@pytest.mark.timeout(300)
def test_a_file_is_exact_through_kill_9(broker: Broker, tmp_path: Path) -> None:
    topics = Topics.make(broker, PARTITIONS)
    assert Feeder(broker, topics.events, PARTITIONS, EVENTS, 0).start().done.wait(60)
    running = []
    for name, sql in (("sums", aggregating(broker, topics)), ("copies", copying(broker, topics))):
        file = tmp_path / f"{name}.sql"
        file.write_text("SET guarantee = 'exactly_once'; SET batch.max_rows = 512;\n" + sql)
        running.append(
            [sys.executable, "-c", "from millrace.cli import main; main()", "run", "-q", str(file),
             "--store", f"file://{tmp_path}/store", "--set", "checkpoint.interval=200ms"]
        )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    deadline = time.monotonic() + 200
    for kill in (True, True, False):
        processes = [subprocess.Popen(command, env=environment) for command in running]
        before = [sent(broker, topic) for topic in (topics.totals, topics.copies)]
        try:
            while kill and [sent(broker, topic) for topic in (topics.totals, topics.copies)] <= before:
                assert time.monotonic() < deadline and all(p.poll() is None for p in processes)
                time.sleep(0.1)
            while not kill and (
                len(messages(broker, topics.windows)) < len(windows_of(EVENTS))
                or len(messages(broker, topics.copies)) < EVENTS
            ):
                assert time.monotonic() < deadline and all(p.poll() is None for p in processes)
                time.sleep(0.5)
        finally:
            for process in processes:
                process.send_signal(signal.SIGKILL if kill else signal.SIGINT)
            assert {process.wait(60) for process in processes} <= {-signal.SIGKILL, 130}
    verdict = Verdict(EVENTS)
    check_windows(broker, topics.windows, verdict)
    check_totals(broker, topics.totals, verdict)
    check_copies(broker, topics.copies, verdict)
    assert verdict.clean, verdict.faults
