"""Kernels of variance, correlation, booleans, bits, sketches and picked rows by group. `floats` views the memory of `words`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def add_moments(
    words: Any, floats: Any, slots: Any, values: Any, mask: Any, weights: Any, trace: Any
) -> None:
    """Welford's update and its inverse: columns are count, mean, sum of squared deviations."""
    for i in range(len(slots)):
        slot = np.uint64(slots[i])
        if mask is None or mask[i] != 0:
            weight = np.int64(1)
            if weights is not None:
                weight = weights[i]
            count = words[slot, 0] + weight
            words[slot, 0] = count
            if count == 0:
                floats[slot, 1] = 0.0
                floats[slot, 2] = 0.0
            else:
                delta = values[i] - floats[slot, 1]
                mean = floats[slot, 1] + weight * delta / count
                floats[slot, 1] = mean
                floats[slot, 2] += weight * delta * (values[i] - mean)
                if count == 1:  # exactly, whatever was taken back before
                    floats[slot, 2] = 0.0
        if trace is not None:
            trace[i, :] = words[slot, :]


@njit(cache=True, nogil=True)
def merge_moments(
    words: Any, floats: Any, slots: Any, source: Any, source_floats: Any, source_slots: Any
) -> None:
    """Chan's pairwise update."""
    for i in range(len(slots)):
        slot, other = np.uint64(slots[i]), np.uint64(source_slots[i])
        mine, theirs = words[slot, 0], source[other, 0]
        count = mine + theirs
        if theirs == 0 or count == 0:
            continue
        delta = source_floats[other, 1] - floats[slot, 1]
        floats[slot, 1] += delta * theirs / count
        floats[slot, 2] += source_floats[other, 2] + delta * delta * mine * theirs / count
        words[slot, 0] = count


@njit(cache=True, nogil=True)
def add_pairs(
    words: Any, floats: Any, slots: Any, ys: Any, xs: Any, mask: Any, weights: Any, trace: Any
) -> None:
    """Columns are count, mean y, mean x, squares of y, squares of x, products."""
    for i in range(len(slots)):
        slot = np.uint64(slots[i])
        if mask is None or mask[i] != 0:
            weight = np.int64(1)
            if weights is not None:
                weight = weights[i]
            count = words[slot, 0] + weight
            words[slot, 0] = count
            if count == 0:
                floats[slot, 1:] = 0.0
            else:
                dy, dx = ys[i] - floats[slot, 1], xs[i] - floats[slot, 2]
                floats[slot, 1] += weight * dy / count
                floats[slot, 2] += weight * dx / count
                floats[slot, 3] += weight * dy * (ys[i] - floats[slot, 1])
                floats[slot, 4] += weight * dx * (xs[i] - floats[slot, 2])
                floats[slot, 5] += weight * dy * (xs[i] - floats[slot, 2])
                if count == 1:
                    floats[slot, 3:] = 0.0
        if trace is not None:
            trace[i, :] = words[slot, :]


@njit(cache=True, nogil=True)
def merge_pairs(
    words: Any, floats: Any, slots: Any, source: Any, source_floats: Any, source_slots: Any
) -> None:
    """As `merge_moments`, for two variables."""
    for i in range(len(slots)):
        slot, other = np.uint64(slots[i]), np.uint64(source_slots[i])
        mine, theirs = words[slot, 0], source[other, 0]
        count = mine + theirs
        if theirs == 0 or count == 0:
            continue
        dy = source_floats[other, 1] - floats[slot, 1]
        dx = source_floats[other, 2] - floats[slot, 2]
        share = mine * theirs / count
        floats[slot, 1] += dy * theirs / count
        floats[slot, 2] += dx * theirs / count
        floats[slot, 3] += source_floats[other, 3] + dy * dy * share
        floats[slot, 4] += source_floats[other, 4] + dx * dx * share
        floats[slot, 5] += source_floats[other, 5] + dy * dx * share
        words[slot, 0] = count


@njit(cache=True, nogil=True)
def add_booleans(words: Any, slots: Any, values: Any, mask: Any, weights: Any, trace: Any) -> None:
    """Columns count the true and the false."""
    for i in range(len(slots)):
        slot = np.uint64(slots[i])
        if mask is None or mask[i] != 0:
            weight = np.int64(1)
            if weights is not None:
                weight = weights[i]
            words[slot, 0 if values[i] != 0 else 1] += weight
        if trace is not None:
            trace[i, :] = words[slot, :]


