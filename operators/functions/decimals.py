"""Exact decimal arithmetic: 64-bit integers to 18 digits, 128 bits beyond. Knows no function names."""

from __future__ import annotations

import decimal
from collections.abc import Callable, Sequence
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.functions import types as sql
from millrace.operators.functions.buffers import (
    Int64s,
    broadcast,
    by_row,
    from_int64,
    int64_operand,
    unscaled,
    validity,
)
from millrace.operators.functions.row_error import (
    DIVISION_BY_ZERO,
    OVERFLOW,
    Body,
    RowError,
    Value,
    ValueFault,
)

_CONTEXT = decimal.Context(prec=90, rounding=decimal.ROUND_HALF_UP)
_LARGEST = 2**63 - 1
_ARROW_DIGITS = 76


def sum_type(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    (p1, s1), (p2, s2) = sql.digits(left), sql.digits(right)
    scale = max(s1, s2)
    return sql.capped_decimal(max(p1 - s1, p2 - s2) + scale + 1, scale)


def product_type(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    (p1, s1), (p2, s2) = sql.digits(left), sql.digits(right)
    return sql.capped_decimal(p1 + p2, s1 + s2)


def quotient_type(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    (p1, s1), (p2, s2) = sql.digits(left), sql.digits(right)
    scale = max(6, s1 + p2 + 1)
    return sql.capped_decimal(p1 - s1 + s2 + scale, scale)


def remainder_type(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    (p1, s1), (p2, s2) = sql.digits(left), sql.digits(right)
    scale = max(s1, s2)
    return sql.capped_decimal(max(p1 - s1, p2 - s2) + scale, scale)


def _narrow(type: pa.DataType) -> bool:
    return sql.digits(type)[0] <= sql.FAST_DIGITS


def _fits_64_bits(type: pa.DataType) -> bool:
    """Whether all values are held (or can be) as scaled 64-bit integers."""
    return bool(pa.types.is_decimal64(type) or (sql.is_integer(type) and type != pa.uint64()))


def _wide(value: Value, type: pa.DataType) -> Value:
    """The value cast to `type`; NULL scalars too."""
    return value if value.type == type else pc.cast(value, type)


def add(types: Sequence[pa.DataType], returns: pa.DataType, *, subtract: bool) -> Body:
    """left + right (or -) for decimals and integers of any scale."""
    (p1, s1), (p2, s2) = (sql.digits(t) for t in types)
    scale = max(s1, s2)
    precision = max(p1 - s1, p2 - s2) + scale
    wide = pc.subtract if subtract else pc.add
    inner = _arrow_decimal(precision, scale, precision + 1)

    def exact(left: Decimal | int, right: Decimal | int) -> Decimal:
        operation = _CONTEXT.subtract if subtract else _CONTEXT.add
        return fit(operation(Decimal(left), Decimal(right)), returns)

    def body(values: Sequence[Value], rows: int) -> Value:
        left, right = values
        if _narrow(returns) and not _scalars(values):
            a = _scaled(left, scale)
            b = _scaled(right, scale)
            total = np.broadcast_to(a - b if subtract else a + b, rows)
            return from_int64(np.ascontiguousarray(total), validity(values, rows), returns)
        if inner is None:
            return by_row(exact, values, rows, returns, "-" if subtract else "+")
        return _rescale(wide(_wide(left, inner), _wide(right, inner)), returns)

    return body


def _arrow_decimal(precision: int, scale: int, result_digits: int) -> pa.DataType | None:
    """The type whose arithmetic in Arrow holds results of so many digits; None where there is none."""
    if result_digits <= sql.MOST_DIGITS:
        return pa.decimal128(precision, scale)
    return pa.decimal256(precision, scale) if result_digits <= _ARROW_DIGITS else None


def _scalars(values: Sequence[Value]) -> bool:
    return all(isinstance(v, pa.Scalar) for v in values)


def _scaled(value: Value, scale: int) -> Int64s | np.int64:
    step = 10 ** (scale - sql.digits(value.type)[1])
    numbers = int64_operand(value)
    return numbers if step == 1 else numbers * np.int64(step)


def multiply(types: Sequence[pa.DataType], returns: pa.DataType) -> Body:
    """left * right; products of 64-bit integers are written straight as 64 or 128 bits."""
    (p1, s1), (p2, s2) = (sql.digits(t) for t in types)
    small = all(_fits_64_bits(t) for t in types)
    inner = [_arrow_decimal(p, s, p1 + p2 + 1) for p, s in ((p1, s1), (p2, s2))]

    def exact(left: Decimal | int, right: Decimal | int) -> Decimal:
        return fit(_CONTEXT.multiply(Decimal(left), Decimal(right)), returns)

    def body(values: Sequence[Value], rows: int) -> Value:
        if small and s1 + s2 == returns.scale and not _scalars(values):
            product = _product(values, rows, returns)
            if product is not None:
                return product
        first, second = inner
        if first is None or second is None:
            return by_row(exact, values, rows, returns, "*")
        result = pc.multiply(_wide(values[0], first), _wide(values[1], second))
        return _rescale(result, returns)

    return body


def _rescale(value: Value, returns: pa.DataType) -> Value:
    """Cast to a decimal type, rounding half away from zero; an error where it does not fit."""
    if value.type.scale > returns.scale:
        value = pc.round(value, returns.scale, "half_towards_infinity")
    return pc.cast(value, returns)


def _product(values: Sequence[Value], rows: int, returns: pa.DataType) -> pa.Array | None:
    """The product by the 64-bit kernel, or None where one does not fit 64 bits."""
    # Deferred: Numba takes long to import, and this module is imported with the front door.
    from millrace.operators.functions import decimal_kernels as kernels

    constant = next((v for v in values if isinstance(v, pa.Scalar)), None)
    arrays = [np.asarray(int64_operand(v)) for v in values if not isinstance(v, pa.Scalar)]
    bitmap = validity(values, rows)
    wide = not pa.types.is_decimal64(returns)
    out = np.empty(2 * rows if wide else rows, np.int64)
    if constant is not None:
        kernel = kernels.multiply_constant_wide if wide else kernels.multiply_constant
        fits = kernel(arrays[0], np.int64(unscaled(constant) if constant.is_valid else 0), out)
    else:
        kernel = kernels.multiply_wide if wide else kernels.multiply
        fits = kernel(arrays[0], arrays[1], out)
    if not fits:
        return None
    return pa.Array.from_buffers(returns, rows, [bitmap, pa.py_buffer(out)])


def divide(types: Sequence[pa.DataType], returns: pa.DataType) -> Body:
    """left / right, rounded half away from zero to the scale of `returns`."""
    (_, s1), (_, s2) = (sql.digits(t) for t in types)
    shift = returns.scale - s1 + s2
    small = all(_fits_64_bits(t) for t in types) and 0 <= shift <= 18

    def body(values: Sequence[Value], rows: int) -> Value:
        if small and not _scalars(values):
            quick = _quotient(values, rows, returns, shift)
            if quick is not None:
                return quick
        return by_row(quotient, values, rows, returns, "/")

    def quotient(left: Decimal | int, right: Decimal | int) -> Decimal:
        if not right:
            raise ValueFault(DIVISION_BY_ZERO, "division by zero")
        result = _CONTEXT.divide(Decimal(left), Decimal(right))
        return fit(result, returns)

    return body


def fit(value: Decimal, type: pa.DataType) -> Decimal:
    """The number rounded to the scale of `type`; ValueFault where it has too many digits."""
    rounded = value.quantize(Decimal(1).scaleb(-type.scale), decimal.ROUND_HALF_UP, _CONTEXT)
    if len(rounded.as_tuple().digits) > type.precision and rounded:
        raise ValueFault(OVERFLOW, f"{value} does not fit {sql.sql_name(type)}")
    return rounded


def _quotient(values: Sequence[Value], rows: int, returns: pa.DataType, shift: int) -> pa.Array | None:
    left, right = (np.broadcast_to(int64_operand(v), rows) for v in values)
    bitmap = validity(values, rows)
    valid = np.ones(rows, np.bool_)
    if bitmap is not None:
        valid = np.unpackbits(np.frombuffer(bitmap, np.uint8), count=rows, bitorder="little").astype(np.bool_)
    zero = (right == 0) & valid
    if zero.any():
        raise RowError(DIVISION_BY_ZERO, "/: division by zero", zero)
    limit = _LARGEST // 10**shift // 2
    numerator = np.where(valid, left, 0)
    denominator = np.where(valid, right, 1)
    if rows and (numerator.min() < -limit or numerator.max() > limit or denominator.min() == -(2**63)):
        return None
    top = np.abs(numerator) * np.int64(10**shift)
    bottom = np.abs(denominator)
    whole, rest = np.divmod(top, bottom)
    whole += rest >= bottom - rest
    return from_int64(np.where((numerator < 0) != (denominator < 0), -whole, whole), bitmap, returns)


def remainder(types: Sequence[pa.DataType], returns: pa.DataType) -> Body:
    """left % right with the sign of left."""

    def modulo(left: Decimal | int, right: Decimal | int) -> Decimal:
        if not right:
            raise ValueFault(DIVISION_BY_ZERO, "division by zero")
        return _CONTEXT.remainder(Decimal(left), Decimal(right))

    def body(values: Sequence[Value], rows: int) -> Value:
        if not _narrow(returns) or _scalars(values):
            return by_row(modulo, values, rows, returns, "%")
        left, right = (np.broadcast_to(_scaled(v, returns.scale), rows) for v in values)
        bitmap = validity(values, rows)
        zero = right == 0
        if zero.any():
            if bitmap is not None:
                zero &= np.unpackbits(np.frombuffer(bitmap, np.uint8), count=rows, bitorder="little") == 1
            if zero.any():
                raise RowError(DIVISION_BY_ZERO, "%: division by zero", zero)
            right = np.where(right == 0, 1, right)
        return from_int64(np.asarray(np.fmod(left, right), np.int64), bitmap, returns)

    return body


def compare(operator: Callable[[Value, Value], Value], types: Sequence[pa.DataType]) -> Body:
    """Comparison of two values of one decimal type."""
    if not pa.types.is_decimal64(types[0]):
        return lambda values, rows: operator(values[0], values[1])

    def body(values: Sequence[Value], rows: int) -> Value:
        return operator(_integers(values[0]), _integers(values[1]))

    return body


def _integers(value: Value) -> Value:
    if isinstance(value, pa.Scalar):
        return pa.scalar(unscaled(value) if value.is_valid else None, pa.int64())
    return value.view(pa.int64())


def negate(returns: pa.DataType) -> Body:
    def body(values: Sequence[Value], rows: int) -> Value:
        value = broadcast(values[0], rows)
        if pa.types.is_decimal64(returns):
            return from_int64(np.asarray(-int64_operand(value)), validity([value], rows), returns)
        return pc.negate(value)

    return body
