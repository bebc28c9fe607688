"""The operator behind GROUP BY with a window, and the groups of whole windows. Knows no kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from millrace.operators.aggregates.calls import EmissionKind, Tumble
from millrace.operators.aggregates.columns import int64_of
from millrace.operators.aggregates.group_words import Slots
from millrace.operators.aggregates.keyed import SHOWN, KeyedGroups, Layout
from millrace.operators.aggregates.panes import PaneWindows
from millrace.operators.aggregates.placement import Placement
from millrace.operators.aggregates.progress import SlotTimes, capture_clock, restored_clock
from millrace.operators.aggregates.times import from_microseconds
from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Batch, Int64Array
from millrace.operators.operator import Capture, Context, Operator, OperatorMetrics

if TYPE_CHECKING:
    from millrace.operators.aggregates.specs import WindowAggregate

NULL_TIME = "MR2021"
"""Code of rows that have no event time."""


class WindowOperator(Operator):
    """Finds the rows' time, sends late rows and rows without time aside, and lets windows do the rest."""

    def __init__(self, spec: WindowAggregate, context: Context) -> None:
        self._spec = spec
        self._context = context
        self._watermark = START_OF_TIME
        self._state: WholeWindows | PaneWindows
        closing = spec.emission.kind in (EmissionKind.ON_CLOSE, EmissionKind.FINAL)
        if closing and not spec.allowed_lateness and not isinstance(spec.window, Tumble):
            self._state = PaneWindows(spec, context)
        else:
            self._state = WholeWindows(spec, context)

    @property
    def metrics(self) -> OperatorMetrics:
        """Counters of rows in, out, late and dead."""
        return self._state.metrics

    def process(self, port: int, batch: Batch) -> list[Batch]:
        self.metrics.rows_in += batch.num_rows
        if self._spec.time is not None and batch.data.column(self._spec.time).null_count:
            batch = self._without_null_times(batch)
            if not batch.num_rows:
                return []
        now = self._context.now() if self._spec.time is None else 0
        late, out = self._state.take(batch, now, self._watermark)
        if late is not None and len(late):
            rows = batch.take(late)
            if self._spec.late_to_next:
                still, more = self._state.take(self._at_the_watermark(rows), now, self._watermark)
                assert still is None or not len(still), "a window that holds the watermark was over"
                return [*out, *more]
            self.metrics.late_rows += rows.num_rows
            self._context.late(rows)
        return out

    def _at_the_watermark(self, batch: Batch) -> Batch:
        """The rows with the watermark that they met as their time."""
        assert self._spec.time is not None
        marks = np.full(batch.num_rows, self._watermark, np.int64)
        if batch.row_watermarks is not None:
            marks = np.maximum(marks, batch.row_watermarks)
        field = batch.schema.field(self._spec.time)
        times = from_microseconds(marks, field.type, self._spec.time_unit)
        return batch.with_data(batch.data.set_column(self._spec.time, field, times))

    def _without_null_times(self, batch: Batch) -> Batch:
        known = np.asarray(batch.data.column(self._spec.time).is_valid())
        bad = batch.take(np.flatnonzero(~known))
        self.metrics.dead_rows += bad.num_rows
        self._context.dead_letter(bad, NULL_TIME, "the row has no event time, so it is in no window")
        return batch.take(np.flatnonzero(known))

    def on_watermark(self, watermark: int) -> list[Batch]:
        if self._spec.time is None and watermark != END_OF_TIME:
            return []
        previous, self._watermark = self._watermark, watermark
        return self._state.advance(previous, watermark)

    def on_time(self, now: int) -> list[Batch]:
        out: list[Batch] = []
        if self._spec.time is None and now > self._watermark:
            previous, self._watermark = self._watermark, now
            out = self._state.advance(previous, now)
        return out + self._state.on_time(now)

    def capture(self, *, changes: bool) -> Capture:
        return self._state.capture(self._watermark, changes=changes)

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        self._watermark = restored_clock(tables.get("clock"))
        self._state.restore(tables)


