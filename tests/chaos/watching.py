"""Looks at jobs and topics once in a while: what runs where, how far everything has come, what recovered when."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import ray
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec
from ray.exceptions import RayError
from tests.e2e.broker import Broker

from millrace.cluster.coordination import JobStatus
from millrace.cluster.ray.session import METADATA, NAMESPACE, coordinator_name
from millrace.errors import MillraceError

LOOK_S = 0.4
ANSWER_S = 2.0


@dataclass(slots=True)
class Sample:
    """One look: seconds since the start, rows committed by topic, phase and epochs by job."""

    at: float
    rows: dict[str, int]
    phases: dict[str, str]


@dataclass(slots=True)
class Seen:
    """What is known of one job. `owners` has the epoch of every partition, `pids` its process."""

    status: JobStatus | None = None
    at: float = 0.0
    pids: dict[str, int] = field(default_factory=dict)
    decided_at: float = 0.0

    def owner(self, partition: int) -> int:
        """The epoch of a partition's owner, 0 where none is known."""
        found = [] if self.status is None else self.status.partitions
        return next((p.epoch for p in found if p.partition == partition and p.phase == "running"), 0)


class Watcher:
    """Owns two threads, one for jobs and one for topics. What it says may be a second old."""

    def __init__(self, broker: Broker, topics: dict[str, int], jobs: list[str], begun: float) -> None:
        self.begun = begun
        self.samples: list[Sample] = []
        self.jobs = {job: Seen(decided_at=time.monotonic()) for job in jobs}
        self.metadata = 0
        self.rows = dict.fromkeys(topics, 0)
        self._broker = broker
        self._topics = topics
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._loop, args=(look,), name=f"watch-{look.__name__}", daemon=True)
            for look in (self._look_at_jobs, self._look_at_topics)
        ]

    def start(self) -> Watcher:
        """Begin to look."""
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        for thread in self._threads:
            thread.join(30)

    def _loop(self, look: Any) -> None:
        while not self._ended.wait(LOOK_S):
            look()

    def _look_at_jobs(self) -> None:
        for job, seen in self.jobs.items():
            with contextlib.suppress(RayError, ValueError, MillraceError):
                coordinator: Any = ray.get_actor(coordinator_name(job), NAMESPACE)
                status, pids = ray.get(
                    [coordinator.status.remote(), coordinator.pids.remote()], timeout=ANSWER_S
                )
                if seen.status is None or status.checkpoint != seen.status.checkpoint:
                    seen.decided_at = time.monotonic()
                seen.status, seen.pids, seen.at = status, pids, time.monotonic()
        with contextlib.suppress(RayError, ValueError):
            metadata: Any = ray.get_actor(METADATA, NAMESPACE)
            self.metadata = ray.get(metadata.pid.remote(), timeout=ANSWER_S)

    def _look_at_topics(self) -> None:
        for topic, partitions in self._topics.items():
            latest = OffsetSpec.latest()
            assert latest is not None
            places = {TopicPartition(topic, p): latest for p in range(partitions)}
            with contextlib.suppress(KafkaException, TimeoutError):
                asked = self._broker.admin.list_offsets(
                    places, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=ANSWER_S
                )
                self.rows[topic] = sum(answer.result(ANSWER_S).offset for answer in asked.values())
        now = time.monotonic()
        phases = {
            job: seen.status.phase if seen.status is not None and now - seen.at < 2 * ANSWER_S else "away"
            for job, seen in self.jobs.items()
        }
        self.samples.append(Sample(now - self.begun, dict(self.rows), phases))
