"""What operators of append-only input make of weights. Knows no window."""

from __future__ import annotations

import numpy as np

from millrace.operators.batch import Batch


def single_rows(batch: Batch) -> Batch:
    """The batch without weights: a row of weight k stands k times. Nothing may be taken back."""
    weights = batch.weights
    if weights is None:
        return batch
    assert (weights > 0).all(), "a row was taken back from an append-only input"
    plain = Batch(batch.data, None, batch.row_watermarks)
    return plain if (weights == 1).all() else plain.take(np.repeat(np.arange(len(weights)), weights))
