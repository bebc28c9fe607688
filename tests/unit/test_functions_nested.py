"""JSON, array, map and row functions against DuckDB, or Flink's and PostgreSQL's documented answer."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from tests.unit.function_oracle import Constant as C
from tests.unit.function_oracle import check, evaluate

from millrace.errors import Invalid
from millrace.operators.functions.row_error import RowError

DOCUMENTS = [
    '{"a": {"b": [1, 2.50, "x"]}, "s": "ü", "n": null, "t": true}',
    '[1, {"k": 2}]',
    '"text"',
    "12",
    None,
    "{}",
    '{"a": 1e3}',
]
BROKEN = ["{", "", "nul", None]
LISTS = pa.array([[1, 2, 3], [], None, [3, None, 1, 3], [7]], pa.list_(pa.int64()))
OTHERS = pa.array([[3, 4], [1], [2], None, [7, 7]], pa.list_(pa.int64()))
WORDS = pa.array([["b", "a"], [], None, ["ñ", None, ""]], pa.list_(pa.string()))
MAPS = pa.array([[("x", 1), ("y", None)], [], None, [("ñ", 3)]], pa.map_(pa.string(), pa.int64()))
ROWS = pa.array(
    [{"p": 1, "q": "u"}, {"p": None, "q": "v"}, None], pa.struct([("p", pa.int64()), ("q", pa.string())])
)

CASES: list[tuple[str, list[Any], str | list[Any]]] = [
    ("json_value", [DOCUMENTS, C("$.s")], ["ü", None, None, None, None, None, None]),
    ("json_value", [DOCUMENTS, C("$.a.b[1]")], ["2.50", None, None, None, None, None, None]),
    ("json_value", [DOCUMENTS, C("$.a")], [None, None, None, None, None, None, "1e3"]),
    ("json_value", [DOCUMENTS, C("$.t")], ["true", *[None] * 6]),
    ("json_value", [BROKEN, C("$.t")], [None] * 4),
    ("json_value", [DOCUMENTS[:2], ["$.s", "$[1].k"]], ["ü", "2"]),
    ("json_query", [DOCUMENTS, C("$.a")], ['{"b":[1,2.5,"x"]}', None, None, None, None, None, None]),
    ("json_exists", [DOCUMENTS, C("$.n")], [True, False, False, False, None, False, False]),
    ("json_exists", [BROKEN, C("$.n")], [False, False, False, None]),
    ("json_extract", [DOCUMENTS, C("$.s")], "json_extract(a, '$.s')"),
    ("json_extract", [DOCUMENTS, C("$.n")], "json_extract(a, '$.n')"),
    ("->", [DOCUMENTS, C("s")], "a->'s'"),
    ("->", [DOCUMENTS, C(0)], "a->0"),
    ("->>", [DOCUMENTS, C("s")], "a->>'s'"),
    ("json_extract_string", [DOCUMENTS, C("$.a.b[2]")], "a->>'$.a.b[2]'"),
    ("json_extract_string", [DOCUMENTS, C("$.a.b[-1]")], ["x", *[None] * 6]),
    ("json_extract_string", [DOCUMENTS, C("/a/b/0")], "a->>'/a/b/0'"),
    ("get_json_object", [DOCUMENTS, C('$["s"]')], "a->>'$.s'"),
    ("json_array_length", [DOCUMENTS], "json_array_length(a)"),
    ("json_array_length", [DOCUMENTS[:1], C("$.a.b")], [3]),
    ("json_keys", [DOCUMENTS[:1]], [["a", "s", "n", "t"]]),
    ("json_type", [DOCUMENTS], ["object", "array", "string", "number", None, "object", "object"]),
    ("is_json", [[*DOCUMENTS, *BROKEN]], [True] * 4 + [None] + [True] * 2 + [False] * 3 + [None]),
    ("json_object", [C("k"), [1, None], C("v"), ["ü", "x"]], ['{"k":1,"v":"ü"}', '{"k":null,"v":"x"}']),
    ("json_array", [[1, None], ["ü", "x"]], ['[1,"ü"]', '[null,"x"]']),
    ("to_json", [LISTS], ["[1,2,3]", "[]", None, "[3,null,1,3]", "[7]"]),
    ("to_json", [MAPS], ['{"x":1,"y":null}', "[]", None, '{"ñ":3}']),
    ("array", [[1, None], [2, 3]], "[a, b]"),
    ("array", [C(1), [2.5, None]], [[1.0, 2.5], [1.0, None]]),
    ("row", [[1, None], ["x", "y"]], [{"f0": 1, "f1": "x"}, {"f0": None, "f1": "y"}]),
    ("map", [["k", "l"], [1, None]], [[("k", 1)], [("l", None)]]),
    ("map_from_arrays", [pa.array([["a", "b"], None]), pa.array([[1, 2], [3]])], [[("a", 1), ("b", 2)], None]),
    ("cardinality", [LISTS], "len(a)"),
    ("cardinality", [MAPS], "cardinality(a)"),
    ("array_length", [LISTS], "len(a)"),
    ("element_at", [LISTS, C(1)], "a[1]"),
    ("element_at", [LISTS, C(-1)], "a[-1]"),
    ("element_at", [LISTS, [3, 1, 1, 2, 0]], "list_extract(a, b)"),
    ("element_at", [WORDS, C(2)], "a[2]"),
    ("element_at", [MAPS, C("x")], "a['x']"),
    ("element_at", [MAPS, ["y", "x", "x", "ñ"]], [None, None, None, 3]),
    ("array_contains", [LISTS, C(3)], "list_contains(a, 3)"),
    ("array_contains", [WORDS, C("ñ")], "list_contains(a, 'ñ')"),
    ("array_contains", [LISTS, [9, 1, 1, 1, 7]], "list_contains(a, b)"),
    ("contains", [LISTS, C(1)], "list_contains(a, 1)"),
    ("array_position", [LISTS, C(3)], [3, None, None, 1, None]),
    ("array_append", [LISTS, C(9)], [[1, 2, 3, 9], [9], None, [3, None, 1, 3, 9], [7, 9]]),
    ("array_prepend", [C(9), LISTS], [[9, 1, 2, 3], [9], None, [9, 3, None, 1, 3], [9, 7]]),
    ("array_remove", [LISTS, C(3)], [[1, 2], [], None, [None, 1], [7]]),
    ("array_slice", [LISTS, C(2), C(3)], "a[2:3]"),
    ("array_slice", [LISTS, C(-2)], [[2, 3], [], None, [1, 3], [7]]),
    ("array_distinct", [LISTS], [[1, 2, 3], [], None, [3, None, 1], [7]]),
    ("array_sort", [LISTS], [[1, 2, 3], [], None, [1, 3, 3, None], [7]]),
    ("array_sort", [LISTS, C(False)], [[3, 2, 1], [], None, [None, 3, 3, 1], [7]]),
    ("array_reverse", [LISTS], "list_reverse(a)"),
    ("array_concat", [LISTS[:3], OTHERS[:3]], [[1, 2, 3, 3, 4], [1], None]),
    ("||", [LISTS[:2], OTHERS[:2]], "a || b"),
    ("array_union", [LISTS[:1], OTHERS[:1]], [[1, 2, 3, 4]]),
    ("array_intersect", [LISTS, OTHERS], [[3], [], None, None, [7]]),
    ("array_except", [LISTS, OTHERS], [[1, 2], [], None, None, []]),
    ("arrays_overlap", [LISTS, OTHERS], "list_has_any(a, b)"),
    ("list_has_all", [LISTS, OTHERS], "list_has_all(a, b)"),
    ("array_min", [LISTS], "list_min(a)"),
    ("array_max", [WORDS], "list_max(a)"),
    ("array_sum", [LISTS], "list_sum(a)"),
    ("array_repeat", [["x", None], C(2)], [["x", "x"], None]),
    ("sequence", [[1, None], C(3)], [[1, 2, 3], None]),
    ("sequence", [[5], C(1), C(-2)], [[5, 3, 1]]),
    ("flatten", [pa.array([[[1], None, [2, 3]], None, []], pa.list_(pa.list_(pa.int64())))], [[1, 2, 3], None, []]),
    ("array_join", [WORDS, C("-")], ["b-a", "", None, "ñ-"]),
    ("array_to_string", [LISTS, C(","), C("*")], ["1,2,3", "", None, "3,*,1,3", "7"]),
    ("map_keys", [MAPS], "map_keys(a)"),
    ("map_values", [MAPS], "map_values(a)"),
    ("map_entries", [MAPS], "map_entries(a)"),
    ("map_contains_key", [MAPS, C("y")], [True, False, None, False]),
    ("map_remove", [MAPS[:2], C("x")], [[("y", None)], []]),
    ("map_concat", [MAPS[:2], MAPS[:2]], [[("x", 1), ("y", None)], []]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arguments", "expected"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)]
)
def test_function_gives_the_reference_answer(
    name: str, arguments: list[Any], expected: str | list[Any]
) -> None:
    check(name, arguments, expected)


def test_field_of_a_row_is_null_where_the_row_is() -> None:
    from millrace.operators.expressions.evaluate import compile_expression
    from millrace.operators.expressions.tree import Call, Column, Literal

    schema = pa.schema([("r", ROWS.type)])
    field = Call("struct_field", (Column(0, ROWS.type, "r"), Literal("q", pa.string())), pa.string())
    got = compile_expression(field, schema)(pa.RecordBatch.from_arrays([ROWS], schema=schema))
    assert got.to_pylist() == ["u", "v", None]
    sliced = pa.RecordBatch.from_arrays([ROWS], schema=schema).slice(1)
    assert compile_expression(field, schema)(sliced).to_pylist() == ["v", None]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("json_extract", [["{}", "{"], C("$.a")]),
        ("json_value", [["{}", "{}"], ["$.a", "$.a[*]"]]),
        ("json_object", [["k", None], [1, 2]]),
        ("map", [pa.array([["a"], ["a", "b"]]), pa.array([[1], [1]])]),
        ("sequence", [[1, 1], C(3), [1, 0]]),
    ],
)
def test_bad_value_is_the_error_of_its_row(name: str, arguments: list[Any]) -> None:
    with pytest.raises(RowError) as caught:
        evaluate(name, arguments)
    assert caught.value.rows.tolist() == [False, True]


def test_arguments_that_fit_no_form_list_the_forms() -> None:
    with pytest.raises(Invalid, match="element_at") as caught:
        evaluate("element_at", [["x"], C(1)])
    assert caught.value.code == "MR1211"
    assert "ARRAY<T>" in (caught.value.hint or "")
