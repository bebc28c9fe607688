"""Counter-based random bits: a value is a function of (stream, row number), so rows can be made in any order.

SplitMix64 (Steele, Lea, Flood 2014) over the row number, by NumPy.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))


def stream(seed: int, *names: str) -> int:
    """The 64-bit key of the stream that `names` stand for."""
    text = "\x1f".join((str(seed), *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def bits(rows: Int64Array, key: int) -> Words:
    """64 random bits a row."""
    z = rows.astype(np.uint64)
    z *= _GOLDEN
    z += np.uint64(key)
    for shift, multiplier in _ROUNDS:
        z ^= z >> shift
        z *= multiplier
    z ^= z >> np.uint64(31)
    return z


def uniform(rows: Int64Array, key: int) -> Floats:
    """A number in [0, 1) of 53 bits a row."""
    return (bits(rows, key) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(rows: Int64Array, key: int) -> Floats:
    """A number of mean 0 and deviation 1 a row (Box and Muller 1958)."""
    radius = np.sqrt(-2.0 * np.log1p(-uniform(rows, key)))
    return radius * np.cos(2.0 * np.pi * uniform(rows, key ^ 0x5851F42D4C957F2D))


def integers(rows: Int64Array, key: int, low: int, high: int) -> Words:
    """A uniform integer from `low` to `high`, both included, a row; two's complement in 64 bits."""
    span = high - low + 1
    random = bits(rows, key)
    if span < 2**32:
        random = ((random >> np.uint64(32)) * np.uint64(span)) >> np.uint64(32)
    elif span < 2**64:
        random %= np.uint64(span)
    return random + np.uint64(low % 2**64)


def ranks(rows: Int64Array, key: int, count: int, exponent: float) -> Int64Array:
    """A number from 0 to `count` - 1 a row, where k has the weight of x**-exponent between k + 1 and k + 2."""
    u = uniform(rows, key)
    if exponent == 1.0:
        x = np.power(float(count + 1), u)
    else:
        tail = 1.0 - exponent
        x = np.power((float(count + 1) ** tail - 1.0) * u + 1.0, 1.0 / tail)
    return np.clip(x.astype(np.int64) - 1, 0, count - 1)
