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
from millrace.operators.batch import Int64Array

Slots = npt.NDArray[np.integer]
Whole = TypeVar("Whole", bound=np.integer)

_CAPACITY_MIN = 1024
_RUN_MIN = 4096
_LINE = 64


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

    def results(self, calls: Sequence[AggregateCall], slots: Slots) -> list[Outcome]:
        """The values of several calls for each of these groups."""
        return [self.result(call, slots) for call in calls]

    @abstractmethod
    def capture(self, slots: Slots) -> pa.Array:
        """The state of these groups, one value a group, as a copy."""

    @abstractmethod
    def restore(self, slots: Slots, state: pa.Array) -> None:
        """The inverse of `capture`, into empty groups."""


class WordAccumulator(Accumulator):
    """State of a fixed number of 64-bit words a group. A new group has the words of `initial`."""

    traceable = True
    """Whether `add` can write the words after each row."""

    def __init__(self, initial: Sequence[int]) -> None:
        self.initial = np.array(initial, np.int64)
        self.words: npt.NDArray[np.int64] = np.empty((0, len(initial)), np.int64)
        self._reserve = self.words
        self.floats = self.words.view(np.float64)

    def grow(self, capacity: int) -> None:
        if capacity <= len(self.words):
            return
        used = len(self.words)
        if capacity > len(self._reserve):
            # Untouched memory costs nothing, and what is reserved need not be copied at the next growth.
            self._reserve = _aligned(4 * capacity, len(self.initial))
            self._reserve[:used] = self.words
        self.words = self._reserve[:capacity]
        number_kernels.fill_rows(self.words, used, self.initial)
        self.floats = self.words.view(np.float64)

    def shrink(self, capacity: int) -> None:
        self._reserve = self.words = self.words[:capacity].copy()
        self.floats = self.words.view(np.float64)

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
        return self.finish(call, self.gather(slots))

    def results(self, calls: Sequence[AggregateCall], slots: Slots) -> list[Outcome]:
        if not self.traceable:
            return [self.result(call, slots) for call in calls]
        words = self.gather(slots)
        return [self.finish(call, words) for call in calls]

    def gather(self, slots: Slots) -> npt.NDArray[np.int64]:
        """The words of these groups. Where they are a run of many, only copied if a column of them would be a view."""
        count = len(slots)
        if count > _RUN_MIN and slots[-1] - slots[0] == count - 1 and bool((np.diff(slots) == 1).all()):
            run = self.words[slots[0] : slots[0] + count]
            return run.copy() if len(self.initial) == 1 else run
        out = np.empty((len(self.initial), count), np.int64)
        number_kernels.gather_rows(self.words, slots, out)
        return out.T

    def capture(self, slots: Slots) -> pa.Array:
        words = self.words[slots]
        width = 8 * len(self.initial)
        return pa.Array.from_buffers(pa.binary(width), len(words), [None, pa.py_buffer(words)], 0)

    def restore(self, slots: Slots, state: pa.Array) -> None:
        width = len(self.initial)
        data = np.frombuffer(state.buffers()[1], np.int64, len(state) * width, state.offset * width * 8)
        self.words[slots] = data.reshape(-1, width)


def _aligned(rows: int, width: int) -> npt.NDArray[np.int64]:
    """Unset rows from the start of a cache line on, so that a group of 8 words is one line, not two."""
    room = np.empty(rows * width + _LINE // 8, np.int64)
    start = -room.ctypes.data % _LINE // 8
    return room[start : start + rows * width].reshape(rows, width)


class Counter(WordAccumulator):
    """The number of rows, as weights add up."""

    def __init__(self, *, of_true: bool = False) -> None:
        super().__init__([0])
        self.of_true = of_true

    def add(self, rows: Rows, trace: npt.NDArray[np.int64] | None) -> None:
        mask = both(rows.mask, truth(rows.arguments[0])) if self.of_true else rows.mask
        number_kernels.count_rows(self.words, rows.slots, mask, rows.weights, trace)

    def merge(self, slots: Slots, other: Accumulator, other_slots: Slots) -> None:
        assert isinstance(other, Counter)
        number_kernels.merge_counts(self.words, slots, other.words, other_slots)

    def finish(self, call: AggregateCall, words: npt.NDArray[np.int64]) -> Outcome:
        return Outcome(pa.array(np.ascontiguousarray(words[:, 0]), pa.int64()))


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
        self.capacity = 0
        self._seen = np.zeros(0, np.int64)
        self._marks = np.zeros(0, np.uint8)

    def grow(self, capacity: int) -> None:
        """Make room for slots below `capacity`, and more, so that growth is rare."""
        if capacity <= self.capacity:
            return
        self.capacity = max(capacity, 2 * self.capacity, _CAPACITY_MIN)
        for part in self.parts:
            part.accumulator.grow(self.capacity)
        self._seen = np.zeros(self.capacity, np.int64)
        self._marks = np.zeros(self.capacity, np.uint8)

    def shrink(self, high: int) -> bool:
        """Give memory back where slots from `high` on are empty and most room is; whether it did."""
        if self.capacity <= _CAPACITY_MIN or high * 4 > self.capacity:
            return False
        self.capacity = max(_CAPACITY_MIN, 2 * high)
        for part in self.parts:
            part.accumulator.shrink(self.capacity)
        self._seen = np.zeros(self.capacity, np.int64)
        self._marks = np.zeros(self.capacity, np.uint8)
        return True

    def update(
        self, slots: Slots, data: pa.RecordBatch, weights: Int64Array | None, sequence: int = 0
    ) -> None:
        """Take the rows of `data` in, row i into group `slots[i]`."""
        for part, rows in self._rows(slots, data, weights, sequence):
            part.accumulator.update(rows)

    def _rows(
        self, slots: Slots, data: pa.RecordBatch, weights: Int64Array | None, sequence: int
    ) -> list[tuple[Part, Rows]]:
        masks: dict[tuple[tuple[int, ...], int | None], Mask | None] = {}
        filters: dict[int | None, Mask | None] = {None: None}
        rows = []
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
        outcomes: list[Outcome | None] = [None] * len(self.calls)
        for part, wanted in zip(self.parts, self._wanted, strict=True):
            found = part.accumulator.results([self.calls[i] for i in wanted], slots)
            for i, outcome in zip(wanted, found, strict=True):
                outcomes[i] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def merge(self, slots: Slots, other: AccumulatorSet, other_slots: Slots) -> None:
        """Add the groups `other_slots` of a set with the same calls; a slot may come several times."""
        for mine, theirs in zip(self.parts, other.parts, strict=True):
            mine.accumulator.merge(slots, theirs.accumulator, other_slots)

    def reset(self, slots: Slots) -> None:
        """Forget these groups."""
        for part in self.parts:
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


def distinct(slots: npt.NDArray[Whole], marks: Mask) -> tuple[npt.NDArray[Whole], Int64Array, Mask]:
    """The slots in order of first appearance, once each; the row where each appears first; the mark of each.

    `marks` has a byte a slot, below 128.
    """
    count = len(slots)
    out, rows, found = np.empty(count, slots.dtype), np.empty(count, np.int64), np.empty(count, np.uint8)
    count = number_kernels.distinct_slots(slots, marks, out, rows, found)
    return out[:count], rows[:count], found[:count]
