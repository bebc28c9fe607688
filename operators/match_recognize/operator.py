"""MATCH_RECOGNIZE at work: rows are held, put in order, matched, and forgotten. Knows no SQL."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Batch, Int64Array
from millrace.operators.expressions.evaluate import compile_expressions
from millrace.operators.functions.row_error import RowError
from millrace.operators.joins.calendar import Calendar
from millrace.operators.match_recognize.cells import Cells, Matches
from millrace.operators.match_recognize.measures import WRONG_RESULT, Measures
from millrace.operators.match_recognize.programs import WIDE, compile_conditions, words_of
from millrace.operators.match_recognize.specs import MatchRecognize
from millrace.operators.operator import VNODE, Capture, Context, Operator, OperatorMetrics, StateDelta
from millrace.operators.over.append_only import single_rows
from millrace.operators.over.held_rows import HeldRows
from millrace.operators.over.ticks import Ticks, without_times
from millrace.operators.top.ordering import codes_of
from millrace.state.columns import DirtySlots
from millrace.state.hashing import vnodes_of
from millrace.state.key_index import KeyIndex
from millrace.state.row_store import RowStore

Slots = npt.NDArray[np.int32]
WRONG_CONDITION = "MR2022"
"""Code of rows whose condition did not compute with the rows matched before them."""
_FAR = 2**61
"""Bounds horizons, so that spans of time can be added and taken away."""


class MatchOperator(Operator):
    """Owns the rows above the watermark, those that a match may still need, and where the search of each key stands.

    The search is not captured: it is done again over the rows that are.
    """

    def __init__(self, spec: MatchRecognize, context: Context) -> None:
        self._spec = spec
        self._context = context
        self.metrics = OperatorMetrics(extra={"matches": 0, "state_rows": 0, "state_bytes": 0})
        """Counters of rows in, out, late and dead; matches, and what is remembered."""
        self._ticks = Ticks.of(spec.input.field(spec.time).type, spec.time_unit)
        self._within = None if spec.within is None else self._ticks.span(spec.within)
        types = [value.type for value in spec.values]
        self._programs = compile_conditions(spec.conditions, spec.condition_leaves, types)
        tests = [test for tests in self._programs.row_tests for test in tests]
        self._read = list(dict.fromkeys([*self._programs.columns, *tests]))
        self._values = compile_expressions([spec.values[v] for v in self._read], spec.input, context.now)
        self._measures = Measures(spec)
        self._cells = Cells(spec, self._programs, self._measures.targets, members=self._measures.members)
        if self._within is not None:
            self._cells.bound(self._within)
        self._store = RowStore(self._measures.payload)
        self._index = KeyIndex([spec.input.field(key).type for key in spec.keys])
        self._dirty = DirtySlots(self._index)
        self._keyed = bool(spec.rows_back) or spec.numbered
        self._held = HeldRows(spec.input, spec.keys, context.vnodes)
        self._calendar = Calendar()
        self._noted: Int64Array = np.empty(0, np.int64)
        self._watermark = START_OF_TIME
        self._again: Slots = np.empty(0, np.int32)
        self._mark: int | None = None
        self._gone: list[tuple[Int64Array, npt.NDArray[np.uint16]]] = []
        self._faulty: list[Int64Array] = []

    def process(self, port: int, batch: Batch) -> list[Batch]:
        batch = single_rows(batch)
        self.metrics.rows_in += batch.num_rows
        time = self._spec.time
        known = without_times(batch, time, self._context)
        self.metrics.dead_rows += batch.num_rows - (0 if known is None else known.num_rows)
        if known is None:
            return []
        ticks = self._ticks.read(known.data.column(time))
        floor: int | Int64Array = self._ticks.moment(self._watermark)
        if known.row_watermarks is not None:
            floor = np.maximum(floor, self._ticks.moments(known.row_watermarks))
        late = ticks < floor
        if late.any():
            self.metrics.late_rows += int(late.sum())
            self._context.late(known.take(np.flatnonzero(late)))
            known, ticks = known.take(np.flatnonzero(~late)), ticks[~late]
        self._held.add(known.data, ticks)
        return []

    def on_watermark(self, watermark: int) -> list[Batch]:
        self._watermark = watermark
        final = watermark == END_OF_TIME
        horizon = max(-_FAR, min(_FAR, self._ticks.moment(watermark)))
        touched = [self._again]
        self._again = np.empty(0, np.int32)
        popped = self._held.pop(self._ticks.moment(watermark))
        if popped is not None:
            touched.append(self._take(*popped))
        if final:
            touched = [self._index.live()]
        elif self._within is not None:
            touched.append(self._calendar.pop(horizon - self._within + 1))
        slots = np.unique(np.concatenate(touched))
        out = self._search(slots, horizon, final=final) if len(slots) else []
        self.metrics.extra["state_rows"] = len(self._held) + len(self._store)
        self.metrics.extra["state_bytes"] = self._store.nbytes + self._cells.nbytes + self._index.nbytes
        return out

    def output_watermark(self, watermark: int) -> int:
        """A match that is open now has its times from its first row on."""
        if watermark == END_OF_TIME or self._spec.event_time is None:
            return watermark
        _, ticks = self._cells.starts(self._index.live())
        return watermark if not len(ticks) else min(watermark, self._ticks.us(int(ticks.min())))

    def _take(self, data: pa.RecordBatch, ticks: Int64Array) -> Slots:
        """Rows in order of time become cells; the keys they belong to."""
        spec = self._spec
        data, ticks, values = self._computed(data, ticks)
        if not data.num_rows:
            return np.empty(0, np.int32)
        found = self._index.upsert([data.column(key) for key in spec.keys], data.num_rows)
        self._cells.grow(self._index.high)
        if self._keyed:
            self._dirty.create(found.created)
        slots = found.slots
        if spec.order:
            codes: list[npt.NDArray[np.integer]] = list(codes_of(data.columns, spec.order))
            order = np.lexsort([*reversed(codes), ticks, slots])
        else:
            order = np.argsort(slots, kind="stable")
        at = pa.array(order)
        kept = pa.RecordBatch.from_arrays(
            [data.column(column).take(at) for column in self._measures.columns], schema=self._measures.payload
        )
        words, valid = self._words(values, data.num_rows)
        truth = self._truth(values, data.num_rows)
        slots = slots[order]
        rows = self._store.append(kept)
        self._cells.append(slots, rows, ticks[order], truth[order], valid[order], words[order])
        return slots

    def _computed(
        self, data: pa.RecordBatch, ticks: Int64Array
    ) -> tuple[pa.RecordBatch, Int64Array, dict[int, pa.Array]]:
        """Rows with the values of theirs that conditions read; those that have none go to the dead letters."""
        while data.num_rows:
            try:
                return data, ticks, dict(zip(self._read, self._values(data), strict=True))
            except RowError as error:
                self._dead(data.filter(pa.array(error.rows)), error.code, error.reason)
                data, ticks = data.filter(pa.array(~error.rows)), ticks[~error.rows]
        return data, ticks, {}

    def _words(self, values: Mapping[int, pa.Array], count: int) -> tuple[Int64Array, npt.NDArray[np.uint64]]:
        programs = self._programs
        words = np.zeros((count, self._cells.width), np.int64)
        valid = np.zeros(count, np.uint64)
        at = 0
        for value, kind in zip(programs.columns, programs.kinds, strict=True):
            some, there = words_of(values[value], kind)
            width = 2 if kind == WIDE else 1
            words[:, at : at + width] = some
            bit = np.uint64(1 << at)
            valid |= bit if there is None else np.where(there, bit, np.uint64(0))
            at += width
        return words, valid

    def _truth(self, values: Mapping[int, pa.Array], count: int) -> npt.NDArray[np.uint64]:
        """Bit v: all that the condition of variable v asks of the row alone is true."""
        truth = np.zeros(count, np.uint64)
        for variable, tests in enumerate(self._programs.row_tests):
            if tests:
                holds = np.ones(count, np.bool_)
                for test in tests:
                    holds &= np.asarray(values[test].fill_null(False))
                truth |= np.where(holds, np.uint64(1 << variable), np.uint64(0))
        return truth

    def _search(self, slots: Slots, horizon: int, *, final: bool) -> list[Batch]:
        found, faults = self._cells.search(slots, horizon, final=final)
        if len(faults):
            reason = "the condition of a pattern variable is out of its type's range, or divides by zero"
            self._dead(self._store.gather(faults), WRONG_CONDITION, reason)
            self._faulty.append(faults)
        self.metrics.extra["matches"] += len(found.slots)
        out = self._told(found)
        self._forget(slots)
        return out

    def _told(self, found: Matches) -> list[Batch]:
        """The output rows of matches."""
        chosen = np.arange(len(found.match))
        while len(chosen):
            try:
                rows, wrong = self._measures.rows(found, chosen, self._store, self._index.keys)
                return self._sent(rows, wrong)
            except RowError as error:
                self._dead(self._store.gather(found.rows[chosen[error.rows]]), error.code, error.reason)
                chosen = chosen[~error.rows]
        return []

    def _sent(self, rows: pa.RecordBatch, wrong: npt.NDArray[np.bool_] | None) -> list[Batch]:
        """Output rows, but for those with a wrong aggregate."""
        if wrong is not None:
            self._dead(
                rows.filter(pa.array(wrong)),
                WRONG_RESULT,
                "an aggregate of this match is out of its type's range",
            )
            rows = rows.filter(pa.array(~wrong))
        self.metrics.rows_out += rows.num_rows
        return [Batch(rows)] if rows.num_rows else []

    def _forget(self, slots: Slots) -> None:
        """Let go of the rows that no match needs any longer, and of the keys that have none."""
        cells = self._cells
        gone, owners = cells.gone, cells.gone_slots.astype(np.int32)
        if len(gone):
            if self._mark is not None:
                told = gone < self._mark
                self._gone.append((gone[told], self._vnodes(owners[told])))
            self._store.remove(gone)
        if self._within is not None:
            self._note(slots)
        if self._keyed:
            self._dirty.mark(slots)
        if not self._spec.numbered:
            empty = cells.empty(slots)
            if len(empty):
                cells.forget(empty)
                if self._within is not None:
                    self._noted[empty] = START_OF_TIME
                if self._keyed:
                    self._dirty.remove(empty)
                self._index.remove(empty)
        cells.shrink()

    def _note(self, slots: Slots) -> None:
        """Remember when the open matches of these keys run out of time."""
        if len(self._noted) < len(self._cells.keys):
            wider = np.full(len(self._cells.keys), START_OF_TIME, np.int64)
            wider[: len(self._noted)] = self._noted
            self._noted = wider
        open_, ticks = self._cells.starts(slots)
        fresh = self._noted[open_] != ticks
        self._noted[open_] = ticks
        self._calendar.add(ticks[fresh], open_[fresh])

    def _dead(self, rows: pa.RecordBatch, code: str, reason: str) -> None:
        self.metrics.dead_rows += rows.num_rows
        self._context.dead_letter(Batch(rows), code, reason)

    def _vnodes(self, slots: Slots) -> npt.NDArray[np.uint16]:
        return vnodes_of(self._index.hashes(slots), self._context.vnodes)

    def capture(self, *, changes: bool) -> Capture:
        complete = not (changes and self._mark is not None)
        tables = {"held": self._held.capture(changes=not complete), "rows": self._rows_captured(complete)}
        if self._keyed:
            tables["keys"] = self._keys_captured(complete)
        self._mark = self._store.next_row
        self._gone, self._faulty = [], []
        return tables

    def _rows_captured(self, complete: bool) -> StateDelta:
        """Table of k0 … (the key), c0 … (the row), w0 … (its words), what was tested of it, `_row` and the vnode."""
        rows = self._store.live() if complete else self._store.rows_since(self._mark or 0)
        cells = self._cells
        if not complete and self._faulty:
            faulty = np.concatenate(self._faulty)
            rows = np.union1d(rows, np.intersect1d(faulty, self._store.live()))
        at = cells.rows_at(rows)
        slots = cells.slots_of(at)
        columns = {f"k{i}": key for i, key in enumerate(self._index.keys(slots))}
        columns |= dict(zip(self._measures.payload.names, self._store.gather(rows).columns, strict=True))
        columns |= {f"w{i}": pa.array(cells.rows.words[at, i]) for i in range(cells.width)}
        columns["_tick"] = pa.array(cells.rows.tick[at])
        columns["_truth"] = pa.array(cells.rows.truth[at])
        columns["_valid"] = pa.array(cells.rows.valid[at])
        columns["_reported"] = pa.array(cells.rows.reported[at])
        columns["_row"] = pa.array(rows)
        columns[VNODE] = pa.array(self._vnodes(slots))
        deleted = None
        if not complete:
            gone = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in self._gone)])
            vnodes = np.concatenate([np.empty(0, np.uint16), *(vnodes for _, vnodes in self._gone)])
            deleted = pa.record_batch({"_row": pa.array(gone), VNODE: pa.array(vnodes)})
        return StateDelta(("_row",), pa.record_batch(columns), deleted, complete)

    def _keys_captured(self, complete: bool) -> StateDelta:
        """Table of k0 … (the key), the row its search starts at (-1: the next one to come), and matches so far."""
        taken = self._dirty.take()
        slots = self._index.live() if complete else taken.slots
        names = tuple(f"k{i}" for i in range(len(self._spec.keys)))
        columns = dict(zip(names, self._index.keys(slots), strict=True))
        columns["_start"] = pa.array(self._cells.start_rows(slots))
        columns["_number"] = pa.array(self._cells.numbers(slots))
        columns[VNODE] = pa.array(self._vnodes(slots))
        deleted = None
        if not complete:
            vnodes = pa.array(vnodes_of(taken.removed_hashes, self._context.vnodes))
            deleted = pa.RecordBatch.from_arrays([*taken.removed, vnodes], names=[*names, VNODE])
        return StateDelta(names, pa.record_batch(columns), deleted, complete)

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        self._held.restore(tables["held"])
        names = [f"k{i}" for i in range(len(self._spec.keys))]
        starts = np.empty(0, np.int64)
        slots = np.empty(0, np.int32)
        if self._keyed:
            known = tables["keys"]
            slots = self._index.upsert([known.column(n) for n in names], known.num_rows).slots
            starts = known.column("_start").to_numpy()
            self._cells.grow(self._index.high)
            self._cells.count(slots, known.column("_number").to_numpy())
        table = tables["rows"]
        if table.num_rows:
            self._rows_restored(table, names, slots, starts)

    def _rows_restored(
        self, table: pa.RecordBatch, names: list[str], slots: Slots, starts: Int64Array
    ) -> None:
        """`starts` are the rows that the searches of `slots` start at, by their former numbers."""
        owners = self._index.upsert([table.column(n) for n in names], table.num_rows).slots
        order = np.lexsort((table.column("_row").to_numpy(), owners))
        table, owners = table.take(pa.array(order)), owners[order]
        cells = self._cells
        cells.grow(self._index.high)
        payload = [table.column(name) for name in self._measures.payload.names]
        rows = self._store.append(pa.RecordBatch.from_arrays(payload, schema=self._measures.payload))
        words = np.stack([table.column(f"w{i}").to_numpy() for i in range(cells.width)], axis=1)
        tick, truth, valid, old = (
            np.array(table.column(name).to_numpy()) for name in ("_tick", "_truth", "_valid", "_row")
        )
        cells.append(owners, rows, tick, truth, valid, words)
        cells.rows.reported[cells.rows_at(rows)] = table.column("_reported").to_numpy()
        if len(slots):
            start = np.zeros(self._index.high, np.int64)
            start[slots] = np.where(starts < 0, END_OF_TIME, starts)
            passed = np.bincount(owners[old < start[owners]], minlength=self._index.high)
            cells.restart(slots, passed[slots])
        self._again = np.unique(owners)
