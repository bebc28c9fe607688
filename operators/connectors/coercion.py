"""Python values, Arrow data and frames as batches of declared columns, bad rows aside. Knows no source.

A value is taken where nothing of it is lost: 5.0 fits BIGINT and 5.5 does not; text is parsed by Arrow's rules.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.errors import Invalid
from millrace.operators.formats.records import NULL_VALUE, PAYLOAD_BYTES_MAX, WRONG_TYPE
from millrace.operators.source import BadRecord

Row = Mapping[str, object]
NO_COLUMN = "MR2150"
"""A row that has none of the declared columns."""

_ARROW_ERRORS = (pa.ArrowException, TypeError, ValueError, OverflowError)
_PLANS_KEPT = 64


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Column:
    name: str
    type: pa.DataType
    nullable: bool
    exact: frozenset[type]
    """Python types whose every value (within range) Arrow converts without loss."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    schema: pa.Schema
    struct: pa.StructType
    columns: tuple[_Column, ...]
    names: frozenset[str]
    required: tuple[int, ...]
    """Places of the NOT NULL columns."""


_plans: dict[int, _Plan] = {}


def to_batches(data: object, schema: pa.Schema) -> tuple[list[pa.RecordBatch], list[BadRecord]]:
    """`data` as batches of `schema`, and the rows that do not fit it.

    Takes a mapping (one row), a dataclass instance or named tuple, sequences and iterators of these, Arrow batches
    and tables, pandas and Polars frames, and whatever has `__arrow_c_stream__` or `__arrow_c_array__`. Columns are
    found by name; one that is missing is NULL, others are passed over. Raises Invalid MR1440 for anything else.
    """
    plan = _plan(schema)
    if type(data) is dict:
        batch = _one_row(data, plan)
        if batch is not None:
            return [batch], []
        return _from_rows([data], plan)
    if isinstance(data, pa.RecordBatch):
        return _from_batch(data, plan, 0)
    if isinstance(data, pa.Table) or hasattr(data, "__arrow_c_stream__"):
        return _from_stream(data, plan)
    if hasattr(data, "__arrow_c_array__"):
        return _from_batch(pa.record_batch(data), plan, 0)
    if isinstance(data, Mapping) or _is_record(data):
        return _from_rows([_as_row(data, 0)], plan)
    if isinstance(data, Iterable) and not isinstance(data, str | bytes):
        return _from_items(list(data), plan)
    raise _no_rows(data)


def _no_rows(data: object, at: str = "") -> Invalid:
    return Invalid(
        f"{type(data).__name__}{at} holds no rows",
        code="MR1440",
        hint="push a dict, dicts, dataclass instances, an Arrow batch or table, or a pandas or Polars frame",
    )


def _plan(schema: pa.Schema) -> _Plan:
    known = _plans.get(id(schema))
    if known is not None and known.schema is schema:
        return known
    columns = tuple(_Column(f.name, f.type, f.nullable, _exact_types(f.type)) for f in schema)
    required = tuple(i for i, column in enumerate(columns) if not column.nullable)
    made = _Plan(schema, pa.struct(list(schema)), columns, frozenset(schema.names), required)
    if len(_plans) >= _PLANS_KEPT:
        _plans.clear()
    _plans[id(schema)] = made
    return made


def _exact_types(type_: pa.DataType) -> frozenset[type]:
    if pa.types.is_integer(type_):
        return frozenset({int})
    if pa.types.is_float64(type_):
        return frozenset({float})
    if pa.types.is_boolean(type_):
        return frozenset({bool})
    if pa.types.is_string(type_):
        return frozenset({str})
    if pa.types.is_binary(type_):
        return frozenset({bytes})
    if pa.types.is_timestamp(type_):
        # A datetime has microseconds, which a coarser column would cut off.
        return frozenset({int, datetime.datetime} if type_.unit in ("us", "ns") else {int})
    return frozenset()


def _one_row(row: dict[str, object], plan: _Plan) -> pa.RecordBatch | None:
    """The fast road of one dict whose values have the very types of the columns; None where they have not."""
    for column in plan.columns:
        value = row.get(column.name)
        if value is None:
            if not column.nullable or column.name not in row:
                return None
        elif type(value) not in column.exact:
            return None
    try:
        return pa.RecordBatch.from_struct_array(pa.array([row], plan.struct))
    except _ARROW_ERRORS:
        return None


