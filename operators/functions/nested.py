"""Functions of arrays, maps and rows. Elements count from 1, from the end by -1; outside there is NULL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.errors import Invalid
from millrace.operators.functions import types as sql
from millrace.operators.functions.buffers import as_storage, broadcast, by_row, validity
from millrace.operators.functions.nested_order import order_key
from millrace.operators.functions.patterns import text_constant
from millrace.operators.functions.registry import Binding, Literals, Types, define
from millrace.operators.functions.row_error import BAD_VALUE, Body, Value, ValueFault
from millrace.operators.functions.strings import row

Kinds = Sequence[pa.DataType]
Marks = Sequence[bool]


def _bind_array(types: Kinds, marks: Marks) -> Binding | None:
    common = sql.common_type(types, marks if not all(sql.is_string(t) for t in types) else None)
    return None if common is None else ((common,) * len(types), pa.list_(common))


@define("array(T...) -> ARRAY<T>", description="an array of the arguments", aliases=("list_value", "array_value"), bind=_bind_array,
        null_propagating=False)  # fmt: skip
def _array(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    def body(values: Sequence[Value], rows: int) -> Value:
        if all(isinstance(v, pa.Scalar) for v in values):
            return pa.scalar([v.as_py() for v in values], returns)
        width = len(values)
        joined = pa.concat_arrays([broadcast(v, rows) for v in values])
        order = np.arange(rows * width).reshape(width, rows).T.ravel()
        offsets = np.arange(0, rows * width + 1, width, dtype=np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), joined.take(pa.array(order)), type=returns)

    return body


def _bind_row(types: Kinds, marks: Marks) -> Binding | None:
    if not types:
        return None
    return tuple(types), pa.struct([pa.field(f"f{i}", t) for i, t in enumerate(types)])


@define("row(ANY, …) -> ROW", description="a row of the arguments, named f0, f1, …", aliases=("struct",), bind=_bind_row,
        null_propagating=False)  # fmt: skip
def _row(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    return lambda values, rows: pa.StructArray.from_arrays(
        [broadcast(v, rows) for v in values], fields=list(returns)
    )


def _bind_field(types: Kinds, marks: Marks) -> Binding | None:
    raise Invalid("a field's type is known by its name", code="MR1217", hint="write value.field")


@define(
    "struct_field(ROW, STRING) -> ANY",
    description="a field of a row",
    aliases=("get_field", "struct_extract"),
    bind=_bind_field,
)
def _struct_field(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    name = text_constant(literals, 1)
    place = types[0].get_field_index(name or "")
    if place < 0:
        raise Invalid(
            f"{sql.sql_name(types[0])} has no field {name!r}", code="MR1217", hint="name one of its fields"
        )

    def body(values: Sequence[Value], rows: int) -> Value:
        value = broadcast(values[0], rows)
        return pc.struct_field(value, place) if not value.null_count else value.flatten()[place]

    return body


def _bind_map(types: Kinds, marks: Marks) -> Binding | None:
    if len(types) == 2 and all(sql.is_list(t) for t in types):
        return tuple(types), pa.map_(types[0].value_type, types[1].value_type)
    if len(types) % 2 or not types:
        return None
    key, item = sql.common_type(types[::2]), sql.common_type(types[1::2])
    return None if key is None or item is None else ((key, item) * (len(types) // 2), pa.map_(key, item))


def _pairs(keys: Sequence[Any], items: Sequence[Any]) -> list[tuple[Any, Any]]:
    if len(keys) != len(items):
        raise ValueFault(BAD_VALUE, f"{len(keys)} keys and {len(items)} values")
    if None in keys or len({repr(key) for key in keys}) != len(keys):
        raise ValueFault(BAD_VALUE, "keys of a map must be distinct and not NULL")
    return list(zip(keys, items, strict=True))


@define("map(K, V, …) -> MAP<K, V>", "map(ARRAY<K>, ARRAY<V>) -> MAP<K, V>", description="a map of keys and values",
        aliases=("map_from_arrays",), bind=_bind_map, null_propagating=False, can_fail=True)  # fmt: skip
def _map(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    if sql.is_list(types[0]):
        return lambda values, rows: by_row(_pairs, values, rows, returns, "map")
    return lambda values, rows: by_row(
        lambda *flat: _pairs(flat[::2], flat[1::2]), values, rows, returns, "map", nulls=True
    )


def offsets_of(value: pa.Array) -> npt.NDArray[np.int64]:
    """Where each list of an array (or map) begins and ends in its items; the items are not sliced."""
    buffer = value.buffers()[1]
    if buffer is None or not len(value):
        return np.zeros(len(value) + 1, np.int64)
    return np.frombuffer(buffer, np.int32, len(value) + value.offset + 1)[value.offset :].astype(np.int64)


def _bind_length(types: Kinds, marks: Marks) -> Binding | None:
    if not types or not (sql.is_list(types[0]) or pa.types.is_map(types[0])) or len(types) > 2:
        return None
    return (types[0], *((sql.INT,) * (len(types) - 1))), sql.INT


@define("cardinality(ARRAY<T>) -> INT", "cardinality(MAP<K, V>) -> INT", description="how many elements or entries",
        aliases=("array_length", "array_size", "list_length", "size", "map_size"), bind=_bind_length)  # fmt: skip
def _cardinality(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    def body(values: Sequence[Value], rows: int) -> Value:
        value = broadcast(values[0], rows)
        lengths = np.diff(offsets_of(value)).astype(np.int32)
        return pa.Array.from_buffers(returns, rows, [validity([value], rows), pa.py_buffer(lengths)])

    return body


def _bind_element(types: Kinds, marks: Marks) -> Binding | None:
    if len(types) != 2:
        return None
    if sql.is_list(types[0]) and (sql.is_integer(types[1]) or pa.types.is_null(types[1])):
        return (types[0], sql.BIGINT), types[0].value_type
    if pa.types.is_map(types[0]) and sql.can_coerce(types[1], types[0].key_type, literal=marks[1]):
        return (types[0], types[0].key_type), types[0].item_type
    return None


@define("element_at(ARRAY<T>, BIGINT) -> T", "element_at(MAP<K, V>, K) -> V", description="an element of an array, or the value of a key",
        aliases=("list_extract", "array_extract", "list_element", "map_extract_value"), bind=_bind_element)  # fmt: skip
def _element_at(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    if pa.types.is_map(types[0]):

        def lookup(entries: list[tuple[Any, Any]], key: Any) -> Any:
            return next((item for known, item in entries if known == key), None)

        return lambda values, rows: by_row(lookup, values, rows, returns, "element_at")

    def body(values: Sequence[Value], rows: int) -> Value:
        value, index = broadcast(values[0], rows), broadcast(values[1], rows)
        offsets = offsets_of(value)
        wanted = np.asarray(index.fill_null(0))
        places = np.where(wanted > 0, offsets[:-1] + wanted - 1, offsets[1:] + wanted)
        here = (wanted != 0) & (places >= offsets[:-1]) & (places < offsets[1:])
        if value.null_count:
            here &= np.asarray(value.is_valid())
        return value.values.take(pa.array(places, mask=~here))

    return body


def _bind_contains(types: Kinds, marks: Marks) -> Binding | None:
    if len(types) != 2:
        return None
    if sql.is_list(types[0]) or (pa.types.is_null(types[0]) and not sql.is_string(types[1])):
        return _bind_member(types, marks, sql.BOOLEAN)
    texts = [sql.is_string(t) or pa.types.is_null(t) for t in types]
    return ((sql.STRING, sql.STRING), sql.BOOLEAN) if all(texts) else None


def _bind_member(types: Kinds, marks: Marks, returns: pa.DataType | None) -> Binding | None:
    if len(types) != 2 or not (sql.is_list(types[0]) or pa.types.is_null(types[0])):
        return None
    inner = sql.NULL if pa.types.is_null(types[0]) else types[0].value_type
    common = sql.common_type([inner, types[1]], [False, marks[1] and not sql.is_string(inner)])
    if common is None:
        return None
    whole = pa.list_(common)
    return (whole, common), returns or whole


def _array_contains(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    def quick(values: Sequence[Value], rows: int) -> Value:
        value, wanted = broadcast(values[0], rows), values[1]
        if not wanted.is_valid:
            return pa.scalar(None, returns)
        equal = pc.equal(as_storage(value.values), as_storage(wanted)).fill_null(False)
        counts = np.concatenate([[0], np.cumsum(np.asarray(equal), dtype=np.int64)])
        offsets = offsets_of(value)
        found = counts[offsets[1:]] > counts[offsets[:-1]]
        return pa.array(found, mask=np.asarray(value.is_null()) if value.null_count else None)

    nested = pa.types.is_nested(types[1])
    return lambda values, rows: (
        quick(values, rows)
        if isinstance(values[1], pa.Scalar) and not nested
        else by_row(lambda items, item: item in items, values, rows, returns, "array_contains")
    )


@define("contains(STRING, STRING) -> BOOLEAN", "contains(ARRAY<T>, T) -> BOOLEAN", description="whether a text or an array has a part",
        bind=_bind_contains)  # fmt: skip
def _contains(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    if sql.is_list(types[0]):
        return _array_contains(types, returns, literals)
    part = text_constant(literals, 1)
    if part is not None:
        return lambda values, rows: pc.match_substring(values[0], part)
    return lambda values, rows: by_row(lambda s, p: p in s, values, rows, returns, "contains")


define("array_contains(ARRAY<T>, T) -> BOOLEAN", description="whether an array has an element", aliases=("list_contains", "list_has", "array_has"),
       bind=lambda types, marks: _bind_member(types, marks, sql.BOOLEAN))(_array_contains)  # fmt: skip


def _member(
    name: str,
    function: Callable[[list[Any], Any], Any],
    description: str,
    *aliases: str,
    returns: pa.DataType | None = None,
) -> None:
    @define(
        f"{name}(ARRAY<T>, T) -> {'ARRAY<T>' if returns is None else 'INT'}",
        description=description,
        aliases=aliases,
        bind=lambda types, marks: _bind_member(types, marks, returns),
        null_propagating=False,
    )
    def build(types: Types, kind: pa.DataType, literals: Literals) -> Body:
        return lambda values, rows: by_row(
            lambda items, item: None if items is None else function(items, item),
            values,
            rows,
            kind,
            name,
            nulls=True,
        )


_member("array_position", lambda items, item: items.index(item) + 1 if item in items else None, "where an element first stands, or NULL",
        "list_position", "list_indexof", returns=sql.INT)  # fmt: skip
_member(
    "array_append", lambda items, item: [*items, item], "the array with an element at its end", "list_append"
)
_member(
    "array_remove",
    lambda items, item: [i for i in items if i != item],
    "the array without an element",
    "list_remove",
)


def _bind_prepend(types: Kinds, marks: Marks) -> Binding | None:
    if len(types) != 2:
        return None
    swapped = _bind_member([types[1], types[0]], [marks[1], marks[0]], None)
    return None if swapped is None else ((swapped[0][1], swapped[0][0]), swapped[1])


@define("array_prepend(T, ARRAY<T>) -> ARRAY<T>", description="the array with an element at its start", aliases=("list_prepend",), bind=_bind_prepend,
        null_propagating=False)  # fmt: skip
def _array_prepend(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    return lambda values, rows: by_row(
        lambda item, items: None if items is None else [item, *items],
        values,
        rows,
        returns,
        "array_prepend",
        nulls=True,
    )


def unique(items: Sequence[Any]) -> list[Any]:
    """The items without repeats, in order of first appearance."""
    seen: set[Any] = set()
    out = []
    for item in items:
        key = order_key(item)
        if key not in seen:
            seen.add(key)
            out.append(item)
    return out


def _sorted(items: list[Any], ascending: bool = True) -> list[Any]:
    there = sorted((item for item in items if item is not None), key=order_key, reverse=not ascending)
    nulls = [None] * (len(items) - len(there))
    return there + nulls if ascending else nulls + there


def _slice(items: list[Any], start: int, end: int | None = None) -> list[Any]:
    first = start - 1 if start > 0 else max(len(items) + start, 0) if start < 0 else 0
    last = len(items) if end is None else end if end >= 0 else len(items) + end + 1
    return items[first : max(last, 0)]


row(
    "array_slice(ARRAY<T>, BIGINT[, BIGINT]) -> ARRAY<T>",
    description="the elements from one place to another",
    aliases=("list_slice",),
)(_slice)
row(
    "array_distinct(ARRAY<T>) -> ARRAY<T>",
    description="the array without repeats",
    aliases=("list_distinct",),
)(unique)
row(
    "array_sort(ARRAY<T>[, BOOLEAN]) -> ARRAY<T>",
    description="the array in order (or against it), NULLs last",
    aliases=("list_sort", "sort_array"),
)(_sorted)
row("array_reverse(ARRAY<T>) -> ARRAY<T>", description="the array from its end", aliases=("list_reverse",))(
    lambda items: items[::-1]
)


@row(
    "array_concat(ARRAY<T>, ARRAY<T>) -> ARRAY<T>",
    description="one array after the other",
    aliases=("array_cat", "list_concat", "list_cat"),
)
def _array_concat(left: list[Any], right: list[Any]) -> list[Any]:
    return left + right


@row("array_union(ARRAY<T>, ARRAY<T>) -> ARRAY<T>", description="the elements of either, without repeats")
def _array_union(left: list[Any], right: list[Any]) -> list[Any]:
    return unique(left + right)


@row(
    "array_intersect(ARRAY<T>, ARRAY<T>) -> ARRAY<T>",
    description="the elements of both, without repeats",
    aliases=("list_intersect",),
)
def _array_intersect(left: list[Any], right: list[Any]) -> list[Any]:
    keys = {order_key(item) for item in right}
    return [item for item in unique(left) if order_key(item) in keys]


@row(
    "array_except(ARRAY<T>, ARRAY<T>) -> ARRAY<T>",
    description="the elements of the first that the second has not",
)
def _array_except(left: list[Any], right: list[Any]) -> list[Any]:
    keys = {order_key(item) for item in right}
    return [item for item in unique(left) if order_key(item) not in keys]


@row(
    "arrays_overlap(ARRAY<T>, ARRAY<T>) -> BOOLEAN",
    description="whether two arrays share an element",
    aliases=("list_has_any", "array_has_any", "&&"),
)
def _arrays_overlap(left: list[Any], right: list[Any]) -> bool:
    return any(item is not None and item in right for item in left)


@row(
    "list_has_all(ARRAY<T>, ARRAY<T>) -> BOOLEAN",
    description="whether the first has every element of the second",
    aliases=("array_has_all", "@>"),
)
def _list_has_all(left: list[Any], right: list[Any]) -> bool:
    return all(item in left for item in right if item is not None)


def _there(items: list[Any]) -> list[Any]:
    return [item for item in items if item is not None]


row("array_min(ARRAY<T>) -> T", description="the least element", aliases=("list_min",))(
    lambda items: min(_there(items), key=order_key, default=None)
)
row("array_max(ARRAY<T>) -> T", description="the greatest element", aliases=("list_max",))(
    lambda items: max(_there(items), key=order_key, default=None)
)
row("array_sum(ARRAY<DOUBLE>) -> DOUBLE", description="the sum of the elements", aliases=("list_sum",))(
    lambda items: sum(_there(items)) if _there(items) else None
)


@row("array_repeat(T, BIGINT) -> ARRAY<T>", description="an array of the value so many times", can_fail=True)
def _array_repeat(item: Any, count: int) -> list[Any]:
    if count > 1 << 24:
        raise ValueFault(BAD_VALUE, f"an array of {count} elements is too long")
    return [item] * max(count, 0)


@row(
    "sequence(BIGINT, BIGINT[, BIGINT]) -> ARRAY<BIGINT>",
    description="the numbers from one to another, by steps",
    aliases=("generate_series",),
    can_fail=True,
)
def _sequence(start: int, stop: int, step: int = 1) -> list[int]:
    if step == 0 or abs((stop - start) // step) > 1 << 24:
        raise ValueFault(BAD_VALUE, f"no sequence from {start} to {stop} by {step}")
    return list(range(start, stop + (1 if step > 0 else -1), step))


@define(
    "flatten(ARRAY<ARRAY<T>>) -> ARRAY<T>",
    description="the elements of all inner arrays",
    aliases=("array_flatten",),
)
def _flatten(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    return lambda values, rows: by_row(
        lambda items: [item for inner in items if inner is not None for item in inner],
        values,
        rows,
        returns,
        "flatten",
    )


def _bind_join(types: Kinds, marks: Marks) -> Binding | None:
    if len(types) not in (2, 3) or not sql.is_list(types[0]) or not all(sql.is_string(t) for t in types[1:]):
        return None
    return (pa.list_(sql.STRING), *types[1:]), sql.STRING


@define("array_join(ARRAY<T>, STRING[, STRING]) -> STRING", description="the elements as text with a separator; NULLs are left out or written as given",
        aliases=("array_to_string", "list_aggr_string"), bind=_bind_join)  # fmt: skip
def _array_join(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    def join(items: list[str | None], separator: str, null: str | None = None) -> str:
        return separator.join(
            item if item is not None else null or "" for item in items if item is not None or null is not None
        )

    return lambda values, rows: by_row(join, values, rows, returns, "array_join")


def _define_map_part(name: str, part: str, description: str) -> None:
    @define(f"{name}(MAP<K, V>) -> ARRAY<{'K' if part == 'keys' else 'V'}>", description=description)
    def build(types: Types, returns: pa.DataType, literals: Literals) -> Body:
        def body(values: Sequence[Value], rows: int) -> Value:
            value = broadcast(values[0], rows)
            items = value.keys if part == "keys" else value.items
            offsets = pa.array(offsets_of(value).astype(np.int32))
            mask = value.is_null() if value.null_count else None
            return pa.ListArray.from_arrays(offsets, items, type=returns, mask=mask)

        return body


_define_map_part("map_keys", "keys", "the keys of a map")
_define_map_part("map_values", "items", "the values of a map")


def _bind_entries(types: Kinds, marks: Marks) -> Binding | None:
    if len(types) != 1 or not pa.types.is_map(types[0]):
        return None
    entry = pa.struct([pa.field("key", types[0].key_type), pa.field("value", types[0].item_type)])
    return tuple(types), pa.list_(entry)


@define(
    "map_entries(MAP<K, V>) -> ARRAY<ROW>",
    description="the entries of a map as rows of key and value",
    bind=_bind_entries,
)
def _map_entries(types: Types, returns: pa.DataType, literals: Literals) -> Body:
    return lambda values, rows: by_row(
        lambda entries: [{"key": key, "value": item} for key, item in entries],
        values,
        rows,
        returns,
        "map_entries",
    )


@row(
    "map_contains_key(MAP<K, V>, K) -> BOOLEAN",
    description="whether a map has a key",
    aliases=("map_contains",),
)
def _map_contains_key(entries: list[tuple[Any, Any]], key: Any) -> bool:
    return any(known == key for known, _ in entries)


@row(
    "map_concat(MAP<K, V>, MAP<K, V>) -> MAP<K, V>",
    description="the entries of both; the second wins",
    aliases=("map_union",),
)
def _map_concat(left: list[tuple[Any, Any]], right: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    return list({**dict(left), **dict(right)}.items())


@row("map_remove(MAP<K, V>, K) -> MAP<K, V>", description="the entries of a map but that of a key")
def _map_remove(entries: list[tuple[Any, Any]], key: Any) -> list[tuple[Any, Any]]:
    return [(known, value) for known, value in entries if known != key]
