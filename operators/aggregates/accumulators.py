"""What every accumulator can do, and the set of accumulators that serves a list of calls. Knows no key and no window."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.aggregates import number_kernels
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.aggregates.columns import Bools, Mask, Rows, both, truth, validity
from millrace.operators.aggregates.group_words import GroupWords, Slots, address, narrow
from millrace.operators.batch import Int64Array

Whole = TypeVar("Whole", bound=np.integer)

_CAPACITY_MIN = 1024


@dataclass(slots=True)
class Outcome:
    """One column of results; `wrong` marks rows whose result does not exist, such as a sum beyond BIGINT."""

    values: pa.Array
    wrong: Bools | None = None


class Accumulator(ABC):
    """What is remembered of each group for one or more calls. Groups are slots below the capacity of `grow`.

    A slot's state is empty until rows come, and after `reset`.
    """

    needs_arguments = True
    """Whether rows where an argument is null do not count."""

    @abstractmethod
    def grow(self, capacity: int) -> None:
        """Make room for slots below `capacity`."""

    @abstractmethod
    def shrink(self, capacity: int) -> None:
        """Give back the memory of slots from `capacity` on, all empty."""

    @abstractmethod
    def update(self, rows: Rows) -> None:
        """Take rows in."""

    @abstractmethod
    def merge(self, slots: Slots, other: Accumulator, other_slots: Slots) -> None:
        """Add the state of `other_slots` in `other` (of the same class and calls) to `slots`."""

    @abstractmethod
    def reset(self, slots: Slots) -> None:
        """Forget these groups."""

    @abstractmethod
    def result(self, call: AggregateCall, slots: Slots) -> Outcome:
        """The value of `call` for each of these groups."""

    @abstractmethod
    def capture(self, slots: Slots) -> pa.Array:
        """The state of these groups, one value a group, as a copy."""

    @abstractmethod
    def restore(self, slots: Slots, state: pa.Array) -> None:
        """The inverse of `capture`, into empty groups."""


class WordAccumulator(Accumulator):
    """State of a fixed number of 64-bit words a group, in rows that it may share. A new group has the words of `initial`."""

    traceable = True
    """Whether `add` can write the words after each row, and a set keeps the words in rows with others'."""

    def __init__(self, initial: Sequence[int]) -> None:
        self.initial = list(initial)
        self.share(GroupWords())

    def share(self, groups: GroupWords) -> None:
        """Keep the words in these rows, which have none yet."""
        self.groups = groups
        self.at = groups.join(self.initial)

    @property
    def words(self) -> npt.NDArray[np.int64]:
        """The words by slot."""
        return self.groups.rows[:, self.at : self.at + len(self.initial)]

    @property
    def floats(self) -> npt.NDArray[np.float64]:
        """The words as floats."""
        return self.words.view(np.float64)

    @property
    def place(self) -> tuple[int, int]:
        """The address of the first group's words, and the bytes from there to the next group's."""
        return self.groups.address + 8 * self.at, self.groups.step

    def grow(self, capacity: int) -> None:
        self.groups.grow(capacity)

    def shrink(self, capacity: int) -> None:
        self.groups.shrink(capacity)

    def reset(self, slots: Slots) -> None:
        self.words[slots] = self.initial

    def update(self, rows: Rows) -> None:
        self.add(rows, None)

    def trace(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Take rows in; the words of each row's group as they are after that row."""
        words = np.empty((len(rows.slots), len(self.initial)), np.int64)
        self.add(rows, words)
        return words

    @abstractmethod
    def add(self, rows: Rows, trace: npt.NDArray[np.int64] | None) -> None:
        """Take rows in, writing the words after each row to `trace`."""

    @abstractmethod
    def finish(self, call: AggregateCall, words: npt.NDArray[np.int64]) -> Outcome:
        """The value of `call` for each row of words."""

    def result(self, call: AggregateCall, slots: Slots) -> Outcome:
        return self.finish(call, self.groups.gather(slots, self.at, len(self.initial)))

    def capture(self, slots: Slots) -> pa.Array:
        words = self.words[slots]
        width = 8 * len(self.initial)
        return pa.Array.from_buffers(pa.binary(width), len(words), [None, pa.py_buffer(words)], 0)

    def restore(self, slots: Slots, state: pa.Array) -> None:
        width = len(self.initial)
        data = np.frombuffer(state.buffers()[1], np.int64, len(state) * width, state.offset * width * 8)
        self.words[slots] = data.reshape(-1, width)


class Counter(WordAccumulator):
    """The number of rows, as weights add up."""

    def __init__(self, *, of_true: bool = False) -> None:
        super().__init__([0])
        self.of_true = of_true

    def add(self, rows: Rows, trace: npt.NDArray[np.int64] | None) -> None:
        mask = both(rows.mask, truth(rows.arguments[0])) if self.of_true else rows.mask
        number_kernels.count_rows(
            *self.place,
            address(rows.slots),
            len(rows.slots),
            address(mask),
            address(rows.weights),
            address(trace),
        )

    def merge(self, slots: Slots, other: Accumulator, other_slots: Slots) -> None:
        assert isinstance(other, Counter)
        mine, theirs = narrow(slots), narrow(other_slots)
        number_kernels.merge_counts(*self.place, address(mine), len(mine), *other.place, address(theirs))

    def finish(self, call: AggregateCall, words: npt.NDArray[np.int64]) -> Outcome:
        return Outcome(pa.array(np.ascontiguousarray(words[:, 0]), pa.int64()))


class Numbers(WordAccumulator):
    """Of one column of numbers; counts all rows on the way where a set has a counter of them in the same rows."""

    rows_at = 0
    """Where that counter is, in bytes from the own words; 0 where there is none."""


@dataclass(slots=True)
class Part:
    """One accumulator of a set with the columns it reads."""

    accumulator: Accumulator
    arguments: tuple[int, ...]
    filter: int | None
    name: str
    needed: tuple[int, ...]
    """Columns that must not be null for a row to count, unless the accumulator keeps nulls."""


class AccumulatorSet:
    """The accumulators behind a list of calls over batches of one schema; equal needs share one accumulator."""

    def __init__(self, parts: Sequence[Part], places: Sequence[int], calls: Sequence[AggregateCall]) -> None:
        self.parts = list(parts)
        self.places = list(places)
        """The part that answers each call."""
        self.calls = list(calls)
        self._wanted = [[i for i, p in enumerate(places) if p == part] for part in range(len(parts))]
        self._groups = GroupWords()
        self._apart = [part for part in self.parts if not self._sharing(part.accumulator)]
        self._counted = self._count_along()
        self.capacity = 0
        self._seen = np.zeros(0, np.int64)
        self._marks = np.zeros(0, np.uint8)

    def _sharing(self, accumulator: Accumulator) -> bool:
        """Have its words beside those of others, if it is one of words."""
        if not isinstance(accumulator, WordAccumulator) or not accumulator.traceable:
            return False
        accumulator.share(self._groups)
        return True

    def _count_along(self) -> Part | None:
        """The counter of all rows, if there are numbers of all rows, which shall count for it."""
        whole = [part for part in self.parts if part.filter is None]
        counter = next((p for p in whole if isinstance(p.accumulator, Counter) and not p.arguments), None)
        numbers = next((p.accumulator for p in whole if isinstance(p.accumulator, Numbers)), None)
        if counter is None or numbers is None:
            return None
        assert isinstance(counter.accumulator, Counter)
        numbers.rows_at = 8 * (counter.accumulator.at - numbers.at)
        return counter

    def grow(self, capacity: int) -> None:
        """Make room for slots below `capacity`, and more, so that growth is rare."""
        if capacity <= self.capacity:
            return
        self.capacity = max(capacity, 2 * self.capacity, _CAPACITY_MIN)
        self._groups.grow(self.capacity)
        for part in self._apart:
            part.accumulator.grow(self.capacity)
        self._seen = np.zeros(self.capacity, np.int64)
        self._marks = np.zeros(self.capacity, np.uint8)

    def shrink(self, high: int) -> bool:
        """Give memory back where slots from `high` on are empty and most room is; whether it did."""
        if self.capacity <= _CAPACITY_MIN or high * 4 > self.capacity:
            return False
        self.capacity = max(_CAPACITY_MIN, 2 * high)
        self._groups.shrink(self.capacity)
        for part in self._apart:
            part.accumulator.shrink(self.capacity)
        self._seen = np.zeros(self.capacity, np.int64)
        self._marks = np.zeros(self.capacity, np.uint8)
        return True

    def update(
        self, slots: Slots, data: pa.RecordBatch, weights: Int64Array | None, sequence: int = 0
    ) -> None:
        """Take the rows of `data` in, row i into group `slots[i]`."""
        for part, rows in self._rows(slots, data, weights, sequence):
            if part is not self._counted:
                part.accumulator.update(rows)

    def _rows(
        self, slots: Slots, data: pa.RecordBatch, weights: Int64Array | None, sequence: int
    ) -> list[tuple[Part, Rows]]:
        masks: dict[tuple[tuple[int, ...], int | None], Mask | None] = {}
        filters: dict[int | None, Mask | None] = {None: None}
        rows = []
        slots = narrow(slots)
        for part in self.parts:
            if part.filter not in filters and part.filter is not None:
                filters[part.filter] = truth(data.column(part.filter))
            needed = part.needed if part.accumulator.needs_arguments else ()
            mask_key = (needed, part.filter)
            if mask_key not in masks:
                mask = filters[part.filter]
                for argument in needed:
                    mask = both(mask, validity(data.column(argument)))
                masks[mask_key] = mask
            arguments = tuple(data.column(i) for i in part.arguments)
            rows.append((part, Rows(slots, arguments, masks[mask_key], weights, sequence)))
        return rows

    def running(
        self, slots: Slots, data: pa.RecordBatch, weights: Int64Array | None, sequence: int = 0
    ) -> list[Outcome]:
        """Take rows in; the value of each call after each row."""
        taken = self._rows(slots, data, weights, sequence)
        outcomes: dict[int, Outcome] = {}
        for place, (part, rows) in enumerate(taken):
            wanted = self._wanted[place]
            if isinstance(part.accumulator, WordAccumulator) and part.accumulator.traceable:
                words = part.accumulator.trace(rows)
                for i in wanted:
                    outcomes[i] = part.accumulator.finish(self.calls[i], words)
            else:
                outcomes |= self._rounds(part.accumulator, rows, wanted)
        return [outcomes[i] for i in range(len(self.calls))]

    def _rounds(self, accumulator: Accumulator, rows: Rows, wanted: list[int]) -> dict[int, Outcome]:
        """Running values where no kernel writes them: the n-th rows of all groups together, for n = 0, 1, …"""
        ranks = np.empty(len(rows.slots), np.int64)
        last = number_kernels.occurrences(rows.slots, self._seen, ranks)
        order = np.argsort(ranks, kind="stable")
        bounds = np.searchsorted(ranks[order], np.arange(last + 2))
        chunks: dict[int, list[Outcome]] = {i: [] for i in wanted}
        for start, end in pairwise(bounds):
            picked = order[start:end]
            positions = pa.array(picked)
            accumulator.update(
                Rows(
                    rows.slots[picked],
                    tuple(argument.take(positions) for argument in rows.arguments),
                    None if rows.mask is None else rows.mask[picked],
                    None if rows.weights is None else rows.weights[picked],
                    rows.sequence + int(start),
                )
            )
            for i in wanted:
                chunks[i].append(accumulator.result(self.calls[i], rows.slots[picked]))
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        outcomes = {}
        for i in wanted:
            values = pa.concat_arrays([o.values for o in chunks[i]]).take(pa.array(back))
            wrong = None
            if any(o.wrong is not None for o in chunks[i]):
                wrong = np.concatenate(
                    [np.zeros(len(o.values), np.bool_) if o.wrong is None else o.wrong for o in chunks[i]]
                )[back]
            outcomes[i] = Outcome(values, wrong)
        return outcomes

    def results(self, slots: Slots) -> list[Outcome]:
        """The value of each call for these groups."""
        words = None if len(self._apart) == len(self.parts) else self._groups.gather(slots)
        outcomes = []
        for call, place in zip(self.calls, self.places, strict=True):
            accumulator = self.parts[place].accumulator
            if isinstance(accumulator, WordAccumulator) and accumulator.groups is self._groups:
                assert words is not None
                own = words[:, accumulator.at : accumulator.at + len(accumulator.initial)]
                outcomes.append(accumulator.finish(call, own))
            else:
                outcomes.append(accumulator.result(call, slots))
        return outcomes

    def merge(self, slots: Slots, other: AccumulatorSet, other_slots: Slots) -> None:
        """Add the groups `other_slots` of a set with the same calls; a slot may come several times."""
        for mine, theirs in zip(self.parts, other.parts, strict=True):
            mine.accumulator.merge(slots, theirs.accumulator, other_slots)

    def reset(self, slots: Slots) -> None:
        """Forget these groups."""
        self._groups.reset(slots)
        for part in self._apart:
            part.accumulator.reset(slots)

    def distinct(self, slots: Slots) -> Slots:
        """The slots in order of first appearance, once each."""
        return distinct(slots, self._marks)[0]

    def capture(self, slots: Slots) -> dict[str, pa.Array]:
        """The state of these groups as columns, one row a group."""
        return {part.name: part.accumulator.capture(slots) for part in self.parts}

    def restore(self, slots: Slots, columns: Mapping[str, pa.Array]) -> None:
        """The inverse of `capture`, into empty groups."""
        for part in self.parts:
            part.accumulator.restore(slots, columns[part.name])


def distinct(
    slots: npt.NDArray[Whole], marks: Mask, add: int = 0
) -> tuple[npt.NDArray[Whole], Int64Array, Mask]:
    """The slots in order of first appearance, once each; the row where each appears first; the mark of each.

    `marks` has a byte a slot, below 128, of which the bits `add` are set after.
    """
    count = len(slots)
    out, rows, found = np.empty(count, slots.dtype), np.empty(count, np.int64), np.empty(count, np.uint8)
    count = number_kernels.distinct_slots(slots, marks, add, out, rows, found)
    return out[:count], rows[:count], found[:count]
