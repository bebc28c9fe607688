"""One job's coordinator at work: carries out what its machine commands. Knows no actor."""

from __future__ import annotations

import contextlib
import logging
import queue
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar, assert_never

from millrace.cluster.beginnings import Discovery
from millrace.cluster.job import JobSpec, check_partitions, spec_key
from millrace.cluster.partition import PartitionStatus
from millrace.cluster.protocol.checkpointing import Round
from millrace.cluster.protocol.coordinator import Coordinator, CoordinatorSettings
from millrace.cluster.protocol.messages import (
    AppendRecord,
    BeginCheckpoint,
    CheckpointDue,
    CoordinatorCommand,
    CoordinatorEvent,
    DiscoverSplits,
    JobBroken,
    JobEnded,
    KillPartition,
    LedgerRead,
    ManifestDamaged,
    ManifestRead,
    ManifestWritten,
    PartitionLost,
    PartitionReport,
    PartitionStart,
    PruneObjects,
    ReadLedger,
    ReadManifest,
    RecordAppended,
    RecordLost,
    RescaleRequested,
    SavepointDropped,
    SavepointRequested,
    SplitsFound,
    StartPartition,
    StopRequested,
    StopSelf,
    Tell,
    Tick,
    WriteManifest,
)
from millrace.cluster.resuming import KeptCheckpoint, find_checkpoint, kept_checkpoints, manifest_for
from millrace.errors import Corrupt, Fenced, Invalid, Unavailable
from millrace.planner.physical.exchange import independent
from millrace.state.checkpoints.manifest import encode_manifest, manifest_key
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.checkpoints.pruning import Pruner
from millrace.state.checkpoints.snapshots import write_object
from millrace.state.ledger import CheckpointDecided, JobState, Record
from millrace.state.store import Store

Answer = TypeVar("Answer")

LOG = logging.getLogger("millrace.coordinator")
TICK_S = 0.02
REPORTS = 20
"""Reports of a partition over which its rows a second are counted."""
END_OF_WAIT = float("inf")
DISCOVERY_S = 2.0
"""How often sources are asked for new splits; they may look less often themselves."""
ROUND_MAX_S = 0.1
"""What a round counts on the machine's clock at most: a coordinator that was not let run has not listened either, and
takes nobody's silence for death."""
RETRY_S = 0.2
DECISIONS_KEPT = 100
FAILURES_MAX = 5
"""Losses of partitions by what will not mend itself, with no checkpoint decided between, after which the job is given
up. Processes that are killed, and services that do not answer, are waited out."""
ALL_READ = "all input has been read"
_DAMAGE = re.compile(r"\bMR501[0-5]\b")
"""Codes of stored objects that are missing, cut short or not what was written."""


class Appends(Protocol):
    """The ledger as the coordinator sees it; raises `Fenced` and `Unavailable`."""

    def append(self, seq: int, record: Record) -> JobState:
        """Append as number `seq`."""
        ...

    def read(self) -> tuple[JobState, int]:
        """The fold, and the number of the next record."""
        ...


class Processes(Protocol):
    """Makes, tells and ends partitions; every call returns at once."""

    def start(self, start: PartitionStart, partitions: int) -> None:
        """Make a process for this owner, one of so many."""
        ...

    def tell(self, command: Tell) -> None:
        """Deliver a message, best effort."""
        ...

    def kill(self, partition: int, epoch: int) -> None:
        """End a process, best effort."""
        ...

    def lost(self) -> list[PartitionLost]:
        """The processes that have ended since the last call."""
        ...


