"""Random text for Nexmark columns: slices of a seeded pool of letters, and tables of strings to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.connectors.nexmark.schema import CHANNELS, HOT_CHANNELS

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

POOL_STARTS = 1 << 16
"""A slice of a pool begins at one of so many places."""
_LONGEST = 512
_MASK = 2**64 - 1


def stream_key(seed: int, stream: int) -> int:
    """The key of random stream number `stream` under `seed`: 64 bits in which every bit of both counts."""
    z = (seed * 0xD1342543DE82EF95 + stream * 0x9E3779B97F4A7C15 + 0x2545F4914F6CDD1D) & _MASK
    for shift, multiplier in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = ((z ^ (z >> shift)) * multiplier) & _MASK
    return z ^ (z >> 31)


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Strings laid end to end in `data`; string i is `data[offsets[i]:offsets[i + 1]]`."""

    data: Bytes
    offsets: Int64Array

    @classmethod
    def of(cls, values: Sequence[str]) -> Texts:
        encoded = [value.encode() for value in values]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(value) for value in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def lengths(self, chosen: Int64Array) -> Int64Array:
        return self.offsets[chosen + 1] - self.offsets[chosen]

    def take(self, chosen: Int64Array) -> pa.Array:
        """The strings at these places."""
        return slices(self.data, self.offsets[chosen], self.lengths(chosen))


def string_offsets(lengths: Int64Array) -> Int32Array:
    """Arrow offsets of strings of these lengths in bytes. Raises Invalid where they exceed 2 GiB."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    if offsets[-1] > 2**31 - 1:
        raise Invalid(
            f"a batch of {len(lengths)} rows has a text column of {offsets[-1]} bytes; an Arrow string column "
            "holds 2147483647",
            code="MR1431",
            hint="generate fewer events at a time",
        )
    return offsets.astype(np.int32)


def slices(pool: Bytes, begins: Int64Array, lengths: Int64Array) -> pa.Array:
    """A string array whose row i is `pool[begins[i]:begins[i] + lengths[i]]`."""
    # Deferred: Numba costs a third of a second to import.
    from millrace.operators.connectors.nexmark import column_kernels

    offsets = string_offsets(lengths)
    data = np.empty(int(offsets[-1]), np.uint8)
    column_kernels.copy_slices(pool, begins, offsets, data)
    return string_array(offsets, data)


def string_array(offsets: Int32Array, data: Bytes) -> pa.Array:
    return pa.Array.from_buffers(
        pa.string(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)], 0
    )


@lru_cache(maxsize=8)
def letters(seed: int) -> Bytes:
    """A pool of random lower-case letters."""
    random = np.random.Generator(np.random.Philox(stream_key(seed, 100)))
    return random.integers(97, 123, POOL_STARTS + _LONGEST).astype(np.uint8)


@lru_cache(maxsize=8)
def words(seed: int) -> Bytes:
    """A pool of random letters of which one in 13 is a blank."""
    random = np.random.Generator(np.random.Philox(stream_key(seed, 101)))
    pool = random.integers(97, 123, POOL_STARTS + _LONGEST).astype(np.uint8)
    pool[random.integers(0, 13, len(pool)) == 0] = 32
    return pool


@lru_cache(maxsize=8)
def channels(seed: int) -> tuple[Texts, Texts]:
    """Names and URLs of all channels, hot ones last. One URL in ten of the others has no `channel_id=`."""
    random = np.random.Generator(np.random.Philox(stream_key(seed, 102)))
    count = CHANNELS + len(HOT_CHANNELS)
    pieces = random.integers(97, 123, (count, 3, 4)).astype(np.uint8)
    pieces[random.integers(0, 13, pieces.shape) == 0] = ord("_")
    lengths = random.integers(3, 5, (count, 3))
    with_id = random.integers(0, 10, count) > 0
    urls = []
    for i in range(count):
        parts = [bytes(pieces[i, k, : lengths[i, k]]).decode() for k in range(3)]
        url = f"https://www.nexmark.com/{'/'.join(parts)}/item.htm?query=1"
        if i < CHANNELS and with_id[i]:
            url += f"&channel_id={_scattered(i)}"
        urls.append(url)
    return Texts.of([*(f"channel-{i}" for i in range(CHANNELS)), *HOT_CHANNELS]), Texts.of(urls)


def _scattered(number: int) -> int:
    """The 32 bits of `number` in reverse, read as a signed integer, without its sign."""
    reverse = int(f"{number:032b}"[::-1], 2)
    return reverse if reverse < 2**31 else 2**32 - reverse
