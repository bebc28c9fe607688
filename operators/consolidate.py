"""Folding of changelog batches: equal rows become one, weights add up, what cancels is gone. Keeps no state."""

from __future__ import annotations

import numpy as np

from millrace.operators.batch import Batch
from millrace.state.key_index import KeyIndex


def consolidate(batch: Batch) -> Batch:
    """The same Z-set with each row once: weights of equal rows summed, rows with weight 0 left out.

    Rows keep the order of their first appearance.
    """
    if batch.weights is None or batch.num_rows < 2:
        return batch
    index = KeyIndex(batch.schema.types, capacity=batch.num_rows)
    found = index.upsert(batch.data.columns, batch.num_rows)
    if len(found.created) == batch.num_rows:
        return batch
    sums = np.zeros(len(found.created), np.int64)
    np.add.at(sums, found.slots, batch.weights)
    first = np.empty(len(found.created), np.int64)
    first[found.slots[::-1]] = np.arange(batch.num_rows - 1, -1, -1)
    kept = np.flatnonzero(sums)
    folded = Batch(batch.data).take(first[kept])
    return Batch(folded.data, sums[kept])
