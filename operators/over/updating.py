"""The operator of OVER windows whose answers change: touched partitions are computed anew, the difference goes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.errors import Bug
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.batch import END_OF_TIME, Batch, Int64Array
from millrace.operators.operator import Capture, Context, Operator, OperatorMetrics
from millrace.operators.over.operator import OverOperator
from millrace.operators.over.specs import OverAggregate
from millrace.operators.over.updating_spec import UpdatingOver
from millrace.operators.top.ordering import codes_of
from millrace.operators.top.stored_rows import StoredRows, restored_rows
from millrace.state.columns import SlotColumn
from millrace.state.key_index import KeyIndex
from millrace.state.multimap import Multimap

Bools = npt.NDArray[np.bool_]


class UpdatingOverOperator(Operator):
    """Owns all rows by partition, each with the number of its arrival and the answers that were sent with it.

    A touched partition's rows are put in order, numbered, and given to the operator for rows in order of time.
    """

    def __init__(self, spec: UpdatingOver, context: Context) -> None:
        self._spec = spec
        self._context = context
        self._schema = spec.output_schema
        self._width = len(spec.input)
        answers = [pa.field(f"v{i}", call.type) for i, call in enumerate(spec.calls)]
        stored = pa.schema([*spec.input, *answers, pa.field("_arrival", pa.int64())])
        self._rows = StoredRows(stored, spec.keys, context.vnodes)
        self._stored = stored
        self._index = KeyIndex([spec.input.field(k).type for k in spec.keys])
        self._lists = Multimap()
        self._numbers = SlotColumn(np.int64, fill=-1)
        self._arrived = 0
        places = [pa.field("_place", pa.int64()), pa.field("_at", pa.int64())]
        inner = pa.schema([pa.field("_part", pa.int32()), *spec.input, *places])
        self._inner = OverAggregate(
            inner, (0,), self._width + 1, spec.frame, tuple(map(_moved, spec.calls)), spec.names, "us"
        )
        self.metrics = OperatorMetrics()

    @property
    def state_rows(self) -> int:
        """Rows kept."""
        return len(self._rows)

    def process(self, port: int, batch: Batch) -> list[Batch]:
        self.metrics.rows_in += batch.num_rows
        keys = [batch.data.column(k) for k in self._spec.keys]
        touched = np.unique(self._index.upsert(keys, batch.num_rows).slots)
        entries = self._lists.probe(touched)[1]
        numbers = self._numbers.values[entries]
        order = np.argsort(numbers)
        entries, numbers = entries[order], numbers[order]
        old = self._rows.columns(numbers)
        data, gone = self._after(old[: self._width], len(numbers), batch)
        arrivals = np.arange(self._arrived, self._arrived + data.num_rows - len(numbers))
        arrivals = np.concatenate([np.asarray(old[-1]), arrivals])
        self._arrived += data.num_rows - len(numbers)
        stays = np.flatnonzero(~gone)
        data, arrivals = data.take(pa.array(stays)), arrivals[stays]
        answers = self._answers(data, arrivals)
        known = stays < len(numbers)  # these come first
        count = int(known.sum())
        changed = self._changed(old[self._width : -1], stays[:count], [a.slice(0, count) for a in answers])
        taken = np.concatenate([np.flatnonzero(gone[: len(numbers)]), stays[:count][changed]])
        told = np.concatenate([np.flatnonzero(changed), np.arange(count, len(stays))])
        out = self._difference(old, taken, data, answers, told)
        self._forget(entries[taken])
        self._keep(data, answers, arrivals, told)
        empty = touched[self._lists.sizes(touched) == 0]
        if len(empty):
            self._index.remove(empty)
        self.metrics.rows_out += sum(part.num_rows for part in out)
        self.metrics.extra["state_rows"] = len(self._rows)
        return out

    def capture(self, *, changes: bool) -> Capture:
        numbers, complete = self._rows.to_capture(changes=changes)
        return {"rows": self._rows.captured(numbers, None, complete=complete)}

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        table = tables.get("rows")
        if table is None or not table.num_rows:
            return
        data, _ = restored_rows(table, self._stored)
        self._arrived = int(np.asarray(data.column(len(self._stored) - 1)).max()) + 1
        self._store(data)

    def _after(self, old: list[pa.Array], known: int, batch: Batch) -> tuple[pa.RecordBatch, Bools]:
        """The rows of the touched partitions and those that came in, behind them; which of all these are gone."""
        weights = np.ones(batch.num_rows, np.int64) if batch.weights is None else batch.weights
        before = pa.RecordBatch.from_arrays(old, schema=self._spec.input)
        fresh = batch.data
        if (weights != 1).any():
            fresh = fresh.take(pa.array(np.repeat(np.arange(len(weights)), np.maximum(weights, 0))))
        data = pa.concat_batches([before, fresh.cast(self._spec.input)])
        gone: Bools = np.zeros(data.num_rows, np.bool_)
        back = np.flatnonzero(weights < 0)
        if len(back):
            taken = batch.data.take(pa.array(np.repeat(back, -weights[back])))
            same = KeyIndex(self._spec.input.types)
            ids = same.upsert(data.columns, data.num_rows).slots
            wanted = same.lookup(taken.columns, taken.num_rows)
            if (wanted < 0).any():
                raise Bug("a row was taken back that was never there", code="MR9010")
            missing = np.bincount(wanted, minlength=same.high)
            order = np.lexsort((-np.arange(len(ids)), ids))
            sorted_ids = ids[order]
            starts = np.searchsorted(sorted_ids, sorted_ids)
            gone[order] = np.arange(len(ids)) - starts < missing[sorted_ids]
            if int(gone.sum()) != taken.num_rows:
                raise Bug("a row was taken back that was never there", code="MR9010")
        return data, gone

    def _answers(self, data: pa.RecordBatch, arrivals: Int64Array) -> list[pa.Array]:
        """The calls for each row."""
        count = data.num_rows
        if not count:
            return [pa.nulls(0, call.type) for call in self._spec.calls]
        parts = self._index.lookup([data.column(k) for k in self._spec.keys], count)
        columns = [data.column(c) for c, _, _ in self._spec.order]
        codes = codes_of(columns, tuple((i, d, f) for i, (_, d, f) in enumerate(self._spec.order)))
        by: list[npt.NDArray[np.integer]] = [arrivals, *reversed(codes), parts]
        order = np.lexsort(by)
        peers = np.ones(count, np.bool_)
        peers[1:] = parts[order][1:] != parts[order][:-1]
        for code in codes:
            peers[1:] |= code[order][1:] != code[order][:-1]
        ordered = data.take(pa.array(order))
        made = [pa.array(parts[order].astype(np.int32)), *ordered.columns]
        made += [pa.array(np.cumsum(peers)), pa.array(order)]
        operator = OverOperator(self._inner, self._context)
        out = operator.process(0, Batch(pa.RecordBatch.from_arrays(made, schema=self._inner.input)))
        out += operator.on_watermark(END_OF_TIME)
        whole = pa.Table.from_batches([b.data for b in out]).combine_chunks()
        back = np.empty(count, np.int64)
        back[np.asarray(whole.column(self._width + 2).combine_chunks())] = np.arange(count)
        places = pa.array(back)
        first = self._width + 3
        return [whole.column(first + i).combine_chunks().take(places) for i in range(len(self._spec.calls))]

    def _changed(self, old: list[pa.Array], rows: Int64Array, now: list[pa.Array]) -> Bools:
        """Which of these rows have other answers now."""
        changed: Bools = np.zeros(len(rows), np.bool_)
        places = pa.array(rows)
        for former, answer in zip(old, now, strict=True):
            changed |= _differ(former.take(places), answer)
        return changed

    def _difference(
        self,
        old: list[pa.Array],
        taken: Int64Array,
        data: pa.RecordBatch,
        answers: list[pa.Array],
        told: Int64Array,
    ) -> list[Batch]:
        if not len(taken) and not len(told):
            return []
        places, fresh = pa.array(taken), pa.array(told)
        back = [column.take(places) for column in old[:-1]]
        new = [column.take(fresh) for column in (*data.columns, *answers)]
        parts = [pa.RecordBatch.from_arrays(columns, schema=self._schema) for columns in (back, new)]
        weights = np.ones(len(taken) + len(told), np.int64)
        weights[: len(taken)] = -1
        return [Batch(pa.concat_batches(parts), weights)]

    def _forget(self, entries: npt.NDArray[np.int32]) -> None:
        if len(entries):
            self._rows.remove(self._numbers.values[entries])
            self._lists.remove(entries)
            self._numbers.fit(self._lists.high)

    def _keep(
        self, data: pa.RecordBatch, answers: list[pa.Array], arrivals: Int64Array, told: Int64Array
    ) -> None:
        if len(told):
            places = pa.array(told)
            columns = [c.take(places) for c in (*data.columns, *answers)]
            columns.append(pa.array(arrivals[told]))
            self._store(pa.RecordBatch.from_arrays(columns, schema=self._stored))

    def _store(self, rows: pa.RecordBatch) -> None:
        slots = self._index.upsert([rows.column(k) for k in self._spec.keys], rows.num_rows).slots
        numbers = self._rows.add(rows, np.arange(rows.num_rows))
        entries = self._lists.insert(slots)
        self._numbers.grow(self._lists.high)
        self._numbers.values[entries] = numbers


def _moved(call: AggregateCall) -> AggregateCall:
    """The call one column further."""
    return replace(
        call,
        arguments=tuple(a + 1 for a in call.arguments),
        filter=None if call.filter is None else call.filter + 1,
        order_by=tuple((c + 1, d, f) for c, d, f in call.order_by),
    )


def _differ(one: pa.Array, other: pa.Array) -> Bools:
    """Where two arrays of one type have different values; NULL equals NULL, NaN equals NaN."""
    if pa.types.is_nested(one.type):
        pairs = zip(one.to_pylist(), other.to_pylist(), strict=True)
        return np.array([repr(a) != repr(b) for a, b in pairs], np.bool_)
    if pa.types.is_decimal64(one.type) or pa.types.is_decimal32(one.type):
        kind = pa.decimal128(one.type.precision, one.type.scale)
        one, other = one.cast(kind), other.cast(kind)
    nulls, others = np.asarray(one.is_null()), np.asarray(other.is_null())
    unequal = np.asarray(pc.not_equal(one, other).fill_null(False))
    if pa.types.is_floating(one.type):
        both = pc.and_(pc.is_nan(one), pc.is_nan(other)).fill_null(False)
        unequal = unequal & ~np.asarray(both)
    return unequal | (nulls != others)
