"""Upserts made into changes that say what they take back. Knows no SQL and no join."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from millrace.operators.batch import Batch
from millrace.operators.joins.capture import capture_side, restore_side
from millrace.operators.joins.sides import KnownRows
from millrace.operators.operator import Capture, Context, Operator
from millrace.operators.spec import OperatorSpec
from millrace.state.key_index import KeyIndex


@dataclass(frozen=True, slots=True)
class Normalize(OperatorSpec):
    """The upserts of `input` by `key` as a changelog in which each row replaced or removed is taken back first."""

    title: ClassVar[str] = "Normalize"

    input: pa.Schema
    key: tuple[int, ...]

    def __post_init__(self) -> None:
        assert self.key

    @property
    def output_schema(self) -> pa.Schema:
        return self.input

    def build(self, context: Context) -> Operator:
        return NormalizeOperator(self, context)

    def details(self) -> dict[str, str]:
        return {"key": ", ".join(self.input.field(k).name for k in self.key), "state": "one row a key"}


class NormalizeOperator(Operator):
    """Keeps the last row of each key."""

    def __init__(self, spec: Normalize, context: Context) -> None:
        self._schema = spec.input
        self._key = spec.key
        self._vnodes = context.vnodes
        stored = pa.schema([pa.field(f"c{i}", field.type) for i, field in enumerate(spec.input)])
        self._index = KeyIndex([spec.input.field(k).type for k in spec.key])
        self._rows = KnownRows(stored, None, upsert=True, with_matches=False, lenient=True)
        self._mark: int | None = None

    def process(self, port: int, batch: Batch) -> list[Batch]:
        slots = self._index.upsert([batch.data.column(k) for k in self._key], batch.num_rows).slots
        data = pa.RecordBatch.from_arrays(batch.data.columns, schema=self._rows.schema)
        delta = self._rows.absorb(data, slots, batch.weights)
        touched = np.unique(slots)
        self._index.remove(touched[self._rows.links.sizes(touched) == 0])
        if not len(delta.slots):
            return []
        return [Batch(pa.RecordBatch.from_arrays(delta.data.columns, schema=self._schema), delta.weights)]

    def capture(self, *, changes: bool) -> Capture:
        mark = self._mark if changes else None
        captured = capture_side(self._rows, self._index, mark, None, self._vnodes)
        self._mark = self._rows.next_number
        return {"rows": captured}

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        if "rows" in tables:
            restore_side(self._rows, self._index, tables["rows"], None)
