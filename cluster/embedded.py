"""The runtime in process: one dataflow, driven by a thread of its own and by whoever pushes rows."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from millrace.cluster.dataflow import Dataflow
from millrace.cluster.reading import SourceVertex
from millrace.cluster.surroundings import EXAMPLES_KEPT
from millrace.cluster.vertex import OperatorVertex, SinkVertex, Tap, Vertex
from millrace.errors import Bug, MillraceError
from millrace.operators.batch import END_OF_TIME, Batch
from millrace.operators.materialize import Materialized
from millrace.operators.source import BadRecord, SourceInput
from millrace.planner.plan import Plan

if TYPE_CHECKING:
    from millrace.cluster.durability import Durability

IDLE_WAIT_S = 0.005
PUBLISH_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the dataflow stands. Rows are since the start; `watermark` is the lowest of the sources, in µs."""

    rows_in: int
    rows_out: int
    late_rows: int
    dead_rows: int
    watermark: int
    elapsed_s: float
    ended: bool


@dataclass(slots=True)
class Answered:
    """What is still to be told of nodes that ran for one query and are gone."""

    rows_in: int = 0
    rows_out: int = 0
    """Rows that queries were answered with."""
    late_rows: int = 0
    dead_rows: int = 0
    examples: deque[tuple[str, BadRecord]] = field(default_factory=lambda: deque(maxlen=EXAMPLES_KEPT))

    def add(self, vertices: Sequence[Vertex]) -> None:
        """Count these nodes, which are about to go."""
        for vertex in vertices:
            if isinstance(vertex, SourceVertex):
                self.rows_in += vertex.metrics.rows_in
            self.late_rows += vertex.metrics.late_rows
            self.dead_rows += vertex.metrics.dead_rows
            self.examples.extend((vertex.context.name, record) for record in vertex.metrics.examples)


