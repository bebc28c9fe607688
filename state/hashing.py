"""Stable hashes of key columns, and what follows from them: vnodes and owners. Knows no operator and no table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.state.encoding import readable
from millrace.state.words import Int32s, Int64s, Layout, Uint16s, Words, buffers_of, kinds_of

CHUNK_ROWS = 512
"""Rows that are staged at a time, so that their words stay in the first-level cache."""


def hash_columns(columns: Sequence[pa.Array], rows: int | None = None) -> Words:
    """One uint64 a row, the same on every machine and in every version.

    Equal keys hash alike: whatever the offset, the chunking, the integer width, float32 or float64,
    string or dictionary; NULL equals NULL, NaN equals NaN, -0.0 equals 0.0. `rows` is needed where
    there is no column.
    """
    from millrace.state import hash_kernels  # deferred: Numba is slow to import

    count = len(columns[0]) if columns else (1 if rows is None else rows)
    hashes = np.empty(count, np.uint64)
    if count == 0:
        return hashes
    columns = [readable(column) for column in columns]
    layout = Layout.of(kinds_of(columns), nulls=False)
    words = np.empty(CHUNK_ROWS * max(layout.stride, 1), np.uint64)
    buffers, _kept = buffers_of(columns, layout.kinds, layout.places)
    hash_kernels.hash_rows(buffers, count, words.ctypes.data, layout.stride, CHUNK_ROWS, hashes.ctypes.data)
    return hashes


def vnodes_of(hashes: Words, vnodes: int) -> Uint16s:
    """The vnode of each hash, in 0 … `vnodes` - 1 (at most 65,536)."""
    from millrace.state import hash_kernels  # deferred: Numba is slow to import

    out = np.empty(len(hashes), np.uint16)
    hash_kernels.vnodes_of(hashes, vnodes, out)
    return out


def partition_rows(
    vnodes: Uint16s, owner_of_vnode: npt.NDArray[np.int16], owners: int | None = None
) -> tuple[Int32s, Int64s]:
    """Rows grouped by owner, each group in row order: owner o has `order[bounds[o]:bounds[o + 1]]`.

    `owner_of_vnode` has the owner (0 …) of each vnode; `owners` is how many there are.
    """
    from millrace.state import hash_kernels  # deferred: Numba is slow to import

    table = np.ascontiguousarray(owner_of_vnode, np.int16)
    assert table.min() >= 0, "rows whose owner is unknown are held back, not partitioned"
    count = int(table.max()) + 1 if owners is None else owners
    assert count > table.max() and (not len(vnodes) or vnodes.max() < len(table))
    order = np.empty(len(vnodes), np.int32)
    bounds = np.empty(count + 1, np.int64)
    hash_kernels.partition_rows(vnodes, table, order, bounds)
    return order, bounds
