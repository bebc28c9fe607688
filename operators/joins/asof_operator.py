"""The operator behind as-of joins whose rows are held until they are final. Knows no SQL."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.aggregates.progress import capture_clock, restored_clock
from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Batch, Int64Array
from millrace.operators.joins.asof import DIRECTIONS, AsofJoin
from millrace.operators.joins.late import late_batch
from millrace.operators.joins.shared_ticks import SharedTicks, late_rows
from millrace.operators.joins.timed_pairs import PairShape
from millrace.operators.joins.timed_side import Expired, TimedSide, before
from millrace.operators.operator import Capture, Context, Operator, OperatorMetrics
from millrace.operators.over.held_rows import HeldRows
from millrace.operators.over.ticks import Ticks
from millrace.state.key_index import KeyIndex
from millrace.state.multimap import Multimap
from millrace.state.row_store import RowStore
from millrace.state.words import Slots

BACKWARD, FORWARD, NEAREST = range(3)
PRESENT = "_present"
Bools = npt.NDArray[np.bool_]


class AsofState:
    """What as-of joins share: the shape of rows, times and keys of both sides, and the right rows by key and time.

    With versions a kept right row has a further column that is false where the key ceased to be.
    """

    def __init__(self, spec: AsofJoin, context: Context) -> None:
        self.spec = spec
        self.context = context
        self.metrics = OperatorMetrics()
        schemas = (spec.left, spec.right)
        self.ticks = SharedTicks(schemas, spec.times, spec.time_units)
        self.keys = tuple(tuple(pair[port] for pair in spec.equal) for port in (0, 1))
        self._event = None
        if spec.event is not None:
            self._event = Ticks.of(spec.left.field(spec.event).type, spec.time_units[0])
        also = frozenset({spec.times[0], *self.keys[0]})
        self.shape = PairShape.of(schemas, spec.outputs, None, spec.output_schema, also)
        kept = self.shape.kept[0]
        self.left_keys = tuple(kept.index(c) for c in self.keys[0])
        self.left_time = kept.index(spec.times[0])
        self.index = KeyIndex([spec.left.field(c).type for c in self.keys[0]])
        stored = self.shape.stored[1]
        if spec.versions:
            stored = stored.append(pa.field(PRESENT, pa.bool_()))
        self.right = TimedSide(stored, self.index, context.vnodes)
        self.direction = DIRECTIONS.index(spec.direction)
        self.tolerance = -1 if spec.tolerance is None else spec.tolerance * self.ticks.per_us
        self.tick = self.watermark = START_OF_TIME

    def usable(self, port: int, batch: Batch, out: list[Batch]) -> tuple[Batch, Int64Array]:
        """Rows in time with a time and keys, and their ticks; a left row without comes alone where it must."""
        self.metrics.rows_in += batch.num_rows
        spec = self.spec
        missing: Bools | None = None
        for column in (spec.times[port], *self.keys[port]):
            values = batch.data.column(column)
            if values.null_count:
                here = np.asarray(pc.is_null(values))
                missing = here if missing is None else missing | here
        if missing is not None:
            if port == 0 and spec.kind == "left":
                alone = batch.data.take(pa.array(np.flatnonzero(missing)))
                out.append(self.shape.alone(0, self.shape.keep(0, alone)))
            batch = batch.take(np.flatnonzero(~missing))
        ticks = self.ticks.read(port, batch.data)
        late = self._late(port, batch, ticks)
        if late is not None:
            self.metrics.late_rows += int(late.sum())
            schemas = (self.spec.left, self.spec.right)
            self.context.late(late_batch(port, batch.take(np.flatnonzero(late)), schemas))
            rows = np.flatnonzero(~late)
            batch, ticks = batch.take(rows), ticks[rows]
        return batch, ticks

    def _late(self, port: int, batch: Batch, ticks: Int64Array) -> Bools | None:
        """Which rows are behind the watermark by their event time."""
        if port == 1 or self._event is None:
            return late_rows(ticks, self.tick, batch.row_watermarks, self.ticks.per_us)
        own = self._event
        column = batch.data.column(self.spec.event)
        return late_rows(own.read(column), own.moment(self.watermark), batch.row_watermarks, own.per_us)

    def reach(self, ticks: Int64Array, known: Bools, found: Int64Array) -> Int64Array:
        """For left rows with the ticks of what they found: the last tick of a right row that could suit as well."""
        reach = np.where(known, np.where(found >= ticks, found, 2 * ticks - found), END_OF_TIME)
        return reach if self.tolerance < 0 else np.minimum(reach, ticks + self.tolerance)

    def asked(self) -> int:
        """The earliest tick that a left row still to come may have."""
        return before(self.tick, -min(0, self.spec.reach[0]) * self.ticks.per_us)

    def promised(self, watermark: int) -> int:
        """What may be promised of the left side's event time, where rows are kept that have a tick of now or later."""
        return watermark if watermark == END_OF_TIME else watermark - max(0, self.spec.reach[1])

    def insert(self, batch: Batch, ticks: Int64Array) -> Slots:
        """Keep right rows; the slot of each that is kept."""
        keys = [batch.data.column(c) for c in self.keys[1]]
        slots = self.index.upsert(keys, batch.num_rows).slots
        rows = self.shape.keep(1, batch.data)
        if self.spec.versions:
            present = np.ones(len(slots), np.bool_) if batch.weights is None else batch.weights > 0
            rows = rows.append_column(pa.field(PRESENT, pa.bool_()), pa.array(present))
            if not present.all():
                chosen = np.flatnonzero(present | ~self._replaced(slots, ticks, present))
                rows, ticks = rows.take(pa.array(chosen)), ticks[chosen]
                slots = np.ascontiguousarray(slots[chosen])
        self.right.insert(rows, slots, ticks, None)
        return slots

    def _replaced(self, slots: Slots, ticks: Int64Array, present: Bools) -> Bools:
        """Which rows are the old ones of updates: with the time of a version there is, and followed by another.

        A row taken back at a time of its own ends the validity of its key then, whatever follows.
        """
        places = np.arange(len(slots))
        last = np.full(self.index.high, -1, np.int64)
        last[slots[present]] = places[present]
        numbers, found = self.right.timeline.find(slots, ticks, BACKWARD, False, -1)
        known = (numbers >= 0) & (found == ticks)
        order = np.lexsort((places, ticks, slots))  # by key and time, in the order of arrival
        begins = np.ones(len(order), np.bool_)
        begins[1:] = (np.diff(slots[order]) != 0) | (np.diff(ticks[order]) != 0)
        earlier: Int64Array = np.cumsum(present[order]) - present[order]
        since: Int64Array = earlier - earlier[begins][np.cumsum(begins) - 1]
        known[order] |= since > 0
        return (last[slots] > places) & known

    def find(self, slots: Slots, ticks: Int64Array) -> tuple[Int64Array, Int64Array]:
        """The stored right row that belongs to each row (-1: none), and its tick."""
        return self.right.timeline.find(slots, ticks, self.direction, self.spec.strict, self.tolerance)

    def set_clock(self, watermark: int) -> None:
        """The watermark (µs) has come to where it is."""
        ends = (START_OF_TIME, END_OF_TIME)
        self.watermark = watermark
        self.tick = watermark if watermark in ends else watermark * self.ticks.per_us

    def free(self, slots: Slots) -> None:
        """Let go of the keys of those of these slots that have no right row; nothing else has them."""
        slots = slots[self.right.timeline.sizes(slots) == 0]
        if len(slots):
            self.index.remove(slots)
            self.right.timeline.fit(self.index.high)

    def expire(self, bound: int) -> Slots:
        """Let go of right rows that no left row from `bound` on can need; the slots that have none now."""
        slots = np.unique(self.right.calendar.pop(bound))
        if bound == END_OF_TIME:
            slots = self.index.live()  # the last row of a key is no longer in the calendar
        if not len(slots):
            return slots
        keep_last = self.direction != FORWARD and bound != END_OF_TIME
        floor = START_OF_TIME if self.tolerance < 0 else bound - self.tolerance
        rows, owners, kept = self.right.timeline.trim(slots, bound, keep_last, floor)
        if keep_last and self.tolerance >= 0:
            stays = kept < bound
            if stays.any():
                self.right.calendar.add(kept[stays] + self.tolerance, slots[stays])
        empty = slots[self.right.timeline.sizes(slots) == 0]
        if len(rows):
            self.right.forget(Expired(rows, np.zeros(len(rows), np.bool_), owners, empty))
            extra = self.metrics.extra
            extra["expired"] = extra.get("expired", 0) + len(rows)
        return empty

    def pairs(
        self, rows: pa.RecordBatch, picked: Int64Array, numbers: Int64Array
    ) -> tuple[Batch, Int64Array]:
        """Rows at `picked` with the stored rows `numbers`, and which of those pairs there are."""
        if self.spec.versions and len(picked):
            present = self.right.store.gather(numbers, [PRESENT]).column(0)
            there = np.flatnonzero(np.asarray(present.to_numpy(zero_copy_only=False)))
        else:
            there = np.arange(len(picked))
        return self.shape.pairs(0, rows, picked[there], self.right.store, numbers[there]), there


