"""The life of one owner of one partition: purge, restore, fence, publish, run. Does none of it itself."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from millrace.cluster.protocol.messages import (
    Aligned,
    BarrierPassed,
    Begin,
    BeginCheckpoint,
    CapturePersisted,
    CheckpointAborted,
    CheckpointCommitted,
    CheckpointFailed,
    ClockAdvanced,
    ConnectPeers,
    Durable,
    FenceSink,
    InjectBarrier,
    LeaseRenewed,
    MarkerRead,
    OutboxPublished,
    PartitionCommand,
    PartitionEvent,
    PartitionFailed,
    PartitionStart,
    PeersConnected,
    PersistCapture,
    Published,
    PublishOutbox,
    PublishRefused,
    PurgeState,
    ReadMarker,
    Report,
    RestoreState,
    Running,
    SinkFenced,
    SinkStream,
    StartSources,
    StatePurged,
    StateRestored,
    StopSelf,
)
from millrace.cluster.protocol.transitions import PARTITION_TRANSITIONS, PartitionPhase, Phases
from millrace.state.checkpoints.manifest import OutboxRef
from millrace.state.checkpoints.number import NO_CHECKPOINT, CheckpointNumber
from millrace.state.ledger import CheckpointKind

Commands = tuple[PartitionCommand, ...]
_P = PartitionPhase


class PartitionLifecycle:
    """One owner: a partition under one epoch. Never used again after it ended.

    Invariants: state is restored only while nothing runs; a marker is read only after its stream is fenced;
    outboxes of a stream are published one at a time, by ascending number, above the marker; nothing is sent before
    peers of the same epochs have connected; nothing is shown outside once the lease ran out.
    """

    def __init__(self) -> None:
        self.phases: Phases[PartitionPhase] = Phases("a partition", _P.STOPPED, PARTITION_TRANSITIONS)
        self.start: PartitionStart | None = None
        self.lease_until = 0.0
        self._unfenced: set[SinkStream] = set()
        self._markers: dict[SinkStream, CheckpointNumber] = {}
        self._pending: dict[SinkStream, list[OutboxRef]] = {}
        self._publishing: dict[SinkStream, CheckpointNumber] = {}
        self._cut: CheckpointNumber = NO_CHECKPOINT
        self._given_up: CheckpointNumber = NO_CHECKPOINT
        self._sealed: list[OutboxRef] = []
        self._captured: list[CheckpointNumber] = []
        self._persisting = False

    @property
    def phase(self) -> PartitionPhase:
        """Where the owner is in its life."""
        return self.phases.now

    @property
    def unpublished(self) -> int:
        """Outboxes that are sealed and, as far as this owner knows, not shown outside. From any thread."""
        waiting = sum(map(len, list(self._pending.values())))
        return waiting + len(self._publishing) + len(self._sealed)

    def handle(self, event: PartitionEvent) -> Commands:
        """What to do about one event; after the end, nothing."""
        if self.phase is _P.ENDED:
            return ()
        self.phases.note(event)
        match event:
            case ClockAdvanced() | LeaseRenewed():
                return self._on_lease(event)
            case PartitionFailed():
                return self._end(event.reason, event.lasting)
            case PublishRefused():
                return self._end(f"{event.stream} is fenced by another owner")
            case Begin() | StatePurged() | StateRestored() | PeersConnected():
                return self._on_start(event)
            case SinkFenced() | MarkerRead() | OutboxPublished():
                return self._on_sink(event)
            case BeginCheckpoint() | BarrierPassed() | CapturePersisted():
                return self._on_checkpoint(event)
            case CheckpointAborted():
                return self._on_aborted(event)
            case CheckpointCommitted():
                return self._on_committed(event)
            case _:
                assert_never(event)

    def _on_lease(self, event: ClockAdvanced | LeaseRenewed) -> Commands:
        if isinstance(event, LeaseRenewed):
            self.lease_until = max(self.lease_until, event.until)
            return ()
        if self.start is not None and event.now >= self.lease_until:
            return self._end("the lease ran out")
        return ()

    def _end(self, reason: str, lasting: bool = False) -> Commands:
        self.phases.go(_P.ENDED)
        return (StopSelf(reason, lasting),)

    def _on_start(self, event: Begin | StatePurged | StateRestored | PeersConnected) -> Commands:
        match event:
            case Begin():
                self.phases.go(_P.PURGING)
                self.start = event.start
                self.lease_until = event.lease_until
                return (PurgeState(),)
            case StatePurged():
                self.phases.go(_P.RESTORING)
                assert self.start is not None
                return (RestoreState(self.start),)
            case StateRestored():
                return self._fence()
            case PeersConnected():
                self.phases.go(_P.RUNNING)
                assert self.start is not None
                return (StartSources(), Report(Running(self.start.plan.partition, self.start.epoch)))
            case _:
                assert_never(event)

    def _fence(self) -> Commands:
        self.phases.go(_P.FENCING)
        assert self.start is not None
        self._unfenced = set(self.start.streams)
        for outbox in self.start.pending:
            assert outbox.stream in self._unfenced, "an outbox to publish on a stream that is not fenced"
            self._pending.setdefault(outbox.stream, []).append(outbox)
        for outboxes in self._pending.values():
            outboxes.sort(key=_number)
        if not self._unfenced:
            return self._fenced()
        return tuple(FenceSink(stream) for stream in self.start.streams)

    def _fenced(self) -> Commands:
        self.phases.go(_P.PUBLISHING)
        return self._publish_or_connect()

    def _publish_or_connect(self) -> Commands:
        commands = self._publish_next()
        if self.phase is _P.PUBLISHING and not any(self._pending.values()) and not self._publishing:
            self.phases.go(_P.CONNECTING)
            assert self.start is not None
            return (*commands, ConnectPeers(self.start.peers))
        return commands

    def _on_sink(self, event: SinkFenced | MarkerRead | OutboxPublished) -> Commands:
        assert self.start is not None
        match event:
            case SinkFenced():
                return (ReadMarker(event.stream),) if event.stream in self._unfenced else ()
            case MarkerRead():
                if event.stream not in self._unfenced:
                    return ()
                self._unfenced.remove(event.stream)
                self._markers[event.stream] = event.marker or NO_CHECKPOINT
                reports = () if event.marker is None else (self._published(event.stream),)
                return (*reports, *(() if self._unfenced else self._fenced()))
            case OutboxPublished():
                if self._publishing.get(event.stream) != event.number:
                    return ()
                del self._publishing[event.stream]
                self._markers[event.stream] = event.number
                return (self._published(event.stream), *self._publish_or_connect())
            case _:
                assert_never(event)

    def _publish_next(self) -> Commands:
        """Start the next outbox of every stream that has none under way."""
        commands: list[PartitionCommand] = []
        for stream, outboxes in self._pending.items():
            marker = self._markers[stream]
            while outboxes and outboxes[0].number <= marker:
                outboxes.pop(0)
            if outboxes and stream not in self._publishing:
                outbox = outboxes.pop(0)
                self._publishing[stream] = outbox.number
                commands.append(PublishOutbox(outbox))
        return tuple(commands)

    def _published(self, stream: SinkStream) -> Report:
        assert self.start is not None
        return Report(Published(self.start.plan.partition, self.start.epoch, stream, self._markers[stream]))

    def _on_checkpoint(self, event: BeginCheckpoint | BarrierPassed | CapturePersisted) -> Commands:
        assert self.start is not None
        me = self.start.plan.partition, self.start.epoch
        match event:
            case BeginCheckpoint():
                return self._begin_checkpoint(event)
            case BarrierPassed():
                self._captured.append(event.number)
                return (Report(Aligned(*me, event.number)), *self._persist_next())
            case CapturePersisted():
                self._persisting = False
                self._sealed += event.contribution.outboxes
                contribution = replace(event.contribution, outboxes=tuple(self._sealed))
                return (Report(Durable(*me, event.number, contribution)), *self._persist_next())
            case _:
                assert_never(event)

    def _begin_checkpoint(self, event: BeginCheckpoint) -> Commands:
        assert self.start is not None
        if self.phase not in (_P.RUNNING, _P.DRAINING):
            return (Report(CheckpointFailed(self.start.plan.partition, self.start.epoch, event.number)),)
        if event.number <= max(self._cut, self._given_up):
            return ()
        self._cut = event.number
        inject = InjectBarrier(event.number, event.kind is CheckpointKind.STOP)
        if inject.last and self.phase is _P.RUNNING:
            self.phases.go(_P.DRAINING)
        elif not inject.last and self.phase is _P.DRAINING:
            self.phases.go(_P.RUNNING)
            return (inject, StartSources())
        return (inject,)

    def _on_aborted(self, event: CheckpointAborted) -> Commands:
        self._given_up = max(self._given_up, event.number)
        if self.phase is _P.DRAINING and event.number >= self._cut:
            self.phases.go(_P.RUNNING)
            return (StartSources(),)
        return ()

    def _persist_next(self) -> Commands:
        if self._persisting or not self._captured:
            return ()
        self._persisting = True
        return (PersistCapture(self._captured.pop(0)),)

    def _on_committed(self, event: CheckpointCommitted) -> Commands:
        if self.phase not in (_P.RUNNING, _P.DRAINING):
            return ()
        self._sealed = [outbox for outbox in self._sealed if outbox.number > event.number]
        reports: list[PartitionCommand] = []
        for outbox in event.pending:
            assert outbox.stream in self._markers, "an outbox of a stream that is another's"
            known = self._pending.setdefault(outbox.stream, [])
            if outbox.number <= self._markers[outbox.stream]:
                reports.append(self._published(outbox.stream))
            elif outbox not in known and self._publishing.get(outbox.stream) != outbox.number:
                known.append(outbox)
                known.sort(key=_number)
        return (*reports, *self._publish_next())


def _number(outbox: OutboxRef) -> CheckpointNumber:
    return outbox.number
