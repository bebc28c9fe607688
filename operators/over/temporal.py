"""Temporal filters at work: rows come in when they are due and are taken back when their time is over."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Batch, Int64Array
from millrace.operators.operator import Capture, Context, Operator, OperatorMetrics
from millrace.operators.over.held_rows import HeldRows
from millrace.operators.over.ticks import Ticks, null_rows
from millrace.operators.temporal_filter import Clock, TemporalFilter
from millrace.state.key_index import KeyIndex

_WEIGHT = "_weight"


class TemporalOperator(Operator):
    """Owns the rows that are still to come in (`_future`) and those in that will go (`_present`).

    A row enters when the clock reaches its time less `_upper`, and leaves when it reaches its time less
    `_lower`, in ticks. Rows that were taken back by the input stay until then too, and cancel out.
    """

    def __init__(self, spec: TemporalFilter, context: Context) -> None:
        self._spec = spec
        self._context = context
        self.metrics = OperatorMetrics()
        """Counters of rows in and out."""
        self._ticks = Ticks.of(spec.input.field(spec.time).type, spec.time_unit)
        self._lower = self._upper = 0
        if spec.lower is not None:
            self._lower = self._ticks.span(spec.lower.offset) - spec.lower.inclusive
        if spec.upper is not None:
            self._upper = self._ticks.span(spec.upper.offset) - (not spec.upper.inclusive)
        schema = spec.input.append(pa.field(_WEIGHT, pa.int64()))
        keys = spec.partition_keys or tuple(range(len(spec.input)))
        self._future = HeldRows(schema, keys, context.vnodes)
        self._present = HeldRows(schema, keys, context.vnodes)
        self._by_watermark = spec.clock is Clock.WATERMARK
        self._now = START_OF_TIME

    def process(self, port: int, batch: Batch) -> list[Batch]:
        self.metrics.rows_in += batch.num_rows
        if not self._by_watermark:
            self._now = max(self._now, self._ticks.moment(self._context.now()))
        missing = null_rows(batch.data.column(self._spec.time))
        if missing is not None:
            batch = batch.take(np.flatnonzero(~missing))
        ticks = self._ticks.read(batch.data.column(self._spec.time))
        rows = _weighted(batch)
        if self._spec.upper is not None:
            early = ticks - self._upper > self._now
            if early.any():
                self._future.add(_where(rows, early), ticks[early] - self._upper)
                rows, ticks = _where(rows, ~early), ticks[~early]
        return self._sent(self._enter(rows, ticks), None)

    def on_watermark(self, watermark: int) -> list[Batch]:
        if not self._by_watermark:
            return []
        if watermark != END_OF_TIME:
            return self._advance(self._ticks.moment(watermark))
        # Input has ended, time has not: now() is the last time that there was.
        latest = max(self._future.latest + self._upper, self._present.latest + self._lower)
        return self._advance(max(self._now, latest))

    def on_time(self, now: int) -> list[Batch]:
        return [] if self._by_watermark else self._advance(self._ticks.moment(now))

    def output_watermark(self, watermark: int) -> int:
        if not len(self._future) or (watermark == END_OF_TIME and self._by_watermark):
            return watermark
        return min(watermark, self._ticks.us(self._future.earliest + self._upper))

    def capture(self, *, changes: bool) -> Capture:
        return {
            "future": self._future.capture(changes=changes),
            "present": self._present.capture(changes=changes),
        }

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        self._future.restore(tables["future"])
        self._present.restore(tables["present"])

    def _advance(self, now: int) -> list[Batch]:
        if now <= self._now:
            return []
        self._now = now
        gone = self._present.pop(now + 1)
        came = self._future.pop(now + 1)
        entered = None if came is None else self._enter(_netted(came[0]), None)
        return self._sent(entered, None if gone is None else _netted(gone[0]))

    def _enter(self, rows: pa.RecordBatch, ticks: Int64Array | None) -> pa.RecordBatch:
        """Keep rows that are due until they leave; those that have not left already."""
        if self._spec.lower is None or not rows.num_rows:
            return rows
        if ticks is None:
            ticks = self._ticks.read(rows.column(self._spec.time))
        leaves = ticks - self._lower
        over = leaves <= self._now
        if over.any():
            rows, leaves = _where(rows, ~over), leaves[~over]
        self._present.add(rows, leaves)
        return rows

    def _sent(self, entered: pa.RecordBatch | None, gone: pa.RecordBatch | None) -> list[Batch]:
        """One batch of what goes, then what comes."""
        parts = []
        for rows, sign in ((gone, -1), (entered, 1)):
            if rows is not None and rows.num_rows:
                data = pa.RecordBatch.from_arrays(rows.columns[:-1], schema=self._spec.input)
                parts.append((data, sign * rows.column(_WEIGHT).to_numpy()))
        if not parts:
            return []
        data = parts[0][0] if len(parts) == 1 else pa.concat_batches([part[0] for part in parts])
        weights = np.concatenate([part[1] for part in parts])
        self.metrics.rows_out += data.num_rows
        return [Batch(data, None if (weights == 1).all() else weights)]


def _weighted(batch: Batch) -> pa.RecordBatch:
    """The rows with their weights as the last column."""
    weights = np.ones(batch.num_rows, np.int64) if batch.weights is None else batch.weights
    return batch.data.append_column(pa.field(_WEIGHT, pa.int64()), pa.array(weights))


def _where(rows: pa.RecordBatch, mask: np.ndarray) -> pa.RecordBatch:
    return rows.filter(pa.array(mask))


def _netted(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Equal rows as one with the sum of their weights; without those where it is 0."""
    weights = rows.column(_WEIGHT).to_numpy()
    if (weights > 0).all():
        return rows
    columns = rows.columns[:-1]
    found = KeyIndex([column.type for column in columns]).upsert(columns, rows.num_rows)
    sums = np.zeros(len(found.created), np.int64)
    np.add.at(sums, found.slots, weights)
    firsts = np.zeros(len(found.created), np.int64)
    firsts[found.slots[::-1]] = np.arange(rows.num_rows - 1, -1, -1)
    left = sums != 0
    picked = rows.take(pa.array(firsts[left]))
    return picked.set_column(rows.num_columns - 1, rows.schema.field(_WEIGHT), pa.array(sums[left]))