class AsofOperator(Operator):
    """Holds left rows until a tick at which their match may be final; those that know none wait for one by key.

    A held row is looked at when its tick has passed: it is sent, or held until a later tick.
    """

    inputs = 2

    def __init__(self, spec: AsofJoin, context: Context) -> None:
        self._state = state = AsofState(spec, context)
        self._kind = spec.kind
        self._watermark = START_OF_TIME
        self._held = HeldRows(state.shape.stored[0], state.left_keys, context.vnodes)
        self._waiting = RowStore(state.shape.stored[0])
        self._by_slot = Multimap()
        self._numbers: Int64Array = np.empty(0, np.int64)
        self._forward = state.direction != BACKWARD

    @property
    def metrics(self) -> OperatorMetrics:
        """Counters."""
        return self._state.metrics

    @property
    def state_rows(self) -> int:
        """Rows held or waiting on the left, and rows kept on the right."""
        return len(self._held) + len(self._waiting) + len(self._state.right)

    @property
    def state_bytes(self) -> int:
        """Bytes of these rows and of what finds them."""
        parts = (
            self._held,
            self._waiting,
            self._by_slot,
            self._numbers,
            self._state.index,
            self._state.right,
        )
        return sum(part.nbytes for part in parts)

    def process(self, port: int, batch: Batch) -> list[Batch]:
        out: list[Batch] = []
        batch, ticks = self._state.usable(port, batch, out)
        if not batch.num_rows:
            return out
        if port == 0:
            self._held.add(self._state.shape.keep(0, batch.data), ticks)
        else:
            slots = self._state.insert(batch, ticks)
            if len(self._waiting):
                self._wake(np.unique(slots))
        return out

    def on_watermark(self, watermark: int) -> list[Batch]:
        state = self._state
        self._watermark = watermark
        state.set_clock(watermark)
        out: list[Batch] = []
        # A strict match leaves out rows of equal time: those that follow now do not matter.
        due = before(state.tick, -int(state.spec.strict and not self._forward))
        if watermark == END_OF_TIME:
            self._wake(self._waiting_slots())
        popped = self._held.pop(due)
        if popped is not None:
            self._settle(popped[0], out)
        empty = state.expire(min(state.asked(), self._earliest()))
        state.free(empty[self._by_slot.sizes(empty) == 0])
        state.metrics.rows_out += sum(batch.num_rows for batch in out)
        return out

    def output_watermark(self, watermark: int) -> int:
        earliest = self._earliest()
        if watermark == END_OF_TIME or earliest >= self._state.tick:
            return self._state.promised(watermark)
        return earliest // self._state.ticks.per_us

    def capture(self, *, changes: bool) -> Capture:
        self._wake(self._waiting_slots())
        return {
            "held": self._held.capture(changes=changes),
            "right": self._state.right.capture(changes=changes),
            "clock": capture_clock(self._watermark, self._state.context.vnodes),
        }

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        state = self._state
        self._watermark = restored_clock(tables.get("clock"))
        state.set_clock(self._watermark)
        state.right.restore(tables.get("right"))
        held = tables.get("held")
        if held is not None and held.num_rows:
            self._held.restore(held)

    def _settle(self, rows: pa.RecordBatch, out: list[Batch]) -> None:
        """Send the rows that are final, and hold the others."""
        state = self._state
        ticks = state.ticks.of_left(rows.column(state.left_time))
        slots = state.index.lookup([rows.column(c) for c in state.left_keys], rows.num_rows)
        numbers, found = state.find(slots, ticks)
        known = numbers >= 0
        if self._forward and state.tick != END_OF_TIME:
            final, due = self._final(ticks, known, found)
            if not final.all():
                waits = ~final & (due == END_OF_TIME)
                later = ~final & ~waits
                if later.any():
                    self._held.add(rows.filter(pa.array(later)), due[later])
                if waits.any():
                    self._wait(rows.filter(pa.array(waits)))
                chosen = np.flatnonzero(final)
                rows, numbers, known = rows.take(pa.array(chosen)), numbers[chosen], known[chosen]
        picked = np.flatnonzero(known)
        sent, there = state.pairs(rows, picked, numbers[picked])
        if sent.num_rows:
            out.append(sent)
        if self._kind == "left":
            alone = np.ones(rows.num_rows, np.bool_)
            alone[picked[there]] = False
            if alone.any():
                out.append(state.shape.alone(0, rows.filter(pa.array(alone))))

    def _final(self, ticks: Int64Array, known: Bools, found: Int64Array) -> tuple[Bools, Int64Array]:
        """Which rows no later right row can better, and for the others the tick to look again at."""
        state = self._state
        now = state.tick
        # A right row still to come has a tick of `now` or later: what is known must not be farther than that.
        reach = state.reach(ticks, known, found)
        return reach < now, reach

    def _wait(self, rows: pa.RecordBatch) -> None:
        """Keep rows until a right row with their key arrives."""
        state = self._state
        slots = state.index.upsert([rows.column(c) for c in state.left_keys], rows.num_rows).slots
        entries = self._by_slot.insert(slots)
        if self._by_slot.high > len(self._numbers):
            grown = np.empty(2 * self._by_slot.high, np.int64)
            grown[: len(self._numbers)] = self._numbers
            self._numbers = grown
        self._numbers[entries] = self._waiting.append(rows)

    def _wake(self, slots: Slots) -> None:
        """Look again, with the next watermark, at rows that wait for these keys."""
        if not len(self._waiting):
            return
        _, entries = self._by_slot.probe(slots)
        if not len(entries):
            return
        numbers = np.sort(self._numbers[entries])
        rows = self._waiting.gather(numbers)
        self._by_slot.remove(entries)
        self._waiting.remove(numbers)
        self._state.free(slots)
        self._by_slot.fit(self._state.index.high)
        self._held.add(rows, self._state.ticks.of_left(rows.column(self._state.left_time)))

    def _waiting_slots(self) -> Slots:
        return np.unique(self._by_slot.owners(self._by_slot.live()))

    def _earliest(self) -> int:
        """The least tick of a left row that is held or waits; the end of time where there is none."""
        if not self._forward:
            return END_OF_TIME if not len(self._held) else self._held.earliest
        least = END_OF_TIME
        state = self._state
        for rows in (
            *self._held.batches(),
            *([self._waiting.gather(self._waiting.live())] if len(self._waiting) else []),
        ):
            least = min(least, int(state.ticks.of_left(rows.column(state.left_time)).min()))
        return least
