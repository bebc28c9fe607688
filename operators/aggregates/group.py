"""The operator behind GROUP BY without a window of its own. Knows no kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from millrace.operators.aggregates.calls import EmissionKind
from millrace.operators.aggregates.keyed import SHOWN, KeyedGroups, Layout
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
        self._ends: Int64Array = np.zeros(0, np.int64)
        self._first_end = END_OF_TIME
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
        return np.where(np.asarray(column.is_valid()), ends, END_OF_TIME) if column.null_count else ends

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

    def _note_ends(self, created: Int64Array) -> None:
        assert self._spec.window_end is not None
        if self._groups.index.high > len(self._ends):
            grown = np.full(max(self._groups.set.capacity, 1024), END_OF_TIME, np.int64)
            grown[: len(self._ends)] = self._ends
            self._ends = grown
        ends = self._window_ends(self._groups.index.keys(created)[self._spec.window_end])
        self._ends[created] = ends
        self._first_end = min(self._first_end, int(ends.min()))

    def on_watermark(self, watermark: int) -> list[Batch]:
        self._watermark = watermark
        kind = self._spec.emission.kind
        out: list[Batch] = []
        if watermark == END_OF_TIME:
            out = self._finish()
        elif self._expires and watermark >= self._first_end:
            over = np.flatnonzero(self._ends <= watermark)
            if kind is EmissionKind.INTERVAL:
                out = self._groups.flush()
                over = np.flatnonzero(self._ends <= watermark)
            if kind is EmissionKind.ON_CLOSE:
                out = self._groups.show(over[np.argsort(self._ends[over], kind="stable")])
            self._forget(over)
        return out

    def _forget(self, slots: Int64Array) -> None:
        self._ends[slots] = END_OF_TIME
        live = slots[np.isin(slots, self._groups.index.live())]
        if len(live):
            self._groups.remove(live)
        high = self._groups.index.high
        if len(self._ends) > 1024 and len(self._ends) > 4 * high:
            self._ends = self._ends[: max(1024, 2 * high)].copy()
        self._first_end = int(self._ends.min()) if len(self._ends) else END_OF_TIME

    def _finish(self) -> list[Batch]:
        kind = self._spec.emission.kind
        if not self._keys:
            slots, _ = self._groups.locate([], 1)
            if kind is not EmissionKind.EVERY_RECORD and not self._groups.marks[slots[0]] & SHOWN:
                flushed = self._groups.flush()
                return flushed or self._groups.show(slots)
        if kind is EmissionKind.INTERVAL:
            return self._groups.flush()
        if kind in (EmissionKind.FINAL, EmissionKind.ON_CLOSE):
            live = self._groups.index.live()
            if self._expires:
                live = live[np.argsort(self._ends[live], kind="stable")]
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
        return self._groups.capture(changes=changes)

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        slots = self._groups.restore(tables)
        if self._expires and len(slots):
            self._note_ends(slots.astype(np.int64))
