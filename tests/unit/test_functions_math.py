"""Arithmetic, comparison, logic, conditional and mathematical functions against DuckDB, or PostgreSQL's answer."""

from __future__ import annotations

from decimal import Decimal as D
from typing import Any

import pyarrow as pa
import pytest
from tests.unit.function_oracle import Constant as C
from tests.unit.function_oracle import check, evaluate

from millrace.operators.functions.row_error import RowError

BIG = 2**63 - 1
INTS = [0, 1, None, -7, 7, 12345678901, -1, 3]
MORE = [1, None, 4, 2, -2, 10, 3, 3]
FLOATS = [0.0, 1.5, None, -2.5, 2.5, 1e300, -0.1, 3.0]
SMALL = pa.array([5, None, -128, 127, 0, 3, 2, 1], pa.int8())
MONEY = pa.array(
    [D("1.25"), None, D("-3.50"), D("99999999.99"), D("0.00"), D("2.45"), D("-0.05"), D("7.00")],
    pa.decimal64(10, 2),
)
RATES = pa.array(
    [D("0.908"), D("1.000"), None, D("3.333"), D("-0.500"), D("2.000"), D("0.001"), D("9.999")],
    pa.decimal64(4, 3),
)
WIDE = pa.array(
    [D("12345678901234567890.1234"), None, D("-1.0001"), D(0), D(5), D("2.5"), D("-2.5"), D(1)],
    pa.decimal128(30, 4),
)
BOOLS = [True, False, None, True, True, False, None, False]
OTHERS = [True, True, True, None, False, False, None, None]
TEXTS = ["b", None, "a", "ñ", "", "B", "z", "b"]

