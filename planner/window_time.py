"""window_time, computed from a window's end. Knows no window."""

from __future__ import annotations

import pyarrow as pa

from millrace.operators.expressions.tree import Call, Column, Expression, Literal
from millrace.operators.functions import types as sql


def window_time_of(end: Column, unit: str) -> Expression:
    """window_time: the last instant of a window that ends at `end` (1 ms before, or one unit of a coarser type)."""
    if pa.types.is_timestamp(end.type):
        step = 1_000_000 if end.type.unit == "s" else 1_000
        return Call("-", (end, Literal(step, sql.INTERVAL)), end.type)
    steps = {"s": 1, "ms": 1, "us": 1_000, "ns": 1_000_000}
    return Call("-", (end, Literal(steps[unit], end.type)), end.type)
