"""Hashes are stable, spread well, and see values, not layouts."""

from __future__ import annotations

import decimal
import math

import numpy as np
import pyarrow as pa
import pytest

from millrace.state.hashing import hash_columns, partition_rows, vnodes_of

M = 2**64 - 1


def mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & M
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & M
    return x ^ (x >> 31)


def combine(before: int, value: int) -> int:
    return mix((before * 0x9E3779B97F4A7C15 + value) & M)


def fold(a: int, b: int) -> int:
    return ((a * b) & M) ^ ((a * b) >> 64)


def hash_bytes(data: bytes) -> int:
    low, high, spread = 0xA0761D6478BD642F, 0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3
    if len(data) <= 16:
        padded = data.ljust(16, b"\0")
        first, second = int.from_bytes(padded[:8], "little"), int.from_bytes(padded[8:], "little")
        return fold(first ^ low, second ^ high) ^ ((second * spread + len(data)) & M)
    acc = (len(data) * spread) & M
    places = [*range(0, len(data) - 16, 16), len(data) - 16]
    for place in places:
        first = int.from_bytes(data[place : place + 8], "little")
        second = int.from_bytes(data[place + 8 : place + 16], "little")
        acc = fold(first ^ low ^ acc, second ^ high) ^ (((acc << 27) & M) | (acc >> 37))
    return acc


SEED = 0x6D696C6C72616365


@pytest.mark.parametrize("length", [*range(35), 48, 49, 100])
def test_text_hash_equals_its_definition(length: int) -> None:
    text = "".join(chr(33 + (7 * i) % 90) for i in range(length))
    expected = combine(SEED, hash_bytes(text.encode()))
    for data_type in (pa.string(), pa.large_string(), pa.binary(), pa.string_view()):
        column = pa.array(["before", text, "after"], data_type).slice(1, 1)
        assert hash_columns([column]).tolist() == [expected]


def test_number_hash_equals_its_definition() -> None:
    expected = [combine(SEED, value & M) for value in (0, 1, -1, 77)]
    for data_type in (
        pa.int8(),
        pa.int16(),
        pa.int32(),
        pa.int64(),
        pa.decimal128(20, 0),
        pa.decimal64(18, 0),
    ):
        values = [decimal.Decimal(v) if pa.types.is_decimal(data_type) else v for v in (0, 1, -1, 77)]
        assert hash_columns([pa.array(values, data_type)]).tolist() == expected


def test_hashes_of_fixed_keys_never_change() -> None:
    columns = [
        pa.array(["millrace", None, "a key of more than sixteen bytes"]),
        pa.array([1, 2, None], pa.int64()),
    ]
    expected = [
        combine(combine(SEED, hash_bytes(b"millrace")), 1),
        combine(combine(SEED, 0x589965CC75374CC3), 2),
        combine(combine(SEED, hash_bytes(b"a key of more than sixteen bytes")), 0x589965CC75374CC3),
    ]
    assert hash_columns(columns).tolist() == expected
    assert hash_columns([pa.array(["millrace"])]).tolist() == [GOLDEN]


GOLDEN = 4210162264526333376


def test_equal_floats_hash_alike() -> None:
    values = hash_columns([pa.array([0.0, -0.0, math.nan, -math.nan, 1.5, None])])
    assert values[0] == values[1]
    assert values[2] == values[3]
    assert len(set(values.tolist())) == 4
    narrow = hash_columns([pa.array([0.0, -0.0, math.nan, -math.nan, 1.5, None], pa.float32())])
    assert narrow.tolist() == values.tolist()


@pytest.mark.parametrize("kind", ["dense", "strided", "text"])
def test_vnodes_are_even_and_independent_of_table_places(kind: str) -> None:
    numbers = np.arange(64_000)
    column = {
        "dense": pa.array(numbers),
        "strided": pa.array(numbers * 4096),
        "text": pa.array([f"user-{n}" for n in numbers.tolist()]),
    }[kind]
    hashes = hash_columns([column])
    assert len(set(hashes.tolist())) == len(numbers)
    vnodes = vnodes_of(hashes, 256)
    counts = np.bincount(vnodes, minlength=256)
    assert counts.max() < 250 + 6 * 16
    assert counts.min() > 250 - 6 * 16
    mine = hashes[vnodes < 16]
    places = np.bincount((mine >> np.uint64(32)) & np.uint64(255), minlength=256)
    assert places.max() < 16 + 8 * 4


def test_one_bit_of_input_changes_half_of_the_hash() -> None:
    base = hash_columns([pa.array([12345])])[0]
    flipped = hash_columns([pa.array(12345 ^ (np.int64(1) << np.arange(62)))])
    changed = [int(base ^ other).bit_count() for other in flipped]
    assert 28 < np.mean(changed) < 36
    assert min(changed) > 12


def test_rows_are_grouped_by_owner_in_order() -> None:
    vnodes = np.array([3, 0, 2, 3, 1, 0], np.uint16)
    order, bounds = partition_rows(vnodes, np.array([1, 1, 0, 2], np.int16), owners=4)
    assert order.tolist() == [2, 1, 4, 5, 0, 3]
    assert bounds.tolist() == [0, 1, 4, 6, 6]


def test_no_column_and_no_row() -> None:
    assert hash_columns([], rows=2).tolist() == [SEED, SEED]
    assert hash_columns([pa.array([], pa.string())]).tolist() == []
