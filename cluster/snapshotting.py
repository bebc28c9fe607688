"""What a partition captured, on its way into the store, and what it restores from there. Drives nothing."""

from __future__ import annotations

import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from millrace.cluster.beginnings import Beginnings
from millrace.cluster.capture import Restored, SourceCapture, SplitCapture
from millrace.cluster.job import JobSpec
from millrace.cluster.protocol.messages import PartitionStart, RangedChain
from millrace.errors import Bug
from millrace.operators.batch import START_OF_TIME
from millrace.operators.operator import VNODE, StateDelta
from millrace.state.checkpoints.manifest import Contribution, OutboxRef, SourcePoint, SplitPoint
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.checkpoints.snapshots import (
    ChainWriter,
    TableCapture,
    TableName,
    data_key,
    read_chain,
    write_object,
)
from millrace.state.store import Store

READERS = 4
"""Tables that are read at a time when state is restored."""


@dataclass(slots=True)
class Cut:
    """What barrier `number` has captured so far; a barrier that was given up may leave some of it."""

    number: CheckpointNumber
    tables: dict[TableName, TableCapture] = field(default_factory=dict)
    sources: dict[str, SourceCapture] = field(default_factory=dict)
    outboxes: dict[str, bytes] = field(default_factory=dict)


class Snapshots:
    """Cuts in memory until they are stored, in order.

    Invariant: no capture of changes is lost: what a given-up barrier captured is stored with the next one.
    """

    def __init__(self, store: Store, job: JobSpec, start: PartitionStart) -> None:
        self._store = store
        self._start = start
        self._one = start.plan.first == 0 and start.plan.end == job.vnodes
        self._writer = ChainWriter(store, start.job, start.plan.partition, start.epoch)
        self.stored: tuple[str, int] = ("none", 0)
        """The last checkpoint that was stored, and the bytes of state that it refers to."""
        self._cuts: list[Cut] = []
        self._sources: dict[str, SourceCapture] = {}
        self._retained: frozenset[str] | None = None
        self._lock = threading.Lock()

    def cut(self, number: CheckpointNumber) -> Cut:
        """What is captured at `number`, to be added to."""
        with self._lock:
            if not self._cuts or self._cuts[-1].number != number:
                assert (
                    not self._cuts
                    or self._cuts[-1].number < number
                    or any(c.number == number for c in self._cuts)
                )
                found = next((c for c in self._cuts if c.number == number), None)
                if found is not None:
                    return found
                self._cuts.append(Cut(number))
            return self._cuts[-1]

    def add_tables(self, cut: Cut, node: str, tables: dict[str, StateDelta]) -> None:
        """Take an operator's capture; raises Bug where it has keys of another partition."""
        for name, delta in tables.items():
            rows, deleted = delta.rows, delta.deleted
            if not self._one:
                rows = self._owned(node, name, delta, rows)
                deleted = None if deleted is None else self._owned(node, name, delta, deleted)
            cut.tables[node, name] = TableCapture(delta.key, rows, deleted, delta.complete)

    def retain(self, nodes: Collection[str]) -> None:
        """Store nothing of other nodes any more: they are gone for good."""
        with self._lock:
            self._retained = frozenset(nodes)

    def persist(self, number: CheckpointNumber) -> Contribution:
        """Store everything captured up to `number`; what the partition adds to that checkpoint."""
        plan, epoch = self._start.plan, self._start.epoch
        with self._lock:
            due = [cut for cut in self._cuts if cut.number <= number]
            retained = self._retained
        outboxes = []
        for cut in due:
            self._writer.write(cut.number, cut.tables)
            self._sources.update(cut.sources)
            sealed = [(sink, content) for sink, content in cut.outboxes.items() if content]
            for place, (sink, content) in enumerate(sealed):
                key = data_key(self._start.job, cut.number, plan.partition, epoch, f"outbox-{place}")
                ref = write_object(self._store, key, content)
                outboxes.append(OutboxRef(sink, plan.partition, cut.number, ref))
        if retained is not None:
            self._writer.retain(retained)
            self._sources = {node: at for node, at in self._sources.items() if node in retained}
        with self._lock:
            self._cuts = [cut for cut in self._cuts if cut.number > number]
        sources = tuple(
            SourcePoint(
                node,
                {split: _point(at) for split, at in captured.splits.items()},
                captured.ended,
                captured.watermark,
            )
            for node, captured in self._sources.items()
        )
        size = sum(ref.size for chain in self._writer.chains for ref in chain.objects())
        self.stored = str(number), size
        return Contribution(
            plan.partition, epoch, plan.first, plan.end, self._writer.chains, sources, tuple(outboxes)
        )

    def restored(self) -> Restored:
        """State and positions of the checkpoint that the partition starts from."""
        found: dict[str, dict[str, list[pa.RecordBatch]]] = {}
        chains = self._start.chains
        with ThreadPoolExecutor(READERS, thread_name_prefix="restore") as readers:
            for ranged, rows in zip(chains, readers.map(self._read, chains), strict=True):
                found.setdefault(ranged.chain.node, {}).setdefault(ranged.chain.table, []).append(rows)
        if self._start.continues:
            self._writer.adopt(ranged.chain for ranged in chains)
        tables = {
            node: {name: pa.concat_batches(parts) for name, parts in of_node.items()}
            for node, of_node in found.items()
        }
        return Restored(tables, self._positions())

    def _positions(self) -> dict[str, SourceCapture]:
        """Where every assigned split goes on, or begins."""
        points = {point.node: point for point in self._start.sources}
        beginnings = Beginnings(self._store, self._start.job)
        found: dict[str, SourceCapture] = {}
        for node in dict.fromkeys(node for node, _ in self._start.plan.splits):
            mine = [split for of, split in self._start.plan.splits if of == node]
            point = points.get(node, SourcePoint(node, {}, frozenset(), START_OF_TIME))
            splits = {split: _capture(at) for split, at in point.splits.items()}
            begun = [split for split in mine if split not in splits and split not in point.ended]
            if begun:
                beginnings.read()
            for split in begun:
                at = beginnings.of(node, split)
                if at is not None:
                    splits[split] = SplitCapture(at, START_OF_TIME)
            found[node] = SourceCapture(splits, point.ended, point.watermark)
        return found

    def _read(self, ranged: RangedChain) -> pa.RecordBatch:
        return read_chain(self._store, ranged.chain, range(ranged.first, ranged.end))

    def _owned(self, node: str, name: str, delta: StateDelta, rows: pa.RecordBatch) -> pa.RecordBatch:
        vnodes = np.asarray(rows.column(VNODE))
        plan = self._start.plan
        mine = (vnodes >= plan.first) & (vnodes < plan.end)
        if mine.all():
            return rows
        if delta.key == (VNODE,):  # facts about all vnodes, told by every partition
            return rows.filter(pa.array(mine))
        raise Bug(f"table {name} of node {node} has keys that partition {plan.partition} does not own")


def _point(at: SplitCapture) -> SplitPoint:
    return SplitPoint(at.position, at.watermark, at.records, at.digest, at.since)


def _capture(at: SplitPoint) -> SplitCapture:
    since = None if at.since is None else dict(at.since)
    return SplitCapture(dict(at.position), at.watermark, at.rows, at.digest, since)
