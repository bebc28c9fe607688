"""The operator behind GROUP BY without a window of its own. Knows no kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from millrace.operators.aggregates.calls import EmissionKind
from millrace.operators.aggregates.group_words import Slots
from millrace.operators.aggregates.keyed import SHOWN, KeyedGroups, Layout
from millrace.operators.aggregates.progress import SlotTimes, capture_clock, restored_clock
from millrace.operators.aggregates.times import microseconds
from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Batch, Int64Array
from millrace.operators.operator import Capture, Context, Operator, OperatorMetrics

if TYPE_CHECKING:
    from millrace.operators.aggregates.specs import GroupAggregate


class GroupOperator(Operator):
    """Aggregates by key columns. With a window end among them, groups expire by watermark."""

    def __init__(self, spec: GroupAggregate, context: Context) -> None:
        self._spec = spec
        self._context = context
        self._keys = spec.keys
        self._groups = KeyedGroups(
            Layout(
                input=spec.input,
                key_types=tuple(spec.input.field(key).type for key in spec.keys),
                vnode_from=0,
                calls=spec.calls,
                output=lambda keys: keys,
                schema=spec.output_schema,
                retracting=spec.retracting_input,
                always=not spec.keys,
            ),
            spec.emission,
            context,
        )
        self._expires = spec.window_end is not None
        self._ends = SlotTimes()
        self._watermark = START_OF_TIME
        self._next_flush: int | None = None

    @property
    def metrics(self) -> OperatorMetrics:
        """Counters of rows in, out, late and dead."""
        return self._groups.metrics

    def process(self, port: int, batch: Batch) -> list[Batch]:
        self.metrics.rows_in += batch.num_rows
        if self._expires:
            batch = self._without_late(batch)
            if not batch.num_rows:
                return []
        keys = [batch.data.column(key) for key in self._keys]
        slots, created = self._groups.locate(keys, batch.num_rows)
        if self._expires and len(created):
            self._note_ends(created)
        return self._groups.take(keys, slots, batch)

    def _window_ends(self, column: pa.Array) -> Int64Array:
        ends = microseconds(column, "ms")
        return np.where(np.asarray(column.is_valid()), ends, END_OF_TIME - 1) if column.null_count else ends

    def _without_late(self, batch: Batch) -> Batch:
        assert self._spec.window_end is not None
        ends = self._window_ends(batch.data.column(self._keys[self._spec.window_end]))
        marks = batch.row_watermarks
        late = ends <= (self._watermark if marks is None else np.maximum(marks, self._watermark))
        if not late.any():
            return batch
        rows = batch.take(np.flatnonzero(late))
        self.metrics.late_rows += rows.num_rows
        self._context.late(rows)
        return batch.take(np.flatnonzero(~late))

    def _note_ends(self, created: Slots) -> None:
        assert self._spec.window_end is not None
        ends = self._window_ends(self._groups.index.keys(created)[self._spec.window_end])
        self._ends.note(created, ends, self._groups.set.capacity)

    def on_watermark(self, watermark: int) -> list[Batch]:
        self._watermark = watermark
        if watermark == END_OF_TIME:
            return self._finish()
        if not self._expires or watermark < self._ends.first:
            return []
        out: list[Batch] = []
        if self._spec.emission.kind is EmissionKind.INTERVAL:
            out = self._groups.flush()
        over = self._live(self._ends.until(watermark))
        if self._spec.emission.kind is EmissionKind.ON_CLOSE:
            out = self._groups.show(over)
        self._groups.remove(over)
        self._ends.forget(over, self._groups.index.high)
        return out

    def _live(self, slots: Slots) -> Slots:
        """Without slots whose group retraction has already removed."""
        if not self._spec.retracting_input:
            return slots
        live = np.isin(slots, self._groups.index.live())
        self._ends.times[slots[~live]] = END_OF_TIME
        return slots[live]

    def _finish(self) -> list[Batch]:
        kind = self._spec.emission.kind
        if not self._keys:
            one, _ = self._groups.locate([], 1)
            if kind is not EmissionKind.EVERY_RECORD and not self._groups.marks[one[0]] & SHOWN:
                return self._groups.flush() or self._groups.show(one)
        if kind is EmissionKind.INTERVAL:
            return self._groups.flush()
        if kind in (EmissionKind.FINAL, EmissionKind.ON_CLOSE):
            live: Slots = self._groups.index.live()
            if self._expires:
                live = self._live(self._ends.until(END_OF_TIME))
            return self._groups.show(live[self._groups.marks[live] & SHOWN == 0])
        return []

    def on_time(self, now: int) -> list[Batch]:
        if self._spec.emission.kind is not EmissionKind.INTERVAL:
            return []
        if self._next_flush is None:
            self._next_flush = now + self._spec.emission.interval
        if now < self._next_flush:
            return []
        self._next_flush = now + self._spec.emission.interval
        return self._groups.flush()

    def capture(self, *, changes: bool) -> Capture:
        captured = self._groups.capture(changes=changes)
        if self._expires:
            captured["clock"] = capture_clock(self._watermark, self._context.vnodes)
        return captured

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        slots = self._groups.restore(tables)
        if self._expires and len(slots):
            self._note_ends(slots)
        self._watermark = restored_clock(tables.get("clock"))