CASES: list[tuple[str, list[Any], str | list[Any]]] = [
    ("+", [INTS, MORE], "a + b"),
    ("-", [INTS, MORE], "a - b"),
    ("*", [INTS, MORE], "a * b"),
    ("/", [INTS, MORE], "a // b"),
    ("%", [INTS, MORE], "a % b"),
    ("mod", [INTS, C(4)], "a % 4"),
    ("%", [INTS, C(-4)], "a % -4"),
    ("/", [[-7, 7, None], C(2)], [-3, 3, None]),
    ("+", [SMALL, MORE], "a + b"),
    ("+", [INTS, FLOATS], "a + b"),
    ("*", [FLOATS, FLOATS[::-1]], "a * b"),
    ("/", [FLOATS, [1.0, 2.0, 3.0, None, 5.0, 6.0, 7.0, 0.5]], "a / b"),
    ("%", [[5.5, -5.5, None], [2.0, 2.0, 1.0]], "a % b"),
    ("-", [INTS], "-a"),
    ("-", [FLOATS], "-a"),
    ("-", [MONEY], "-a"),
    ("+", [MONEY, RATES], "a + b"),
    ("-", [MONEY, RATES], "a - b"),
    ("*", [MONEY, RATES], "a * b"),
    ("+", [MONEY, INTS], [D("1.25"), None, None, D("99999992.99"), D("7.00"), D("12345678903.45"), D("-1.05"), D("10.00")]),
    ("*", [C(D("0.908"), pa.decimal64(3, 3)), INTS], "0.908 * a"),
    ("*", [C(D("0.908"), pa.decimal64(3, 3)), [BIG, -BIG - 1, None]], [D("8374821809464136432.756"), D("-8374821809464136433.664"), None]),
    ("*", [[BIG, -BIG - 1, 0, None], C(D("-9.99"), pa.decimal64(3, 2))],
     [D("-92141486648179210311.93"), D("92141486648179210321.92"), D("0.00"), None]),
    ("+", [WIDE, MONEY], "a + b"),
    ("*", [WIDE, RATES], "a * b"),
    ("+", [MONEY, FLOATS], "a::DOUBLE + b"),
    ("%", [MONEY, C(D("0.3"), pa.decimal64(1, 1))], "a % 0.3"),
    ("=", [INTS, MORE], "a = b"),
    ("<>", [INTS, FLOATS], "a <> b"),
    ("<", [MONEY, RATES], "a < b"),
    ("<=", [MONEY, INTS], "a <= b"),
    (">", [WIDE, MONEY], "a > b"),
    (">=", [TEXTS, C("b")], "a >= 'b'"),
    ("<", [TEXTS, TEXTS[::-1]], "a < b"),
    ("!=", [MONEY, C(D("1.25"), pa.decimal64(3, 2))], "a <> 1.25"),
    ("==", [[[1, 2], None, [1, None]], [[1, 2], [1], [1, 3]]], [True, None, False]),
    ("and", [BOOLS, OTHERS], "a AND b"),
    ("or", [BOOLS, OTHERS], "a OR b"),
    ("and", [BOOLS, C(None, pa.bool_())], "a AND NULL"),
    ("or", [BOOLS, C(True)], "a OR TRUE"),
    ("xor", [BOOLS, OTHERS], "xor(a::INT, b::INT)::BOOLEAN"),
    ("not", [BOOLS], "NOT a"),
    ("is null", [TEXTS], "a IS NULL"),
    ("is not null", [MONEY], "a IS NOT NULL"),
    ("is true", [BOOLS], "a IS TRUE"),
    ("is false", [BOOLS], "a IS FALSE"),
    ("is not true", [BOOLS], "a IS NOT TRUE"),
    ("is not false", [BOOLS], "a IS NOT FALSE"),
    ("is distinct from", [INTS, MORE], "a IS DISTINCT FROM b"),
    ("is distinct from", [[None, 1, 2], [None, None, 2]], [False, True, False]),
    ("is not distinct from", [TEXTS, TEXTS[::-1]], "a IS NOT DISTINCT FROM b"),
    ("is not distinct from", [MONEY, MONEY], [True] * 8),
    ("in", [INTS, C(1), C(7), C(3)], "a IN (1, 7, 3)"),
    ("in", [INTS, C(1), C(7), C(None, pa.null())], "a IN (1, 7, NULL)"),
    ("in", [TEXTS, C("b"), C("ñ"), C("q")], "a IN ('b', 'ñ', 'q')"),
    ("in", [INTS, MORE, C(7)], "a IN (b, 7)"),
    ("in", [MONEY, C(D("1.25"), pa.decimal64(3, 2)), C(7), C(9)], "a IN (1.25, 7, 9)"),
    ("coalesce", [INTS, MORE, C(0)], "coalesce(a, b, 0)"),
    ("nvl", [TEXTS, C("none")], "coalesce(a, 'none')"),
    ("ifnull", [MONEY, C(0)], "coalesce(a, 0)"),
    ("coalesce", [[[1], None], [[2], [3]]], [[1], [3]]),
    ("nullif", [INTS, C(7)], "nullif(a, 7)"),
    ("nullif", [MONEY, RATES], "nullif(a, b)"),
    ("if", [BOOLS, INTS, MORE], "if(a, b, c)"),
    ("iif", [BOOLS, C("yes")], "CASE WHEN a THEN 'yes' END"),
    ("if", [BOOLS, MONEY, C(0)], "CASE WHEN a THEN b ELSE 0 END"),
    ("greatest", [INTS, MORE], "greatest(a, b)"),
    ("least", [INTS, FLOATS, C(2)], "least(a, b, 2)"),
    ("greatest", [MONEY, RATES], "greatest(a, b)"),
    ("least", [TEXTS, C("b")], "least(a, 'b')"),
    ("greatest", [[[1, 2], [3]], [[2], None]], [[2], [3]]),
    ("abs", [INTS], "abs(a)"),
    ("abs", [MONEY], "abs(a)"),
    ("abs", [FLOATS], "abs(a)"),
    ("sign", [INTS], "sign(a)"),
    ("sign", [FLOATS], "sign(a)"),
    ("sign", [MONEY], "sign(a)"),
    ("ceil", [FLOATS], "ceil(a)"),
    ("ceiling", [MONEY], "ceil(a)"),
    ("floor", [FLOATS], "floor(a)"),
    ("floor", [MONEY], "floor(a)"),
    ("floor", [INTS], "a"),
    ("round", [FLOATS], "round(a)"),
    ("round", [[1.25, -1.35, 2.5, None], C(1)], [1.3, -1.4, 2.5, None]),
    ("round", [MONEY, C(1)], "round(a, 1)"),
    ("round", [MONEY], "round(a)"),
    ("round", [WIDE, C(2)], "round(a, 2)"),
    ("round", [[1234, -1250, 15, None], C(-1)], [1230, -1250, 20, None]),
    ("round", [[1.234, 5.678], [1, 2]], [1.2, 5.68]),
    ("trunc", [FLOATS], "trunc(a)"),
    ("truncate", [[1.29, -1.29], C(1)], [1.2, -1.2]),
    ("trunc", [MONEY, C(1)], [D("1.2"), None, D("-3.5"), D("99999999.9"), D("0.0"), D("2.4"), D("0.0"), D("7.0")]),
    ("round_half_even", [[0.5, 1.5, 2.5, None]], [0.0, 2.0, 2.0, None]),
    *[(name, [pa.array([D(-(10**38) + 1), D(10**37), None], pa.decimal128(38, 0))], f"{name}(a)") for name in ("abs", "sign", "ceil", "floor")],
    ("round", [pa.array([D("-999.99"), D("0.05"), D("55.55")], pa.decimal64(5, 2)), C(-1)], [D("-1000.00"), D("0.00"), D("60.00")]),
    ("round", [pa.array([D("-999.99"), D("0.05")], pa.decimal64(5, 2)), C(-9)], [D("0.00"), D("0.00")]),
    ("round", [[2**62, -15], C(-2)], [4611686018427387900, 0]),
    ("sqrt", [[0.0, 2.0, None, 1e10]], "sqrt(a)"),
    ("cbrt", [[0.0, 8.0, None, -27.0]], "cbrt(a)"),
    ("exp", [[0.0, 1.0, None, -5.5]], "exp(a)"),
    ("ln", [[1.0, 2.5, None, 1e10]], "ln(a)"),
    ("log", [[1.0, 100.0, None]], "log(a)"),
    ("log", [C(2.0), [8.0, 1.0, None]], [3.0, 0.0, None]),
    ("log10", [[1.0, 1000.0, None]], "log10(a)"),
    ("log2", [[1.0, 8.0, None]], "log2(a)"),
    ("power", [[2.0, -2.0, 9.0, None, 0.0], [3.0, 3.0, 0.5, 1.0, 0.0]], "power(a, b)"),
    ("pow", [INTS[:4], C(2)], "pow(a, 2)"),
    *[(name, [[0.0, 0.5, None, -0.25]], f"{name}(a)") for name in
      ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "degrees", "radians")],
    ("cot", [[0.5, None]], "cot(a)"),
    ("atan2", [[0.5, -1.0, None], [1.0, -2.0, 1.0]], "atan2(a, b)"),
    ("hypot", [[3.0, None], [4.0, 1.0]], [5.0, None]),
    ("pi", [], "pi()"),
    ("e", [], "exp(1)"),
    ("factorial", [[0, 5, 20, None]], "factorial(a::INT)"),
    ("gcd", [[12, 0, -4, None], [18, 5, 6, 1]], "gcd(a, b)"),
    ("lcm", [[4, 0, None], [6, 5, 1]], "lcm(a, b)"),
    ("width_bucket", [[5.35, 0.024, 10.06, 11.0, -1.0], C(0.024), C(10.06), C(5)], [3, 1, 6, 6, 0]),
    ("bit_and", [INTS, MORE], "a & b"),
    ("|", [INTS, MORE], "a | b"),
    ("#", [INTS, MORE], "xor(a, b)"),
    ("<<", [[1, 5, None], C(3)], "a << 3"),
    (">>", [[8, 5, None], C(1)], "a >> 1"),
    ("~", [INTS], "~a"),
    ("bit_count", [INTS], "bit_count(a)"),
    ("is_nan", [[1.0, float("nan"), None]], "isnan(a)"),
    ("is_finite", [[1.0, float("inf"), None]], "isfinite(a)"),
    ("is_inf", [[1.0, float("-inf"), None]], "isinf(a)"),
    ("safe_divide", [[1, 2, None], [0, 4, 1]], [None, 0.5, None]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arguments", "expected"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)]
)
def test_function_gives_the_reference_answer(
    name: str, arguments: list[Any], expected: str | list[Any]
) -> None:
    check(name, arguments, expected)


