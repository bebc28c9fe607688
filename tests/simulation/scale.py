"""The real machines with partitions that do nothing but answer: how much a coordinator works when there are many."""

from __future__ import annotations

import time
from collections import deque

from millrace.cluster.protocol import messages as m
from millrace.cluster.protocol.coordinator import Coordinator, CoordinatorSettings
from millrace.cluster.protocol.lifecycle import PartitionLifecycle
from millrace.cluster.protocol.transitions import JobPhase
from millrace.state.checkpoints.manifest import (
    Contribution,
    Link,
    ObjectRef,
    OutboxRef,
    SourcePoint,
    SplitPoint,
    TableChain,
    decode_manifest,
    encode_manifest,
)
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.ledger import JobCreated, JobState, fold

REF = ObjectRef("job/data/00000000004294967297/00001-1/0-whole", 1 << 20, b"0123456789abcdef")


class StubJob:
    """A job of `partitions` and `splits` whose coordinator and partitions talk at once. Counts coordinator seconds."""

    def __init__(self, partitions: int, splits: int) -> None:
        self.splits = tuple(("source", f"topic-{i}") for i in range(splits))
        self.coordinator = Coordinator(
            CoordinatorSettings("job", "me", ("out",), independent=False, plan="plan")
        )
        self.partitions: dict[tuple[int, int], PartitionLifecycle] = {}
        self.state = fold(JobState(), JobCreated("job", "plan", 4096, partitions))
        self.seconds = 0.0
        self.decided = 0
        self._inbox: deque[m.CoordinatorEvent] = deque()
        self._manifest: bytes = b""

    def run(self, *events: m.CoordinatorEvent) -> None:
        """Hand events to the coordinator, and whatever follows from them, until nothing does."""
        self._inbox.extend(events)
        while self._inbox:
            event = self._inbox.popleft()
            begun = time.process_time()
            commands = self.coordinator.handle(event)
            for command in commands:
                if isinstance(command, m.WriteManifest):
                    self._manifest = encode_manifest(command.manifest)
            self.seconds += time.process_time() - begun
            for command in commands:
                self._carry_out(command)

    def manifest_round_trip(self) -> bool:
        return encode_manifest(decode_manifest(self._manifest, "it")) == self._manifest

    def _carry_out(self, command: m.CoordinatorCommand) -> None:
        match command:
            case m.AppendRecord():
                self.state = fold(self.state, command.record)
                self._inbox.append(m.RecordAppended(command.seq, self.state))
            case m.DiscoverSplits():
                self._inbox.append(m.SplitsFound(self.splits))
            case m.StartPartition():
                key = command.start.plan.partition, command.start.epoch
                self.partitions[key] = PartitionLifecycle()
                self._drive(key, m.Begin(command.start, 1e9))
            case m.WriteManifest():
                self._inbox.append(m.ManifestWritten(command.manifest.number))
            case m.Tell():
                if isinstance(command.message, m.CheckpointCommitted):
                    self.decided += 1
                if not isinstance(command.message, m.GrantLease):
                    self._drive((command.partition, command.epoch), command.message)
            case _:
                pass

    def _drive(self, key: tuple[int, int], *events: m.PartitionEvent) -> None:
        machine = self.partitions[key]
        open_ = deque(events)
        while open_:
            for command in machine.handle(open_.popleft()):
                match command:
                    case m.Report():
                        self._inbox.append(command.message)
                    case m.PurgeState():
                        open_.append(m.StatePurged())
                    case m.RestoreState():
                        open_.append(m.StateRestored())
                    case m.FenceSink():
                        open_.append(m.SinkFenced(command.stream))
                    case m.ReadMarker():
                        open_.append(m.MarkerRead(command.stream, None))
                    case m.PublishOutbox():
                        open_.append(m.OutboxPublished(command.outbox.stream, command.outbox.number))
                    case m.ConnectPeers():
                        open_.append(m.PeersConnected())
                    case m.InjectBarrier():
                        open_.append(m.BarrierPassed(command.number))
                    case m.PersistCapture():
                        assert machine.start is not None
                        open_.append(
                            m.CapturePersisted(command.number, stub_of(machine.start, command.number))
                        )
                    case _:
                        pass


def stub_of(start: m.PartitionStart, number: CheckpointNumber) -> Contribution:
    """A contribution as a real one is: a chain of three links, all splits, an outbox."""
    plan = start.plan
    splits = {name: SplitPoint({"offset": 1 << 40}, 1 << 50) for _, name in plan.splits}
    chain = TableChain("0123456789abcdef", "groups", ("k",), (Link(REF), Link(REF, REF), Link(REF)))
    return Contribution(
        plan.partition,
        start.epoch,
        plan.first,
        plan.end,
        (chain,),
        (SourcePoint("source", splits, frozenset(), 1 << 50),),
        (OutboxRef("out", plan.partition, number, REF),),
    )


def measure(partitions: int, splits: int, checkpoints: int = 3) -> tuple[float, float]:
    """Coordinator seconds to plan and start the job, and for one checkpoint (manifest encoding included)."""
    job = StubJob(partitions, splits)
    job.run(m.Tick(0.0), m.LedgerRead(job.state, 2))
    assert job.coordinator.phase is JobPhase.RUNNING and len(job.partitions) == partitions
    planned, job.seconds = job.seconds, 0.0
    each = []
    for at in range(checkpoints):
        job.seconds = 0.0
        job.run(m.Tick(0.1 * at), m.CheckpointDue())
        each.append(job.seconds)
    assert job.state.latest is not None and job.decided == partitions * checkpoints
    assert job.coordinator.checkpoints is not None and not job.coordinator.checkpoints.pending()
    assert job.manifest_round_trip()
    return planned, min(each)
