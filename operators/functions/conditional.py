"""Functions that choose between their arguments, and the functions of the processing-time clock."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.functions import types as sql
from millrace.operators.functions.buffers import as_storage, by_row, choose_rows, from_storage
from millrace.operators.functions.nested_order import order_key
from millrace.operators.functions.registry import Binding, Literals, Types, define
from millrace.operators.functions.row_error import Body, Value


@define("coalesce(T...) -> T", description="the first argument that is not NULL", aliases=("ifnull", "nvl"),
        null_propagating=False)  # fmt: skip
def _coalesce(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    def body(values: Sequence[Value], rows: int) -> Value:
        return from_storage(pc.coalesce(*[as_storage(v) for v in values]), returns)

    def stepwise(values: Sequence[Value], rows: int) -> Value:
        result = values[-1]
        for value in reversed(values[:-1]):
            result = choose_rows(pc.is_valid(value), value, result, returns)
        return result

    return stepwise if pa.types.is_nested(returns) else body


@define("nullif(T, T) -> T", description="NULL where both are equal, else the first", null_propagating=False)
def _nullif(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    raise AssertionError("compiled as CASE")


@define("if(BOOLEAN, T[, T]) -> T", description="the second where the first is true, else the third (or NULL)",
        aliases=("iif",), null_propagating=False)  # fmt: skip
def _if(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    raise AssertionError("compiled as CASE")


def _bind_extreme(types: Sequence[pa.DataType], marks: Sequence[bool]) -> Binding | None:
    common = sql.common_type(types, marks if not all(sql.is_string(t) for t in types) else None)
    if not types or common is None:
        return None
    return (common,) * len(types), common


def _extreme(name: str, description: str, largest: bool) -> None:
    @define(f"{name}(T...) -> T", description=description, bind=_bind_extreme, null_propagating=False)
    def build(types: Types, returns: pa.DataType, literals: Literals) -> Body:
        choose = pc.max_element_wise if largest else pc.min_element_wise
        pick = max if largest else min

        def quick(values: Sequence[Value], rows: int) -> Value:
            return from_storage(choose(*[as_storage(v) for v in values]), returns)

        def slow(values: Sequence[Value], rows: int) -> Value:
            def row(*items: object) -> object:
                there = [item for item in items if item is not None]
                return pick(there, key=order_key) if there else None

            return by_row(row, values, rows, returns, name, nulls=True)

        return slow if pa.types.is_nested(returns) or returns == sql.MONTHS else quick


_extreme("greatest", "the largest argument; NULLs do not count", True)
_extreme("least", "the smallest argument; NULLs do not count", False)


def _clock(name: str, returns: str, description: str, *aliases: str) -> None:
    @define(
        f"{name}() -> {returns}",
        description=description,
        aliases=aliases,
        deterministic=False,
        null_propagating=False,
    )
    def build(types: Types, kind: pa.DataType, literals: Literals) -> Body:
        raise AssertionError("read from the frame")


_clock("current_timestamp", "TIMESTAMP_LTZ", "processing time", "now", "transaction_timestamp", "statement_timestamp",
       "current_row_timestamp")  # fmt: skip
_clock("proctime", "TIMESTAMP_LTZ", "processing time, as a time column")
_clock("localtimestamp", "TIMESTAMP_US", "processing time in UTC, without a zone")
_clock("current_date", "DATE", "today in UTC", "today")
_clock("current_time", "TIME", "the time of day in UTC", "localtime")
