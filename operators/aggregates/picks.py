"""Accumulators that keep one row's value of each group: first, last, of the least or greatest key. Append-only."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from millrace.errors import BadData
from millrace.operators.aggregates import statistic_kernels
from millrace.operators.aggregates.accumulators import Accumulator, Outcome, WordAccumulator
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.aggregates.columns import (
    Mask,
    Rows,
    float64_of,
    from_float64,
    from_int64,
    int64_of,
    validity,
)
from millrace.operators.aggregates.group_words import Slots
from millrace.operators.batch import Int64Array

Words = npt.NDArray[np.int64]
FIRST, LAST, LEAST, GREATEST, LAST_LEAST, LAST_GREATEST = range(6)


class PickedWord(WordAccumulator):
    """A 64-bit value of the row that wins by `mode`; arguments are the value, then the key if there is one.

    Without a key rows are in order of arrival. A null key sorts before all with `nulls_first`, else behind.
    """

    def __init__(self, mode: int, *, nulls: bool, nulls_first: bool = False) -> None:
        super().__init__([0, 0, 0, 0])
        self.arrival = mode in (FIRST, LAST)
        self.mode = {FIRST: LEAST, LAST: LAST_GREATEST}.get(mode, mode)
        self.needs_arguments = not nulls
        self.nulls_first = nulls_first
        self.float_key = False

    def add(self, rows: Rows, trace: Words | None) -> None:
        value = rows.arguments[0]
        if pt.is_floating(value.type):
            payload = float64_of(value).view(np.int64)
        else:
            payload = int64_of(value)
        self.pick(rows, payload, validity(value), trace)

    def pick(self, rows: Rows, payload: Int64Array, valid: Mask | None, trace: Words | None) -> None:
        """Take rows in of which `payload` is kept where they win."""
        keys: npt.NDArray[np.generic]
        if self.arrival:
            keys = np.arange(rows.sequence, rows.sequence + len(payload))
        else:
            keys, self.float_key = self._keys(rows.arguments[1])
        rivals = self.floats if self.float_key else self.words
        statistic_kernels.pick_rows(
            self.words, rivals, rows.slots, keys, payload, valid, rows.mask, trace, self.mode
        )

    def _keys(self, column: pa.Array) -> tuple[npt.NDArray[np.generic], bool]:
        known = validity(column)
        if pt.is_floating(column.type):
            floats = np.where(np.isnan(float64_of(column)), np.inf, float64_of(column))
            if known is not None:
                floats = np.where(known != 0, floats, -np.inf if self.nulls_first else np.inf)
            return floats, True
        words = int64_of(column)
        if known is not None:
            words = np.where(known != 0, words, -(2**63) if self.nulls_first else 2**63 - 1)
        return words, False

    def merge(self, slots: Slots, other: Accumulator, other_slots: Slots) -> None:
        assert isinstance(other, PickedWord)
        self.float_key = other.float_key
        mine, theirs = (self.floats, other.floats) if self.float_key else (self.words, other.words)
        statistic_kernels.merge_picks(self.words, mine, slots, other.words, theirs, other_slots, self.mode)

    def finish(self, call: AggregateCall, words: Words) -> Outcome:
        some = (words[:, 0] != 0) & (words[:, 3] != 0)
        if pt.is_floating(call.type):
            return Outcome(from_float64(words.view(np.float64)[:, 2], some, call.type))
        return Outcome(from_int64(words[:, 2], some, call.type))


class ObjectColumn:
    """A Python value by slot, for types without a fixed width."""

    def __init__(self) -> None:
        self.objects: npt.NDArray[np.object_] = np.empty(0, np.object_)

    def grow(self, capacity: int) -> None:
        if capacity > len(self.objects):
            grown = np.empty(capacity, np.object_)
            grown[: len(self.objects)] = self.objects
            self.objects = grown

    def shrink(self, capacity: int) -> None:
        self.objects = self.objects[:capacity].copy()

    def put(self, slots: Slots, values: pa.Array) -> None:
        """Set the values of distinct slots."""
        items = np.empty(len(values), np.object_)
        items[:] = values.to_pylist()
        self.objects[slots] = items

    def get(self, slots: Slots, kind: pa.DataType) -> pa.Array:
        """The values as an Arrow array; None is null."""
        return pa.array(self.objects[slots].tolist(), kind)


class PickedObject(Accumulator):
    """As `PickedWord` for values of any type: the words pick a row of the batch, whose value is then kept."""

    def __init__(self, words: PickedWord, kind: pa.DataType) -> None:
        self.words = words
        self.kind = kind
        self.needs_arguments = words.needs_arguments
        self.column = ObjectColumn()

    def grow(self, capacity: int) -> None:
        self.words.grow(capacity)
        self.column.grow(capacity)

    def shrink(self, capacity: int) -> None:
        self.words.shrink(capacity)
        self.column.shrink(capacity)

    def update(self, rows: Rows) -> None:
        words = self.words
        words.pick(rows, np.arange(len(rows.slots)), None, None)
        touched = np.unique(rows.slots)
        winners = touched[(words.words[touched, 0] != 0) & (words.words[touched, 2] >= 0)]
        self.column.put(winners, rows.arguments[0].take(pa.array(words.words[winners, 2])))
        words.words[winners, 2] = -1  # the row is of this batch only

    def merge(self, slots: Slots, other: Accumulator, other_slots: Slots) -> None:
        assert isinstance(other, PickedObject)
        source = other.words.words
        source[other_slots, 2] = np.arange(len(other_slots))
        self.words.merge(slots, other.words, other_slots)
        source[other_slots, 2] = -1
        touched = np.unique(slots)
        winners = touched[(self.words.words[touched, 0] != 0) & (self.words.words[touched, 2] >= 0)]
        self.column.objects[winners] = other.column.objects[other_slots[self.words.words[winners, 2]]]
        self.words.words[winners, 2] = -1

    def reset(self, slots: Slots) -> None:
        self.words.reset(slots)
        self.column.objects[slots] = None

    def result(self, call: AggregateCall, slots: Slots) -> Outcome:
        return Outcome(self.column.get(slots, call.type))

    def capture(self, slots: Slots) -> pa.Array:
        words = self.words.capture(slots)
        values = self.column.get(slots, self.kind)
        return pa.StructArray.from_arrays([words, values], names=["words", "value"])

    def restore(self, slots: Slots, state: pa.Array) -> None:
        self.words.restore(slots, state.field("words"))
        self.column.put(slots, state.field("value"))


class ExtremeObject(Accumulator):
    """MIN or MAX of a type that is no word, such as text; append-only."""

    def __init__(self, kind: pa.DataType, *, greatest: bool) -> None:
        self.kind = kind
        self.function = "max" if greatest else "min"
        self.column = ObjectColumn()

    def grow(self, capacity: int) -> None:
        self.column.grow(capacity)

    def shrink(self, capacity: int) -> None:
        self.column.shrink(capacity)

    def update(self, rows: Rows) -> None:
        rows = rows.selected()
        self._take(rows.slots, rows.arguments[0])

    def _take(self, slots: Slots, values: pa.Array) -> None:
        table = pa.table({"s": pa.array(slots), "v": values})
        best = table.group_by("s", use_threads=False).aggregate([("v", self.function)])
        touched = np.asarray(best.column("s"))
        rivals = best.column(f"v_{self.function}").combine_chunks()
        before = self.column.get(touched, self.kind)
        better = pc.greater(rivals, before) if self.function == "max" else pc.less(rivals, before)
        wins = np.asarray(pc.or_kleene(better, pc.is_null(before)).fill_null(False))
        self.column.put(touched[wins], rivals.filter(pa.array(wins)))

    def merge(self, slots: Slots, other: Accumulator, other_slots: Slots) -> None:
        assert isinstance(other, ExtremeObject)
        self._take(slots, other.column.get(other_slots, self.kind))

    def reset(self, slots: Slots) -> None:
        self.column.objects[slots] = None

    def result(self, call: AggregateCall, slots: Slots) -> Outcome:
        return Outcome(self.column.get(slots, call.type))

    def capture(self, slots: Slots) -> pa.Array:
        return self.column.get(slots, self.kind)

    def restore(self, slots: Slots, state: pa.Array) -> None:
        self.column.put(slots, state)


class PythonState(Accumulator):
    """An aggregate of a user: one Python object a group, fed with slices of Arrow arrays."""

    needs_arguments = False

    def __init__(self, name: str) -> None:
        from millrace.operators.aggregates.signatures import (
            registered,  # deferred: looked up when a job starts
        )

        found = registered(name)
        assert found is not None, f"aggregate {name} is not registered in this process"
        self.factory = found.factory
        self.states: npt.NDArray[np.object_] = np.empty(0, np.object_)

    def grow(self, capacity: int) -> None:
        if capacity > len(self.states):
            grown = np.empty(capacity, np.object_)
            grown[: len(self.states)] = self.states
            self.states = grown

    def shrink(self, capacity: int) -> None:
        self.states = self.states[:capacity].copy()

    def update(self, rows: Rows) -> None:
        rows = rows.selected()
        signs = None if rows.weights is None else np.sign(rows.weights)
        start = 0
        # Runs of one sign at a time: a state may rely on rows coming in before they are taken back.
        cuts = [len(rows.slots)] if signs is None else [*(np.flatnonzero(np.diff(signs)) + 1), len(signs)]
        for end in cuts:
            if end > start:
                self._run(rows, start, int(end), signs is not None and signs[start] < 0)
            start = int(end)

    def _run(self, rows: Rows, start: int, end: int, retract: bool) -> None:
        positions = np.arange(start, end)
        if rows.weights is not None:
            positions = np.repeat(positions, np.abs(rows.weights[start:end]))
        order = positions[np.argsort(rows.slots[positions], kind="stable")]
        slots = rows.slots[order]
        picked = pa.array(order)
        arguments = [argument.take(picked) for argument in rows.arguments]
        firsts = [0, *(np.flatnonzero(np.diff(slots)) + 1), len(slots)]
        for first, last in pairwise(firsts):
            if first == last:
                continue
            state = self._state(int(slots[first]))
            given = [argument.slice(first, last - first) for argument in arguments]
            with _users_code(self.factory, "retract" if retract else "accumulate"):
                (state.retract if retract else state.accumulate)(*given)

    def _state(self, slot: int) -> Any:
        """The state of a group, made where there is none: an instance of the user's class."""
        if self.states[slot] is None:
            with _users_code(self.factory, "the making of a state"):
                self.states[slot] = self.factory()
        return self.states[slot]

    def merge(self, slots: Slots, other: Accumulator, other_slots: Slots) -> None:
        assert isinstance(other, PythonState)
        for slot, theirs in zip(slots.tolist(), other.states[other_slots], strict=True):
            if theirs is not None:
                state = self._state(slot)
                with _users_code(self.factory, "merge"):
                    state.merge(theirs)

    def reset(self, slots: Slots) -> None:
        self.states[slots] = None

    def result(self, call: AggregateCall, slots: Slots) -> Outcome:
        states = [self._state(slot) for slot in slots.tolist()]
        with _users_code(self.factory, "result"):
            return Outcome(pa.array([state.result() for state in states], call.type))

    def capture(self, slots: Slots) -> pa.Array:
        return pa.array([None if s is None else pickle.dumps(s) for s in self.states[slots]], pa.binary())

    def restore(self, slots: Slots, state: pa.Array) -> None:
        for slot, data in zip(slots.tolist(), state.to_pylist(), strict=True):
            self.states[slot] = None if data is None else pickle.loads(data)


@contextmanager
def _users_code(factory: object, what: str) -> Iterator[None]:
    """Whatever a user's aggregate raises becomes BadData MR2012, which says whose fault it is."""
    try:
        yield
    except Exception as error:
        name = getattr(factory, "__name__", type(factory).__name__)
        raise BadData(
            f"aggregate {name} failed in {what}: {type(error).__name__}: {error}",
            code="MR2012",
            hint="mend the Python class; a group has no value without it, so the job stops",
        ) from error
