"""Which rows of a large partition are near its first ones: the others need not be looked at. Keeps no row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from millrace.operators.batch import Int64Array
from millrace.state.columns import SlotColumn

Bools = npt.NDArray[np.bool_]
Slots = npt.NDArray[np.int32]


class Fronts:
    """Owns, for partitions that are split, the codes of the last row of their front.

    A row behind those codes is in the back of its partition, and so is none that is before them. Where
    `strict`, rows with just these codes are behind: they came later.
    """

    def __init__(self, width: int, *, strict: bool) -> None:
        self._strict = strict
        self._split = SlotColumn(np.bool_)
        self._codes = [SlotColumn(np.int64) for _ in range(width)]

    def grow(self, high: int) -> None:
        """Have room for slots below `high`."""
        for column in (self._split, *self._codes):
            column.grow(high)

    def behind(self, slots: Slots, codes: list[Int64Array]) -> Bools:
        """Which rows, with these codes, are in the back of their partition."""
        split = self._split.values[slots]
        if not split.any():
            return split
        behind = np.zeros(len(slots), np.bool_)
        equal = np.ones(len(slots), np.bool_)
        for column, code in zip(self._codes, codes, strict=True):
            limit = column.values[slots]
            behind |= equal & (code > limit)
            equal &= code == limit
        if self._strict:
            behind |= equal
        return behind & split

    def split(self, slots: Slots, codes: list[Int64Array]) -> None:
        """The fronts of these partitions end with rows of these codes."""
        self._split.values[slots] = True
        for column, code in zip(self._codes, codes, strict=True):
            column.values[slots] = code

    def join(self, slots: Slots) -> None:
        """These partitions are one again, or gone."""
        self._split.reset(slots)
