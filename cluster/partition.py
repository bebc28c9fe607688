"""One owner of one partition: drives its protocol machine and its dataflow on one thread. Knows no actor."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, assert_never

import pyarrow as pa

from millrace.cluster.exchange.channels import Inbox, Outlet
from millrace.cluster.job import JobSpec
from millrace.cluster.protocol.lifecycle import PartitionLifecycle
from millrace.cluster.protocol.messages import (
    BarrierPassed,
    Begin,
    CapturePersisted,
    ClockAdvanced,
    ConnectPeers,
    FenceSink,
    InjectBarrier,
    MarkerRead,
    OutboxPublished,
    PartitionCommand,
    PartitionEvent,
    PartitionFailed,
    PartitionReport,
    PartitionStart,
    PeersConnected,
    PersistCapture,
    PublishOutbox,
    PublishRefused,
    PurgeState,
    ReadMarker,
    Report,
    RestoreState,
    SinkFenced,
    SinkStream,
    StartSources,
    StatePurged,
    StateRestored,
    StopSelf,
)
from millrace.cluster.protocol.transitions import PartitionPhase
from millrace.cluster.reading import SourceVertex
from millrace.cluster.share import PartitionShare
from millrace.cluster.snapshotting import Snapshots
from millrace.errors import Fenced, MillraceError, Unavailable
from millrace.operators.batch import END_OF_TIME
from millrace.operators.sink import Sink
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.checkpoints.snapshots import read_object
from millrace.state.store import Store

IDLE_WAIT_S = 0.005
SINK_THREADS = 4
"""What sinks show outside is waited for here, so that the loop goes on; each stream takes one step at a time."""
LOG = logging.getLogger("millrace.partition")
STUCK_S = 60.0
"""A loop that made no round for so long is as good as dead: no more heartbeats are sent for it."""


class Peers(Protocol):
    """How a partition reaches the others."""

    def outlet(self, edge: int, receiver: int, schema: pa.Schema) -> Outlet:
        """The sending end of a channel to another partition; frames wait in it until peers have connected."""
        ...

    def connect(
        self,
        edges: Sequence[int],
        inbox: Inbox,
        on_done: Callable[[], None],
        on_failure: Callable[[str], None],
    ) -> None:
        """Open the channels of these edges, and say so."""
        ...

    def close(self) -> None:
        """End all channels."""
        ...


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """Where a partition stands. Rows are since it started; `watermark` is in µs; `ended`: no source has more.

    `stored` is the last checkpoint whose capture it has stored, `state_bytes` what that takes in the store. `at` is when
    that was, in s of the machine's own clock.
    """

    partition: int
    epoch: int
    phase: str
    rows_in: int
    rows_out: int
    late_rows: int
    dead_rows: int
    watermark: int
    splits: int
    ended: bool
    busy_s: float
    stored: str = "none"
    state_bytes: int = 0
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class SplitStatus:
    """Where a split goes on, in its reader's words; `watermark` (µs) is its own; `lag` is None where nobody knows."""

    source: str
    split: str
    position: str
    watermark: int
    lag: int | None
    ended: bool


