"""Rows as often as a column of theirs says: the last step of EXCEPT and INTERSECT. Keeps no state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from millrace.operators.batch import Batch
from millrace.operators.operator import Context, Operator, StatelessOperator
from millrace.operators.spec import OperatorSpec


@dataclass(frozen=True, slots=True)
class Repeat(OperatorSpec):
    """Each row of `input` as often as its last column, an int64 that is not negative, says; without that column.

    Changes of one row within a batch are summed first, so that a count that rises from 5 to 6 sends one row.
    With `append` no row is ever taken back, because the counts only rise.
    """

    title: ClassVar[str] = "Repeat"

    input: pa.Schema
    append: bool = False

    @property
    def output_schema(self) -> pa.Schema:
        return pa.schema(list(self.input)[:-1])

    def build(self, context: Context) -> Operator:
        return RepeatOperator(self)

    def details(self) -> dict[str, str]:
        return {"times": self.input.names[-1]}


class RepeatOperator(StatelessOperator):
    """Turns counts into copies."""

    def __init__(self, spec: Repeat) -> None:
        self._schema = spec.output_schema
        self._append = spec.append

    def apply(self, batch: Batch) -> Batch | None:
        from millrace.operators.consolidate import consolidate  # deferred: kernels import numba

        times = batch.data.column(len(self._schema)).to_numpy(zero_copy_only=False)
        weights = times if batch.weights is None else times * batch.weights
        kept = np.flatnonzero(weights)
        rows = pa.RecordBatch.from_arrays(batch.data.columns[:-1], schema=self._schema)
        changed = Batch(rows, weights) if len(kept) == len(weights) else Batch(rows).take(kept)
        net = consolidate(Batch(changed.data, weights[kept]))
        assert net.weights is not None
        copies = np.abs(net.weights)
        signs = np.sign(net.weights).repeat(copies)
        out = net.data
        if len(signs) != len(copies):
            out = Batch(net.data).take(np.arange(len(copies)).repeat(copies)).data
        if self._append:
            assert (signs >= 0).all(), "a count that only rises fell"
            return Batch(out)
        return Batch(out, signs)
