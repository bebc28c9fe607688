"""Accumulators in words: variance, regression, booleans, bits, and the HyperLogLog sketch. Knows no key."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.aggregates import statistic_kernels
from millrace.operators.aggregates.accumulators import Accumulator, Outcome, WordAccumulator
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.aggregates.columns import Rows, float64_of, from_float64, from_int64, int64_of
from millrace.operators.aggregates.group_words import Slots
from millrace.state.hashing import hash_columns

Words = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Moments(WordAccumulator):
    """Variance and standard deviation of one DOUBLE column."""

    def __init__(self) -> None:
        super().__init__([0, 0, 0])

    def add(self, rows: Rows, trace: Words | None) -> None:
        values = float64_of(rows.arguments[0])
        statistic_kernels.add_moments(
            self.words, self.floats, rows.slots, values, rows.mask, rows.weights, trace
        )

    def merge(self, slots: Slots, other: Accumulator, other_slots: Slots) -> None:
        assert isinstance(other, Moments)
        statistic_kernels.merge_moments(
            self.words, self.floats, slots, other.words, other.floats, other_slots
        )

    def finish(self, call: AggregateCall, words: Words) -> Outcome:
        count, squares = words[:, 0], np.maximum(words.view(np.float64)[:, 2], 0.0)
        least = 2 if call.function.endswith("samp") else 1
        some = count >= least
        value = squares / np.where(some, count - (least - 1), 1)
        if call.function.startswith("stddev"):
            value = np.sqrt(value)
        return Outcome(from_float64(value, some, call.type))


class Pairs(WordAccumulator):
    """Correlation, covariance and linear regression of two DOUBLE columns (y, x)."""

    def __init__(self) -> None:
        super().__init__([0] * 6)

    def add(self, rows: Rows, trace: Words | None) -> None:
        ys, xs = (float64_of(argument) for argument in rows.arguments)
        statistic_kernels.add_pairs(
            self.words, self.floats, rows.slots, ys, xs, rows.mask, rows.weights, trace
        )

    def merge(self, slots: Slots, other: Accumulator, other_slots: Slots) -> None:
        assert isinstance(other, Pairs)
        statistic_kernels.merge_pairs(self.words, self.floats, slots, other.words, other.floats, other_slots)

    def finish(self, call: AggregateCall, words: Words) -> Outcome:
        count = words[:, 0]
        if call.function == "regr_count":
            return Outcome(pa.array(np.ascontiguousarray(count), call.type))
        value, some = _regression(call.function, count, words.view(np.float64))
        return Outcome(from_float64(value, some, call.type))


def _regression(name: str, count: Words, floats: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The statistic called `name`, and where it exists."""
    mean_y, mean_x = floats[:, 1], floats[:, 2]
    syy, sxx, sxy = np.maximum(floats[:, 3], 0.0), np.maximum(floats[:, 4], 0.0), floats[:, 5]
    some = count > 0
    divisor = np.where(some, count, 1)
    sloped = some & (sxx != 0)
    slope = sxy / np.where(sloped, sxx, 1)
    spread = np.sqrt(sxx) * np.sqrt(syy)
    match name:
        case "covar_pop":
            return sxy / divisor, some
        case "covar_samp":
            return sxy / np.where(count > 1, count - 1, 1), count > 1
        case "corr":
            return np.clip(sxy / np.where(spread != 0, spread, 1), -1, 1), some & (spread != 0)
        case "regr_slope":
            return slope, sloped
        case "regr_intercept":
            return mean_y - slope * mean_x, sloped
        case "regr_r2":
            ratio = sxy * sxy / np.where(sloped & (syy != 0), sxx * syy, 1)
            return np.where(syy == 0, 1.0, ratio), sloped
        case "regr_avgx":
            return mean_x, some
        case "regr_avgy":
            return mean_y, some
        case "regr_sxx":
            return sxx, some
        case "regr_syy":
            return syy, some
        case "regr_sxy":
            return sxy, some
    raise AssertionError(name)


