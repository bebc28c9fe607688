"""OVER windows and row buffers at work: rows are put in order, released, and given their calls. Knows no
SQL."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.aggregates.accumulators import Outcome
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.aggregates.columns import Bools, is_word
from millrace.operators.aggregates.specs import PROCESSING_TIME
from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Batch, Int64Array
from millrace.operators.operator import VNODE, Capture, Context, Operator, OperatorMetrics, StateDelta
from millrace.operators.over import sliding_kernels as kernels
from millrace.operators.over.append_only import single_rows
from millrace.operators.over.engines import (
    Engine,
    FirstRows,
    LastOfPeers,
    LookingBack,
    Numbering,
    Released,
    Running,
    Slots,
    taken,
    taller,
)
from millrace.operators.over.frames import WINDOW_FUNCTIONS, BufferEmission, Frame, FrameUnit
from millrace.operators.over.held_rows import HeldRows
from millrace.operators.over.row_log import Answered, RowLog
from millrace.operators.over.segments import SegmentCalls, Segments
from millrace.operators.over.sliding import Sliding, slides
from millrace.operators.over.specs import OverAggregate, RowBufferAggregate
from millrace.operators.over.ticks import Ticks, without_times
from millrace.state.columns import DirtySlots
from millrace.state.hashing import vnodes_of
from millrace.state.key_index import KeyIndex

WRONG_RESULT = "MR2020"
_SWEEP_US = 1_000_000
_RING_MAX = 64
"""Rows that a ring of values reaches back: every slot has room for as many."""


class OverOperator(Operator):
    """Owns what is remembered of each partition of rows (a slot of the index).

    Rows are *released* in the order in which windows see them: at once, or when the watermark is above them,
    or (whole partitions) when input has ended. Calls up to the current row are answered by engines at
    release; those that need rows around them by the log, which may keep a row until those behind it are
    there.
    """

    def __init__(self, spec: OverAggregate | RowBufferAggregate, context: Context) -> None:
        self._spec = spec
        self._schema = spec.output_schema
        self._context = context
        self.metrics = OperatorMetrics()
        """Counters of rows in, out, late and dead."""
        self._order = spec.order if isinstance(spec, OverAggregate) else None
        self._whole = isinstance(spec, OverAggregate) and spec.needs_whole_partition
        self._buffer = spec if isinstance(spec, RowBufferAggregate) else None
        clock = spec.order if isinstance(spec, OverAggregate) else spec.time
        kind = PROCESSING_TIME if clock is None else spec.input.field(clock).type
        self._clock = clock
        self._ticks = Ticks.of(kind, spec.time_unit)
        self._frame: Frame = spec.frame
        self._index = KeyIndex([spec.input.field(key).type for key in spec.keys])
        self._dirty = DirtySlots(self._index)
        self._capacity = 0
        self._watermark = START_OF_TIME
        self._held: HeldRows | None = None
        if self._order is not None or self._whole:
            self._held = HeldRows(spec.input, spec.keys, context.vnodes)
        self._engines: list[Engine] = []
        self._log: RowLog | None = None
        self._log_places: list[int] = []
        self._early: list[int] = []
        self._captured = False
        self._expiry: int | None = None
        if not self._whole:
            self._assign_calls()
        self._last: Int64Array = np.zeros(0, np.int64)
        self._seen: Int64Array = np.zeros(0, np.int64)
        self._scratch: Int64Array = np.zeros(0, np.int64)
        self._swept = START_OF_TIME

    def _assign_calls(self) -> None:
        """Give every call to the engine that answers it, or to the log."""
        calls, frame = self._spec.calls, self._frame
        unbounded = frame.start is None and frame.end == 0
        running: list[int] = []
        numbering: list[int] = []
        last: list[int] = []
        shared: dict[object, list[int]] = {}
        for place, call in enumerate(calls):
            name = call.function
            if name in ("row_number", "rank", "dense_rank"):
                numbering.append(place)
            elif name == "last_value" and frame.end == 0 and not self._buffer:
                last.append(place)
            elif (width := self._looks_back(call)) > 0:
                kind = self._spec.input.field(call.arguments[0]).type
                self._engines.append(LookingBack(place, call, kind, width))
            elif name in ("first_value", "nth_value") and unbounded:
                self._engines.append(FirstRows(place, call))
            elif name not in WINDOW_FUNCTIONS and unbounded:
                running.append(place)
            elif slides(call, self._spec.input, frame):
                sums = call.function in ("sum", "avg")
                shared.setdefault((("sum" if sums else name), call.arguments, call.filter), []).append(place)
            else:
                self._log_places.append(place)
        per_us = self._ticks.per_us
        for places in shared.values():
            some = [calls[place] for place in places]
            self._engines.append(Sliding(places, some, self._spec.input, frame, per_us))
        if running:
            self._engines.append(Running(running, [calls[place] for place in running], self._spec.input))
        if numbering:
            self._engines.append(Numbering(numbering, [calls[place] for place in numbering]))
        if last:
            self._engines.append(LastOfPeers(last, [calls[place] for place in last]))
        if self._log_places:
            self._early = [place for engine in self._engines for place in engine.places]
            extra = [pa.field("", calls[place].type) for place in self._early] + [pa.field("", pa.bool_())]
            some = [calls[place] for place in self._log_places]
            only = self._buffer is not None
            self._log = RowLog(some, self._spec.input, frame, per_us, extra, self._vnodes, only_frame=only)
        self._expiry = self._expires_after()

    def _expires_after(self) -> int | None:
        """The ticks after its last row when a partition's state is worth nothing; None: never."""
        if self._buffer is not None:
            after = self._buffer.expire_after
            return None if after is None else self._ticks.span(after)
        reach = None if self._log is None else self._log.reach
        slides_only = all(isinstance(engine, Sliding) for engine in self._engines)
        if self._order is None or self._frame.unit is FrameUnit.ROWS or not slides_only:
            return None
        if reach is not None and (reach.rows_back or reach.ahead):
            return None
        return -(self._frame.start or 0) * self._ticks.per_us

    def _looks_back(self, call: AggregateCall) -> int:
        """How many rows back a ring of values has to reach to answer the call; 0: a ring does not answer
        it."""
        frame, reach = self._frame, 0
        if call.function == "lag":
            offset = call.option("offset", 1)
            assert isinstance(offset, int)
            reach = offset if self._buffer is None or offset < self._buffer.rows else 0
        elif call.function == "first_value" and frame.unit is FrameUnit.ROWS and frame.end == 0:
            reach = -(frame.start or 0)
        fits = (
            reach <= _RING_MAX and is_word(self._spec.input.field(call.arguments[0]).type) if reach else False
        )
        return reach if fits else 0

    def process(self, port: int, batch: Batch) -> list[Batch]:
        batch = single_rows(batch)
        self.metrics.rows_in += batch.num_rows
        if self._held is not None:
            self._hold(self._held, batch)
            return []
        ticks = marks = None
        if self._clock is not None and self._expiry is not None:
            known = self._timed(batch, self._clock)
            if known is None:
                return []
            batch = known
            ticks = self._ticks.read(batch.data.column(self._clock))
            if batch.row_watermarks is not None:
                marks = self._ticks.moments(batch.row_watermarks)
        return self._release(batch.data, ticks, marks)

    def on_watermark(self, watermark: int) -> list[Batch]:
        self._watermark = watermark
        out: list[Batch] = []
        final = watermark == END_OF_TIME
        horizon = self._ticks.moment(watermark)
        if self._whole:
            return self._release_whole() if final else []
        if self._held is not None:
            popped = self._held.pop(horizon)
            if popped is not None:
                out = self._release(*popped)
        if self._log is not None and self._log.reach.ahead and (final or self._log.reach.ticks_ahead):
            waiting = self._log.waiting(horizon)
            if len(waiting):
                self._dirty.mark(waiting)
                timed = self._order is not None
                out += self._answers(self._log.answer(waiting, horizon, timed=timed, final=final))
        self._sweep(horizon)
        return out

    def output_watermark(self, watermark: int) -> int:
        if watermark == END_OF_TIME:
            return watermark
        waiting: int | None = None
        if self._whole and self._held is not None and len(self._held):
            waiting = self._held.earliest
        elif self._log is not None and self._log.reach.ahead:
            waiting = self._log.earliest_waiting
        return watermark if waiting is None else min(watermark, self._ticks.us(waiting))

    def _hold(self, held: HeldRows, batch: Batch) -> None:
        if self._order is None:
            # Order of arrival: what orders rows is the watermark they came behind.
            held.add(batch.data, np.full(batch.num_rows, self._ticks.moment(self._watermark)))
            return
        known = self._timed(batch, self._order)
        if known is None:
            return
        batch = known
        ticks = self._ticks.read(batch.data.column(self._order))
        floor: int | Int64Array = self._ticks.moment(self._watermark)
        if batch.row_watermarks is not None:
            floor = np.maximum(floor, self._ticks.moments(batch.row_watermarks))
        late = ticks < floor
        if late.any():
            self.metrics.late_rows += int(late.sum())
            self._context.late(batch.take(np.flatnonzero(late)))
            batch, ticks = batch.take(np.flatnonzero(~late)), ticks[~late]
        held.add(batch.data, ticks)

    def _release(
        self, data: pa.RecordBatch, ticks: Int64Array | None, marks: Int64Array | None = None
    ) -> list[Batch]:
        """Rows in order go through the windows; `ticks` where they are known, `marks` the watermarks before
        them."""
        found = self._index.upsert([data.column(key) for key in self._spec.keys], data.num_rows)
        slots = found.slots
        self._grow(self._index.high)
        self._dirty.create(found.created)
        self._dirty.mark(slots)
        rows = Released(data, slots, ticks, None, None)
        if self._buffer is not None:
            rows.ticks = None
            if ticks is not None:
                rows.resets = self._resets(slots, found.created, ticks, marks)
        elif ticks is not None:
            self._last[slots] = ticks
            if self._frame.unit is FrameUnit.RANGE:
                rows.peers = np.empty(len(slots), np.int64)
                kernels.last_peers(slots, ticks, self._scratch, rows.peers)
        outcomes: dict[int, Outcome] = {}
        for engine in self._engines:
            outcomes |= zip(engine.places, engine.take(rows), strict=True)
        if self._log is not None:
            if self._log.reach.ahead:
                return self._through_log(self._log, rows, outcomes)
            answered = self._log.take(rows, [], END_OF_TIME, timed=rows.ticks is not None)
            outcomes |= zip(self._log_places, answered.outcomes, strict=True)
        filled = self._filled(slots, rows.resets)
        if filled is not None:
            data = data.take(pa.array(filled))
            outcomes = {place: taken(outcome, filled) for place, outcome in outcomes.items()}
        return self._output(data, outcomes)

    def _through_log(self, log: RowLog, rows: Released, outcomes: dict[int, Outcome]) -> list[Batch]:
        """Rows wait in the log with the answers they have; those that have all come out."""
        early = [outcomes[place].values for place in self._early]
        wrong = _wrong(outcomes, rows.data.num_rows)
        early.append(pa.array(np.zeros(rows.data.num_rows, np.bool_) if wrong is None else wrong))
        timed = rows.ticks is not None
        horizon = self._ticks.moment(self._watermark)
        if not timed:
            rows.ticks = np.full(len(rows.slots), horizon)
        return self._answers(log.take(rows, early, horizon, timed=timed))

    def _answers(self, answered: Answered) -> list[Batch]:
        """Rows out of the log with all their calls."""
        if not answered.data.num_rows:
            return []
        columns = answered.data.columns
        width = len(self._spec.input)
        data = pa.RecordBatch.from_arrays(columns[:width], schema=self._spec.input)
        outcomes = {place: Outcome(columns[width + i]) for i, place in enumerate(self._early)}
        outcomes |= zip(self._log_places, answered.outcomes, strict=True)
        wrong = np.asarray(columns[width + len(self._early)])
        return self._output(data, outcomes, wrong if wrong.any() else None)

    def _release_whole(self) -> list[Batch]:
        """All rows of all partitions, once input has ended."""
        assert self._held is not None
        popped = self._held.pop(END_OF_TIME)
        if popped is None:
            return []
        data, ticks = popped
        slots = self._index.upsert([data.column(key) for key in self._spec.keys], data.num_rows).slots
        order = np.argsort(slots, kind="stable")
        data = data.take(pa.array(order))
        lengths = np.bincount(slots)
        segments = Segments.of(data, lengths, None if self._order is None else ticks[order])
        calls = SegmentCalls(self._spec.calls, self._frame, self._ticks.per_us)
        outcomes = calls.answer(segments, np.arange(data.num_rows))
        return self._output(data, dict(enumerate(outcomes)))

    def _output(
        self, data: pa.RecordBatch, outcomes: Mapping[int, Outcome], wrong: Bools | None = None
    ) -> list[Batch]:
        """Input columns and calls as one batch; rows whose call has no value go to the dead letters."""
        calls = [outcomes[place].values for place in range(len(self._spec.calls))]
        rows = pa.RecordBatch.from_arrays([*data.columns, *calls], schema=self._schema)
        found = _wrong(outcomes, data.num_rows)
        if wrong is not None or found is not None:
            wrong = found if wrong is None else wrong if found is None else wrong | found
            bad = Batch(data.filter(pa.array(wrong)))
            self.metrics.dead_rows += bad.num_rows
            self._context.dead_letter(
                bad, WRONG_RESULT, "an aggregate of this row is out of its type's range"
            )
            rows = rows.filter(pa.array(~wrong))  # type: ignore[operator]
        self.metrics.rows_out += rows.num_rows
        return [Batch(rows)] if rows.num_rows else []

    def _timed(self, batch: Batch, time: int) -> Batch | None:
        """The rows that have a time; the others are dead letters."""
        known = without_times(batch, time, self._context)
        self.metrics.dead_rows += batch.num_rows - (0 if known is None else known.num_rows)
        return known

    def _resets(
        self, slots: Slots, created: Slots, ticks: Int64Array, marks: Int64Array | None
    ) -> npt.NDArray[np.uint8]:
        """1 where a row comes so long after its key's last one that the buffer has expired."""
        assert self._expiry is not None
        self._last[created] = START_OF_TIME
        resets = np.empty(len(slots), np.uint8)
        kernels.expired(slots, ticks, marks, self._expiry, self._last, resets)
        return resets

    def _filled(self, slots: Slots, resets: npt.NDArray[np.uint8] | None) -> Int64Array | None:
        """The rows with which a buffer is full; None where every row is to be sent."""
        if self._buffer is None or self._buffer.emission is BufferEmission.EVERY_RECORD:
            return None
        numbers = np.empty(len(slots), np.int64)
        kernels.number(slots, resets, self._seen, numbers)
        return np.flatnonzero(numbers % self._buffer.rows == 0)

    def _sweep(self, horizon: int) -> None:
        """Forget the partitions whose rows no frame will see again; from time to time, since it looks at
        all."""
        reach = self._expiry
        if reach is None or horizon == END_OF_TIME or horizon < self._swept:
            return
        self._swept = horizon + max(reach, self._ticks.span(_SWEEP_US))
        slots = self._index.live()
        idle = slots[self._last[slots] < horizon - reach]
        if self._log is not None:
            self._log.trim(horizon)
            self._log.forget(idle)
        for engine in self._engines:
            engine.reset(idle)
        self._seen[idle] = 0
        self._dirty.remove(idle)
        self._index.remove(idle)

    def _grow(self, high: int) -> None:
        if high <= self._capacity:
            return
        self._capacity = max(high, 2 * self._capacity, 1024)
        for engine in self._engines:
            engine.grow(self._capacity)
        if self._log is not None:
            self._log.grow(self._capacity)
        self._last = taller(self._last, self._capacity)
        self._seen = taller(self._seen, self._capacity)
        self._scratch = np.full(self._capacity, -1, np.int64)

    def _vnodes(self, slots: Slots) -> npt.NDArray[np.uint16]:
        return vnodes_of(self._index.hashes(slots), self._context.vnodes)

    def capture(self, *, changes: bool) -> Capture:
        complete = not (changes and self._captured)
        self._captured = True
        taken = self._dirty.take()
        slots = self._index.live() if complete else taken.slots
        keys = tuple(f"k{i}" for i in range(len(self._spec.keys)))
        columns = dict(zip(keys, self._index.keys(slots), strict=True))
        for number, engine in enumerate(self._engines):
            columns |= {f"e{number} {name}": column for name, column in engine.capture(slots).items()}
        self._grow(1)
        columns["last"] = pa.array(self._last[slots])
        columns["seen"] = pa.array(self._seen[slots])
        waits = np.zeros(len(slots), np.int64) if self._log is None else self._log.waiting_of(slots)
        columns["waiting"] = pa.array(waits)
        columns[VNODE] = pa.array(self._vnodes(slots))
        deleted = None
        if not complete:
            vnodes = pa.array(vnodes_of(taken.removed_hashes, self._context.vnodes))
            deleted = pa.RecordBatch.from_arrays([*taken.removed, vnodes], names=[*keys, VNODE])
        tables = {"partitions": StateDelta(keys, pa.record_batch(columns), deleted, complete)}
        if self._held is not None:
            tables["held"] = self._held.capture(changes=not complete)
        if self._log is not None:
            tables["log"] = self._log.capture(changes=not complete, keys_of=self._index.keys)
        return tables

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        rows = tables["partitions"]
        keys = [f"k{i}" for i in range(len(self._spec.keys))]
        slots = self._index.upsert([rows.column(key) for key in keys], rows.num_rows).slots
        self._grow(max(self._index.high, 1))
        for number, engine in enumerate(self._engines):
            prefix = f"e{number} "
            columns = {
                n.removeprefix(prefix): rows.column(n) for n in rows.schema.names if n.startswith(prefix)
            }
            engine.restore(slots, columns)
        self._last[slots] = rows.column("last").to_numpy()
        self._seen[slots] = rows.column("seen").to_numpy()
        if self._held is not None:
            self._held.restore(tables["held"])
        if self._log is not None:
            waiting = np.zeros(self._capacity, np.int64)
            waiting[slots] = rows.column("waiting").to_numpy()
            table = tables["log"]
            owners = self._index.lookup([table.column(key) for key in keys], table.num_rows)
            self._log.restore(table, owners, waiting)


def _wrong(outcomes: Mapping[int, Outcome], rows: int) -> Bools | None:
    """Rows that lack a value of some call."""
    wrong = np.zeros(rows, np.bool_)
    for outcome in outcomes.values():
        if outcome.wrong is not None:
            wrong |= outcome.wrong
    return wrong if wrong.any() else None
