"""The operator behind ranks in windows: rows wait for the end of their window, and are then ranked once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Batch
from millrace.operators.operator import Capture, Context, Operator, OperatorMetrics
from millrace.operators.over.held_rows import HeldRows
from millrace.operators.over.ticks import Ticks, without_times
from millrace.operators.top.ordering import codes_of, ranked
from millrace.operators.top.specs import WindowTopRows
from millrace.state.key_index import KeyIndex


class WindowTop(Operator):
    """Owns the rows of windows that are open; a window that is over is ranked, sent and forgotten."""

    def __init__(self, spec: WindowTopRows, context: Context) -> None:
        self._spec = spec
        self._context = context
        self._schema = spec.output_schema
        self._ticks = Ticks.of(spec.input.field(spec.end).type, spec.time_unit)
        self._held = HeldRows(spec.input, spec.partition, context.vnodes)
        self._watermark = START_OF_TIME
        self.metrics = OperatorMetrics()

    @property
    def state_rows(self) -> int:
        """Rows kept."""
        return len(self._held)

    @property
    def state_bytes(self) -> int:
        """Bytes of these rows and of what finds them."""
        return self._held.nbytes

    def process(self, port: int, batch: Batch) -> list[Batch]:
        assert batch.weights is None or (batch.weights > 0).all(), "windows are ranked over append-only input"
        self.metrics.rows_in += batch.num_rows
        known = without_times(batch, self._spec.end, self._context)
        if known is None:
            return []
        ends = self._ticks.read(known.data.column(self._spec.end))
        if self._watermark != START_OF_TIME:
            late = ends <= self._ticks.moment(self._watermark)
            if late.any():
                rows = np.flatnonzero(late)
                self.metrics.late_rows += len(rows)
                self._context.late(known.take(rows))
                known, ends = known.take(np.flatnonzero(~late)), ends[~late]
        self._held.add(known.data, ends)
        return []

    def on_watermark(self, watermark: int) -> list[Batch]:
        self._watermark = watermark
        horizon = self._ticks.moment(watermark)
        popped = self._held.pop(horizon if horizon == END_OF_TIME else horizon + 1)
        if popped is None:
            return []
        out = self._top(popped[0])
        self.metrics.rows_out += out.num_rows
        return [Batch(out)] if out.num_rows else []

    def capture(self, *, changes: bool) -> Capture:
        return {"rows": self._held.capture(changes=changes)}

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        rows = tables.get("rows")
        if rows is not None and rows.num_rows:
            self._held.restore(rows)

    def _top(self, data: pa.RecordBatch) -> pa.RecordBatch:
        """Of the rows of whole windows those that are among the first, in order."""
        spec = self._spec
        keys = [data.column(i) for i in spec.partition]
        slots = KeyIndex([key.type for key in keys]).upsert(keys, data.num_rows).slots
        codes = codes_of(data.columns, spec.order)
        if codes and spec.limit == 1 and not spec.offset:
            # Nothing but the best by the first code can be first: the rest need not be sorted.
            best = np.full(int(slots.max()) + 1, END_OF_TIME, np.int64)
            np.minimum.at(best, slots, codes[0])
            leading = np.flatnonzero(codes[0] == best[slots])
            data, slots = data.take(pa.array(leading)), slots[leading]
            codes = [code[leading] for code in codes]
        found = ranked(slots, codes, spec.function)
        rows, places = found.rows, found.places
        if spec.limit is not None or spec.offset:
            shown = places > spec.offset
            if spec.limit is not None:
                shown &= places <= spec.offset + spec.limit
            rows, places = rows[shown], places[shown]
        columns = data.take(pa.array(rows)).columns
        if spec.rank_name is not None:
            columns.append(pa.array(places, pa.int64()))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)
