"""Order and equality of arrays, maps, rows and calendar intervals, row by row in Python."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from millrace.operators.functions.buffers import by_row
from millrace.operators.functions.row_error import Body

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def order_key(value: Any) -> Any:
    """A key under which Python orders as SQL does: NULL last, rows by their items, maps by their entries."""
    if value is None:
        return (1, 0)
    if isinstance(value, pa.MonthDayNano):
        return (0, (value.months * 30 + value.days) * 86_400_000_000_000 + value.nanoseconds)
    if isinstance(value, dict):
        return (0, tuple(order_key(item) for item in value.values()))
    if isinstance(value, (list, tuple)):
        return (0, tuple(order_key(item) for item in value))
    return (0, value)


def compare(name: str) -> Body:
    """The body of a comparison of nested values."""
    function = _OPERATORS[name]
    return lambda values, rows: by_row(
        lambda a, b: function(order_key(a), order_key(b)), values, rows, pa.bool_(), name
    )
