"""A plan made fit for several partitions: no node relies on an order that changes of one row lose between them. Runs nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from millrace.operators.aggregates.specs import GroupAggregate, WindowAggregate
from millrace.operators.calc import Calc
from millrace.operators.joins.asof import AsofJoin
from millrace.operators.joins.lookup_spec import LookupJoin
from millrace.operators.joins.regular_spec import JoinKind, RegularJoin, SideInput
from millrace.operators.joins.temporal import LatestJoin
from millrace.operators.materialize import Materialize
from millrace.operators.metric_tap import MetricTap
from millrace.operators.normalize import Normalize
from millrace.operators.sessions.spec import SessionAggregate
from millrace.operators.sink import Changelog, SinkSpec
from millrace.operators.spec import OperatorSpec, structural_hash
from millrace.operators.temporal_filter import TemporalFilter
from millrace.operators.top.specs import TopRows
from millrace.operators.union import UnionAll
from millrace.planner.physical.exchange import required
from millrace.planner.plan import Node, Plan


def for_partitions(plan: Plan) -> Plan:
    """The plan, the same for every number of partitions, so that state moves between them.

    Changes of one row stay in order as long as one partition sends them. Where they may come from several, readers
    that know rows by key are told to know them by all columns, or read what stands when all changes have come.
    Upserts that are to be spread by other columns than their key are made into changes first. Tables that nobody can
    query hand their input on and go.
    """
    made = _Plan()
    for position, node in enumerate(plan.nodes):
        made.places[position] = made.add(node)
    outputs = tuple(replace(o, node=made.places[o.node]) for o in plan.outputs)
    late = tuple(replace(item, node=made.places[item.node]) for item in plan.late)
    return Plan(tuple(made.nodes), plan.settings, outputs, late)


@dataclass(slots=True)
class _Plan:
    nodes: list[Node] = field(default_factory=list)
    ordered: list[bool] = field(default_factory=list)
    """Of each node, whether all changes of one key come from one partition."""
    places: dict[int, int] = field(default_factory=dict)

    def add(self, node: Node) -> int:
        """Where the node's output is in the new plan."""
        inputs = [self.places[i] for i in node.inputs]
        if isinstance(node.spec, Materialize) and (
            node.spec.changelog is not Changelog.UPSERT
            or self.nodes[inputs[0]].changelog is not Changelog.UPSERT
        ):
            return inputs[0]
        for port, below in enumerate(inputs):
            node, inputs[port] = self._prepared(node, port, below)
        node = replace(node, inputs=tuple(inputs))
        return self._append(node, self._keeps_order(node))

    def _append(self, node: Node, ordered: bool) -> int:
        self.nodes.append(node)
        self.ordered.append(ordered)
        return len(self.nodes) - 1

    def _prepared(self, node: Node, port: int, at: int) -> tuple[Node, int]:
        """The node and its input, changed so that they fit where rows change partition between them."""
        below = self.nodes[at]
        keys = required(node, port)
        if keys is None:
            return node, at
        if below.changelog is Changelog.UPSERT and not set(keys) <= set(below.key or ()):
            assert below.key, "upserts without a key"
            return _reading(node, port, below.key), self._insert(at, Normalize(below.schema, below.key))
        if below.changelog is Changelog.RETRACT and not self.ordered[at]:
            known = _reading(node, port, None)
            if known != node:
                return known, at
            if isinstance(node.spec, AsofJoin | LatestJoin | SinkSpec):
                last = TopRows(below.schema, keys, (), 1, changelog_input=Changelog.RETRACT)
                return node, self._insert(at, last, keys)
        return node, at

    def _insert(self, at: int, spec: OperatorSpec, key: tuple[int, ...] | None = None) -> int:
        below = self.nodes[at]
        known = next((i for i, n in enumerate(self.nodes) if n.inputs == (at,) and n.spec == spec), None)
        if known is not None:
            return known
        digest = structural_hash(spec, [below.hash])
        key = below.key if key is None else key
        node = Node(spec, (at,), below.schema, Changelog.RETRACT, key, below.event_time, digest)
        return self._append(node, True)

    def _keeps_order(self, node: Node) -> bool:
        """Whether all changes of one key of the node's output come from one partition."""
        if node.changelog is Changelog.APPEND:
            return True
        key, spec = set(node.key or ()), node.spec
        match spec:
            case Calc() | MetricTap() | TemporalFilter() | UnionAll():
                return all(self.ordered[i] for i in node.inputs)
            case _ if node.key is None:
                return True
            case GroupAggregate() | WindowAggregate() | SessionAggregate():
                return set(range(len(spec.keys))) <= key
            case TopRows():
                return set(spec.partition) <= key
            case RegularJoin():
                return self._join_keeps_order(node, spec)
        return True  # sources are split by the key of their changes; other joins take rows that never change

    def _join_keeps_order(self, node: Node, spec: RegularJoin) -> bool:
        """Each side whose rows tell a pair apart must not move between partitions while its key stays."""
        fixed = []
        for port, below in enumerate(self.nodes[i] for i in node.inputs):
            appends = below.changelog is Changelog.APPEND
            fixed.append(appends or (below.key is not None and set(spec.keys(port)) <= set(below.key)))
        match spec.kind:
            case JoinKind.INNER:
                return any(fixed)
            case JoinKind.FULL:
                return all(fixed)
            case JoinKind.RIGHT:
                return fixed[1]
        return fixed[0]


def _reading(node: Node, port: int, key: tuple[int, ...] | None) -> Node:
    """The node, told that the input of `port` sends changes of rows known by `key` (None: by all columns)."""
    spec = node.spec
    side = SideInput(Changelog.RETRACT, key)
    match spec:
        case RegularJoin():
            spec = replace(spec, right_input=side) if port else replace(spec, left_input=side)
        case LookupJoin() if port:
            spec = replace(spec, right_input=side)
        case TopRows():
            spec = replace(spec, changelog_input=Changelog.RETRACT, input_key=key)
        case Materialize():
            spec = replace(spec, changelog=Changelog.RETRACT, key=key)
    return node if spec == node.spec else replace(node, spec=spec, hash=structural_hash(spec, node.hash))
