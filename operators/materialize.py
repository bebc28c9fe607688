"""A materialised table: the folded changelog of a stream, kept to be queried. Knows no SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from millrace.errors import Bug
from millrace.operators.batch import Batch, Int64Array
from millrace.operators.consolidate import consolidate
from millrace.operators.operator import VNODE, Capture, Context, Operator, StateDelta
from millrace.operators.sink import Changelog
from millrace.operators.spec import OperatorSpec
from millrace.state.columns import DirtySlots
from millrace.state.hashing import hash_columns, vnodes_of
from millrace.state.key_index import KeyIndex
from millrace.state.row_store import RowStore

ROW = "_row"
COUNT = "_count"
BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Materialize(OperatorSpec):
    """Keeps the rows of its input as a table and hands the input on.

    `key` names the columns that identify a row (UPSERT, and RETRACT with a key); without, the table is a
    multiset of rows.
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

    def snapshot(self) -> pa.Table:
        """All rows now."""
        raise NotImplementedError

    def _with_vnodes(self, rows: pa.RecordBatch, hashes: Int64Array) -> pa.RecordBatch:
        vnodes = pa.array(vnodes_of(hashes, self._vnodes), pa.uint16())
        return rows.append_column(pa.field(VNODE, pa.uint16()), vnodes)


