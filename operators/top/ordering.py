"""Columns of an order as numbers that compare like them, and places of rows in it. Keeps no state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from millrace.operators.batch import Int64Array
from millrace.operators.top.specs import Order, fixed_code
from millrace.state.encoding import readable

_MAX = np.int64(2**63 - 1)
_MIN = np.int64(-(2**63))


def codes_of(columns: Sequence[pa.Array], order: Order) -> list[Int64Array]:
    """Arrays by which rows compare, the most significant first, ascending.

    Items of `order` are places in `columns`. Of fixed-width columns there are as many arrays for every
    batch, and they compare across batches; of others they hold for these rows alone.
    """
    out: list[Int64Array] = []
    for column, descending, nulls_first in order:
        out += _codes(columns[column], descending, nulls_first)
    return out


def code_count(schema: pa.Schema, order: Order) -> int:
    """How many arrays `codes_of` gives for rows of fixed-width order columns."""
    return sum(2 if _full_range(schema.field(column).type) else 1 for column, _, _ in order)


def _codes(array: pa.Array, descending: bool, nulls_first: bool) -> list[Int64Array]:
    kind = array.type
    if pt.is_dictionary(kind):
        array = readable(array)
        kind = array.type
    nulls = np.asarray(array.is_null()) if array.null_count else None
    if fixed_code(kind):
        code = _fixed(array)
    else:
        code = np.asarray(pc.rank(array, sort_keys="ascending", tiebreaker="dense")).astype(np.int64)
    if descending:
        code = ~code
    if not _full_range(kind):
        if nulls is None:
            return [code]
        return [np.where(nulls, _MIN if nulls_first else _MAX, code)]
    if nulls is None:
        return [code, np.zeros(len(code), np.int64)]
    # A value may be as extreme as the code of NULL: the second code tells them apart.
    return [
        np.where(nulls, _MIN if nulls_first else _MAX, code),
        np.where(nulls, np.int64(-1 if nulls_first else 1), np.int64(0)),
    ]


def _full_range(kind: pa.DataType) -> bool:
    """Whether values of the type may need all of 64 bits."""
    return kind in (pa.int64(), pa.uint64()) or (
        (pt.is_timestamp(kind) or pt.is_time(kind) or pt.is_duration(kind) or pt.is_date64(kind))
        and kind.bit_width == 64
    )


def _fixed(array: pa.Array) -> Int64Array:
    """Values as int64 in the same order; NULL is anything."""
    kind = array.type
    if pt.is_boolean(kind):
        return np.asarray(array.cast(pa.int8()).fill_null(0)).astype(np.int64)
    width = kind.bit_width // 8
    raw = np.frombuffer(array.buffers()[1], f"i{width}")[array.offset : array.offset + len(array)]
    if pt.is_floating(kind):
        return _float_codes(raw.view(np.float32 if width == 4 else np.float64))
    if pt.is_unsigned_integer(kind):
        wide = raw.view(f"u{width}").astype(np.uint64)
        return wide.view(np.int64) ^ _MIN if width == 8 else wide.view(np.int64)
    return raw.astype(np.int64, copy=False)


def _float_codes(values: npt.NDArray[np.floating]) -> Int64Array:
    """Floats in the order of PostgreSQL: -0.0 is 0.0, and NaN is above all."""
    plain = values.astype(np.float64) + 0.0
    nan = np.isnan(plain)
    bits = plain.view(np.int64)
    code = np.where(bits < 0, bits ^ _MAX, bits)
    return np.where(nan, np.int64(0x7FF8000000000000), code) if nan.any() else code


@dataclass(frozen=True, slots=True)
class Ranked:
    """Rows in order: `rows` are positions, partition after partition; `places` the place of each of these."""

    rows: Int64Array
    places: Int64Array


def ranked(
    slots: npt.NDArray[np.integer],
    codes: list[Int64Array],
    function: str,
    counts: Int64Array | None = None,
    arrival: Int64Array | None = None,
) -> Ranked:
    """Places from 1 of rows in their partition (`slots`). Rows with equal codes stand by `arrival`, or as given.

    `counts` says how often each row is there: a row_number is then that of the first of them.
    """
    last = () if arrival is None else (arrival,)
    order = np.lexsort((*last, *reversed(codes), slots))
    total = len(order)
    fresh = np.ones(total, np.bool_)
    ordered = slots[order]
    fresh[1:] = ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(fresh)
    lengths = np.diff(starts, append=total)
    if function == "row_number" or not total:
        before = _before(order, counts)
        return Ranked(order, before - np.repeat(before[starts], lengths) + 1)
    peers = fresh.copy()
    for code in codes:
        sorted_code = code[order]
        peers[1:] |= sorted_code[1:] != sorted_code[:-1]
    if function == "dense_rank":
        number: Int64Array = np.cumsum(peers, dtype=np.int64)
        return Ranked(order, number - np.repeat(number[starts], lengths) + 1)
    before = _before(order, counts)
    heads = np.flatnonzero(peers)
    first = np.repeat(before[heads], np.diff(heads, append=total))
    return Ranked(order, first - np.repeat(before[starts], lengths) + 1)


def _before(order: Int64Array, counts: Int64Array | None) -> Int64Array:
    """How many rows stand before each."""
    if counts is None:
        return np.arange(len(order), dtype=np.int64)
    ordered = counts[order]
    return np.cumsum(ordered) - ordered