class Booleans(WordAccumulator):
    """How many are true, how many false."""

    def __init__(self) -> None:
        super().__init__([0, 0])

    def add(self, rows: Rows, trace: Words | None) -> None:
        values = int64_of(rows.arguments[0])
        statistic_kernels.add_booleans(self.words, rows.slots, values, rows.mask, rows.weights, trace)

    def merge(self, slots: Slots, other: Accumulator, other_slots: Slots) -> None:
        assert isinstance(other, Booleans)
        statistic_kernels.merge_sums(self.words, slots, other.words, other_slots)

    def finish(self, call: AggregateCall, words: Words) -> Outcome:
        trues, falses = words[:, 0], words[:, 1]
        value = falses == 0 if call.function == "bool_and" else trues > 0
        return Outcome(from_int64(value.astype(np.int64), trues + falses > 0, call.type))


class Bits(WordAccumulator):
    """And, or, xor of BIGINT; with retraction a count of each bit as well."""

    def __init__(self, *, retracting: bool) -> None:
        super().__init__([0, -1, 0, 0] + [0] * (64 if retracting else 0))

    def add(self, rows: Rows, trace: Words | None) -> None:
        values = int64_of(rows.arguments[0])
        statistic_kernels.add_bits(self.words, rows.slots, values, rows.mask, rows.weights, trace)

    def merge(self, slots: Slots, other: Accumulator, other_slots: Slots) -> None:
        assert isinstance(other, Bits)
        statistic_kernels.merge_bits(self.words, slots, other.words, other_slots)

    def finish(self, call: AggregateCall, words: Words) -> Outcome:
        count = words[:, 0]
        value = words[:, {"bit_and": 1, "bit_or": 2, "bit_xor": 3}[call.function]]
        if len(self.initial) > 4 and call.function != "bit_xor":
            with_bit = words[:, 4:]
            present = with_bit == count[:, None] if call.function == "bit_and" else with_bit > 0
            places = np.left_shift(np.uint64(1), np.arange(64, dtype=np.uint64))
            value = (present * places).sum(axis=1, dtype=np.uint64).view(np.int64)
        return Outcome(from_int64(value, count > 0, call.type))


_SKETCH_BITS = 11
_REGISTERS = 1 << _SKETCH_BITS


class DistinctSketch(WordAccumulator):
    """HyperLogLog (Flajolet and others, 2007) with 2,048 registers of a byte: a standard error of 2.3 %."""

    traceable = False

    def __init__(self) -> None:
        super().__init__([0] * (_REGISTERS // 8))

    def _registers(self) -> npt.NDArray[np.uint8]:
        return self.words.view(np.uint8).reshape(len(self.words), _REGISTERS)

    def add(self, rows: Rows, trace: Words | None) -> None:
        hashes = hash_columns(rows.arguments, len(rows.slots))
        statistic_kernels.add_hashes(self._registers(), rows.slots, hashes, rows.mask, _SKETCH_BITS)

    def merge(self, slots: Slots, other: Accumulator, other_slots: Slots) -> None:
        assert isinstance(other, DistinctSketch)
        statistic_kernels.merge_registers(self._registers(), slots, other._registers(), other_slots)

    def result(self, call: AggregateCall, slots: Slots) -> Outcome:
        sums, zeros = np.empty(len(slots)), np.empty(len(slots), np.int64)
        statistic_kernels.estimate(self._registers(), slots, sums, zeros)
        count = 0.7213 / (1 + 1.079 / _REGISTERS) * _REGISTERS**2 / sums
        linear = _REGISTERS * np.log(_REGISTERS / np.maximum(zeros, 1))
        count = np.where((count <= 2.5 * _REGISTERS) & (zeros > 0), linear, count)
        return Outcome(pa.array(np.rint(count).astype(np.int64)))

    def finish(self, call: AggregateCall, words: Words) -> Outcome:
        raise AssertionError("a sketch has no running words")
