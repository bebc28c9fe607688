"""Accumulators of numbers: count, sum, mean and extremes in 64-bit words. Knows no key."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from millrace.operators.aggregates import number_kernels
from millrace.operators.aggregates.accumulators import Accumulator, Numbers, Outcome, WordAccumulator
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.aggregates.columns import (
    Rows,
    float64_of,
    from_float64,
    from_int64,
    from_wide,
    int64_of,
    wide_words,
)
from millrace.operators.aggregates.group_words import Slots, Words, address, narrow

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_NAN = int(np.array([np.nan]).view(np.int64)[0])
_MINUS_INFINITY = int(np.array([-np.inf]).view(np.int64)[0])


class IntegerNumbers(Numbers):
    """Of a column that fits int64: count; sum with its carry; min; max, as far as they are wanted."""

    def __init__(self, *, sums: bool, least: bool, greatest: bool, scale: int = 0) -> None:
        self.scale = scale
        initial = [0] + ([0, 0] if sums else [])
        self.at_sum = 1 if sums else -1
        self.at_min = len(initial) if least else -1
        initial += [_INT_MAX] if least else []
        self.at_max = len(initial) if greatest else -1
        initial += [_INT_MIN] if greatest else []
        super().__init__(initial)

    def add(self, rows: Rows, trace: Words | None) -> None:
        values = int64_of(rows.arguments[0])
        number_kernels.add_int64(
            *self.place,
            *_given(rows, values, trace, len(self.initial)),
            *_distances(self.at_sum, self.at_min, self.at_max),
            self.rows_at if trace is None else 0,
        )

    def merge(self, slots: Slots, other: Accumulator, other_slots: Slots) -> None:
        assert isinstance(other, IntegerNumbers)
        mine, theirs = narrow(slots), narrow(other_slots)
        number_kernels.merge_int64(
            *self.place,
            address(mine),
            len(mine),
            *other.place,
            address(theirs),
            *_distances(self.at_sum, self.at_min, self.at_max),
        )

    def finish(self, call: AggregateCall, words: Words) -> Outcome:
        count = words[:, 0]
        some = count > 0
        match call.function:
            case "count":
                return Outcome(pa.array(np.ascontiguousarray(count), pa.int64()))
            case "min":
                return Outcome(from_int64(words[:, self.at_min], some, call.type))
            case "max":
                return Outcome(from_int64(words[:, self.at_max], some, call.type))
        low, carry = words[:, self.at_sum], words[:, self.at_sum + 1]
        some = count != 0
        if pt.is_decimal(call.type):
            total = from_wide(low, carry + (low >> 63), some, pa.decimal128(38, self.scale))
            return _decimal(call, total, count)
        if call.function == "sum":
            wrong = (carry != 0) & some
            return Outcome(from_int64(low, some, call.type), wrong if wrong.any() else None)
        divisor = np.where(some, count, 1)
        if pt.is_duration(call.type):
            return Outcome(from_int64((2 * low + divisor) // (2 * divisor), some, call.type))
        mean = (low.astype(np.float64) + carry * 2.0**64) / divisor
        return Outcome(from_float64(mean, some, call.type))


class FloatNumbers(Numbers):
    """Of a floating column: count; compensated sum; min; max, as wanted.

    Where rows are taken back NaN and infinities are counted apart; else the sum itself becomes and stays such.
    """

    def __init__(self, *, sums: bool, least: bool, greatest: bool, retracting: bool) -> None:
        self.special = sums and retracting
        initial = [0] + ([0] * (5 if retracting else 2) if sums else [])
        self.at_sum = 1 if sums else -1
        self.at_min = len(initial) if least else -1
        initial += [_NAN] if least else []
        self.at_max = len(initial) if greatest else -1
        initial += [_MINUS_INFINITY] if greatest else []
        super().__init__(initial)

    def add(self, rows: Rows, trace: Words | None) -> None:
        values = float64_of(rows.arguments[0])
        number_kernels.add_float64(
            *self.place,
            *_given(rows, values, trace, len(self.initial)),
            *_distances(self.at_sum, self.at_min, self.at_max),
            self.rows_at if trace is None else 0,
            self.special,
        )

    def merge(self, slots: Slots, other: Accumulator, other_slots: Slots) -> None:
        assert isinstance(other, FloatNumbers)
        mine, theirs = narrow(slots), narrow(other_slots)
        number_kernels.merge_float64(
            *self.place,
            address(mine),
            len(mine),
            *other.place,
            address(theirs),
            *_distances(self.at_sum, self.at_min, self.at_max),
            self.special,
        )

    def finish(self, call: AggregateCall, words: Words) -> Outcome:
        count = words[:, 0]
        floats = words.view(np.float64)
        some = count > 0
        match call.function:
            case "count":
                return Outcome(pa.array(np.ascontiguousarray(count), pa.int64()))
            case "min":
                return Outcome(from_float64(floats[:, self.at_min], some, call.type))
            case "max":
                return Outcome(from_float64(floats[:, self.at_max], some, call.type))
        total = self._totals(words)
        if call.function == "avg":
            total = total / np.where(count != 0, count, 1)
        return Outcome(from_float64(total, count != 0, call.type))

    def _totals(self, words: Words) -> npt.NDArray[np.float64]:
        rounded = words.view(np.float64)[:, self.at_sum]
        total = rounded + words.view(np.float64)[:, self.at_sum + 1]
        if not self.special:
            # What an infinite sum lost by rounding is not a number.
            return total if np.isfinite(total).all() else np.where(np.isfinite(rounded), total, rounded)
        nan, above, below = (words[:, self.at_sum + kind] for kind in (2, 3, 4))
        if np.count_nonzero(nan) or np.count_nonzero(above) or np.count_nonzero(below):
            total = np.where(above != 0, np.inf, total)
            total = np.where(below != 0, -np.inf, total)
            total = np.where((nan != 0) | ((above != 0) & (below != 0)), np.nan, total)
        return total


class WideSum(WordAccumulator):
    """Count and 128-bit sum of a DECIMAL(38) column."""

    def __init__(self, scale: int) -> None:
        super().__init__([0, 0, 0])
        self.scale = scale

    def add(self, rows: Rows, trace: Words | None) -> None:
        pairs = wide_words(rows.arguments[0])
        number_kernels.add_wide(self.words, rows.slots, pairs, rows.mask, rows.weights, trace)

    def merge(self, slots: Slots, other: Accumulator, other_slots: Slots) -> None:
        assert isinstance(other, WideSum)
        number_kernels.merge_wide(self.words, slots, other.words, other_slots)

    def finish(self, call: AggregateCall, words: Words) -> Outcome:
        count, low, high = words[:, 0], words[:, 1], words[:, 2]
        if call.function == "count":
            return Outcome(pa.array(np.ascontiguousarray(count), pa.int64()))
        if pt.is_floating(call.type):
            total = low.view(np.uint64).astype(np.float64) + high * 2.0**64
            return Outcome(from_float64(total / np.where(count != 0, count, 1), count != 0, call.type))
        total = from_wide(low, high, count != 0, pa.decimal128(38, self.scale))
        return _decimal(call, total, count)


def _given(
    rows: Rows, values: npt.NDArray[np.generic], trace: Words | None, width: int
) -> tuple[int, int, int, int, int, int, int]:
    """What the kernels need of rows with these values."""
    return (
        address(rows.slots),
        len(rows.slots),
        address(values),
        address(rows.mask),
        address(rows.weights),
        address(trace),
        width,
    )


def _distances(total: int, least: int, greatest: int) -> tuple[int, int, int]:
    """Bytes to the words at these places; -1 stays."""
    return (
        8 * total if total >= 0 else -1,
        8 * least if least >= 0 else -1,
        8 * greatest if greatest >= 0 else -1,
    )


def _decimal(call: AggregateCall, total: pa.Array, count: npt.NDArray[np.int64]) -> Outcome:
    """The sum, or the mean rounded half away from zero, as `call.type`."""
    if call.function == "sum":
        return Outcome(total)
    divisor = pa.array(np.where(count != 0, count, 1)).cast(pa.decimal256(19, 0))
    wide = total.cast(pa.decimal256(38, total.type.scale)).cast(pa.decimal256(38 + 12, total.type.scale + 12))
    mean = pc.round(pc.divide(wide, divisor), call.type.scale, "half_towards_infinity")
    return Outcome(mean.cast(pa.decimal256(76, call.type.scale), safe=False).cast(call.type))
