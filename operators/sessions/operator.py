"""Session windows at work: rows into sessions, sessions out when they are over. Knows no SQL."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.aggregates.calls import EmissionKind
from millrace.operators.aggregates.families import build_set
from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Batch, Int64Array, concatenate
from millrace.operators.operator import VNODE, Capture, Context, Operator, OperatorMetrics, StateDelta
from millrace.operators.over.append_only import single_rows
from millrace.operators.over.ticks import Ticks, without_times
from millrace.operators.sessions import kernels
from millrace.operators.sessions.spec import SessionAggregate
from millrace.state.hashing import vnodes_of
from millrace.state.key_index import KeyIndex

Int32s = npt.NDArray[np.int32]

WRONG_RESULT = "MR2020"
_BEGINNING = -(2**62)
"""Stands for START_OF_TIME where a gap is still to be taken away."""
_NO_MARKS = np.empty(0, np.int64)
_SESSION = "_session"


class SessionOperator(Operator):
    """Owns the open sessions of its keys. A session is a number below the capacity of the arrays here."""

    def __init__(self, spec: SessionAggregate, context: Context) -> None:
        self._spec = spec
        self._schema = spec.output_schema
        self._context = context
        self.metrics = OperatorMetrics()
        """Counters of rows in, out, late and dead."""
        self._ticks = Ticks.of(spec.bound_type, spec.time_unit)
        self._gap = self._ticks.span(spec.gap)
        self._lateness = self._ticks.span(spec.allowed_lateness)
        self._watermark = _BEGINNING
        self._index = KeyIndex([spec.input.field(key).type for key in spec.keys])
        self._set = build_set(spec.calls, spec.input, retracting=False)
        self._sequence = 0
        self._heads: Int32s = np.full(1024, -1, np.int32)
        self._times: Int64Array = np.empty((0, 2), np.int64)
        self._links: Int32s = np.empty((0, 3), np.int32)
        self._flags: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
        self._ids: Int64Array = np.empty(0, np.int64)
        self._heap: Int64Array = np.empty(0, np.int64)
        self._free: Int32s = np.empty(0, np.int32)
        self._counts: Int64Array = np.zeros(6, np.int64)
        self._grow(1024)
        self._waiting: list[Batch] = []
        self._dirty: list[Int32s] = []
        self._next_flush = START_OF_TIME
        self._next_id = 0
        self._deleted: list[tuple[Int64Array, npt.NDArray[np.uint16]]] = []
        self._captured = False

    def process(self, port: int, batch: Batch) -> list[Batch]:
        spec = self._spec
        batch = single_rows(batch)
        self.metrics.rows_in += batch.num_rows
        if spec.time is None:
            now = max(self._context.now(), self._watermark)
            ticks = np.full(batch.num_rows, now, np.int64)
            marks = _NO_MARKS
        else:
            known = without_times(batch, spec.time, self._context)
            self.metrics.dead_rows += batch.num_rows - (0 if known is None else known.num_rows)
            if known is None:
                return []
            batch = known
            ticks = self._ticks.read(batch.data.column(spec.time))
            marks = _NO_MARKS if batch.row_watermarks is None else self._ticks.moments(batch.row_watermarks)
        found = self._index.upsert([batch.data.column(key) for key in spec.keys], batch.num_rows)
        self._room(batch.num_rows)
        out = np.empty(batch.num_rows, np.int32)
        touched, joined, before = self._scratch(batch.num_rows)
        counts = self._counts
        kernels.assign(
            found.slots,
            ticks,
            marks,
            self._watermark,
            self._gap,
            self._lateness,
            self._times,
            self._links,
            self._flags,
            self._heads,
            self._heap,
            self._free,
            counts,
            out,
            touched,
            joined,
            before,
        )
        late, touches, joins, takebacks = (int(count) for count in counts[2:6])
        # Rows already sent are read before their sessions take anything in.
        taken_back = self._rows(before[:takebacks, 0], before[:takebacks, 1:]) if takebacks else None
        if joins:
            self._join(joined[:joins], out)
        if late:
            batch, out = self._part_with_late(batch, out, found.created)
        if batch.num_rows:
            self._set.grow(int(out.max()) + 1)
            self._set.update(out, batch.data, None, self._sequence)
            self._sequence += batch.num_rows
        return self._counted(self._tell(touched[:touches], taken_back))

    def on_watermark(self, watermark: int) -> list[Batch]:
        if self._spec.time is None and watermark != END_OF_TIME:
            return []
        self._watermark = max(self._ticks.moment(watermark), _BEGINNING)
        out = self._close()
        return self._counted(out + self._flush() if watermark == END_OF_TIME else out)

    def output_watermark(self, watermark: int) -> int:
        if watermark in (START_OF_TIME, END_OF_TIME):
            return watermark
        return max(START_OF_TIME, watermark - self._spec.allowed_lateness)

    def on_time(self, now: int) -> list[Batch]:
        out: list[Batch] = []
        if self._spec.time is None and now > self._watermark:
            self._watermark = now
            out = self._close()
        emission = self._spec.emission
        if emission.kind is EmissionKind.INTERVAL and now >= self._next_flush:
            self._next_flush = now + emission.interval
            out += self._flush()
        return self._counted(out)

    def capture(self, *, changes: bool) -> Capture:
        live = self._flags & kernels.LIFE == kernels.OPEN
        complete = not (changes and self._captured)
        chosen = live if complete else live & (self._flags & kernels.UNSAVED != 0)
        sessions = np.flatnonzero(chosen).astype(np.int32)
        fresh = sessions[self._flags[sessions] & kernels.SAVED == 0]
        self._ids[fresh] = np.arange(self._next_id, self._next_id + len(fresh))
        self._next_id += len(fresh)
        flags = self._flags[sessions] & (kernels.SENT | kernels.OVER | kernels.DIRTY)
        slots = self._links[sessions, 2]
        columns = {_SESSION: pa.array(self._ids[sessions])}
        columns |= {f"k{i}": key for i, key in enumerate(self._index.keys(slots))}
        columns["first"] = pa.array(self._times[sessions, 0])
        columns["last"] = pa.array(self._times[sessions, 1])
        columns["flags"] = pa.array(flags)
        columns["sequence"] = pa.array(np.full(len(sessions), self._sequence))
        self._set.grow(int(sessions.max(initial=-1)) + 1)
        columns |= self._set.capture(sessions)
        columns[VNODE] = pa.array(self._vnodes(slots))
        ids, vnodes = [np.empty(0, np.int64)], [np.empty(0, np.uint16)]
        if not complete:
            ids += [part[0] for part in self._deleted]
            vnodes += [part[1] for part in self._deleted]
        deleted = pa.record_batch(
            {_SESSION: pa.array(np.concatenate(ids)), VNODE: pa.array(np.concatenate(vnodes))}
        )
        self._deleted = []
        self._captured = True
        self._flags[sessions] = (self._flags[sessions] & ~np.uint8(kernels.UNSAVED)) | kernels.SAVED
        rows = pa.record_batch(columns)
        return {
            "sessions": StateDelta((_SESSION,), rows, None if complete else deleted, complete),
            "waiting": self._capture_waiting(),
        }

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        self._restore_waiting(tables["waiting"])
        rows = tables["sessions"]
        count = rows.num_rows
        if not count:
            return
        found = self._index.upsert([rows.column(f"k{i}") for i in range(len(self._spec.keys))], count)
        self._room(count)
        sessions = self._free[: self._counts[1]][::-1][:count].copy()
        self._counts[1] -= count
        self._times[sessions, 0] = rows.column("first").to_numpy()
        self._times[sessions, 1] = rows.column("last").to_numpy()
        flags = rows.column("flags").to_numpy() | kernels.OPEN | kernels.UNSAVED
        self._flags[sessions] = flags
        ends = self._times[sessions, 1] + self._gap
        ends[flags & kernels.OVER != 0] += self._lateness
        for place in np.argsort(self._times[sessions, 1], kind="stable"):
            session = int(sessions[place])
            first, last = (int(tick) for tick in self._times[session])
            kernels.start(session, last, int(found.slots[place]), -1, self._times, self._links, self._heads)
            self._times[session, 0] = first
            self._counts[0] = kernels.push(self._heap, int(self._counts[0]), int(ends[place]), session)
        self._set.grow(int(sessions.max()) + 1)
        self._sequence = int(rows.column("sequence").to_numpy().max())
        self._set.restore(sessions, {name: rows.column(name) for name in rows.schema.names})
        dirty = sessions[flags & kernels.DIRTY != 0]
        if len(dirty):
            self._dirty.append(dirty)

    def _part_with_late(self, batch: Batch, out: Int32s, created: Int32s) -> tuple[Batch, Int32s]:
        """Send late rows away, with the keys that only they have; what is left."""
        is_late = out == kernels.LATE
        late = batch.take(np.flatnonzero(is_late))
        self.metrics.late_rows += late.num_rows
        self._context.late(late)
        unused = created[self._heads[created] < 0]
        self._index.remove(unused)
        kept = np.flatnonzero(~is_late)
        return batch.take(kept), out[kept]

    def _join(self, joined: Int32s, out: Int32s) -> None:
        """Move what died with its session to the session that took it over."""
        kernels.follow_joins(joined, len(joined), np.empty(len(self._flags), np.int32), out)
        self._set.grow(int(joined.max()) + 1)
        gone = np.ascontiguousarray(joined[:, 0])
        self._set.merge(np.ascontiguousarray(joined[:, 1]), self._set, gone)
        self._set.reset(gone)
        self._forget_saved(gone)

    def _tell(self, touched: Int32s, taken_back: pa.RecordBatch | None) -> list[Batch]:
        """What the emission says of a batch that touched these sessions."""
        kind = self._spec.emission.kind
        retractions = [] if taken_back is None else [_retracted(taken_back)]
        if kind is EmissionKind.INTERVAL:
            self._waiting += retractions
            self._dirty.append(touched.copy())
            return []
        self._flags[touched] &= ~np.uint8(kernels.DIRTY)
        if kind is EmissionKind.CHANGES:
            live = touched[self._flags[touched] & kernels.LIFE == kernels.OPEN]
            out = _as_one(retractions + self._send(live), self._schema)
            return out + self._close() if self._lateness else out
        if self._lateness:
            return _as_one(retractions + self._close(), self._schema)
        return retractions

    def _send(self, sessions: Int32s) -> list[Batch]:
        """The rows of these sessions, as sent from now on."""
        if not len(sessions):
            return []
        self._flags[sessions] |= kernels.SENT | kernels.UNSAVED
        rows = self._rows(sessions, self._times[sessions])
        return [Batch(rows)] if rows.num_rows else []

    def _close(self) -> list[Batch]:
        """Send and forget what is to be sent and forgotten of the sessions that the watermark ends."""
        counts = self._counts
        if not counts[0] or self._heap[0] > self._watermark:
            return []
        over, gone, empty = (np.empty(int(counts[0]), np.int32) for _ in range(3))
        kernels.due(
            self._watermark,
            self._gap,
            self._lateness,
            self._times,
            self._links,
            self._flags,
            self._heads,
            self._heap,
            self._free,
            counts,
            over,
            gone,
            empty,
        )
        over, gone, empty = over[: counts[2]], gone[: counts[3]], empty[: counts[4]]
        out: list[Batch] = []
        kind = self._spec.emission.kind
        if kind in (EmissionKind.ON_CLOSE, EmissionKind.FINAL):
            out = self._send(over)
        elif kind is EmissionKind.INTERVAL:
            self._waiting += self._send(gone[self._flags[gone] & kernels.DIRTY != 0])
        if len(gone):
            self._forget_saved(gone)
            self._set.reset(gone)
            self._flags[gone] = kernels.FREE
            free = int(counts[1])
            self._free[free : free + len(gone)] = gone
            counts[1] += len(gone)
            self._index.remove(empty)
        return out

    def _flush(self) -> list[Batch]:
        """Send what changed in the interval: what no longer holds, then what holds now."""
        if not self._waiting and not self._dirty:
            return []
        out, self._waiting = self._waiting, []
        touched = np.unique(np.concatenate([np.empty(0, np.int32), *self._dirty]))
        self._dirty = []
        flags = self._flags[touched]
        live = touched[(flags & kernels.LIFE == kernels.OPEN) & (flags & kernels.DIRTY != 0)]
        self._flags[touched] &= ~np.uint8(kernels.DIRTY)
        return _as_one(out + self._send(live), self._schema)

    def _rows(self, sessions: Int32s | Int64Array, times: Int64Array) -> pa.RecordBatch:
        """Output rows of sessions that span `times` (first, last of each)."""
        spec = self._spec
        columns = self._index.keys(self._links[sessions, 2])
        bounds = (
            self._ticks.write(times[:, 0]),
            self._ticks.write(-(-(times[:, 1] + self._gap) // self._ticks.up) * self._ticks.up),
        )
        columns += [bound for bound, wanted in zip(bounds, spec.bounds, strict=True) if wanted]
        self._set.grow(int(sessions.max(initial=-1)) + 1)
        outcomes = self._set.results(sessions)
        columns += [outcome.values for outcome in outcomes]
        rows = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        wrong = np.zeros(len(sessions), np.bool_)
        for outcome in outcomes:
            if outcome.wrong is not None:
                wrong |= outcome.wrong
        if wrong.any():
            reason = "an aggregate of this session is out of its type's range"
            bad = Batch(rows.filter(pa.array(wrong)))
            self.metrics.dead_rows += bad.num_rows
            self._context.dead_letter(bad, WRONG_RESULT, reason)
            rows = rows.filter(pa.array(~wrong))
        return rows

    def _counted(self, out: list[Batch]) -> list[Batch]:
        self.metrics.rows_out += sum(batch.num_rows for batch in out)
        return out

    def _vnodes(self, slots: Int32s) -> npt.NDArray[np.uint16]:
        return vnodes_of(self._index.hashes(slots), self._context.vnodes)

    def _forget_saved(self, sessions: Int32s) -> None:
        """Note the sessions that the last capture has and the next must not have."""
        if self._captured:
            saved = sessions[self._flags[sessions] & kernels.SAVED != 0]
            if len(saved):
                self._deleted.append((self._ids[saved], self._vnodes(self._links[saved, 2])))

    def _capture_waiting(self) -> StateDelta:
        """Rows that wait for the end of the interval; few enough to be captured whole."""
        schema = self._schema
        batches = [batch for batch in self._waiting if batch.num_rows]
        data = pa.concat_batches([b.data for b in batches]) if batches else schema.empty_table().to_batches()
        rows = data if isinstance(data, pa.RecordBatch) else pa.RecordBatch.from_pylist([], schema=schema)
        weights = [np.ones(b.num_rows, np.int64) if b.weights is None else b.weights for b in batches]
        keys = [rows.column(i) for i in range(len(self._spec.keys))]
        index = KeyIndex(self._index.types)
        slots = index.upsert(keys, rows.num_rows).slots
        columns = {f"c{i}": column for i, column in enumerate(rows.columns)}
        columns["weight"] = pa.array(np.concatenate([np.empty(0, np.int64), *weights]))
        columns["row"] = pa.array(np.arange(rows.num_rows))
        columns[VNODE] = pa.array(vnodes_of(index.hashes(slots), self._context.vnodes))
        return StateDelta(("row",), pa.record_batch(columns))

    def _restore_waiting(self, rows: pa.RecordBatch) -> None:
        if rows.num_rows:
            width = len(self._schema)
            data = pa.RecordBatch.from_arrays(rows.columns[:width], schema=self._schema)
            weights = np.array(rows.column("weight").to_numpy())
            order = np.argsort(weights, kind="stable")
            self._waiting = [Batch(data, weights).take(order)]

    def _room(self, rows: int) -> None:
        """Have a head for every key and a free session for every row."""
        if self._index.high > len(self._heads):
            heads = np.full(max(self._index.high, 2 * len(self._heads)), -1, np.int32)
            heads[: len(self._heads)] = self._heads
            self._heads = heads
        if self._counts[1] < rows:
            used = len(self._flags) - int(self._counts[1])
            self._grow(max(used + rows, len(self._flags) * 3 // 2))

    def _grow(self, capacity: int) -> None:
        old = len(self._flags)
        for name, width in (("_times", 2), ("_links", 3), ("_flags", 0), ("_ids", 0)):
            before = getattr(self, name)
            array = np.zeros((capacity, width) if width else capacity, before.dtype)
            array[:old] = before
            setattr(self, name, array)
        heap = np.empty(2 * capacity, np.int64)
        heap[: len(self._heap)] = self._heap
        self._heap = heap
        kept = self._free[: self._counts[1]]
        self._free = np.empty(capacity, np.int32)
        added = np.arange(capacity - 1, old - 1, -1, dtype=np.int32)
        # Lowest last, since the last is given out first and accumulators reach up to the highest in use.
        self._free[: len(added)] = added
        self._free[len(added) : len(added) + len(kept)] = kept
        self._counts[1] += len(added)

    def _scratch(self, rows: int) -> tuple[Int32s, Int32s, Int64Array]:
        """Room for what `assign` tells: a session is touched, dies and is taken back once at most."""
        most = min(len(self._flags), int(self._counts[0]) + rows)
        return np.empty(most, np.int32), np.empty((most, 2), np.int32), np.empty((most, 3), np.int64)


def _retracted(rows: pa.RecordBatch) -> Batch:
    return Batch(rows, np.full(rows.num_rows, -1, np.int64))


def _as_one(batches: list[Batch], schema: pa.Schema) -> list[Batch]:
    """One batch of the rows of several, in order."""
    batches = [batch for batch in batches if batch.num_rows]
    return [concatenate(batches, schema)] if batches else []