@njit(cache=True, nogil=True)
def add_bits(words: Any, slots: Any, values: Any, mask: Any, weights: Any, trace: Any) -> None:
    """Columns are count, and, or, xor; with 67 columns, also how many rows have bit 0 … 62 and the sign set.

    Without those, weights must not be negative.
    """
    counted = words.shape[1] > 4
    for i in range(len(slots)):
        slot = np.uint64(slots[i])
        if mask is None or mask[i] != 0:
            weight = np.int64(1)
            if weights is not None:
                weight = weights[i]
            value = values[i]
            words[slot, 0] += weight
            words[slot, 1] &= value
            words[slot, 2] |= value
            if weight & 1:
                words[slot, 3] ^= value
            if counted:
                for bit in range(64):
                    if (value >> bit) & 1:
                        words[slot, 4 + bit] += weight
        if trace is not None:
            trace[i, :] = words[slot, :]


@njit(cache=True, nogil=True)
def merge_bits(words: Any, slots: Any, source: Any, source_slots: Any) -> None:
    """Add counts, combine bits."""
    for i in range(len(slots)):
        slot, other = np.uint64(slots[i]), np.uint64(source_slots[i])
        words[slot, 0] += source[other, 0]
        words[slot, 1] &= source[other, 1]
        words[slot, 2] |= source[other, 2]
        words[slot, 3] ^= source[other, 3]
        for column in range(4, words.shape[1]):
            words[slot, column] += source[other, column]


@njit(cache=True, nogil=True)
def merge_sums(words: Any, slots: Any, source: Any, source_slots: Any) -> None:
    """Add every column."""
    for i in range(len(slots)):
        slot, other = np.uint64(slots[i]), np.uint64(source_slots[i])
        for column in range(words.shape[1]):
            words[slot, column] += source[other, column]


@njit(cache=True, nogil=True)
def add_hashes(registers: Any, slots: Any, hashes: Any, mask: Any, bits: int) -> None:
    """HyperLogLog: register = top `bits` of the hash, rank = zeros before the first one of the rest, plus 1."""
    for i in range(len(slots)):
        if mask is not None and mask[i] == 0:
            continue
        bucket = np.int64(hashes[i] >> np.uint64(64 - bits))
        rest = hashes[i] << np.uint64(bits)
        rank = 1
        while rank <= 64 - bits and (rest >> np.uint64(63)) == 0:
            rest <<= np.uint64(1)
            rank += 1
        slot = np.uint64(slots[i])
        registers[slot, bucket] = max(registers[slot, bucket], rank)


@njit(cache=True, nogil=True)
def merge_registers(registers: Any, slots: Any, source: Any, source_slots: Any) -> None:
    """The larger of each pair of registers."""
    for i in range(len(slots)):
        slot, other = np.uint64(slots[i]), np.uint64(source_slots[i])
        for j in range(registers.shape[1]):
            registers[slot, j] = max(registers[slot, j], source[other, j])


@njit(cache=True, nogil=True)
def estimate(registers: Any, slots: Any, sums: Any, zeros: Any) -> None:
    """sums[i] = Σ 2^-register and zeros[i] = registers at 0, of group slots[i]."""
    for i in range(len(slots)):
        slot = np.uint64(slots[i])
        total, empty = 0.0, 0
        for j in range(registers.shape[1]):
            value = registers[slot, j]
            total += 2.0 ** -float(value)
            if value == 0:
                empty += 1
        sums[i], zeros[i] = total, empty


@njit(inline="always")
def _wins(mode: int, has: int, key: Any, rival: Any) -> bool:
    if has == 0:
        return True
    if mode == 2:
        return key < rival
    if mode == 3:
        return key > rival
    if mode == 4:
        return key <= rival
    return key >= rival


@njit(cache=True, nogil=True)
def pick_rows(
    words: Any,
    rivals: Any,
    slots: Any,
    keys: Any,
    payload: Any,
    valid: Any,
    mask: Any,
    trace: Any,
    mode: int,
) -> None:
    """Columns are 1 if there is a row, its key (in `rivals`, a view by the key's type), payload, 1 if payload is valid.

    Modes: 2 / 4 least key (first / last of equals), 3 / 5 greatest key.
    """
    for i in range(len(slots)):
        slot = np.uint64(slots[i])
        if (mask is None or mask[i] != 0) and _wins(mode, words[slot, 0], keys[i], rivals[slot, 1]):
            words[slot, 0] = 1
            rivals[slot, 1] = keys[i]
            words[slot, 2] = payload[i]
            words[slot, 3] = 1 if valid is None else valid[i]
        if trace is not None:
            trace[i, :] = words[slot, :]


@njit(cache=True, nogil=True)
def merge_picks(
    words: Any, rivals: Any, slots: Any, source: Any, source_rivals: Any, source_slots: Any, mode: int
) -> None:
    """Groups of `source` come after those merged before where keys are equal."""
    for i in range(len(slots)):
        slot, other = np.uint64(slots[i]), np.uint64(source_slots[i])
        if source[other, 0] and _wins(mode, words[slot, 0], source_rivals[other, 1], rivals[slot, 1]):
            words[slot, 0] = 1
            rivals[slot, 1] = source_rivals[other, 1]
            words[slot, 2] = source[other, 2]
            words[slot, 3] = source[other, 3]
