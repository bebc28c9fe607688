"""What a join on time keeps of one side: rows by key and time, until their time is over. Joins nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.batch import END_OF_TIME, Int64Array
from millrace.operators.joins.backlog import ROWS_MAX, Backlog
from millrace.operators.joins.calendar import Calendar
from millrace.operators.joins.timeline import Timeline
from millrace.operators.operator import VNODE, StateDelta
from millrace.state.hashing import vnodes_of
from millrace.state.key_index import KeyIndex
from millrace.state.row_store import RowStore
from millrace.state.words import Slots

ROW, TICK, MATCHED = "_row", "_tick", "_matched"
Bools = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Expired:
    """Rows whose time is over: numbers in the store, where they still are, and whether each was matched."""

    rows: Int64Array
    matched: Bools
    slots: Slots
    empty: Slots


class TimedSide:
    """Owns the rows of one side. `index` (of both sides) maps keys to the slots of the timeline.

    Table: k0 … the key, the kept columns, `_tick`, `_matched`, `_row` (which identifies a row) and the vnode.
    """

    def __init__(self, schema: pa.Schema, index: KeyIndex, vnodes: int) -> None:
        self.store = RowStore(schema)
        self.timeline = Timeline()
        self.calendar = Calendar()
        self.backlog = Backlog()
        self.eager = 0
        """For so many batches rows are put in order as they come."""
        self._index = index
        self._vnodes = vnodes
        self._mark: int | None = None
        self._gone: list[tuple[Int64Array, npt.NDArray[np.uint16]]] = []
        self._touched: list[Int64Array] = []

    def __len__(self) -> int:
        return len(self.store)

    @property
    def nbytes(self) -> int:
        """Bytes held, without the index."""
        return self.store.nbytes + self.timeline.nbytes + self.calendar.nbytes + self.backlog.nbytes

    def insert(self, rows: pa.RecordBatch, slots: Slots, ticks: Int64Array, matched: Bools | None) -> None:
        """Keep rows."""
        if not rows.num_rows:
            return
        numbers = self.store.append(rows)
        self.timeline.insert(slots, ticks, numbers, matched)
        self.calendar.add(ticks, slots)

    def postpone(
        self, rows: pa.RecordBatch, keys: list[pa.Array], ticks: Int64Array, matched: Bools | None
    ) -> None:
        """Keep rows without putting them in order."""
        if rows.num_rows:
            self.backlog.add(self.store.append(rows), keys, ticks, matched)
            while self.backlog.rows > ROWS_MAX:
                self.settle_first()

    def settle(self) -> None:
        """Put what was postponed in order."""
        while self.backlog.pieces:
            self.settle_first()

    def settle_first(self) -> None:
        """Put the oldest batch of what was postponed in order."""
        piece = self.backlog.take_first()
        slots = self._index.upsert(piece.keys, len(piece.ticks)).slots
        self.timeline.insert(slots, piece.ticks, piece.numbers, piece.matched)
        self.calendar.add(piece.ticks, slots)

    def mark(self, places: Int64Array, numbers: Int64Array) -> Bools:
        """Mark stored rows as matched; which of them were not before."""
        fresh = self.timeline.mark(places)
        if self._mark is not None and fresh.any():
            self._touched.append(numbers[fresh & (numbers < self._mark)])
        return fresh

    def expire(self, before: int, *, exact: bool) -> Expired | None:
        """Take the rows with ticks below `before` out; the caller ends with `forget`.

        Postponed rows may stay with their batch unless it is to be `exact`.
        """
        over = self.backlog.expire(before, exact=exact)
        slots = self.calendar.pop(before)
        if not len(slots) and not over:
            return None
        rows, matched, empty = self.timeline.drop_first(slots)
        if over:
            rows = np.concatenate([rows, *(piece.numbers for piece in over)])
            none = [np.zeros(len(piece.ticks), np.bool_) for piece in over]
            flags = [n if p.matched is None else p.matched for p, n in zip(over, none, strict=True)]
            matched = np.concatenate([matched, *flags])
        return Expired(rows, matched, slots, empty)

    def forget(self, expired: Expired) -> None:
        """Let expired rows go."""
        if self._mark is not None and len(expired.slots):
            # What was captured has slots: these rows come first.
            known = expired.rows[: len(expired.slots)] < self._mark
            nodes = vnodes_of(self._index.hashes(expired.slots[known]), self._vnodes)
            self._gone.append((expired.rows[: len(known)][known], nodes))
        self.store.remove(expired.rows)

    def capture(self, *, changes: bool) -> StateDelta:
        """The table, or what was added, matched and removed since the last capture."""
        self.settle()
        complete = not changes or self._mark is None
        slots, ticks, rows, matched = self.timeline.live()
        deleted = None
        if not complete:
            assert self._mark is not None
            recent = rows >= self._mark
            if self._touched:
                recent |= np.isin(rows, np.concatenate(self._touched))
            slots, ticks, rows, matched = slots[recent], ticks[recent], rows[recent], matched[recent]
            gone = np.concatenate([np.empty(0, np.int64), *(r for r, _ in self._gone)])
            nodes = np.concatenate([np.empty(0, np.uint16), *(v for _, v in self._gone)])
            deleted = pa.RecordBatch.from_arrays([pa.array(gone), pa.array(nodes)], [ROW, VNODE])
        keys = self._index.keys(slots)
        columns = [
            *keys,
            *self.store.gather(rows).columns,
            pa.array(ticks),
            pa.array(matched),
            pa.array(rows),
            pa.array(vnodes_of(self._index.hashes(slots), self._vnodes)),
        ]
        names = [*(f"k{i}" for i in range(len(keys))), *self.store.schema.names, TICK, MATCHED, ROW, VNODE]
        self._mark = self.store.next_row
        self._gone, self._touched = [], []
        return StateDelta((ROW,), pa.RecordBatch.from_arrays(columns, names), deleted, complete)

    def restore(self, table: pa.RecordBatch | None) -> None:
        """Load what `capture` gave into an empty side."""
        if table is None or not table.num_rows:
            return
        order = np.argsort(np.asarray(table.column(ROW)), kind="stable")
        ordered = table.take(pa.array(order))
        keys = [ordered.column(f"k{i}") for i in range(len(self._index.types))]
        slots = self._index.upsert(keys, ordered.num_rows).slots
        arrays = [ordered.column(name) for name in self.store.schema.names]
        rows = pa.RecordBatch.from_arrays(arrays, schema=self.store.schema)
        matched = np.asarray(ordered.column(MATCHED).to_numpy(zero_copy_only=False))
        self.insert(rows, slots, np.array(ordered.column(TICK)), matched)


def before(tick: int, span: int) -> int:
    """`tick - span`, where the end of time stays what it is."""
    return tick if tick == END_OF_TIME else tick - span
