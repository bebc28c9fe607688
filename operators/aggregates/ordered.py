"""Accumulators that keep all values of a group: lists, texts, percentiles, modes, and extremes under retraction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from millrace.operators.aggregates import multiset_kernels
from millrace.operators.aggregates.accumulators import Accumulator, Outcome
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.aggregates.columns import Rows, float64_of, from_float64, int64_of, is_word
from millrace.operators.aggregates.group_words import Slots
from millrace.operators.aggregates.multiset import Int32s, Multiset
from millrace.operators.batch import Int64Array

Words = npt.NDArray[np.int64]


class Values(Accumulator):
    """A multiset of argument rows a group. Append-only with `each`, every row keeps its place in arrival order."""

    def __init__(self, types: Sequence[pa.DataType], *, each: bool, nulls: bool) -> None:
        self.values = Multiset(types, each=each)
        self.needs_arguments = not nulls

    def grow(self, capacity: int) -> None:
        self.values.grow(capacity)

    def shrink(self, capacity: int) -> None:
        self.values.shrink(capacity)

    def update(self, rows: Rows) -> None:
        rows = rows.selected()
        self._take(rows.slots, rows.arguments, rows.weights, rows.sequence)

    def _take(
        self, slots: Slots, values: Sequence[pa.Array], weights: Int64Array | None, sequence: int
    ) -> tuple[Int32s, Int32s]:
        entries, created = self.values.locate(slots, values, sequence)
        multiset_kernels.turn(entries, weights, self.values.counts, np.empty(len(entries), np.int64))
        if weights is not None:
            self._drop(self.values.vanished(entries))
        return entries, created

    def _drop(self, entries: Int32s) -> None:
        self.values.drop(entries)

    def merge(self, slots: Slots, other: Accumulator, other_slots: Slots) -> None:
        assert isinstance(other, Values)
        theirs, offsets = other.values.gather(other_slots)
        groups = np.repeat(slots, np.diff(offsets)).astype(np.int32)
        order = np.argsort(other.values.arrival[theirs], kind="stable")
        theirs, groups = theirs[order], groups[order]
        weights = np.ascontiguousarray(other.values.counts[theirs, 0])
        if self.values.each:
            arrival = other.values.arrival[theirs]
            entries = self.values._restore_each(groups, other.values.values(theirs), arrival)
            self.values.arrival[entries] = arrival
            self.values.counts[entries, 0] = weights
        else:
            self._take(groups, other.values.values(theirs), weights, 0)

    def reset(self, slots: Slots) -> None:
        self.values.drop_groups(slots)

    def capture(self, slots: Slots) -> pa.Array:
        return self.values.capture(slots)

    def restore(self, slots: Slots, state: pa.Array) -> None:
        self.values.restore(slots, state)

    def result(self, call: AggregateCall, slots: Slots) -> Outcome:
        entries, offsets = self.values.gather(slots)
        groups = np.repeat(np.arange(len(slots)), np.diff(offsets))
        present = self.values.counts[entries, 0] > 0
        if not present.all():
            entries, groups = entries[present], groups[present]
        picked = Picked(len(slots), groups, entries, self.values)
        match call.function:
            case "array_agg" | "string_agg":
                return Outcome(_joined(call, picked))
            case "first_value" | "any_value":
                return Outcome(_at_end(call, picked, last=False))
            case "last_value":
                return Outcome(_at_end(call, picked, last=True))
            case "arg_min" | "arg_max":
                keyed = ((0, call.function == "arg_max", False),)
                picked.sort(keyed)
                return Outcome(picked.values[0].take(picked.first_rows()).cast(call.type))
            case "mode":
                return Outcome(_mode(call, picked))
        return Outcome(_percentile(call, picked))


class Picked:
    """Entries of several groups: `groups` (ordinals, ascending), their value columns and counts."""

    def __init__(self, size: int, groups: Int64Array, entries: Int32s, source: Multiset) -> None:
        self.size = size
        self.groups = groups
        self.values = source.values(entries)
        self.counts = source.counts[entries, 0]
        self.arrival = source.arrival[entries]

    def sort(self, order_by: Sequence[tuple[int, bool, bool]], first: int = 1) -> None:
        """Within groups by value columns from `first` on as `order_by` says (descending, nulls first), then arrival."""
        if len(order_by) == 0:
            self._reorder(np.lexsort((self.arrival, self.groups)))
            return
        keys: list[npt.NDArray[np.generic]] = []
        for place, (_, descending, nulls_first) in enumerate(order_by):
            column = self.values[first + place]
            ranks = pc.rank(column, tiebreaker="dense")
            rank = np.asarray(ranks).astype(np.int64)
            rank = -rank if descending else rank
            if column.null_count:
                missing = np.asarray(column.is_null())
                rank = np.where(missing, -(2**62) if nulls_first else 2**62, rank)
            keys.append(rank)
        self._reorder(np.lexsort((self.arrival, *reversed(keys), self.groups)))

    def _reorder(self, order: Int64Array) -> None:
        picked = pa.array(order)
        self.groups, self.counts, self.arrival = self.groups[order], self.counts[order], self.arrival[order]
        self.values = [column.take(picked) for column in self.values]

    def first_rows(self, *, last: bool = False) -> pa.Array:
        """The row of each group's first (or last) entry, null where it has none."""
        rows = np.full(self.size, -1, np.int64)
        order = np.arange(len(self.groups))
        if last:
            rows[self.groups] = order
        else:
            rows[self.groups[::-1]] = order[::-1]
        return pa.array(rows, mask=rows < 0)


