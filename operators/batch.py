"""What flows on an edge: a batch of rows, with optional weights. Knows nothing of who sends or takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Int64Array = npt.NDArray[np.int64]

START_OF_TIME = -(2**63)
"""The watermark before anything is promised, in µs."""
END_OF_TIME = 2**63 - 1
"""The watermark after bounded input has ended, in µs: everything open is emitted."""


@dataclass(slots=True, eq=False)
class Batch:
    """Rows as one Arrow `RecordBatch`.

    `weights` (int64, one a row) makes it a Z-set: +1 inserts the row, -1 retracts one that was
    inserted; None stands for all +1. `row_watermarks` (int64 µs, one a row) is the watermark the rows
    before each row had set in its split; None says that no row is behind it, so that none can be late.
    """

    data: pa.RecordBatch
    weights: Int64Array | None = None
    row_watermarks: Int64Array | None = None

    def __post_init__(self) -> None:
        assert self.weights is None or len(self.weights) == self.data.num_rows
        assert self.row_watermarks is None or len(self.row_watermarks) == self.data.num_rows

    @property
    def num_rows(self) -> int:
        return int(self.data.num_rows)

    @property
    def schema(self) -> pa.Schema:
        return self.data.schema

    def with_data(self, data: pa.RecordBatch) -> Batch:
        """The same rows with other columns."""
        return Batch(data, self.weights, self.row_watermarks)

    def filter(self, mask: pa.BooleanArray) -> Batch:
        """The rows where `mask` is true (null counts as false)."""
        if self.weights is None and self.row_watermarks is None:
            return Batch(self.data.filter(mask))
        keep = np.asarray(mask.fill_null(False))
        return Batch(
            self.data.filter(mask),
            None if self.weights is None else self.weights[keep],
            None if self.row_watermarks is None else self.row_watermarks[keep],
        )

    def take(self, rows: npt.NDArray[np.integer]) -> Batch:
        """The rows at these positions, in this order."""
        return Batch(
            self.data.take(pa.array(rows)),
            None if self.weights is None else self.weights[rows],
            None if self.row_watermarks is None else self.row_watermarks[rows],
        )

    def slice(self, offset: int, length: int | None = None) -> Batch:
        """Rows `offset` to `offset + length`, without a copy."""
        end = self.num_rows if length is None else offset + length
        return Batch(
            self.data.slice(offset, length),
            None if self.weights is None else self.weights[offset:end],
            None if self.row_watermarks is None else self.row_watermarks[offset:end],
        )


def concatenate(batches: Sequence[Batch], schema: pa.Schema) -> Batch:
    """All rows of `batches` in order; `schema` serves where there is none."""
    if not batches:
        return Batch(pa.RecordBatch.from_pylist([], schema=schema))
    if len(batches) == 1:
        return batches[0]
    data = pa.concat_batches([batch.data for batch in batches])
    weights = None
    if any(batch.weights is not None for batch in batches):
        weights = np.concatenate(
            [np.ones(b.num_rows, np.int64) if b.weights is None else b.weights for b in batches]
        )
    marks = None
    if any(batch.row_watermarks is not None for batch in batches):
        marks = np.concatenate(
            [
                np.full(b.num_rows, START_OF_TIME, np.int64) if b.row_watermarks is None else b.row_watermarks
                for b in batches
            ]
        )
    return Batch(data, weights, marks)
