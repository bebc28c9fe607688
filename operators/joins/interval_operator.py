"""The operator behind interval and window joins. Knows keys, times and watermarks, and no SQL."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.aggregates.progress import capture_clock, restored_clock
from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Batch, Int64Array
from millrace.operators.joins.backlog import ROWS_PER_ASKED, Asked, chunks
from millrace.operators.joins.interval import IntervalJoin, WindowJoin
from millrace.operators.joins.late import late_batch
from millrace.operators.joins.shared_ticks import SharedTicks, late_rows
from millrace.operators.joins.timed_pairs import PairCondition, PairShape
from millrace.operators.joins.timed_side import Bools, TimedSide, before
from millrace.operators.operator import Capture, Context, Operator, OperatorMetrics
from millrace.state.key_index import KeyIndex
from millrace.state.words import Slots

CHUNK_PAIRS = 131_072
EAGER_BATCHES = 32


class IntervalJoinOperator(Operator):
    """Owns both sides and the index of their keys.

    Invariant: a slot is in the index as long as a row of either side has it; a row is kept as long as one that is
    not late can match it.
    """

    inputs = 2

    def __init__(self, spec: IntervalJoin | WindowJoin, context: Context) -> None:
        self.metrics = OperatorMetrics()
        """Counters; `matches` and `expired` in extra."""
        self._context = context
        self._kind = spec.kind
        schemas = self._schemas = (spec.left, spec.right)
        self._shape = PairShape.of(schemas, spec.outputs, spec.condition, spec.output_schema)
        self._condition = None
        if spec.condition is not None:
            self._condition = PairCondition(spec.condition, schemas, self._shape, context)
        windowed = isinstance(spec, WindowJoin)
        columns = spec.ends if isinstance(spec, WindowJoin) else spec.times
        # A window is over when the watermark reaches its end, a time when the watermark passes it.
        self._ticks = SharedTicks(schemas, columns, spec.time_units, int(windowed))
        self._columns = columns
        per_us = self._per_us = self._ticks.per_us
        self._lower = self._upper = self._held_back = 0
        if isinstance(spec, IntervalJoin):
            self._lower = spec.lower * per_us + spec.open[0]
            self._upper = spec.upper * per_us - spec.open[1]
            self._held_back = spec.held_back
        self._keys = tuple(tuple(pair[port] for pair in spec.equal) for port in (0, 1))
        self._index = KeyIndex([spec.left.field(c).type for c in self._keys[0]])
        self._sides = [TimedSide(self._shape.stored[port], self._index, context.vnodes) for port in (0, 1)]
        self._watermark = START_OF_TIME
        self._tick = START_OF_TIME
        self._left_alone = [spec.kind in ("left", "full", "anti"), spec.kind in ("right", "full")]
        self._marked = [spec.kind in ("left", "full", "anti", "semi"), spec.kind in ("right", "full")]

    def process(self, port: int, batch: Batch) -> list[Batch]:
        assert batch.weights is None or bool((batch.weights == 1).all()), "a join on time takes nothing back"
        self.metrics.rows_in += batch.num_rows
        out: list[Batch] = []
        batch = self._without_nulls(port, batch, (self._columns[port],), out)
        ticks = self._ticks.read(port, batch.data)
        late = late_rows(ticks, self._tick, batch.row_watermarks, self._per_us)
        if late is not None:
            self.metrics.late_rows += int(late.sum())
            self._context.late(late_batch(port, batch.take(np.flatnonzero(late)), self._schemas))
            batch = batch.take(np.flatnonzero(~late))
        known = self._without_nulls(port, batch, self._keys[port], out)
        if late is not None or known is not batch:
            ticks = self._ticks.read(port, known.data)
        if known.num_rows:
            self._take(port, known.data, ticks, out)
        return self._counted(out)

    def on_watermark(self, watermark: int) -> list[Batch]:
        self._watermark = watermark
        self._tick = watermark if watermark == END_OF_TIME else watermark * self._per_us
        out: list[Batch] = []
        for port, span in ((0, self._upper), (1, -self._lower)):
            side, other = self._sides[port], self._sides[1 - port]
            expired = side.expire(before(self._tick, span), exact=self._left_alone[port])
            if expired is None:
                continue
            self._count("expired", len(expired.rows))
            if self._left_alone[port]:
                left = expired.rows[~expired.matched]
                for first in range(0, len(left), CHUNK_PAIRS):
                    part = left[first : first + CHUNK_PAIRS]
                    out.append(self._shape.alone(port, side.store.gather(part)))
            side.forget(expired)
            self._free(expired.empty[other.timeline.sizes(expired.empty) == 0])
        return self._counted(out)

    def output_watermark(self, watermark: int) -> int:
        return watermark if watermark == END_OF_TIME else watermark - self._held_back

    def capture(self, *, changes: bool) -> Capture:
        return {
            "left": self._sides[0].capture(changes=changes),
            "right": self._sides[1].capture(changes=changes),
            "clock": capture_clock(self._watermark, self._context.vnodes),
        }

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        self._watermark = restored_clock(tables.get("clock"))
        ends = (START_OF_TIME, END_OF_TIME)
        self._tick = self._watermark if self._watermark in ends else self._watermark * self._per_us
        for side, name in zip(self._sides, ("left", "right"), strict=True):
            side.restore(tables.get(name))

    @property
    def state_rows(self) -> int:
        """Rows kept of both sides."""
        return sum(map(len, self._sides))

    @property
    def state_bytes(self) -> int:
        """Bytes held by both sides and the index of keys."""
        return self._index.nbytes + sum(side.nbytes for side in self._sides)

    def _take(self, port: int, data: pa.RecordBatch, ticks: Int64Array, out: list[Batch]) -> None:
        """Join rows that are in time and have keys, and keep them."""
        keys = [data.column(c) for c in self._keys[port]]
        rows = self._shape.keep(port, data)
        side, other = self._sides[port], self._sides[1 - port]
        waiting = other.backlog
        if waiting.rows and len(ticks) * ROWS_PER_ASKED > waiting.rows:
            other.settle()
            other.eager = EAGER_BATCHES
        elif waiting.worn():  # one batch at a time: nobody waits long
            other.settle_first()
            other.eager = EAGER_BATCHES
        matched = np.zeros(len(ticks), np.bool_) if self._marked[port] else None
        slots: Slots | None = None
        if side.eager:
            side.eager -= 1
            slots = self._index.upsert(keys, data.num_rows).slots
        if len(other.timeline):
            found = self._index.lookup(keys, data.num_rows) if slots is None else slots
            self._probe(port, rows, found, ticks, matched, out)
        if waiting.rows:
            self._search(port, rows, keys, ticks, matched, out)
        if port == 0 and self._kind == "semi":
            assert matched is not None
            hit = np.flatnonzero(matched)
            if len(hit):
                out.append(self._shape.alone(0, rows.take(pa.array(hit))))
        self._keep(port, rows, keys, slots, ticks, matched, out)

    def _keep(
        self,
        port: int,
        rows: pa.RecordBatch,
        keys: list[pa.Array],
        slots: Slots | None,
        ticks: Int64Array,
        matched: Bools | None,
        out: list[Batch],
    ) -> None:
        """Keep those of the rows that may still be asked for."""
        side = self._sides[port]
        kept = self._kept(port, ticks, matched)
        if kept is not None:
            if self._left_alone[port]:
                alone = ~kept if matched is None else ~kept & ~matched
                if alone.any():
                    out.append(self._shape.alone(port, rows.take(pa.array(np.flatnonzero(alone)))))
            chosen = np.flatnonzero(kept)
            indices = pa.array(chosen)
            rows, ticks = rows.take(indices), ticks[chosen]
            matched = None if matched is None else matched[chosen]
            if slots is None:
                keys = [key.take(indices) for key in keys]
            else:
                dropped = np.unique(slots[~kept])
                slots = np.ascontiguousarray(slots[chosen])
                dropped = np.setdiff1d(dropped, slots)
                sizes = self._sides[0].timeline.sizes(dropped) + self._sides[1].timeline.sizes(dropped)
                self._free(dropped[sizes == 0])
        if slots is None:
            side.postpone(rows, keys, ticks, matched)
        else:
            side.insert(rows, slots, ticks, matched)

    def _kept(self, port: int, ticks: Int64Array, matched: Bools | None) -> Bools | None:
        """Which rows may still be asked for; None: all."""
        span = -self._lower if port else self._upper
        kept: Bools | None = None
        if span < 0 and self._tick > START_OF_TIME:
            kept = ticks + span >= self._tick
        if matched is not None and self._kind in ("semi", "anti") and matched.any():
            kept = ~matched if kept is None else kept & ~matched
        return None if kept is None or kept.all() else kept

    def _probe(
        self,
        port: int,
        rows: pa.RecordBatch,
        slots: Slots,
        ticks: Int64Array,
        matched: Bools | None,
        out: list[Batch],
    ) -> None:
        """Find what is there of the other side: send pairs, and mark rows that are matched."""
        other = self._sides[1 - port]
        begins, counts = other.timeline.ranges(slots, ticks, *self._span(port))
        filtering = self._kind in ("semi", "anti")
        if filtering and port == 0 and self._condition is None:
            assert matched is not None
            np.greater(counts, 0, out=matched)
            return
        for first, last in chunks(counts, CHUNK_PAIRS):
            picked, places, numbers = other.timeline.expand(first, last, begins, counts)
            held = self._holding(port, rows, picked, numbers)
            if held is not None:
                picked, places, numbers = picked[held], places[held], numbers[held]
            fresh = other.mark(places, numbers) if self._marked[1 - port] else None
            self._send(port, rows, picked, numbers, matched, fresh, out)

    def _search(
        self,
        port: int,
        rows: pa.RecordBatch,
        keys: list[pa.Array],
        ticks: Int64Array,
        matched: Bools | None,
        out: list[Batch],
    ) -> None:
        """The same among rows of the other side that were postponed."""
        other = self._sides[1 - port]
        asked = Asked(keys, ticks)
        low, high = self._span(1 - port)
        for piece in other.backlog.pieces:
            if piece.high < asked.low - high or piece.low > asked.high - low:
                continue
            piece.scans += 1
            for picked, places in asked.pairs(piece, low, high, CHUNK_PAIRS):
                numbers = piece.numbers[places]
                held = self._holding(port, rows, picked, numbers)
                if held is not None:
                    picked, places, numbers = picked[held], places[held], numbers[held]
                fresh = None
                if piece.matched is not None:
                    fresh = np.zeros(len(places), np.bool_)
                    fresh[np.unique(places, return_index=True)[1]] = True
                    fresh &= ~piece.matched[places]
                    piece.matched[places] = True
                self._send(port, rows, picked, numbers, matched, fresh, out)

    def _span(self, port: int) -> tuple[int, int]:
        """From where to where matches of a row of this side lie, from its own tick on."""
        return (-self._upper, -self._lower) if port else (self._lower, self._upper)

    def _holding(
        self, port: int, rows: pa.RecordBatch, picked: Int64Array, numbers: Int64Array
    ) -> Int64Array | None:
        if self._condition is None:
            return None
        return self._condition.holding(port, rows, picked, self._sides[1 - port].store, numbers)

    def _send(
        self,
        port: int,
        rows: pa.RecordBatch,
        picked: Int64Array,
        numbers: Int64Array,
        matched: Bools | None,
        fresh: Bools | None,
        out: list[Batch],
    ) -> None:
        """Send pairs of rows picked and rows stored, of which `fresh` are matched for the first time."""
        if not len(picked):
            return
        other = self._sides[1 - port]
        self._count("matches", len(picked))
        if matched is not None:
            matched[picked] = True
        if self._kind not in ("semi", "anti"):
            out.append(self._shape.pairs(port, rows, picked, other.store, numbers))
        elif fresh is not None and self._kind == "semi" and fresh.any():
            out.append(self._shape.alone(0, other.store.gather(numbers[fresh])))

    def _without_nulls(self, port: int, batch: Batch, columns: tuple[int, ...], out: list[Batch]) -> Batch:
        """The rows that can match at all; others are sent alone at once where the kind sends such."""
        missing: Bools | None = None
        for column in columns:
            values = batch.data.column(column)
            if values.null_count:
                here = np.asarray(pc.is_null(values))
                missing = here if missing is None else missing | here
        if missing is None:
            return batch
        if self._left_alone[port]:
            alone = batch.data.take(pa.array(np.flatnonzero(missing)))
            out.append(self._shape.alone(port, self._shape.keep(port, alone)))
        return batch.take(np.flatnonzero(~missing))

    def _free(self, slots: Slots) -> None:
        if not len(slots):
            return
        self._index.remove(slots)
        for side in self._sides:
            side.timeline.fit(self._index.high)

    def _count(self, name: str, rows: int) -> None:
        extra = self.metrics.extra
        extra[name] = extra.get(name, 0) + rows

    def _counted(self, out: list[Batch]) -> list[Batch]:
        self.metrics.rows_out += sum(batch.num_rows for batch in out)
        return out
