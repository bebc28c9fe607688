"""The values of each group with how often each is there: the store of DISTINCT, and of what retraction needs. Sums nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.aggregates import multiset_kernels
from millrace.operators.aggregates.group_words import Slots
from millrace.operators.batch import Int64Array
from millrace.state.key_index import KeyIndex

Int32s = npt.NDArray[np.int32]


class Multiset:
    """Entries (group, values…) with `lanes` counts each, and the arrival number of the first.

    With `each`, every row is an entry of its own, so that order of arrival is kept.
    Invariant: the entries of a group are the list that starts at its head.
    """

    def __init__(self, types: Sequence[pa.DataType], *, lanes: int = 1, each: bool = False) -> None:
        self.types = tuple(types)
        self.each = each
        self.index = KeyIndex((pa.int32(), *types, *((pa.int64(),) if each else ())))
        self.counts: npt.NDArray[np.int64] = np.zeros((0, lanes), np.int64)
        self.arrival: Int64Array = np.zeros(0, np.int64)
        self.groups: Int32s = np.zeros(0, np.int32)
        self.head: Int32s = np.zeros(0, np.int32)
        self._after: Int32s = np.zeros(0, np.int32)
        self._before: Int32s = np.zeros(0, np.int32)
        self._flags: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)

    def grow(self, capacity: int) -> None:
        """Make room for groups below `capacity`."""
        if capacity > len(self.head):
            head = np.full(capacity, -1, np.int32)
            head[: len(self.head)] = self.head
            self.head = head

    def shrink(self, capacity: int) -> None:
        """Give back the room of groups from `capacity` on."""
        self.head = self.head[:capacity].copy()
        high = self.index.high
        if len(self.groups) > 1024 and len(self.groups) > 4 * high:
            self._resize(max(1024, 2 * high))

    def locate(self, slots: Slots, values: Sequence[pa.Array], sequence: int) -> tuple[Int32s, Int32s]:
        """The entry of each row, made where it is new, and the new entries; counts are not touched."""
        rows = len(slots)
        columns = [pa.array(slots.astype(np.int32, copy=False)), *values]
        arrivals = np.arange(sequence, sequence + rows)
        if self.each:
            columns.append(pa.array(arrivals))
        found = self.index.upsert(columns, rows)
        if self.index.high > len(self.groups):
            self._resize(max(1024, 2 * len(self.groups), self.index.high))
        if len(found.created):
            created = found.created
            first = self._first_rows(found.slots, created)
            self.groups[created] = slots[first]
            self.arrival[created] = arrivals[first]
            self.counts[created] = 0
            multiset_kernels.link(created, self.groups, self.head, self._after, self._before)
        return found.slots, found.created

    def _first_rows(self, entries: Int32s, created: Int32s) -> Int64Array:
        """The row in which each new entry came first."""
        if len(created) == len(entries):
            return np.arange(len(entries))
        first = np.empty(len(self.groups), np.int64)
        first[entries[::-1]] = np.arange(len(entries) - 1, -1, -1)
        return first[created]

    def _resize(self, size: int) -> None:
        keep = min(size, len(self.groups))
        for name in ("counts", "arrival", "groups", "_after", "_before", "_flags"):
            old = getattr(self, name)
            new = np.zeros((size, *old.shape[1:]), old.dtype)
            new[:keep] = old[:keep]
            setattr(self, name, new)

    def vanished(self, entries: Int32s) -> Int32s:
        """Those of `entries` whose counts are all 0, once each."""
        out = np.empty(len(entries), np.int32)
        return out[: multiset_kernels.vanished(entries, self.counts, out, self._flags)]

    def drop(self, entries: Int32s) -> None:
        """Forget entries."""
        if len(entries):
            multiset_kernels.unlink(entries, self.groups, self.head, self._after, self._before)
            self.counts[entries] = 0
            self.index.remove(entries)

    def gather(self, slots: Slots) -> tuple[Int32s, Int64Array]:
        """The entries of groups: group i has `entries[offsets[i]:offsets[i + 1]]`, in no order."""
        offsets = np.empty(len(slots) + 1, np.int64)
        multiset_kernels.measure(slots, self.head, self._after, offsets)
        entries = np.empty(int(offsets[-1]), np.int32)
        multiset_kernels.walk(slots, self.head, self._after, entries)
        return entries, offsets

    def drop_groups(self, slots: Slots) -> None:
        """Forget all entries of groups."""
        entries, _ = self.gather(slots)
        self.head[slots] = -1
        if len(entries):
            self.counts[entries] = 0
            self.index.remove(entries)

    def values(self, entries: Int32s) -> list[pa.Array]:
        """The value columns of entries."""
        return self.index.keys(entries)[1 : 1 + len(self.types)]

    def find_best(self, slots: Slots, values: npt.NDArray[np.generic], best: Int32s, sign: int) -> None:
        """Settle `best` (an entry by group) for these groups by `values` (by entry)."""
        multiset_kernels.find_best(slots, self.head, self._after, self.counts, values, best, sign)

    def capture(self, slots: Slots) -> pa.Array:
        """Each group's entries as a list of structs: values v0…, counts c0…, arrival."""
        entries, offsets = self.gather(slots)
        columns = {f"v{i}": column for i, column in enumerate(self.values(entries))}
        columns |= {f"c{i}": pa.array(self.counts[entries, i]) for i in range(self.counts.shape[1])}
        columns["arrival"] = pa.array(self.arrival[entries])
        structs = pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
        return pa.LargeListArray.from_arrays(pa.array(offsets), structs)

    def restore(self, slots: Slots, state: pa.Array) -> tuple[Int32s, Int32s]:
        """The inverse of `capture`, into empty groups; each entry and its group."""
        offsets: Int64Array = np.asarray(state.offsets)
        lengths = offsets[1:] - offsets[:-1]
        structs = state.flatten()
        groups = np.repeat(slots.astype(np.int32), lengths)
        arrival = np.asarray(structs.field("arrival"))
        values = [structs.field(f"v{i}") for i in range(len(self.types))]
        order = np.argsort(arrival, kind="stable")
        picked = pa.array(order)
        entries = np.empty(len(groups), np.int32)
        if self.each:
            located = self._restore_each(groups[order], [v.take(picked) for v in values], arrival[order])
        else:
            located, _ = self.locate(groups[order], [v.take(picked) for v in values], 0)
        entries[order] = located
        self.arrival[entries] = arrival
        for lane in range(self.counts.shape[1]):
            self.counts[entries, lane] = np.asarray(structs.field(f"c{lane}"))
        return entries, groups

    def _restore_each(self, groups: Int32s, values: list[pa.Array], arrival: Int64Array) -> Int32s:
        """Entries that keep their arrival numbers as part of their key."""
        found = self.index.upsert([pa.array(groups), *values, pa.array(arrival)], len(groups))
        if self.index.high > len(self.groups):
            self._resize(max(1024, self.index.high))
        self.groups[found.slots] = groups
        multiset_kernels.link(found.created, self.groups, self.head, self._after, self._before)
        return found.slots
