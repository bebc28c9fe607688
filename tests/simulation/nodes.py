"""The adapters of the simulator: processes that drive the real machines, with I/O that fails and messages that get lost."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import msgpack
import pyarrow as pa
from tests.simulation.engine import Cut, Engine
from tests.simulation.world import FencedByBroker, Process

from millrace.cluster.protocol import messages as m
from millrace.cluster.protocol import ownership as own
from millrace.cluster.protocol.coordinator import Coordinator, CoordinatorSettings
from millrace.cluster.protocol.lifecycle import PartitionLifecycle
from millrace.cluster.protocol.transitions import JobPhase, PartitionPhase
from millrace.errors import Corrupt, Fenced
from millrace.state.checkpoints.manifest import (
    Contribution,
    OutboxRef,
    encode_manifest,
    manifest_key,
)
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.checkpoints.pruning import Pruner, read_manifest
from millrace.state.checkpoints.snapshots import ChainWriter, data_key, read_chain, read_object, write_object
from millrace.state.ledger import CheckpointDecided, Ledger

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

JOB = "job"
BAD_PLAN = "bad"
"""A plan whose partitions do not start."""
_REQUESTS = itertools.count(1)


def edge(command: object) -> str:
    """The failpoint's name of a command: an append is told by its record, a decision by its kind as well."""
    if isinstance(command, m.AppendRecord):
        name = f"AppendRecord:{type(command.record).__name__}"
        return (
            f"{name}:{command.record.kind.value}" if isinstance(command.record, CheckpointDecided) else name
        )
    return type(command).__name__


class Metadata(Process):
    """The metadata actor: `Ownership` over ledgers in the store."""

    role = "metadata"

    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__(cluster.world, name)
        self.cluster = cluster
        self.machine = own.Ownership(lease_s=1.5)
        self.ledgers: dict[str, Ledger] = {}
        self.post(0.1, self._tick)

    def handle(self, event: own.OwnershipEvent) -> None:
        for command in self.machine.handle(event):
            self._carry_out(command)

    def _tick(self) -> None:
        self.post(0.2, self._tick)
        self.handle(own.TimePassed(self.world.now))

    def _ledger(self, job: str) -> Ledger:
        return self.ledgers.setdefault(job, Ledger(self.cluster.store, job, self.name))

    def _carry_out(self, command: own.OwnershipCommand) -> None:
        self.world.reach(f"metadata.{type(command).__name__}")
        match command:
            case own.FoldLedger():
                ledger = self._ledger(command.job)
                self.io(
                    "FoldLedger",
                    ledger.read,
                    lambda _: self.handle(own.LedgerFolded(command.job, ledger.state, ledger.next_seq)),
                )
            case own.WriteRecord():
                self.io(
                    f"WriteRecord:{type(command.record).__name__}",
                    lambda: self._write(command),
                    self.handle,  # type: ignore[arg-type]
                )
            case own.AnswerAppended():
                self._answer(command.requester, m.RecordAppended(command.seq, command.state))
            case own.AnswerLost():
                self._answer(command.requester, m.RecordLost(command.seq))
            case own.AnswerState():
                self._answer(command.requester, m.LedgerRead(command.state, command.next_seq))
            case own.CoordinatorSilent():
                self.cluster.replace_coordinator(command.owner)
            case own.AnswerLease():
                pass

    def _write(self, command: own.WriteRecord) -> own.OwnershipEvent:
        ledger = self._ledger(command.job)
        try:
            state = ledger.append(command.seq, command.record, command.writer)
        except Fenced:
            return own.RecordTaken(command.job, ledger.state, ledger.next_seq)
        except Corrupt as error:
            if ledger.next_seq <= command.seq:
                self.world.fail(f"{command.writer} was about to append what can not follow: {error}")
            return own.RecordTaken(command.job, ledger.state, ledger.next_seq)
        self.cluster.on_ledger()
        return own.RecordWritten(command.job, state)

    def _answer(self, requester: object, event: m.CoordinatorEvent) -> None:
        coordinator, request = requester  # type: ignore[misc]
        self.world.send(self, coordinator, lambda: coordinator.answered(request, event))


