"""The rows that an expression is evaluated over, with what was already computed of them. Evaluates nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.functions.row_error import Value

Rows = npt.NDArray[np.int64]


class Frame:
    """Columns of one batch, or of some rows of another frame; columns and shared results are taken on demand.

    `cache` holds one value per shared subexpression. `now` is the processing time in µs, fixed for the batch.
    """

    __slots__ = ("_columns", "_indices", "_parent", "cache", "now", "rows")

    def __init__(
        self,
        columns: Sequence[pa.Array],
        rows: int,
        slots: int,
        now: int = 0,
        parent: Frame | None = None,
        indices: pa.Array | None = None,
    ) -> None:
        self._columns: list[pa.Array | None] = list(columns)
        self._parent = parent
        self._indices = indices
        self.rows = rows
        self.cache: list[Value | None] = [None] * slots
        self.now = now

    def column(self, index: int) -> pa.Array:
        found = self._columns[index]
        if found is None:
            assert self._parent is not None
            found = self._columns[index] = self._pick(self._parent.column(index))
        return found

    def computed(self, slot: int) -> Value | None:
        """The shared result, if this frame or the one it was cut from has it."""
        found = self.cache[slot]
        if found is None and self._parent is not None:
            above = self._parent.computed(slot)
            if above is not None:
                found = self.cache[slot] = above if isinstance(above, pa.Scalar) else self._pick(above)
        return found

    def _pick(self, values: pa.Array) -> pa.Array:
        assert self._indices is not None
        if isinstance(self._indices, pa.BooleanArray):
            return values.filter(self._indices)
        return values.take(self._indices)

    def subset(self, rows: Rows) -> Frame:
        """The frame of the rows at these positions."""
        nothing: list[pa.Array | None] = [None] * len(self._columns)
        return Frame(nothing, len(rows), len(self.cache), self.now, self, pa.array(rows))

    def filter(self, mask: pa.BooleanArray, count: int) -> Frame:
        """The frame of the `count` rows at which `mask` is true."""
        indices = mask if 8 * count > self.rows else pc.indices_nonzero(mask)
        nothing: list[pa.Array | None] = [None] * len(self._columns)
        return Frame(nothing, count, len(self.cache), self.now, self, indices)


Evaluator = Callable[[Frame], Value]
"""A compiled expression: an array of the frame's length, or a scalar for all of its rows."""
