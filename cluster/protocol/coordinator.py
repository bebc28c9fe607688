"""One job's coordinator: takes over, assigns, recovers, decides checkpoints, rescales, stops. Does no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from millrace.cluster.protocol.assignment import plan_assignment
from millrace.cluster.protocol.checkpointing import CheckpointCoordinator, Round
from millrace.cluster.protocol.messages import (
    Aligned,
    AppendRecord,
    BeginCheckpoint,
    CheckpointAborted,
    CheckpointCommitted,
    CheckpointDue,
    CheckpointFailed,
    CoordinatorCommand,
    CoordinatorEvent,
    DiscoverSplits,
    Durable,
    GrantLease,
    Heartbeat,
    JobBroken,
    JobEnded,
    KillPartition,
    LedgerRead,
    ManifestDamaged,
    ManifestRead,
    ManifestWritten,
    PartitionLost,
    PruneObjects,
    Published,
    ReadLedger,
    ReadManifest,
    RecordAppended,
    RecordLost,
    RescaleRequested,
    Running,
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
from millrace.cluster.protocol.recovery import RecoveryPlan
from millrace.cluster.protocol.transitions import JOB_TRANSITIONS, JobPhase, Phases
from millrace.state.checkpoints.manifest import Manifest
from millrace.state.ledger import (
    Assigned,
    CheckpointDecided,
    CheckpointKind,
    JobState,
    Record,
    Rescale,
    Savepoint,
    Stop,
    Takeover,
)

Commands = tuple[CoordinatorCommand, ...]
_J = JobPhase
PATIENCE_MAX = 16.0


@dataclass(frozen=True, slots=True)
class CoordinatorSettings:
    """`owner` is a name no other process ever has. `independent`: no exchange, so partitions recover alone.

    `plan` is the one that this process runs: where the ledger says another, it must not lead.
    """

    job: str
    owner: str
    sinks: tuple[str, ...]
    independent: bool
    plan: str
    keep: int = 3
    liveness_s: float = 1.0
    lease_s: float = 3.0
    start_timeout_s: float = 60.0
    checkpoint_timeout_s: float = 60.0
    drain_timeout_s: float = 10.0


@dataclass(slots=True)
class Member:
    """One owner the coordinator counts on. Times are on the coordinator's clock, in s."""

    epoch: int
    started: float
    seen: float
    heard: bool = False
    """Whether it has said anything: a process that is being made is silent, and given `start_timeout_s`."""
    running: bool = False


@dataclass(slots=True)
class Wishes:
    """What somebody asked for and is not done yet."""

    partitions: int | None = None
    stop: StopRequested | None = None
    reassign: bool = False
    saved: list[str] = field(default_factory=list)
    """Savepoints to be made."""
    dropped: list[str] = field(default_factory=list)
    """Savepoints to be kept no more."""

    @property
    def drain(self) -> bool:
        """Whether the next checkpoint is to stop the sources."""
        return self.stop is not None or self.reassign


@dataclass(slots=True)
class Scope:
    """Which partitions are being replaced; None is not possible, empty means none."""

    lost: set[int] = field(default_factory=set)
    whole: bool = False


