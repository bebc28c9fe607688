"""Several partitions of a plan in one process, stepped in a random order, cut by real checkpoints and restored from them,
also into another number of partitions. No clock, no thread, no network."""

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa

from millrace.cluster.exchange.channels import LocalOutlet, Outlet
from millrace.cluster.exchange.frames import Frame
from millrace.cluster.job import JobSpec, for_sinks
from millrace.cluster.protocol.assignment import plan_assignment
from millrace.cluster.protocol.recovery import RecoveryPlan
from millrace.cluster.share import PartitionShare
from millrace.cluster.snapshotting import Snapshots
from millrace.cluster.surroundings import VertexContext, VertexMetrics, wall_clock_us
from millrace.operators.batch import Batch, concatenate
from millrace.operators.materialize import Materialize, Materialized
from millrace.operators.operator import Context
from millrace.operators.sink import Changelog, Commit, Sink, SinkSpec
from millrace.operators.source import SourceInput
from millrace.planner.physical.exchange import layout_of
from millrace.planner.plan import Plan
from millrace.state.checkpoints.manifest import Manifest
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.checkpoints.snapshots import read_object
from millrace.state.ledger import Assignment
from millrace.state.store import open_store

VNODES = 64
WEIGHT = "_weight"


@dataclass(frozen=True, slots=True)
class KeptRows(SinkSpec):
    """A sink that seals what it was given as Arrow bytes."""

    title: ClassVar[str] = "kept"
    commit: ClassVar[Commit] = Commit.TRANSACTIONAL
    changelogs: ClassVar[frozenset[Changelog]] = frozenset(Changelog)
    schema: pa.Schema

    @property
    def input_schema(self) -> pa.Schema:
        return self.schema

    def build(self, context: Context, partition: int) -> Sink:
        return _Kept(self.schema)


class _Kept(Sink):
    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._batches: list[Batch] = []

    def write(self, batch: Batch) -> None:
        self._batches.append(batch)

    def seal(self, checkpoint: int) -> bytes:
        whole = concatenate(self._batches, self._schema)
        self._batches = []
        weights = np.ones(whole.num_rows, np.int64) if whole.weights is None else whole.weights
        rows = pa.RecordBatch.from_arrays(
            [*whole.data.columns, pa.array(weights)], [*self._schema.names, WEIGHT]
        )
        out = pa.BufferOutputStream()
        with pa.ipc.new_stream(out, rows.schema) as writer:
            writer.write_batch(rows)
        return out.getvalue().to_pybytes()


class _Late(Outlet):
    """An outlet to a partition that may be made later than this one."""

    def __init__(self, find: Callable[[], Outlet]) -> None:
        self._find = find

    def put(self, frame: Frame) -> None:
        self._find().put(frame)

    @property
    def waiting(self) -> int:
        return self._find().waiting


def job_of(plan: Plan) -> JobSpec:
    """The job of a plan's sinks, each of which keeps its rows."""
    nodes = tuple(
        replace(node, spec=KeptRows(node.spec.input_schema)) if isinstance(node.spec, SinkSpec) else node
        for node in plan.nodes
    )
    return JobSpec("job", for_sinks(replace(plan, nodes=nodes)), vnodes=VNODES, stop_at_bad_rows=True)


