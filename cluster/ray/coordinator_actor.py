"""The actor that leads one job. Leaves its work to the driver."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayError

from millrace.cluster.coordination import CoordinatorDriver, JobStatus
from millrace.cluster.job import read_job
from millrace.cluster.job_figures import JobFigures
from millrace.cluster.logbook import LINES_A_REPORT, Logbook, LogLine
from millrace.cluster.partition import PartitionStatus, SplitStatus
from millrace.cluster.protocol.messages import CheckpointDue, PartitionReport
from millrace.cluster.ray.gauges import SHOW_EVERY_S, Gauges
from millrace.cluster.ray.processes import RayProcesses
from millrace.cluster.ray.session import METADATA, NAMESPACE
from millrace.errors import Fenced, Unavailable
from millrace.state.ledger import JobState, Ledger, Record
from millrace.state.store import open_store

LOG = logging.getLogger("millrace.coordinator")
ANSWER_S = 30.0
RENEW_S = 1.0


class RayAppends:
    """The ledger behind the metadata actor."""

    def __init__(self, job: str, store_url: str, options: Mapping[str, str], writer: str) -> None:
        self._where = (job, store_url, dict(options))
        self._writer = writer

    def append(self, seq: int, record: Record) -> JobState:
        answer = self._ask("append", self._writer, seq, record)
        if answer is None:
            raise Fenced(f"record {seq} of job {self._where[0]} is another owner's", code="MR4001")
        state: JobState = answer
        return state

    def read(self) -> tuple[JobState, int]:
        state, next_seq = self._ask("read")
        return state, next_seq

    def renew(self, epoch: int) -> None:
        """Say that this coordinator lives; no answer is waited for."""
        try:
            ray.get_actor(METADATA, NAMESPACE).renew.remote(*self._where, self._writer, epoch)
        except (RayError, ValueError):
            return  # it is being restarted; the next one will do

    def finished(self, status: JobStatus, reason: str, broken: bool, lines: tuple[LogLine, ...]) -> None:
        """Leave the last status and log lines where they can be asked for."""
        self._ask("finish", status, reason, broken, lines)

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            metadata = ray.get_actor(METADATA, NAMESPACE)
            return ray.get(getattr(metadata, method).remote(*self._where, *arguments), timeout=ANSWER_S)
        except (RayError, ValueError) as error:
            raise Unavailable(f"the metadata actor does not answer: {error}", code="MR3011") from error


@ray.remote(concurrency_groups={"control": 4}, max_restarts=-1, max_task_retries=0, enable_task_events=False)  # pyright: ignore[reportCallIssue]
class JobCoordinator:
    """Leads one job. Restarted by Ray, it takes over from itself: all it knows is in the ledger."""

    def __init__(self, job: str, store_url: str, options: Mapping[str, str]) -> None:
        self._job = job
        self._logbook = Logbook("coordinator").install()
        store = open_store(store_url, options)
        spec = read_job(store, Ledger(store, job, "reader").read().plan)
        self._me = ray.get_runtime_context().current_actor
        owner = f"{job}-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self._appends = RayAppends(job, store_url, options, owner)
        self._processes = RayProcesses(store_url, options, spec, self._me)
        self._driver = CoordinatorDriver(spec, owner, store, self._appends, self._processes)
        self._renewed = 0.0
        self._figures = JobFigures()
        self._gauges = Gauges(job=job)
        self._shown = 0.0
        threading.Thread(target=self._lead, name="coordinator", daemon=True).start()

    def __repr__(self) -> str:
        return f"Coordinator(job={self._job})"

    @ray.method(concurrency_group="control")
    def report(self, message: PartitionReport, status: PartitionStatus | None) -> None:
        """A report of a partition."""
        self._driver.report(message, status)

    @ray.method(concurrency_group="control")
    def take_log(self, lines: tuple[LogLine, ...]) -> None:
        """What a partition has logged."""
        self._logbook.take(lines)

    @ray.method(concurrency_group="control")
    def log(self, after: int) -> tuple[LogLine, ...]:
        """What the job's processes have logged, above a number."""
        return self._logbook.after(after)

    @ray.method(concurrency_group="control")
    def status(self) -> JobStatus:
        """Where the job stands."""
        return self._driver.status()

    @ray.method(concurrency_group="control")
    def stop(self, reason: str, label: str | None) -> None:
        """End the job at a last checkpoint; with `label`, it is a savepoint."""
        self._driver.stop(reason, label)

    @ray.method(concurrency_group="control")
    def save(self, label: str) -> None:
        """Take a savepoint."""
        self._driver.save(label)

    @ray.method(concurrency_group="control")
    def drop(self, label: str) -> None:
        """Keep a savepoint no longer."""
        self._driver.drop(label)

    @ray.method(concurrency_group="control")
    def checkpoint(self) -> None:
        """Take a checkpoint now."""
        self._driver.post(CheckpointDue())

    @ray.method(concurrency_group="control")
    def scale(self, partitions: int) -> None:
        """Go on with so many partitions."""
        self._driver.scale(partitions)

    @ray.method(concurrency_group="control")
    def splits(self) -> dict[int, tuple[SplitStatus, ...]]:
        """The splits of each partition."""
        return self._processes.splits()

    @ray.method(concurrency_group="control")
    def pids(self) -> dict[str, int]:
        """The processes of the job, by role."""
        found = {f"partition-{p}": pid for p, pid in self._processes.pids().items()}
        return {"coordinator": os.getpid(), **found}

    def _lead(self) -> None:
        try:
            reason = self._driver.run(self._renew)
        except BaseException:  # whatever it is, a new process starts from the ledger
            LOG.exception("the coordinator of %s broke", self._job)
            os._exit(1)
        if self._driver.deposed:  # where this is the job's own actor, Ray makes it anew, and it reads on
            LOG.warning(
                "job %s: %s; this process ends and leaves everything to its successor", self._job, reason
            )
            time.sleep(RENEW_S)
            os._exit(1)
        if self._driver.deposed:  # where this is the job's own actor, Ray makes it anew, and it reads on
            time.sleep(RENEW_S)
            os._exit(1)
        while True:
            try:
                lines = self._logbook.after(0)[-LINES_A_REPORT:]
                self._appends.finished(self._driver.status(), reason, self._driver.broken, lines)
                break
            except Unavailable:
                time.sleep(RENEW_S)
        ray.kill(self._me, no_restart=True)

    def _renew(self, status: JobStatus) -> None:
        now = time.monotonic()
        self._figures.observe(status)
        if now - self._shown >= SHOW_EVERY_S:
            self._shown = now
            self._gauges.show(self._figures.read(status))
        if now - self._renewed >= RENEW_S:
            self._renewed = now
            self._appends.renew(status.epoch)
