"""A plan in one to three partitions of one process, with exchanges that hand rows over at once, and its snapshots."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from millrace.cluster.capture import PartitionCapture, Restored
from millrace.cluster.dataflow import Dataflow, Share
from millrace.cluster.reading import SourceVertex
from millrace.cluster.vertex import OperatorVertex, Tap, Vertex
from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Batch
from millrace.operators.operator import VNODE
from millrace.operators.source import SourceInput
from millrace.planner.physical.exchange import layout_of
from millrace.planner.plan import Plan
from millrace.state.hashing import hash_columns, vnodes_of

VNODES = 16


class _Exchange:
    """One edge between all partitions: rows go to the owner of their key, watermarks to everybody."""

    def __init__(self, keys: tuple[int, ...], count: int) -> None:
        self._keys = keys
        self._targets: list[tuple[OperatorVertex, int] | None] = [None] * count
        self._marks = [START_OF_TIME] * count

    def into(self, partition: int, vertex: OperatorVertex, port: int) -> None:
        self._targets[partition] = (vertex, port)

    def send(self, batch: Batch) -> None:
        keys = [batch.data.column(key) for key in self._keys]
        nodes = vnodes_of(hash_columns(keys, batch.num_rows), VNODES)
        owners = _owners(len(self._targets))[nodes]
        for partition, target in enumerate(self._targets):
            mine = np.flatnonzero(owners == partition)
            if len(mine):
                assert target is not None
                target[0].receive(target[1], batch.take(mine))

    def advance(self, sender: int, watermark: int) -> None:
        before = min(self._marks)
        self._marks[sender] = watermark
        if min(self._marks) > before:
            for target in self._targets:
                assert target is not None
                target[0].advance(target[1], min(self._marks))


class Partitions:
    """Copies of one plan's dataflow that own its vnodes together. Between calls no row is under way."""

    def __init__(
        self,
        plan: Plan,
        count: int,
        take: Callable[[Batch], None],
        state: list[PartitionCapture] | None = None,
    ) -> None:
        self._plan = plan
        self._take = take
        self._watermark = START_OF_TIME
        self.count = count
        self._layout = layout_of(plan, count)
        self._exchanges = {
            (edge.consumer, edge.port): _Exchange(edge.keys, count)
            for edge in self._layout.edges
            if edge.keys is not None
        }
        self._dealt = 0
        self._flows = [self._flow(partition, state) for partition in range(self.count)]
        self._captured: list[PartitionCapture] | None = None

    def _flow(self, partition: int, state: list[PartitionCapture] | None) -> Dataflow:
        one = _owners(self.count)[vnodes_of(hash_columns([], 1), VNODES)[0]]
        silent = frozenset() if one == partition else self._layout.gathering

        def cross(upstream: Vertex, vertex: Vertex, port: int) -> bool:
            exchange = self._exchanges.get((vertex.position, port))
            if exchange is None:
                return False
            assert isinstance(vertex, OperatorVertex)
            exchange.into(partition, vertex, port)
            upstream.attach(Tap(exchange.send, lambda mark: exchange.advance(partition, mark)), 0)
            return True

        flow = Dataflow(vnodes=VNODES, partition=partition, share=Share(None, silent, cross))
        flow.extend(self._plan, [(self._plan.outputs[-1].node, Tap(self._take))])
        if state is not None:
            flow.restore(self._restored(state, partition))
        return flow

    def _restored(self, state: list[PartitionCapture], partition: int) -> Restored:
        """The rows of the vnodes that the partition owns."""
        found: dict[str, dict[str, pa.RecordBatch]] = {}
        parts: dict[tuple[str, str], list[pa.RecordBatch]] = {}
        for capture in state:
            for node, tables in capture.operators.items():
                for table, delta in tables.items():
                    parts.setdefault((node, table), []).append(delta.rows)
        for (node, table), batches in parts.items():
            rows = pa.concat_batches(batches)
            owners = _owners(self.count)[np.asarray(rows.column(VNODE))]
            mine = rows.take(pa.array(np.flatnonzero(owners == partition)))
            found.setdefault(node, {})[table] = mine
        return Restored(found)

    def feed(self, name: str, batch: Batch, *, scattered: bool) -> None:
        """Rows of one input: to any partition where `scattered`, or else all versions of an id to one."""
        if scattered:
            owners = (np.arange(batch.num_rows) + self._dealt) % self.count
            self._dealt += batch.num_rows
        else:
            nodes = vnodes_of(hash_columns([batch.data.column(0)], batch.num_rows), VNODES)
            owners = _owners(self.count)[nodes]
        for partition in range(self.count):
            mine = np.flatnonzero(owners == partition)
            if len(mine):
                self._send(partition, name, batch.take(mine))

    def _send(self, partition: int, name: str, batch: Batch) -> None:
        for vertex in self._flows[partition].sources:
            if vertex.node.name == name:
                assert isinstance(vertex.node.spec, SourceInput)
                schema = vertex.node.spec.schema
                vertex.send([Batch(batch.data.select(schema.names).cast(schema), batch.weights)])

    def advance(self, watermark: int) -> None:
        """No older row follows on any input that has a watermark."""
        self._watermark = watermark
        for vertex in self._sources():
            assert isinstance(vertex.node.spec, SourceInput)
            if watermark == END_OF_TIME or vertex.node.spec.event_time is not None:
                vertex.send_watermark(watermark)

    def end(self) -> None:
        """No row follows at all."""
        self.advance(END_OF_TIME)

    def _sources(self) -> list[SourceVertex]:
        return [vertex for flow in self._flows for vertex in flow.sources]

    def snapshot(self, *, changes: bool) -> None:
        """Capture all partitions as checkpoints do: whole first, and then perhaps what changed."""
        if self._captured is None:
            self._captured = [flow.capture(changes=False) for flow in self._flows]
            return
        later = [flow.capture(changes=changes) for flow in self._flows]
        self._captured = [before.then(after) for before, after in zip(self._captured, later, strict=True)]

    def resharded(self, count: int) -> Partitions:
        """So many partitions that go on from the snapshot just taken; as many as the plan can have."""
        assert self._captured is not None
        made = Partitions(self._plan, count, self._take, self._captured)
        if self._watermark != START_OF_TIME:
            made.advance(self._watermark)
        return made


def _owners(count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The partition of each vnode."""
    return np.arange(VNODES) * count // VNODES
