"""A materialised table: the folded changelog of a stream, kept to be queried. Knows no SQL."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.errors import Bug
from millrace.operators.batch import Batch, Int64Array, concatenate
from millrace.operators.consolidate import consolidate
from millrace.operators.operator import VNODE, Capture, Context, Operator, StateDelta
from millrace.operators.sink import Changelog
from millrace.operators.spec import OperatorSpec
from millrace.state.columns import Changes, DirtySlots, SlotColumn
from millrace.state.hashing import hash_columns, vnodes_of
from millrace.state.key_index import KeyIndex
from millrace.state.row_store import RowStore
from millrace.state.words import Slots, Words

ROW = "_row"
COUNT = "_count"
BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Materialize(OperatorSpec):
    """Keeps the rows of its input as a table and hands the input on.

    `key` names the columns that identify a row (UPSERT, and RETRACT with a key); without, the table is a
    multiset of rows. An UPSERT input goes on as RETRACT: each row that is replaced is taken back first.
    """

    title: ClassVar[str] = "Materialize"

    input: pa.Schema
    key: tuple[int, ...] | None
    changelog: Changelog

    def __post_init__(self) -> None:
        assert self.changelog is not Changelog.UPSERT or self.key is not None

    @property
    def output_schema(self) -> pa.Schema:
        return self.input

    def build(self, context: Context) -> Operator:
        if self.changelog is Changelog.APPEND:
            return AppendedTable(self.input, context.vnodes)
        if self.key is not None:
            return KeyedTable(self.input, self.key, context.vnodes, upsert=self.changelog is Changelog.UPSERT)
        return CountedTable(self.input, context.vnodes)

    def details(self) -> dict[str, str]:
        key = "none" if self.key is None else ", ".join(self.input.field(i).name for i in self.key)
        return {"key": key, "state": "every row of the table"}


class Materialized(Operator):
    """What all tables have in common: they can be read at any time."""

    def __init__(self, schema: pa.Schema, vnodes: int) -> None:
        self.schema = schema
        self._vnodes = vnodes

    def current(self) -> list[Batch]:
        """All rows now, as insertions."""
        table = self.snapshot()
        return [Batch(batch) for batch in table.to_batches(max_chunksize=BATCH_ROWS) if batch.num_rows]

    @abstractmethod
    def snapshot(self) -> pa.Table:
        """All rows now."""

    def _delta(
        self, key: tuple[str, ...], rows: pa.RecordBatch, hashes: Words, changes: Changes, *, complete: bool
    ) -> StateDelta:
        deleted = None
        if not complete and len(changes.removed_hashes):
            removed = pa.RecordBatch.from_arrays(changes.removed, list(key))
            deleted = with_vnodes(removed, changes.removed_hashes, self._vnodes)
        return StateDelta(key, with_vnodes(rows, hashes, self._vnodes), deleted, complete)


class AppendedTable(Materialized):
    """Rows that are never taken back, in the order they came."""

    def __init__(self, schema: pa.Schema, vnodes: int) -> None:
        super().__init__(schema, vnodes)
        self._rows = RowStore(schema)
        self._captured = 0

    def process(self, port: int, batch: Batch) -> list[Batch]:
        self._rows.append(batch.data)
        return [batch]

    def snapshot(self) -> pa.Table:
        return pa.Table.from_batches([self._rows.gather(self._rows.live())], self.schema)

    def capture(self, *, changes: bool) -> Capture:
        numbers = self._rows.rows_since(self._captured if changes else 0)
        self._captured = self._rows.next_row
        rows = self._rows.gather(numbers).append_column(pa.field(ROW, pa.int64()), pa.array(numbers))
        spread = hash_columns([pa.array(numbers // BATCH_ROWS)])
        return {"rows": StateDelta((ROW,), with_vnodes(rows, spread, self._vnodes), None, not changes)}

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        rows = tables["rows"]
        order = np.argsort(np.asarray(rows.column(ROW)), kind="stable")
        self._rows.append(rows.take(pa.array(order)).select(self.schema.names))
        self._captured = self._rows.next_row


class KeyedTable(Materialized):
    """One row for each key: the last one that was inserted and not taken back.

    Hands its input on; with `upsert` what that changes: the row before with −1, the row now with +1.
    """

    def __init__(self, schema: pa.Schema, key: tuple[int, ...], vnodes: int, *, upsert: bool) -> None:
        super().__init__(schema, vnodes)
        self._key = key
        self._upsert = upsert
        self._index = KeyIndex([schema.field(i).type for i in key])
        self._dirty = DirtySlots(self._index)
        self._rows = RowStore(schema)
        self._row_of = SlotColumn(np.int64, fill=-1)

    def process(self, port: int, batch: Batch) -> list[Batch]:
        folded = batch if self._upsert else consolidate(batch)
        found = self._index.upsert([folded.data.column(i) for i in self._key], folded.num_rows)
        self._row_of.grow(self._index.high)
        self._dirty.create(found.created)
        slots = found.slots
        inserted = np.ones(len(slots), bool) if folded.weights is None else folded.weights > 0
        rows = np.arange(len(slots))
        last = np.full(self._index.high, -1, np.int64)
        if self._upsert:
            last[slots] = rows
        else:  # both −old and +new of a key may stand here, in either order: the insertion tells what is left
            last[slots[~inserted]] = rows[~inserted]
            last[slots[inserted]] = rows[inserted]
        touched = np.flatnonzero(last >= 0).astype(np.int32)
        winners = last[touched]
        before = self._row_of.values[touched]
        changes = self._changes(folded, before, winners, inserted[winners]) if self._upsert else [batch]
        self._replace(folded, touched, winners, inserted[winners])
        return changes

    def snapshot(self) -> pa.Table:
        return pa.Table.from_batches([self._gather(self._index.live())], self.schema)

    def capture(self, *, changes: bool) -> Capture:
        changed = self._dirty.take()
        slots = changed.slots if changes else self._index.live()
        names = tuple(self.schema.names[i] for i in self._key)
        delta = self._delta(
            names, self._gather(slots), self._index.hashes(slots), changed, complete=not changes
        )
        return {"rows": delta}

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        rows = tables["rows"].select(self.schema.names)
        if rows.num_rows:
            self.process(0, Batch(rows))

    def _gather(self, slots: Slots) -> pa.RecordBatch:
        return self._rows.gather(self._row_of.values[slots])

    def _changes(
        self, batch: Batch, before: Int64Array, rows: Int64Array, inserted: npt.NDArray[np.bool_]
    ) -> list[Batch]:
        """The rows `before` (−1: none) taken back, and those of `rows` that are `inserted`, where they differ."""
        known = before >= 0
        same = np.zeros(len(rows), bool)
        both = known & inserted
        if both.any():
            index = KeyIndex(self.schema.types, capacity=len(rows))
            count = int(both.sum())
            former = index.upsert(self._rows.gather(before[both]).columns, count).slots
            same[both] = index.upsert(batch.data.take(pa.array(rows[both])).columns, count).slots == former
        gone, come = known & ~same, inserted & ~same
        old, new = self._rows.gather(before[gone]), batch.data.take(pa.array(rows[come]))
        if not old.num_rows + new.num_rows:
            return []
        changed = concatenate([Batch(old), Batch(new.cast(self.schema))], self.schema)
        weights = np.repeat(np.array([-1, 1]), [old.num_rows, new.num_rows])
        marks = batch.row_watermarks
        if marks is not None:
            marks = np.concatenate([marks[rows[gone]], marks[rows[come]]])
        return [Batch(changed.data, weights, marks)]

    def _replace(self, batch: Batch, slots: Slots, rows: Int64Array, inserted: npt.NDArray[np.bool_]) -> None:
        former = self._row_of.values[slots]
        self._rows.remove(former[former >= 0])
        kept, gone = slots[inserted], slots[~inserted]
        if len(kept):
            self._row_of.values[kept] = self._rows.append(batch.data.take(pa.array(rows[inserted])))
            self._dirty.mark(kept)
        if len(gone):
            self._row_of.reset(gone)
            self._dirty.remove(gone)
            self._index.remove(gone)


class CountedTable(Materialized):
    """A multiset: how often each row stands in the table."""

    def __init__(self, schema: pa.Schema, vnodes: int) -> None:
        super().__init__(schema, vnodes)
        self._index = KeyIndex(schema.types)
        self._dirty = DirtySlots(self._index)
        self._counts = SlotColumn(np.int64)

    def process(self, port: int, batch: Batch) -> list[Batch]:
        found = self._index.upsert(batch.data.columns, batch.num_rows)
        self._counts.grow(self._index.high)
        self._dirty.create(found.created)
        np.add.at(self._counts.values, found.slots, 1 if batch.weights is None else batch.weights)
        touched = np.unique(found.slots)
        counts = self._counts.values[touched]
        if (counts < 0).any():
            raise Bug("a row was taken back that the table does not hold", code="MR9010")
        self._dirty.mark(touched[counts > 0])
        gone = touched[counts == 0]
        if len(gone):
            self._dirty.remove(gone)
            self._index.remove(gone)
        return [batch]

    def snapshot(self) -> pa.Table:
        live = self._index.live()
        return pa.Table.from_batches([self._batch(np.repeat(live, self._counts.values[live]))], self.schema)

    def capture(self, *, changes: bool) -> Capture:
        changed = self._dirty.take()
        slots = changed.slots if changes else self._index.live()
        counts = pa.array(self._counts.values[slots])
        rows = self._batch(slots).append_column(pa.field(COUNT, pa.int64()), counts)
        key = tuple(self.schema.names)
        return {"rows": self._delta(key, rows, self._index.hashes(slots), changed, complete=not changes)}

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        rows = tables["rows"]
        if rows.num_rows:
            weights = np.asarray(rows.column(COUNT), np.int64)
            self.process(0, Batch(rows.select(self.schema.names), weights))

    def _batch(self, slots: npt.NDArray[np.integer]) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays(self._index.keys(slots), schema=self.schema)


def with_vnodes(rows: pa.RecordBatch, hashes: Words, vnodes: int) -> pa.RecordBatch:
    """`rows` with the column `_vnode` that belongs to their key hashes."""
    return rows.append_column(pa.field(VNODE, pa.uint16()), pa.array(vnodes_of(hashes, vnodes), pa.uint16()))