def _is_record(value: object) -> bool:
    return (dataclasses.is_dataclass(value) and not isinstance(value, type)) or hasattr(value, "_asdict")


def _as_row(value: object, index: int) -> Row:
    if isinstance(value, Mapping):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "_asdict"):
        found: Row = value._asdict()
        return found
    raise _no_rows(value, f" at {index}")


def _plain(value: object) -> object:
    """Nested dataclass instances as dicts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _from_items(items: list[Any], plan: _Plan) -> tuple[list[pa.RecordBatch], list[BadRecord]]:
    if items and (isinstance(items[0], pa.RecordBatch) or hasattr(items[0], "__arrow_c_stream__")):
        batches: list[pa.RecordBatch] = []
        bad: list[BadRecord] = []
        for item in items:
            more, more_bad = to_batches(item, plan.schema)
            batches += more
            bad += more_bad
        return batches, bad
    return _from_rows([_as_row(item, index) for index, item in enumerate(items)], plan)


def _from_rows(rows: Sequence[Row], plan: _Plan) -> tuple[list[pa.RecordBatch], list[BadRecord]]:
    """Rows of Python values, a column at a time."""
    failures: dict[int, tuple[str, str]] = {}
    for index, row in enumerate(rows):
        if plan.names.isdisjoint(row):
            failures[index] = (NO_COLUMN, f"the row has none of the columns {', '.join(plan.schema.names)}")
    arrays = []
    for column in plan.columns:
        values = [row.get(column.name) for row in rows]
        arrays.append(_column_of_values(values, column, failures))
    return _finish(arrays, plan, failures, 0, lambda index: repr(dict(rows[index])))


def _column_of_values(
    values: list[object], column: _Column, failures: dict[int, tuple[str, str]]
) -> pa.Array:
    exact = column.exact

    def convert(start: int, end: int) -> pa.Array:
        part = values[start:end]
        if exact and all(value is None or type(value) in exact for value in part):
            return pa.array(part, column.type)
        return _coerced(part, column.type)

    return _converted(convert, len(values), column, failures, lambda i: _shown(values[i]))


def _coerced(values: list[object], type_: pa.DataType) -> pa.Array:
    """Values of foreign types, where Arrow's safe casts lead to `type_` without loss."""
    if pa.types.is_nested(type_) or pa.types.is_decimal(type_):
        if pa.types.is_decimal(type_):
            values = [decimal.Decimal(str(v)) if isinstance(v, int | float | str) else v for v in values]
        return pa.array(values, type_)
    if pa.types.is_boolean(type_) and any(not isinstance(v, bool | None) for v in values):
        raise TypeError("only true and false are BOOLEAN")
    if pa.types.is_string(type_) and any(isinstance(v, bool | bytes) for v in values):
        raise TypeError("it is no text")
    if any(isinstance(v, bool) for v in values) and not pa.types.is_boolean(type_):
        raise TypeError("true and false are no numbers")
    return _cast(pa.array(values), type_)


