"""Decimal arithmetic against Python's exact decimals, over random sizes, values and NULLs."""

from __future__ import annotations

import decimal
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.operators.expressions.evaluate import compile_expression
from millrace.operators.expressions.tree import Call, Cast, Column, Expression, Literal
from millrace.operators.functions.registry import resolve
from millrace.operators.functions.row_error import RowError
from millrace.operators.functions.types import decimal_type, digits

EXACT = decimal.Context(prec=200, rounding=decimal.ROUND_HALF_UP)


@st.composite
def sized(draw: st.DrawFn) -> pa.DataType:
    precision = draw(st.sampled_from([1, 4, 9, 10, 17, 18, 19, 22, 30, 38]))
    scale = draw(st.integers(0, min(precision, 12)))
    return draw(st.sampled_from([decimal_type(precision, scale), pa.int64(), pa.int32()]))


def values_of(type: pa.DataType) -> st.SearchStrategy[Decimal | int | None]:
    if pa.types.is_integer(type):
        bound = 2 ** (type.bit_width - 1)
        return st.one_of(st.none(), st.integers(-bound, bound - 1), st.integers(-9, 9))
    most = 10**type.precision - 1
    number = st.one_of(st.integers(-most, most), st.integers(-min(most, 20), min(most, 20)))
    return st.one_of(st.none(), number.map(lambda n: EXACT.scaleb(Decimal(n), -type.scale)))


@st.composite
def operands(draw: st.DrawFn) -> tuple[pa.DataType, pa.DataType, list[tuple[Any, Any]], bool]:
    left, right = draw(sized()), draw(sized())
    rows = draw(st.lists(st.tuples(values_of(left), values_of(right)), min_size=1, max_size=12))
    return left, right, rows, draw(st.booleans())


def model(name: str, left: Any, right: Any, returns: pa.DataType) -> Any:
    """The exact result; "error" where there is none."""
    if left is None or right is None:
        return None
    a, b = Decimal(left), Decimal(right)
    if name in ("/", "%") and b == 0:
        return "error"
    exact = {
        "+": lambda: EXACT.add(a, b),
        "-": lambda: EXACT.subtract(a, b),
        "*": lambda: EXACT.multiply(a, b),
        "/": lambda: EXACT.divide(a, b),
        "%": lambda: EXACT.remainder(a, b),
    }[name]()
    if pa.types.is_integer(returns):
        whole = int(exact)
        bound = 2 ** (returns.bit_width - 1)
        return whole if -bound <= whole < bound else "error"
    rounded = exact.quantize(Decimal(1).scaleb(-returns.scale), decimal.ROUND_HALF_UP, EXACT)
    return rounded if abs(rounded) < Decimal(10) ** (returns.precision - returns.scale) else "error"


def compute(
    name: str, left: pa.DataType, right: pa.DataType, rows: list[tuple[Any, Any]], constant: bool
) -> list[Any]:
    """The results row by row, "error" at those that a RowError names."""
    signature = resolve(name, [left, right])
    schema = pa.schema([("a", left), ("b", right)])
    parts: list[Expression] = [
        Column(0, left, "a"),
        Literal(rows[0][1], right) if constant else Column(1, right, "b"),
    ]
    arguments = tuple(
        p if p.type == t else Cast(p, t) for p, t in zip(parts, signature.parameters, strict=True)
    )
    compiled = compile_expression(Call(name, arguments, signature.returns), schema)
    out: list[Any] = [None] * len(rows)
    left_over = list(range(len(rows)))
    while left_over:
        columns = [
            pa.array([rows[i][0] for i in left_over], left),
            pa.array([rows[i][1] for i in left_over], right),
        ]
        try:
            result = compiled(pa.RecordBatch.from_arrays(columns, schema=schema))
        except RowError as error:
            for place in error.rows.nonzero()[0]:
                out[left_over[place]] = "error"
            left_over = [i for place, i in enumerate(left_over) if not error.rows[place]]
            continue
        assert result.type == signature.returns
        for place, value in zip(left_over, result.to_pylist(), strict=True):
            out[place] = value
        break
    return out


@settings(max_examples=80, deadline=None)
@given(operands(), st.sampled_from("+-*/%"))
def test_arithmetic_is_exact(
    given_rows: tuple[pa.DataType, pa.DataType, list[tuple[Any, Any]], bool], name: str
) -> None:
    left, right, rows, constant = given_rows
    if constant:
        rows = [(a, rows[0][1]) for a, _ in rows]
    returns = resolve(name, [left, right]).returns
    assert compute(name, left, right, rows, constant) == [model(name, a, b, returns) for a, b in rows]


@settings(max_examples=80, deadline=None)
@given(operands(), st.sampled_from(["=", "<", ">="]))
def test_comparison_is_exact(
    given_rows: tuple[pa.DataType, pa.DataType, list[tuple[Any, Any]], bool], name: str
) -> None:
    left, right, rows, _ = given_rows
    whole = max(p - s for p, s in (digits(left), digits(right)))
    if whole + max(digits(left)[1], digits(right)[1]) > 38:
        return
    wanted = [
        None if a is None or b is None else {"=": a == b, "<": a < b, ">=": a >= b}[name] for a, b in rows
    ]
    assert compute(name, left, right, rows, False) == wanted


@settings(max_examples=80, deadline=None)
@given(sized(), sized(), st.data())
def test_cast_between_decimals_rounds_or_fails(
    source: pa.DataType, target: pa.DataType, data: st.DataObject
) -> None:
    rows = data.draw(st.lists(values_of(source), min_size=1, max_size=8))
    schema = pa.schema([("a", source)])
    compiled = compile_expression(Cast(Column(0, source, "a"), target, True), schema)
    got = compiled(pa.RecordBatch.from_arrays([pa.array(rows, source)], schema=schema)).to_pylist()
    scale = digits(target)[1]
    wanted: list[Any] = []
    for value in rows:
        rounded = (
            None
            if value is None
            else Decimal(value).quantize(Decimal(1).scaleb(-scale), decimal.ROUND_HALF_UP, EXACT)
        )
        if rounded is not None and pa.types.is_integer(target):
            fits = -(2 ** (target.bit_width - 1)) <= int(rounded) < 2 ** (target.bit_width - 1)
        else:
            fits = rounded is not None and abs(rounded) < Decimal(10) ** (digits(target)[0] - scale)
        wanted.append(rounded if fits else None)
    assert got == wanted
