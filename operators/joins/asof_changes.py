"""The operator behind as-of joins that send at once and correct what they sent. Knows no SQL."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from millrace.operators.aggregates.progress import capture_clock, restored_clock
from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Batch, Int64Array
from millrace.operators.joins.asof import AsofJoin
from millrace.operators.joins.asof_operator import AsofState
from millrace.operators.joins.timed_side import TimedSide, before
from millrace.operators.operator import Capture, Context, Operator, OperatorMetrics
from millrace.state.words import Slots

_EVER = 2**61


class AsofChangesOperator(Operator):
    """Keeps left rows, sent already, until the watermark says that no right row can suit them better."""

    inputs = 2

    def __init__(self, spec: AsofJoin, context: Context) -> None:
        self._state = state = AsofState(spec, context)
        self._spec = spec
        self._watermark = START_OF_TIME
        self._left = TimedSide(state.shape.stored[0], state.index, context.vnodes)

    @property
    def metrics(self) -> OperatorMetrics:
        """Counters; `retractions` in extra."""
        return self._state.metrics

    @property
    def state_rows(self) -> int:
        """Rows kept of both sides."""
        return len(self._left) + len(self._state.right)

    @property
    def state_bytes(self) -> int:
        """Bytes of these rows and of what finds them."""
        return sum(part.nbytes for part in (self._left, self._state.right, self._state.index))

    def process(self, port: int, batch: Batch) -> list[Batch]:
        out: list[Batch] = []
        state = self._state
        batch, ticks = state.usable(port, batch, out)
        if not batch.num_rows:
            return out
        if port == 0:
            rows = state.shape.keep(0, batch.data)
            slots = state.index.upsert([rows.column(c) for c in state.left_keys], rows.num_rows).slots
            self._send(rows, state.find(slots, ticks)[0], 1, out)
            self._left.insert(rows, slots, ticks, None)
        else:
            self._correct(batch, ticks, out)
        state.metrics.rows_out += sum(part.num_rows for part in out)
        return out

    def on_watermark(self, watermark: int) -> list[Batch]:
        state = self._state
        self._watermark = watermark
        state.set_clock(watermark)
        expired = self._left.expire(before(state.tick, -int(self._spec.strict)), exact=True)
        empty: list[Slots] = [state.expire(state.tick)]
        if expired is not None:
            self._left.forget(expired)
            empty.append(expired.empty)
        slots = np.unique(np.concatenate(empty))
        state.free(slots[self._left.timeline.sizes(slots) == 0])
        self._left.timeline.fit(state.index.high)
        return []

    def capture(self, *, changes: bool) -> Capture:
        return {
            "left": self._left.capture(changes=changes),
            "right": self._state.right.capture(changes=changes),
            "clock": capture_clock(self._watermark, self._state.context.vnodes),
        }

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        self._watermark = restored_clock(tables.get("clock"))
        self._state.set_clock(self._watermark)
        self._left.restore(tables.get("left"))
        self._state.right.restore(tables.get("right"))

    def _correct(self, batch: Batch, ticks: Int64Array, out: list[Batch]) -> None:
        """Take right rows in, and send again the left rows whose match they are now."""
        state = self._state
        keys = [batch.data.column(c) for c in state.keys[1]]
        slots = state.index.upsert(keys, batch.num_rows).slots
        touched, inverse = np.unique(slots, return_inverse=True)
        since = np.full(len(touched), END_OF_TIME, np.int64)
        np.minimum.at(since, inverse, ticks)
        begins, counts = self._left.timeline.ranges(touched, since, int(self._spec.strict), _EVER)
        picked, _, numbers = self._left.timeline.expand(0, len(touched), begins, counts)
        if not len(numbers):
            state.insert(batch, ticks)
            return
        rows = self._left.store.gather(numbers)
        times = state.ticks.of_left(rows.column(state.left_time))
        owners = np.ascontiguousarray(touched[picked])
        former = state.find(owners, times)[0]
        state.insert(batch, ticks)
        now = state.find(owners, times)[0]
        changed = np.flatnonzero(former != now)
        if not len(changed):
            return
        rows = rows.take(pa.array(changed))
        extra = state.metrics.extra
        extra["retractions"] = extra.get("retractions", 0) + len(changed)
        self._send(rows, former[changed], -1, out)
        self._send(rows, now[changed], 1, out)

    def _send(self, rows: pa.RecordBatch, numbers: Int64Array, weight: int, out: list[Batch]) -> None:
        picked = np.flatnonzero(numbers >= 0)
        sent, _ = self._state.pairs(rows, picked, numbers[picked])
        alone = np.flatnonzero(numbers < 0)
        parts = [sent] if sent.num_rows else []
        if self._spec.kind == "left" and len(alone):
            parts.append(self._state.shape.alone(0, rows.take(pa.array(alone))))
        for part in parts:
            out.append(Batch(part.data, np.full(part.num_rows, weight, np.int64)))