ERRORS: list[tuple[str, list[Any], str]] = [
    ("+", [[1, BIG], C(1)], "MR2001"),
    ("-", [[0, -BIG - 1], C(1)], "MR2001"),
    ("*", [[1, BIG], C(2)], "MR2001"),
    ("+", [pa.array([1, 127], pa.int8()), pa.array([1, 1], pa.int8())], "MR2001"),
    ("-", [[1, -BIG - 1]], "MR2001"),
    ("abs", [[1, -BIG - 1]], "MR2001"),
    ("/", [[1, 1], [1, 0]], "MR2002"),
    ("%", [[1, 1], [1, 0]], "MR2002"),
    ("/", [[1.0, 1.0], [1.0, 0.0]], "MR2002"),
    ("/", [[1, -BIG - 1], [1, -1]], "MR2001"),
    ("/", [MONEY[2:4], pa.array([D("1.0"), D("0.0")], pa.decimal64(2, 1))], "MR2002"),
    ("%", [MONEY[2:4], pa.array([D("1.0"), D("0.0")], pa.decimal64(2, 1))], "MR2002"),
    ("sqrt", [[1.0, -1.0]], "MR2004"),
    ("ln", [[1.0, 0.0]], "MR2004"),
    ("log10", [[1.0, -1.0]], "MR2004"),
    ("power", [[2.0, -8.0], [1.0, 0.5]], "MR2004"),
    ("power", [[2.0, 1e200], [1.0, 2.0]], "MR2001"),
    ("asin", [[1.0, 2.0]], "MR2004"),
    ("factorial", [[1, 21]], "MR2001"),
    ("lcm", [[1, BIG], [1, BIG - 1]], "MR2001"),
    ("width_bucket", [[1.0, 1.0], C(0.0), C(1.0), pa.array([3, 0])], "MR2004"),
]


