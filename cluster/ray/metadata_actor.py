"""The actor that appends to ledgers, knows all jobs, and notices silent coordinators. Its memory is a cache of the ledgers."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_never

import ray

from millrace.cluster.coordination import JobStatus
from millrace.cluster.job import JobSpec, encode_job, spec_key
from millrace.cluster.protocol.ownership import (
    AnswerAppended,
    AnswerLease,
    AnswerLost,
    AnswerState,
    AppendRequested,
    CoordinatorSilent,
    FoldLedger,
    LeaseRequested,
    LedgerFolded,
    Ownership,
    OwnershipEvent,
    RecordTaken,
    RecordWritten,
    StateRequested,
    TimePassed,
    WriteRecord,
)
from millrace.cluster.ray.coordinator_actor import JobCoordinator
from millrace.cluster.ray.session import METADATA, NAMESPACE, coordinator_name, living
from millrace.errors import Fenced, Invalid, Unavailable
from millrace.state.ledger import JobCreated, JobState, Ledger, Record, create_job
from millrace.state.store import open_store

LOG = logging.getLogger("millrace.metadata")
LEASE_S = 30.0
"""A coordinator that says nothing for so long hangs: Ray would never notice."""


SOME_CPU = 0.01
"""Enough to keep an actor off a head that is to run nothing: what runs there dies with it."""


@dataclass(slots=True)
class Entry:
    """A job as the registry has it."""

    job: str
    store: str
    ended: str | None = None
    broken: bool = False
    last: JobStatus | None = None


@ray.remote(concurrency_groups={"control": 4}, max_restarts=-1, max_task_retries=0, enable_task_events=False)  # pyright: ignore[reportCallIssue]
class MetadataActor:
    """One a cluster. That there is another one for a moment is harmless: ledgers refuse who comes second."""

    def __init__(self) -> None:
        self._machine = Ownership(LEASE_S)
        self._ledgers: dict[tuple[str, str], Ledger] = {}
        self._entries: dict[str, Entry] = {}
        self._lock = threading.RLock()
        self._writer = f"metadata-{uuid.uuid4().hex[:12]}"
        threading.Thread(target=self._watch, name="leases", daemon=True).start()

    def __repr__(self) -> str:
        return "Metadata(millrace)"

    @ray.method(concurrency_group="control")
    def pid(self) -> int:
        """The process."""
        return os.getpid()

    @ray.method(concurrency_group="control")
    def submit(
        self, spec: JobSpec, store_url: str, options: Mapping[str, str], num_cpus: float, resume: bool
    ) -> None:
        """Create a job and its coordinator; raises Invalid where there is one by that name."""
        with self._lock:
            name = coordinator_name(spec.job)
            if living(name) is not None:
                raise Invalid(
                    f"a job named {spec.job} runs on this cluster", code="MR1591", hint="choose another name"
                )
            store = open_store(store_url, options)
            if not resume:
                created = JobCreated(spec.job, spec_key(spec.job), spec.vnodes, spec.partitions)
                data = encode_job(spec)
                if not store.create(spec_key(spec.job), data) and store.get(spec_key(spec.job)) != data:
                    raise Invalid(
                        f"this store keeps another job named {spec.job}",
                        code="MR1592",
                        hint="choose another name or another store",
                    )
                create_job(store, created, self._writer)
            self._entries[spec.job] = Entry(spec.job, store_url)
            JobCoordinator.options(  # type: ignore[attr-defined]  # Ray adds it
                name=name,
                namespace=NAMESPACE,
                lifetime="detached",
                num_cpus=SOME_CPU,
                scheduling_strategy="DEFAULT",
            ).remote(spec.job, store_url, options, num_cpus, resume)

    @ray.method(concurrency_group="control")
    def jobs(self) -> list[Entry]:
        """All jobs that are known here."""
        return list(self._entries.values())

    @ray.method(concurrency_group="control")
    def append(
        self, job: str, store: str, options: Mapping[str, str], writer: str, seq: int, record: Record
    ) -> JobState | None:
        """Append to a ledger; None where the number is another's."""
        answer = self._ask(job, store, options, AppendRequested(job, writer, seq, record, requester=writer))
        if isinstance(answer, AnswerAppended):
            return answer.state
        LOG.warning("refused: record %s of job %s is not %s's: %s", seq, job, writer, type(record).__name__)
        return None

    @ray.method(concurrency_group="control")
    def read(self, job: str, store: str, options: Mapping[str, str]) -> tuple[JobState, int]:
        """A ledger's fold and the number of its next record."""
        answer = self._ask(job, store, options, StateRequested(job, requester="reader"))
        assert isinstance(answer, AnswerState)
        return answer.state, answer.next_seq

    @ray.method(concurrency_group="control")
    def renew(self, job: str, store: str, options: Mapping[str, str], owner: str, epoch: int) -> None:
        """The coordinator lives."""
        with self._lock:
            self._entries.setdefault(job, Entry(job, store))
            self._machine.handle(LeaseRequested(job, owner, epoch, time.monotonic(), requester=owner))

    @ray.method(concurrency_group="control")
    def finish(
        self,
        job: str,
        store: str,
        options: Mapping[str, str],
        status: JobStatus,
        reason: str,
        broken: bool,
    ) -> None:
        """The job has ended; this was its last status."""
        self._entries[job] = Entry(job, store, reason, broken, status)

    def _ask(self, job: str, url: str, options: Mapping[str, str], event: OwnershipEvent) -> Any:
        with self._lock:
            known = self._entries.setdefault(job, Entry(job, url))
            assert known.store == url, f"job {job} is kept in {known.store}"
            if (url, job) not in self._ledgers:
                self._ledgers[url, job] = Ledger(open_store(url, options), job, self._writer)
            pending: list[OwnershipEvent] = [event]
            answer: Any = None
            while pending:
                for command in self._machine.handle(pending.pop(0)):
                    match command:
                        case FoldLedger() | WriteRecord():
                            pending.append(self._on_ledger(self._ledgers[url, job], command))
                        case AnswerAppended() | AnswerLost() | AnswerState():
                            answer = command
                        case AnswerLease() | CoordinatorSilent():
                            continue
                        case _:
                            assert_never(command)
            return answer

    def _on_ledger(self, ledger: Ledger, command: FoldLedger | WriteRecord) -> OwnershipEvent:
        while True:
            try:
                if isinstance(command, FoldLedger):
                    return LedgerFolded(ledger.job, ledger.read(), ledger.next_seq)
                return RecordWritten(ledger.job, ledger.append(command.seq, command.record, command.writer))
            except Fenced:
                return RecordTaken(ledger.job, ledger.state, ledger.next_seq)
            except Unavailable:
                time.sleep(0.2)

    def _watch(self) -> None:
        while True:
            time.sleep(1.0)
            with self._lock:
                silent = [
                    command.job
                    for command in self._machine.handle(TimePassed(time.monotonic()))
                    if isinstance(command, CoordinatorSilent)
                ]
            for job in silent:
                found = living(coordinator_name(job))
                if found is not None and self._entries[job].ended is None:
                    ray.kill(found, no_restart=False)


def metadata() -> Any:
    """The cluster's metadata actor; made where there is none."""
    return MetadataActor.options(  # type: ignore[attr-defined]  # Ray adds it
        name=METADATA, namespace=NAMESPACE, lifetime="detached", num_cpus=SOME_CPU, get_if_exists=True
    ).remote()
