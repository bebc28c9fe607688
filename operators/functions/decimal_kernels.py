"""Numba kernels over integers and the scaled integers of decimals. Knows no Arrow."""

from __future__ import annotations

import numpy as np
from numba import njit

from millrace.operators.functions.buffers import Int64s

_LARGEST = 2**63 - 1


@njit(cache=True, nogil=True)
def multiply_constant_wide(left: Int64s, right: np.int64, out: Int64s) -> bool:
    """left * right as 128-bit integers (low, high) into `out`; False where a product exceeds 64 bits."""
    magnitude = abs(right)
    limit = _LARGEST if magnitude == 0 else _LARGEST // magnitude
    lowest, highest = np.int64(0), np.int64(0)
    for i in range(len(left)):
        value = left[i]
        lowest = min(lowest, value)
        highest = max(highest, value)
        product = value * right
        out[2 * i] = product
        out[2 * i + 1] = product >> 63
    return bool(lowest >= -limit and highest <= limit and right != -_LARGEST - 1)


@njit(cache=True, nogil=True)
def multiply_constant(left: Int64s, right: np.int64, out: Int64s) -> bool:
    """left * right, which is known to fit 64 bits."""
    for i in range(len(left)):
        out[i] = left[i] * right
    return True


@njit(cache=True, nogil=True)
def multiply_wide(left: Int64s, right: Int64s, out: Int64s) -> bool:
    """left * right as 128-bit integers (low, high); False where a product may exceed 64 bits."""
    most_left, most_right = 0.0, 0.0
    for i in range(len(left)):
        a, b = left[i], right[i]
        most_left = max(most_left, abs(np.float64(a)))
        most_right = max(most_right, abs(np.float64(b)))
        product = a * b
        out[2 * i] = product
        out[2 * i + 1] = product >> 63
    return most_left * most_right < 9.2e18


@njit(cache=True, nogil=True)
def multiply(left: Int64s, right: Int64s, out: Int64s) -> bool:
    """left * right, which is known to fit 64 bits."""
    for i in range(len(left)):
        out[i] = left[i] * right[i]
    return True


@njit(cache=True, nogil=True)
def modulo_constant(left: Int64s, right: int, out: Int64s) -> bool:
    """left % right for numbers from 0 to 2**31; False where one is outside."""
    bits = 32
    while (1 << (bits - 32)) < right:
        bits += 1
    factor = np.uint64(((1 << bits) + right - 1) // right)
    shift, divisor = np.uint64(bits), np.uint64(right)
    seen = np.int64(0)
    for i in range(len(left)):
        number = left[i]
        seen |= number
        wide = np.uint64(number)
        out[i] = np.int64(wide - ((wide * factor) >> shift) * divisor)
    return bool(0 <= seen < 2**31)