def _joined(call: AggregateCall, picked: Picked) -> pa.Array:
    """All values of each group, as a list or as one text; null for none."""
    picked.sort(call.order_by)
    values, groups = picked.values[0], picked.groups
    if (picked.counts != 1).any():
        rows = np.repeat(np.arange(len(groups)), picked.counts)
        values, groups = values.take(pa.array(rows)), groups[rows]
    lengths = np.bincount(groups, minlength=picked.size)
    offsets = np.zeros(picked.size + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    nulls = lengths == 0
    lists = pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(nulls))
    if call.function == "array_agg":
        return lists.cast(call.type)
    separator = call.option("separator", ",")
    return pc.binary_join(lists, pa.scalar("" if separator is None else separator, pa.string()))


def _at_end(call: AggregateCall, picked: Picked, *, last: bool) -> pa.Array:
    picked.sort(call.order_by)
    return picked.values[0].take(picked.first_rows(last=last)).cast(call.type)


def _mode(call: AggregateCall, picked: Picked) -> pa.Array:
    ranks = np.asarray(pc.rank(picked.values[0], tiebreaker="dense")).astype(np.int64)
    picked._reorder(np.lexsort((ranks, -picked.counts, picked.groups)))
    return picked.values[0].take(picked.first_rows()).cast(call.type)


def _percentile(call: AggregateCall, picked: Picked) -> pa.Array:
    """The value at `fraction` of each group: interpolated, or for percentile_disc the first at or above it."""
    fraction = call.option("fraction", 0.5)
    assert isinstance(fraction, int | float)
    picked.sort(((0, False, False),), first=0)
    ends = np.cumsum(picked.counts)
    totals = np.bincount(picked.groups, weights=picked.counts, minlength=picked.size).astype(np.int64)
    starts = np.cumsum(totals) - totals
    some = totals > 0
    if call.function == "percentile_disc":
        rank = np.clip(np.ceil(fraction * totals).astype(np.int64) - 1, 0, np.maximum(totals - 1, 0))
        rows = np.searchsorted(ends, starts + rank, side="right")
        return picked.values[0].take(pa.array(rows, mask=~some)).cast(call.type)
    values = float64_of(picked.values[0])
    place = fraction * np.maximum(totals - 1, 0)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(totals - 1, 0))
    if not len(values):
        return pa.nulls(picked.size, call.type)
    top = len(values) - 1
    low = values[np.minimum(np.searchsorted(ends, starts + below, side="right"), top)]
    high = values[np.minimum(np.searchsorted(ends, starts + above, side="right"), top)]
    part = place - below
    return from_float64(np.where(part > 0, low + (high - low) * part, low), some, call.type)


