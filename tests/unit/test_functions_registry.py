"""Resolution of functions by name and types, users' functions, and what the library says of itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.unit.function_oracle import Constant, evaluate

from millrace.errors import BadData, Invalid
from millrace.operators.functions import registry
from millrace.operators.functions.registry import resolve
from millrace.operators.functions.row_error import RowError
from millrace.operators.functions.types import can_coerce, capped_decimal, common_type, sql_name

I32, I64, F64, STR, US = pa.int32(), pa.int64(), pa.float64(), pa.string(), pa.timestamp("us")


def test_unknown_function_gets_a_suggestion() -> None:
    with pytest.raises(Invalid) as caught:
        resolve("uper", [STR])
    assert caught.value.code == "MR1210" and "upper" in (caught.value.hint or "")


def test_wrong_types_list_the_forms() -> None:
    with pytest.raises(Invalid) as caught:
        resolve("upper", [I64])
    assert caught.value.code == "MR1211" and "upper(STRING) -> STRING" in (caught.value.hint or "")
    with pytest.raises(Invalid):
        resolve("substring", [STR])


def test_names_are_found_in_any_case_and_by_alias() -> None:
    assert resolve("UCASE", [STR]).name == "upper"
    assert resolve("char_length", [STR]).name == "length"


@pytest.mark.parametrize(
    ("name", "types", "parameters", "returns"),
    [
        ("=", [I32, I64], (I64, I64), pa.bool_()),
        ("=", [US, STR], (US, US), pa.bool_()),
        ("<", [pa.date32(), US], (US, US), pa.bool_()),
        ("+", [I64, pa.null()], (I64, I64), I64),
        ("sqrt", [I32], (F64,), F64),
        ("sqrt", [pa.decimal64(5, 2)], (F64,), F64),
        ("concat", [I64, STR], (STR, STR), STR),
        ("coalesce", [pa.null(), I32, I64], (I64, I64, I64), I64),
        ("left", [STR, I32], (STR, I64), STR),
        (
            "+",
            [pa.timestamp("ms"), pa.duration("us")],
            (pa.timestamp("ms"), pa.duration("ms")),
            pa.timestamp("ms"),
        ),
        ("element_at", [pa.map_(STR, I32), STR], (pa.map_(STR, I32), STR), I32),
        ("array_append", [pa.list_(I32), I64], (pa.list_(I64), I64), pa.list_(I64)),
    ],
)
def test_types_choose_the_form(
    name: str, types: list[pa.DataType], parameters: tuple[pa.DataType, ...], returns: pa.DataType
) -> None:
    found = resolve(name, types)
    assert found.parameters == parameters and found.returns == returns


def test_only_literals_become_times_or_numbers() -> None:
    assert resolve("=", [I64, STR], [False, True]).parameters == (I64, I64)
    with pytest.raises(Invalid):
        resolve("=", [I64, STR], [False, False])


@pytest.mark.parametrize(
    ("types", "wanted"),
    [
        ([pa.int8(), I32], I32),
        ([pa.uint32(), I32], I64),
        ([I64, pa.decimal64(5, 2)], pa.decimal128(21, 2)),
        ([pa.decimal64(5, 2), pa.decimal64(10, 4)], pa.decimal64(10, 4)),
        ([pa.decimal64(5, 2), F64], F64),
        ([pa.float32(), I64], F64),
        ([pa.date32(), pa.timestamp("ms")], pa.timestamp("ms")),
        ([pa.timestamp("ms"), US], US),
        ([pa.null(), STR], STR),
        ([STR, I64], None),
        ([pa.list_(I32), pa.list_(I64)], pa.list_(I64)),
        ([pa.struct([("a", I32)]), pa.struct([("a", F64)])], pa.struct([("a", F64)])),
    ],
)
def test_common_type(types: list[pa.DataType], wanted: pa.DataType | None) -> None:
    assert common_type(types) == wanted


def test_coercion_is_one_way() -> None:
    assert can_coerce(I32, I64) and not can_coerce(I64, I32)
    assert can_coerce(pa.null(), STR) and can_coerce(pa.date32(), US)
    assert can_coerce(STR, US, literal=True) and not can_coerce(STR, US)
    assert not can_coerce(F64, pa.decimal64(10, 2))
    assert capped_decimal(50, 20) == pa.decimal128(38, 8)
    assert sql_name(pa.list_(pa.decimal64(5, 2))) == "ARRAY<DECIMAL(5, 2)>"


def test_the_library_describes_every_function() -> None:
    rows = list(registry.scalar_functions())
    assert len(rows) > 240
    for name, _, forms, description in rows:
        assert forms.startswith(name) and " -> " in forms and len(description) >= 4, name


def test_every_function_is_in_a_table_of_cases() -> None:
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    missing = [
        name
        for name, aliases, *_ in registry.scalar_functions()
        if not any(f'"{n}"' in text for n in (name, *aliases))
    ]
    generated = {"year", "quarter", "month", "week", "day", "doy", "dow", "isodow", "isoyear", "decade", "century", "millennium",
                 "hour", "minute", "second", "millisecond", "microsecond"}  # fmt: skip
    assert sorted(set(missing) - generated) == []


def _plus_one(values: pa.Array) -> pa.Array:
    return pc.add(values, 1)


@pytest.fixture
def plus_one() -> Any:
    registry.register_scalar("Plus_One", _plus_one, [I64], I64)
    yield
    registry.unregister("plus_one")


@pytest.mark.usefixtures("plus_one")
def test_user_function_over_arrays() -> None:
    assert evaluate("plus_one", [[1, None, 3]]).to_pylist() == [2, None, 4]
    assert evaluate("plus_one", [Constant(1)]).to_pylist() == [2]
    assert resolve("plus_one", [I32]).parameters == (I64,)
    registry.register_scalar("plus_one", lambda v: pc.add(v, 2), [I64], I64)
    assert evaluate("plus_one", [[1]]).to_pylist() == [3]
    registry.unregister("plus_one")
    with pytest.raises(Invalid):
        resolve("plus_one", [I64])


def test_user_function_may_not_take_a_library_name() -> None:
    with pytest.raises(Invalid) as caught:
        registry.register_scalar("upper", _plus_one, [I64], I64)
    assert caught.value.code == "MR1212"
    registry.unregister("upper")
    assert resolve("upper", [STR]).name == "upper"


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (lambda v: v.slice(1), "MR2010"),
        (lambda v: [1, 2], "MR2010"),
        (lambda v: pa.array(["x"] * len(v)), "MR2011"),
    ],
)
def test_user_function_that_returns_the_wrong_thing_is_refused(result: Any, code: str) -> None:
    registry.register_scalar("wrong", result, [I64], I64)
    try:
        with pytest.raises(BadData) as caught:
            evaluate("wrong", [[1, 2]])
        assert caught.value.code == code
    finally:
        registry.unregister("wrong")


def test_exception_of_a_user_function_is_the_error_of_its_rows() -> None:
    def refuse_odd(values: pa.Array) -> pa.Array:
        if any(v % 2 for v in values.to_pylist()):
            raise KeyError("odd")
        return values

    registry.register_scalar("refuse_odd", refuse_odd, [I64], I64)
    try:
        with pytest.raises(RowError) as caught:
            evaluate("refuse_odd", [[2, 1, 4, 6, 9, 8]])
        assert caught.value.rows.tolist() == [False, True, False, False, True, False]
        assert caught.value.code == "MR2006" and "odd" in caught.value.reason
    finally:
        registry.unregister("refuse_odd")


def test_library_loads_without_numba() -> None:
    code = "import sys; from millrace.operators.functions.registry import resolve; import pyarrow as pa; resolve('upper', [pa.string()]); assert 'numba' not in sys.modules"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        cwd=root,
        env={"PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
