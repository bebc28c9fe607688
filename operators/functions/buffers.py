"""Arrow buffers as NumPy views and back, with validity. Computes nothing of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.functions.row_error import RowError, Value, ValueFault, classify

Int64s = npt.NDArray[np.int64]


def broadcast(value: Value, rows: int) -> pa.Array:
    """The value as an array of `rows` rows."""
    if not isinstance(value, pa.Scalar):
        return value
    if pa.types.is_decimal64(value.type):
        return pa.array([value.as_py()] * rows, value.type) if rows < 4 else _repeat(value, rows)
    return pa.repeat(value, rows)


def _repeat(value: pa.Scalar, rows: int) -> pa.Array:
    if not value.is_valid:
        return pa.nulls(rows, value.type)
    return from_int64(np.full(rows, unscaled(value), np.int64), None, value.type)


def validity(values: Sequence[Value], rows: int) -> pa.Buffer | None:
    """The bitmap of rows at which all `values` are there, or None where that is every row."""
    mask: pa.BooleanArray | None = None
    for value in values:
        if isinstance(value, pa.Scalar):
            if not value.is_valid:
                return pa.py_buffer(bytes((rows + 7) // 8))
        elif value.null_count:
            valid = value.is_valid()
            mask = valid if mask is None else pc.and_(mask, valid)
    if mask is None:
        return None
    if mask.offset:
        return pa.py_buffer(np.packbits(np.asarray(mask), bitorder="little").tobytes())
    return mask.buffers()[1]


def valid_mask(value: pa.Array) -> npt.NDArray[np.bool_]:
    """One bool a row: true where the value is not NULL."""
    if not value.null_count:
        return np.ones(len(value), np.bool_)
    return np.asarray(value.is_valid())


def fixed_width(value: pa.Array, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """The values of a fixed-width array as they lie in its buffer; anything may stand at NULLs."""
    buffer = value.buffers()[1]
    if buffer is None or len(value) == 0:
        return np.zeros(len(value), dtype)
    return np.frombuffer(buffer, dtype, len(value) + value.offset)[value.offset :]


def unscaled(value: pa.Scalar) -> int:
    """A decimal (or integer) scalar's digits as one integer; it must not be NULL."""
    if pa.types.is_integer(value.type):
        return int(value.as_py())
    exact = value.as_py()
    assert isinstance(exact, Decimal)
    sign, ciphers, exponent = exact.as_tuple()
    assert isinstance(exponent, int)
    number = int("".join(map(str, ciphers))) * 10 ** (exponent + value.type.scale)
    return -number if sign else number


def int64_operand(value: Value) -> Int64s | np.int64:
    """A decimal64 or integer value as scaled 64-bit integers (an array view, or one number)."""
    if isinstance(value, pa.Scalar):
        return np.int64(unscaled(value) if value.is_valid else 0)
    if pa.types.is_decimal64(value.type) or value.type == pa.int64():
        return fixed_width(value, np.int64)
    return fixed_width(value.cast(pa.int64()), np.int64)


def from_int64(numbers: Int64s, bitmap: pa.Buffer | None, type: pa.DataType) -> pa.Array:
    """Scaled 64-bit integers as a decimal64 or decimal128 array."""
    if not pa.types.is_decimal64(type) and pa.types.is_decimal128(type):
        wide = np.empty((len(numbers), 2), np.int64)
        wide[:, 0] = numbers
        np.right_shift(numbers, 63, out=wide[:, 1])
        return pa.Array.from_buffers(type, len(numbers), [bitmap, pa.py_buffer(wide)])
    return from_numbers(numbers, bitmap, type)


def from_numbers(numbers: npt.NDArray[Any], bitmap: pa.Buffer | None, type: pa.DataType) -> pa.Array:
    """A NumPy array whose items are laid out as `type` wants them, as an Arrow array."""
    data = np.ascontiguousarray(numbers)
    return pa.Array.from_buffers(type, len(data), [bitmap, pa.py_buffer(data)])


def as_storage(value: Value) -> Value:
    """decimal64 as its int64 values, for kernels that only move or compare; anything else as it is."""
    if not pa.types.is_decimal64(value.type):
        return value
    if isinstance(value, pa.Scalar):
        return pa.scalar(unscaled(value) if value.is_valid else None, pa.int64())
    return value.view(pa.int64())


def from_storage(value: Value, type: pa.DataType) -> Value:
    """The inverse of `as_storage`."""
    if not pa.types.is_decimal64(type) or value.type == type:
        return value
    if isinstance(value, pa.Scalar):
        if not value.is_valid:
            return pa.scalar(None, type)
        return pa.scalar(Decimal(value.as_py()).scaleb(-type.scale), type)
    return value.view(type)


def choose_rows(condition: pa.BooleanArray, chosen: Value, other: Value, type: pa.DataType) -> Value:
    """`chosen` where the condition is true, `other` where it is false or NULL."""
    if condition.null_count:
        condition = condition.fill_null(False)
    return from_storage(pc.if_else(condition, as_storage(chosen), as_storage(other)), type)


def by_row(
    function: Callable[..., Any],
    values: Sequence[Value],
    rows: int,
    returns: pa.DataType,
    name: str,
    *,
    nulls: bool = False,
) -> Value:
    """Python's `function` over each row (or each distinct value of a lone array); NULL in gives NULL out.

    With `nulls` the function sees None itself. A ValueError of the function is the error of that row alone.
    """
    arrays = [i for i, value in enumerate(values) if not isinstance(value, pa.Scalar)]
    if not arrays:
        return _by_row(function, [[v.as_py()] for v in values], returns, name, nulls, True)
    if len(arrays) == 1 and rows > 64 and pa.types.is_string(values[arrays[0]].type) and not nulls:
        encoded = values[arrays[0]].dictionary_encode()
        if 2 * len(encoded.dictionary) < rows:
            items = [v.as_py() if isinstance(v, pa.Scalar) else None for v in values]
            count = len(encoded.dictionary)
            columns = [[item] * count for item in items]
            columns[arrays[0]] = encoded.dictionary.to_pylist()
            try:
                return _by_row(function, columns, returns, name, nulls, False).take(encoded.indices)
            except RowError as fault:
                bad = fault.rows[np.asarray(encoded.indices.fill_null(0))] & valid_mask(encoded.indices)
                raise RowError(fault.code, fault.reason, bad) from fault
    lists = [[v.as_py()] * rows if isinstance(v, pa.Scalar) else v.to_pylist() for v in values]
    return _by_row(function, lists, returns, name, nulls, False)


def _by_row(
    function: Callable[..., Any],
    columns: Sequence[list[Any]],
    returns: pa.DataType,
    name: str,
    nulls: bool,
    one: bool,
) -> Value:
    results: list[Any] = []
    faults: list[int] = []
    first: Exception | None = None
    for position, items in enumerate(zip(*columns, strict=True)):
        if not nulls and None in items:
            results.append(None)
            continue
        try:
            results.append(function(*items))
        except (ValueError, ArithmeticError) as error:
            first = first or error
            faults.append(position)
            results.append(None)
    if first is not None:
        bad = np.zeros(len(results), np.bool_)
        bad[faults] = True
        code, reason = classify(first, name)
        raise RowError(code, reason, bad)
    try:
        return pa.scalar(results[0], returns) if one else pa.array(results, returns)
    except (pa.ArrowInvalid, OverflowError) as error:
        raise ValueFault("MR2001", f"a result does not fit {returns}: {error}") from error