class EmbeddedRuntime:
    """Owns one dataflow and the lock under which every call to it happens.

    Sinks are published once a second, when all input has ended, and on `close`; with `durability`, at its checkpoints.
    """

    def __init__(self, dataflow: Dataflow) -> None:
        self.dataflow = dataflow
        self.plan = Plan()
        self.lock = threading.RLock()
        self.durability: Durability | None = None
        self.paused = False
        """Whether sources are not polled for now: nodes are being built that a checkpoint is restored into."""
        self._wake = threading.Condition(self.lock)
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._failure: MillraceError | None = None
        self._told = False
        """Whether somebody got the failure raised or called back."""
        self._on_failure: list[Callable[[MillraceError], None]] = []
        self._wanted: set[int] = set()
        self._taps: list[int] = []
        self._checkpoint = 0
        self.answered = Answered()
        self._begun = time.monotonic()
        self._published_at = self._begun
        self._unpublished = False

    def extend(self, plan: Plan) -> None:
        """Run what `plan` adds to the present one, from now on; its new outputs are wanted until `drop`."""
        with self.lock:
            self._raise_failure()
            self.dataflow.extend(plan)
            self._wanted.update(output.node for output in plan.outputs[len(self.plan.outputs) :])
            self.plan = plan
            if self.durability is not None:
                self.durability.name_nodes()
            self._wake.notify_all()

    def drop(self, name: str) -> None:
        """Stop what only the output called `name` needs; a sink publishes what it was given first."""
        with self.lock:
            self._raise_failure()
            wanted = name.casefold()
            nodes = {o.node for o in self.plan.outputs if o.name.casefold() == wanted} & self._wanted
            leaving = [v for node in nodes if isinstance(v := self.dataflow.vertices[node], SinkVertex)]
            if self.durability is not None:
                for vertex in leaving:
                    self.durability.leave(vertex)
            elif leaving:
                self._publish(time.monotonic())
            self._wanted -= nodes
            self._sweep()
            if self.durability is not None:
                self.durability.name_nodes()

    def start(self) -> None:
        """Drive the dataflow on a thread of its own, if none does."""
        with self.lock:
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._drive, name="millrace", daemon=True)
                self._thread.start()

    def run_round(self) -> int:
        """One round in the calling thread; answers the rows that moved."""
        with self.lock:
            self._raise_failure()
            if self.paused:
                return 0
            moved = self.dataflow.poll()
            if self.durability is not None:
                return moved
            self._unpublished = self._unpublished or moved > 0
            now = time.monotonic()
            if self._unpublished and (self.dataflow.ended or now - self._published_at >= PUBLISH_INTERVAL_S):
                self._publish(now)
            return moved

    def push(
        self,
        sources: list[SourceVertex],
        batches: list[pa.RecordBatch],
        bad: list[BadRecord],
        taken: int = 0,
    ) -> None:
        """Send rows through at once, in the calling thread; those of the first `taken` batches are taken back."""
        with self.lock:
            self._raise_failure()
            for source in sources:
                source.push(batches, bad, taken)
            self._unpublished = True

    def subscribe(
        self,
        plan: Plan,
        position: int,
        on_batch: Callable[[Batch], None],
        on_end: Callable[[], None],
        on_failure: Callable[[MillraceError], None],
    ) -> Callable[[], None]:
        """Run what `plan` adds and call back for every batch of node `position`, at the end and on failure.

        Answers how to stop it; the nodes that were added for it stop as well.
        """

        def on_watermark(watermark: int) -> None:
            if watermark == END_OF_TIME:
                on_end()

        tap = Tap(on_batch, on_watermark)
        with self.lock:
            self._raise_failure()
            self.dataflow.extend(plan, [(position, tap)])
            self.plan = plan
            self._taps.append(position)
            self._on_failure.append(on_failure)
            self._wake.notify_all()

        def stop() -> None:
            with self.lock:
                if on_failure in self._on_failure:
                    self._on_failure.remove(on_failure)
                    self.dataflow.vertices[position].detach(tap)
                    self._taps.remove(position)
                    self._sweep()

        return stop

    def answer(
        self, plan: Plan, position: int, observe: Callable[[Sequence[Vertex]], None] | None = None
    ) -> list[Batch]:
        """Run what `plan` adds over what there is now, to its end, and forget it; answers what `position` sent.

        Materialised tables are read as they stand; further sources are read to their end. `observe` is shown the
        nodes that ran before they are forgotten.
        """
        with self.lock:
            self._raise_failure()
            known = len(self.dataflow.vertices)
            collected: list[Batch] = []
            tap = Tap(collected.append)
            self.dataflow.extend(plan, [(position, tap)])
            try:
                self._complete(self.dataflow.vertices[known:])
                if observe is not None:
                    observe(self.dataflow.vertices[known:])
            finally:
                self.dataflow.vertices[position].detach(tap)
                self.answered.add(self.dataflow.vertices[known:])
                self.dataflow.truncate(known)
            return collected

    def wait(self, timeout: float | None) -> bool:
        """Wait until every bounded input has been read; False where `timeout` seconds did not suffice."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.lock:
            while not self._bounded_ended():
                self._raise_failure()
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._wake.wait(0.05 if left is None else min(left, 0.05))
            self._raise_failure()
        return True

    def progress(self) -> Progress:
        """Counters over all nodes."""
        with self.lock:
            vertices = self.dataflow.vertices
            sources = self.dataflow.sources
            return Progress(
                rows_in=self.answered.rows_in + sum(s.metrics.rows_in for s in sources),
                rows_out=self.answered.rows_out + sum(s.metrics.rows_in for s in self.dataflow.sinks),
                late_rows=self.answered.late_rows + sum(v.metrics.late_rows for v in vertices),
                dead_rows=self.answered.dead_rows + sum(v.metrics.dead_rows for v in vertices),
                watermark=min((s.watermark for s in sources if not s.ended), default=END_OF_TIME),
                elapsed_s=time.monotonic() - self._begun,
                ended=self.dataflow.ended,
            )

    def close(self) -> None:
        """Publish what was written, stop the thread, and close every node."""
        with self.lock:
            if self._stopping:
                return
            self._stopping = True
            self._wake.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        try:
            if self.durability is not None:
                self.durability.close()
        finally:
            with self.lock:
                if self._failure is None and self._unpublished and self.durability is None:
                    self._publish(time.monotonic())
                self.dataflow.close()

    @property
    def failed(self) -> bool:
        """Whether something broke, so that nothing goes on."""
        return self._failure is not None

    def fail(self, error: Exception) -> None:
        """Stop: everybody who waits or calls gets this error."""
        if not isinstance(error, MillraceError):
            bug = Bug(f"the dataflow broke: {type(error).__name__}: {error}", code="MR9001")
            bug.__cause__ = error
            error = bug
        with self.lock:
            self._failure = error
            self._told = bool(self._on_failure)
            for on_failure in self._on_failure:
                on_failure(error)
            self._wake.notify_all()

    def lasting(self) -> frozenset[int]:
        """Positions of the nodes that tables and sinks need: what a restart brings back. Readers' own are not."""
        return self.plan.reachable(self._wanted) - self.dataflow.retired

    def _sweep(self) -> None:
        """Retire every node that nothing wanted needs."""
        needed = self.plan.reachable([*self._wanted, *self._taps])
        running = set(range(len(self.dataflow.vertices))) - self.dataflow.retired
        self.dataflow.retire(sorted(running - needed))

    def _complete(self, added: list[Vertex]) -> None:
        """Give nodes that were just added all the input they will get."""
        sources = [v for v in added if isinstance(v, SourceVertex)]
        while not all(source.ended for source in sources):
            if sum(source.poll() for source in self.dataflow.to_poll(sources)) == 0:
                time.sleep(0.001)
        first = added[0].position if added else 0
        for vertex in added:
            if isinstance(vertex, OperatorVertex):
                for port, upstream in enumerate(vertex.node.inputs):
                    if upstream < first:
                        vertex.advance(port, END_OF_TIME)

    def _bounded_ended(self) -> bool:
        return all(s.ended for s in self.dataflow.sources if _is_bounded(s))

    def _publish(self, now: float) -> None:
        # What a database published before under the same names stays published: the numbers go on from there.
        markers = (vertex.sink.marker() or 0 for vertex in self.dataflow.sinks)
        self._checkpoint = max((self._checkpoint, *markers)) + 1
        self.dataflow.publish(self._checkpoint)
        self._published_at = now
        self._unpublished = False

    def _drive(self) -> None:
        while True:
            with self.lock:
                if self._stopping:
                    return
                try:
                    moved = self.run_round()
                    ended = self.dataflow.ended
                except Exception as error:  # noqa: BLE001 - whatever broke must reach who waits, not this thread's end
                    self.fail(error)
                    return
                if not moved:
                    self._wake.notify_all()
                    self._wake.wait(0.05 if ended else IDLE_WAIT_S)

    def raise_untold(self) -> None:
        """Raise what broke, if nobody was told of it yet."""
        if not self._told:
            self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            self._told = True
            raise self._failure


def materialised(vertex: Vertex) -> bool:
    """Whether the node keeps a table that may be read at any time."""
    return isinstance(vertex, OperatorVertex) and isinstance(vertex.operator, Materialized)


def _is_bounded(source: SourceVertex) -> bool:
    assert isinstance(source.node.spec, SourceInput)
    return source.node.spec.source.bounded
