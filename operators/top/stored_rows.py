"""Rows that a top-N keeps, by number, and what of them the next capture has to tell. Knows no order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.batch import Int64Array
from millrace.operators.operator import VNODE, StateDelta
from millrace.state.hashing import hash_columns, vnodes_of
from millrace.state.row_store import RowStore

_ROW = "_row"
_COUNT = "_count"
Vnodes = npt.NDArray[np.uint16]


class StoredRows:
    """Owns rows of one schema. Numbers rise in order of arrival and are never given out again."""

    def __init__(self, schema: pa.Schema, partition: tuple[int, ...], vnodes: int) -> None:
        # Names of columns may repeat, and here they are referred to by place.
        self._schema = pa.schema([pa.field(f"c{i}", kind) for i, kind in enumerate(schema.types)])
        self.store = RowStore(self._schema)
        self._partition = partition
        self._vnodes = vnodes
        self._mark: int | None = None
        self._gone: list[tuple[Int64Array, Vnodes]] = []
        self._changed: list[Int64Array] = []

    def __len__(self) -> int:
        return len(self.store)

    def add(self, data: pa.RecordBatch, kept: Int64Array) -> Int64Array:
        """Keep the rows of `data` at these ascending positions; their numbers."""
        data = pa.RecordBatch.from_arrays(data.columns, schema=self._schema)
        if 2 * len(kept) <= data.num_rows:
            return self.store.append(data.take(pa.array(kept)))
        numbers = self.store.append(data)
        if len(kept) == len(numbers):
            return numbers
        dropped = np.ones(len(numbers), np.bool_)
        dropped[kept] = False
        self.store.remove(numbers[dropped])
        return numbers[kept]

    def columns(self, numbers: Int64Array, places: Sequence[int] | None = None) -> list[pa.Array]:
        """The rows with these numbers: all columns or those at `places` (distinct)."""
        names = None if places is None else [f"c{place}" for place in places]
        columns: list[pa.Array] = self.store.gather(numbers, names).columns
        return columns

    def remove(self, numbers: Int64Array) -> None:
        """Forget rows."""
        if not len(numbers):
            return
        if self._mark is not None:
            told = numbers[numbers < self._mark]
            if len(told):
                self._gone.append((told, self._vnodes_of(told)))
        self.store.remove(numbers)

    @property
    def watched(self) -> bool:
        """Whether `change` has to be told of rows whose count changed."""
        return self._mark is not None

    def change(self, numbers: Int64Array) -> None:
        """How often these rows are there is another number now."""
        if self._mark is not None:
            self._changed.append(numbers[numbers < self._mark])

    def to_capture(self, *, changes: bool) -> tuple[Int64Array, bool]:
        """Numbers of the rows that the next capture tells of, and whether these are all."""
        if not changes or self._mark is None:
            return self.store.live(), True
        fresh = self.store.rows_since(self._mark)
        if not self._changed:
            return fresh, False
        gone = np.concatenate([np.empty(0, np.int64), *(numbers for numbers, _ in self._gone)])
        return np.concatenate([np.setdiff1d(np.concatenate(self._changed), gone), fresh]), False

    def captured(self, numbers: Int64Array, counts: Int64Array | None, *, complete: bool) -> StateDelta:
        """Table of `c0` … (the rows), `_row`, `_count` where rows are counted, and the vnode of the partition."""
        columns = dict(zip(self._schema.names, self.columns(numbers), strict=True))
        columns[_ROW] = pa.array(numbers, pa.int64())
        if counts is not None:
            columns[_COUNT] = pa.array(counts, pa.int64())
        columns[VNODE] = pa.array(self._vnodes_of(numbers), pa.uint16())
        deleted = None
        if not complete:
            gone = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in self._gone)])
            of = np.concatenate([np.empty(0, np.uint16), *(vnodes for _, vnodes in self._gone)])
            deleted = pa.record_batch({_ROW: pa.array(gone, pa.int64()), VNODE: pa.array(of, pa.uint16())})
        self._mark = self.store.next_row
        self._gone, self._changed = [], []
        return StateDelta((_ROW,), pa.record_batch(columns), deleted, complete)

    def _vnodes_of(self, numbers: Int64Array) -> Vnodes:
        keys = self.columns(numbers, list(dict.fromkeys(self._partition))) if self._partition else []
        return vnodes_of(hash_columns(keys, len(numbers)), self._vnodes)


def restored_rows(table: pa.RecordBatch, schema: pa.Schema) -> tuple[pa.RecordBatch, Int64Array | None]:
    """The rows of a captured table in order of arrival, and how often each is there."""
    table = table.take(pa.array(np.argsort(table.column(_ROW).to_numpy(), kind="stable")))
    data = pa.RecordBatch.from_arrays(table.columns[: len(schema)], schema=schema)
    if _COUNT not in table.schema.names:
        return data, None
    return data, np.array(table.column(_COUNT).to_numpy())
