"""The operator behind window table functions: each row once for each window it is in. Keeps the watermark only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from millrace.operators.aggregates.placement import Placement
from millrace.operators.aggregates.progress import capture_clock, restored_clock
from millrace.operators.aggregates.times import from_microseconds
from millrace.operators.aggregates.window import NULL_TIME
from millrace.operators.batch import START_OF_TIME, Batch
from millrace.operators.operator import Capture, Context, Operator, OperatorMetrics

if TYPE_CHECKING:
    from millrace.operators.aggregates.specs import WindowAssign


class AssignOperator(Operator):
    """Adds window_start, window_end and window_time to rows; windows that are over for a row are left out."""

    def __init__(self, spec: WindowAssign, context: Context) -> None:
        self._spec = spec
        self._context = context
        self._placement = Placement(spec.input, spec.time, spec.window, spec.time_unit)
        self._watermark = START_OF_TIME
        fine = (
            spec.time_unit in ("us", "ns")
            if pt.is_integer(spec.bound_type)
            else (pt.is_timestamp(spec.bound_type) and spec.bound_type.unit in ("us", "ns"))
        )
        self._instant = 1 if fine else 1000
        self.metrics = OperatorMetrics()

    def process(self, port: int, batch: Batch) -> list[Batch]:
        spec = self._spec
        self.metrics.rows_in += batch.num_rows
        if spec.time is not None and batch.data.column(spec.time).null_count:
            known = np.asarray(batch.data.column(spec.time).is_valid())
            bad = batch.take(np.flatnonzero(~known))
            self.metrics.dead_rows += bad.num_rows
            self._context.dead_letter(bad, NULL_TIME, "the row has no event time, so it is in no window")
            batch = batch.take(np.flatnonzero(known))
            if not batch.num_rows:
                return []
        now = self._context.now() if spec.time is None else 0
        placed = self._placement.windows(batch, now, self._watermark, spec.allowed_lateness)
        if placed.late is not None and len(placed.late):
            late = batch.take(placed.late)
            self.metrics.late_rows += late.num_rows
            self._context.late(late)
        if placed.rows is not None:
            batch = batch.take(placed.rows)
        if not batch.num_rows:
            return []
        start, end = self._placement.bounds(placed.ends, spec.bound_type)
        last = from_microseconds(placed.ends - self._instant, spec.bound_type, spec.time_unit)
        data = pa.RecordBatch.from_arrays([*batch.data.columns, start, end, last], schema=spec.output_schema)
        self.metrics.rows_out += data.num_rows
        return [batch.with_data(data)]

    def on_watermark(self, watermark: int) -> list[Batch]:
        if self._spec.time is not None:
            self._watermark = watermark
        return []

    def capture(self, *, changes: bool) -> Capture:
        return {"clock": capture_clock(self._watermark, self._context.vnodes)}

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        self._watermark = restored_clock(tables.get("clock"))
