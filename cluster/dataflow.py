"""One partition's dataflow: builds a plan's nodes and drives them, batch by batch, on one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from millrace.cluster.capture import PartitionCapture, Restored
from millrace.cluster.reading import SourceVertex
from millrace.cluster.surroundings import VertexContext, VertexMetrics, wall_clock_us
from millrace.cluster.vertex import OperatorVertex, Receiver, SinkVertex, Vertex
from millrace.errors import Bug
from millrace.operators.batch import Batch
from millrace.operators.connectors.push import PushSpec
from millrace.operators.into_table import IntoTable, TableWriter
from millrace.operators.operator import Operator
from millrace.operators.side import DeadLetters, LateRows
from millrace.operators.sink import SinkSpec
from millrace.operators.source import SourceInput
from millrace.planner.physical.side_inputs import side_inputs
from millrace.planner.plan import Node, Plan


@dataclass(frozen=True, slots=True)
class Share:
    """What one of several partitions runs of a plan.

    `splits` are those it reads, by node hash (None: all there are). `silent` nodes run in another partition: here
    only watermarks pass. `cross(upstream, vertex, port)` connects an edge that leads through an exchange, and says so.
    """

    splits: Mapping[str, frozenset[str]] | None = None
    silent: frozenset[int] = frozenset()
    cross: Callable[[Vertex, Vertex, int], bool] = lambda upstream, vertex, port: False


class Silent(Operator):
    """Stands where another partition runs the operator: no row comes, none goes."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs

    def process(self, port: int, batch: Batch) -> list[Batch]:
        raise Bug("rows came to a partition that does not run this operator")

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        """What is said of all vnodes concerns whoever has the operator's."""


