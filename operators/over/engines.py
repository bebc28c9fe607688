"""What computes calls whose frame ends at the current row, as rows are released. Knows neither time nor
batches held."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.aggregates.accumulators import Outcome
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.aggregates.columns import float64_of, from_float64, from_int64, int64_of, validity
from millrace.operators.aggregates.families import build_set
from millrace.operators.batch import Int64Array
from millrace.operators.over import sliding_kernels as kernels

Slots = npt.NDArray[np.int32]
Number = TypeVar("Number", bound=np.generic)


@dataclass(slots=True)
class Released:
    """Rows in the order in which windows see them.

    `ticks` are their times (None: order of arrival), `resets` is 1 where a key begins anew (None: never),
    `peers` the position of each row's last peer (None: rows have no peers).
    """

    data: pa.RecordBatch
    slots: Slots
    ticks: Int64Array | None
    resets: npt.NDArray[np.uint8] | None
    peers: Int64Array | None


class Engine(ABC):
    """Answers some of an operator's calls; remembers what it needs by slot."""

    def __init__(self, places: Sequence[int]) -> None:
        self.places = tuple(places)
        """Which of the operator's calls it answers."""

    @abstractmethod
    def grow(self, capacity: int) -> None:
        """Make room for slots below `capacity`."""

    @abstractmethod
    def take(self, rows: Released) -> list[Outcome]:
        """Take rows in; a column for each of `places`."""

    @abstractmethod
    def reset(self, slots: Slots) -> None:
        """Forget these slots."""

    @abstractmethod
    def capture(self, slots: Slots) -> dict[str, pa.Array]:
        """What is remembered of these slots, a row each."""

    @abstractmethod
    def restore(self, slots: Slots, columns: Mapping[str, pa.Array]) -> None:
        """The inverse of `capture`, into slots that remember nothing."""


class Running(Engine):
    """Aggregates of a key's rows so far, by accumulators."""

    def __init__(self, places: Sequence[int], calls: Sequence[AggregateCall], schema: pa.Schema) -> None:
        super().__init__(places)
        self._set = build_set(calls, schema, retracting=False)
        self._sequence = 0

    def grow(self, capacity: int) -> None:
        self._set.grow(capacity)

    def take(self, rows: Released) -> list[Outcome]:
        outcomes = self._set.running(rows.slots, rows.data, None, self._sequence)
        self._sequence += rows.data.num_rows
        return outcomes if rows.peers is None else [taken(outcome, rows.peers) for outcome in outcomes]

    def reset(self, slots: Slots) -> None:
        self._set.reset(slots)

    def capture(self, slots: Slots) -> dict[str, pa.Array]:
        columns = self._set.capture(slots)
        columns["sequence"] = pa.array(np.full(len(slots), self._sequence))
        return columns

    def restore(self, slots: Slots, columns: Mapping[str, pa.Array]) -> None:
        self._set.restore(slots, columns)
        self._sequence = int(columns["sequence"].to_numpy().max(initial=0))


class Numbering(Engine):
    """row_number, rank and dense_rank."""

    def __init__(self, places: Sequence[int], calls: Sequence[AggregateCall]) -> None:
        super().__init__(places)
        self._calls = calls
        self._state: Int64Array = np.zeros((0, 4), np.int64)

    def grow(self, capacity: int) -> None:
        self._state = taller(self._state, capacity)

    def take(self, rows: Released) -> list[Outcome]:
        count = len(rows.slots)
        numbers, ranks, dense = (np.empty(count, np.int64) for _ in range(3))
        kernels.rank(rows.slots, rows.ticks, rows.resets, self._state, numbers, ranks, dense)
        by_name = {"row_number": numbers, "rank": ranks, "dense_rank": dense}
        return [Outcome(pa.array(by_name[call.function])) for call in self._calls]

    def reset(self, slots: Slots) -> None:
        self._state[slots] = 0

    def capture(self, slots: Slots) -> dict[str, pa.Array]:
        return {"": pa.FixedSizeListArray.from_arrays(pa.array(self._state[slots].reshape(-1)), 4)}

    def restore(self, slots: Slots, columns: Mapping[str, pa.Array]) -> None:
        self._state[slots] = columns[""].flatten().to_numpy().reshape(-1, 4)


class LastOfPeers(Engine):
    """last_value up to the current row: the row itself or its last peer."""

    def __init__(self, places: Sequence[int], calls: Sequence[AggregateCall]) -> None:
        super().__init__(places)
        self._calls = calls

    def grow(self, capacity: int) -> None:
        return

    def take(self, rows: Released) -> list[Outcome]:
        columns = [Outcome(rows.data.column(call.arguments[0])) for call in self._calls]
        return columns if rows.peers is None else [taken(column, rows.peers) for column in columns]

    def reset(self, slots: Slots) -> None:
        return

    def capture(self, slots: Slots) -> dict[str, pa.Array]:
        return {}

    def restore(self, slots: Slots, columns: Mapping[str, pa.Array]) -> None:
        return


