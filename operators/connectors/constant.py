"""A source of few rows that are part of the plan itself: VALUES, and the one row of a query without FROM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from millrace.operators.connectors.arrow import ArrowSource
from millrace.operators.operator import Context
from millrace.operators.source import Source, SourceSpec


@dataclass(frozen=True, slots=True)
class ConstantRows(SourceSpec):
    """The rows of one batch, which stands in `data` as an Arrow IPC stream."""

    title: ClassVar[str] = "values"
    data: bytes
    columns: tuple[int, ...] | None = None

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> ConstantRows:
        """The rows of `batch`."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return cls(sink.getvalue().to_pybytes())

    @property
    def output_schema(self) -> pa.Schema:
        schema = pa.ipc.open_stream(self.data).schema
        return schema if self.columns is None else pa.schema([schema.field(i) for i in self.columns])

    @property
    def bounded(self) -> bool:
        return True

    def with_columns(self, columns: tuple[int, ...]) -> ConstantRows:
        return ConstantRows(
            self.data, columns if self.columns is None else tuple(self.columns[i] for i in columns)
        )

    def build(self, context: Context) -> Source:
        batches = list(pa.ipc.open_stream(self.data))
        return ArrowSource((batches,), None if self.columns is None else list(self.columns))

    def details(self) -> dict[str, str]:
        return {"rows of the text": str(sum(batch.num_rows for batch in pa.ipc.open_stream(self.data)))}