class Partitions:
    """A job in so many partitions. What `published` holds is exactly once, whatever happened in between."""

    def __init__(self, plan: Plan, count: int, rng: random.Random, batch_rows: int = 200) -> None:
        self.job = replace(job_of(plan), batch_rows=batch_rows)
        self.published: dict[str, list[Batch]] = {name: [] for name in self.job.sinks()}
        self.late = 0
        self._rng = rng
        self._store = open_store(f"memory://{uuid.uuid4().hex}")
        self._epoch = 0
        self._count = 0
        self.manifest: Manifest | None = None
        self._assignment: Assignment | None = None
        self.shares: list[PartitionShare] = []
        self.start(count)

    def close(self) -> None:
        """Throw away what runs."""
        for share in self.shares:
            share.close()
        self.shares = []

    def start(self, count: int) -> None:
        """Throw away what runs, and go on from the last checkpoint in `count` partitions."""
        self.close()
        self._epoch += 1
        self._passed: dict[int, set[CheckpointNumber]] = {p: set() for p in range(count)}
        splits = [
            (node.hash, split)
            for node in self.job.plan.nodes
            if isinstance(node.spec, SourceInput)
            for split in node.spec.source.build(_context("source")).discover()
        ]
        self._assignment = plan_assignment(VNODES, count, splits, self._assignment)
        recovery = RecoveryPlan(
            "job",
            VNODES,
            self.manifest,
            self._assignment,
            tuple(self.job.sinks()),
            (),
            program="",
            independent=not layout_of(self.job.plan, count).exchanged,
        )
        epochs = dict.fromkeys(range(count), self._epoch)
        self._snapshots: list[Snapshots] = []
        for partition in range(count):
            start = recovery.start_of(partition, epochs)
            snapshots = Snapshots(self._store, self.job, start)
            share = PartitionShare(
                self.job,
                start,
                count,
                self._outlets(partition),
                snapshots,
                self._on_passed(partition),
                lambda: None,
            )
            self._snapshots.append(snapshots)
            self.shares.append(share)
        for share, snapshots in zip(self.shares, self._snapshots, strict=True):
            share.restore(snapshots.restored())

    def run(self, *, checkpoints: float = 0.0, restarts: float = 0.0, counts: tuple[int, ...] = ()) -> None:
        """To the end of the input. After a round a checkpoint or a restart (into one of `counts`) may come."""
        while not self._quiet():
            if self._rng.random() < checkpoints:
                self.checkpoint()
            if self._rng.random() < restarts:
                self.start(self._rng.choice(counts))
        self.checkpoint()

    def checkpoint(self) -> None:
        """Cut all partitions, at different moments; store, decide and publish."""
        self._count += 1
        number = CheckpointNumber(self._epoch, self._count)
        for share in self._rng.sample(self.shares, len(self.shares)):
            share.inject(number)
            for _ in range(self._rng.randrange(3)):
                self._step()
        while not all(number in passed for passed in self._passed.values()):
            self._step()
        contributions = tuple(snapshots.persist(number) for snapshots in self._snapshots)
        self.manifest = Manifest("job", number, VNODES, contributions)
        for contribution in contributions:
            for outbox in contribution.outboxes:
                self._publish(outbox.sink, read_object(self._store, outbox.content))

    def folded(self, name: str) -> pa.Table:
        """What a sink's rows amount to."""
        node = self.job.plan.nodes[self.job.sinks()[name]]
        assert isinstance(node.spec, KeptRows)
        schema, batches = node.spec.schema, self.published[name]
        if node.changelog is Changelog.APPEND:
            return pa.Table.from_batches([b.data for b in batches], schema)
        key = node.key if node.changelog is Changelog.UPSERT else None
        held = Materialize(schema, key, node.changelog).build(_context("folded"))
        assert isinstance(held, Materialized)
        if node.changelog is Changelog.RETRACT:  # partitions in any order: only the sum counts
            batches = [concatenate(batches, schema)] if batches else []
        for batch in batches:
            held.process(0, batch)
        return held.snapshot()

    def _publish(self, sink: str, content: bytes) -> None:
        rows = pa.ipc.open_stream(content).read_all().combine_chunks()
        for batch in rows.to_batches():
            weights = np.asarray(batch.column(WEIGHT))
            self.published[sink].append(Batch(batch.drop_columns([WEIGHT]), weights))

    def _step(self) -> int:
        share = self._rng.choice(self.shares)
        moved = share.step(poll=True)
        self.late += sum(v.metrics.late_rows for v in share.dataflow.vertices)
        return moved

    def _quiet(self) -> bool:
        """A few random steps; whether there is nothing more to do."""
        for _ in range(2 * len(self.shares)):
            self._step()
        if not all(share.dataflow.ended for share in self.shares):
            return False
        return not any(share.step(poll=True) for _ in range(3) for share in self.shares)

    def _outlets(self, sender: int) -> Callable[[int, int, pa.Schema], Outlet]:
        def make(edge: int, receiver: int, schema: pa.Schema) -> Outlet:
            return _Late(lambda: LocalOutlet(self.shares[receiver].inbox, (edge, sender)))

        return make

    def _on_passed(self, partition: int) -> Callable[[object], None]:
        return lambda event: self._passed[partition].add(event.number)  # type: ignore[attr-defined]


def _context(name: str) -> VertexContext:
    return VertexContext(name, VNODES, wall_clock_us, VertexMetrics(), True)