class FirstRows(Engine):
    """first_value and nth_value of all rows so far: keeps the n-th row's value once it is there."""

    def __init__(self, place: int, call: AggregateCall) -> None:
        super().__init__([place])
        self._column = call.arguments[0]
        self._type = call.type
        number = call.option("n", 1)
        assert isinstance(number, int)
        self._number = 1 if call.function == "first_value" else number
        self._seen: Int64Array = np.zeros(0, np.int64)
        self._at: Int64Array = np.zeros(0, np.int64)
        self._values: pa.Array = pa.array([], self._type)

    def grow(self, capacity: int) -> None:
        self._seen = taller(self._seen, capacity)
        self._at = np.concatenate([self._at, np.full(capacity - len(self._at), -1, np.int64)])

    def take(self, rows: Released) -> list[Outcome]:
        numbers = np.empty(len(rows.slots), np.int64)
        kernels.number(rows.slots, rows.resets, self._seen, numbers)
        found = np.flatnonzero(numbers == self._number)
        if rows.peers is not None:
            numbers = numbers[rows.peers]
        if len(found):
            places = np.arange(len(self._values), len(self._values) + len(found))
            values = rows.data.column(self._column).take(pa.array(found))
            self._at[rows.slots[found]] = places
            self._values = pa.concat_arrays([self._values, values])
        there = numbers >= self._number
        at = self._at[rows.slots]
        return [Outcome(self._values.take(pa.array(at, mask=~there)))]

    def reset(self, slots: Slots) -> None:
        self._seen[slots] = 0
        self._at[slots] = -1

    def capture(self, slots: Slots) -> dict[str, pa.Array]:
        at = self._at[slots]
        values = self._values.take(pa.array(at, mask=at < 0))
        return {"seen": pa.array(self._seen[slots]), "has": pa.array(at >= 0), "value": values}

    def restore(self, slots: Slots, columns: Mapping[str, pa.Array]) -> None:
        self._seen[slots] = columns["seen"].to_numpy()
        has = columns["has"].to_numpy(zero_copy_only=False)
        places = np.arange(len(self._values), len(self._values) + len(slots))
        self._at[slots] = np.where(has, places, -1)
        self._values = pa.concat_arrays([self._values, columns["value"]])


class LookingBack(Engine):
    """lag, or first_value of a bounded ROWS frame, of values of 64 bits: a ring of the last ones by slot."""

    def __init__(self, place: int, call: AggregateCall, kind: pa.DataType, width: int) -> None:
        super().__init__([place])
        self._call = call
        self._column = call.arguments[0]
        self._kind = kind
        self._seen: Int64Array = np.zeros(0, np.int64)
        self._values: Int64Array = np.zeros((0, width), np.int64)
        self._valid: npt.NDArray[np.uint8] = np.zeros((0, width), np.uint8)

    def grow(self, capacity: int) -> None:
        self._seen = taller(self._seen, capacity)
        self._values = taller(self._values, capacity)
        self._valid = taller(self._valid, capacity)

    def take(self, rows: Released) -> list[Outcome]:
        column = rows.data.column(self._column)
        floating = pa.types.is_floating(self._kind)
        values = float64_of(column).view(np.int64) if floating else int64_of(column)
        count = len(rows.slots)
        out, found = np.empty(count, np.int64), np.empty(count, np.uint8)
        kernels.look_back(
            rows.slots,
            values,
            validity(column),
            rows.resets,
            self._call.function == "first_value",
            self._seen,
            self._values,
            self._valid,
            out,
            found,
        )
        some = None if bool((found == 1).all()) else found == 1
        array = (
            from_float64(out.view(np.float64), some, self._kind)
            if floating
            else from_int64(out, some, self._kind)
        )
        default = self._call.option("default")
        if default is not None and some is not None:
            array = pc.if_else(pa.array(found == 2), pa.scalar(default, self._kind), array)
        return [Outcome(array)]

    def reset(self, slots: Slots) -> None:
        self._seen[slots] = 0

    def capture(self, slots: Slots) -> dict[str, pa.Array]:
        width = self._values.shape[1]
        values = pa.FixedSizeListArray.from_arrays(pa.array(self._values[slots].reshape(-1)), width)
        valid = pa.FixedSizeListArray.from_arrays(pa.array(self._valid[slots].reshape(-1)), width)
        return {"seen": pa.array(self._seen[slots]), "values": values, "valid": valid}

    def restore(self, slots: Slots, columns: Mapping[str, pa.Array]) -> None:
        width = self._values.shape[1]
        self._seen[slots] = columns["seen"].to_numpy()
        self._values[slots] = columns["values"].flatten().to_numpy().reshape(-1, width)
        self._valid[slots] = columns["valid"].flatten().to_numpy().reshape(-1, width)


def taller(array: npt.NDArray[Number], capacity: int) -> npt.NDArray[Number]:
    """The array with zero rows up to `capacity`."""
    out = np.zeros((capacity, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out


def taken(outcome: Outcome, places: Int64Array) -> Outcome:
    """An outcome's values at these places."""
    values = outcome.values.take(pa.array(places))
    return Outcome(values, None if outcome.wrong is None else outcome.wrong[places])
