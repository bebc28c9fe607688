"""Partitions of a job as threads of this process, with their exchanges over Flight. For what is measured without Ray."""

from __future__ import annotations

import threading
import time

from millrace.cluster.coordination import CoordinatorDriver
from millrace.cluster.exchange.peers import FlightPeers
from millrace.cluster.job import JobSpec, encode_job, spec_key
from millrace.cluster.partition import PartitionDriver
from millrace.cluster.protocol.messages import (
    GrantLease,
    Heartbeat,
    LeaseRenewed,
    PartitionLost,
    PartitionReport,
    PartitionStart,
    Tell,
)
from millrace.state.ledger import JobCreated, JobState, Ledger, Record, create_job
from millrace.state.store import Store

HEARTBEAT_S = 0.2


class _Appends:
    """The ledger without a metadata actor."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def append(self, seq: int, record: Record) -> JobState:
        return self._ledger.append(seq, record)

    def read(self) -> tuple[JobState, int]:
        return self._ledger.read(), self._ledger.next_seq


class ThreadProcesses:
    """One thread an owner. None is ever lost but by its own end."""

    def __init__(self, job: JobSpec, store: Store) -> None:
        self._job = job
        self._store = store
        self._owners: dict[int, tuple[PartitionDriver, FlightPeers, threading.Thread]] = {}
        self.coordinator: CoordinatorDriver | None = None

    def ledger(self) -> _Appends:
        """The ledger of the job, made where there is none."""
        self._store.create(spec_key(self._job), encode_job(self._job))
        created = JobCreated(self._job.job, spec_key(self._job), self._job.vnodes, self._job.partitions)
        create_job(self._store, created, "threads")
        return _Appends(Ledger(self._store, self._job.job, "threads"))

    def start(self, start: PartitionStart, partitions: int) -> None:
        partition = start.plan.partition
        peers = FlightPeers(start.job, partition, start.peers, "127.0.0.1")
        driver = PartitionDriver(self._job, start, self._store, peers, self._tell, partitions)
        thread = threading.Thread(target=driver.run, daemon=True)
        self._owners[partition] = driver, peers, thread
        thread.start()
        threading.Thread(target=self._beat, args=(driver,), daemon=True).start()
        if len(self._owners) == partitions:
            addresses = {p: peers.address for p, (_, peers, _) in self._owners.items()}
            for each, its_peers, _ in self._owners.values():
                its_peers.introduce(each.start.peers, addresses)

    def tell(self, command: Tell) -> None:
        driver = self._owners[command.partition][0]
        if driver.start.epoch == command.epoch:
            message = command.message
            lease = isinstance(message, GrantLease)
            driver.post(LeaseRenewed(message.sent_at + message.duration_s) if lease else message)  # type: ignore[arg-type, union-attr]

    def kill(self, partition: int, epoch: int) -> None:
        return

    def lost(self) -> list[PartitionLost]:
        ended = [p for p, (_, _, thread) in self._owners.items() if not thread.is_alive()]
        found = [self._owners.pop(p)[0] for p in ended]
        return [
            PartitionLost(d.start.plan.partition, d.start.epoch, d.ended or "died", d.lasting) for d in found
        ]

    def _tell(self, message: PartitionReport) -> None:
        assert self.coordinator is not None
        self.coordinator.report(message)

    def _beat(self, driver: PartitionDriver) -> None:
        assert self.coordinator is not None
        while driver.ended is None:
            beat = Heartbeat(driver.start.plan.partition, driver.start.epoch, time.monotonic())
            self.coordinator.report(beat, driver.status())
            time.sleep(HEARTBEAT_S)