class Dataflow:
    """The running nodes of one plan in one partition.

    Invariant: vertex `i` runs node `i` of the plan; the plan only grows. All calls come from one thread
    at a time. Between calls no row is under way: every batch polled has gone through to the end.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], int] = wall_clock_us,
        vnodes: int = 256,
        partition: int = 0,
        batch_rows: int = 65_536,
        stop_at_bad_rows: bool = False,
        share: Share | None = None,
    ) -> None:
        self.clock = clock
        self.partition = partition
        self.vertices: list[Vertex] = []
        self.sources: list[SourceVertex] = []
        self.sinks: list[SinkVertex] = []
        self.retired: set[int] = set()
        self.former: set[int] = set()
        """Nodes whose name was dropped and may be another's now: they take no rows by name."""
        self.sink_of: Callable[[int, Node, SinkSpec], SinkSpec] = lambda position, node, spec: spec
        """What a sink's spec becomes where the dataflow runs under a name that is known outside."""
        self._operators: list[OperatorVertex] = []
        self._vnodes = vnodes
        self.batch_rows = batch_rows
        self.stop_at_bad_rows = stop_at_bad_rows
        self._share = share or Share()
        self._alone = share is None
        self._first: frozenset[int] = frozenset()

    def extend(self, plan: Plan, taps: Sequence[tuple[int, Receiver]] = ()) -> None:
        """Build and connect the nodes of `plan` that do not run yet. Its first nodes are those that do.

        `taps` read nodes from the first row on, also what a materialised table hands to new readers.
        """
        known = len(self.vertices)
        assert [node.hash for node in plan.nodes[:known]] == [v.node.hash for v in self.vertices]
        try:
            for position in range(known, len(plan.nodes)):
                self.vertices.append(self._build(position, plan.nodes[position]))
            self._connect_all(known, taps)
            self._first = side_inputs(plan.nodes)
        except BaseException:
            self.truncate(known)
            raise

    def _connect_all(self, known: int, taps: Sequence[tuple[int, Receiver]]) -> None:
        """Connect the nodes from position `known` on."""
        for position, receiver in taps:
            if position >= known:
                self.vertices[position].attach(receiver, 0)
        # The last first: a table hands its rows to a new reader at once, and they go through to the end.
        for vertex in reversed(self.vertices[known:]):
            self._connect(vertex)
        for vertex in self.vertices[known:]:
            self._inherit_dead_letters(vertex)
        for position, receiver in taps:
            if position < known:
                self.vertices[position].attach(receiver, 0)

    def poll(self) -> int:
        """One round: processing time, then one poll of every split. Answers the number of rows that moved."""
        self.tick()
        return sum(source.poll() for source in self.to_poll(self.sources))

    def to_poll(self, sources: Sequence[SourceVertex]) -> list[SourceVertex]:
        """Those of the sources whose turn it is: first bounded ones that rows look up, as long as they have any."""
        going = [source for source in sources if not source.ended]
        return [source for source in going if source.position in self._first] or going

    def tick(self) -> None:
        """Let processing time pass for all operators."""
        now = self.clock()
        for operator in self._operators:
            operator.tick(now)

    @property
    def ended(self) -> bool:
        """Whether every source was bounded and has given all it has."""
        return all(source.ended for source in self.sources)

    def publish(self, checkpoint: int) -> None:
        """Seal every sink and make what was sealed visible, with no checkpoint in between."""
        sealed = [(sink, sink.sink.seal(checkpoint)) for sink in self.sinks]
        for sink, outbox in sealed:
            sink.sink.publish(checkpoint, outbox)

    def capture(self, *, changes: bool) -> PartitionCapture:
        """What is remembered between two rounds: whole, or what changed since the last capture."""
        operators = {v.node.hash: v.operator.capture(changes=changes) for v in self._operators}
        return PartitionCapture(
            {name: tables for name, tables in operators.items() if tables},
            {source.node.hash: source.capture() for source in self.sources},
            complete=not changes,
        )

    def restore(self, state: Restored) -> None:
        """Load what a capture held into a dataflow that has not been polled yet."""
        for vertex in self._operators:
            tables = state.operators.get(vertex.node.hash)
            if tables:
                vertex.operator.restore(tables)
        for source in self.sources:
            captured = state.sources.get(source.node.hash)
            if captured is not None:
                source.restore(captured)

    def retire(self, positions: Iterable[int]) -> None:
        """Stop these nodes for good; nobody else may read them. Their positions stay taken."""
        gone = [self.vertices[position] for position in positions]
        for vertex in gone:
            for upstream in vertex.node.inputs:
                self.vertices[upstream].detach(vertex)
                if isinstance(vertex.node.spec, LateRows):
                    self.vertices[upstream].context.on_late = None
                elif isinstance(vertex.node.spec, DeadLetters):
                    self.vertices[upstream].context.on_dead = None
            if vertex.position not in self.retired:
                vertex.close()
                self.retired.add(vertex.position)
        self.sources = [v for v in self.sources if v not in gone]
        self.sinks = [v for v in self.sinks if v not in gone]
        self._operators = [v for v in self._operators if v not in gone]

    def truncate(self, count: int) -> None:
        """Retire all nodes from position `count` on and free their positions."""
        self.retire(range(count, len(self.vertices)))
        self.retired -= set(range(count, len(self.vertices)))
        del self.vertices[count:]

    def close(self) -> None:
        """Close all nodes, sinks last. What was not published is not shown."""
        for vertex in (*self.sources, *self._operators, *self.sinks):
            vertex.close()

    def _build(self, position: int, node: Node) -> Vertex:
        metrics = VertexMetrics()
        name = node.name or f"{node.spec.title if not isinstance(node.spec, SourceInput) else 'source'}"
        stop = self.stop_at_bad_rows
        if isinstance(node.spec, SourceInput):
            stop = stop or node.spec.bad_rows == "fail"
        context = VertexContext(name, self._vnodes, self.clock, metrics, stop)
        if isinstance(node.spec, SourceInput):
            splits = self._share.splits
            assigned = None if splits is None else splits.get(node.hash, frozenset())
            source = SourceVertex(position, node, context, metrics, self.batch_rows, assigned)
            self.sources.append(source)
            return source
        if isinstance(node.spec, SinkSpec):
            sink = SinkVertex(
                position,
                node,
                context,
                metrics,
                self.sink_of(position, node, node.spec).build(context, self.partition),
            )
            if self._alone:  # the owner of a share fences its sinks when it is their turn
                sink.sink.fence()
            self.sinks.append(sink)
            return sink
        built = Silent(len(node.inputs)) if position in self._share.silent else node.spec.build(context)
        operator = OperatorVertex(position, node, context, metrics, built)
        self._operators.append(operator)
        return operator

    def _connect(self, vertex: Vertex) -> None:
        if isinstance(vertex, SourceVertex):
            return
        assert isinstance(vertex, OperatorVertex | SinkVertex)
        if isinstance(vertex, SinkVertex) and isinstance(vertex.sink, TableWriter):
            assert isinstance(vertex.node.spec, IntoTable)
            vertex.sink.deliver_to(partial(self._insert, vertex.node.spec))
        for port, position in enumerate(vertex.node.inputs):
            upstream = self.vertices[position]
            if self._share.cross(upstream, vertex, port):
                continue
            match vertex.node.spec:
                case LateRows():
                    upstream.context.on_late = _feed(vertex, port)
                case DeadLetters():
                    upstream.context.on_dead = _feed(vertex, port)
                case _:
                    upstream.attach(vertex, port)

    def _inherit_dead_letters(self, vertex: Vertex) -> None:
        """Rows that do not compute go where those of the source go, the first one that says where.

        Not for readers of dead letters: their failures would come back to them.
        """
        context = vertex.context
        if isinstance(vertex, SourceVertex):
            context.on_failed = context.on_dead or self._dead_letters_of(vertex)
            return
        context.of_dead_letters = isinstance(vertex.node.spec, DeadLetters)
        for position in vertex.node.inputs:
            above = self.vertices[position].context
            context.of_dead_letters = context.of_dead_letters or above.of_dead_letters
            context.stop_at_bad_rows = context.stop_at_bad_rows or above.stop_at_bad_rows
            context.on_failed = context.on_failed or above.on_failed
        context.on_dead = None if context.of_dead_letters else context.on_failed

    def _dead_letters_of(self, source: SourceVertex) -> Callable[[Batch], None] | None:
        """Where another reader of the same source sends its dead letters: one alone tells of bad records."""
        for vertex in self.vertices:
            if isinstance(vertex.node.spec, DeadLetters) and vertex.position not in self.retired:
                (position,) = vertex.node.inputs
                if self.vertices[position].node.name == source.node.name:
                    assert isinstance(vertex, OperatorVertex)
                    return _feed(vertex, 0)
        return None

    def pushed(self, name: str) -> list[SourceVertex]:
        """The sources that take the rows pushed into `name`, or inserted into the table of that name."""
        return [
            source
            for source in self.sources
            if isinstance(source.spec.source, PushSpec)
            and source.spec.source.name == name
            and source.position not in self.former
        ]

    def _insert(self, spec: IntoTable, batch: Batch) -> None:
        for source in self.pushed(spec.table):
            source.insert(batch)


def _feed(vertex: OperatorVertex | SinkVertex, port: int) -> Callable[[Batch], None]:
    def take(batch: Batch) -> None:
        vertex.receive(port, batch)

    return take
