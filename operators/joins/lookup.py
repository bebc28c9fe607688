"""The operator of joins with a table as it is: rows probe it and go on, changes of it only change it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from millrace.operators.batch import Batch
from millrace.operators.joins.lookup_spec import LookupJoin
from millrace.operators.joins.pairs import Emitted
from millrace.operators.joins.regular import RegularJoinOperator
from millrace.operators.joins.sides import Delta
from millrace.operators.operator import Context

_NO_ENTRIES = np.empty(0, np.int32)


class LookupJoinOperator(RegularJoinOperator):
    """A regular join that keeps no row of the left side, and is silent about the right one."""

    def __init__(self, spec: LookupJoin, context: Context) -> None:
        super().__init__(spec.regular, context)

    def process(self, port: int, batch: Batch) -> Iterable[Batch]:
        if port == 0:
            return self._probe(batch)
        self.metrics.rows_in += batch.num_rows
        batch, _ = self._without_nulls(1, batch)
        if batch.num_rows:
            columns = [batch.data.column(k) for k in self._keys[1]]
            found = self._index.upsert(columns, batch.num_rows)
            self._note_nulls(1, columns, found.slots, found.created)
            delta = self._sides[1].absorb(self._shape.stored(1, batch.data), found.slots, batch.weights)
            if delta.weights is not None:
                self._release(delta.slots)
        return []

    def _probe(self, batch: Batch) -> Iterator[Batch]:
        assert batch.weights is None or (batch.weights == 1).all(), "rows that look up are never taken back"
        self.metrics.rows_in += batch.num_rows
        columns = [batch.data.column(k) for k in self._keys[0]]
        slots = self._index.lookup(columns, batch.num_rows)
        nulls = self._nulls(columns)
        if nulls is not None:
            slots = np.where(nulls, np.int32(-1), slots)
        data = self._shape.stored(0, batch.data)
        out = Emitted(self._shape)
        delta = Delta(data, slots, _NO_ENTRIES)
        counts = np.zeros(len(slots), np.int64)
        other = self._sides[1]
        many = self._has_many(slots, other)
        for rows, entries in self._pairs(slots, None, other):
            if self._filter is not None:
                kept = self._filter.matching(0, data, rows, other, entries)
                rows, entries = rows[kept], entries[kept]
            if len(rows):
                np.add.at(counts, rows, 1)
                self._emit(0, delta, rows, entries, other, out)
                if many:
                    yield from self._once(out.batches())
                    out = Emitted(self._shape)
        if self._kind.keeps(0) and not counts.all():
            lonely = data.take(pa.array(np.flatnonzero(counts == 0)))
            out.alone(0, lonely.columns, None, 1)
        yield from self._once(out.batches())

    def _once(self, batches: list[Batch]) -> list[Batch]:
        """The rows without weights: a row of a table that is there twice is two rows."""
        sent = [
            batch
            if batch.weights is None
            else Batch(Batch(batch.data).take(np.repeat(np.arange(batch.num_rows), batch.weights)).data)
            for batch in batches
        ]
        self.metrics.rows_out += sum(batch.num_rows for batch in sent)
        return sent