class AppendedTable(Materialized):
    """Rows that are never taken back, in the order they came."""

    def __init__(self, schema: pa.Schema, vnodes: int) -> None:
        super().__init__(schema, vnodes)
        self._rows = RowStore(schema)
        self._next = 0
        self._numbers: list[Int64Array] = []
        self._captured = 0

    def process(self, port: int, batch: Batch) -> list[Batch]:
        self._numbers.append(self._rows.append(batch.data))
        return [batch]

    def snapshot(self) -> pa.Table:
        return self._table(self._numbers)

    def capture(self, *, changes: bool) -> Capture:
        chosen = self._numbers[self._captured :] if changes else self._numbers
        self._captured = len(self._numbers)
        table = self._table(chosen).combine_chunks()
        rows = table.to_batches()[0] if table.num_rows else _empty(self.schema)
        order = np.arange(self._next, self._next + rows.num_rows) if changes else np.arange(rows.num_rows)
        if changes:
            self._next += rows.num_rows
        else:
            self._next = rows.num_rows
        rows = rows.append_column(pa.field(ROW, pa.int64()), pa.array(order))
        spread = (order // BATCH_ROWS).astype(np.uint64)
        return {"rows": StateDelta((ROW,), self._with_vnodes(rows, spread), None, not changes)}

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        rows = tables["rows"]
        rows = rows.take(np.argsort(np.asarray(rows.column(ROW)), kind="stable")).select(self.schema.names)
        if rows.num_rows:
            self._numbers = [self._rows.append(rows)]
        self._next = rows.num_rows
        self._captured = len(self._numbers)

    def _table(self, numbers: list[Int64Array]) -> pa.Table:
        return pa.Table.from_batches([self._rows.gather(chunk) for chunk in numbers], self.schema)


class KeyedTable(Materialized):
    """One row for each key: the last one that was inserted and not taken back."""

    def __init__(self, schema: pa.Schema, key: tuple[int, ...], vnodes: int, *, upsert: bool) -> None:
        super().__init__(schema, vnodes)
        self._key = key
        self._upsert = upsert
        self._index = KeyIndex([schema.field(i).type for i in key])
        self._rows = RowStore(schema)
        self._row_of = np.full(64, -1, np.int64)
        self._dirty = DirtySlots()
        self._removed: list[list[pa.Array]] = []

    def process(self, port: int, batch: Batch) -> list[Batch]:
        folded = batch if self._upsert else consolidate(batch)
        columns = [folded.data.column(i) for i in self._key]
        slots = self._index.upsert(columns, folded.num_rows).slots
        self._grow()
        # The last word on a key wins; retract streams say −old before or after +new, so there an insertion does.
        inserted = np.ones(len(slots), bool) if folded.weights is None else folded.weights > 0
        rows = np.arange(len(slots))
        last = np.full(self._index.high, -1, np.int64)
        if self._upsert:
            last[slots] = rows
        else:
            last[slots[~inserted]] = rows[~inserted]
            last[slots[inserted]] = rows[inserted]
        touched = np.flatnonzero(last >= 0)
        winners = last[touched]
        self._replace(folded, touched, winners, inserted[winners])
        return [batch]

    def snapshot(self) -> pa.Table:
        live = self._index.live()
        if not len(live):
            return self.schema.empty_table()
        return pa.Table.from_batches([self._rows.gather(self._row_of[live])], self.schema)

    def capture(self, *, changes: bool) -> Capture:
        names = tuple(self.schema.names[i] for i in self._key)
        slots = self._index.live()
        if changes:
            slots = np.intersect1d(slots, self._dirty.take())
        else:
            self._dirty.take()
        rows = self._rows.gather(self._row_of[slots]) if len(slots) else _empty(self.schema)
        rows = self._with_vnodes(rows, self._index.hashes(slots))
        deleted = self._take_removed(names) if changes else None
        self._removed = []
        return {"rows": StateDelta(names, rows, deleted, not changes)}

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        rows = tables["rows"].select(self.schema.names)
        if rows.num_rows:
            self.process(0, Batch(rows))
        self._dirty.take()

    def _replace(self, batch: Batch, slots: Int64Array, rows: Int64Array, inserted: Int64Array) -> None:
        former = self._row_of[slots]
        self._rows.remove(former[former >= 0])
        self._row_of[slots] = -1
        kept = slots[inserted]
        if len(kept):
            self._row_of[kept] = self._rows.append(batch.data.take(pa.array(rows[inserted])))
            self._dirty.mark(kept)
        gone = slots[~inserted]
        if len(gone):
            self._removed.append(self._index.keys(gone))
            self._index.remove(gone)

    def _take_removed(self, names: tuple[str, ...]) -> pa.RecordBatch | None:
        if not self._removed:
            return None
        columns = [pa.concat_arrays(parts) for parts in zip(*self._removed, strict=True)]
        absent = self._index.lookup(columns) < 0
        removed = pa.RecordBatch.from_arrays(columns, names).filter(pa.array(absent))
        return self._with_vnodes(removed, hash_columns(removed.columns))

    def _grow(self) -> None:
        if self._index.high > len(self._row_of):
            larger = np.full(max(self._index.high, 2 * len(self._row_of)), -1, np.int64)
            larger[: len(self._row_of)] = self._row_of
            self._row_of = larger


class CountedTable(Materialized):
    """A multiset: how often each row stands in the table."""

    def __init__(self, schema: pa.Schema, vnodes: int) -> None:
        super().__init__(schema, vnodes)
        self._index = KeyIndex(schema.types)
        self._counts = np.zeros(64, np.int64)
        self._dirty = DirtySlots()
        self._removed: list[list[pa.Array]] = []

    def process(self, port: int, batch: Batch) -> list[Batch]:
        slots = self._index.upsert(batch.data.columns, batch.num_rows).slots
        if self._index.high > len(self._counts):
            larger = np.zeros(max(self._index.high, 2 * len(self._counts)), np.int64)
            larger[: len(self._counts)] = self._counts
            self._counts = larger
        np.add.at(self._counts, slots, 1 if batch.weights is None else batch.weights)
        touched = np.unique(slots)
        counts = self._counts[touched]
        if (counts < 0).any():
            raise Bug("a row was taken back that the table does not hold", code="MR9010")
        gone = touched[counts == 0]
        if len(gone):
            self._removed.append(self._index.keys(gone))
            self._index.remove(gone)
        self._dirty.mark(touched[counts > 0])
        return [batch]

    def snapshot(self) -> pa.Table:
        live = self._index.live()
        if not len(live):
            return self.schema.empty_table()
        repeated = np.repeat(live, self._counts[live])
        return pa.Table.from_batches([self._batch(repeated)], self.schema)

    def capture(self, *, changes: bool) -> Capture:
        slots = self._index.live()
        dirty = self._dirty.take()
        if changes:
            slots = np.intersect1d(slots, dirty)
        rows = self._batch(slots).append_column(pa.field(COUNT, pa.int64()), pa.array(self._counts[slots]))
        rows = self._with_vnodes(rows, self._index.hashes(slots))
        deleted = None
        if changes and self._removed:
            columns = [pa.concat_arrays(parts) for parts in zip(*self._removed, strict=True)]
            absent = self._index.lookup(columns) < 0
            removed = pa.RecordBatch.from_arrays(columns, schema=self.schema).filter(pa.array(absent))
            deleted = self._with_vnodes(removed, hash_columns(removed.columns))
        self._removed = []
        return {"rows": StateDelta(tuple(self.schema.names), rows, deleted, not changes)}

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        rows = tables["rows"]
        if rows.num_rows:
            weights = np.asarray(rows.column(COUNT), np.int64)
            self.process(0, Batch(rows.select(self.schema.names), weights))
        self._dirty.take()

    def _batch(self, slots: Int64Array) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays(self._index.keys(slots), schema=self.schema)


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=schema)
