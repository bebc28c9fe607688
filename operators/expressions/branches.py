"""CASE, AND and OR over frames: what a row does not need is not allowed to fail on it. Knows no functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.expressions.frame import Evaluator, Frame, Rows
from millrace.operators.functions.buffers import broadcast, choose_rows
from millrace.operators.functions.row_error import RowError, Value

Choice = npt.NDArray[np.int64]


def _true_rows(value: Value, rows: int) -> npt.NDArray[np.bool_]:
    """One bool a row: true where the value is (NULL is not)."""
    if isinstance(value, pa.Scalar):
        return np.full(rows, value.as_py() is True)
    return np.asarray(value.fill_null(False) if value.null_count else value)


def _on_rows(evaluator: Evaluator, frame: Frame, rows: Rows) -> Value:
    """The value on those rows of `frame` alone; a RowError is told in terms of the whole frame."""
    if len(rows) == frame.rows:
        return evaluator(frame)
    try:
        return evaluator(frame.subset(rows))
    except RowError as error:
        marked = np.zeros(frame.rows, np.bool_)
        marked[rows[error.rows]] = True
        raise RowError(error.code, error.reason, marked) from error


def first_true(
    conditions: Sequence[Evaluator], values: Sequence[Evaluator], type: pa.DataType, *, lazy: bool
) -> Evaluator:
    """The value behind the first true condition, else the last one of `values`.

    Conditions are computed on all rows until one fails, from then on only on the rows that come to them. Where
    not `lazy`, the same holds for values; where `lazy`, each is computed on the rows that take it.
    """
    careful_tests, careful_values = False, lazy

    def evaluate(frame: Frame) -> Value:
        nonlocal careful_tests, careful_values
        tests: list[Value] | None = None
        if not careful_tests:
            try:
                tests = [condition(frame) for condition in conditions]
            except RowError:
                careful_tests = True
        if tests is not None and not careful_values:
            try:
                return _choose(tests, [value(frame) for value in values], frame.rows, type)
            except RowError:
                careful_values = True
        choice = _choice(conditions, frame) if tests is None else _choice_of(tests, frame.rows)
        return _gather(values, choice, frame, type)

    return evaluate


def _choice_of(tests: Sequence[Value], rows: int) -> Choice:
    """For each row the position of its first true test, or their number where none is."""
    choice = np.full(rows, len(tests), np.int64)
    for position in range(len(tests) - 1, -1, -1):
        choice[_true_rows(tests[position], rows)] = position
    return choice


def _choose(tests: Sequence[Value], values: Sequence[Value], rows: int, type: pa.DataType) -> Value:
    if all(isinstance(test, pa.Scalar) for test in tests):
        for test, value in zip(tests, values, strict=False):
            if test.as_py() is True:
                return value
        return values[-1]
    if all(isinstance(value, pa.Scalar) for value in values) and not pa.types.is_decimal64(type):
        known = pa.concat_arrays([broadcast(value, 1) for value in values])
        return known.take(pa.array(_choice_of(tests, rows)))
    result = values[-1]
    for test, value in zip(reversed(tests), reversed(values[:-1]), strict=True):
        condition = broadcast(test, rows)
        result = choose_rows(condition, value, result, type)
    return result


def _choice(conditions: Sequence[Evaluator], frame: Frame) -> Choice:
    """For each row the position of its first true condition, or their number where none is."""
    choice = np.full(frame.rows, len(conditions), np.int64)
    remaining: Rows = np.arange(frame.rows)
    for position, condition in enumerate(conditions):
        if not len(remaining):
            break
        true = _true_rows(_on_rows(condition, frame, remaining), len(remaining))
        choice[remaining[true]] = position
        remaining = remaining[~true]
    return choice


def _gather(values: Sequence[Evaluator], choice: Choice, frame: Frame, type: pa.DataType) -> Value:
    pieces: list[pa.Array] = []
    positions = np.zeros(frame.rows, np.int64)
    start = 0
    for position, value in enumerate(values):
        rows = np.flatnonzero(choice == position)
        if not len(rows):
            continue
        piece = _on_rows(value, frame, rows)
        if len(rows) == frame.rows:
            return piece
        if isinstance(piece, pa.Scalar):
            pieces.append(broadcast(piece, 1))
            positions[rows] = start
            start += 1
        else:
            pieces.append(piece)
            positions[rows] = np.arange(start, start + len(rows))
            start += len(rows)
    if not pieces:
        return pa.nulls(0, type)
    return pa.concat_arrays([piece if piece.type == type else piece.cast(type) for piece in pieces]).take(
        pa.array(positions)
    )


def conjunction(evaluators: Sequence[Evaluator], heavy: Sequence[bool], *, stop_at: bool) -> Evaluator:
    """AND (`stop_at` False) or OR (True) in three-valued logic, from left to right.

    An operand that is heavy, or that has failed before, is computed only on the rows which are still open.
    """
    combine = pc.or_kleene if stop_at else pc.and_kleene
    careful = list(heavy)
    careful[0] = False

    def evaluate(frame: Frame) -> Value:
        result = evaluators[0](frame)
        for position in range(1, len(evaluators)):
            if not careful[position]:
                try:
                    result = combine(result, evaluators[position](frame))
                    continue
                except RowError:
                    careful[position] = True
            result = _combine_open(result, evaluators[position], frame)
        return result

    def _combine_open(result: Value, evaluator: Evaluator, frame: Frame) -> Value:
        if isinstance(result, pa.Scalar):
            return result if result.as_py() is stop_at else combine(result, evaluator(frame))
        decided = _true_rows(result if stop_at else pc.invert(result), frame.rows)
        if not decided.any():
            return combine(result, evaluator(frame))
        open_rows = np.flatnonzero(~decided)
        if not len(open_rows):
            return result
        rest = _on_rows(evaluator, frame, open_rows)
        if isinstance(rest, pa.Scalar):
            return combine(result, rest)
        positions = np.zeros(frame.rows, np.int64)
        positions[open_rows] = np.arange(1, len(open_rows) + 1)
        settled = pa.array([stop_at], pa.bool_())
        return combine(result, pa.concat_arrays([settled, rest]).take(pa.array(positions)))

    return evaluate
