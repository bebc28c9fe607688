"""The operator behind temporal joins by processing time. Knows no SQL and no event time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.batch import Batch, Int64Array
from millrace.operators.joins.temporal import LatestJoin
from millrace.operators.joins.timed_pairs import PairShape
from millrace.operators.operator import VNODE, Capture, Context, Operator, OperatorMetrics, StateDelta
from millrace.state.columns import SlotColumn
from millrace.state.hashing import hash_columns, vnodes_of
from millrace.state.key_index import KeyIndex
from millrace.state.row_store import RowStore
from millrace.state.words import Slots


class LatestJoinOperator(Operator):
    """Owns the latest right row of each key: `_row` has its number in the store by slot of the key."""

    inputs = 2

    def __init__(self, spec: LatestJoin, context: Context) -> None:
        self.metrics = OperatorMetrics()
        """Counters of rows in and out."""
        self._spec = spec
        self._context = context
        self._keys = tuple(tuple(pair[port] for pair in spec.equal) for port in (0, 1))
        self._shape = PairShape.of((spec.left, spec.right), spec.outputs, None, spec.output_schema)
        self._index = KeyIndex([spec.right.field(c).type for c in self._keys[1]])
        self._store = RowStore(self._shape.stored[1])
        self._row = SlotColumn(np.int64, fill=-1)
        self._complete = True
        self._changed: list[Slots] = []
        self._gone: list[list[pa.Array]] = []

    @property
    def state_rows(self) -> int:
        """Right rows kept."""
        return len(self._store)

    @property
    def state_bytes(self) -> int:
        """Bytes of these rows and of what finds them."""
        return self._index.nbytes + self._store.nbytes + self._row.nbytes

    def process(self, port: int, batch: Batch) -> list[Batch]:
        self.metrics.rows_in += batch.num_rows
        if port == 1:
            self._learn(batch)
            return []
        keys = [batch.data.column(c) for c in self._keys[0]]
        slots = self._index.lookup(keys, batch.num_rows)
        numbers: Int64Array = np.full(len(slots), -1, np.int64)
        known = (slots >= 0) & ~_null_keys(keys, batch.num_rows)
        numbers[known] = self._row.values[slots[known]]
        rows = self._shape.keep(0, batch.data)
        picked = np.flatnonzero(numbers >= 0)
        out = [self._shape.pairs(0, rows, picked, self._store, numbers[picked])] if len(picked) else []
        if self._spec.kind == "left" and len(picked) < batch.num_rows:
            out.append(self._shape.alone(0, rows.take(pa.array(np.flatnonzero(numbers < 0)))))
        self.metrics.rows_out += batch.num_rows if self._spec.kind == "left" else len(picked)
        return out

    def capture(self, *, changes: bool) -> Capture:
        complete = self._complete or not changes
        slots = (
            self._index.live()
            if complete
            else np.unique(np.concatenate([np.empty(0, np.int32), *self._changed]))
        )
        slots = slots[self._row.values[slots] >= 0] if len(slots) else slots
        keys = self._index.keys(slots)
        names = [f"k{i}" for i in range(len(keys))]
        columns = [*keys, *self._store.gather(self._row.values[slots]).columns]
        nodes = vnodes_of(self._index.hashes(slots), self._context.vnodes)
        rows = pa.RecordBatch.from_arrays(
            [*columns, pa.array(nodes)], [*names, *self._store.schema.names, VNODE]
        )
        deleted = None if complete or not self._gone else self._deleted(names)
        self._complete, self._changed, self._gone = False, [], []
        return {"rows": StateDelta(tuple(names), rows, deleted, complete)}

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        table = tables.get("rows")
        if table is None or not table.num_rows:
            return
        keys = [table.column(f"k{i}") for i in range(len(self._keys[1]))]
        slots = self._index.upsert(keys, table.num_rows).slots
        self._row.grow(self._index.high)
        arrays = [table.column(name) for name in self._store.schema.names]
        self._row.values[slots] = self._store.append(
            pa.RecordBatch.from_arrays(arrays, schema=self._store.schema)
        )

    def _learn(self, batch: Batch) -> None:
        """Take changes of the right side in: the last row of each key counts."""
        keys = [batch.data.column(c) for c in self._keys[1]]
        missing = _null_keys(keys, batch.num_rows)
        if missing.any():  # NULL equals nothing
            batch = batch.take(np.flatnonzero(~missing))
            keys = [batch.data.column(c) for c in self._keys[1]]
        if not batch.num_rows:
            return
        slots = self._index.upsert(keys, batch.num_rows).slots
        self._row.grow(self._index.high)
        inserted = np.ones(len(slots), np.bool_) if batch.weights is None else batch.weights > 0
        touched = np.unique(slots)
        last = np.full(self._index.high, -1, np.int64)
        last[slots] = np.where(inserted, np.arange(len(slots)), -1)
        chosen = last[touched]
        former = self._row.values[touched]
        self._store.remove(former[former >= 0])
        kept = chosen >= 0
        rows = self._shape.keep(1, batch.data)
        self._row.values[touched[kept]] = self._store.append(rows.take(pa.array(chosen[kept])))
        over = touched[~kept]
        if not self._complete:
            self._changed.append(touched[kept])
        if len(over):
            self._end(over)

    def _end(self, slots: Slots) -> None:
        """Forget keys that are no more."""
        if not self._complete:
            self._gone.append(self._index.keys(slots))
            gone = set(slots.tolist())
            self._changed = [
                np.array([s for s in c.tolist() if s not in gone], np.int32) for c in self._changed
            ]
        self._row.values[slots] = -1
        self._index.remove(slots)
        self._row.fit(self._index.high)

    def _deleted(self, names: list[str]) -> pa.RecordBatch:
        """Keys that were captured or not, and are not here now."""
        parts = [pa.RecordBatch.from_arrays(keys, names) for keys in self._gone]
        keys = pa.concat_batches(parts)
        absent = self._index.lookup(keys.columns, keys.num_rows) < 0
        keys = keys.filter(pa.array(absent))
        nodes = vnodes_of(hash_columns(keys.columns, keys.num_rows), self._context.vnodes)
        return keys.append_column(VNODE, pa.array(nodes))


def _null_keys(keys: list[pa.Array], rows: int) -> npt.NDArray[np.bool_]:
    missing = np.zeros(rows, np.bool_)
    for key in keys:
        if key.null_count:
            missing |= np.asarray(pc.is_null(key))
    return missing
