"""Nexmark as a source: splits take every n-th group of 50 events, positions are event numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.batch import Batch
from millrace.operators.connectors.nexmark.generator import rows_before, rows_of, table_events
from millrace.operators.connectors.nexmark.schema import EPOCH_EVENTS, SCHEMAS, SHARES
from millrace.operators.connectors.pacing import Pace
from millrace.operators.operator import Context
from millrace.operators.source import Polled, Position, Source, SourceSpec, SplitReader


@dataclass(frozen=True, slots=True)
class NexmarkSpec(SourceSpec):
    """Options of the `nexmark` connector.

    `events` counts events of all kinds (None: without end), so that table `bid` has 46 rows of every 50.
    `rate` is events of all kinds a second over all splits (0: as fast as possible); event time always advances
    by 100 µs an event. Sources with equal seeds fit together, whichever table they give.
    """

    title = "nexmark"

    table: str = "event"
    events: int | None = None
    rate: float = 0.0
    seed: int = 0
    splits: int = 1
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.table not in SCHEMAS:
            raise Invalid(
                f"nexmark has no table {self.table!r}", code="MR1430", hint=f"one of {', '.join(SCHEMAS)}"
            )
        for name, value, least in (
            ("events", self.events or 0, 0),
            ("rate", self.rate, 0),
            ("splits", self.splits, 1),
        ):
            if not least <= value < float("inf"):
                raise Invalid(f"nexmark option {name} is {value}; it is at least {least}", code="MR1432")
        known = SCHEMAS[self.table].names
        for name in self.columns or ():
            if name not in known:
                raise Invalid(
                    f"nexmark table {self.table!r} has no column {name!r}",
                    code="MR1433",
                    hint=f"its columns are {', '.join(known)}",
                )

    @property
    def output_schema(self) -> pa.Schema:
        schema = SCHEMAS[self.table]
        return schema if self.columns is None else pa.schema([schema.field(name) for name in self.columns])

    @property
    def bounded(self) -> bool:
        return self.events is not None

    def build(self, context: Context) -> Source:
        return NexmarkSource(self, context)

    def with_columns(self, columns: tuple[int, ...]) -> NexmarkSpec:
        names = self.output_schema.names
        return replace(self, columns=tuple(names[index] for index in columns))

    def details(self) -> dict[str, str]:
        return {
            "table": self.table,
            "events": "unbounded" if self.events is None else str(self.events),
            "rate": f"{self.rate:g}/s" if self.rate else "unlimited",
            "seed": str(self.seed),
            "splits": str(self.splits),
        }


class NexmarkSource(Source):
    """Opens readers on the splits `0` to `splits - 1`."""

    def __init__(self, spec: NexmarkSpec, context: Context) -> None:
        self._spec = spec
        self._context = context

    def discover(self) -> list[str]:
        return [str(split) for split in range(self._spec.splits)]

    def open(self, split: str, position: Position | None) -> SplitReader:
        event = 0 if position is None else position["event"]
        assert isinstance(event, int)
        return NexmarkReader(self._spec, split, event, self._context)


class NexmarkReader(SplitReader):
    """Rows of one split in order of event number. `_row` counts rows of the table within the split."""

    def __init__(self, spec: NexmarkSpec, split: str, event: int, context: Context) -> None:
        self.split = split
        self._number = int(split)
        self._spec = spec
        self._names = spec.output_schema.names
        self._row = self._rows_before(event)
        self._last = None if spec.events is None else self._rows_before(spec.events)
        self._pace = Pace(spec.rate, event, context) if spec.rate else None

    def poll(self, max_rows: int) -> Polled | None:
        stop = self._row + max_rows
        if self._last is not None:
            stop = min(stop, self._last)
        if self._pace is not None:
            stop = min(stop, self._rows_before(self._pace.due()))
        if stop <= self._row:
            return None
        spec = self._spec
        events = table_events(spec.table, self._row, stop - self._row, self._number, spec.splits)
        self._row = stop
        return Polled(Batch(rows_of(spec.table, events, spec.seed, self._names)))

    @property
    def position(self) -> Position:
        group, within = divmod(self._row, SHARES[self._spec.table].count)
        event = (self._number + group * self._spec.splits) * EPOCH_EVENTS
        return {"event": event + (SHARES[self._spec.table].first + within if within else 0)}

    @property
    def ended(self) -> bool:
        return self._last is not None and self._row >= self._last

    def _rows_before(self, event: int) -> int:
        """How many rows of this split the events below `event` are."""
        groups, within = divmod(event, EPOCH_EVENTS)
        whole, turn = divmod(groups, self._spec.splits)
        count = SHARES[self._spec.table].count
        if turn > self._number:
            return (whole + 1) * count
        return whole * count + (rows_before(self._spec.table, within) if turn == self._number else 0)
