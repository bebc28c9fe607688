"""Functions that give another value at every call: random numbers and identifiers."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from millrace.operators.functions.buffers import broadcast
from millrace.operators.functions.registry import Literals, Types, define
from millrace.operators.functions.row_error import Body, Value

_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_PLACES = np.array([at for at in range(36) if at not in (8, 13, 18, 23)])
"""Where the 32 digits of an identifier stand in its text."""


@define(
    "random() -> DOUBLE",
    description="a number from 0 up to, not including, 1; another one for each row",
    aliases=("rand",),
    deterministic=False,
)
def _random(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    generator = np.random.default_rng()

    def body(values: Sequence[Value], rows: int) -> Value:
        return pa.array(generator.random(rows))

    return body


@define(
    "rand_integer(BIGINT) -> BIGINT",
    description="a whole number from 0 up to, not including, the argument; another one for each row",
    deterministic=False,
    can_fail=True,
)
def _rand_integer(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    generator = np.random.default_rng()

    def body(values: Sequence[Value], rows: int) -> Value:
        bounds = broadcast(values[0], rows)
        known = bounds.fill_null(1).to_numpy(zero_copy_only=False)
        if (known < 1).any():
            raise ValueError("the bound of rand_integer must be 1 or more")
        return pa.array(generator.integers(0, known), pa.int64(), mask=np.asarray(bounds.is_null()))

    return body


@define(
    "uuid() -> STRING",
    description="a random identifier (UUID version 4); another one for each row",
    aliases=("gen_random_uuid",),
    deterministic=False,
)
def _uuid(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    return lambda values, rows: uuids(np.frombuffer(os.urandom(16 * rows), np.uint8).reshape(rows, 16))


def uuids(octets: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> pa.Array:
    """The text of a version 4 identifier for each row of 16 random octets (RFC 9562)."""
    octets = octets.copy()
    octets[:, 6] = octets[:, 6] & 0x0F | 0x40
    octets[:, 8] = octets[:, 8] & 0x3F | 0x80
    text = np.full((len(octets), 36), ord("-"), np.uint8)
    text[:, _PLACES[0::2]] = _HEX[octets >> 4]
    text[:, _PLACES[1::2]] = _HEX[octets & 0x0F]
    offsets = np.arange(len(octets) + 1, dtype=np.int32) * 36
    return pa.Array.from_buffers(pa.string(), len(octets), [None, pa.py_buffer(offsets), pa.py_buffer(text)])
