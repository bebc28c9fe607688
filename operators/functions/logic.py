"""Comparison, tests for NULL, membership and three-valued logic."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.functions import decimals, float_order, nested_order
from millrace.operators.functions import types as sql
from millrace.operators.functions.buffers import as_storage, broadcast
from millrace.operators.functions.registry import Binding, Literals, Types, define, scalar
from millrace.operators.functions.row_error import Body, Value

Compare = Callable[[Value, Value], Value]


def _bind_comparison(types: Sequence[pa.DataType], literals: Sequence[bool]) -> Binding | None:
    if len(types) != 2:
        return None
    common = _comparable(types, literals)
    return None if common is None else ((common, common), sql.BOOLEAN)


def _comparable(types: Sequence[pa.DataType], literals: Sequence[bool]) -> pa.DataType | None:
    if not all(sql.is_string(t) for t in types):
        common = sql.common_type(types, literals)
    else:
        common = sql.STRING
    if common is None:
        return None
    return sql.INT if pa.types.is_null(common) else common


def _comparison(name: str, operator: Compare, description: str, aliases: tuple[str, ...] = ()) -> None:
    @define(f"{name}(T, T) -> BOOLEAN", description=description, aliases=aliases, bind=_bind_comparison)
    def build(types: Types, returns: pa.DataType, literals: Literals) -> Body:
        if sql.is_decimal(types[0]):
            return decimals.compare(operator, types)
        if pa.types.is_nested(types[0]) or types[0] == sql.MONTHS:
            return nested_order.compare(name)
        if pa.types.is_floating(types[0]):
            return float_order.compare(name, operator)
        return lambda values, rows: operator(values[0], values[1])


_comparison("=", pc.equal, "equal values", ("==", "equals"))
_comparison("<>", pc.not_equal, "not equal", ("!=",))
_comparison("<", pc.less, "less than the other")
_comparison("<=", pc.less_equal, "less or equal")
_comparison(">", pc.greater, "greater than the other")
_comparison(">=", pc.greater_equal, "greater or equal")


@scalar("not(BOOLEAN) -> BOOLEAN", description="true for false, false for true")
def _not(values: Sequence[Value], rows: int) -> Value:
    return pc.invert(values[0])


@scalar("and(BOOLEAN...) -> BOOLEAN", description="true where all are true", null_propagating=False)
def _and(values: Sequence[Value], rows: int) -> Value:
    result = values[0]
    for value in values[1:]:
        result = pc.and_kleene(result, value)
    return result


@scalar("or(BOOLEAN...) -> BOOLEAN", description="true where any is true", null_propagating=False)
def _or(values: Sequence[Value], rows: int) -> Value:
    result = values[0]
    for value in values[1:]:
        result = pc.or_kleene(result, value)
    return result


@scalar("xor(BOOLEAN, BOOLEAN) -> BOOLEAN", description="true where exactly one is true")
def _xor(values: Sequence[Value], rows: int) -> Value:
    return pc.xor(values[0], values[1])


@scalar(
    "is null(ANY) -> BOOLEAN",
    description="whether there is no value",
    null_propagating=False,
    aliases=("isnull",),
)
def _is_null(values: Sequence[Value], rows: int) -> Value:
    return pc.is_null(values[0])


@scalar(
    "is not null(ANY) -> BOOLEAN",
    description="whether there is a value",
    null_propagating=False,
    aliases=("isnotnull", "notnull"),
)
def _is_not_null(values: Sequence[Value], rows: int) -> Value:
    return pc.is_valid(values[0])


def _truth(name: str, value: bool, description: str) -> None:
    @scalar(
        f"is {name}(BOOLEAN) -> BOOLEAN", description=f"whether it is {description}", null_propagating=False
    )
    def test(values: Sequence[Value], rows: int) -> Value:
        same = values[0] if value else pc.invert(values[0])
        return pc.fill_null(same, False)

    @scalar(
        f"is not {name}(BOOLEAN) -> BOOLEAN",
        description=f"whether it is not {description}",
        null_propagating=False,
    )
    def test_not(values: Sequence[Value], rows: int) -> Value:
        same = pc.invert(values[0]) if value else values[0]
        return pc.fill_null(same, True)


_truth("true", True, "true")
_truth("false", False, "false")


@define(
    "is distinct from(T, T) -> BOOLEAN",
    description="not equal, where NULL equals NULL",
    bind=_bind_comparison,
    null_propagating=False,
)
def _is_distinct(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    same = _not_distinct(types, returns, literals)
    return lambda values, rows: pc.invert(same(values, rows))


@define(
    "is not distinct from(T, T) -> BOOLEAN",
    description="equal, where NULL equals NULL",
    aliases=("<=>",),
    bind=_bind_comparison,
    null_propagating=False,
)
def _not_distinct(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    equal: Body = _equal_in_storage
    if pa.types.is_nested(types[0]) or types[0] == sql.MONTHS:
        equal = nested_order.compare("=")
    elif pa.types.is_floating(types[0]):
        equal = float_order.compare("=", pc.equal)

    def body(values: Sequence[Value], rows: int) -> Value:
        same = pc.fill_null(equal(values, rows), False)
        return pc.or_(same, pc.and_(pc.is_null(values[0]), pc.is_null(values[1])))

    return body


def _equal_in_storage(values: Sequence[Value], rows: int) -> Value:
    return pc.equal(as_storage(values[0]), as_storage(values[1]))


def _bind_in(types: Sequence[pa.DataType], literals: Sequence[bool]) -> Binding | None:
    if len(types) < 2:
        return None
    common = _comparable(types, literals)
    return None if common is None else ((common,) * len(types), sql.BOOLEAN)


@define(
    "in(T, T...) -> BOOLEAN",
    description="whether the first equals any of the others",
    bind=_bind_in,
    null_propagating=False,
)
def _in(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    constants = literals[1:]
    easy = not pa.types.is_nested(types[0]) and types[0] != sql.MONTHS
    if easy and len(constants) > 2 and all(c is not None for c in constants):
        return _in_constants([as_storage(c) for c in constants if c is not None])
    equal = _equality(types)

    def body(values: Sequence[Value], rows: int) -> Value:
        result = equal([values[0], values[1]], rows)
        for item in values[2:]:
            result = pc.or_kleene(result, equal([values[0], item], rows))
        return result

    return body


def _equality(types: Types) -> Body:
    if sql.is_decimal(types[0]):
        return decimals.compare(pc.equal, types)
    if pa.types.is_nested(types[0]) or types[0] == sql.MONTHS:
        return nested_order.compare("=")
    if pa.types.is_floating(types[0]):
        return float_order.compare("=", pc.equal)
    return lambda values, rows: pc.equal(values[0], values[1])


def _in_constants(constants: Sequence[pa.Scalar]) -> Body:
    present = [c for c in constants if c.is_valid]
    has_null = len(present) < len(constants)
    kind = constants[0].type
    members = pa.concat_arrays([broadcast(c, 1) for c in present]) if present else pa.nulls(0, kind)

    def body(values: Sequence[Value], rows: int) -> Value:
        value = as_storage(values[0])
        found = pc.is_in(value, value_set=members)
        if has_null:
            return pc.if_else(found, pa.scalar(True), pa.scalar(None, pa.bool_()))
        missing = pc.is_null(value)
        if isinstance(missing, pa.Scalar):
            return pa.scalar(None, pa.bool_()) if missing.as_py() else found
        return pc.if_else(missing, pa.scalar(None, pa.bool_()), found) if value.null_count else found

    return body
