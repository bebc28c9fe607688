"""Logical relations to plan nodes: equal sub-plans become one node. Rewrites nothing logical."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.materialize import Materialize
from millrace.operators.metric_tap import MetricTap, TappedMetric
from millrace.operators.side import DeadLetters
from millrace.operators.sink import Changelog, SinkSpec
from millrace.operators.source import SourceInput
from millrace.operators.spec import OperatorSpec, structural_hash
from millrace.planner.expressions import columns_of, remap
from millrace.planner.framing import Over, RowBuffer
from millrace.planner.logical import (
    Aggregate,
    AssignWindow,
    BadRecords,
    LateInput,
    Positions,
    Read,
    Relation,
    Scan,
    WindowedAggregate,
)
from millrace.planner.physical.specs import spec_of
from millrace.planner.plan import LateOutput, Node, Output, OutputKind, Plan
from millrace.planner.ranking import Ranking, TopN
from millrace.planner.row_patterns import MatchRows
from millrace.planner.rules.merge_projects import merge_projects
from millrace.planner.rules.prune_columns import prune_columns
from millrace.planner.rules.read_through_projects import read_through_projects
from millrace.planner.timed_joins import LateSides, TimedJoin


@dataclass(slots=True)
class Compiler:
    """Grows a plan: nodes there stay where they are, new ones come behind them."""

    nodes: list[Node]
    outputs: list[Output]
    late: list[LateOutput]
    settings: tuple[tuple[str, str], ...] = ()
    needs: dict[SourceInput, set[int]] = field(default_factory=dict)
    """Columns that the queries of this extension want of each source."""
    _by_hash: dict[str, int] = field(default_factory=dict)
    _closed: frozenset[int] = frozenset()
    """Nodes that what is added may not read."""

    @classmethod
    def over(cls, plan: Plan, share: frozenset[int] | None = None) -> Compiler:
        """A compiler that extends `plan`; what it adds reads only the nodes in `share` (None: any) of those there are."""
        compiler = cls(list(plan.nodes), list(plan.outputs), list(plan.late), plan.settings)
        if share is not None:
            compiler._closed = frozenset(range(len(plan.nodes))) - share
        compiler._by_hash = {
            node.hash: at for at, node in enumerate(plan.nodes) if at not in compiler._closed
        }
        return compiler

    def plan(self) -> Plan:
        """What has grown."""
        return Plan(tuple(self.nodes), self.settings, tuple(self.outputs), tuple(self.late))

    def announce(self, relation: Relation, *, kept: bool) -> None:
        """Note what a relation that is to be compiled in this extension wants of its sources.

        `kept`: later queries may read its rows, so the event time is wanted even if nothing here uses it.
        """
        timely = uses_time(relation) or (kept and relation.event_time is not None)
        for node in relation.walk():
            if isinstance(node, Scan):
                wanted = self.needs.setdefault(node.input, set())
                wanted.update(node.columns)
                time = node.input.event_time
                if timely and time is not None:
                    wanted.add(time.column)

    def add_stream(
        self, name: str, relation: Relation, kind: OutputKind, taps: tuple[TappedMetric, ...] = ()
    ) -> int:
        """The node of a stream or select; it carries the name."""
        at = self._name(self._tapped(self._widened(relation), relation, taps), name)
        self.outputs.append(Output(name, kind, at))
        return at

    def add_table(self, name: str, relation: Relation, taps: tuple[TappedMetric, ...] = ()) -> int:
        """A table kept in a `Materialize`."""
        return self._keep(name, self._tapped(self._widened(relation), relation, taps), relation)

    def _keep(self, name: str, below: int, relation: Relation) -> int:
        mode = relation.changelog
        key = relation.key if mode is not Changelog.APPEND else None
        spec = Materialize(relation.schema, key, mode)
        mode = Changelog.RETRACT if mode is Changelog.UPSERT else mode
        at = self._name(self._add(spec, (below,), relation.schema, mode, key, relation.event_time), name)
        self.outputs.append(Output(name, OutputKind.TABLE, at))
        return at

    def add_sink(
        self,
        name: str,
        relation: Relation,
        sink: SinkSpec,
        mode: Changelog,
        taps: tuple[TappedMetric, ...] = (),
    ) -> int:
        """A sink; each statement has one of its own, even if equal to another."""
        below = self._tapped(self._widened(relation), relation, taps)
        digest = structural_hash(sink, name, self.nodes[below].hash)
        key = relation.key
        self.nodes.append(Node(sink, (below,), relation.schema, mode, key, relation.event_time, digest, name))
        at = len(self.nodes) - 1
        self.outputs.append(Output(name, OutputKind.SINK, at))
        return at

    def _tapped(self, below: int, relation: Relation, taps: tuple[TappedMetric, ...]) -> int:
        """The node that counts the rows of node `below` and passes them on; that node where there is nothing to count."""
        if not taps:
            return below
        known = {m.name: m for n in self.nodes if isinstance(n.spec, MetricTap) for m in n.spec.metrics}
        for tap in taps:
            other = known.get(tap.name, tap)
            if other.shape != tap.shape:
                raise Invalid(
                    f"metric {tap.name} is there already with another type, labels or buckets",
                    code="MR1083",
                    hint="give it another name, or make them agree",
                )
        spec = MetricTap(relation.schema, taps)
        return self._add(
            spec, (below,), relation.schema, relation.changelog, relation.key, relation.event_time
        )

    def _widened(self, relation: Relation) -> int:
        """The node of a whole statement, whose scans have the columns that all queries want."""
        kept: dict[SourceInput, Positions] = {}
        for node in relation.walk():
            if isinstance(node, Scan):
                wanted = self.needs.get(node.input, set()) | set(node.columns)
                kept[node.input] = self._columns(node, tuple(sorted(wanted)))
        widened = merge_projects(prune_columns(relation, kept))
        return self.compile(read_through_projects(widened))

    def compile(self, relation: Relation) -> int:
        """The node whose output is exactly `relation`."""
        if isinstance(relation, Read):
            known = self._named(relation)
            return self._read(relation) if known is None else known
        if isinstance(relation, Scan):
            return self._scan(relation)
        return self._operator(relation)

    def _read(self, relation: Read) -> int:
        """The node of a stream or table that the plan does not have. A table whose rows are replaced is kept."""
        below = self._widened(relation.input)
        if relation.table and relation.input.changelog is Changelog.UPSERT:
            return self._keep(relation.name, below, relation.input)
        return self._name(below, relation.name)

    def _operator(self, relation: Relation) -> int:
        inputs, spec = spec_of(relation)
        below = [self.compile(item) for item in inputs]
        schema = spec.output_schema
        at = self._add(spec, tuple(below), schema, relation.changelog, relation.key, relation.event_time)
        if isinstance(relation, LateInput | LateSides):
            late = LateOutput(below[0], relation.input.late_table or "")
            self.late += [] if late in self.late else [late]
        return at

    def _named(self, relation: Read) -> int | None:
        folded = relation.name.casefold()
        for output in reversed(self.outputs):
            fits = output.kind in (OutputKind.STREAM, OutputKind.TABLE) and output.name.casefold() == folded
            if (
                fits
                and output.node not in self._closed
                and self.nodes[output.node].schema.equals(relation.schema)
            ):
                return output.node
        return None

    def _columns(self, scan: Scan, wanted: Positions) -> Positions:
        """The columns of the source node that serves `wanted`: of one that is there, or of one to be made."""
        for at, node in enumerate(self.nodes):
            if at not in self._closed and isinstance(node.spec, SourceInput) and node.name == scan.name:
                have = _kept(scan.input, node.spec)
                if have is not None and set(wanted) <= set(have):
                    return have
        return wanted

    def _scan(self, scan: Scan) -> int:
        spec = pruned_input(scan.input, scan.columns)
        at = self._add(spec, (), spec.schema, scan.changelog, scan.key, scan.event_time)
        self._name(at, scan.name)
        table = scan.input.bad_rows
        if table not in ("skip", "fail") and self._named(Read(BadRecords(scan), table, True)) is None:
            bad = BadRecords(scan)
            below = self._add(DeadLetters(), (at,), bad.schema, bad.changelog, None, None)
            self._keep(table, below, bad)
        return at

    def _add(
        self,
        spec: SourceInput | OperatorSpec,
        inputs: tuple[int, ...],
        schema: pa.Schema,
        changelog: Changelog,
        key: Positions | None,
        event_time: int | None,
    ) -> int:
        digest = structural_hash(spec, [self.nodes[i].hash for i in inputs])
        known = self._by_hash.get(digest)
        if known is not None and self.nodes[known].inputs == inputs:
            return known
        self.nodes.append(Node(spec, inputs, schema, changelog, key, event_time, digest))
        self._by_hash[digest] = len(self.nodes) - 1
        return len(self.nodes) - 1

    def _name(self, at: int, name: str) -> int:
        if self.nodes[at].name is None:
            self.nodes[at] = replace(self.nodes[at], name=name)
        return at


def pruned_input(whole: SourceInput, columns: Positions) -> SourceInput:
    """The source input with these columns, reading no more of the source than they need.

    Without the column of its event time it has none: nobody asked.
    """
    time = whole.event_time
    if len(columns) == len(whole.schema) and whole.computed is None:
        return whole
    schema = pa.schema([whole.schema.field(c) for c in columns])
    moved = (
        None
        if time is None or time.column not in columns
        else replace(time, column=columns.index(time.column))
    )
    if whole.computed is None:
        return SourceInput(whole.source.with_columns(columns), None, schema, moved, whole.bad_rows)
    values = [whole.computed[c] for c in columns]
    read = tuple(sorted(columns_of(values)))
    if len(read) == len(whole.source.output_schema):
        return SourceInput(whole.source, tuple(values), schema, moved, whole.bad_rows)
    places = {c: at for at, c in enumerate(read)}
    values = [remap(v, places) for v in values]
    return SourceInput(whole.source.with_columns(read), tuple(values), schema, moved, whole.bad_rows)


def _kept(whole: SourceInput, spec: SourceInput) -> Positions | None:
    """Which columns of the whole source a source node has; None where it is another source."""
    names = whole.schema.names
    if any(n not in names for n in spec.schema.names):
        return None
    kept = tuple(names.index(n) for n in spec.schema.names)
    return kept if pruned_input(whole, kept) == spec else None


def uses_time(relation: Relation) -> bool:
    """Whether anything in the relation goes by event time."""
    for node in relation.walk():
        match node:
            case AssignWindow() | WindowedAggregate():
                if node.time is not None:
                    return True
            case Over():
                if node.order is not None:
                    return True
            case RowBuffer():
                if node.expire_after is not None:
                    return True
            case Aggregate():
                if node.window_end is not None:
                    return True
            case TopN() | Ranking() | TimedJoin() | MatchRows():
                return True
    return False