class Asking(Process):
    """A process that asks the metadata actor, again and again until it answers."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__(cluster.world, name)
        self.cluster = cluster
        self._open: dict[int, Callable[[], None]] = {}

    def handle(self, event: m.CoordinatorEvent) -> None:
        """An answer."""
        raise NotImplementedError

    def read_ledger(self) -> None:
        self._request(lambda request: own.StateRequested(JOB, (self, request)))

    def append(self, command: m.AppendRecord) -> None:
        self.world.log(f"{self.name} appends {command.seq} {command.record}")
        self._request(
            lambda request: own.AppendRequested(JOB, self.name, command.seq, command.record, (self, request))
        )

    def _request(self, event: Callable[[int], own.OwnershipEvent]) -> None:
        request = next(_REQUESTS)

        def ask() -> None:
            if request in self._open:
                metadata = self.cluster.metadata
                self.world.send(self, metadata, lambda: metadata.handle(event(request)))
                self.post(0.4, ask)

        self._open[request] = ask
        ask()

    def answered(self, request: int, event: m.CoordinatorEvent) -> None:
        if self._open.pop(request, None) is not None:
            self.world.reach(f"{self.role}.{type(event).__name__}")
            self.handle(event)


class Resuming(Asking):
    """Whoever resumes a job: reads what became of it, and appends what it is to go on with."""

    role = "client"

    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__(cluster, name)
        self._sent: m.AppendRecord | None = None
        self.post(0.0, self.read_ledger)

    def handle(self, event: m.CoordinatorEvent) -> None:
        match event:
            case m.LedgerRead():
                record = self.cluster.resumption(event.state)
                if record is None:
                    self.die()
                    return
                self._sent = m.AppendRecord(event.next_seq, record)
                self.world.reach(f"client.{edge(self._sent)}")
                self.append(self._sent)
            case m.RecordAppended():
                self.cluster.on_resumed(event.state)
                self.die()
            case _:
                self.read_ledger()


class Coordinating(Asking):
    """The coordinator actor."""

    role = "coordinator"

    def __init__(self, cluster: Cluster, name: str, settings: CoordinatorSettings) -> None:
        super().__init__(cluster, name)
        self.machine = Coordinator(settings)
        self.pruner = Pruner(cluster.store, JOB)
        self.partitions: dict[tuple[int, int], Partition] = {}
        self.interval = self.world.rng.choice([0.2, 0.5, 1.0])
        self._pruning = False
        self.post(0.0, self.read_ledger)
        self.post(0.1, self._tick)
        self.post(self.interval, self._checkpoint)

    def handle(self, event: m.CoordinatorEvent) -> None:
        for command in self.machine.handle(event):
            self._carry_out(command)
            if not self.alive:
                return

    def _tick(self) -> None:
        self.post(0.1, self._tick)
        self.handle(m.Tick(self.world.now))
        if self.machine.epoch:
            lease = own.LeaseRequested(JOB, self.name, self.machine.epoch, self.world.now, None)
            metadata = self.cluster.metadata
            self.world.send(self, metadata, lambda: metadata.handle(lease))

    def _checkpoint(self) -> None:
        self.post(self.interval, self._checkpoint)
        self.handle(m.CheckpointDue())
        if self.world.rng.random() < 0.05:
            self.handle(m.SavepointRequested(f"s{self.world.now:.1f}"))
        savepoints = [label for label in self.machine.state.savepoints if label.startswith("s")]
        if savepoints and self.world.rng.random() < 0.05:
            self.handle(m.SavepointDropped(savepoints[0]))
        if self.machine.phase is JobPhase.RUNNING:
            self.handle(m.SplitsFound(self.cluster.splits(self.plan)))

    @property
    def plan(self) -> str:
        """The plan that it runs."""
        return self.machine.settings.plan

    def report(self, message: m.PartitionReport) -> None:
        self.world.reach(f"coordinator.{type(message).__name__}")
        self.handle(message)

    def _carry_out(self, command: m.CoordinatorCommand) -> None:
        world = self.world
        world.reach(f"coordinator.{edge(command)}")
        match command:
            case m.ReadLedger():
                self.read_ledger()
            case m.AppendRecord():
                self.append(command)
            case m.ReadManifest():
                self.io("ReadManifest", lambda: self._read_manifest(command), self.handle)  # type: ignore[arg-type]
            case m.WriteManifest():
                number = command.manifest.number
                self.io(
                    "WriteManifest",
                    lambda: write_object(
                        self.cluster.store, manifest_key(JOB, number), encode_manifest(command.manifest)
                    ),
                    lambda _: self.handle(m.ManifestWritten(number)),
                )
            case m.DiscoverSplits():
                self.post(world.delay(), lambda: self.handle(m.SplitsFound(self.cluster.splits(self.plan))))
            case m.StartPartition():
                self.cluster.start_partition(self, command.start)
            case m.KillPartition():
                self.cluster.kill_partition(self.partitions.get((command.partition, command.epoch)))
            case m.Tell():
                self._tell(command)
            case m.PruneObjects():
                self._prune(command)
            case m.JobEnded() | m.JobBroken():
                self.die()
                self.cluster.on_ended(command)
            case m.StopSelf():
                world.log(f"{self.name} stops: {command.reason}")
                self.die()

    def _read_manifest(self, command: m.ReadManifest) -> m.CoordinatorEvent:
        try:
            found = read_manifest(self.cluster.store, command.key)
            if command.published:
                found = replace(found, pending=())
            return m.ManifestRead(self.cluster.migrated(found, self.plan))
        except Corrupt as error:
            return m.ManifestDamaged(command.number, error.message)

    def _tell(self, command: m.Tell) -> None:
        partition = self.partitions.get((command.partition, command.epoch))
        if partition is None:
            return
        message = command.message
        if isinstance(message, m.BeginCheckpoint):
            self.cluster.on_announced(self.name, message)
        if isinstance(message, m.GrantLease):
            until = message.sent_at + message.duration_s
            self.world.send(self, partition, lambda: partition.handle(m.LeaseRenewed(until)))
        else:
            self.world.send(self, partition, lambda: partition.handle(message))

    def _prune(self, command: m.PruneObjects) -> None:
        if self._pruning:
            return
        self._pruning = True

        def done(_: object = None) -> None:
            self._pruning = False

        def prune() -> object:
            try:
                return self.pruner.prune(command.state)
            except Corrupt as error:
                if self.cluster.state.owner == self.name:
                    self.world.fail(f"{self.name} can not prune: {error}")
                return None

        self.io("prune", prune, done, failed=done)


class Partition(Process):
    """A partition actor: `PartitionLifecycle` over a real dataflow."""

    role = "partition"

    def __init__(self, cluster: Cluster, coordinator: Coordinating, start: m.PartitionStart) -> None:
        super().__init__(cluster.world, f"partition-{start.plan.partition}/e{start.epoch}")
        self.cluster = cluster
        self.coordinator = coordinator
        self.start = start
        self.partition, self.epoch = start.plan.partition, start.epoch
        self.machine = PartitionLifecycle()
        self.engine: Engine | None = None
        self.polling = False
        self.draining = False
        self.sending = False
        self.unsent: list[tuple[int, object]] = []
        self.writer = ChainWriter(cluster.store, JOB, self.partition, self.epoch, links_max=3)
        self.producers: dict[m.SinkStream, int] = {}
        self.cuts: dict[CheckpointNumber, Cut] = {}
        self.hellos: set[int] = set()
        self.streams: dict[int, tuple[int, float]] = {}
        self.early: list[tuple[int, object]] = []
        self.received: dict[int, int] = {}
        self.post(0.0, lambda: self.handle(m.Begin(start, self.world.now + cluster.lease_s)))
        self.post(0.05, self._heartbeat)

    def die(self) -> None:
        super().die()
        if self.engine is not None:
            self.engine.close()
            self.engine = None

    def handle(self, event: m.PartitionEvent) -> None:
        if not isinstance(event, m.ClockAdvanced):
            for command in self.machine.handle(m.ClockAdvanced(self.world.now)):
                self._carry_out(command)
            self.world.reach(f"partition.{type(event).__name__}")
        if not self.alive:
            return
        for command in self.machine.handle(event):
            self._carry_out(command)
            if not self.alive:
                return

    def _heartbeat(self) -> None:
        self.handle(m.ClockAdvanced(self.world.now))
        if self.alive:
            self.report(m.Heartbeat(self.partition, self.epoch, self.world.now))
            self.post(0.2, self._heartbeat)

    def report(self, message: m.PartitionReport) -> None:
        coordinator = self.coordinator
        self.world.send(self, coordinator, lambda: coordinator.report(message))

    def _carry_out(self, command: m.PartitionCommand) -> None:
        world, broker = self.world, self.cluster.broker
        world.reach(f"partition.{edge(command)}")
        match command:
            case m.PurgeState():
                self.post(world.delay(), lambda: self.handle(m.StatePurged()))
            case m.RestoreState():
                self.io("RestoreState", lambda: self._read_state(command.start), self._restore)
            case m.FenceSink():
                self.io(
                    "FenceSink",
                    lambda: broker.init(command.stream),
                    lambda producer: self._fenced(command.stream, producer),
                )
            case m.ReadMarker():
                self.io(
                    "ReadMarker",
                    lambda: broker.marker(command.stream),
                    lambda value: self.handle(
                        m.MarkerRead(
                            command.stream,
                            None if value is None else CheckpointNumber.of(value),  # type: ignore[arg-type]
                        )
                    ),
                )
            case m.PublishOutbox():
                self._publish(command.outbox)
            case m.ConnectPeers():
                self._connect()
            case m.StartSources():
                self.draining = False
                self.sending = True
                while self.unsent:
                    self.send_item(*self.unsent.pop(0))
                if not self.polling:
                    self.polling = True
                    self._poll()
            case m.InjectBarrier():
                self.draining = self.draining or command.last
                assert self.engine is not None
                self.engine.inject(command.number)
            case m.PersistCapture():
                cut = self.cuts.pop(command.number)
                self.io(
                    "PersistCapture",
                    lambda: self._persist(command.number, cut),
                    lambda c: self._persisted(command.number, c),
                )
            case m.Report():
                self.report(command.message)
            case m.StopSelf():
                world.log(f"{self.name} stops: {command.reason}")
                if self.alive and "lease" not in command.reason:
                    self.cluster.on_partition_end(self)
                self.die()

    # State -----------------------------------------------------------------------------------------------

    def _read_state(self, start: m.PartitionStart) -> object:
        try:
            tables: dict[tuple[str, str], list[object]] = {}
            for ranged in start.chains:
                rows = read_chain(self.cluster.store, ranged.chain, range(ranged.first, ranged.end))
                tables.setdefault((ranged.chain.node, ranged.chain.table), []).append(rows)
            return tables
        except Corrupt as error:
            return self._unreadable(error)

    def _unreadable(self, error: Corrupt) -> Corrupt:
        """What a present owner needs must be there; a zombie's may be pruned, and ends it."""
        if self.cluster.is_owner(self):
            self.world.fail(f"{self.name} can not read what it needs: {error}")
        return error

    def _restore(self, found: object) -> None:
        if isinstance(found, Corrupt):
            self.handle(m.PartitionFailed(found.message))
            return
        assert self.engine is None and self.machine.phase is PartitionPhase.RESTORING
        if self.coordinator.plan == BAD_PLAN:
            self.handle(m.PartitionFailed("this plan does not start"))
            return
        self.engine = self.cluster.build_engine(self)
        tables = {name: pa.concat_batches(parts) for name, parts in found.items()}  # type: ignore[attr-defined]
        self.engine.restore(tables, self.start.sources)
        self.cluster.check_restored(self, tables)
        if self.start.continues:
            self.writer.adopt(ranged.chain for ranged in self.start.chains)
            self.engine.whole()
        self.handle(m.StateRestored())

    def _persist(self, number: CheckpointNumber, cut: Cut) -> Contribution | Corrupt:
        try:
            chains = self.writer.write(number, cut.tables)
        except Corrupt as error:  # a chain that is written as one table again is read
            return self._unreadable(error)
        outboxes: tuple[OutboxRef, ...] = ()
        if cut.outbox:
            key = data_key(JOB, number, self.partition, self.epoch, "outbox")
            ref = write_object(self.cluster.store, key, cut.outbox)
            outboxes = (OutboxRef(self.cluster.sink, self.partition, number, ref),)
        plan = self.start.plan
        return Contribution(self.partition, self.epoch, plan.first, plan.end, chains, cut.sources, outboxes)

    def _persisted(self, number: CheckpointNumber, found: object) -> None:
        if isinstance(found, Corrupt):
            self.handle(m.PartitionFailed(found.message))
        else:
            assert isinstance(found, Contribution)
            self.handle(m.CapturePersisted(number, found))

    def passed(self, number: CheckpointNumber, cut: Cut) -> None:
        self.cuts[number] = cut
        self.cluster.on_cut(self, number, cut)
        self.handle(m.BarrierPassed(number))

    # Sources and exchange --------------------------------------------------------------------------------

    def _poll(self) -> None:
        if self.engine is not None:
            if not self.draining:
                self.engine.poll()
                self.world.reach("partition.polled")
            self.post(self.world.rng.uniform(0.02, 0.1), self._poll)

    def _connect(self) -> None:
        if not self.start.peers:
            self.post(0.0, lambda: self.handle(m.PeersConnected()))
            return
        self._hello()

    def _hello(self) -> None:
        """Greet the peers until all of the same epochs have greeted."""
        if self.machine.phase is not PartitionPhase.CONNECTING:
            return
        for partition, epoch in self.start.peers.items():
            peer = self.cluster.partitions.get((partition, epoch))
            if peer is not None:
                self.world.send(self, peer, lambda peer=peer: peer.greeted(self))  # type: ignore[misc]
        self.post(0.2, self._hello)

    def greeted(self, peer: Partition) -> None:
        if self.start.peers.get(peer.partition) != peer.epoch or self.engine is None:
            return
        if peer.partition not in self.hellos:
            self.hellos.add(peer.partition)
        if self.machine.phase is PartitionPhase.RUNNING:
            self.world.send(self, peer, lambda: peer.greeted(self))
        if self.machine.phase is PartitionPhase.CONNECTING and self.hellos == set(self.start.peers):
            self.handle(m.PeersConnected())
            while self.early and self.alive:
                channel, item = self.early.pop(0)
                self._take(channel, item)

    def send_item(self, to: int, item: object) -> None:
        """A frame on the stream to partition `to`: in order; the stream breaks where the other end is gone."""
        world = self.world
        if not self.sending:
            self.unsent.append((to, item))
            return
        if self.machine.phase not in (PartitionPhase.RUNNING, PartitionPhase.DRAINING):
            world.fail(f"{self.name} sends before its peers have connected")
        sequence, last = self.streams.get(to, (0, 0.0))
        arrival = max(last, world.now + world.delay() * (0.0 if to == self.partition else 1.0)) + 1e-6
        self.streams[to] = sequence + 1, arrival
        peer = self.cluster.partitions.get((to, self.start.peers[to]))

        def arrive() -> None:
            if peer is None or not peer.alive or world.cut(self, peer):
                self.post(world.delay(), lambda: self.handle(m.PartitionFailed(f"the stream to {to} broke")))
            else:
                peer.post(0.0, lambda: peer.frame(self, sequence, item))

        world.at(arrival - world.now, arrive)

    def frame(self, peer: Partition, sequence: int, item: object) -> None:
        if self.start.peers.get(peer.partition) != peer.epoch or self.engine is None:
            return
        expected = self.received.get(peer.partition, 0)
        if sequence != expected:
            self.handle(m.PartitionFailed(f"frame {sequence} instead of {expected} from {peer.name}"))
            return
        self.received[peer.partition] = expected + 1
        if self.machine.phase in (PartitionPhase.RUNNING, PartitionPhase.DRAINING):
            self._take(peer.partition, item)
        else:
            self.early.append((peer.partition, item))

    def _take(self, channel: int, item: object) -> None:
        if self.engine is not None:
            self.world.reach("partition.frame_taken")
            self.engine.take(channel, item)  # type: ignore[arg-type]

    # Sinks -----------------------------------------------------------------------------------------------

    def _fenced(self, stream: m.SinkStream, producer: object) -> None:
        assert isinstance(producer, int)
        self.producers[stream] = producer
        self.handle(m.SinkFenced(stream))

    def _publish(self, outbox: OutboxRef) -> None:
        stream, broker = outbox.stream, self.cluster.broker
        producer = self.producers[stream]

        def fenced_or(operation: Callable[[], object]) -> Callable[[], object]:
            def run() -> object:
                try:
                    return operation()
                except FencedByBroker:
                    return FencedByBroker
                except Corrupt as error:
                    return self._unreadable(error)

            return run

        def write() -> object:
            rows = msgpack.unpackb(read_object(self.cluster.store, outbox.content), use_list=False)
            return broker.write(stream, producer, list(rows), outbox.number.value)

        def written(result: object) -> None:
            if result is FencedByBroker:
                self.handle(m.PublishRefused(stream))
                return
            if isinstance(result, Corrupt):
                self.handle(m.PartitionFailed(result.message))
                return
            self.handle(m.ClockAdvanced(self.world.now))
            if self.alive:
                commit = fenced_or(lambda: broker.commit(stream, producer))
                self.io("commit", commit, committed, failed=unknown)

        def committed(result: object) -> None:
            if result is FencedByBroker:
                self.handle(m.PublishRefused(stream))
            else:
                self.handle(m.OutboxPublished(stream, outbox.number))

        def unknown() -> None:
            self.handle(m.PartitionFailed("whether a transaction was committed is not known"))

        self.io("PublishOutbox", fenced_or(write), written)
