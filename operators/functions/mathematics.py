"""Mathematical functions. What lies outside a function's domain is a row error, never NaN or NULL."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.functions import types as sql
from millrace.operators.functions.buffers import broadcast, by_row, from_numbers, int64_operand, validity
from millrace.operators.functions.patterns import number_constant
from millrace.operators.functions.registry import Binding, Literals, Types, define, scalar
from millrace.operators.functions.row_error import OUT_OF_DOMAIN, OVERFLOW, Body, RowError, Value, ValueFault
from millrace.operators.functions.strings import row


def _wide(type: pa.DataType) -> pa.DataType:
    return pa.decimal256(type.precision + 1, type.scale)


def _through_wide(function: Callable[[Value], Value], returns: pa.DataType) -> Body:
    """An Arrow function over decimals, which knows no decimal64."""

    def body(values: Sequence[Value], rows: int) -> Value:
        value = values[0]
        return pc.cast(function(pc.cast(value, _wide(value.type))), returns)

    return body


@define("abs(NUMBER) -> NUMBER", description="the number without its sign", can_fail=True)
def _abs(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    if sql.is_decimal(returns):
        return _through_wide(pc.abs, returns)
    return lambda values, rows: pc.abs_checked(values[0])


@define("sign(NUMBER) -> INT", description="-1, 0 or 1", aliases=("signum",))
def _sign(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    if sql.is_decimal(types[0]):
        return _through_wide(pc.sign, returns)
    return lambda values, rows: pc.cast(pc.sign(values[0]), returns)


def _bind_whole(types: Sequence[pa.DataType], marks: Sequence[bool]) -> Binding | None:
    if len(types) != 1 or not (sql.is_number(types[0]) or pa.types.is_null(types[0])):
        return None
    kind = types[0] if sql.is_number(types[0]) else sql.DOUBLE
    if sql.is_decimal(kind):
        return (kind,), sql.capped_decimal(kind.precision - kind.scale + 1, 0)
    return (kind,), kind


def _define_whole(name: str, function: Callable[..., Value], description: str, *aliases: str) -> None:
    @define(f"{name}(NUMBER) -> NUMBER", description=description, aliases=aliases, bind=_bind_whole)
    def build(types: Types, returns: pa.DataType, literals: Literals) -> Body:
        if sql.is_integer(returns):
            return lambda values, rows: values[0]
        return _through_wide(function, returns) if sql.is_decimal(returns) else lambda v, rows: function(v[0])


_define_whole("ceil", pc.ceil, "the least whole number that is not less", "ceiling")
_define_whole("floor", pc.floor, "the greatest whole number that is not greater")


def _bind_round(types: Sequence[pa.DataType], marks: Sequence[bool]) -> Binding | None:
    if len(types) not in (1, 2) or (
        len(types) == 2 and sql.coercion_cost(types[1], sql.INT) is None and types[1] != sql.BIGINT
    ):
        return None
    kind = sql.DOUBLE if pa.types.is_null(types[0]) else types[0]
    if not sql.is_number(kind):
        return None
    digits = (sql.INT,) * (len(types) - 1)
    if sql.is_decimal(kind) and len(types) == 1:
        return (kind,), sql.capped_decimal(kind.precision - kind.scale + 1, 0)
    if sql.is_decimal(kind):
        return (kind, *digits), sql.capped_decimal(kind.precision + 1, kind.scale)
    return (kind, *digits), kind


def _round_number(value: Value, digits: int, mode: str) -> Value:
    if sql.is_integer(value.type):
        if digits >= 0:
            return value
        return pc.cast(pc.round(pc.cast(value, pa.decimal256(24, 0)), digits, mode), value.type)
    if sql.is_decimal(value.type):
        wide = pc.cast(value, pa.decimal256(value.type.precision + 1, value.type.scale))
        if digits < value.type.scale - value.type.precision:
            return pc.subtract(wide, wide)
        return pc.round(wide, min(digits, value.type.scale), mode)
    return pc.round(value, digits, mode)


def _define_round(name: str, mode: str, description: str, *aliases: str) -> None:
    @define(
        f"{name}(NUMBER[, INT]) -> NUMBER",
        description=description,
        aliases=aliases,
        bind=_bind_round,
        can_fail=True,
    )
    def build(types: Types, returns: pa.DataType, literals: Literals) -> Body:
        digits = 0 if len(types) == 1 else number_constant(literals, 1)
        if digits is not None:
            return lambda values, rows: pc.cast(_round_number(values[0], digits, mode), returns)

        def one(number: Any, places: int) -> Any:
            return _round_number(pa.scalar(number, types[0]), places, mode).cast(returns).as_py()

        return lambda values, rows: by_row(one, values, rows, returns, name)


_define_round("round", "half_towards_infinity", "rounded to n places (0), halves away from zero")
_define_round("trunc", "towards_zero", "cut to n places (0)", "truncate")
_define_round(
    "round_half_even", "half_to_even", "rounded to n places (0), halves to the even digit", "bround"
)


def _not_positive(value: Value) -> Value:
    return pc.less_equal(value, 0.0)


def _beyond_one(value: Value) -> Value:
    return pc.greater(pc.abs(value), 1.0)


def _define_double(
    name: str,
    function: Callable[..., Value],
    description: str,
    *aliases: str,
    outside: Callable[[Value], Value] | None = None,
) -> None:
    """A function of one DOUBLE. `outside` marks arguments beyond its domain, asked once `function` has failed."""

    @scalar(
        f"{name}(DOUBLE) -> DOUBLE", description=description, aliases=aliases, can_fail=outside is not None
    )
    def body(values: Sequence[Value], rows: int) -> Value:
        try:
            return function(values[0])
        except pa.ArrowInvalid as error:
            assert outside is not None
            bad = np.asarray(broadcast(pc.fill_null(outside(values[0]), False), rows))
            raise RowError(OUT_OF_DOMAIN, f"{name}: {error}", bad) from error


_define_double("sqrt", pc.sqrt_checked, "square root", outside=lambda v: pc.less(v, 0.0))
_define_double("exp", pc.exp, "e to the power of the number")
_define_double("ln", pc.ln_checked, "natural logarithm", outside=_not_positive)
_define_double("log10", pc.log10_checked, "logarithm to base 10", outside=_not_positive)
_define_double("log2", pc.log2_checked, "logarithm to base 2", outside=_not_positive)
_define_double("sin", pc.sin_checked, "sine", outside=pc.is_inf)
_define_double("cos", pc.cos_checked, "cosine", outside=pc.is_inf)
_define_double("tan", pc.tan_checked, "tangent", outside=pc.is_inf)
_define_double("asin", pc.asin_checked, "arc sine", outside=_beyond_one)
_define_double("acos", pc.acos_checked, "arc cosine", outside=_beyond_one)
_define_double("atan", pc.atan, "arc tangent")
_define_double("sinh", pc.sinh, "hyperbolic sine")
_define_double("cosh", pc.cosh, "hyperbolic cosine")
_define_double("tanh", pc.tanh, "hyperbolic tangent")
_define_double("degrees", lambda v: pc.multiply(v, 180.0 / math.pi), "radians as degrees")
_define_double("radians", lambda v: pc.multiply(v, math.pi / 180.0), "degrees as radians")


@scalar("cot(DOUBLE) -> DOUBLE", description="cotangent", can_fail=True)
def _cot(values: Sequence[Value], rows: int) -> Value:
    return pc.divide_checked(pa.scalar(1.0), pc.tan_checked(values[0]))


@scalar("cbrt(DOUBLE) -> DOUBLE", description="cube root")
def _cbrt(values: Sequence[Value], rows: int) -> Value:
    value = broadcast(values[0], rows)
    return from_numbers(np.cbrt(value.fill_null(0).to_numpy()), validity([value], rows), pa.float64())


@define(
    "log(DOUBLE[, DOUBLE]) -> DOUBLE",
    description="logarithm to base 10, or of the second to the base of the first",
    can_fail=True,
)
def _log(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    if len(types) == 1:
        return lambda values, rows: pc.log10_checked(values[0])
    return lambda values, rows: pc.divide_checked(pc.ln_checked(values[1]), pc.ln_checked(values[0]))


def _power(left: float, right: float) -> float:
    if left == 0 and right < 0:
        raise ValueFault(OUT_OF_DOMAIN, "zero to a negative power")
    try:
        result = math.pow(left, right)
    except OverflowError:
        raise ValueFault(OVERFLOW, f"{left} to the power of {right} is out of range") from None
    except ValueError:
        raise ValueFault(OUT_OF_DOMAIN, f"{left} to the power of {right} is no real number") from None
    return result


@scalar(
    "power(DOUBLE, DOUBLE) -> DOUBLE",
    description="the first to the power of the second",
    aliases=("pow", "^"),
    can_fail=True,
)
def _power_body(values: Sequence[Value], rows: int) -> Value:
    result = pc.power(values[0], values[1])
    good = pc.or_kleene(pc.is_finite(result), pc.is_null(result))
    fine = good.as_py() if isinstance(good, pa.Scalar) else pc.all(good).as_py()
    return result if fine is not False else by_row(_power, values, rows, pa.float64(), "power")


@scalar("atan2(DOUBLE, DOUBLE) -> DOUBLE", description="the angle of the point (second, first)")
def _atan2(values: Sequence[Value], rows: int) -> Value:
    return pc.atan2(values[0], values[1])


@scalar("hypot(DOUBLE, DOUBLE) -> DOUBLE", description="the length of the hypotenuse")
def _hypot(values: Sequence[Value], rows: int) -> Value:
    return pc.hypot(values[0], values[1])


@scalar("pi() -> DOUBLE", description="3.14159…")
def _pi(values: Sequence[Value], rows: int) -> Value:
    return pa.scalar(math.pi)


@scalar("e() -> DOUBLE", description="2.71828…")
def _e(values: Sequence[Value], rows: int) -> Value:
    return pa.scalar(math.e)


@row("factorial(BIGINT) -> BIGINT", description="the product of 1 to n", can_fail=True)
def _factorial(number: int) -> int:
    if not 0 <= number <= 20:
        raise ValueFault(OVERFLOW, f"{number}! is out of range")
    return math.factorial(number)


@row(
    "gcd(BIGINT, BIGINT) -> BIGINT",
    description="greatest common divisor",
    aliases=("greatest_common_divisor",),
    can_fail=True,
)
def _gcd(left: int, right: int) -> int:
    return _in_range(math.gcd(left, right))


@row(
    "lcm(BIGINT, BIGINT) -> BIGINT",
    description="least common multiple",
    aliases=("least_common_multiple",),
    can_fail=True,
)
def _lcm(left: int, right: int) -> int:
    return _in_range(math.lcm(left, right))


def _in_range(number: int) -> int:
    if number >= 2**63:
        raise ValueFault(OVERFLOW, f"{number} is out of range")
    return number


@row("width_bucket(DOUBLE, DOUBLE, DOUBLE, INT) -> INT", description="the bucket (1 to n) of equal width between two bounds; 0 and n+1 are outside",
     can_fail=True)  # fmt: skip
def _width_bucket(value: float, low: float, high: float, count: int) -> int:
    if count <= 0 or low == high or math.isnan(value):
        raise ValueFault(OUT_OF_DOMAIN, f"no {count} buckets between {low} and {high}")
    inside = (value - low) / (high - low)
    return 0 if inside < 0 else count + 1 if inside >= 1 else int(inside * count) + 1


def _define_bits(name: str, function: Callable[..., Value], description: str, *aliases: str) -> None:
    @define(f"{name}(T, T) -> T", description=description, aliases=aliases, bind=_bind_bits)
    def build(types: Types, returns: pa.DataType, literals: Literals) -> Body:
        return lambda values, rows: function(values[0], values[1])


def _bind_bits(types: Sequence[pa.DataType], marks: Sequence[bool]) -> Binding | None:
    common = sql.common_type(types)
    if len(types) != 2 or common is None or not sql.is_integer(common):
        return None
    return (common, common), common


_define_bits("bit_and", pc.bit_wise_and, "the bits both have", "&", "bitand")
_define_bits("bit_or", pc.bit_wise_or, "the bits either has", "|", "bitor")
_define_bits("bit_xor", pc.bit_wise_xor, "the bits exactly one has", "#", "bitxor")
_define_bits("shift_left", pc.shift_left_checked, "the bits moved up", "<<")
_define_bits("shift_right", pc.shift_right_checked, "the bits moved down", ">>")


@scalar("bit_not(INTEGER) -> INTEGER", description="the bits the number has not", aliases=("bitnot", "~"))
def _bit_not(values: Sequence[Value], rows: int) -> Value:
    return pc.bit_wise_not(values[0])


@scalar("bit_count(BIGINT) -> INT", description="how many bits are set")
def _bit_count(values: Sequence[Value], rows: int) -> Value:
    value = broadcast(values[0], rows)
    ones = np.bitwise_count(np.asarray(int64_operand(value)).view(np.uint64)).astype(np.int32)
    return from_numbers(ones, validity([value], rows), pa.int32())


@scalar("is_nan(DOUBLE) -> BOOLEAN", description="whether it is not a number", aliases=("isnan",))
def _is_nan(values: Sequence[Value], rows: int) -> Value:
    return pc.is_nan(values[0])


@scalar(
    "is_finite(DOUBLE) -> BOOLEAN",
    description="whether it is neither NaN nor infinite",
    aliases=("isfinite",),
)
def _is_finite(values: Sequence[Value], rows: int) -> Value:
    return pc.is_finite(values[0])


@scalar("is_inf(DOUBLE) -> BOOLEAN", description="whether it is infinite", aliases=("isinf",))
def _is_inf(values: Sequence[Value], rows: int) -> Value:
    return pc.is_inf(values[0])


@scalar(
    "safe_divide(DOUBLE, DOUBLE) -> DOUBLE",
    description="the quotient, or NULL where the divisor is zero",
    aliases=("try_divide", "divide_or_null"),
)
def _safe_divide(values: Sequence[Value], rows: int) -> Value:
    zero = pc.equal(values[1], 0.0)
    return pc.divide(values[0], pc.if_else(zero, pa.scalar(None, pa.float64()), values[1]))
