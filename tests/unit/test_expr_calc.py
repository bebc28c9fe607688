"""The Calc operator and the evaluator behind it: laziness, sharing, dead letters, weights and metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.unit.function_oracle import call

from millrace.operators.batch import Batch
from millrace.operators.calc import Calc
from millrace.operators.expressions.evaluate import (
    columns_of,
    compile_expression,
    compile_expressions,
    is_deterministic,
)
from millrace.operators.expressions.text import to_sql
from millrace.operators.expressions.tree import Call, Case, Cast, Column, Expression, Literal
from millrace.operators.functions import registry
from millrace.operators.spec import decode, encode

SCHEMA = pa.schema([
    pa.field("k", pa.int64(), nullable=False, metadata={b"sql_type": b"X"}),
    pa.field("n", pa.int64()),
    pa.field("s", pa.string()),
    pa.field("b", pa.bool_()),
])  # fmt: skip
K, N, S, B = (Column(i, f.type, f.name) for i, f in enumerate(SCHEMA))
ROWS = {
    "k": [1, 2, 3, 4, 5],
    "n": [0, 2, None, -1, 5],
    "s": ["1", "x", None, "4", "ü"],
    "b": [True, False, None, True, False],
}


def number(value: int) -> Literal:
    return Literal(value, pa.int64())


@dataclass
class Surroundings:
    """A context that keeps what it is handed."""

    vnodes: int = 256
    clock: int = 0
    dead: list[tuple[list[dict[str, Any]], str, str, list[int] | None]] = field(default_factory=list)

    def now(self) -> int:
        return self.clock

    def late(self, batch: Batch) -> None:
        raise AssertionError

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        weights = None if batch.weights is None else batch.weights.tolist()
        self.dead.append((batch.data.to_pylist(), code, reason, weights))


def batch(weights: list[int] | None = None) -> Batch:
    data = pa.RecordBatch.from_pydict(ROWS, schema=SCHEMA)
    return Batch(
        data,
        None if weights is None else np.array(weights),
        None if weights is None else np.array(weights) * 10,
    )


def run(
    predicate: Expression | None, *outputs: Expression, weights: list[int] | None = None
) -> tuple[list[Batch], Surroundings]:
    surroundings = Surroundings()
    spec = Calc(SCHEMA, predicate, outputs, tuple(f"o{i}" for i in range(len(outputs))))
    assert decode(encode(spec)) == spec
    out = spec.build(surroundings).process(0, batch(weights))
    for result in out:
        assert result.data.schema.equals(spec.output_schema, check_metadata=True)
    return out, surroundings


def test_plain_columns_are_not_copied_and_keep_their_field() -> None:
    surroundings = Surroundings()
    spec = Calc(SCHEMA, None, (S, K), ("text", "key"))
    assert spec.output_schema.field("key").metadata == {b"sql_type": b"X"}
    assert not spec.output_schema.field("key").nullable
    given = batch()
    [out] = spec.build(surroundings).process(0, given)
    assert out.data.column(1).buffers()[1].address == given.data.column(0).buffers()[1].address


def test_filter_keeps_weights_and_watermarks_in_step() -> None:
    [out], _ = run(call(">", K, number(2)), call("+", K, number(1)), S, weights=[1, -1, 1, -1, 2])
    assert out.data.column(0).to_pylist() == [4, 5, 6]
    assert out.weights is not None and out.weights.tolist() == [1, -1, 2]
    assert out.row_watermarks is not None and out.row_watermarks.tolist() == [10, -10, 20]


def test_null_and_false_are_filtered_alike() -> None:
    [out], _ = run(B, K)
    assert out.data.column(0).to_pylist() == [1, 4]
    assert run(Literal(None, pa.bool_()), K)[0] == []
    assert run(Literal(False, pa.bool_()), K)[0] == []
    assert run(call(">", K, number(9)), K)[0] == []
    assert run(Literal(True, pa.bool_()), K)[0][0].num_rows == 5


def test_rows_that_do_not_compute_are_dead_letters_and_the_rest_goes_on() -> None:
    [out], seen = run(None, K, call("/", number(10), N), weights=[1, 1, 1, 1, -1])
    assert out.data.to_pydict() == {"o0": [2, 3, 4, 5], "o1": [5, None, -10, 2]}
    assert out.weights is not None and out.weights.tolist() == [1, 1, 1, -1]
    [(rows, code, reason, weights)] = seen.dead
    assert (
        [r["k"] for r in rows] == [1] and code == "MR2002" and "division by zero" in reason and weights == [1]
    )


def test_several_kinds_of_errors_each_go_with_their_code() -> None:
    [out], seen = run(call("is not null", S), Cast(S, pa.int64()), call("/", number(1), N))
    assert out.data.to_pydict() == {"o0": [4], "o1": [-1]}
    assert sorted((r["k"], code) for rows, code, _, _ in seen.dead for r in rows) == [
        (1, "MR2002"),
        (2, "MR2003"),
        (5, "MR2003"),
    ]


def test_errors_of_rows_that_the_predicate_drops_do_not_count() -> None:
    [out], seen = run(call("<>", N, number(0)), call("/", number(10), N))
    assert out.data.column(0).to_pylist() == [5, -10, 2] and seen.dead == []


def test_all_rows_bad_gives_no_batch() -> None:
    out, seen = run(None, call("/", K, number(0)))
    assert out == [] and sum(len(rows) for rows, *_ in seen.dead) == 5


def test_case_computes_a_branch_only_where_it_is_taken() -> None:
    guarded = Case((call("<>", N, number(0)),), (call("/", number(10), N),), number(-1), pa.int64())
    [out], seen = run(None, guarded, guarded)
    assert out.data.column(0).to_pylist() == [-1, 5, -1, -10, 2] and seen.dead == []
    nested = Case(
        (call("=", S, Literal("1", pa.string())),),
        (Cast(S, pa.int64()),),
        Literal(None, pa.int64()),
        pa.int64(),
    )
    [out], seen = run(None, nested)
    assert out.data.column(0).to_pylist() == [1, None, None, None, None] and seen.dead == []


def test_case_errors_name_the_right_rows() -> None:
    some = Case((call("<", K, number(4)),), (call("/", number(10), N),), K, pa.int64())
    [out], seen = run(call("<", K, number(6)), some)
    assert out.data.column(0).to_pylist() == [5, None, 4, 5]
    assert [[r["k"] for r in rows] for rows, *_ in seen.dead] == [[1]]


@pytest.mark.parametrize("name", ["and", "or"])
def test_and_or_guard_what_stands_to_their_right(name: str) -> None:
    test = call("<>", N, number(0)) if name == "and" else call("=", N, number(0))
    divided = call(">", call("/", number(10), N), number(0))
    [out], seen = run(None, call(name, test, divided))
    assert seen.dead == []
    wanted = [False, True, None, False, True] if name == "and" else [True, True, None, False, True]
    assert out.data.column(0).to_pylist() == wanted
    text = call(">", Cast(S, pa.int64()), number(0))
    is_digit = call("regexp_like", S, Literal("^[0-9]+$", pa.string()))
    guard = call("and", is_digit, text) if name == "and" else call("or", call("not", is_digit), text)
    [out], seen = run(None, guard)
    assert seen.dead == []


def test_coalesce_if_and_nullif_are_lazy() -> None:
    [out], seen = run(None, call("coalesce", N, Cast(S, pa.int64())))
    assert out.data.column(0).to_pylist() == [0, 2, None, -1, 5] and seen.dead == []
    [out], seen = run(None, call("if", call("=", N, number(0)), number(0), call("/", number(10), N)))
    assert out.data.column(0).to_pylist() == [0, 5, None, -10, 2] and seen.dead == []
    [out], seen = run(None, call("/", number(10), call("nullif", N, number(0))))
    assert out.data.column(0).to_pylist() == [None, 5, None, -10, 2] and seen.dead == []


def test_a_subexpression_that_occurs_twice_is_computed_once() -> None:
    calls = []

    def double(values: pa.Array) -> pa.Array:
        calls.append(len(values))
        return pa.compute.multiply(values, 2)  # type: ignore[attr-defined]

    registry.register_scalar("double_it", double, [pa.int64()], pa.int64())
    try:
        twice = call("double_it", K)
        [out], _ = run(call(">", twice, number(4)), twice, call("+", twice, number(1)))
        assert out.data.to_pydict() == {"o0": [6, 8, 10], "o1": [7, 9, 11]}
        assert calls == [5]
    finally:
        registry.unregister("double_it")


def test_constants_are_folded_once_and_stay_scalars() -> None:
    evaluate = compile_expressions(
        [call("+", number(1), number(2)), call("upper", Literal("a", pa.string()))], SCHEMA
    )
    assert [column.to_pylist() for column in evaluate(batch().data)] == [[3] * 5, ["A"] * 5]


def test_a_constant_that_fails_fails_each_row_not_the_plan() -> None:
    out, seen = run(None, call("/", number(1), number(0)))
    assert out == [] and seen.dead[0][1] == "MR2002"


def test_clock_is_read_once_a_batch() -> None:
    surroundings = Surroundings(clock=1_700_000_000_000_000)
    spec = Calc(
        SCHEMA,
        None,
        (call("now"), call("current_date"), call("localtimestamp"), call("current_time")),
        ("t", "d", "l", "c"),
    )
    [out] = spec.build(surroundings).process(0, batch())
    assert len(set(out.data.column(0).to_pylist())) == 1
    assert [str(out.data.column(i)[0]) for i in (1, 2, 3)] == [
        "2023-11-14",
        "2023-11-14 22:13:20",
        "22:13:20",
    ]
    assert not is_deterministic(call("now")) and is_deterministic(call("upper", S))


def test_no_output_columns_keep_the_row_count() -> None:
    spec = Calc(SCHEMA, call(">", K, number(3)), (), ())
    [out] = spec.build(Surroundings()).process(0, batch())
    assert out.num_rows == 2


def test_details_and_columns_read() -> None:
    spec = Calc(SCHEMA, call(">", K, number(2)), (S, call("+", call("*", K, N), number(1))), ("s", "x"))
    assert spec.details() == {"where": "k > 2", "select": "s, (k * n) + 1 AS x"}
    assert columns_of(spec.outputs[1]) == {0, 1}
    case = Case((call("is null", S),), (Literal("it's", pa.string()),), Cast(K, pa.string()), pa.string())
    assert to_sql(case) == "CASE WHEN s IS NULL THEN 'it''s' ELSE CAST(k AS STRING) END"


def test_empty_batch_evaluates_to_an_empty_array() -> None:
    empty = pa.RecordBatch.from_pylist([], schema=SCHEMA)
    for expression in (call("+", K, N), call("upper", S), call("split_part", S, Literal(",", pa.string()), number(1)),
                       Case((B,), (call("upper", S),), S, pa.string()), call("and", B, B), Call("count_char", (S, Literal("a", pa.string())), pa.int64())):  # fmt: skip
        assert compile_expression(expression, SCHEMA)(empty).to_pylist() == []
