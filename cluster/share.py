"""One partition's share of a job's plan: its dataflow, its ends of the exchanges, its cuts. Keeps no protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from millrace.cluster.capture import Restored
from millrace.cluster.dataflow import Dataflow, Share
from millrace.cluster.exchange.channels import Channel, ExchangeSender, Inbox, LocalOutlet, Outlet
from millrace.cluster.exchange.frames import Frame, Kind
from millrace.cluster.job import JobSpec
from millrace.cluster.protocol.alignment import BarrierAligner
from millrace.cluster.protocol.messages import BarrierPassed, PartitionStart
from millrace.cluster.reading import SourceVertex
from millrace.cluster.snapshotting import Snapshots
from millrace.cluster.timekeeping import InputWatermarks
from millrace.cluster.vertex import OperatorVertex, SinkVertex, Vertex
from millrace.operators.sink import Sink, SinkSpec
from millrace.planner.physical.exchange import Layout, layout_of
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.hashing import hash_columns, vnodes_of

FRAMES_A_ROUND = 32
"""What a region takes in before the others have their turn."""
MakeOutlet = Callable[[int, int, pa.Schema], Outlet]
"""From edge, receiving partition and the schema of the rows."""
_SOURCES: Channel = (-1, -1)


class _Region:
    """Nodes that a barrier cuts at one moment: once it came on every channel into them."""

    def __init__(
        self,
        vertices: list[Vertex],
        senders: list[ExchangeSender],
        on_cut: Callable[[CheckpointNumber], None],
    ) -> None:
        self.vertices = vertices
        self.senders = senders
        self.sources = [v for v in vertices if isinstance(v, SourceVertex)]
        self.consumers: dict[int, tuple[Vertex, int]] = {}
        self.channels: list[Channel] = []
        self.blocked: set[Channel] = set()
        self._marks: dict[int, InputWatermarks[int]] = {}
        self._on_cut = on_cut
        self._all: list[Channel] = []
        self.polled = False
        self.aligner: BarrierAligner[Channel, Frame]

    def open(self, edges: Mapping[int, tuple[Vertex, int]], senders: Callable[[int], Sequence[int]]) -> None:
        """Make the aligner, now that the edges into the region, and who sends on each, are known."""
        self.consumers = dict(edges)
        self.channels = [(edge, sender) for edge in edges for sender in senders(edge)]
        self._marks = {edge: InputWatermarks(senders(edge)) for edge in edges}
        self.polled = bool(self.sources) or not self.channels
        self._all = [*self.channels, _SOURCES] if self.polled else self.channels
        self.aligner = BarrierAligner(self._all, self._deliver, self._on_cut)

    @property
    def full(self) -> bool:
        return any(sender.full for sender in self.senders)

    def take(self, inbox: Inbox) -> int:
        """Take in what has come, a little of each channel."""
        moved = 0
        for channel in self.channels:
            for _ in range(FRAMES_A_ROUND):
                if channel in self.blocked or self.full:
                    break
                frame = inbox.pop(channel)
                if frame is None:
                    break
                moved += 1
                if frame.kind is Kind.BARRIER:
                    self.barrier(channel, CheckpointNumber.of(frame.value))
                else:
                    self.aligner.take(channel, frame)
        return moved

    def barrier(self, channel: Channel, number: CheckpointNumber) -> None:
        """A barrier came on a channel; nothing is taken from it until the others have it too."""
        self.aligner.barrier(channel, number)
        waiting = self.aligner.waiting_for
        self.blocked = {c for c in self._all if c not in waiting} if waiting else set()

    def _deliver(self, channel: Channel, frame: Frame) -> None:
        edge, sender = channel
        vertex, port = self.consumers[edge]
        assert isinstance(vertex, OperatorVertex | SinkVertex)
        if frame.batch is not None:
            vertex.receive(port, frame.batch)
            return
        marks = self._marks[edge]
        if frame.kind is Kind.IDLE:
            rose = marks.set_idle(sender, bool(frame.value))
        else:
            rose = marks.advance(sender, frame.value)
        if rose:
            vertex.advance(port, marks.current)
        vertex.set_idle(port, marks.idle)


class PartitionShare:
    """The dataflow of one partition with its exchanges. Driven by one thread, the inbox aside."""

    def __init__(
        self,
        job: JobSpec,
        start: PartitionStart,
        partitions: int,
        make_outlet: MakeOutlet,
        snapshots: Snapshots,
        on_passed: Callable[[BarrierPassed], None],
        wake: Callable[[], None],
    ) -> None:
        self.job, self.start, self.partitions = job, start, partitions
        self.partition = start.plan.partition
        self.layout: Layout = layout_of(job.plan, partitions)
        self.inbox = Inbox([(e, p) for e in range(len(self.layout.edges)) for p in self._senders_to(e)], wake)
        self.outlets: dict[tuple[int, int], Outlet] = {}
        self._snapshots = snapshots
        self._on_passed = on_passed
        self._make_outlet = make_outlet
        self._owner_of_vnode = np.empty(job.vnodes, np.int16)
        for owner, (first, end) in enumerate(start.ranges):
            self._owner_of_vnode[first:end] = owner
        self._edge_at = {(e.consumer, e.port): at for at, e in enumerate(self.layout.edges)}
        self._into: dict[int, tuple[Vertex, int]] = {}
        self._senders: dict[int, list[ExchangeSender]] = {}
        self._captured: set[int] = set()
        self._opened = False
        self._uncut: dict[CheckpointNumber, set[int]] = {}
        self.dataflow = Dataflow(
            vnodes=job.vnodes,
            partition=self.partition,
            batch_rows=job.batch_rows,
            stop_at_bad_rows=job.stop_at_bad_rows,
            share=Share(self._assigned(), self._silent(), self._cross),
        )
        self.dataflow.extend(job.plan)
        self.sinks: dict[str, SinkVertex] = {}
        for name, position in job.sinks().items():
            vertex = self.dataflow.vertices[position]
            assert isinstance(vertex, SinkVertex)
            self.sinks[name] = vertex
        self._regions = [self._region(at) for at in range(len(self.layout.regions))]

    def restore(self, state: Restored) -> None:
        """Load a checkpoint, before the first step. What follows is captured as changes, where that is possible."""
        self.dataflow.restore(state)
        if self.start.continues:
            for vertex in self.dataflow.vertices:
                if isinstance(vertex, OperatorVertex):
                    vertex.operator.capture(changes=True)
            self._captured = set(range(len(self._regions)))

    def step(self, *, poll: bool) -> int:
        """One round: take in what peers sent, then poll the sources; answers how much moved."""
        moved = sum(region.take(self.inbox) for region in reversed(self._regions) if not region.full)
        self.dataflow.tick()
        if poll:
            moved += self._poll()
        return moved

    @property
    def exchanged_bytes(self) -> int:
        """Bytes of rows sent to other partitions. From any thread."""
        return sum(sender.remote_bytes for region in self._regions for sender in region.senders)

    def inject(self, number: CheckpointNumber) -> None:
        """Send barrier `number` behind everything that sources have given."""
        if not self._opened:
            self._opened = True
            self._poll()  # opens the splits, so that the checkpoint says something of each
        self._uncut[number] = set(range(len(self._regions)))
        for region in self._regions:
            if region.polled:
                region.barrier(_SOURCES, number)

    def build_sink(self, name: str, partition: int) -> Sink:
        """Another sink like `name`, in the name of another partition."""
        vertex = self.sinks[name]
        assert isinstance(vertex.node.spec, SinkSpec)
        return vertex.node.spec.build(vertex.context, partition)

    def close(self) -> None:
        """End everything; what was not published is not shown."""
        self.inbox.close()
        self.dataflow.close()

    def _poll(self) -> int:
        moved = 0
        for region in self._regions:
            for source in region.sources:
                if not source.ended and not region.full and _SOURCES not in region.blocked:
                    moved += source.poll()
        return moved

    def _senders_to(self, edge: int) -> Sequence[int]:
        """Whose channels of an edge lead here."""
        exchanged = self.layout.edges[edge].keys is not None
        return range(self.partitions) if exchanged else (self.partition,)

    def _assigned(self) -> dict[str, frozenset[str]]:
        found: dict[str, set[str]] = {}
        for node, split in self.start.plan.splits:
            found.setdefault(node, set()).add(split)
        return {node: frozenset(splits) for node, splits in found.items()}

    def _silent(self) -> frozenset[int]:
        one = int(vnodes_of(hash_columns([], 1), self.job.vnodes)[0])
        runs = int(self._owner_of_vnode[one]) == self.partition
        return frozenset() if runs else self.layout.gathering

    def _cross(self, upstream: Vertex, vertex: Vertex, port: int) -> bool:
        at = self._edge_at.get((vertex.position, port))
        if at is None:
            return False
        edge = self.layout.edges[at]
        outlets: list[Outlet] = []
        for receiver in range(self.partitions) if edge.keys is not None else (self.partition,):
            if receiver == self.partition:
                outlets.append(LocalOutlet(self.inbox, (at, self.partition)))
            else:
                self.outlets[at, receiver] = self._make_outlet(at, receiver, upstream.node.schema)
                outlets.append(self.outlets[at, receiver])
        sender = ExchangeSender(edge.keys, self.job.vnodes, self._owner_of_vnode, outlets)
        upstream.attach(sender, 0)
        self._senders.setdefault(upstream.position, []).append(sender)
        self._into[at] = (vertex, port)
        return True

    def _region(self, at: int) -> _Region:
        positions = sorted(self.layout.regions[at])
        senders = [sender for p in positions for sender in self._senders.get(p, [])]
        vertices = [self.dataflow.vertices[p] for p in positions]
        region = _Region(vertices, senders, lambda number: self._cut(at, number))
        into = {
            e: target for e, target in self._into.items() if target[0].position in self.layout.regions[at]
        }
        region.open(into, self._senders_to)
        return region

    def _cut(self, at: int, number: CheckpointNumber) -> None:
        region = self._regions[at]
        cut = self._snapshots.cut(number)
        changes = at in self._captured
        self._captured.add(at)
        names = {vertex.position: name for name, vertex in self.sinks.items()}
        for vertex in region.vertices:
            match vertex:
                case SourceVertex():
                    cut.sources[vertex.node.hash] = vertex.capture()
                case OperatorVertex():
                    tables = vertex.operator.capture(changes=changes)
                    self._snapshots.add_tables(cut, vertex.node.hash, tables)
                case SinkVertex():
                    cut.outboxes[names[vertex.position]] = vertex.sink.seal(number.value)
        for sender in region.senders:
            sender.barrier(number.value)
        self._uncut = {n: regions for n, regions in self._uncut.items() if n >= number}
        waiting = self._uncut.setdefault(number, set(range(len(self._regions))))
        waiting.discard(at)
        if not waiting:
            del self._uncut[number]
            self._on_passed(BarrierPassed(number))
