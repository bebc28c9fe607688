"""Where the rows of a plan change partition, and which nodes are cut together by a barrier. Moves no row."""

from __future__ import annotations

from dataclasses import dataclass

from millrace.errors import Unsupported
from millrace.operators.aggregates.specs import GroupAggregate, WindowAggregate, WindowAssign
from millrace.operators.calc import Calc
from millrace.operators.expressions.tree import Column
from millrace.operators.joins.interval import IntervalJoin, WindowJoin
from millrace.operators.joins.regular_spec import RegularJoin
from millrace.operators.materialize import Materialize
from millrace.operators.over.specs import OverAggregate, RowBufferAggregate
from millrace.operators.sessions.spec import SessionAggregate
from millrace.operators.side import DeadLetters, LateRows
from millrace.operators.sink import Changelog, SinkSpec
from millrace.operators.source import SourceInput
from millrace.operators.top.specs import TopRows, WindowTopRows
from millrace.operators.union import UnionAll
from millrace.planner.plan import Node, Plan

Columns = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Edge:
    """Rows go from `producer` to port `port` of `consumer` in the partition that owns the hash of `keys`.

    `keys` are columns of the producer; () sends all rows to one partition.
    """

    producer: int
    consumer: int
    port: int
    keys: Columns


@dataclass(frozen=True, slots=True)
class Layout:
    """A plan in several partitions. `regions` are sets of nodes without an exchange between them, upstream first."""

    edges: tuple[Edge, ...]
    regions: tuple[frozenset[int], ...]

    def region_of(self, position: int) -> int:
        """The region that has the node."""
        return next(at for at, nodes in enumerate(self.regions) if position in nodes)

    def gathering(self) -> frozenset[int]:
        """Nodes without a key, which only one partition runs."""
        return frozenset(edge.consumer for edge in self.edges if not edge.keys)


def layout_of(plan: Plan, partitions: int) -> Layout:
    """How `plan` runs in so many partitions; raises Unsupported where it can not (MR1380 … MR1382).

    An exchange is left out only where rows are spread by exactly the next operator's key: state is kept by the
    hash of that key, and a partition keeps what it owns.
    """
    if partitions == 1:
        return Layout((), (frozenset(range(len(plan.nodes))),) if plan.nodes else ())
    spread: list[Columns | None] = []
    edges: list[Edge] = []
    for position, node in enumerate(plan.nodes):
        keys = [_required(node, port) for port in range(len(node.inputs))]
        for port, (producer, key) in enumerate(zip(node.inputs, keys, strict=True)):
            if key is not None and (len(node.inputs) > 1 or spread[producer] != key):
                _check_order(plan.nodes[producer], node)
                edges.append(Edge(producer, position, port, key))
        _check_sink(node, spread)
        spread.append(_spread_after(node, spread))
    return Layout(tuple(edges), _regions(plan, edges))


def independent(plan: Plan) -> bool:
    """Whether partitions of `plan` exchange no rows, however many there are."""
    try:
        return not layout_of(plan, 2).edges
    except Unsupported:  # then there is only one, and nobody to exchange with
        return True


def _required(node: Node, port: int) -> Columns | None:
    """The columns of input `port` whose hash must say where a row goes; None where any partition does."""
    spec = node.spec
    match spec:
        case SourceInput() | SinkSpec() | Calc() | WindowAssign() | UnionAll() | LateRows() | DeadLetters():
            return None
        case GroupAggregate() | WindowAggregate() | SessionAggregate():
            return spec.keys
        case OverAggregate() | RowBufferAggregate():
            return spec.keys
        case TopRows() | WindowTopRows():
            return spec.partition
        case RegularJoin():
            return spec.keys(port)
        case IntervalJoin() | WindowJoin():
            return tuple(pair[port] for pair in spec.equal)
        case Materialize() if spec.key is not None:
            return spec.key
    raise Unsupported(
        f"{spec.title} can not run in several partitions yet",
        code="MR1380",
        hint="submit the job with one partition",
    )


def _check_order(producer: Node, consumer: Node) -> None:
    """Changes of one row that come from two partitions have no order; what needs one can't be behind an exchange."""
    upsert = producer.changelog is Changelog.UPSERT
    table = isinstance(consumer.spec, Materialize) and producer.changelog is not Changelog.APPEND
    if upsert or table:
        raise Unsupported(
            "rows that replace each other would change partition here and lose their order",
            code="MR1382",
            hint="submit the job with one partition, or key it by the same columns throughout",
        )


def _check_sink(node: Node, spread: list[Columns | None]) -> None:
    if not isinstance(node.spec, SinkSpec) or node.changelog is Changelog.APPEND:
        return
    columns = spread[node.inputs[0]]
    if columns is None or (node.key is not None and not set(columns) <= set(node.key)):
        raise Unsupported(
            f"changes of one row would reach the sink {node.name} from several partitions, in no order",
            code="MR1382",
            hint="submit the job with one partition, or write a query whose rows keep the columns it is grouped by",
        )


def _spread_after(node: Node, spread: list[Columns | None]) -> Columns | None:
    spec = node.spec
    match spec:
        case GroupAggregate() | WindowAggregate() | SessionAggregate():
            return tuple(range(len(spec.keys)))
        case OverAggregate() | RowBufferAggregate():
            return spec.keys
        case TopRows() | WindowTopRows():
            return spec.partition
        case Materialize():
            return spec.key
        case Calc():
            before = spread[node.inputs[0]]
            places = {e.index: at for at, e in enumerate(spec.outputs) if isinstance(e, Column)}
            if before is None or any(c not in places for c in before):
                return None
            return tuple(places[c] for c in before)
        case SinkSpec():
            return spread[node.inputs[0]]
    return None


def _regions(plan: Plan, edges: list[Edge]) -> tuple[frozenset[int], ...]:
    crossing = {(edge.consumer, edge.port) for edge in edges}
    group = list(range(len(plan.nodes)))

    def root(position: int) -> int:
        while group[position] != position:
            position = group[position]
        return position

    for position, node in enumerate(plan.nodes):
        for port, producer in enumerate(node.inputs):
            if (position, port) not in crossing:
                group[root(producer)] = root(position)
    members: dict[int, set[int]] = {}
    for position in range(len(plan.nodes)):
        members.setdefault(root(position), set()).add(position)
    waits = {r: {root(e.producer) for e in edges if root(e.consumer) == r} for r in members}
    ordered: list[int] = []
    while len(ordered) < len(members):
        ready = [r for r in members if r not in ordered and waits[r] <= set(ordered)]
        if not ready:
            raise Unsupported(
                "rows before and after an exchange meet again without one, so the plan has no consistent cut",
                code="MR1381",
                hint="submit the job with one partition",
            )
        ordered += ready
    return tuple(frozenset(members[r]) for r in ordered)
