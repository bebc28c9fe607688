"""Random expression trees through Calc, in random batch cuts, against a model that works row by row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.operators.batch import Batch
from millrace.operators.calc import Calc
from millrace.operators.expressions.tree import Call, Case, Column, Expression, Literal
from millrace.operators.functions.text_scan import recognise

I64, BOOL, STR = pa.int64(), pa.bool_(), pa.string()
SCHEMA = pa.schema([("a", I64), ("b", I64), ("s", STR), ("p", BOOL)])


class Failure(Exception):
    """The row has no value."""


@dataclass
class Surroundings:
    vnodes: int = 256
    dead: list[int] = field(default_factory=list)

    def now(self) -> int:
        return 0

    def late(self, batch: Batch) -> None:
        raise AssertionError

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        assert batch.weights is not None
        self.dead.extend(batch.weights.tolist())


def numbers(depth: int) -> st.SearchStrategy[Expression]:
    leaves: st.SearchStrategy[Expression] = st.one_of(
        st.sampled_from([Column(0, I64, "a"), Column(1, I64, "b")]),
        st.one_of(st.none(), st.integers(-3, 3)).map(lambda v: Literal(v, I64)),
    )
    if depth == 0:
        return leaves
    inner = numbers(depth - 1)
    return st.one_of(
        leaves,
        st.tuples(st.sampled_from("+-*/%"), inner, inner).map(lambda t: Call(t[0], (t[1], t[2]), I64)),
        st.tuples(conditions(depth - 1), inner, inner).map(lambda t: Case((t[0],), (t[1],), t[2], I64)),
        st.tuples(conditions(depth - 1), inner, inner).map(lambda t: Call("if", t, I64)),
        st.tuples(inner, inner).map(lambda t: Call("coalesce", t, I64)),
        st.tuples(inner, inner).map(lambda t: Call("nullif", t, I64)),
        st.just(Call("count_char", (Column(2, STR, "s"), Literal("x", STR)), I64)),
    )


def conditions(depth: int) -> st.SearchStrategy[Expression]:
    leaves: st.SearchStrategy[Expression] = st.one_of(
        st.just(Column(3, BOOL, "p")), st.sampled_from([True, False, None]).map(lambda v: Literal(v, BOOL))
    )
    if depth == 0:
        return leaves
    inner, number = conditions(depth - 1), numbers(depth - 1)
    return st.one_of(
        leaves,
        st.tuples(st.sampled_from(["=", "<", ">="]), number, number).map(
            lambda t: Call(t[0], (t[1], t[2]), BOOL)
        ),
        st.tuples(st.sampled_from(["and", "or"]), inner, inner).map(lambda t: Call(t[0], (t[1], t[2]), BOOL)),
        inner.map(lambda e: Call("not", (e,), BOOL)),
        number.map(lambda e: Call("is null", (e,), BOOL)),
    )


def value(e: Expression, row: tuple[Any, ...]) -> Any:
    """What the expression is for one row. Raises Failure."""
    match e:
        case Column():
            return row[e.index]
        case Literal():
            return e.value
        case Case():
            taken = next(
                (v for c, v in zip(e.conditions, e.values, strict=True) if value(c, row) is True), e.default
            )
            return value(taken, row)
        case Call(function="and" | "or" as name):
            stop = name == "or"
            left = value(e.arguments[0], row)
            if left is stop:
                return stop
            right = value(e.arguments[1], row)
            return right if right is stop or left is not None else None
        case Call(function="if"):
            return value(e.arguments[1 if value(e.arguments[0], row) is True else 2], row)
        case Call(function="coalesce"):
            left = value(e.arguments[0], row)
            return value(e.arguments[1], row) if left is None else left
        case Call(function="nullif"):
            left, right = (value(x, row) for x in e.arguments)
            return None if left is not None and left == right else left
        case Call(function="count_char"):
            return None if row[2] is None else row[2].count("x")
        case Call(function="not"):
            inner = value(e.arguments[0], row)
            return None if inner is None else not inner
        case Call(function="is null"):
            return value(e.arguments[0], row) is None
        case Call():
            return binary(e.function, *(value(x, row) for x in e.arguments))
    raise AssertionError(e)


def binary(name: str, a: Any, b: Any) -> Any:
    if a is None or b is None:
        return None
    if name in ("=", "<", ">="):
        return {"=": a == b, "<": a < b, ">=": a >= b}[name]
    if name in "/%" and b == 0:
        raise Failure
    quotient = 0 if name not in "/%" else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    result = {"+": a + b, "-": a - b, "*": a * b, "/": quotient, "%": a - quotient * b}[name]
    if not -(2**63) <= result < 2**63:
        raise Failure
    return result


ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(-4, 4), st.sampled_from([2**63 - 1, -(2**63), 2**62])),
        st.one_of(st.none(), st.integers(-4, 4)),
        st.one_of(st.none(), st.text("xyé", max_size=4)),
        st.sampled_from([True, False, None]),
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=1500, deadline=None)
@given(conditions(2), st.lists(numbers(3), min_size=1, max_size=3), ROWS, st.integers(1, 20))
def test_calc_gives_the_rows_of_the_model_however_input_is_cut(
    predicate: Expression, outputs: list[Expression], rows: list[tuple[Any, ...]], size: int
) -> None:
    wanted: list[tuple[Any, ...]] = []
    dead: list[int] = []
    for place, row in enumerate(rows):
        try:
            if value(predicate, row) is True:
                wanted.append((place, *(value(e, row) for e in outputs)))
        except Failure:
            dead.append(place)
    surroundings = Surroundings()
    spec = Calc(SCHEMA, predicate, tuple(outputs), tuple(f"o{i}" for i in range(len(outputs))))
    operator = spec.build(surroundings)
    columns = [
        pa.array(list(column), f.type) for column, f in zip(zip(*rows, strict=True), SCHEMA, strict=True)
    ]
    data = pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
    got: list[tuple[Any, ...]] = []
    for start in range(0, len(rows), size):
        piece = Batch(data, np.arange(len(rows))).slice(start, min(size, len(rows) - start))
        for out in operator.process(0, piece):
            assert out.weights is not None
            got.extend(zip(out.weights.tolist(), *(c.to_pylist() for c in out.data.columns), strict=True))
    assert got == wanted
    assert sorted(surroundings.dead) == dead


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(
        ["(&|^)k=([^&]*)", "[?&]k=([^&]+)", "(?:^|;)kk=(.*)", r"k/(\d+)", r"k=(\w+)", "k=([a-k]+)"]
    ),
    st.lists(st.one_of(st.none(), st.text("k=&?;/12aé_\n", max_size=14)), max_size=8),
)
def test_scan_is_the_regular_expression_it_stands_for(pattern: str, texts: list[str | None]) -> None:
    import re

    scan = recognise(pattern)
    assert scan is not None
    found = [None if t is None else re.search(pattern, t, re.ASCII) for t in texts]
    array = pa.array(["junk k=1&k/2", *texts], pa.string()).slice(1)
    got = scan.extract(array)
    got.validate(full=True)
    assert got.to_pylist() == [None if m is None else m[scan.group] for m in found]
