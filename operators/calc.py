"""Filter and projection in one stateless operator. Knows expressions, and no windows or joins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from millrace.operators.batch import Batch
from millrace.operators.expressions.evaluate import Program
from millrace.operators.expressions.frame import Frame
from millrace.operators.expressions.text import to_sql
from millrace.operators.expressions.tree import Column, Expression
from millrace.operators.functions.buffers import broadcast
from millrace.operators.functions.row_error import RowError
from millrace.operators.operator import Context, StatelessOperator
from millrace.operators.spec import OperatorSpec


@dataclass(frozen=True, slots=True)
class Calc(OperatorSpec):
    """The rows of `input` where `predicate` is true (None: all), as `outputs` under `names`.

    A row for which an expression has no value goes to the dead letters of the context.
    """

    title: ClassVar[str] = "Calc"

    input: pa.Schema
    predicate: Expression | None
    outputs: tuple[Expression, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        assert len(self.outputs) == len(self.names)

    @property
    def output_schema(self) -> pa.Schema:
        """One field an output; a plain column carries its field's metadata and nullability along."""
        fields = []
        for expression, name in zip(self.outputs, self.names, strict=True):
            if isinstance(expression, Column):
                fields.append(self.input.field(expression.index).with_name(name))
            else:
                fields.append(pa.field(name, expression.type))
        return pa.schema(fields)

    def build(self, context: Context) -> CalcOperator:
        return CalcOperator(self, context)

    def details(self) -> dict[str, str]:
        shown = {}
        if self.predicate is not None:
            shown["where"] = to_sql(self.predicate)
        shown["select"] = ", ".join(
            name if isinstance(e, Column) and e.name == name else f"{to_sql(e)} AS {name}"
            for e, name in zip(self.outputs, self.names, strict=True)
        )
        return shown


class CalcOperator(StatelessOperator):
    """Runs a `Calc`; weights and row watermarks stay with their rows."""

    def __init__(self, spec: Calc, context: Context) -> None:
        self._context = context
        self._schema = spec.output_schema
        filters = [] if spec.predicate is None else [spec.predicate]
        self._program = Program([*filters, *spec.outputs], spec.input, context.now)
        evaluators = self._program.evaluators
        self._predicate = evaluators[0] if filters else None
        self._outputs = evaluators[len(filters) :]
        self._selection: list[int] | None = None
        if not filters and all(isinstance(e, Column) for e in spec.outputs):
            self._selection = [e.index for e in spec.outputs if isinstance(e, Column)]

    def apply(self, batch: Batch) -> Batch | None:
        if self._selection is not None:
            columns = batch.data.columns
            arrays = [columns[i] for i in self._selection]
            return batch.with_data(self._record_batch(arrays, batch.num_rows))
        while batch.num_rows:
            try:
                return self._compute(batch)
            except RowError as error:
                assert error.rows.any(), error.reason
                self._context.dead_letter(batch.take(np.flatnonzero(error.rows)), error.code, error.reason)
                batch = batch.take(np.flatnonzero(~error.rows))
        return None

    def _record_batch(self, arrays: list[pa.Array], rows: int) -> pa.RecordBatch:
        if not arrays:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _compute(self, batch: Batch) -> Batch | None:
        frame = self._program.frame(batch.data)
        if self._predicate is None:
            return batch.with_data(self._project(frame))
        mask = self._predicate(frame)
        if isinstance(mask, pa.Scalar):
            return batch.with_data(self._project(frame)) if mask.as_py() is True else None
        if mask.null_count:
            mask = mask.fill_null(False)
        count = mask.true_count
        if count == 0:
            return None
        if count == frame.rows:
            return batch.with_data(self._project(frame))
        try:
            data = self._project(frame.filter(mask, count))
        except RowError as error:
            marked = np.zeros(frame.rows, np.bool_)
            marked[np.flatnonzero(np.asarray(mask))[error.rows]] = True
            raise RowError(error.code, error.reason, marked) from error
        if batch.weights is None and batch.row_watermarks is None:
            return Batch(data)
        keep = np.asarray(mask)
        return Batch(
            data,
            None if batch.weights is None else batch.weights[keep],
            None if batch.row_watermarks is None else batch.row_watermarks[keep],
        )

    def _project(self, frame: Frame) -> pa.RecordBatch:
        rows = frame.rows
        return self._record_batch([broadcast(output(frame), rows) for output in self._outputs], rows)