class WholeWindows:
    """State by (window end, keys): every emission, and allowed lateness. A row is added to each of its windows."""

    def __init__(self, spec: WindowAggregate, context: Context) -> None:
        self._spec = spec
        self._context = context
        self._placement = Placement(spec.input, spec.time, spec.window, spec.time_unit)
        self._closing = spec.emission.kind in (EmissionKind.ON_CLOSE, EmissionKind.FINAL)
        self._groups = KeyedGroups(
            Layout(
                input=spec.input,
                key_types=(pa.int64(), *(spec.input.field(key).type for key in spec.keys)),
                vnode_from=1,
                calls=spec.calls,
                output=self._leading,
                schema=spec.output_schema,
                retracting=spec.retracting_input,
            ),
            spec.emission,
            context,
        )
        self._ends = SlotTimes()
        self._next_flush: int | None = None

    @property
    def metrics(self) -> OperatorMetrics:
        return self._groups.metrics

    def _leading(self, keys: list[pa.Array]) -> list[pa.Array]:
        """The output's keys and bounds from (window end, keys)."""
        bounds = self._placement.bounds(int64_of(keys[0]), self._spec.bound_type)
        return keys[1:] + [b for b, wanted in zip(bounds, self._spec.bounds, strict=True) if wanted]

    def take(self, batch: Batch, now: int, watermark: int) -> tuple[Int64Array | None, list[Batch]]:
        """Take rows in; late rows by position, and what is to be sent at once."""
        placed = self._placement.windows(batch, now, watermark, self._spec.allowed_lateness)
        if placed.rows is not None:
            batch = batch.take(placed.rows)
        if not batch.num_rows:
            return placed.late, []
        keys = [pa.array(placed.ends), *(batch.data.column(key) for key in self._spec.keys)]
        slots, created = self._groups.locate(keys, batch.num_rows)
        if len(created):
            ends = int64_of(self._groups.index.keys(created)[0])
            self._ends.note(created, ends, self._groups.set.capacity)
        if self._closing and self._spec.allowed_lateness:
            touched = self._groups.set.distinct(slots)
            over = touched[self._ends.times[touched] <= watermark]
            if len(over):
                return placed.late, self._groups.add_and_tell(slots, batch, over)
        return placed.late, self._groups.take(keys, slots, batch)

    def advance(self, previous: int, watermark: int) -> list[Batch]:
        """The watermark rose: send what closes, forget what is over."""
        if watermark < self._ends.first:
            return []
        out: list[Batch] = []
        if self._spec.emission.kind is EmissionKind.INTERVAL:
            out = self._groups.flush()
        over = self._ends.until(watermark)
        if self._spec.retracting_input:
            live = np.isin(over, self._groups.index.live())
            self._ends.times[over[~live]] = END_OF_TIME
            over = over[live]
        if self._closing:
            fresh = over if not self._spec.allowed_lateness else over[self._groups.marks[over] & SHOWN == 0]
            out = self._groups.show(fresh)
        if watermark != END_OF_TIME and self._spec.allowed_lateness:
            over = over[self._ends.times[over] <= watermark - self._spec.allowed_lateness]
        self._groups.remove(over)
        self._ends.forget(over, self._groups.index.high)
        return out

    def on_time(self, now: int) -> list[Batch]:
        """Send changed groups when an interval is over."""
        if self._spec.emission.kind is not EmissionKind.INTERVAL:
            return []
        if self._next_flush is None:
            self._next_flush = now + self._spec.emission.interval
        if now < self._next_flush:
            return []
        self._next_flush = now + self._spec.emission.interval
        return self._groups.flush()

    def capture(self, watermark: int, *, changes: bool) -> Capture:
        captured = self._groups.capture(changes=changes)
        captured["clock"] = capture_clock(watermark, self._context.vnodes)
        return captured

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        slots: Slots = self._groups.restore(tables)
        if len(slots):
            ends = int64_of(self._groups.index.keys(slots)[0])
            self._ends.note(slots, ends, self._groups.set.capacity)
