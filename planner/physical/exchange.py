"""Where the rows of a plan change partition, and which nodes are cut together by a barrier. Moves no row."""

from __future__ import annotations

from dataclasses import dataclass

from millrace.operators.aggregates.specs import GroupAggregate, WindowAggregate, WindowAssign
from millrace.operators.calc import Calc
from millrace.operators.expansion.spec import Expand
from millrace.operators.expressions.tree import Column
from millrace.operators.joins.asof import AsofJoin
from millrace.operators.joins.interval import IntervalJoin, WindowJoin
from millrace.operators.joins.lookup_spec import LookupJoin
from millrace.operators.joins.regular_spec import JoinKind, RegularJoin
from millrace.operators.joins.temporal import LatestJoin
from millrace.operators.match_recognize.specs import MatchRecognize
from millrace.operators.materialize import Materialize
from millrace.operators.metric_tap import MetricTap
from millrace.operators.normalize import Normalize
from millrace.operators.over.specs import OverAggregate, RowBufferAggregate
from millrace.operators.over.updating_spec import UpdatingOver
from millrace.operators.repeat import Repeat
from millrace.operators.sessions.spec import SessionAggregate
from millrace.operators.side import DeadLetters, LateRows
from millrace.operators.sink import Changelog, SinkSpec
from millrace.operators.source import SourceInput
from millrace.operators.temporal_filter import TemporalFilter
from millrace.operators.top.specs import TopRows, WindowTopRows
from millrace.operators.union import UnionAll
from millrace.planner.plan import Node, Plan

Columns = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Edge:
    """Rows go from `producer` to port `port` of `consumer` over a channel.

    They go to the partition that owns the hash of `keys`, columns of the producer; () sends all rows to one partition.
    None: they stay in theirs, and the channel is there so that a barrier can wait in it.
    """

    producer: int
    consumer: int
    port: int
    keys: Columns | None


@dataclass(frozen=True, slots=True)
class Layout:
    """A plan in several partitions. `regions` are sets of nodes without a channel between them, upstream first.

    `gathering` are nodes without a key, which only one partition runs.
    """

    edges: tuple[Edge, ...]
    regions: tuple[frozenset[int], ...]
    gathering: frozenset[int] = frozenset()

    @property
    def exchanged(self) -> bool:
        """Whether rows change partition, so that partitions recover together."""
        return any(edge.keys is not None for edge in self.edges)


def layout_of(plan: Plan, partitions: int) -> Layout:
    """How `plan` runs in so many partitions.

    An exchange is left out only where rows are spread by exactly the next operator's key: state is kept by the
    hash of that key, and a partition keeps what it owns.
    """
    if partitions == 1:
        return Layout((), (frozenset(range(len(plan.nodes))),) if plan.nodes else ())
    spread: list[Columns | None] = []
    edges: list[Edge] = []
    gathering: set[int] = set()
    for position, node in enumerate(plan.nodes):
        for port, producer in enumerate(node.inputs):
            key = required(node, port)
            if key == () and not isinstance(node.spec, SinkSpec):
                gathering.add(position)
            if key is not None and not _there(node, spread[producer], key):
                edges.append(Edge(producer, position, port, key))
        spread.append(_spread_after(node, spread))
    regions = _regions(plan, edges)
    while regions is None:
        edges = _with_channels(plan, edges)
        regions = _regions(plan, edges)
    return Layout(tuple(edges), regions, frozenset(gathering))


def independent(plan: Plan) -> bool:
    """Whether partitions of `plan` exchange no rows, however many there are."""
    return not layout_of(plan, 2).exchanged


