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
from millrace.cluster.job import JobSpec, read_job, write_job
from millrace.cluster.logbook import LogLine
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
from millrace.cluster.resuming import resumption
from millrace.cluster.upgrade import Upgrade
from millrace.errors import Fenced, Invalid, Unavailable
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.ledger import JobCreated, JobState, Ledger, Record, Resumed, create_job
from millrace.state.store import open_store

LOG = logging.getLogger("millrace.metadata")
NAME_S = 10.0
"""How long to wait for a killed coordinator to give its name free."""
LEASE_S = 30.0
"""A coordinator that says nothing for so long hangs: Ray would never notice."""


SOME_CPU = 0.01
"""Enough to keep an actor off a head that is to run nothing: what runs there dies with it."""


@dataclass(slots=True)
class Entry:
    """A job as the registry has it."""

    job: str
    store: str
    options: Mapping[str, str]
    ended: str | None = None
    broken: bool = False
    last: JobStatus | None = None
    log: tuple[LogLine, ...] = ()


@ray.remote(concurrency_groups={"control": 4}, max_restarts=-1, max_task_retries=0, enable_task_events=False)  # pyright: ignore[reportCallIssue]
class MetadataActor:
    """One a cluster. That there is another one for a moment is harmless: ledgers refuse who comes second."""

    def __init__(self) -> None:
        self._machine = Ownership(LEASE_S)
        self._ledgers: dict[tuple[str, str], Ledger] = {}
        self._entries: dict[str, Entry] = {}
        self._homes: dict[str, str] = {}
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
    def submit(self, spec: JobSpec, store_url: str, options: Mapping[str, str]) -> None:
        """Create a job and its coordinator; raises Invalid where there is one by that name."""
        with self._lock:
            self._check_free(spec.job)
            store = open_store(store_url, options)
            create_job(
                store,
                JobCreated(spec.job, write_job(store, spec), spec.vnodes, spec.partitions),
                self._writer,
            )
            self._lead(spec.job, store_url, options)

    @ray.method(concurrency_group="control")
    def examine(
        self, job: str, url: str, options: Mapping[str, str], spec: JobSpec | None, wanted: str | None
    ) -> Upgrade | None:
        """What resuming would make of state; raises what `resumption` raises."""
        state = self.read_on(job, url, options).state
        stops = state.stopped is None and living(coordinator_name(job)) is not None
        return resumption(open_store(url, options), state, spec, wanted, stops=stops).upgrade

    @ray.method(concurrency_group="control")
    def resume(
        self, job: str, url: str, options: Mapping[str, str], spec: JobSpec | None, wanted: str | None
    ) -> None:
        """Let a job that nobody leads go on; raises Invalid where somebody does, and what `resumption` raises."""
        store = open_store(url, options)
        with self._lock:
            self._check_free(job)
            found = resumption(store, self.read_on(job, url, options).state, spec, wanted)
            if found.spec is not None:
                write_job(store, found.spec)
            self._go_on(job, url, options, found.record)

    @ray.method(concurrency_group="control")
    def running(
        self, job: str, url: str, options: Mapping[str, str]
    ) -> tuple[JobSpec, str, CheckpointNumber | None]:
        """What a job runs, where its store keeps that, and its last checkpoint."""
        state = self.read_on(job, url, options).state
        if not state.job:
            raise Invalid(f"{url} has no job {job}", code="MR1590", hint="check --store and the job's name")
        last = None if state.latest is None else state.latest.number
        return read_job(open_store(url, options), state.plan), state.plan, last

    @ray.method(concurrency_group="control")
    def roll_back(
        self, job: str, url: str, options: Mapping[str, str], program: str, number: CheckpointNumber
    ) -> bool:
        """Let a job go on with its former plan, unless one after checkpoint `number` was decided; whether it does."""
        with self._lock:
            found = living(coordinator_name(job))
            if found is not None:
                ray.kill(found, no_restart=True)
            state = self.read_on(job, url, options).state
            started = state.latest is not None and state.latest.number != number
            if started:
                self._lead(job, url, options)
            else:
                self._go_on(job, url, options, Resumed(state.epoch + 1, program))
            return not started

    def read_on(self, job: str, url: str, options: Mapping[str, str]) -> AnswerState:
        """A ledger's fold and the number of its next record."""
        answer = self._ask(job, url, options, StateRequested(job, requester="reader"))
        assert isinstance(answer, AnswerState)
        return answer

    def _check_free(self, job: str) -> None:
        """Raise Invalid MR1591 where somebody leads the job; one that has ended may still be on its way out."""
        known = self._entries.get(job)
        found = living(coordinator_name(job))
        if found is None:
            return
        if known is None or known.ended is None:
            raise Invalid(
                f"a job named {job} runs on this cluster",
                code="MR1591",
                hint="choose another name, or stop it first",
            )
        ray.kill(found, no_restart=True)

    def _go_on(self, job: str, url: str, options: Mapping[str, str], record: Resumed) -> None:
        """Append the record and make a coordinator; raises Unavailable where another owner appended first."""
        seq = self.read_on(job, url, options).next_seq
        answer = self._ask(job, url, options, AppendRequested(job, self._writer, seq, record, self._writer))
        if not isinstance(answer, AnswerAppended):
            raise Unavailable(
                f"another process leads job {job}", code="MR3019", hint="end it there, and try again"
            )
        self._lead(job, url, options)

    def _lead(self, job: str, url: str, options: Mapping[str, str]) -> None:
        self._entries[job] = Entry(job, url, dict(options))
        deadline = time.monotonic() + NAME_S
        while True:
            try:
                JobCoordinator.options(  # type: ignore[attr-defined]  # Ray adds it
                    name=coordinator_name(job),
                    namespace=NAMESPACE,
                    lifetime="detached",
                    num_cpus=SOME_CPU,
                    scheduling_strategy="DEFAULT",
                ).remote(job, url, options)
                return
            except ValueError:  # a killed predecessor has the name for a moment more
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

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
        answer = self.read_on(job, store, options)
        return answer.state, answer.next_seq

    @ray.method(concurrency_group="control")
    def renew(self, job: str, store: str, options: Mapping[str, str], owner: str, epoch: int) -> None:
        """The coordinator lives."""
        with self._lock:
            self._entries.setdefault(job, Entry(job, store, dict(options)))
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
        lines: tuple[LogLine, ...],
    ) -> None:
        """The job has ended; this was its last status, and these its last log lines."""
        self._entries[job] = Entry(job, store, dict(options), reason, broken, status, lines)

    def _ask(self, job: str, url: str, options: Mapping[str, str], event: OwnershipEvent) -> Any:
        with self._lock:
            self._settle(job, url)
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

    def _settle(self, job: str, url: str) -> None:
        """A name is one job's at a time: one that has ended gives way to its namesake in another store."""
        home = self._homes.setdefault(job, url)
        if home == url:
            return
        if living(coordinator_name(job)) is not None and self._entries[job].ended is None:
            raise Invalid(
                f"the job named {job} that runs on this cluster is kept in {home}",
                code="MR1592",
                hint="choose another name, or stop it first",
            )
        self._machine.forget(job)
        self._homes[job] = url

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
