"""The operators + - * / % over numbers and times, with their PostgreSQL result types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.functions import decimals, intervals
from millrace.operators.functions import types as sql
from millrace.operators.functions.buffers import fixed_width, from_numbers, validity
from millrace.operators.functions.registry import Binding, Literals, Types, define
from millrace.operators.functions.row_error import DIVISION_BY_ZERO, Body, RowError, Value

Kinds = Sequence[pa.DataType]
Marks = Sequence[bool]


def _numbers(types: Kinds, literals: Marks) -> tuple[pa.DataType, pa.DataType] | None:
    """Both operand types where both are numbers, NULL, or a literal beside a number."""
    left, right = types
    if sql.is_number(left) and (pa.types.is_null(right) or (sql.is_string(right) and literals[1])):
        return left, left
    if sql.is_number(right) and (pa.types.is_null(left) or (sql.is_string(left) and literals[0])):
        return right, right
    return (left, right) if sql.is_number(left) and sql.is_number(right) else None


def _bind_numbers(
    types: Kinds, literals: Marks, exact: Callable[[pa.DataType, pa.DataType], pa.DataType]
) -> Binding | None:
    pair = _numbers(types, literals)
    if pair is None:
        return None
    if any(sql.is_decimal(t) for t in pair) and not any(sql.is_float(t) for t in pair):
        return pair, exact(*pair)
    common = sql.common_type(pair)
    assert common is not None
    if sql.is_decimal(common):
        return pair, exact(*pair)
    return (common, common), common


def _bind_add(types: Kinds, literals: Marks) -> Binding | None:
    if len(types) == 1:
        return (tuple(types), types[0]) if sql.is_number(types[0]) else None
    if len(types) != 2:
        return None
    return _bind_numbers(types, literals, decimals.sum_type) or intervals.bind_add(types, literals)


def _bind_subtract(types: Kinds, literals: Marks) -> Binding | None:
    if len(types) == 1:
        number = sql.is_number(types[0]) or sql.is_interval(types[0])
        return (tuple(types), types[0]) if number else None
    if len(types) != 2:
        return None
    return _bind_numbers(types, literals, decimals.sum_type) or intervals.bind_subtract(types, literals)


def _bind_multiply(types: Kinds, literals: Marks) -> Binding | None:
    if len(types) != 2:
        return None
    return _bind_numbers(types, literals, decimals.product_type) or intervals.bind_scale(types, commutes=True)


def _bind_divide(types: Kinds, literals: Marks) -> Binding | None:
    if len(types) != 2:
        return None
    return _bind_numbers(types, literals, decimals.quotient_type) or intervals.bind_scale(
        types, commutes=False
    )


def _bind_modulo(types: Kinds, literals: Marks) -> Binding | None:
    return _bind_numbers(types, literals, decimals.remainder_type) if len(types) == 2 else None


def _binary(function: Callable[[Value, Value], Value]) -> Body:
    return lambda values, rows: function(values[0], values[1])


@define("+(NUMBER, NUMBER) -> NUMBER", "+(TIMESTAMP, INTERVAL) -> TIMESTAMP", "+(DATE, INT) -> DATE",
        description="sum; a time moved by an interval", aliases=("add", "plus"), bind=_bind_add, can_fail=True)  # fmt: skip
def _add(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    if len(types) == 1:
        return lambda values, rows: values[0]
    if sql.is_decimal(returns):
        return decimals.add(types, returns, subtract=False)
    if sql.is_integer(returns):
        return _binary(pc.add_checked)
    if sql.is_float(returns):
        return _binary(pc.add)
    return intervals.add(types, returns, subtract=False)


@define("-(NUMBER, NUMBER) -> NUMBER", "-(TIMESTAMP, INTERVAL) -> TIMESTAMP", "-(TIMESTAMP, TIMESTAMP) -> INTERVAL",
        "-(NUMBER) -> NUMBER", description="difference; the number with its sign turned",
        aliases=("subtract", "minus", "negate"), bind=_bind_subtract, can_fail=True)  # fmt: skip
def _subtract(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    if len(types) == 1:
        if sql.is_decimal(returns):
            return decimals.negate(returns)
        if pa.types.is_unsigned_integer(returns):
            return lambda values, rows: pc.subtract_checked(pa.scalar(0, returns), values[0])
        if sql.is_number(returns):
            return lambda values, rows: pc.negate_checked(values[0])
        return intervals.negate(returns)
    if sql.is_decimal(returns):
        return decimals.add(types, returns, subtract=True)
    if sql.is_integer(returns) and sql.is_integer(types[0]):
        return _binary(pc.subtract_checked)
    if sql.is_float(returns):
        return _binary(pc.subtract)
    return intervals.add(types, returns, subtract=True)


@define("*(NUMBER, NUMBER) -> NUMBER", "*(INTERVAL, NUMBER) -> INTERVAL", description="product",
        aliases=("multiply", "times"), bind=_bind_multiply, can_fail=True)  # fmt: skip
def _multiply(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    if sql.is_decimal(returns):
        return decimals.multiply(types, returns)
    if sql.is_integer(returns):
        return _binary(pc.multiply_checked)
    if sql.is_float(returns):
        return _binary(pc.multiply)
    return intervals.scale(types, returns, divide=False)


def zero_rows(divisor: Value, dividend: Value, rows: int, function: str) -> RowError | None:
    """The error of the rows whose divisor is zero while neither operand is NULL."""
    zero = pc.and_(pc.equal(divisor, pa.scalar(0, divisor.type)), pc.is_valid(dividend))
    bad = np.zeros(rows, np.bool_)
    bad[:] = zero.as_py() or False if isinstance(zero, pa.Scalar) else np.asarray(zero.fill_null(False))
    return RowError(DIVISION_BY_ZERO, f"{function}: division by zero", bad) if bad.any() else None


def _checked_division(function: Callable[[Value, Value], Value], name: str) -> Body:
    def body(values: Sequence[Value], rows: int) -> Value:
        try:
            return function(values[0], values[1])
        except pa.ArrowInvalid:
            fault = zero_rows(values[1], values[0], rows, name)
            if fault is None:
                raise
            raise fault from None

    return body


@define("/(NUMBER, NUMBER) -> NUMBER", "/(INTERVAL, NUMBER) -> INTERVAL",
        description="quotient; of two integers it is cut towards zero", aliases=("divide",), bind=_bind_divide,
        can_fail=True)  # fmt: skip
def _divide(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    if sql.is_decimal(returns):
        return decimals.divide(types, returns)
    if sql.is_number(returns):
        return _checked_division(pc.divide_checked, "/")
    return intervals.scale(types, returns, divide=True)


@define("%(NUMBER, NUMBER) -> NUMBER", description="remainder, with the sign of the dividend", aliases=("mod",),
        bind=_bind_modulo, can_fail=True)  # fmt: skip
def _modulo(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    if sql.is_decimal(returns):
        return decimals.remainder(types, returns)
    divisor = literals[1]
    if sql.is_integer(returns):
        if divisor is not None and divisor.is_valid and divisor.as_py() > 0:
            return _constant_modulo(int(divisor.as_py()), returns)
        return _checked_division(_integer_remainder, "%")
    return _checked_division(_float_remainder, "%")


def _constant_modulo(divisor: int, returns: pa.DataType) -> Body:
    """x % constant; numbers below 2**31 go by a multiplication in place of the division."""
    number = pa.scalar(divisor, returns)

    def body(values: Sequence[Value], rows: int) -> Value:
        value = values[0]
        if value.type == pa.int64() and isinstance(value, pa.Array) and 1 < divisor < 1 << 30:
            # Deferred: Numba takes long to import, and this module is imported with the front door.
            from millrace.operators.functions import decimal_kernels as kernels

            out = np.empty(rows, np.int64)
            if kernels.modulo_constant(fixed_width(value, np.int64), divisor, out):
                return from_numbers(out, validity([value], rows), returns)
        return pc.subtract(value, pc.multiply(pc.divide(value, number), number))

    return body


def _integer_remainder(left: Value, right: Value) -> Value:
    if pa.types.is_signed_integer(left.type):
        minus = pc.equal(right, pa.scalar(-1, right.type))
        safe = pc.if_else(minus, pa.scalar(1, right.type), right)
    else:
        safe = right
    return pc.subtract(left, pc.multiply(pc.divide_checked(left, safe), safe))


def _float_remainder(left: Value, right: Value) -> Value:
    pc.divide_checked(left, right)
    if isinstance(left, pa.Scalar) and isinstance(right, pa.Scalar):
        return pa.scalar(
            None if None in (left.as_py(), right.as_py()) else float(np.fmod(left.as_py(), right.as_py())),
            left.type,
        )
    both = pc.and_(pc.is_valid(left), pc.is_valid(right))
    with np.errstate(all="ignore"):
        numbers = np.fmod(_floats(left), _floats(right))
    return pa.array(numbers, mask=~np.asarray(both))


def _floats(value: Value) -> Any:
    if isinstance(value, pa.Scalar):
        return np.nan if not value.is_valid else value.as_py()
    return value.to_numpy(zero_copy_only=False)