class PartitionDriver:
    """Carries out what the machine commands, and runs the dataflow between.

    `post`, `status` and `alive` may be called from any thread; all else happens in `run`. `tell` gets reports for the
    coordinator.
    """

    def __init__(
        self,
        job: JobSpec,
        start: PartitionStart,
        store: Store,
        peers: Peers,
        tell: Callable[[PartitionReport], None],
        partitions: int,
    ) -> None:
        self.job = job
        self.start = start
        self._store = store
        self._peers = peers
        self._tell = tell
        self._partitions = partitions
        self._me = start.plan.partition, start.epoch
        self._machine = PartitionLifecycle()
        self._events: queue.SimpleQueue[PartitionEvent] = queue.SimpleQueue()
        self._news = threading.Event()
        self._persister = ThreadPoolExecutor(1, thread_name_prefix="persist")
        self._publisher = ThreadPoolExecutor(SINK_THREADS, thread_name_prefix="publish")
        self._snapshots = Snapshots(store, job, start)
        self._heirs: dict[tuple[str, int], Sink] = {}
        self._polling = False
        self._round_at = time.monotonic()
        self.share: PartitionShare | None = None
        self.ended: str | None = None
        self.lasting = False
        """Whether what ended it would end a successor too."""

    def post(self, event: PartitionEvent) -> None:
        """Hand the machine an event."""
        self._events.put(event)
        self._news.set()

    def run(self) -> str:
        """Live until the machine says to stop; answers why."""
        self.post(Begin(self.start, time.monotonic() + max(60.0, self.job.lease_s)))
        try:
            while self.ended is None:
                self._round_at = time.monotonic()
                self._handle_events()
                if self.ended is None and not self._step():
                    self._news.wait(IDLE_WAIT_S)
                    self._news.clear()
        finally:
            self._polling = False
            self._persister.shutdown(wait=False, cancel_futures=True)
            self._publisher.shutdown(wait=False, cancel_futures=True)
            for heir in self._heirs.values():
                heir.close()
            if self.share is not None:
                self.share.close()
            self._peers.close()
        return self.ended

    @property
    def alive(self) -> bool:
        """Whether the loop still turns."""
        return time.monotonic() - self._round_at < STUCK_S

    def status(self) -> PartitionStatus:
        """A snapshot that may be a little behind."""
        plan, share = self.start.plan, self.share
        dataflow = None if share is None else share.dataflow
        vertices = [] if dataflow is None else list(dataflow.vertices)
        sources = [] if dataflow is None else list(dataflow.sources)
        sinks = [] if dataflow is None else list(dataflow.sinks)
        return PartitionStatus(
            plan.partition,
            self.start.epoch,
            self._machine.phase.name.lower(),
            sum(v.metrics.rows_in for v in sources),
            sum(v.metrics.rows_in for v in sinks),
            sum(v.metrics.late_rows for v in vertices),
            sum(v.metrics.dead_rows for v in vertices),
            min((v.watermark for v in sources), default=END_OF_TIME),
            len(plan.splits),
            share is not None and self._polling and all(v.ended for v in sources),
            sum(v.metrics.busy_ns for v in vertices) / 1e9,
            *self._snapshots.stored,
            time.monotonic(),
        )

    def splits(self) -> tuple[SplitStatus, ...]:
        """The splits that the partition reads or has read; it may be asked while it does."""
        share = self.share
        sources = [] if share is None else list(share.dataflow.sources)
        return tuple(
            SplitStatus(source.context.name, split, *found)
            for source in sources
            for split, found in source.survey().items()
        )

    def _handle_events(self) -> None:
        self._feed(ClockAdvanced(time.monotonic()))
        while self.ended is None:
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                return
            self._feed(event)

    def _feed(self, event: PartitionEvent) -> None:
        for command in self._machine.handle(event):
            try:
                self._carry_out(command)
            except (MillraceError, OSError) as error:
                self.post(_failed(error))

    def _step(self) -> int:
        share = self.share
        if share is None or self._machine.phase not in (PartitionPhase.RUNNING, PartitionPhase.DRAINING):
            return 0
        try:
            return share.step(poll=self._polling)
        except (MillraceError, OSError) as error:
            self.post(_failed(error))
            return 1

    def _carry_out(self, command: PartitionCommand) -> None:
        match command:
            case PurgeState():
                self.post(StatePurged())
            case RestoreState():
                self._restore()
                self.post(StateRestored())
            case FenceSink() | ReadMarker():
                self._at_sink(command.stream, command)
            case PublishOutbox():
                self._at_sink(command.outbox.stream, command)
            case ConnectPeers():
                assert self.share is not None
                self._connect(self.share)
            case StartSources():
                LOG.info("epoch %s reads its sources, from checkpoint %s", self._me[1], self.start.restored)
                self._polling = True
            case InjectBarrier():
                assert self.share is not None
                self._polling = not command.last
                self.share.inject(command.number)
            case PersistCapture():
                self._persister.submit(self._persist, command)
            case Report():
                self._tell(command.message)
            case StopSelf():
                LOG.info("epoch %s ends: %s", self._me[1], command.reason)
                self.ended = command.reason
                self.lasting = command.lasting
            case _:
                assert_never(command)

    def _restore(self) -> None:
        self.share = PartitionShare(
            self.job,
            self.start,
            self._partitions,
            self._peers.outlet,
            self._snapshots,
            self._passed,
            self._news.set,
        )
        self.share.restore(self._snapshots.restored())
        self._persister.submit(self._verify, self.share.dataflow.sources)  # before anything new is stored

    def _connect(self, share: PartitionShare) -> None:
        if not share.layout.exchanged:
            self.post(PeersConnected())
            return
        self._peers.connect(
            [at for at, edge in enumerate(share.layout.edges) if edge.keys is not None],
            share.inbox,
            lambda: self.post(PeersConnected()),
            lambda reason: self.post(PartitionFailed(reason)),
        )

    def _passed(self, event: BarrierPassed) -> None:
        self.post(event)

    def _verify(self, sources: list[SourceVertex]) -> None:
        """See that sources still give what they gave before the checkpoint."""
        try:
            for source in sources:
                for split in source.verify():
                    LOG.warning(
                        "partition %s, epoch %s: split %s can not be read again, so nobody knows whether it is the same",
                        *self._me,
                        split,
                    )
        except (MillraceError, OSError) as error:
            self.post(_failed(error))

    def _persist(self, command: PersistCapture) -> None:
        try:
            contribution = self._snapshots.persist(command.number)
        except Exception as error:  # noqa: BLE001  # it must reach the machine, not end with this thread
            self.post(_failed(error, f"checkpoint {command.number} was not stored: "))
        else:
            self.post(CapturePersisted(command.number, contribution))

    def _at_sink(self, stream: SinkStream, command: FenceSink | ReadMarker | PublishOutbox) -> None:
        """Carry out a command that waits for somebody outside; what came of it comes back as an event."""
        sink = self._sink(stream)

        def work() -> None:
            try:
                self.post(self._outside(sink, stream, command))
            except Fenced as error:
                LOG.warning("refused: partition %s under epoch %s: %s", *self._me, error.message)
                self.post(PublishRefused(stream))
            except Exception as error:  # noqa: BLE001  # it must reach the machine, not end with this thread
                reason = (
                    str(error) if isinstance(error, MillraceError) else f"{type(error).__name__}: {error}"
                )
                self.post(PartitionFailed(reason))

        self._publisher.submit(work)

    def _outside(
        self, sink: Sink, stream: SinkStream, command: FenceSink | ReadMarker | PublishOutbox
    ) -> PartitionEvent:
        match command:
            case FenceSink():
                sink.fence()
                return SinkFenced(stream)
            case ReadMarker():
                value = sink.marker()
                return MarkerRead(stream, None if value is None else CheckpointNumber.of(value))
            case PublishOutbox():
                outbox = command.outbox
                content = read_object(self._store, outbox.content)
                if self.ended is not None or time.monotonic() >= self._machine.lease_until:
                    return PartitionFailed("the lease ran out before an outbox was published")
                sink.publish(outbox.number.value, content)
                return OutboxPublished(stream, outbox.number)
            case _:
                assert_never(command)

    def _sink(self, stream: SinkStream) -> Sink:
        """The sink of this partition, or one in the name of a partition that is no more."""
        assert self.share is not None
        name, partition = stream
        vertex = self.share.sinks[name]
        if partition == self.start.plan.partition:
            return vertex.sink
        if stream not in self._heirs:
            self._heirs[stream] = self.share.build_sink(name, partition)
        return self._heirs[stream]


def _failed(error: Exception, doing: str = "") -> PartitionFailed:
    """What broke; who does not answer now may answer later, and who was fenced has a successor."""
    reason = str(error) if isinstance(error, MillraceError) else f"{type(error).__name__}: {error}"
    lasting = isinstance(error, MillraceError) and not isinstance(error, Unavailable | Fenced)
    return PartitionFailed(doing + reason, lasting)