@dataclass(frozen=True, slots=True)
class RoundStatus:
    """The checkpoint under way, since `age_s` s: where its barrier has not passed yet, and who has not stored all."""

    number: str
    kind: str
    age_s: float
    aligning: tuple[int, ...]
    storing: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Where a job stands. `checkpoint` is the last decided one, `decided` how many this coordinator has decided.

    `decided_s` is how long ago that was, `rates` the rows a second that partitions read, by partition.
    """

    job: str
    phase: str
    epoch: int
    checkpoint: str
    decided: int
    partitions: tuple[PartitionStatus, ...]
    problems: tuple[str, ...]
    round: RoundStatus | None = None
    target: int = 0
    """How many partitions there are to be."""
    kept: tuple[KeptCheckpoint, ...] = ()
    """What the job can be resumed from."""
    decided_s: float | None = None
    rates: Mapping[int, float] = field(default_factory=dict)
    decisions_s: tuple[float, ...] = ()
    """Of the last checkpoints, how long it took from the barrier's start to the decision."""


@dataclass(slots=True)
class _Progress:
    failures: int = 0
    decided: int = 0
    last: CheckpointNumber | None = None
    at: float | None = None
    problems: list[str] = field(default_factory=list)
    begun: tuple[CheckpointNumber, float] | None = None
    decisions: deque[float] = field(default_factory=lambda: deque(maxlen=DECISIONS_KEPT))
    fatal: str | None = None
    """What a thread beside the driver's met that no further try will mend."""


