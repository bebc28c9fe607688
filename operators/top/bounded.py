"""Top-N of append-only rows by a row_number: each partition keeps its first few rows in order. Knows no SQL."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.batch import Batch, Int64Array
from millrace.operators.operator import Capture, Context, Operator, OperatorMetrics
from millrace.operators.top import kernels
from millrace.operators.top.ordering import code_count, codes_of
from millrace.operators.top.specs import TopRows
from millrace.operators.top.stored_rows import StoredRows, restored_rows
from millrace.state.key_index import KeyIndex

_SLOTS_MIN = 64
_SMALL_ROWS = 4096
Slots = npt.NDArray[np.int32]


class BoundedTop(Operator):
    """Owns the first rows of each partition: in `numbers` and `codes` a run of places a slot, filled up to `counts`.

    What is among the first after a batch is what was sent, so nothing else is remembered of that.
    """

    def __init__(self, spec: TopRows, context: Context) -> None:
        assert spec.limit is not None
        self._spec = spec
        self._schema = spec.output_schema
        self._limit = spec.limit
        self._width = code_count(spec.input, spec.order)
        self._index = KeyIndex([spec.input.field(i).type for i in spec.partition])
        self._rows = StoredRows(spec.input, spec.partition, context.vnodes)
        self._numbers: Int64Array = np.empty(0, np.int64)
        self._codes: Int64Array = np.empty((0, self._width), np.int64)
        self._counts: Slots = np.zeros(0, np.int32)
        self._marks: Slots = np.zeros(0, np.int32)
        self.metrics = OperatorMetrics()

    @property
    def state_rows(self) -> int:
        """Rows kept."""
        return len(self._rows)

    @property
    def state_bytes(self) -> int:
        """Bytes of these rows and of what finds them."""
        return self._index.nbytes + self._rows.store.nbytes + self._numbers.nbytes + self._codes.nbytes

    def process(self, port: int, batch: Batch) -> list[Batch]:
        self.metrics.rows_in += batch.num_rows
        data = batch.data
        if batch.weights is not None:
            assert (batch.weights > 0).all(), "the input is said to be append-only"
            if (batch.weights > 1).any():
                data = data.take(pa.array(np.repeat(np.arange(data.num_rows), batch.weights)))
        out = self._take(data)
        self.metrics.rows_out += sum(part.num_rows for part in out)
        return out

    def capture(self, *, changes: bool) -> Capture:
        numbers, complete = self._rows.to_capture(changes=changes)
        return {"rows": self._rows.captured(numbers, None, complete=complete)}

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        rows = tables.get("rows")
        if rows is not None and rows.num_rows:
            self._take(restored_rows(rows, self._spec.input)[0])

    def _take(self, data: pa.RecordBatch) -> list[Batch]:
        limit = self._limit
        slots = self._index.upsert([data.column(i) for i in self._spec.partition], data.num_rows).slots
        self._grow(self._index.high)
        codes = codes_of(data.columns, self._spec.order)
        table = np.column_stack(codes) if codes else np.empty((data.num_rows, 0), np.int64)
        first = self._rows.store.next_row
        most = min(len(slots), self._index.high)
        touched: Slots = np.empty(most, np.int32)
        old_counts: Slots = np.empty(most, np.int32)
        old_numbers: Int64Array = np.empty((most, limit), np.int64)
        state = (self._counts, self._numbers)
        changed = kernels.insert_rows(
            slots, table, first, limit, *state, self._codes, self._marks, touched, old_counts, old_numbers
        )
        touched = touched[:changed]
        if not changed:
            return []
        flags = np.zeros(data.num_rows, np.uint8)
        kernels.mark_kept(touched, first, limit, *state, self._marks, flags)
        kept = np.flatnonzero(flags)
        numbers = self._rows.add(data, kept)
        if numbers[-1] - first != kept[-1]:
            given = np.empty(data.num_rows, np.int64)
            given[kept] = numbers
            kernels.renumber(touched, first, limit, *state, given)
        gone = np.empty(int(old_counts[:changed].sum()), np.int64)
        gone = gone[: kernels.evicted(touched, first, limit, *state, old_counts, old_numbers, gone)]
        if self._spec.rank_name is None:
            out = self._replaced(data, kept, gone)
        else:
            out = self._moved(touched, old_counts, old_numbers)
        self._rows.remove(gone)
        return out

    def _replaced(self, data: pa.RecordBatch, kept: Int64Array, gone: Int64Array) -> list[Batch]:
        """New rows for old ones."""
        inserted = data if len(kept) == data.num_rows else data.take(pa.array(kept))
        if not len(gone) or self._spec.upsert:
            return [Batch(inserted)]
        retracted = pa.RecordBatch.from_arrays(self._rows.columns(gone), schema=self._schema)
        weights = np.full(len(gone), -1, np.int64)
        if inserted.num_rows + len(gone) > _SMALL_ROWS:
            # To join them would copy all the new rows.
            return [Batch(retracted, weights), Batch(inserted)]
        both = pa.concat_batches([retracted, inserted])
        return [Batch(both, np.concatenate([weights, np.ones(inserted.num_rows, np.int64)]))]

    def _moved(self, touched: Slots, old_counts: Slots, old_numbers: Int64Array) -> list[Batch]:
        """Rows with new places for rows with old places."""
        room_out = int(old_counts[: len(touched)].sum())
        room_in = int(self._counts[touched].sum())
        numbers: Int64Array = np.empty(room_out + room_in, np.int64)
        places: Int64Array = np.empty(room_out + room_in, np.int64)
        retracted, inserted = kernels.moved(
            touched,
            self._limit,
            self._counts,
            self._numbers,
            old_counts,
            old_numbers,
            numbers,
            places,
            numbers[room_out:],
            places[room_out:],
        )
        if self._spec.upsert:
            retracted = 0
        if retracted < room_out:
            numbers[retracted : retracted + inserted] = numbers[room_out : room_out + inserted].copy()
            places[retracted : retracted + inserted] = places[room_out : room_out + inserted].copy()
        total = retracted + inserted
        columns = [*self._rows.columns(numbers[:total]), pa.array(places[:total])]
        weights = None
        if retracted:
            weights = np.ones(total, np.int64)
            weights[:retracted] = -1
        return [Batch(pa.RecordBatch.from_arrays(columns, schema=self._schema), weights)]

    def _grow(self, high: int) -> None:
        size = len(self._counts)
        if high <= size:
            return
        room = max(high, _SLOTS_MIN, size * 2 if size < 1 << 20 else size * 3 // 2)
        for name, per_slot in (
            ("_numbers", self._limit),
            ("_codes", self._limit),
            ("_counts", 1),
            ("_marks", 1),
        ):
            before = getattr(self, name)
            shape = (room * per_slot, *before.shape[1:])
            grown = np.zeros(shape, before.dtype)
            grown[: len(before)] = before
            setattr(self, name, grown)
