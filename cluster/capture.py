"""What one partition remembers at a cut, in memory: operators' tables, splits' positions and watermarks. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from millrace.operators.operator import StateDelta
from millrace.operators.source import Position
from millrace.state.snapshot import fold

Tables = dict[str, StateDelta]


@dataclass(frozen=True, slots=True)
class SplitCapture:
    """Where a split goes on, and the event time (µs) its own watermark has come to.

    Between `since` and there it gave so many `records`, with that `digest` (None: they are not known).
    """

    position: Position
    watermark: int
    records: int = 0
    digest: int = 0
    since: Position | None = None


@dataclass(frozen=True, slots=True)
class SourceCapture:
    """All splits of a source. `watermark` (µs) is what was promised downstream; `ended` splits are not read again."""

    splits: Mapping[str, SplitCapture]
    ended: frozenset[str]
    watermark: int


@dataclass(frozen=True, slots=True)
class PartitionCapture:
    """A partition at a cut, by node hash. `complete` says whether the operators' tables are whole."""

    operators: Mapping[str, Tables]
    sources: Mapping[str, SourceCapture]
    complete: bool

    def then(self, later: PartitionCapture) -> PartitionCapture:
        """This complete capture brought up to a later one of changes (or that one, where it is complete)."""
        if later.complete:
            return later
        assert self.complete
        operators = {name: dict(tables) for name, tables in self.operators.items()}
        for name, tables in later.operators.items():
            known = operators.setdefault(name, {})
            for table, delta in tables.items():
                known[table] = _folded(known.get(table), delta)
        return PartitionCapture(operators, later.sources, True)


@dataclass(frozen=True, slots=True)
class Restored:
    """State for a new dataflow: whole tables by node hash, and where sources go on."""

    operators: Mapping[str, Mapping[str, pa.RecordBatch]] = field(default_factory=dict)
    sources: Mapping[str, SourceCapture] = field(default_factory=dict)

    @classmethod
    def of(cls, capture: PartitionCapture) -> Restored:
        """What a complete capture restores to."""
        assert capture.complete
        tables = {
            name: {table: delta.rows for table, delta in found.items()}
            for name, found in capture.operators.items()
        }
        return cls(tables, capture.sources)


def _folded(base: StateDelta | None, delta: StateDelta) -> StateDelta:
    if base is None or delta.complete:
        assert delta.complete or base is not None, "changes of a table that was never captured whole"
        return delta
    rows = fold(base.rows, [(delta.rows, delta.deleted)], list(delta.key))
    return StateDelta(delta.key, rows, None, True)