@pytest.mark.parametrize(
    ("name", "arguments", "code"), ERRORS, ids=[f"{i}-{c[0]}" for i, c in enumerate(ERRORS)]
)
def test_value_outside_the_domain_is_the_error_of_its_row(name: str, arguments: list[Any], code: str) -> None:
    with pytest.raises(RowError) as caught:
        evaluate(name, arguments)
    assert caught.value.rows.tolist() == [False, True]
    assert caught.value.code == code


def test_decimal_quotient_is_rounded_half_away_from_zero() -> None:
    got = evaluate("/", [MONEY, RATES])
    assert (got.type.precision, got.type.scale) == (18, 7)
    assert got.to_pylist()[0] == D("1.3766520")
    assert got.to_pylist()[4] == D(0)
    assert evaluate(
        "/", [pa.array([D("2.00"), D("-2.00")], pa.decimal64(3, 2)), C(3, pa.int32())]
    ).to_pylist()[1] == D("-0.6666666666667")


@pytest.mark.parametrize(
    ("name", "left", "right", "wanted"),
    [
        ("*", pa.decimal64(3, 3), pa.int64(), pa.decimal128(22, 3)),
        ("*", pa.decimal64(10, 2), pa.decimal64(4, 3), pa.decimal64(14, 5)),
        ("+", pa.decimal64(10, 2), pa.decimal64(4, 3), pa.decimal64(12, 3)),
        ("+", pa.decimal64(10, 2), pa.int32(), pa.decimal64(13, 2)),
        ("/", pa.decimal64(10, 2), pa.decimal64(4, 3), pa.decimal64(18, 7)),
        ("*", pa.decimal128(38, 10), pa.decimal128(38, 10), pa.decimal128(38, 6)),
        ("+", pa.decimal64(10, 2), pa.float64(), pa.float64()),
        ("+", pa.int32(), pa.int64(), pa.int64()),
        ("+", pa.uint32(), pa.int32(), pa.int64()),
    ],
)
def test_result_types_of_numbers(
    name: str, left: pa.DataType, right: pa.DataType, wanted: pa.DataType
) -> None:
    from millrace.operators.functions.registry import resolve

    assert resolve(name, [left, right]).returns == wanted
