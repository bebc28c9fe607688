"""DISTINCT: counts of distinct values with many filters at once, and any other aggregate fed with distinct values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.aggregates import multiset_kernels
from millrace.operators.aggregates.accumulators import Accumulator, Outcome
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.aggregates.columns import Rows, truth
from millrace.operators.aggregates.group_words import Slots
from millrace.operators.aggregates.multiset import Int32s, Multiset
from millrace.operators.batch import Int64Array

LANES_MAX = 63
"""So many filters share one set of distinct values."""


class DistinctCounts(Accumulator):
    """COUNT(DISTINCT values) under several filters (lanes) that share the values.

    Arguments are the value columns, then the filter columns; lane j is `filters[j]` (None: all rows).
    Append-only, each entry remembers a bit a lane (in the one column of counts); else a count a lane.
    """

    def __init__(self, types: list[pa.DataType], filters: list[int | None], *, retracting: bool) -> None:
        self.filters = filters
        self.retracting = retracting
        self.values = Multiset(types, lanes=len(filters) if retracting else 1)
        self.distinct: npt.NDArray[np.int64] = np.zeros((0, len(filters)), np.int64)

    def grow(self, capacity: int) -> None:
        self.values.grow(capacity)
        if capacity > len(self.distinct):
            grown = np.zeros((capacity, len(self.filters)), np.int64)
            grown[: len(self.distinct)] = self.distinct
            self.distinct = grown

    def shrink(self, capacity: int) -> None:
        self.values.shrink(capacity)
        self.distinct = self.distinct[:capacity].copy()

    def update(self, rows: Rows) -> None:
        rows = rows.selected()
        width = len(self.values.types)
        lanes = self._lanes(rows.arguments[width:], len(rows.slots))
        entries, _ = self.values.locate(rows.slots, rows.arguments[:width], rows.sequence)
        self._count(entries, rows.slots, lanes, rows.weights)

    def _lanes(self, filters: tuple[pa.Array, ...], rows: int) -> Int64Array | None:
        """One bit a lane that a row counts in; None: the only lane is unfiltered."""
        if self.filters == [None]:
            return None
        bits = np.zeros(rows, np.int64)
        at = 0
        for lane, column in enumerate(self.filters):
            if column is None:
                bits |= np.int64(1 << lane)
            else:
                bits |= truth(filters[at]).astype(np.int64) << lane
                at += 1
        return bits

    def _count(
        self, entries: Int32s, slots: Slots, lanes: Int64Array | None, weights: Int64Array | None
    ) -> None:
        values = self.values
        if not self.retracting:
            seen = values.counts.reshape(-1)
            multiset_kernels.see(entries, slots, None, lanes, seen, self.distinct)
            return
        multiset_kernels.count_lanes(entries, slots, lanes, weights, values.counts, self.distinct)
        if weights is not None:
            values.drop(values.vanished(entries))

    def merge(self, slots: Slots, other: Accumulator, other_slots: Slots) -> None:
        assert isinstance(other, DistinctCounts)
        theirs, offsets = other.values.gather(other_slots)
        groups = np.repeat(slots, np.diff(offsets)).astype(np.int32)
        entries, _ = self.values.locate(groups, other.values.values(theirs), 0)
        if not self.retracting:
            self._count(entries, groups, other.values.counts[theirs, 0], None)
            return
        for lane in range(len(self.filters)):
            bits = np.full(len(groups), 1 << lane, np.int64)
            weights = np.ascontiguousarray(other.values.counts[theirs, lane])
            multiset_kernels.count_lanes(entries, groups, bits, weights, self.values.counts, self.distinct)
        self.values.drop(self.values.vanished(entries))

    def reset(self, slots: Slots) -> None:
        self.values.drop_groups(slots)
        self.distinct[slots] = 0

    def result(self, call: AggregateCall, slots: Slots) -> Outcome:
        lane = self.filters.index(call.filter)
        return Outcome(pa.array(self.distinct[slots, lane]))

    def capture(self, slots: Slots) -> pa.Array:
        return self.values.capture(slots)

    def restore(self, slots: Slots, state: pa.Array) -> None:
        entries, groups = self.values.restore(slots, state)
        for lane in range(len(self.filters)):
            if self.retracting:
                present = self.values.counts[entries, lane] > 0
            else:
                present = (self.values.counts[entries, 0] >> lane) & 1 != 0
            np.add.at(self.distinct[:, lane], groups[present], 1)


class DistinctFeed(Accumulator):
    """Any accumulator that sees each distinct row of arguments once: as it comes (+1) and, when its last goes (−1)."""

    def __init__(self, types: list[pa.DataType], inner: Accumulator, *, retracting: bool) -> None:
        self.values = Multiset(types)
        self.inner = inner
        self.retracting = retracting
        self.needs_arguments = inner.needs_arguments

    def grow(self, capacity: int) -> None:
        self.values.grow(capacity)
        self.inner.grow(capacity)

    def shrink(self, capacity: int) -> None:
        self.values.shrink(capacity)
        self.inner.shrink(capacity)

    def update(self, rows: Rows) -> None:
        rows = rows.selected()
        entries, _ = self.values.locate(rows.slots, rows.arguments, rows.sequence)
        self._feed(rows, entries)
        if rows.weights is not None:
            self.values.drop(self.values.vanished(entries))

    def _feed(self, rows: Rows, entries: Slots) -> None:
        turns = np.empty(len(entries), np.int64)
        multiset_kernels.turn(entries, rows.weights, self.values.counts, turns)
        fresh = np.flatnonzero(turns)
        picked = pa.array(fresh)
        self.inner.update(
            Rows(
                rows.slots[fresh],
                tuple(argument.take(picked) for argument in rows.arguments),
                None,
                turns[fresh] if self.retracting else None,
                rows.sequence,
            )
        )

    def merge(self, slots: Slots, other: Accumulator, other_slots: Slots) -> None:
        assert isinstance(other, DistinctFeed)
        theirs, offsets = other.values.gather(other_slots)
        groups = np.repeat(slots, np.diff(offsets)).astype(np.int32)
        order = np.argsort(other.values.arrival[theirs], kind="stable")
        theirs, groups = theirs[order], groups[order]
        values = other.values.values(theirs)
        entries, _ = self.values.locate(groups, values, 0)
        weights = np.ascontiguousarray(other.values.counts[theirs, 0])
        self._feed(Rows(groups, tuple(values), None, weights, 0), entries)

    def reset(self, slots: Slots) -> None:
        self.values.drop_groups(slots)
        self.inner.reset(slots)

    def result(self, call: AggregateCall, slots: Slots) -> Outcome:
        return self.inner.result(call, slots)

    def capture(self, slots: Slots) -> pa.Array:
        return self.values.capture(slots)

    def restore(self, slots: Slots, state: pa.Array) -> None:
        entries, _ = self.values.restore(slots, state)
        present = entries[self.values.counts[entries, 0] > 0]
        order = np.argsort(self.values.arrival[present], kind="stable")
        present = present[order]
        values = tuple(self.values.values(present))
        self.inner.update(Rows(self.values.groups[present], values, None, None, 0))