class _Rates:
    """Rows a second of each owner, over its last reports."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], deque[tuple[float, int]]] = {}

    def note(self, status: PartitionStatus, now: float) -> None:
        owner = status.partition, status.epoch
        if owner not in self._seen:
            self._seen = {o: seen for o, seen in self._seen.items() if o[0] != status.partition}
        self._seen.setdefault(owner, deque(maxlen=REPORTS)).append((now, status.rows_in))

    def of(self, status: PartitionStatus) -> float:
        seen = self._seen.get((status.partition, status.epoch))
        if not seen or seen[-1][0] <= seen[0][0]:
            return 0.0
        (begun, first), (now, last) = seen[0], seen[-1]
        return (last - first) / (now - begun)


def _round_status(found: Round, now: float) -> RoundStatus:
    aligning = tuple(p for p in found.members if p not in found.aligned and p not in found.durable)
    return RoundStatus(str(found.number), found.kind.value, now - found.begun, aligning, found.owing)


class CoordinatorDriver:
    """Owns the machine of one job. `post`, `report` and `status` may be called from any thread, the rest is `run`'s."""

    def __init__(
        self,
        job: JobSpec,
        owner: str,
        store: Store,
        appends: Appends,
        processes: Processes,
    ) -> None:
        self.job = job
        self._program = spec_key(job)
        self._store = store
        self._appends = appends
        self._processes = processes
        self._events: queue.SimpleQueue[CoordinatorEvent] = queue.SimpleQueue()
        settings = CoordinatorSettings(
            job.job,
            owner,
            tuple(job.sinks()),
            independent(job.plan),
            self._program,
            liveness_s=job.liveness_s,
            lease_s=job.lease_s,
        )
        self._machine = Coordinator(settings)
        self._pruner = Pruner(store, job.job)
        self._discovery = Discovery(job, store)
        self._looker = ThreadPoolExecutor(1, thread_name_prefix="splits")
        self._looked_at = time.monotonic()
        self._statuses: dict[int, PartitionStatus] = {}
        self._rates = _Rates()
        self._progress = _Progress()
        self._checkpoint_at = time.monotonic()
        self._stopping = False
        self._refused: set[tuple[int, int]] = set()
        self.ended: str | None = None
        self.broken = False
        self.deposed = False
        """Whether it ended because another process leads the job, or is to."""

    def post(self, event: CoordinatorEvent) -> None:
        """Hand the machine an event."""
        self._events.put(event)

    def report(self, event: PartitionReport, status: PartitionStatus | None = None) -> None:
        """A partition's report, with where it stands."""
        member = self._machine.members.get(event.partition)
        if member is not None and event.epoch < member.epoch:
            who = event.partition, event.epoch
            if who not in self._refused:
                self._refused.add(who)
                LOG.warning(
                    "refused: partition %s reports under epoch %s, and has an owner under %s",
                    *who,
                    member.epoch,
                )
        elif status is not None:
            self._statuses[status.partition] = status
            self._rates.note(status, time.monotonic())
        self._events.put(event)

    def stop(self, reason: str, label: str | None = None) -> None:
        """End the job at a last checkpoint; with `label`, it is kept as a savepoint."""
        self._check_label(label)
        self.post(StopRequested(reason, label))

    def save(self, label: str) -> None:
        """Take a checkpoint that is kept under this name."""
        self._check_label(label)
        self.post(SavepointRequested(label))

    def drop(self, label: str) -> None:
        """Keep a savepoint no longer."""
        find_checkpoint(self._machine.state, label)
        self.post(SavepointDropped(label))

    def _check_label(self, label: str | None) -> None:
        if label in self._machine.state.savepoints:
            raise Invalid(
                f"job {self.job.job} has a savepoint {label!r}", code="MR1598", hint="choose another name"
            )

    def scale(self, partitions: int) -> None:
        """Go on with so many partitions, from a checkpoint that stops; raises what `check_partitions` raises."""
        check_partitions(self.job, partitions)
        self.post(RescaleRequested(partitions))

    def status(self) -> JobStatus:
        """A snapshot that may be a little behind."""
        machine = self._machine
        members = dict(machine.members)
        partitions = [
            s for p, s in sorted(self._statuses.items()) if p in members and members[p].epoch == s.epoch
        ]
        found = None if machine.checkpoints is None else machine.checkpoints.round
        latest = machine.state.latest
        return JobStatus(
            self.job.job,
            machine.phase.name.lower(),
            machine.epoch,
            "none" if latest is None else str(latest.number),
            self._progress.decided,
            tuple(partitions),
            tuple(self._progress.problems[-5:]),
            None if found is None else _round_status(found, machine.now),
            machine.state.target,
            kept_checkpoints(machine.state),
            None if self._progress.at is None else time.monotonic() - self._progress.at,
            {s.partition: self._rates.of(s) for s in partitions},
            tuple(self._progress.decisions),
        )

    def run(self, on_round: Callable[[JobStatus], None] | None = None) -> str:
        """Lead the job until it has ended or another coordinator leads it; answers why."""
        self._feed(self._read_ledger())
        looked, clock = time.monotonic(), 0.0
        while self.ended is None:
            with contextlib.suppress(queue.Empty):
                self._feed(self._events.get(timeout=TICK_S))
                while self.ended is None:  # all of them: who is silent is known only when all was heard
                    self._feed(self._events.get_nowait())
            for lost in self._processes.lost():
                damaged = _DAMAGE.search(lost.reason) is not None
                self._note_loss(lost)
                self._feed(replace(lost, damaged=damaged))
            now = time.monotonic()
            looked, clock = now, clock + min(now - looked, ROUND_MAX_S)
            self._feed(Tick(clock))
            self._on_time()
            if on_round is not None:
                on_round(self.status())
        LOG.info("it ends: %s", self.ended)
        return self.ended

    def _on_time(self) -> None:
        now = time.monotonic()
        if now - self._checkpoint_at >= self.job.checkpoint_interval_s:
            self._checkpoint_at = now
            self._feed(CheckpointDue())
        members = self._machine.members
        done = [
            s for p, s in self._statuses.items() if p in members and members[p].epoch == s.epoch and s.ended
        ]
        if self._progress.fatal is not None and self.ended is None:
            self.broken = True
            self.ended = self._progress.fatal
        if self._discovery.changing and now - self._looked_at >= DISCOVERY_S:
            self._look()
        if members and len(done) == len(members) and not self._stopping:
            self._stopping = True
            self._feed(StopRequested(ALL_READ))
        latest = self._machine.state.latest
        if latest is not None and latest.number != self._progress.last:
            self._progress.decided += (
                self._progress.last is not None or self._machine.epoch == latest.number.epoch
            )
            self._progress.last = latest.number
            self._progress.at = time.monotonic()
            self._progress.failures = 0

    def _note_begin(self, command: Tell) -> None:
        if isinstance(command.message, BeginCheckpoint):
            number, known = command.message.number, self._progress.begun
            if known is None or known[0] != number:
                self._progress.begun = number, time.monotonic()

    def _note_loss(self, lost: PartitionLost) -> None:
        self._progress.problems.append(f"partition {lost.partition}: {lost.reason}")
        LOG.warning("partition %s under epoch %s: %s", lost.partition, lost.epoch, lost.reason)
        self._progress.failures += lost.lasting
        if self._progress.failures > FAILURES_MAX and self.ended is None:
            self.broken = True
            self.ended = f"given up after {FAILURES_MAX} losses without a checkpoint: {lost.reason}"
            for partition, member in self._machine.members.items():
                self._processes.kill(partition, member.epoch)

    def _feed(self, event: CoordinatorEvent) -> None:
        pending = [event]
        while pending and self.ended is None:
            for command in self._machine.handle(pending.pop(0)):
                answer = self._carry_out(command)
                if answer is not None:
                    pending.append(answer)

    def _carry_out(self, command: CoordinatorCommand) -> CoordinatorEvent | None:
        match command:
            case ReadLedger():
                return self._read_ledger()
            case AppendRecord():
                return self._append(command)
            case ReadManifest():
                try:
                    return ManifestRead(manifest_for(self._store, command, self._program, self.job))
                except (Corrupt, Invalid) as error:
                    return ManifestDamaged(command.number, str(error))
            case WriteManifest():
                key = manifest_key(self.job.job, command.manifest.number)
                self._retried(lambda: write_object(self._store, key, encode_manifest(command.manifest)))
                return ManifestWritten(command.manifest.number)
            case DiscoverSplits():
                self._look()
            case StartPartition():
                assert self._machine.state.assignment is not None
                self._processes.start(command.start, len(self._machine.state.assignment.partitions))
            case KillPartition():
                self._processes.kill(command.partition, command.epoch)
            case Tell():
                self._note_begin(command)
                self._processes.tell(command)
            case PruneObjects():
                self._prune(command)
            case JobEnded():
                self.ended = command.reason
            case JobBroken():
                self.broken = True
                self.ended = command.reason
            case StopSelf():
                self.deposed = True
                self.ended = command.reason
            case _:
                assert_never(command)
        return None

    def _read_ledger(self) -> LedgerRead:
        return LedgerRead(*self._retried(self._appends.read))

    def _append(self, command: AppendRecord) -> CoordinatorEvent:
        try:
            state = self._retried(lambda: self._appends.append(command.seq, command.record))
        except Fenced as error:
            LOG.warning("refused: %s", error.message)
            return RecordLost(command.seq)
        begun = self._progress.begun
        if isinstance(command.record, CheckpointDecided) and begun is not None:
            self._progress.decisions.append(time.monotonic() - begun[1])
        if not isinstance(command.record, CheckpointDecided) or command.record.label is not None:
            LOG.info("record %s of the ledger: %s", command.seq, command.record)
        return RecordAppended(command.seq, state)

    def _retried(self, call: Callable[[], Answer]) -> Answer:
        while True:
            try:
                return call()
            except Unavailable as error:
                self._progress.problems.append(str(error))
                time.sleep(RETRY_S)

    def _prune(self, command: PruneObjects) -> None:
        try:
            self._pruner.prune(command.state)
        except (Unavailable, Corrupt) as error:
            self._progress.problems.append(f"old checkpoints were not removed: {error}")

    def _look(self) -> None:
        """Have the splits listed on another thread: whoever has to be asked may take long to answer."""
        self._looked_at = END_OF_WAIT
        self._looker.submit(self._list_splits)

    def _list_splits(self) -> None:
        try:
            self.post(SplitsFound(self._retried(self._discovery.look)))
        except Exception as error:  # noqa: BLE001  # it must be told, not end with this thread
            self._progress.fatal = f"the splits of the sources are not known: {error}"
        self._looked_at = time.monotonic()
