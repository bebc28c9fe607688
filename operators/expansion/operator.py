"""The operator behind table functions: columns of the input are repeated, new ones put beside them. Keeps nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.batch import Batch, Int64Array
from millrace.operators.expansion.functions import build
from millrace.operators.expansion.spec import Expand, made_schema
from millrace.operators.expressions.evaluate import Program
from millrace.operators.functions.buffers import broadcast
from millrace.operators.functions.row_error import RowError, isolate
from millrace.operators.operator import Context, StatelessOperator

Bools = npt.NDArray[np.bool_]


@dataclass(slots=True)
class _Rows:
    """New rows: the row of the input that each is of, and the new columns. `whole`: each input row has one."""

    parents: Int64Array
    columns: list[pa.Array]
    whole: bool = False

    def take(self, chosen: Int64Array) -> _Rows:
        """Some of them."""
        places = pa.array(chosen)
        return _Rows(self.parents[chosen], [c.take(places) for c in self.columns])


class ExpandOperator(StatelessOperator):
    """Runs an `Expand`; weights and row watermarks are repeated with their rows."""

    def __init__(self, spec: Expand, context: Context) -> None:
        self._spec = spec
        self._context = context
        self._schema = spec.output_schema
        self._arguments = Program(spec.arguments, spec.input, context.now)
        types = tuple(argument.type for argument in spec.arguments)
        self._body = build(spec.function, types, tuple(spec.made))
        self._made = made_schema(spec.made, spec.ordinality)
        self._both = pa.schema([*spec.input, *self._made])
        self._condition = None
        if spec.condition is not None:
            self._condition = Program([spec.condition], self._both, context.now)

    def apply(self, batch: Batch) -> Batch | None:
        while batch.num_rows:
            try:
                return self._expanded(batch)
            except RowError as error:
                assert error.rows.any(), error.reason
                self._context.dead_letter(batch.take(np.flatnonzero(error.rows)), error.code, error.reason)
                batch = batch.take(np.flatnonzero(~error.rows))
        return None

    def _expanded(self, batch: Batch) -> Batch | None:
        """Raises RowError for rows whose arguments, new rows or condition do not compute."""
        count = batch.num_rows
        rows = self._rows(batch.data)
        if self._condition is not None:
            rows = self._holding(batch.data, rows)
        if self._spec.outer:
            rows = self._with_childless(rows, count)
        if not len(rows.parents):
            return None
        width = len(self._spec.input)
        parents = None if rows.whole else pa.array(rows.parents)
        arrays = []
        for at in self._spec.outputs:
            if at >= width:
                arrays.append(rows.columns[at - width])
            else:
                column = batch.data.column(at)
                arrays.append(column if parents is None else column.take(parents))
        data = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        if parents is None:
            return batch.with_data(data)
        weights, marks = batch.weights, batch.row_watermarks
        return Batch(
            data,
            None if weights is None else weights[rows.parents],
            None if marks is None else marks[rows.parents],
        )

    def _rows(self, data: pa.RecordBatch) -> _Rows:
        frame = self._arguments.frame(data)
        values = [broadcast(value(frame), data.num_rows) for value in self._arguments.evaluators]
        try:
            made = self._body(values, data.num_rows)
        except (ValueError, ArithmeticError) as error:
            raise isolate(self._body, values, data.num_rows, error, self._spec.function) from error
        columns, counts = made.columns, made.counts
        parents = np.repeat(np.arange(data.num_rows), counts)
        if self._spec.ordinality:
            ordinals = np.arange(1, len(parents) + 1) - np.repeat(np.cumsum(counts) - counts, counts)
            columns = [*columns, pa.array(ordinals)]
        return _Rows(parents, columns, bool((counts == 1).all()))

    def _holding(self, data: pa.RecordBatch, rows: _Rows) -> _Rows:
        """The new rows for which the condition is true."""
        assert self._condition is not None
        places = pa.array(rows.parents)
        arrays = [*(column.take(places) for column in data.columns), *rows.columns]
        frame = self._condition.frame(pa.RecordBatch.from_arrays(arrays, schema=self._both))
        try:
            held = broadcast(self._condition.evaluators[0](frame), len(rows.parents))
        except RowError as error:
            marked: Bools = np.zeros(data.num_rows, np.bool_)
            marked[rows.parents[error.rows]] = True
            raise RowError(error.code, error.reason, marked) from error
        return rows.take(np.flatnonzero(np.asarray(held.fill_null(False))))

    def _with_childless(self, rows: _Rows, count: int) -> _Rows:
        """A row with NULLs more for each input row that has none, at its place."""
        counts = np.bincount(rows.parents, minlength=count)
        without = counts == 0
        if not without.any():
            return rows
        grown = np.maximum(counts, 1)
        parents = np.repeat(np.arange(count), grown)
        nothing = without[parents]
        places = np.cumsum(~nothing) - 1
        chosen = pa.array(places, mask=nothing)
        return _Rows(parents, [c.take(chosen) for c in rows.columns], bool((grown == 1).all()))