def required(node: Node, port: int) -> Columns | None:
    """The columns of input `port` whose hash must say where a row goes; None where any partition does."""
    spec = node.spec
    match spec:
        case GroupAggregate() | WindowAggregate() | SessionAggregate() | MatchRecognize():
            return spec.keys
        case OverAggregate() | UpdatingOver() | RowBufferAggregate():
            return spec.keys
        case TopRows() | WindowTopRows():
            return spec.partition
        case RegularJoin():
            return spec.keys(port)
        case LookupJoin():
            return spec.right_keys if port else spec.left_keys
        case IntervalJoin() | WindowJoin() | AsofJoin() | LatestJoin():
            return tuple(pair[port] for pair in spec.equal)
        case Normalize():
            return spec.key
        case Materialize():
            if spec.changelog is Changelog.APPEND:
                return None
            return tuple(range(len(spec.input))) if spec.key is None else spec.key
        case TemporalFilter():
            return spec.partition_keys or tuple(range(len(spec.input)))
        case SinkSpec():
            if node.changelog is Changelog.APPEND:
                return None
            return spec.row_key if node.key is None else node.key
        case (
            SourceInput()
            | Calc()
            | Expand()
            | Repeat()
            | WindowAssign()
            | UnionAll()
            | LateRows()
            | DeadLetters()
            | MetricTap()
        ):
            return None
    raise AssertionError(f"nobody said how {type(spec).__name__} runs in several partitions")


def _there(node: Node, spread: Columns | None, key: Columns) -> bool:
    """Whether rows that are spread so are where they have to be: a sink keeps no state, so some of its key will do."""
    if isinstance(node.spec, SinkSpec):
        return spread is not None and set(spread) <= set(key)
    return spread == key


def _spread_after(node: Node, spread: list[Columns | None]) -> Columns | None:
    """The columns of a node's output by whose hash its rows are spread; None where by none."""
    spec = node.spec
    match spec:
        case GroupAggregate() | WindowAggregate() | SessionAggregate() | MatchRecognize():
            return tuple(range(len(spec.keys)))
        case OverAggregate() | UpdatingOver() | RowBufferAggregate():
            return spec.keys
        case TopRows() | WindowTopRows():
            return spec.partition
        case RegularJoin() | LookupJoin() if spec.kind in (JoinKind.INNER, JoinKind.SEMI):
            return _joined(spec.left_keys, spec.right_keys, spec.outputs, len(spec.left))
        case IntervalJoin() | WindowJoin() | AsofJoin() | LatestJoin() if spec.kind == "inner":
            left, right = (tuple(pair[port] for pair in spec.equal) for port in (0, 1))
            return _joined(left, right, spec.outputs, len(spec.left))
        case Materialize() | Normalize() | TemporalFilter():
            return spread[node.inputs[0]] if (keys := required(node, 0)) is None else keys
        case Calc():
            before = spread[node.inputs[0]]
            places = {e.index: at for at, e in reversed([*enumerate(spec.outputs)]) if isinstance(e, Column)}
            if before is None or any(c not in places for c in before):
                return None
            return tuple(places[c] for c in before)
        case Expand() | Repeat():
            before = spread[node.inputs[0]]
            kept = spec.outputs if isinstance(spec, Expand) else tuple(range(len(spec.output_schema)))
            return None if before is None or not set(before) <= set(kept) else tuple(map(kept.index, before))
        case UnionAll():
            sides = {spread[i] for i in node.inputs}
            return sides.pop() if len(sides) == 1 else None
        case WindowAssign() | MetricTap():
            return spread[node.inputs[0]]
    return None


def _joined(left: Columns, right: Columns, outputs: Columns, width: int) -> Columns | None:
    """Where a join's keys, which are equal on both sides, are among the columns that come out."""
    found = []
    for a, b in zip(left, right, strict=True):
        place = next((at for at, c in enumerate(outputs) if c in (a, width + b)), None)
        if place is None:
            return None
        found.append(place)
    return tuple(found)


def _with_channels(plan: Plan, edges: list[Edge]) -> list[Edge]:
    """The edges, with a channel of its own into every node that several inputs meet in."""
    crossing = {(edge.consumer, edge.port) for edge in edges}
    meeting = [
        Edge(producer, position, port, None)
        for position, node in enumerate(plan.nodes)
        for port, producer in enumerate(node.inputs)
        if len(node.inputs) > 1 and (position, port) not in crossing
    ]
    assert meeting, "every region has one way in, and yet they wait for each other"
    return [*edges, *meeting]


def _regions(plan: Plan, edges: list[Edge]) -> tuple[frozenset[int], ...] | None:
    """Sets of nodes that a barrier cuts at one moment; None where one would have to be cut before itself."""
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
            return None
        ordered += ready
    return tuple(frozenset(members[r]) for r in ordered)
