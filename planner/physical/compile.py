"""Logical relations to plan nodes: equal sub-plans become one node. Rewrites nothing logical."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from millrace.errors import Position, Unsupported
from millrace.operators.materialize import Materialize
from millrace.operators.side import LateRows
from millrace.operators.sink import Changelog, SinkSpec
from millrace.operators.source import SourceInput
from millrace.operators.spec import OperatorSpec, structural_hash
from millrace.planner.expressions import columns_of, remap
from millrace.planner.logical import Positions, Read, Relation, Scan
from millrace.planner.physical.specs import spec_of
from millrace.planner.plan import LateOutput, Node, Output, OutputKind, Plan


@dataclass(slots=True)
class Compiler:
    """Grows a plan: nodes there stay where they are, new ones come behind them."""

    nodes: list[Node]
    outputs: list[Output]
    late: list[LateOutput]
    settings: tuple[tuple[str, str], ...] = ()
    needs: dict[SourceInput, set[int]] = field(default_factory=dict)
    """Columns that all queries of this extension want of each source."""
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

    def announce(self, relation: Relation) -> None:
        """Note the source columns of a relation that is to be compiled in this extension."""
        for node in relation.walk():
            if isinstance(node, Scan):
                self.needs.setdefault(node.input, set()).update(node.columns)

    def add_stream(self, name: str, relation: Relation, kind: OutputKind) -> int:
        """The node of a stream or select; it carries the name."""
        at = self._name(self.compile(relation), name)
        self.outputs.append(Output(name, kind, at))
        return at

    def add_table(self, name: str, relation: Relation) -> int:
        """A table kept in a `Materialize`."""
        below = self.compile(relation)
        mode = relation.changelog
        key = relation.key if mode is not Changelog.APPEND else None
        spec = Materialize(relation.schema, key, mode)
        at = self._name(self._add(spec, (below,), relation.schema, mode, key, relation.event_time), name)
        self.outputs.append(Output(name, OutputKind.TABLE, at))
        return at

    def add_sink(self, name: str, relation: Relation, sink: SinkSpec, mode: Changelog) -> int:
        """A sink; each statement has one of its own, even if equal to another."""
        below = self.compile(relation)
        digest = structural_hash(sink, name, self.nodes[below].hash)
        key = relation.key
        self.nodes.append(Node(sink, (below,), relation.schema, mode, key, relation.event_time, digest, name))
        at = len(self.nodes) - 1
        self.outputs.append(Output(name, OutputKind.SINK, at))
        return at

    def compile(self, relation: Relation) -> int:
        """The node whose output is exactly `relation`."""
        if isinstance(relation, Read):
            known = self._named(relation)
            return self._name(self.compile(relation.input), relation.name) if known is None else known
        if isinstance(relation, Scan):
            return self._scan(relation)
        return self._operator(relation)

    def _operator(self, relation: Relation) -> int:
        inputs, spec = spec_of(relation)
        below = [self.compile(item) for item in inputs]
        schema = spec.output_schema
        at = self._add(spec, tuple(below), schema, relation.changelog, relation.key, relation.event_time)
        table = getattr(relation, "late_table", None)
        if table is not None:
            self._late(at, below[0], table)
        return at

    def _late(self, at: int, below: int, table: str) -> None:
        if any(entry.node == at and entry.table == table for entry in self.late):
            return
        schema = self.nodes[below].schema
        place = self._name(self._add(LateRows(schema), (at,), schema, Changelog.APPEND, None, None), table)
        self.late.append(LateOutput(at, table))
        self.outputs.append(Output(table, OutputKind.STREAM, place))

    def _named(self, relation: Read) -> int | None:
        wanted = relation.name.casefold()
        for output in reversed(self.outputs):
            if (
                output.kind is OutputKind.TABLE
                and output.name.casefold() == wanted
                and output.node not in self._closed
            ):
                return output.node
        return None

    def _scan(self, scan: Scan) -> int:
        wanted = tuple(sorted(self.needs.get(scan.input, set()) | set(scan.columns)))
        spec, kept = pruned_input(scan.input, wanted)
        at = self._source(scan, spec, kept)
        have = kept if self.nodes[at].spec == spec else self._kept(scan.input, at)
        if have == scan.columns:
            return at
        return self._pick(at, scan, tuple(have.index(c) for c in scan.columns))

    def _source(self, scan: Scan, spec: SourceInput, kept: Positions) -> int:
        for at, node in enumerate(self.nodes):
            if (
                at not in self._closed
                and isinstance(node.spec, SourceInput)
                and node.name == scan.name
                and set(kept) <= set(self._kept(scan.input, at))
            ):
                return at
        mapped = replace(scan, columns=kept)
        return self._name(
            self._add(spec, (), spec.schema, mapped.changelog, mapped.key, mapped.event_time), scan.name
        )

    def _kept(self, whole: SourceInput, at: int) -> Positions:
        """Which columns of the whole source a source node has; () where it is another source."""
        spec = self.nodes[at].spec
        assert isinstance(spec, SourceInput)
        names = whole.schema.names
        if any(n not in names for n in spec.schema.names):
            return ()
        kept = tuple(names.index(n) for n in spec.schema.names)
        return kept if pruned_input(whole, kept)[0] == spec else ()

    def _pick(self, at: int, scan: Scan, places: Positions) -> int:
        from millrace.operators.calc import Calc
        from millrace.planner.expressions import column

        below = self.nodes[at].schema
        spec = Calc(below, None, tuple(column(below, p) for p in places), tuple(scan.schema.names))
        return self._add(spec, (at,), spec.output_schema, scan.changelog, scan.key, scan.event_time)

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


def pruned_input(whole: SourceInput, columns: Positions) -> tuple[SourceInput, Positions]:
    """The source input with these columns (and its event time), reading no more of the source than they need.

    Also says which columns of the whole it has, in order.
    """
    time = whole.event_time
    kept = tuple(sorted({*columns, *(() if time is None else (time.column,))}))
    if len(kept) == len(whole.schema) and whole.computed is None:
        return whole, kept
    schema = pa.schema([whole.schema.field(c) for c in kept])
    moved = None if time is None else replace(time, column=kept.index(time.column))
    if whole.computed is None:
        return SourceInput(whole.source.with_columns(kept), None, schema, moved, whole.bad_rows), kept
    values = [whole.computed[c] for c in kept]
    read = tuple(sorted(columns_of(values)))
    if len(read) == len(whole.source.output_schema):
        return SourceInput(whole.source, tuple(values), schema, moved, whole.bad_rows), kept
    places = {c: at for at, c in enumerate(read)}
    values = [remap(v, places) for v in values]
    return SourceInput(whole.source.with_columns(read), tuple(values), schema, moved, whole.bad_rows), kept


def refuse(code: str, message: str, hint: str | None = None, position: Position | None = None) -> Unsupported:
    """An Unsupported of physical planning."""
    return Unsupported(message, code=code, hint=hint, position=position)


def distinct_names(names: Sequence[str]) -> list[str]:
    """The names with numbers behind those that come again."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return found
