"""Every event and command of the protocol. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from millrace.state.checkpoints.manifest import Contribution, Manifest, OutboxRef, SourcePoint, TableChain
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.ledger import CheckpointKind, JobState, PartitionPlan, Record

SinkStream = tuple[str, int]
"""(sink, sink partition): what a transactional id and a marker are for."""


# What a partition starts with ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RangedChain:
    """A table to be restored: only rows whose vnode is in `first` … `end` - 1."""

    chain: TableChain
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class PartitionStart:
    """Everything a new owner of a partition needs. `peers` has the epoch of every partition it exchanges with,
    itself included (none where partitions are independent), `ranges` the vnodes (first, end) of each partition.

    `continues` says whether `chains` may be extended by changes (the ranges did not move, the plan is the same).
    `streams` are the sink partitions to fence; `pending` their decided outboxes, by stream in order of number.
    """

    job: str
    plan: PartitionPlan
    epoch: int
    vnodes: int
    restored: CheckpointNumber
    chains: tuple[RangedChain, ...]
    sources: tuple[SourcePoint, ...]
    streams: tuple[SinkStream, ...]
    pending: tuple[OutboxRef, ...]
    peers: Mapping[int, int]
    ranges: tuple[tuple[int, int], ...]
    continues: bool


# Partition: events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """The process was made for this. Until `lease_until` (s, the process's clock) it may act."""

    start: PartitionStart
    lease_until: float


@dataclass(frozen=True, slots=True)
class StatePurged:
    """Nothing of a former life is in memory or on the partition's local disk."""


@dataclass(frozen=True, slots=True)
class StateRestored:
    """Operators and sources hold the checkpoint; none has run."""


@dataclass(frozen=True, slots=True)
class SinkFenced:
    """The predecessor's transactions are aborted and further ones refused."""

    stream: SinkStream


@dataclass(frozen=True, slots=True)
class MarkerRead:
    """The greatest number published on `stream`, read after fencing; None where none is."""

    stream: SinkStream
    marker: CheckpointNumber | None


@dataclass(frozen=True, slots=True)
class OutboxPublished:
    """The outbox and its marker are visible, in one transaction."""

    stream: SinkStream
    number: CheckpointNumber


@dataclass(frozen=True, slots=True)
class PublishRefused:
    """The sink says that another owner fenced this one."""

    stream: SinkStream


@dataclass(frozen=True, slots=True)
class PeersConnected:
    """Every exchange stream to and from the peers is open under the epochs of the start."""


@dataclass(frozen=True, slots=True)
class BeginCheckpoint:
    """Cut `number`. With `kind` STOP the sources send nothing after the barrier."""

    number: CheckpointNumber
    kind: CheckpointKind


@dataclass(frozen=True, slots=True)
class BarrierPassed:
    """The barrier has passed the last operator and sink: all is captured in memory, outboxes are sealed."""

    number: CheckpointNumber


@dataclass(frozen=True, slots=True)
class CapturePersisted:
    """Everything of the capture is in the store under this partition and epoch."""

    number: CheckpointNumber
    contribution: Contribution


@dataclass(frozen=True, slots=True)
class CheckpointAborted:
    """`number` will never be decided. Its outbox is kept: its rows go out with the next one."""

    number: CheckpointNumber


@dataclass(frozen=True, slots=True)
class CheckpointCommitted:
    """`number` is decided; `pending` are this partition's decided outboxes not known to be published."""

    number: CheckpointNumber
    pending: tuple[OutboxRef, ...]


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """The coordinator has answered a heartbeat that was sent such that the lease lasts until `until` (s)."""

    until: float


@dataclass(frozen=True, slots=True)
class ClockAdvanced:
    """The process's clock is at `now` (s); given often, and before any write outside."""

    now: float


@dataclass(frozen=True, slots=True)
class PartitionFailed:
    """Something broke for good in this process; `lasting`: it would break again in the next."""

    reason: str
    lasting: bool = False


# Partition: commands -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PurgeState:
    """Drop whatever is left of a former life → `StatePurged`."""


@dataclass(frozen=True, slots=True)
class RestoreState:
    """Build stopped operators and sources, and load the checkpoint into them → `StateRestored`."""

    start: PartitionStart


@dataclass(frozen=True, slots=True)
class FenceSink:
    """Fence the predecessor (`init_transactions`) → `SinkFenced`."""

    stream: SinkStream


@dataclass(frozen=True, slots=True)
class ReadMarker:
    """Read the marker with `read_committed` up to the end → `MarkerRead`."""

    stream: SinkStream


@dataclass(frozen=True, slots=True)
class PublishOutbox:
    """Rows and marker in one transaction → `OutboxPublished` or `PublishRefused`."""

    outbox: OutboxRef


@dataclass(frozen=True, slots=True)
class ConnectPeers:
    """Open the exchange streams; send nothing yet → `PeersConnected`."""

    peers: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class StartSources:
    """Poll from now on."""


@dataclass(frozen=True, slots=True)
class InjectBarrier:
    """Note the sources' positions and send the barrier; with `last`, poll no more → `BarrierPassed`."""

    number: CheckpointNumber
    last: bool


@dataclass(frozen=True, slots=True)
class PersistCapture:
    """Write what was captured at `number` → `CapturePersisted`. One at a time, in order."""

    number: CheckpointNumber


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the coordinator."""

    message: PartitionReport


@dataclass(frozen=True, slots=True)
class StopSelf:
    """End the process; show nothing more outside. `lasting`: what ended it would end the next one too."""

    reason: str
    lasting: bool = False


# Coordinator: events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LedgerRead:
    """The ledger's fold and the number of its next record."""

    state: JobState
    next_seq: int


@dataclass(frozen=True, slots=True)
class RecordAppended:
    """Record `seq` is this coordinator's; `state` is the fold with it."""

    seq: int
    state: JobState


@dataclass(frozen=True, slots=True)
class RecordLost:
    """Record `seq` is someone else's."""

    seq: int


@dataclass(frozen=True, slots=True)
class ManifestRead:
    """A manifest, whole."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class ManifestDamaged:
    """A manifest is missing or does not match its checksum."""

    number: CheckpointNumber
    reason: str


@dataclass(frozen=True, slots=True)
class ManifestWritten:
    """The manifest of `number` is in the store."""

    number: CheckpointNumber


@dataclass(frozen=True, slots=True)
class SplitsFound:
    """All splits there are, as (source node, split), in a stable order."""

    splits: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Running:
    """A partition has restored, fenced, published what was pending, and reads its sources."""

    partition: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Aligned:
    """The barrier has passed the partition's last sink."""

    partition: int
    epoch: int
    number: CheckpointNumber


@dataclass(frozen=True, slots=True)
class Durable:
    """All that the partition adds to `number` is in the store."""

    partition: int
    epoch: int
    number: CheckpointNumber
    contribution: Contribution


@dataclass(frozen=True, slots=True)
class CheckpointFailed:
    """The partition can not take part in `number`."""

    partition: int
    epoch: int
    number: CheckpointNumber


@dataclass(frozen=True, slots=True)
class Published:
    """All outboxes of `stream` up to `number` are visible."""

    partition: int
    epoch: int
    stream: SinkStream
    number: CheckpointNumber


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A partition lives; `sent_at` (s, its own clock) comes back with the lease."""

    partition: int
    epoch: int
    sent_at: float


PartitionReport = Running | Aligned | Durable | CheckpointFailed | Published | Heartbeat


@dataclass(frozen=True, slots=True)
class PartitionLost:
    """The process of a partition is dead or was silent for too long.

    `lasting`: the next one will be lost as well; `damaged`: what it was to restore is.
    """

    partition: int
    epoch: int
    reason: str
    lasting: bool = False
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class CheckpointDue:
    """The interval has passed."""


@dataclass(frozen=True, slots=True)
class SavepointRequested:
    """There is to be a checkpoint that pruning leaves alone; it is tried until it is decided."""

    label: str


@dataclass(frozen=True, slots=True)
class SavepointDropped:
    """Pruning need not leave it alone any more."""

    label: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The coordinator's clock is at `now` (s)."""

    now: float


@dataclass(frozen=True, slots=True)
class RescaleRequested:
    """There are to be this many partitions."""

    partitions: int


@dataclass(frozen=True, slots=True)
class StopRequested:
    """End the job at a checkpoint; with `label`, kept as a savepoint."""

    reason: str
    label: str | None = None


# Coordinator: commands -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReadLedger:
    """Read on → `LedgerRead`."""


@dataclass(frozen=True, slots=True)
class AppendRecord:
    """Append at `seq` → `RecordAppended` or `RecordLost`. One is under way at a time."""

    seq: int
    record: Record


@dataclass(frozen=True, slots=True)
class ReadManifest:
    """→ `ManifestRead` or `ManifestDamaged`. `published`: what it has pending is not any more, and left out."""

    number: CheckpointNumber
    key: str
    published: bool = False


@dataclass(frozen=True, slots=True)
class WriteManifest:
    """→ `ManifestWritten`."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class DiscoverSplits:
    """→ `SplitsFound`."""


@dataclass(frozen=True, slots=True)
class StartPartition:
    """Make a process for this owner."""

    start: PartitionStart


@dataclass(frozen=True, slots=True)
class KillPartition:
    """End the process of this owner, best effort."""

    partition: int
    epoch: int


@dataclass(frozen=True, slots=True)
class GrantLease:
    """Answer to a heartbeat: the lease lasts `duration_s` from `sent_at` on the partition's clock."""

    sent_at: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Tell:
    """Deliver to one owner, best effort; another epoch must not get it."""

    partition: int
    epoch: int
    message: BeginCheckpoint | CheckpointAborted | CheckpointCommitted | GrantLease


@dataclass(frozen=True, slots=True)
class PruneObjects:
    """Delete manifests below `oldest` and all objects that nothing kept refers to (see `prune`)."""

    state: JobState


@dataclass(frozen=True, slots=True)
class JobEnded:
    """All partitions have stopped and everything is published: the job is over."""

    reason: str


@dataclass(frozen=True, slots=True)
class JobBroken:
    """The job can not go on without somebody's decision."""

    reason: str


PartitionEvent = (
    Begin
    | StatePurged
    | StateRestored
    | SinkFenced
    | MarkerRead
    | OutboxPublished
    | PublishRefused
    | PeersConnected
    | BeginCheckpoint
    | BarrierPassed
    | CapturePersisted
    | CheckpointAborted
    | CheckpointCommitted
    | LeaseRenewed
    | ClockAdvanced
    | PartitionFailed
)
PartitionCommand = (
    PurgeState
    | RestoreState
    | FenceSink
    | ReadMarker
    | PublishOutbox
    | ConnectPeers
    | StartSources
    | InjectBarrier
    | PersistCapture
    | Report
    | StopSelf
)
CoordinatorEvent = (
    LedgerRead
    | RecordAppended
    | RecordLost
    | ManifestRead
    | ManifestDamaged
    | ManifestWritten
    | SplitsFound
    | PartitionReport
    | PartitionLost
    | CheckpointDue
    | SavepointRequested
    | SavepointDropped
    | Tick
    | RescaleRequested
    | StopRequested
)
CoordinatorCommand = (
    ReadLedger
    | AppendRecord
    | ReadManifest
    | WriteManifest
    | DiscoverSplits
    | StartPartition
    | KillPartition
    | Tell
    | PruneObjects
    | JobEnded
    | JobBroken
    | StopSelf
)
