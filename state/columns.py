"""Numbers by slot that grow with a key index, and which slots changed since the last capture. Knows no aggregate."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.errors import Bug
from millrace.state.growth import capacity_for, extended
from millrace.state.key_index import KeyIndex
from millrace.state.words import Slots, Words

_SLOTS_MIN = 64


class SlotColumn:
    """One number a slot. `values` is the whole backing array: index it by slot, never keep it across `grow`.

    Invariant: a slot that was never written, or was reset, holds `fill`.
    """

    __slots__ = ("dtype", "fill", "values")

    def __init__(self, dtype: npt.DTypeLike, fill: float | bool = 0, capacity: int = _SLOTS_MIN) -> None:
        self.dtype = np.dtype(dtype)
        self.fill = fill
        self.values: npt.NDArray[Any] = np.full(max(capacity, _SLOTS_MIN), fill, self.dtype)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.values.nbytes

    def grow(self, high: int) -> None:
        """Have room for slots below `high`; amortised, and nothing at all where there is room."""
        size = len(self.values)
        if high <= size:
            return
        if sys.getrefcount(self.values) > 2:  # somebody has a view of it, which must not lose its memory
            self.values = self.values.copy()
        self.values = extended(self.values, capacity_for(high, size))
        if self.fill:
            self.values[size:] = self.fill

    def fit(self, high: int) -> None:
        """Give memory back after a spike, where slots from `high` on are free and most are."""
        if len(self.values) > 1024 and high * 4 <= len(self.values):
            self.values = self.values[: max(high * 2, 1024)].copy()

    def reset(self, slots: Slots, value: float | bool | None = None) -> None:
        """Put `value` (the fill where None) into these slots: when a slot is created or removed."""
        self.values[slots] = self.fill if value is None else value

    def gather(
        self,
        slots: Slots,
        data_type: pa.DataType | None = None,
        valid: npt.NDArray[np.bool_] | None = None,
    ) -> pa.Array:
        """The values of these slots as Arrow; `data_type` must have the same width, `valid` is one a row."""
        picked = self.values[slots]
        validity = (
            None
            if valid is None or valid.all()
            else pa.py_buffer(np.packbits(np.asarray(valid, np.bool_), bitorder="little"))
        )
        stored = pa.from_numpy_dtype(self.dtype) if data_type is None else data_type
        buffer = np.packbits(picked.astype(np.bool_), bitorder="little") if self.dtype == np.bool_ else picked
        return pa.Array.from_buffers(stored, len(picked), [validity, pa.py_buffer(buffer)])


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened since the last capture.

    `slots` were created or changed and are live. `removed` has the keys removed since (one array a key
    column) with `removed_hashes`; a removed key may be live again, so deletions are applied before rows.
    """

    slots: Slots
    removed: list[pa.Array]
    removed_hashes: Words


class DirtySlots:
    """Which slots of a key index changed since the last capture, as a bitmap.

    Nothing is kept before the first `take`, since the first capture is complete anyway: `active` is
    False until then, and the methods return at once.
    """

    def __init__(self, index: KeyIndex) -> None:
        self._index = index
        self._dirty: Words = np.zeros(1, np.uint64)
        self._born: Words = np.zeros(1, np.uint64)
        self._removed: list[list[pa.Array]] = []
        self._removed_hashes: list[Words] = []
        self.active = False

    @cached_property
    def _kernels(self):  # type: ignore[no-untyped-def]
        from millrace.state import column_kernels  # deferred: Numba is slow to import

        return column_kernels

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        keys = sum(array.nbytes for arrays in self._removed for array in arrays)
        return self._dirty.nbytes + self._born.nbytes + keys + sum(h.nbytes for h in self._removed_hashes)

    def mark(self, slots: Slots) -> None:
        """These live slots changed (repeats are fine)."""
        if self.active and len(slots):
            self._room()
            if not self._kernels.mark(self._dirty, slots):
                raise Bug("a slot was marked as changed, and it is not live")

    def create(self, slots: Slots) -> None:
        """These slots were created: `Upserted.created`. Marks them too."""
        if self.active and len(slots):
            self._room()
            self._kernels.mark(self._dirty, slots)
            self._kernels.mark(self._born, slots)

    def remove(self, slots: Slots) -> None:
        """These slots are about to be removed: call it before `KeyIndex.remove`, with the same slots."""
        if not self.active or not len(slots):
            return
        self._room()
        at = slots.astype(np.uint64)
        born = (self._born[slots >> 6] >> (at & np.uint64(63))) & np.uint64(1) != 0
        told = slots[~born]
        if len(told):
            self._removed.append(self._index.keys(told))
            self._removed_hashes.append(self._index.hashes(told))
        self._kernels.clear(self._dirty, slots)
        self._kernels.clear(self._born, slots)

    def take(self) -> Changes:
        """All since the last call, and a new start. The first call tells of every live slot."""
        if not self.active:
            self.active = True
            slots = self._index.live()
        else:
            slots = np.empty(self._kernels.count(self._dirty), np.int32)
            self._kernels.positions(self._dirty, slots)
        removed = [
            pa.concat_arrays([arrays[c] for arrays in self._removed])
            if self._removed
            else pa.array([], data_type)
            for c, data_type in enumerate(self._index.types)
        ]
        hashes = np.concatenate([np.empty(0, np.uint64), *self._removed_hashes])
        words = (self._index.high + 63) // 64 + 1
        self._dirty, self._born = np.zeros(words, np.uint64), np.zeros(words, np.uint64)
        self._removed, self._removed_hashes = [], []
        return Changes(slots, removed, hashes)

    def _room(self) -> None:
        words = (self._index.high + 63) // 64
        if words > len(self._dirty):
            for name in ("_dirty", "_born"):
                grown = np.zeros(words * 2, np.uint64)
                before = getattr(self, name)
                grown[: len(before)] = before
                setattr(self, name, grown)