class RetractableExtreme(Values):
    """MIN or MAX of any type where rows may be taken back; remembers each group's best entry while it lasts."""

    def __init__(self, kind: pa.DataType, *, greatest: bool) -> None:
        super().__init__((kind,), each=False, nulls=False)
        self.kind = kind
        self.sign = 1 if greatest else -1
        self._best: Int32s = np.full(0, -1, np.int32)
        self._float = pt.is_floating(kind)
        self._words: npt.NDArray[np.generic] = np.empty(0, np.float64 if self._float else np.int64)

    def grow(self, capacity: int) -> None:
        super().grow(capacity)
        if capacity > len(self._best):
            best = np.full(capacity, -1, np.int32)
            best[: len(self._best)] = self._best
            self._best = best

    def shrink(self, capacity: int) -> None:
        super().shrink(capacity)
        self._best = self._best[:capacity].copy()
        self._fit()

    def _fit(self) -> None:
        room = len(self.values.groups)
        if len(self._words) != room:
            words = np.empty(room, self._words.dtype)
            keep = min(room, len(self._words))
            words[:keep] = self._words[:keep]
            self._words = words

    def _note(self, created: Int32s) -> None:
        """Keep the order of new entries; where it is a word, see whether they are their group's best."""
        self._fit()
        if not len(created):
            return
        if not is_word(self.kind):
            self._best[self.values.groups[created]] = -2
            return
        column = self.values.values(created)[0]
        if self._float:
            self._words[created] = float64_of(column)
        else:
            self._words[created] = int64_of(column)
        multiset_kernels.raise_best(created, self.values.groups, self._words, self._best, self.sign)

    def _take(
        self, slots: Slots, values: Sequence[pa.Array], weights: Int64Array | None, sequence: int
    ) -> tuple[Int32s, Int32s]:
        entries, created = self.values.locate(slots, values, sequence)
        self._note(created)
        multiset_kernels.turn(entries, weights, self.values.counts, np.empty(len(entries), np.int64))
        if weights is not None:
            self._best[slots[self.values.counts[entries, 0] <= 0]] = -2
            self._drop(self.values.vanished(entries))
        return entries, created

    def _drop(self, entries: Int32s) -> None:
        multiset_kernels.doubt_best(entries, self.values.groups, self._best)
        self.values.drop(entries)

    def reset(self, slots: Slots) -> None:
        super().reset(slots)
        self._best[slots] = -1

    def restore(self, slots: Slots, state: pa.Array) -> None:
        entries, _ = self.values.restore(slots, state)
        self._note(entries)
        self._best[slots] = -2

    def result(self, call: AggregateCall, slots: Slots) -> Outcome:
        if not is_word(self.kind):
            self._rank(slots)
        else:
            self.values.find_best(slots, self._words, self._best, self.sign)
        best = self._best[slots]
        present = best >= 0
        values = self.values.values(best[present])[0]
        if present.all():
            return Outcome(values)
        rows = np.cumsum(present) - 1
        return Outcome(values.take(pa.array(rows, mask=~present)))

    def _rank(self, slots: Slots) -> None:
        """Settle doubtful groups by the order of their values."""
        doubtful = slots[self._best[slots] == -2]
        if not len(doubtful):
            return
        entries, _ = self.values.gather(doubtful)
        ranks = np.asarray(pc.rank(self.values.values(entries)[0], tiebreaker="dense")).astype(np.int64)
        words = np.zeros(len(self.values.groups), np.int64)
        words[entries] = ranks
        self.values.find_best(doubtful, words, self._best, self.sign)