class Coordinator:
    """Leads one job under one epoch, until it is fenced.

    Invariants: one append is under way at a time, always at the number after what was folded; having lost one it
    stops, except while it takes over and nobody else did; nothing is admitted unless every partition runs; a
    partition is started only under an epoch that the ledger gave to it.
    """

    def __init__(self, settings: CoordinatorSettings) -> None:
        self.settings = settings
        self.phases: Phases[JobPhase] = Phases(
            f"the coordinator {settings.owner}", _J.STARTING, JOB_TRANSITIONS
        )
        self.state = JobState()
        self.members: dict[int, Member] = {}
        self.epoch = 0
        self.now = 0.0
        self.checkpoints: CheckpointCoordinator | None = None
        self.wishes = Wishes()
        self._next_seq = 0
        self._appending: Record | None = None
        self._scope = Scope()
        self._manifest: Manifest | None = None
        self._damage: str | None = None
        self._splits: tuple[tuple[str, str], ...] = ()
        self._drained_since: float | None = None
        self._patience = 1.0
        """By how much longer than usual silence is borne: doubled by each silence that ended an owner, halved by each
        checkpoint. On a machine with too much to do all would else be replaced before they can do anything."""

    @property
    def phase(self) -> JobPhase:
        """Where the coordinator is with its job."""
        return self.phases.now

    def handle(self, event: CoordinatorEvent) -> Commands:
        """What to do about one event; after the end, nothing."""
        if self.phase is _J.ENDED:
            return ()
        if not isinstance(event, Tick | Heartbeat):
            self.phases.note(event)
        out = self._on(event)
        while self._appending is None and (more := self._go_on()):
            out += more
        return out

    def _on(self, event: CoordinatorEvent) -> Commands:
        match event:
            case LedgerRead():
                return self._on_ledger(event)
            case RecordAppended():
                return self._on_appended(event)
            case RecordLost():
                return self._on_lost_race(event)
            case ManifestRead() | ManifestDamaged() | SplitsFound():
                return self._on_recovery(event)
            case ManifestWritten():
                return self._on_manifest_written(event)
            case Running() | Aligned() | Durable() | CheckpointFailed() | Published() | Heartbeat():
                return self._on_report(event)
            case PartitionLost():
                return self._on_partition_lost(event)
            case CheckpointDue():
                return self._admit()
            case SavepointRequested() | SavepointDropped():
                self._note_savepoint(event)
                return ()
            case Tick():
                return self._on_tick(event.now)
            case RescaleRequested():
                assert event.partitions > 0
                known = event.partitions == self.state.target  # asked for again, or taken back
                self.wishes.partitions = None if known else event.partitions
                return ()
            case StopRequested():
                self.wishes.stop = event
                return ()
            case _:
                assert_never(event)

    # Taking over -----------------------------------------------------------------------------------------

    def _on_ledger(self, event: LedgerRead) -> Commands:
        if self._damage is not None:
            if event.state.coordinator > self.epoch:
                return self._stop("a newer coordinator has pruned what this one was to restore")
            return self._break(self._damage)
        if self.phase is not _J.STARTING:
            return ()
        newer = self.state.job and event.state.coordinator > self.state.coordinator
        self.state, self._next_seq = event.state, event.next_seq
        if newer:
            return self._stop("another coordinator has begun after this one")
        if not self.state.job:
            return self._break(f"there is no job {self.settings.job}")
        if self.state.stopped is not None:
            self.phases.go(_J.ENDED)
            return (JobEnded(self.state.stopped),)
        self.phases.go(_J.TAKING_OVER)
        return self._append(Takeover(self.state.epoch + 1, self.settings.owner))

    def _append(self, record: Record) -> Commands:
        assert self._appending is None, "two appends at a time"
        self._appending = record
        return (AppendRecord(self._next_seq, record),)

    def _on_lost_race(self, event: RecordLost) -> Commands:
        if self._appending is None or event.seq != self._next_seq:
            return ()
        self._appending = None
        if self.phase is _J.TAKING_OVER:
            self.phases.go(_J.STARTING)
            return (ReadLedger(),)
        return self._stop("the ledger was extended by another owner")

    def _on_appended(self, event: RecordAppended) -> Commands:
        record = self._appending
        if record is None or event.seq != self._next_seq:
            return ()
        self._appending = None
        self.state, self._next_seq = event.state, event.seq + 1
        match record:
            case Takeover(partitions=None):
                if self.state.plan != self.settings.plan:
                    return self._stop(f"the job's plan is {self.state.plan} now")
                self.epoch = record.epoch
                settings = self.settings
                self.checkpoints = CheckpointCoordinator(
                    settings.job, self.state.vnodes, self.epoch, settings.keep, settings.plan
                )
                self._scope.whole = True
                self.phases.go(_J.READING)
                return self._read_manifest()
            case Takeover():
                return (DiscoverSplits(),) if self._begin_whole() else self._start_members()
            case Assigned():
                self.phases.go(_J.RECOVERING)
                return self._start_members()
            case CheckpointDecided():
                return self._on_decided()
            case Rescale():
                self.wishes.partitions = None
                self.wishes.reassign = True
                return ()
            case Stop():
                self.phases.go(_J.ENDED)
                kills = tuple(KillPartition(p, m.epoch) for p, m in self.members.items())
                return (*kills, JobEnded(record.reason))
        return ()

    # Recovery --------------------------------------------------------------------------------------------

    def _read_manifest(self) -> Commands:
        chosen = self.state.latest
        if chosen is None:
            self.phases.go(_J.ASSIGNING)
            return (DiscoverSplits(),)
        return (ReadManifest(chosen.number, chosen.manifest, chosen.published),)

    def _on_recovery(self, event: ManifestRead | ManifestDamaged | SplitsFound) -> Commands:
        match event:
            case ManifestRead() if self.phase is _J.READING:
                assert self.checkpoints is not None
                self._manifest = event.manifest
                self.checkpoints.restore(event.manifest)
                self.phases.go(_J.ASSIGNING)
                return (DiscoverSplits(),)
            case ManifestDamaged() if self.phase is _J.READING:
                self._damage = (
                    f"checkpoint {event.number} can not be restored: {event.reason}; {self._instead()}"
                )
                return (ReadLedger(),)
            case SplitsFound() if self.phase is _J.ASSIGNING:
                self._splits = event.splits
                assignment = plan_assignment(
                    self.state.vnodes, self.state.target, event.splits, self.state.assignment
                )
                return self._append(Assigned(self.state.epoch, assignment))
            case SplitsFound() if self.phase is _J.RUNNING and set(event.splits) - set(self._splits):
                self.wishes.reassign = True
        return ()

    def _instead(self) -> str:
        """What else the job could be resumed from."""
        latest = self.state.latest
        older = [str(d.number) for d in self.state.checkpoints if d is not latest]
        named = [f"{label} ({d.number})" for label, d in self.state.savepoints.items() if d != latest]
        return f"it could be resumed from {', '.join([*older, *named]) or 'no other checkpoint'}"

    def _begin_whole(self) -> bool:
        if self._scope.whole:
            self.phases.go(_J.ASSIGNING)
        else:
            self.phases.go(_J.RECOVERING)
        return self._scope.whole

    def _start_members(self) -> Commands:
        assert self.state.assignment is not None and self.checkpoints is not None
        assignment = self.state.assignment
        if self._scope.whole:
            self.members.clear()
            self.wishes.reassign = False
            self._drained_since = None
            replaced = list(range(len(assignment.partitions)))
            self._scope = Scope()
        else:
            replaced = sorted(p for p in self._scope.lost if self.state.owners[p] == self.state.epoch)
            self._scope = Scope(self._scope.lost - set(replaced))
        plan = RecoveryPlan(
            self.settings.job,
            self.state.vnodes,
            self._manifest,
            assignment,
            self.settings.sinks,
            self.checkpoints.pending(),
            independent=self.settings.independent,
            program=self.settings.plan,
        )
        for partition in replaced:
            self.members[partition] = Member(self.state.owners[partition], self.now, self.now)
        return tuple(StartPartition(plan.start_of(p, self.state.owners)) for p in replaced)

    def _on_partition_lost(self, event: PartitionLost) -> Commands:
        member = self.members.get(event.partition)
        if member is None or member.epoch != event.epoch or event.partition in self._scope.lost:
            return ()
        if event.damaged and self._damage is None:  # another owner would read the same
            self._damage = f"partition {event.partition} can not restore: {event.reason}; {self._instead()}"
            return (ReadLedger(),)
        self._scope.lost.add(event.partition)
        return self._abort()

    def _replace_lost(self) -> Commands:
        """Raise the epoch of those who are replaced: of all, where they exchange rows or are to be moved."""
        whole = not self.settings.independent or self.wishes.drain or self._drained_since is not None
        count = len(self.members)
        scope = tuple(range(count)) if whole else tuple(sorted(self._scope.lost))
        self._scope = Scope(set(scope), whole)
        self.phases.go(_J.READING)
        kills = tuple(KillPartition(p, self.members[p].epoch) for p in scope)
        return (*kills, *self._append(Takeover(self.state.epoch + 1, self.settings.owner, scope)))

    # Checkpoints -----------------------------------------------------------------------------------------

    def _note_savepoint(self, event: SavepointRequested | SavepointDropped) -> None:
        """Remember what was asked for, once."""
        there = event.label in self.state.savepoints
        wishes, wanted = self.wishes, isinstance(event, SavepointRequested)
        asked = wishes.saved if wanted else wishes.dropped
        if there != wanted and event.label not in asked:
            asked.append(event.label)

    def _admit(self) -> Commands:
        if self.phase is not _J.RUNNING or self._scope.lost or self._appending is not None:
            return ()
        assert self.checkpoints is not None
        if self.checkpoints.round is not None or self.wishes.drain:
            return ()
        return self._announce(CheckpointKind.PERIODIC, None)

    def _announce(self, kind: CheckpointKind, label: str | None) -> Commands:
        assert self.checkpoints is not None
        members = {p: m.epoch for p, m in self.members.items()}
        admitted = self.checkpoints.admit(members, kind, label, self.now)
        begin = BeginCheckpoint(admitted.number, kind)
        return tuple(Tell(p, epoch, begin) for p, epoch in admitted.members.items())

    def _abort(self) -> Commands:
        """Give the round under way up, unless its record is on its way."""
        if self.checkpoints is None or self.checkpoints.round is None or self.checkpoints.round.deciding:
            return ()
        given_up = self.checkpoints.abort()
        aborted = CheckpointAborted(given_up.number)
        return tuple(Tell(p, epoch, aborted) for p, epoch in given_up.members.items())

    def _on_report(
        self, event: Running | Aligned | Durable | CheckpointFailed | Published | Heartbeat
    ) -> Commands:
        if isinstance(event, Published):
            if self.checkpoints is not None:
                self.checkpoints.record_published(event.stream, event.number)
            return ()
        member = self.members.get(event.partition)
        if member is None or member.epoch != event.epoch or self.checkpoints is None:
            return ()
        member.seen, member.heard = self.now, True
        if event.partition in self._scope.lost:
            return ()
        match event:
            case Heartbeat():
                lease = GrantLease(event.sent_at, self.settings.lease_s * self._patience)
                return (Tell(event.partition, event.epoch, lease), *self._tell_committed(event.partition))
            case Running():
                member.running = True
                if self.phase is _J.RECOVERING and all(m.running for m in self.members.values()):
                    self.phases.go(_J.RUNNING)
                return ()
        found = self.checkpoints.current(event.partition, event.epoch, event.number)
        return () if found is None else self._on_round(found, event)

    def _on_round(self, found: Round, event: Aligned | Durable | CheckpointFailed) -> Commands:
        assert self.checkpoints is not None and self.state.assignment is not None
        match event:
            case Aligned():
                found.aligned.add(event.partition)
                return ()
            case CheckpointFailed():
                return () if found.manifest is not None else self._abort()
            case Durable() if found.manifest is None and event.partition not in found.durable:
                try:
                    manifest = self.checkpoints.durable(event.contribution, self.state.assignment)
                except ValueError:
                    return self._abort()
                return () if manifest is None else (WriteManifest(manifest),)
        return ()

    def _on_manifest_written(self, event: ManifestWritten) -> Commands:
        if self.checkpoints is None or self._appending is not None:
            return ()
        found = self.checkpoints.round
        if found is None or found.number != event.number or found.manifest is None or found.deciding:
            return ()
        return self._append(self.checkpoints.decision(self.state))

    def _on_decided(self) -> Commands:
        assert self.checkpoints is not None
        decided = self.checkpoints.decided()
        self._manifest = decided.manifest
        if decided.label in self.wishes.saved:
            self.wishes.saved.remove(decided.label)
        self._patience = max(1.0, self._patience / 2)
        if decided.kind is CheckpointKind.STOP and not self._scope.lost:
            self._drained_since = self.now
        tells = [command for p in decided.members for command in self._tell_committed(p, always=True)]
        return (*tells, PruneObjects(self.state))

    def _tell_committed(self, partition: int, *, always: bool = False) -> Commands:
        """Say again what is decided where it is not known to be published."""
        assert self.checkpoints is not None
        if self._manifest is None or (not always and self._appending is not None):
            return ()
        mine = self._streams_of(partition)
        pending = tuple(o for stream in mine for o in self.checkpoints.pending_of(stream))
        if not pending and not always:
            return ()
        committed = CheckpointCommitted(self._manifest.number, pending)
        return (Tell(partition, self.members[partition].epoch, committed),)

    def _streams_of(self, partition: int) -> list[tuple[str, int]]:
        """The streams that `partition` publishes. Inherited ones are done before it runs."""
        return [(sink, partition) for sink in self.settings.sinks]

    # What goes on by itself ------------------------------------------------------------------------------

    def _on_tick(self, now: float) -> Commands:
        settings = self.settings
        gap = max(0.0, now - self.now)
        self.now += gap
        if gap > settings.liveness_s:
            for member in self.members.values():  # while this coordinator stood still nobody could be heard
                member.seen += gap
                member.started += gap
        silent = {
            partition
            for partition, member in self.members.items()
            if member.heard and self.now - member.seen > settings.liveness_s * self._patience
        }
        if silent - self._scope.lost:
            self._patience = min(self._patience * 2, PATIENCE_MAX)
        late = {
            partition
            for partition, member in self.members.items()
            if not member.running and self.now - member.started > settings.start_timeout_s
        }
        self._scope.lost |= silent | late
        if self.phase not in (_J.RUNNING, _J.RECOVERING, _J.DRAINING):
            return ()
        found = self.checkpoints.round if self.checkpoints is not None else None
        overdue = found is not None and self.now - found.begun > settings.checkpoint_timeout_s
        return self._abort() if overdue or self._scope.lost else ()

    def _go_on(self) -> Commands:
        """The next thing that can be done while no append is under way; () where there is none."""
        if self.checkpoints is None:
            return ()
        if self._scope.lost and self.phase in (_J.RUNNING, _J.RECOVERING, _J.DRAINING):
            return self._abort() or self._replace_lost()
        if self.phase is _J.RUNNING and self._drained_since is not None:
            self.phases.go(_J.DRAINING)
        if self.phase is _J.DRAINING:
            return self._after_drain()
        if self.phase not in (_J.RUNNING, _J.RECOVERING) or self.checkpoints.round is not None:
            return ()
        if self.wishes.partitions is not None:
            return self._append(Rescale(self.epoch, self.wishes.partitions))
        if self.phase is _J.RECOVERING:  # perhaps for ever, where there is no room for so many
            return self._replace_lost() if self.wishes.reassign else ()
        if self.wishes.dropped:
            return self._drop_savepoint(self.wishes.dropped.pop(0))
        if self.wishes.saved:
            return self._announce(CheckpointKind.SAVEPOINT, self.wishes.saved[0])
        if self.wishes.drain:
            stop = self.wishes.stop
            return self._announce(CheckpointKind.STOP, None if stop is None else stop.label)
        return ()

    def _drop_savepoint(self, label: str) -> Commands:
        known = self.state.savepoints.get(label)
        return () if known is None else self._append(Savepoint(self.epoch, known.number, label, kept=False))

    def _after_drain(self) -> Commands:
        assert self.checkpoints is not None and self._drained_since is not None
        published = not self.checkpoints.pending_streams()
        if self.wishes.stop is not None:
            return self._append(Stop(self.epoch, self.wishes.stop.reason)) if published else ()
        if published or self.now - self._drained_since > self.settings.drain_timeout_s:
            return self._replace_lost()
        return ()

    def _stop(self, reason: str) -> Commands:
        self.phases.go(_J.ENDED)
        return (StopSelf(reason),)

    def _break(self, reason: str) -> Commands:
        self.phases.go(_J.ENDED)
        return (JobBroken(reason),)
