"""Kafka to Kafka on a Ray cluster, exactly once through SIGKILL of partitions and of the coordinator."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
from tests.chaos.verdict import Verdict, check_copies, check_totals, check_windows
from tests.chaos.workload import Feeder, Topics, aggregating, copying, windows_of
from tests.e2e.broker import Broker
from tests.e2e.kafka_rows import fill, messages
from tests.e2e.ray_jobs import until

from millrace.cluster.jobs import Cluster, Job
from millrace.errors import Unavailable
from millrace.submitting import job_spec

EVENTS = 60_000
PARTITIONS = 6

pytestmark = [
    pytest.mark.timeout(240),
    # Ray leaves sockets and files to the end of the process.
    pytest.mark.filterwarnings("default"),
]


def submitted(cluster: Cluster, name: str, sql: str, store: Path, partitions: int = 2) -> Job:
    settings = {"batch.max_rows": "256"}
    spec = job_spec(
        sql, job=name, partitions=partitions, checkpoint_interval=0.3, variables={}, settings=settings
    )
    return cluster.submit(spec, f"file://{store}", num_cpus=0.5)


def fed(broker: Broker) -> Topics:
    topics = Topics.make(broker, PARTITIONS)
    assert Feeder(broker, topics.events, PARTITIONS, EVENTS, 0).start().done.wait(60)
    return topics


def come(broker: Broker, topic: str, rows: int, timeout: float = 60) -> None:
    """Wait until so many rows are committed in a topic."""
    deadline = time.monotonic() + timeout
    while len(messages(broker, topic)) < rows:
        assert time.monotonic() < deadline, f"{len(messages(broker, topic))} of {rows} rows came"
        time.sleep(0.3)


def test_aggregates_behind_an_exchange_are_exact(broker: Broker, cluster: Cluster, tmp_path: Path) -> None:
    topics = fed(broker)
    job = submitted(cluster, "sums", aggregating(broker, topics), tmp_path)
    until(cluster, "sums", 1)
    os.kill(cluster.processes("sums")["partition-1"], signal.SIGKILL)
    until(cluster, "sums", 2)
    os.kill(cluster.processes("sums")["coordinator"], signal.SIGKILL)
    verdict = Verdict(EVENTS)
    come(broker, topics.windows, len(windows_of(EVENTS)))
    assert job.stop() == "stopped by a user"
    check_windows(broker, topics.windows, verdict)
    check_totals(broker, topics.totals, verdict)
    assert verdict.clean, verdict.faults


def test_copies_keep_their_order_and_new_partitions_are_read(
    broker: Broker, cluster: Cluster, tmp_path: Path
) -> None:
    topics = fed(broker)
    sql = copying(broker, topics).replace("');", "', discovery.interval = '100ms');", 1)
    job = submitted(cluster, "copies", sql, tmp_path)
    until(cluster, "copies", 1)
    before = cluster.processes("copies")
    os.kill(before["partition-0"], signal.SIGKILL)
    until(cluster, "copies", 2)
    assert cluster.processes("copies")["partition-1"] == before["partition-1"]  # alone it recovers
    come(broker, topics.copies, EVENTS)
    verdict = Verdict(EVENTS)
    check_copies(broker, topics.copies, verdict)
    assert verdict.clean, verdict.faults
    broker.grow(topics.events, PARTITIONS + 1)
    fill(broker, topics.events, [f'{{"id":{EVENTS},"k":"new","g":1}}'], PARTITIONS)
    come(broker, topics.copies, EVENTS + 1)
    assert sum(p.splits for p in job.status().partitions) == PARTITIONS + 1
    job.stop()
    assert len(messages(broker, topics.copies)) == EVENTS + 1


def test_a_job_that_starts_at_the_latest_starts_there_whoever_reads(
    broker: Broker, cluster: Cluster, tmp_path: Path
) -> None:
    topics = Topics.make(broker, 2)
    for partition in range(2):
        fill(broker, topics.events, ['{"id":0,"k":"old","g":1}'], partition)
    sql = copying(broker, topics).replace("');", "', start = 'latest');", 1)
    job = submitted(cluster, "latest", sql, tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "latest" / "beginnings").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # Nobody reads yet, and what comes now is the job's; nor does a death before the first checkpoint change that.
    for partition in range(2):
        fill(broker, topics.events, [f'{{"id":{partition + 1},"k":"new","g":1}}'], partition)
    with contextlib.suppress(Unavailable, KeyError):
        os.kill(cluster.processes("latest")["partition-0"], signal.SIGKILL)
    come(broker, topics.copies, 2)
    job.stop()
    assert sorted(json.loads(m.value() or b"")["id"] for m in messages(broker, topics.copies)) == [1, 2]
