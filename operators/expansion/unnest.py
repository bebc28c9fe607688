"""UNNEST: a row for each element of an array or entry of a map; several in step, the shorter ones filled with NULL."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.batch import Int64Array
from millrace.operators.expansion.functions import Body, Chosen, Fields, Made, Types, define


def entry_type(type: pa.DataType) -> pa.DataType | None:
    """What comes out of one value of `type`: an array's elements, a map's entries; None where it is neither."""
    if pa.types.is_map(type):
        return pa.struct([pa.field("key", type.key_type), pa.field("value", type.item_type)])
    if pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type):
        return type.value_type
    return None


def _choose(types: Sequence[pa.DataType], literals: Sequence[bool]) -> Chosen | None:
    entries = [entry_type(t) for t in types]
    if not entries or any(e is None for e in entries):
        return None
    names = ["unnest", *(f"unnest_{i}" for i in range(1, len(entries)))]
    return tuple(types), tuple(pa.field(n, e) for n, e in zip(names, entries, strict=True))


@define(
    "unnest",
    "unnest(array, …); unnest(map)",
    "a row for each element of an array, or entry of a map; several arrays in step",
    _choose,
)
def _unnest(types: Types, fields: Fields) -> Body:
    def one(values: Sequence[pa.Array], rows: int) -> Made:
        return Made([*_entries(values[0])], lengths(values[0]))

    return one if len(types) == 1 else in_step


def in_step(values: Sequence[pa.Array], rows: int) -> Made:
    """The n-th elements of all arrays in one row, as many as the longest array of the row has."""
    sizes = [lengths(v) for v in values]
    counts = np.maximum.reduce(sizes)
    begins = np.cumsum(counts) - counts
    parents = np.repeat(np.arange(rows), counts)
    ordinals = np.arange(len(parents)) - begins[parents]
    columns = []
    for value, size in zip(values, sizes, strict=True):
        (flat,) = _entries(value)
        if np.array_equal(size, counts):
            columns.append(flat)
            continue
        starts = np.cumsum(size) - size
        places = starts[parents] + ordinals
        columns.append(flat.take(pa.array(places, mask=ordinals >= size[parents])))
    return Made(columns, counts)


def _entries(value: pa.Array) -> list[pa.Array]:
    """Elements of all rows, one behind the other; a map's as structs."""
    if pa.types.is_map(value.type):
        value = _as_list(value)
    return [pc.list_flatten(value)]


def lengths(value: pa.Array) -> Int64Array:
    """How many elements each row has; NULL has none."""
    if pa.types.is_map(value.type):
        value = _as_list(value)
    sizes = pc.list_value_length(value)
    if sizes.null_count:
        sizes = sizes.fill_null(0)
    return np.asarray(sizes).astype(np.int64)


def _as_list(value: pa.Array) -> pa.Array:
    entry = entry_type(value.type)
    return value.cast(pa.list_(entry))
