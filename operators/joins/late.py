"""Late rows of a join as rows of one table: columns of both sides, NULL in those of the side that did not come."""

from __future__ import annotations

import pyarrow as pa

from millrace.operators.batch import Batch


def late_schema(left: pa.Schema, right: pa.Schema) -> pa.Schema:
    """The columns of both sides, left ones first; all may be NULL."""
    return pa.schema([f.with_nullable(True) for f in (*left, *right)])


def late_batch(port: int, late: Batch, schemas: tuple[pa.Schema, pa.Schema]) -> Batch:
    """Late rows of one input, with `late_schema`. What a changelog took back is told like what it inserted."""
    count = late.num_rows
    sides = [[pa.nulls(count, field.type) for field in schema] for schema in schemas]
    sides[port] = late.data.columns
    return Batch(pa.RecordBatch.from_arrays([*sides[0], *sides[1]], schema=late_schema(*schemas)))
