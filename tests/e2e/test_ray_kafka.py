"""Kafka to Kafka on a Ray cluster, exactly once through SIGKILL of partitions and of the coordinator."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from tests.chaos.verdict import Verdict, check_totals, check_windows
from tests.chaos.workload import Feeder, Topics, aggregating
from tests.e2e.broker import Broker
from tests.e2e.ray_jobs import until

from millrace.cluster.jobs import Cluster, Job
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
    from tests.e2e.kafka_rows import messages

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
    from tests.chaos.workload import windows_of

    come(broker, topics.windows, len(windows_of(EVENTS)))
    assert job.stop() == "stopped by a user"
    check_windows(broker, topics.windows, verdict)
    check_totals(broker, topics.totals, verdict)
    assert verdict.clean, verdict.faults
