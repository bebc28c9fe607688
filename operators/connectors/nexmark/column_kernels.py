"""Numba kernels behind the Nexmark columns: every value is a function of (key, event number). Knows no Arrow.

The random bits of an event are SplitMix64 (Steele, Lea, Flood 2014) used as a counter-based generator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
LOW_32 = np.uint64(0xFFFFFFFF)


@njit(cache=True, nogil=True, inline="always")
def mixed(event: np.int64, key: np.uint64) -> np.uint64:
    """64 random bits of `event` in the stream `key`."""
    z = np.uint64(event) * GOLDEN + key
    z = (z ^ (z >> np.uint64(30))) * MULTIPLIER_1
    z = (z ^ (z >> np.uint64(27))) * MULTIPLIER_2
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True, inline="always")
def high_below(bits: np.uint64, bound: int) -> np.int64:
    """A number from 0 to `bound` - 1 (bound < 2**32) of the upper half of `bits`."""
    return np.int64(((bits >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32))


@njit(cache=True, nogil=True, inline="always")
def low_below(bits: np.uint64, bound: int) -> np.int64:
    """The same of the lower half."""
    return np.int64(((bits & LOW_32) * np.uint64(bound)) >> np.uint64(32))


@njit(cache=True, nogil=True)
def draws(events: Int64s, key: np.uint64, out: Words) -> None:
    """64 random bits an event."""
    for i in range(len(events)):
        out[i] = mixed(events[i], key)


@njit(cache=True, nogil=True)
def numbers_below(events: Int64s, key: np.uint64, bound: int, out: Int64s) -> None:
    """A uniform number from 0 to `bound` - 1 an event."""
    for i in range(len(events)):
        out[i] = high_below(mixed(events[i], key), bound)


@njit(cache=True, nogil=True)
def event_numbers(first_row: int, first: int, count: int, split: int, splits: int, out: Int64s) -> None:
    """Event numbers of rows `first_row`… of a table that has `count` of each 50 events from `first`.

    Of the groups of 50, split `split` has every `splits`-th.
    """
    group = first_row // count
    within = first_row % count
    base = (split + group * splits) * 50 + first
    for i in range(len(out)):
        out[i] = base + within
        within += 1
        if within == count:
            within = 0
            base += splits * 50


@njit(cache=True, nogil=True)
def bid_auctions(events: Int64s, key: np.uint64, in_flight: int, first_id: int, out: Int64s) -> None:
    """Half of the bids go to the first of the last hundred auctions, the rest to those in flight or to come."""
    for i in range(len(events)):
        bits = mixed(events[i], key)
        last = events[i] // 50 * 3 + 2
        if low_below(bits, 2) > 0:
            chosen = last // 100 * 100
        else:
            lowest = max(last - in_flight, 0)
            chosen = lowest + high_below(bits, last - lowest + 11)
        out[i] = first_id + chosen


@njit(cache=True, nogil=True)
def person_ids(events: Int64s, key: np.uint64, hot: int, first_id: int, out: Int64s) -> None:
    """Three of four are person `hot` of the last hundred, the rest one of the last thousand or of ten to come."""
    for i in range(len(events)):
        bits = mixed(events[i], key)
        last = events[i] // 50
        if low_below(bits, 4) > 0:
            chosen = last // 100 * 100 + hot
        else:
            active = min(last + 1, 1000)
            chosen = last + 1 - active + high_below(bits, active + 10)
        out[i] = first_id + chosen


@njit(cache=True, nogil=True)
def prices(events: Int64s, key: np.uint64, powers: Floats, out: Int64s) -> None:
    """round(100 * 10**(6 u)) for a uniform u of 30 bits, as a product of three entries of `powers` (3 x 1024)."""
    mask = np.uint64(1023)
    for i in range(len(events)):
        bits = mixed(events[i], key)
        a = powers[0, np.int64((bits >> np.uint64(54)) & mask)]
        b = powers[1, np.int64((bits >> np.uint64(44)) & mask)]
        c = powers[2, np.int64((bits >> np.uint64(34)) & mask)]
        out[i] = np.int64(100.0 * a * b * c + 0.5)


@njit(cache=True, nogil=True)
def channel_numbers(events: Int64s, key: np.uint64, channels: int, hot: int, out: Int64s) -> None:
    """A channel's place in the table of `channels` channels followed by `hot` hot ones, which half the bids take."""
    for i in range(len(events)):
        bits = mixed(events[i], key)
        if bits & np.uint64(1):
            out[i] = channels + high_below(bits, hot)
        else:
            out[i] = high_below(bits, channels)


@njit(cache=True, nogil=True)
def trim(pool: Bytes, begins: Int64s, lengths: Int64s) -> None:
    """Cut blanks off both ends of each slice of `pool`, in place."""
    for i in range(len(begins)):
        begin, length = begins[i], lengths[i]
        while length > 0 and pool[begin] == 32:
            begin += 1
            length -= 1
        while length > 0 and pool[begin + length - 1] == 32:
            length -= 1
        begins[i] = begin
        lengths[i] = length


@intrinsic
def copy_bytes(typing: Any, target: Any, to: Any, source: Any, begin: Any, count: Any) -> Any:
    """`target[to:to + count] = source[begin:begin + count]` of byte arrays by memcpy.

    A loop over bytes is eight times slower: LLVM can not tell that the arrays do not overlap.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places = []
        for array, index in ((0, 1), (2, 3)):
            made = context.make_array(signature.args[array])(context, builder, arguments[array])
            places.append(builder.gep(made.data, [arguments[index]]))
        cgutils.raw_memcpy(builder, places[0], places[1], arguments[4], 1)
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64, types.int64), emit


@njit(cache=True, nogil=True)
def copy_slices(pool: Bytes, begins: Int64s, offsets: Int32s, out: Bytes) -> None:
    """Write slice i of `pool`, from `begins[i]`, to `out[offsets[i]:offsets[i + 1]]`."""
    for i in range(len(begins)):
        copy_bytes(out, offsets[i], pool, begins[i], offsets[i + 1] - offsets[i])  # pyright: ignore[reportCallIssue]


@njit(cache=True, nogil=True)
def card_numbers(bits: Words, out: Bytes) -> None:
    """Four groups of four digits, 19 bytes a row."""
    for i in range(len(bits)):
        z = bits[i]
        for group in range(4):
            digits = np.int64(((z & np.uint64(0xFFFF)) * np.uint64(10000)) >> np.uint64(16))
            z = z >> np.uint64(16)
            at = i * 19 + group * 5
            for place in range(3, -1, -1):
                out[at + place] = 48 + digits % 10
                digits //= 10
            if group < 3:
                out[at + 4] = 32


@njit(cache=True, nogil=True)
def addresses(
    pool: Bytes, name_begins: Int64s, host_begins: Int64s, name_lengths: Int64s, offsets: Int32s, out: Bytes
) -> None:
    """`name@host.com`, where both parts are slices of `pool`."""
    for i in range(len(name_begins)):
        at = offsets[i]
        end = offsets[i + 1] - 4
        for k in range(name_lengths[i]):
            out[at + k] = pool[name_begins[i] + k]
        at += name_lengths[i]
        out[at] = 64
        at += 1
        for k in range(end - at):
            out[at + k] = pool[host_begins[i] + k]
        out[end] = 46
        out[end + 1] = 99
        out[end + 2] = 111
        out[end + 3] = 109
