"""The actor of a process that runs owners of partitions, one after the other. Leaves their work to the driver."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray

from millrace.cluster.exchange.peers import FlightPeers
from millrace.cluster.functions import install
from millrace.cluster.job import read_job
from millrace.cluster.job_figures import PartitionFigures
from millrace.cluster.logbook import LINES_A_REPORT, Logbook, LogLine
from millrace.cluster.partition import PartitionDriver, SplitStatus
from millrace.cluster.protocol.messages import (
    GrantLease,
    Heartbeat,
    LeaseRenewed,
    PartitionFailed,
    PartitionReport,
    PartitionStart,
    Tell,
)
from millrace.cluster.ray.gauges import SHOW_EVERY_S, Gauges
from millrace.cluster.warming import warm_up
from millrace.errors import MillraceError
from millrace.state.store import open_store

HEARTBEAT_S = 0.2
ADDRESS_S = 30.0


@dataclass(frozen=True, slots=True)
class _Owner:
    start: PartitionStart
    peers: FlightPeers
    driver: PartitionDriver


@ray.remote(  # pyright: ignore[reportCallIssue]
    concurrency_groups={"loop": 1, "control": 2}, max_restarts=0, max_task_retries=0, enable_task_events=False
)
class PartitionActor:
    """A process for partitions of one job. Owned by the job's coordinator, with which it dies.

    Each owner that runs in it lives for one ownership epoch. Before the first one the process is on standby: what is
    slow to import and to load is there already.
    """

    def __init__(self, store_url: str, options: Mapping[str, str], program: str, coordinator: Any) -> None:
        self._logbook = Logbook("standby").install()
        self._told = 0
        self._store = open_store(store_url, options)
        self._job = read_job(self._store, program)
        self._coordinator = coordinator
        self._host = ray.util.get_node_ip_address()
        self._owner: _Owner | None = None
        self._epoch = 0
        self._changed = threading.Condition()
        self._unfit: MillraceError | None = None
        try:
            install(self._job.functions)
        except MillraceError as error:
            self._unfit = error  # told by `run`, whose answer is looked at
        else:
            warm_up(self._job)

    def __repr__(self) -> str:
        if self._owner is None:
            return f"Standby(job={self._job.job})"
        start = self._owner.start
        return f"Partition(job={start.job}, partition={start.plan.partition}, epoch={start.epoch})"

    @ray.method(concurrency_group="loop")
    def run(self, start: PartitionStart, partitions: int) -> tuple[str, bool]:
        """Be an owner until its machine says to stop; answers why, and whether that would end a successor too.

        The reference to it is how the coordinator sees death.
        """
        if self._unfit is not None:
            raise self._unfit
        if start.epoch <= self._epoch:
            return "a later owner has run here", False
        partition = start.plan.partition
        self._logbook.who = f"partition-{partition}"
        peers = FlightPeers(start.job, partition, start.peers, self._host, self._job.exchange_tls)
        driver = PartitionDriver(self._job, start, self._store, peers, self._tell, partitions)
        with self._changed:
            self._epoch = start.epoch
            self._owner = _Owner(start, peers, driver)
            self._changed.notify_all()
        threading.Thread(target=self._beat, args=(self._owner,), name="heartbeat", daemon=True).start()
        threading.Thread(target=self._measure, args=(self._owner,), name="metrics", daemon=True).start()
        try:
            return driver.run(), driver.lasting
        finally:
            self._owner = None
            self._coordinator.take_log.remote(self._news())

    @ray.method(concurrency_group="control")
    def address(self, epoch: int) -> str:
        """Where peers send the exchange streams of the owner under `epoch`; '' where it did not begin in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._epoch >= epoch, ADDRESS_S)
            owner = self._under(epoch)
        return "" if owner is None else owner.peers.address

    @ray.method(concurrency_group="control")
    def introduce(self, epochs: Mapping[int, int], addresses: Mapping[int, str]) -> None:
        """Learn where the peers are."""
        owner = self._owner
        if owner is not None:
            owner.peers.introduce(epochs, addresses)

    @ray.method(concurrency_group="control")
    def deliver(self, command: Tell) -> None:
        """A message of the coordinator; one for another epoch is dropped."""
        owner = self._under(command.epoch)
        if owner is None:
            return
        message = command.message
        if isinstance(message, GrantLease):
            owner.driver.post(LeaseRenewed(message.sent_at + message.duration_s))
        else:
            owner.driver.post(message)

    @ray.method(concurrency_group="control")
    def end(self, epoch: int) -> None:
        """End the owner under `epoch`, if it is still there; the process stays."""
        owner = self._under(epoch)
        if owner is not None:
            owner.driver.post(PartitionFailed("it is replaced"))

    @ray.method(concurrency_group="control")
    def splits(self) -> tuple[SplitStatus, ...]:
        """Where each of its splits stands."""
        owner = self._owner
        return () if owner is None else owner.driver.splits()

    @ray.method(concurrency_group="control")
    def pid(self) -> int:
        """The process."""
        return os.getpid()

    def _under(self, epoch: int) -> _Owner | None:
        owner = self._owner
        return owner if owner is not None and owner.start.epoch == epoch else None

    def _tell(self, message: PartitionReport) -> None:
        self._coordinator.report.remote(message, None)

    def _news(self) -> tuple[LogLine, ...]:
        """What was logged since it was told last."""
        lines = self._logbook.after(self._told, LINES_A_REPORT)
        if lines:
            self._told = lines[-1].number
        return lines

    def _beat(self, owner: _Owner) -> None:
        me = owner.start.plan.partition, owner.start.epoch
        while owner.driver.ended is None and self._owner is owner:
            if owner.driver.alive:
                status = owner.driver.status()
                self._coordinator.report.remote(Heartbeat(*me, time.monotonic()), status)
                if lines := self._news():
                    self._coordinator.take_log.remote(lines)
            time.sleep(HEARTBEAT_S)

    def _measure(self, owner: _Owner) -> None:
        """Show figures, on a thread whose trouble is nobody else's."""
        gauges = Gauges(job=owner.start.job, partition=str(owner.start.plan.partition))
        figures = PartitionFigures(owner.driver)
        while owner.driver.ended is None and self._owner is owner:
            gauges.show(figures.read())
            time.sleep(SHOW_EVERY_S)