def _cast(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """A safe cast. Text and naive times are UTC, whole numbers count the timestamp's own unit."""
    if array.type == type_:
        return array
    if pa.types.is_dictionary(array.type):
        array = _cast(array.dictionary, type_).take(array.indices)
    if pa.types.is_string_view(array.type) or pa.types.is_large_string(array.type):
        array = array.cast(pa.string())
    if pa.types.is_timestamp(type_) and pa.types.is_integer(array.type):
        array = array.cast(pa.int64())
    if pa.types.is_floating(array.type) and pa.types.is_integer(type_):
        return array.cast(pa.float64()).cast(type_)
    if pa.types.is_timestamp(type_) and type_.tz is not None and pa.types.is_string(array.type):
        try:
            return array.cast(type_)
        except pa.ArrowInvalid:  # without a zone
            return array.cast(pa.timestamp(type_.unit)).cast(type_)
    return array.cast(type_)


def _from_stream(data: Any, plan: _Plan) -> tuple[list[pa.RecordBatch], list[BadRecord]]:
    table = data if isinstance(data, pa.Table) else pa.table(data)
    batches: list[pa.RecordBatch] = []
    bad: list[BadRecord] = []
    first = 0
    for batch in table.to_batches():
        more, more_bad = _from_batch(batch, plan, first)
        batches += more
        bad += more_bad
        first += batch.num_rows
    if not batches and not bad and plan.names.isdisjoint(table.schema.names):
        _check_names(table.schema, plan)
    return batches, bad


def _check_names(schema: pa.Schema, plan: _Plan) -> None:
    if plan.names.isdisjoint(schema.names):
        raise Invalid(
            f"the data has columns {', '.join(map(str, schema.names))} and none of those declared",
            code="MR1443",
            hint=f"the columns are {', '.join(plan.schema.names)}",
        )


def _from_batch(
    batch: pa.RecordBatch, plan: _Plan, first: int
) -> tuple[list[pa.RecordBatch], list[BadRecord]]:
    """Arrow columns, as they are where they have the declared type. `first` is the number of the first row."""
    if batch.schema.equals(plan.schema) and not any(batch.column(i).null_count for i in plan.required):
        return ([batch] if batch.num_rows else []), []
    _check_names(batch.schema, plan)
    failures: dict[int, tuple[str, str]] = {}
    arrays = []
    for column in plan.columns:
        index = batch.schema.get_field_index(column.name)
        if index < 0:
            arrays.append(pa.nulls(batch.num_rows, column.type))
            continue
        arrays.append(_column_of_array(batch.column(index), column, failures))
    return _finish(arrays, plan, failures, first, lambda i: repr(batch.slice(i, 1).to_pylist()[0]))


def _column_of_array(array: pa.Array, column: _Column, failures: dict[int, tuple[str, str]]) -> pa.Array:
    if array.type == column.type:
        return array

    def convert(start: int, end: int) -> pa.Array:
        return _cast(array.slice(start, end - start), column.type)

    return _converted(convert, len(array), column, failures, lambda i: _shown(array[i].as_py()))


def _converted(
    convert: Callable[[int, int], pa.Array],
    count: int,
    column: _Column,
    failures: dict[int, tuple[str, str]],
    show: Callable[[int], str],
) -> pa.Array:
    """A column converted whole, or, where that fails, in halves down to the rows at fault, which become NULL."""
    parts: list[pa.Array] = []
    pending = [(0, count)]
    while pending:
        start, end = pending.pop()
        try:
            parts.append(convert(start, end))
            continue
        except _ARROW_ERRORS as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if end - start > 1:
            middle = (start + end) // 2
            pending += [(middle, end), (start, middle)]
            continue
        failures.setdefault(
            start, (WRONG_TYPE, f"column '{column.name}' can not be {show(start)} as {column.type}: {reason}")
        )
        parts.append(pa.nulls(1, column.type))
    return parts[0] if len(parts) == 1 else pa.concat_arrays(parts) if parts else pa.nulls(0, column.type)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _finish(
    arrays: list[pa.Array],
    plan: _Plan,
    failures: dict[int, tuple[str, str]],
    first: int,
    show: Callable[[int], str],
) -> tuple[list[pa.RecordBatch], list[BadRecord]]:
    """The batch of the rows that did not fail; NULL in a NOT NULL column is a failure, too."""
    for array, column in zip(arrays, plan.columns, strict=True):
        if not column.nullable and array.null_count:
            for index in np.flatnonzero(np.asarray(pc.is_null(array))):
                failures.setdefault(
                    int(index), (NULL_VALUE, f"column '{column.name}' is NOT NULL and has no value")
                )
    count = len(arrays[0])
    if failures:
        keep = np.ones(count, np.bool_)
        keep[list(failures)] = False
        mask = pa.array(keep)
        arrays = [array.filter(mask) for array in arrays]
    bad = [
        BadRecord(code, reason, "push", f"row {first + index}", show(index).encode()[:PAYLOAD_BYTES_MAX])
        for index, (code, reason) in sorted(failures.items())
    ]
    if count == len(failures):
        return [], bad
    return [pa.RecordBatch.from_arrays(arrays, schema=plan.schema)], bad
