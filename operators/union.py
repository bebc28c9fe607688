"""UNION ALL: the rows of several inputs as one stream. Removes no duplicates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from millrace.operators.batch import Batch
from millrace.operators.operator import Context, Operator
from millrace.operators.spec import OperatorSpec


@dataclass(frozen=True, slots=True)
class UnionAll(OperatorSpec):
    """All rows of `count` inputs that have the types of `output` in order; names are taken from `output`."""

    title: ClassVar[str] = "UnionAll"

    output: pa.Schema
    count: int

    @property
    def output_schema(self) -> pa.Schema:
        return self.output

    def build(self, context: Context) -> Operator:
        return UnionOperator(self)

    def details(self) -> dict[str, str]:
        return {"inputs": str(self.count)}


class UnionOperator(Operator):
    """Passes every batch on under the union's names. Keeps nothing; the driver takes the least watermark."""

    def __init__(self, spec: UnionAll) -> None:
        self.inputs = spec.count
        self._schema = spec.output

    def process(self, port: int, batch: Batch) -> list[Batch]:
        if batch.schema.equals(self._schema):
            return [batch]
        return [batch.with_data(pa.RecordBatch.from_arrays(batch.data.columns, schema=self._schema))]
