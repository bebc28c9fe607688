"""Checkpoints of the embedded database: takes over, restores, cuts, decides, publishes. Knows no SQL.

The machines are those of a cluster, for one partition that owns every vnode. What is different: the plan grows
while it runs, so nodes are known by their hash, and all sinks share one outbox.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar, assert_never

import msgpack

from millrace.cluster.capture import SourceCapture, SplitCapture
from millrace.cluster.job import JobSpec
from millrace.cluster.protocol.checkpointing import CheckpointCoordinator
from millrace.cluster.protocol.lifecycle import PartitionLifecycle
from millrace.cluster.protocol.messages import (
    BarrierPassed,
    Begin,
    BeginCheckpoint,
    CapturePersisted,
    CheckpointCommitted,
    ConnectPeers,
    Durable,
    FenceSink,
    InjectBarrier,
    MarkerRead,
    OutboxPublished,
    PartitionCommand,
    PartitionEvent,
    PartitionStart,
    PeersConnected,
    PersistCapture,
    Published,
    PublishOutbox,
    PurgeState,
    RangedChain,
    ReadMarker,
    Report,
    RestoreState,
    SinkFenced,
    StartSources,
    StatePurged,
    StateRestored,
    StopSelf,
)
from millrace.cluster.reading import SourceVertex
from millrace.cluster.snapshotting import Snapshots
from millrace.cluster.surroundings import VertexContext, VertexMetrics, wall_clock_us
from millrace.cluster.vertex import OperatorVertex, SinkVertex, Vertex
from millrace.errors import Bug, Corrupt, Fenced, Invalid, Unavailable
from millrace.operators.batch import START_OF_TIME
from millrace.operators.sink import Commit, Sink, SinkSpec
from millrace.planner.plan import Node, Plan
from millrace.state.checkpoints.manifest import Manifest, OutboxRef, encode_manifest, manifest_key
from millrace.state.checkpoints.number import NO_CHECKPOINT, CheckpointNumber
from millrace.state.checkpoints.pruning import Pruner, read_manifest
from millrace.state.checkpoints.snapshots import read_object, write_object
from millrace.state.ledger import (
    Assignment,
    CheckpointKind,
    JobCreated,
    Ledger,
    PartitionPlan,
    Takeover,
    create_job,
)
from millrace.state.store import Store

if TYPE_CHECKING:
    from millrace.cluster.embedded import EmbeddedRuntime

Answer = TypeVar("Answer")

INPUTS = "inputs"
"""The name under which a checkpoint keeps how far statements and logs of pushed rows are in it."""
ALL_SINKS = "sinks"
EMBEDDED = "embedded:"
"""How the ledger knows a database from a job; what follows tells it from former ones of the same name."""
RETRY_S = 0.2
PROBLEMS_KEPT = 20


class Durability:
    """The checkpoints of one `EmbeddedRuntime`, in `store` under the name `job`.

    Made, it has taken the job over from whoever led it; `inputs` says what the restored checkpoint had taken in.
    Then the caller brings the dataflow's nodes back and calls `begin`. `checkpoint` may be called from any thread.
    """

    def __init__(
        self,
        store: Store,
        job: str,
        runtime: EmbeddedRuntime,
        *,
        vnodes: int,
        guarantee: Callable[[], str] = lambda: "none",
        restore_from: CheckpointNumber | None = None,
        inputs: Callable[[], Mapping[str, int]] = dict,
        on_decided: Callable[[Mapping[str, int]], None] = lambda oldest: None,
    ) -> None:
        """`guarantee` is asked when a sink is built, `inputs` at every cut, in which nothing is taken in; `on_decided` is told the inputs of the
        oldest checkpoint that is kept. Raises Invalid MR1562 for a checkpoint that is not kept, Corrupt."""
        self.store = store
        self._runtime = runtime
        self._ask_inputs = inputs
        self._on_decided = on_decided
        self._spec = JobSpec(job, Plan(), vnodes=vnodes)
        self._ledger, epoch = _take_over(store, self._spec)
        self._coordinator = CheckpointCoordinator(job, vnodes, epoch, keep=3)
        self._lifecycle = PartitionLifecycle()
        self._pruner = Pruner(store, job)
        manifest = self._chosen(restore_from)
        self._coordinator.restore(manifest)
        self._start = _start_of(self._spec, epoch, manifest)
        self._snapshots = Snapshots(store, self._spec, self._start)
        self.restored = self._start.restored
        self.inputs = _inputs_of(manifest)
        self._kept: dict[CheckpointNumber, Mapping[str, int]] = {self.restored: self.inputs}
        self._captured: set[int] = set()
        self._names: dict[int, str] = {}
        self._guarantee = guarantee
        self._outside = f"{job}.{self._ledger.state.plan.removeprefix(EMBEDDED)}"
        self._sinks: dict[str, SinkSpec] = {}
        self._markers: dict[str, int | None] = {}
        runtime.dataflow.sink_of = self._sink_of
        self._leaving: dict[str, bytes] = {}
        self._heirs: dict[str, Sink] = {}
        self._seen = 0
        self._one = threading.RLock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self.problems: list[str] = []

    def begin(self, interval_s: float) -> None:
        """Restore the nodes there are now, publish what was decided and not yet shown, then run and checkpoint."""
        with self._one:
            self._feed(Begin(self._start, float("inf")))
        self._thread = threading.Thread(
            target=self._every, args=(interval_s,), name="checkpoints", daemon=True
        )
        self._thread.start()

    @property
    def latest(self) -> CheckpointNumber:
        """The last decided checkpoint."""
        found = self._ledger.state.latest
        return NO_CHECKPOINT if found is None else found.number

    def kept(self) -> list[tuple[CheckpointNumber, str]]:
        """Number and kind of every checkpoint that can be restored, the oldest first."""
        return [(decided.number, decided.kind.value) for decided in self._ledger.state.checkpoints]

    def checkpoint(self) -> CheckpointNumber:
        """Cut, store, decide and publish; answers the number. Nothing new since the last: that one's number.

        Raises Fenced MR4001 where another process has taken the database over.
        """
        with self._one:
            if self._moved() == self._seen and self.latest != NO_CHECKPOINT:
                return self.latest
            found = self._coordinator.admit({0: self._start.epoch}, CheckpointKind.PERIODIC, None, 0.0)
            try:
                self._feed(BeginCheckpoint(found.number, found.kind))
                self._retried(lambda: self._pruner.prune(self._ledger.state))
            except Exception as error:
                self._runtime.fail(error)  # what was captured for this checkpoint can not be captured again
                raise
            self._forget_pruned()
            return found.number

    def leave(self, vertex: SinkVertex) -> None:
        """A sink is about to go: what it was given is published with the next checkpoint."""
        key = self._names[vertex.position]
        if isinstance(vertex.node.spec, SinkSpec) and vertex.node.spec.commit is not Commit.NONE:
            self._leaving[key] = vertex.sink.seal(self._coordinator.upcoming.value)

    def close(self) -> None:
        """Take a last checkpoint, publish it, and stop."""
        self._closing.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        if self._thread is not None and not self._runtime.failed:
            self.checkpoint()
        for sink in self._heirs.values():
            sink.close()

    def name_nodes(self) -> None:
        """Give every node that has to come back the name that checkpoints know it by, and free those of dropped ones.

        That is its hash; of several alike, the later ones are numbered. The same calls in the same order give the same.
        """
        lasting = self._runtime.lasting()
        self._names = {position: name for position, name in self._names.items() if position in lasting}
        for position in sorted(lasting - self._names.keys()):
            self._names[position] = self._free_name(self._runtime.dataflow.vertices[position].node.hash)

    def _free_name(self, hash: str) -> str:
        taken = set(self._names.values())
        numbered = (hash if number == 1 else f"{hash}#{number}" for number in count(1))
        return next(name for name in numbered if name not in taken)

    def _sink_of(self, position: int, node: Node, spec: SinkSpec) -> SinkSpec:
        """The sink as it is known outside: under the name of this database and its own."""
        name = self._names[position] = self._free_name(node.hash)
        self._sinks[name] = spec.in_job(self._outside, name, self._guarantee())
        return self._sinks[name]

    # The machine's commands -------------------------------------------------------------------------------

    def _feed(self, event: PartitionEvent) -> None:
        pending = [event]
        while pending:
            for command in self._lifecycle.handle(pending.pop(0)):
                answer = self._carry_out(command)
                if answer is not None:
                    pending.append(answer)

    def _carry_out(self, command: PartitionCommand) -> PartitionEvent | None:
        match command:
            case PurgeState():
                return StatePurged()
            case RestoreState():
                with self._runtime.lock:
                    self._restore()
                return StateRestored()
            case FenceSink():
                return SinkFenced(command.stream)  # the ledger's takeover has fenced the predecessor
            case ReadMarker():
                return MarkerRead(command.stream, None)
            case PublishOutbox():
                self._retried(lambda: self._publish(command.outbox))
                return OutboxPublished(command.outbox.stream, command.outbox.number)
            case ConnectPeers():
                return PeersConnected()
            case StartSources():
                self._runtime.paused = False
                return None
            case InjectBarrier():
                with self._runtime.lock:
                    self._capture(command.number)
                return BarrierPassed(command.number)
            case PersistCapture():
                number = command.number
                return CapturePersisted(number, self._retried(lambda: self._snapshots.persist(number)))
            case Report():
                return self._on_report(command.message)
            case StopSelf():
                raise Bug(f"an embedded partition wants to stop: {command.reason}")
            case _:
                assert_never(command)

    def _on_report(self, message: object) -> PartitionEvent | None:
        match message:
            case Published():
                self._coordinator.record_published(message.stream, message.number)
            case Durable():
                mine = PartitionPlan(0, 0, self._spec.vnodes, ())  # splits come and go with statements
                manifest = self._coordinator.durable(message.contribution, Assignment((mine,)))
                assert manifest is not None
                return self._decide(manifest)
        return None

    def _decide(self, manifest: Manifest) -> CheckpointCommitted:
        key = manifest_key(self._spec.job, manifest.number)
        self._retried(lambda: write_object(self.store, key, encode_manifest(manifest)))
        record = self._coordinator.decision(self._ledger.state)
        seq = self._ledger.next_seq
        self._retried(lambda: self._ledger.append(seq, record))
        self._coordinator.decided()
        self._kept[manifest.number] = _inputs_of(manifest)
        pending = [
            o for stream in self._coordinator.pending_streams() for o in self._coordinator.pending_of(stream)
        ]
        return CheckpointCommitted(manifest.number, tuple(pending))

    # The dataflow ------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        state = self._snapshots.restored()
        keys = self._names
        vertices = self._runtime.dataflow.vertices
        lost = (set(state.operators) | set(state.sources)) - set(keys.values()) - {INPUTS}
        if lost:
            raise Invalid(
                f"checkpoint {self.restored} has state of {len(lost)} nodes that the statements kept with it do not make",
                code="MR1565",
                hint="a source whose columns are taken from its data may have other columns now: put the data back",
            )
        for position, key in keys.items():
            vertex = vertices[position]
            if isinstance(vertex, OperatorVertex) and key in state.operators:
                vertex.operator.restore(state.operators[key])
        for position, key in keys.items():
            vertex = vertices[position]
            if isinstance(vertex, SourceVertex) and key in state.sources:
                vertex.restore(state.sources[key])

    def _capture(self, number: CheckpointNumber) -> None:
        cut = self._snapshots.cut(number)
        cut.sources[INPUTS] = SourceCapture(
            {INPUTS: SplitCapture(dict(self._ask_inputs()), START_OF_TIME)}, frozenset(), START_OF_TIME
        )
        keys = self._names
        outbox = dict(self._leaving)
        for position, key in keys.items():
            match self._runtime.dataflow.vertices[position]:
                case SourceVertex() as source:
                    source.discover()
                    cut.sources[key] = source.capture()
                case OperatorVertex() as operator:
                    tables = operator.operator.capture(changes=position in self._captured)
                    self._captured.add(position)
                    self._snapshots.add_tables(cut, key, tables)
                case SinkVertex() as sink:
                    outbox[key] = sink.sink.seal(number.value)
                case Vertex():
                    raise Bug("a node that is neither source nor operator nor sink")
        self._leaving.clear()
        self._snapshots.retain({*keys.values(), INPUTS})
        if any(outbox.values()):
            packed = msgpack.packb({key: content for key, content in outbox.items() if content})
            assert packed is not None
            cut.outboxes[ALL_SINKS] = packed
        self._seen = self._moved()

    def _publish(self, outbox: OutboxRef) -> None:
        contents: dict[str, bytes] = msgpack.unpackb(read_object(self.store, outbox.content))
        with self._runtime.lock:
            vertices = self._runtime.dataflow.vertices
            sinks = {
                name: v.sink for at, name in self._names.items() if isinstance(v := vertices[at], SinkVertex)
            }
            for name, content in contents.items():
                sink = sinks.get(name) or self._heir(name)
                if name not in self._markers:
                    sink.fence()
                    self._markers[name] = sink.marker()
                if (self._markers[name] or 0) < outbox.number.value:
                    sink.publish(outbox.number.value, content)
                    self._markers[name] = outbox.number.value

    def _heir(self, name: str) -> Sink:
        """A sink in place of one that was dropped after it had sealed the outbox."""
        if name not in self._heirs:
            if name not in self._sinks:
                raise Corrupt(
                    f"an outbox is for sink {name}, which no statement made",
                    code="MR5016",
                    hint="restore an older checkpoint",
                )
            context = VertexContext(name, self._spec.vnodes, wall_clock_us, VertexMetrics(), False)
            self._heirs[name] = self._sinks[name].build(context, 0)
            self._markers.pop(name, None)
        return self._heirs[name]

    def _moved(self) -> int:
        """Grows with everything that a checkpoint would have to keep."""
        with self._runtime.lock:
            vertices = self._runtime.dataflow.vertices
            rows = sum(v.metrics.rows_in + v.metrics.rows_out + v.metrics.batches_in for v in vertices)
            return (
                rows + sum(self._ask_inputs().values()) + sum(s.ended for s in self._runtime.dataflow.sources)
            )

    # Time and failures -------------------------------------------------------------------------------------

    def _every(self, interval_s: float) -> None:
        while not self._closing.wait(interval_s):
            try:
                self.checkpoint()
            except Exception:  # noqa: BLE001 - `checkpoint` has told everybody who waits
                return

    def _retried(self, call: Callable[[], Answer]) -> Answer:
        while True:
            try:
                return call()
            except Unavailable as error:
                self.problems = [*self.problems[1 - PROBLEMS_KEPT :], str(error)]
                if self._closing.is_set():
                    raise
                time.sleep(RETRY_S)

    def _chosen(self, restore_from: CheckpointNumber | None) -> Manifest | None:
        state = self._ledger.state
        found = state.latest if restore_from is None else state.checkpoint(restore_from)
        if found is None and restore_from is not None:
            raise Invalid(
                f"checkpoint {restore_from} is not kept",
                code="MR1562",
                hint="kept are " + (", ".join(str(d.number) for d in state.checkpoints) or "none"),
            )
        return None if found is None else read_manifest(self.store, found.manifest)

    def _forget_pruned(self) -> None:
        kept = {number for number, _ in self.kept()}
        self._kept = {number: inputs for number, inputs in self._kept.items() if number in kept}
        if kept <= set(self._kept):  # of those that an earlier process took, positions are not known
            oldest = self._kept[min(kept)]
            self._on_decided(oldest)


def _take_over(store: Store, spec: JobSpec) -> tuple[Ledger, int]:
    """The job's ledger under a raised epoch: whoever led it can decide nothing any more."""
    owner = f"{spec.job}-{os.getpid()}-{uuid.uuid4().hex[:12]}"
    ledger = Ledger(store, spec.job, owner)
    while True:
        state = ledger.read()
        try:
            if not state.job:
                incarnation = EMBEDDED + uuid.uuid4().hex[:12]
                ledger = create_job(store, JobCreated(spec.job, incarnation, spec.vnodes, 1), owner)
                continue
            if not state.plan.startswith(EMBEDDED):
                raise Invalid(
                    f"{spec.job} in this store is a job of a cluster",
                    code="MR1566",
                    hint="choose another name or another store",
                )
            if state.vnodes != spec.vnodes:
                raise Invalid(
                    f"{spec.job} was made with {state.vnodes} vnodes, not {spec.vnodes}",
                    code="MR1567",
                    hint=f"SET vnodes = {state.vnodes}: the number is for life",
                )
            epoch = state.epoch + 1
            ledger.append(ledger.next_seq, Takeover(epoch, owner))
            return ledger, epoch
        except Fenced:
            continue


def _start_of(spec: JobSpec, epoch: int, manifest: Manifest | None) -> PartitionStart:
    found = None if manifest is None else manifest.contributions[0]
    sources = () if found is None else found.sources
    splits = tuple((point.node, split) for point in sources for split in (*point.splits, *point.ended))
    chains = () if found is None else tuple(RangedChain(c, 0, spec.vnodes) for c in found.tables)
    return PartitionStart(
        job=spec.job,
        plan=PartitionPlan(0, 0, spec.vnodes, splits),
        epoch=epoch,
        vnodes=spec.vnodes,
        restored=NO_CHECKPOINT if manifest is None else manifest.number,
        chains=chains,
        sources=sources,
        streams=((ALL_SINKS, 0),),
        pending=() if manifest is None else manifest.pending,
        peers={},
        ranges=((0, spec.vnodes),),
        continues=False,
    )


def _inputs_of(manifest: Manifest | None) -> dict[str, int]:
    for point in () if manifest is None else manifest.contributions[0].sources:
        if point.node == INPUTS:
            position: Mapping[str, Any] = point.splits[INPUTS].position
            return {name: int(value) for name, value in position.items()}
    return {}
