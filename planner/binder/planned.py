"""What a bound statement comes to: changes of the catalog, outputs to run, commands for the front door."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa

from millrace.errors import Position
from millrace.operators.metric_tap import TappedMetric
from millrace.operators.sink import Changelog, SinkSpec
from millrace.planner.binder.bound import check_order, shown
from millrace.planner.catalog import Change, Entry
from millrace.planner.logical import Positions, Relation
from millrace.planner.plan import OutputKind
from millrace.planner.ranking import SortKey, TopN
from millrace.planner.rules.order import optimize
from millrace.planner.statements import Statement


@dataclass(frozen=True, slots=True)
class PlannedOutput:
    """One thing to be run: `relation` is its rows, `sink` and `mode` belong to sinks.

    `order`, `limit` and `offset` of a select are for whoever shows its rows: the plan does not apply them, and the
    last `hidden` columns of the relation are there for `order` alone. `taps` count its rows.
    """

    name: str
    kind: OutputKind
    relation: Relation
    position: Position
    sink: SinkSpec | None = None
    mode: Changelog | None = None
    order: tuple[SortKey, ...] = ()
    limit: int | None = None
    offset: int = 0
    hidden: int = 0
    taps: tuple[TappedMetric, ...] = ()

    def streamed(self) -> PlannedOutput:
        """The same for a reader without end: the limit is kept up to date. Raises Invalid MR1344 (ORDER BY alone)."""
        check_order(self.order, self.limit, self.offset, self.position)
        if self.limit is None and not self.offset:
            return self
        top = TopN(self.relation, (), self.order, self.limit, self.offset, position=self.position)
        relation = optimize(shown(top, self.hidden))
        return replace(self, relation=relation, order=(), limit=None, offset=0, hidden=0)


@dataclass(frozen=True, slots=True)
class Command:
    """A statement that the front door carries out itself.

    `rows` are those of INSERT … VALUES, bound to the table `target`; `key` is its key for UPDATE and DELETE, whose
    rows the one output gives.
    """

    statement: Statement
    target: Entry | None = None
    rows: pa.RecordBatch | None = None
    key: Positions = ()


@dataclass(frozen=True, slots=True)
class PlannedStatement:
    """What a statement comes to."""

    statement: Statement
    changes: tuple[Change, ...] = ()
    outputs: tuple[PlannedOutput, ...] = ()
    command: Command | None = None

    def streamed(self) -> PlannedStatement:
        """See `PlannedOutput.streamed`."""
        return replace(self, outputs=tuple(output.streamed() for output in self.outputs))
