"""The cluster's metadata: registry of jobs, their ledgers' appends, leases of coordinators. Does no I/O, has no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import assert_never

from millrace.state.ledger import JobState, Record

Requester = Hashable
"""Whom to answer: whatever the adapter needs to find it again."""


@dataclass(frozen=True, slots=True)
class AppendRequested:
    """`requester` wants `record` as number `seq` of the job's ledger, as `writer`."""

    job: str
    writer: str
    seq: int
    record: Record
    requester: Requester


@dataclass(frozen=True, slots=True)
class StateRequested:
    """Somebody wants the job's folded state, read on to the ledger's end."""

    job: str
    requester: Requester


@dataclass(frozen=True, slots=True)
class LedgerFolded:
    """The ledger was read on to its end."""

    job: str
    state: JobState
    next_seq: int


@dataclass(frozen=True, slots=True)
class RecordWritten:
    """The object of the append under way is in the store, and is its writer's."""

    job: str
    state: JobState


@dataclass(frozen=True, slots=True)
class RecordTaken:
    """The object's number was taken by another writer; `state` is the fold with all there is."""

    job: str
    state: JobState
    next_seq: int


@dataclass(frozen=True, slots=True)
class LeaseRequested:
    """The coordinator `owner` under `epoch` lives, at `now` (s, the metadata's clock)."""

    job: str
    owner: str
    epoch: int
    now: float
    requester: Requester


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The metadata's clock is at `now` (s)."""

    now: float


OwnershipEvent = (
    AppendRequested
    | StateRequested
    | LedgerFolded
    | RecordWritten
    | RecordTaken
    | LeaseRequested
    | TimePassed
)


@dataclass(frozen=True, slots=True)
class FoldLedger:
    """Read the job's ledger on → `LedgerFolded`."""

    job: str


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """`Ledger.append` → `RecordWritten` or `RecordTaken`; where the store does not answer, again.

    `seq` may be that of the last record: then the requester asks again for what may have been its own.
    """

    job: str
    writer: str
    seq: int
    record: Record


@dataclass(frozen=True, slots=True)
class AnswerAppended:
    """The record is in; `state` is the fold with it."""

    requester: Requester
    seq: int
    state: JobState


@dataclass(frozen=True, slots=True)
class AnswerLost:
    """The number is another's: the requester is fenced."""

    requester: Requester
    seq: int


@dataclass(frozen=True, slots=True)
class AnswerState:
    """The state that was asked for."""

    requester: Requester
    state: JobState
    next_seq: int


@dataclass(frozen=True, slots=True)
class AnswerLease:
    """Whether the coordinator still leads; `duration_s` from when it asked."""

    requester: Requester
    granted: bool
    duration_s: float


@dataclass(frozen=True, slots=True)
class CoordinatorSilent:
    """The job's coordinator has not renewed its lease: start another one."""

    job: str
    owner: str


OwnershipCommand = (
    FoldLedger | WriteRecord | AnswerAppended | AnswerLost | AnswerState | AnswerLease | CoordinatorSilent
)
Commands = tuple[OwnershipCommand, ...]


@dataclass(slots=True)
class _Entry:
    state: JobState = field(default_factory=JobState)
    next_seq: int = 0
    writing: AppendRequested | None = None
    folding: bool = False
    queue: deque[AppendRequested | StateRequested] = field(default_factory=deque)
    lease_until: float | None = None


class Ownership:
    """Owns the fold of every job's ledger; a cache of the truth, which is in the store.

    Invariant: one ledger operation a job is under way at a time. That another metadata process exists is
    harmless: both write through put-if-absent, and who comes second is told so.
    """

    def __init__(self, lease_s: float = 3.0) -> None:
        self._lease_s = lease_s
        self._jobs: dict[str, _Entry] = {}

    @property
    def jobs(self) -> dict[str, JobState]:
        """The registry: what is known of each job."""
        return {name: entry.state for name, entry in self._jobs.items()}

    def forget(self, job: str) -> None:
        """A job by that name is another one from now on."""
        self._jobs.pop(job, None)

    def handle(self, event: OwnershipEvent) -> Commands:
        """What to do about one event."""
        match event:
            case AppendRequested() | StateRequested():
                entry = self._jobs.setdefault(event.job, _Entry())
                entry.queue.append(event)
                return self._next(entry)
            case LedgerFolded():
                return self._on_folded(event)
            case RecordWritten() | RecordTaken():
                return self._on_written(event)
            case LeaseRequested():
                return self._on_lease(event)
            case TimePassed():
                return self._on_time(event)
            case _:
                assert_never(event)

    def _next(self, entry: _Entry) -> Commands:
        if entry.writing is not None or entry.folding or not entry.queue:
            return ()
        first = entry.queue[0]
        if isinstance(first, StateRequested) or entry.next_seq < first.seq:
            entry.folding = True
            return (FoldLedger(first.job),)
        entry.queue.popleft()
        if entry.next_seq > first.seq + 1:
            return (AnswerLost(first.requester, first.seq), *self._next(entry))
        entry.writing = first
        return (WriteRecord(first.job, first.writer, first.seq, first.record),)

    def _on_folded(self, event: LedgerFolded) -> Commands:
        entry = self._jobs[event.job]
        entry.folding = False
        entry.state, entry.next_seq = event.state, event.next_seq
        answers: list[OwnershipCommand] = []
        while entry.queue:
            first = entry.queue[0]
            if isinstance(first, AppendRequested) and first.seq <= entry.next_seq:
                break
            entry.queue.popleft()
            if isinstance(first, StateRequested):
                answers.append(AnswerState(first.requester, entry.state, entry.next_seq))
            else:
                answers.append(AnswerLost(first.requester, first.seq))
        return (*answers, *self._next(entry))

    def _on_written(self, event: RecordWritten | RecordTaken) -> Commands:
        entry = self._jobs[event.job]
        done, entry.writing = entry.writing, None
        assert done is not None
        answer: OwnershipCommand
        if isinstance(event, RecordWritten):
            entry.state, entry.next_seq = event.state, done.seq + 1
            answer = AnswerAppended(done.requester, done.seq, event.state)
        else:
            entry.state, entry.next_seq = event.state, event.next_seq
            answer = AnswerLost(done.requester, done.seq)
        return (answer, *self._next(entry))

    def _on_lease(self, event: LeaseRequested) -> Commands:
        entry = self._jobs.setdefault(event.job, _Entry())
        leads = (entry.state.owner, entry.state.coordinator) == (event.owner, event.epoch)
        if leads:
            entry.lease_until = event.now + self._lease_s
        return (AnswerLease(event.requester, leads, self._lease_s),)

    def _on_time(self, event: TimePassed) -> Commands:
        silent: list[OwnershipCommand] = []
        for job, entry in self._jobs.items():
            if entry.lease_until is not None and event.now >= entry.lease_until:
                entry.lease_until = None
                if entry.state.stopped is None:
                    silent.append(CoordinatorSilent(job, entry.state.owner))
        return tuple(silent)
