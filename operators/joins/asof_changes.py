"""The operator behind as-of joins that send at once and correct what they sent. Knows no SQL."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from millrace.operators.aggregates.progress import capture_clock, restored_clock
from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Batch, Int64Array
from millrace.operators.joins.asof import AsofJoin
from millrace.operators.joins.asof_operator import BACKWARD, FORWARD, NEAREST, AsofState
from millrace.operators.joins.calendar import Calendar
from millrace.operators.joins.timed_side import Expired, TimedSide, before
from millrace.operators.operator import Capture, Context, Operator, OperatorMetrics
from millrace.state.words import Slots

_EVER = 2**61


class AsofChangesOperator(Operator):
    """Keeps left rows, sent already, until the watermark says that no right row can suit them better.

    Looking backward that is when it passes the row; otherwise by key: of two left rows of a key the earlier one is
    final first, so that a bound for each key says which are. `_due` holds the keys at which to look by a tick.
    """

    inputs = 2

    def __init__(self, spec: AsofJoin, context: Context) -> None:
        self._state = state = AsofState(spec, context)
        self._spec = spec
        self._watermark = START_OF_TIME
        self._left = TimedSide(state.shape.stored[0], state.index, context.vnodes)
        self._due = Calendar()

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
            numbers, found = state.find(slots, ticks)
            self._send(rows, numbers, 1, out)
            self._left.insert(rows, slots, ticks, None)
            self._look_again(slots, ticks, numbers, found)
        else:
            self._correct(batch, ticks, out)
        state.metrics.rows_out += sum(part.num_rows for part in out)
        return out

    def on_watermark(self, watermark: int) -> list[Batch]:
        state = self._state
        self._watermark = watermark
        state.set_clock(watermark)
        expired = self._expired()
        bound = state.asked()
        if state.direction == NEAREST and state.tolerance >= 0:
            bound = before(bound, state.tolerance)  # rows that are not final may still be matched to those
        empty: list[Slots] = [state.expire(bound)]
        if expired is not None:
            self._left.forget(expired)
            empty.append(expired.empty)
        slots = np.unique(np.concatenate(empty))
        state.free(slots[self._left.timeline.sizes(slots) == 0])
        self._left.timeline.fit(state.index.high)
        return []

    def output_watermark(self, watermark: int) -> int:
        state = self._state
        if state.direction == BACKWARD or watermark == END_OF_TIME:
            return state.promised(watermark)
        earliest = self._left.timeline.earliest(END_OF_TIME)
        return watermark if earliest >= state.tick else earliest // state.ticks.per_us

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
        slots, ticks, _, _ = self._left.timeline.live()
        self._look_again(slots, ticks, *self._state.find(slots, ticks))

    def _look_again(self, slots: Slots, ticks: Int64Array, numbers: Int64Array, found: Int64Array) -> None:
        """Note when rows may be final. Those that know of nothing that would make them so are noted with a match."""
        if self._state.direction == BACKWARD:
            return
        reach = self._state.reach(ticks, numbers >= 0, found)
        known = reach < END_OF_TIME
        self._due.add(reach[known], slots[known])

    def _expired(self) -> Expired | None:
        """The left rows that are final, no longer in order of time."""
        state, left = self._state, self._left
        if state.direction == BACKWARD:
            return left.expire(before(state.tick, -int(self._spec.strict)), exact=True)
        left.calendar.pop(state.tick)
        slots = state.index.live() if state.tick == END_OF_TIME else np.unique(self._due.pop(state.tick))
        slots = slots[left.timeline.sizes(slots) > 0]
        if not len(slots):
            return None
        rows, owners = left.timeline.drop_below(slots, self._final_below(slots))
        empty = slots[left.timeline.sizes(slots) == 0]
        return Expired(rows, np.zeros(len(rows), np.bool_), owners, empty)

    def _final_below(self, slots: Slots) -> Int64Array:
        """For each key the tick before which its left rows are final."""
        state = self._state
        now = state.tick
        if now == END_OF_TIME:
            return np.full(len(slots), END_OF_TIME, np.int64)
        clock = np.full(len(slots), now, np.int64)
        numbers, last = state.right.timeline.find(slots, clock, BACKWARD, True, -1)
        if state.direction == FORWARD:
            bounds = last + 1 - int(self._spec.strict)
        else:
            bounds = last + (now - last + 1) // 2  # up to half-way between what is there and what may come
        bounds = np.where(numbers >= 0, bounds, START_OF_TIME)
        return bounds if state.tolerance < 0 else np.maximum(bounds, now - state.tolerance)

    def _touched(self, slots: Slots, ticks: Int64Array) -> tuple[Slots, Int64Array, int, int]:
        """The keys of right rows, for each a tick, and from where to where around it left rows may want them."""
        state = self._state
        strict, far = int(self._spec.strict), _EVER if state.tolerance < 0 else state.tolerance
        touched, inverse = np.unique(slots, return_inverse=True)
        since = np.full(len(touched), END_OF_TIME, np.int64)
        np.minimum.at(since, inverse, ticks)
        if state.direction == BACKWARD:
            return touched, since, strict, _EVER
        until = np.full(len(touched), START_OF_TIME, np.int64)
        np.maximum.at(until, inverse, ticks)
        if state.direction == FORWARD:
            return touched, until, -_EVER, -strict
        spread = int((until - since).max())
        return touched, since, -far, min(_EVER, far + spread)

    def _correct(self, batch: Batch, ticks: Int64Array, out: list[Batch]) -> None:
        """Take right rows in, and send again the left rows whose match they are now."""
        state = self._state
        keys = [batch.data.column(c) for c in state.keys[1]]
        slots = state.index.upsert(keys, batch.num_rows).slots
        touched, around, lower, upper = self._touched(slots, ticks)
        begins, counts = self._left.timeline.ranges(touched, around, lower, upper)
        picked, _, numbers = self._left.timeline.expand(0, len(touched), begins, counts)
        if not len(numbers):
            state.insert(batch, ticks)
            return
        rows = self._left.store.gather(numbers)
        times = state.ticks.of_left(rows.column(state.left_time))
        owners = np.ascontiguousarray(touched[picked])
        former = state.find(owners, times)[0]
        state.insert(batch, ticks)
        now, found = state.find(owners, times)
        changed = np.flatnonzero(former != now)
        if not len(changed):
            return
        rows = rows.take(pa.array(changed))
        extra = state.metrics.extra
        extra["retractions"] = extra.get("retractions", 0) + len(changed)
        self._send(rows, former[changed], -1, out)
        self._send(rows, now[changed], 1, out)
        self._look_again(owners[changed], times[changed], now[changed], found[changed])

    def _send(self, rows: pa.RecordBatch, numbers: Int64Array, weight: int, out: list[Batch]) -> None:
        picked = np.flatnonzero(numbers >= 0)
        sent, _ = self._state.pairs(rows, picked, numbers[picked])
        alone = np.flatnonzero(numbers < 0)
        parts = [sent] if sent.num_rows else []
        if self._spec.kind == "left" and len(alone):
            parts.append(self._state.shape.alone(0, rows.take(pa.array(alone))))
        for part in parts:
            out.append(Batch(part.data, np.full(part.num_rows, weight, np.int64)))
