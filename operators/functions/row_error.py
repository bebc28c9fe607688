"""The error of a row whose value does not compute, and how the rows at fault are found. Sends no row anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Value: TypeAlias = pa.Array | pa.Scalar
"""What an argument or a result is: an array of the batch's length, or one scalar for all rows."""
Body = Callable[[Sequence[Value], int], Value]
"""The body of a function: its arguments and the number of rows."""
Mask = npt.NDArray[np.bool_]

OVERFLOW = "MR2001"
DIVISION_BY_ZERO = "MR2002"
BAD_CAST = "MR2003"
OUT_OF_DOMAIN = "MR2004"
UDF_FAILED = "MR2006"
BAD_VALUE = "MR2007"


class RowError(Exception):
    """Rows for which an expression has no value. `rows` marks them among the rows that were evaluated."""

    def __init__(self, code: str, reason: str, rows: Mask) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.rows = rows


class ValueFault(ValueError):
    """A single value that a function does not take; `code` is the row error it becomes."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def classify(error: Exception, function: str) -> tuple[str, str]:
    """The code and the reason for what Arrow or a function raised."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    low = text.lower()
    if isinstance(error, ValueFault):
        return error.code, f"{function}: {text}"
    if "divide by zero" in low or "division by zero" in low:
        return DIVISION_BY_ZERO, f"{function}: division by zero"
    if "overflow" in low or "out of bounds" in low or "does not fit in precision" in low:
        return OVERFLOW, f"{function}: value out of range"
    if "square root" in low or "logarithm" in low or "domain" in low:
        return OUT_OF_DOMAIN, f"{function}: {text}"
    if "parse" in low or "not a valid" in low or "cast" in low:
        return BAD_CAST, f"{function}: {text}"
    return BAD_VALUE, f"{function}: {text}"


def slice_values(values: Sequence[Value], start: int, length: int) -> list[Value]:
    """Rows `start` to `start + length` of each argument; scalars stay."""
    return [v if isinstance(v, pa.Scalar) else v.slice(start, length) for v in values]


def isolate(
    body: Callable[[Sequence[Value], int], object],
    values: Sequence[Value],
    rows: int,
    error: Exception,
    function: str,
) -> RowError:
    """Find by bisection the rows at which `body` fails, after it failed on all of them with `error`."""
    code, reason = classify(error, function)
    bad: Mask = np.zeros(rows, np.bool_)
    if all(isinstance(v, pa.Scalar) for v in values):
        bad[:] = True
        return RowError(code, reason, bad)
    pending = [(0, rows, True)]
    while pending:
        start, length, failed = pending.pop()
        if not failed:
            try:
                body(slice_values(values, start, length), length)
                continue
            except RowError as fault:
                bad[start : start + length] |= fault.rows
                continue
            except (pa.ArrowException, ValueError, ArithmeticError):
                pass
        if length == 1:
            bad[start] = True
            continue
        half = length // 2
        pending.append((start, half, False))
        pending.append((start + half, length - half, False))
    assert bad.any(), f"{function} failed on the batch, yet on no row: {error}"
    return RowError(code, reason, bad)
