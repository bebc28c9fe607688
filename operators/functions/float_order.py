"""Comparison of floating-point numbers as PostgreSQL has it: NaN equals NaN and is greater than all else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.functions.row_error import Body, Value


def compare(name: str, operator: Callable[[Value, Value], Value]) -> Body:
    """The body of a comparison; `operator` is Arrow's, for which nothing is true of NaN but that it differs."""

    def body(values: Sequence[Value], rows: int) -> Value:
        left, right = values[0], values[1]
        found = operator(left, right)
        if not (_has_nan(left) or _has_nan(right)):
            return found
        a, b = pc.is_nan(left), pc.is_nan(right)
        match name:
            case "=":
                return pc.or_(found, pc.and_(a, b))
            case "<>":
                return pc.and_(found, pc.invert(pc.and_(a, b)))
            case "<":
                return pc.or_(found, pc.and_(b, pc.invert(a)))
            case "<=":
                return pc.or_(found, b)
            case ">":
                return pc.or_(found, pc.and_(a, pc.invert(b)))
        return pc.or_(found, a)

    return body


def _has_nan(value: Value) -> bool:
    total = value if isinstance(value, pa.Scalar) else pc.sum(value)
    number = total.as_py()
    # Infinities of both signs add up to NaN, too.
    return number is not None and math.isnan(number)
