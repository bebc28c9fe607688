"""The actor of one owner of one partition. Leaves its work to the driver."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import ray

from millrace.cluster.exchange.peers import FlightPeers
from millrace.cluster.job import read_job
from millrace.cluster.partition import PartitionDriver, SplitStatus
from millrace.cluster.protocol.messages import (
    GrantLease,
    Heartbeat,
    LeaseRenewed,
    PartitionReport,
    PartitionStart,
    Tell,
)
from millrace.cluster.ray.gauges import Gauges
from millrace.state.store import open_store

HEARTBEAT_S = 0.25


@ray.remote(  # pyright: ignore[reportCallIssue]
    concurrency_groups={"loop": 1, "control": 2}, max_restarts=0, max_task_retries=0, enable_task_events=False
)
class PartitionActor:
    """Lives for one ownership epoch. Owned by the job's coordinator, with which it dies."""

    def __init__(
        self,
        store_url: str,
        options: Mapping[str, str],
        start: PartitionStart,
        partitions: int,
        coordinator: Any,
    ) -> None:
        self._start = start
        store = open_store(store_url, options)
        job = read_job(store, start.program)
        host = ray.util.get_node_ip_address()
        self._peers = FlightPeers(start.job, start.plan.partition, start.peers, host)
        self._coordinator = coordinator
        self._driver = PartitionDriver(job, start, store, self._peers, self._tell, partitions)
        self._gauges = Gauges(start.job, start.plan.partition)
        self._started = False

    def __repr__(self) -> str:
        return f"Partition(job={self._start.job}, partition={self._start.plan.partition}, epoch={self._start.epoch})"

    @ray.method(concurrency_group="loop")
    def run(self) -> tuple[str, bool]:
        """Live until the machine says to stop; answers why, and whether that would end a successor too.

        The reference to it is how the coordinator sees death.
        """
        if self._started:
            return "runs already", False
        self._started = True
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        return self._driver.run(), self._driver.lasting

    @ray.method(concurrency_group="control")
    def address(self) -> str:
        """Where peers send their exchange streams."""
        return self._peers.address

    @ray.method(concurrency_group="control")
    def introduce(self, epochs: Mapping[int, int], addresses: Mapping[int, str]) -> None:
        """Learn where the peers are."""
        self._peers.introduce(epochs, addresses)

    @ray.method(concurrency_group="control")
    def deliver(self, command: Tell) -> None:
        """A message of the coordinator; one for another epoch is dropped."""
        if command.epoch != self._start.epoch:
            return
        message = command.message
        if isinstance(message, GrantLease):
            self._driver.post(LeaseRenewed(message.sent_at + message.duration_s))
        else:
            self._driver.post(message)

    @ray.method(concurrency_group="control")
    def splits(self) -> tuple[SplitStatus, ...]:
        """Where each of its splits stands."""
        return self._driver.splits()

    @ray.method(concurrency_group="control")
    def pid(self) -> int:
        """The process."""
        return os.getpid()

    def _tell(self, message: PartitionReport) -> None:
        self._coordinator.report.remote(message, None)

    def _beat(self) -> None:
        me = self._start.plan.partition, self._start.epoch
        while self._driver.ended is None:
            if self._driver.alive:
                status = self._driver.status()
                self._coordinator.report.remote(Heartbeat(*me, time.monotonic()), status)
                self._gauges.show(status)
            time.sleep(HEARTBEAT_S)
