"""Table functions that users wrote in Python: what they return is checked and put in order. Finds none by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from millrace.errors import BadData
from millrace.operators.batch import Int64Array
from millrace.operators.expansion.functions import (
    Body,
    Chosen,
    Fields,
    Made,
    TableFunction,
    Types,
    add_user_function,
)
from millrace.operators.expansion.unnest import lengths
from millrace.operators.functions import types as sql
from millrace.operators.functions.row_error import UDF_FAILED, ValueFault

CONTRACT = (
    "return (rows, parents): a table, and for each of its rows the position of the input row it is of; "
    "or an array of arrays, one for each input row"
)


def register_table_function(
    name: str, function: Callable[..., object], parameters: Sequence[pa.DataType], columns: pa.Schema
) -> None:
    """Add a user's table function: it takes one Arrow array a parameter, all of the same length.

    It returns `(rows, parents)`: a table, record batch or mapping of arrays with the declared `columns`, and an
    integer array that says for each row of it which input row (from 0) it belongs to. Or one array of lists, whose
    elements are the new rows: structs, or plain values where there is one column.
    Raises Invalid (MR1212) where the name is taken by a table function of the library.
    """
    key = name.lower()
    fixed = tuple(parameters)
    fields = tuple(pa.field(f.name, f.type) for f in columns)

    def choose(types: Sequence[pa.DataType], literals: Sequence[bool]) -> Chosen | None:
        if len(types) != len(fixed):
            return None
        pairs = zip(types, fixed, literals, strict=True)
        return (fixed, fields) if all(sql.can_coerce(t, p, literal=m) for t, p, m in pairs) else None

    def build(types: Types, made: Fields) -> Body:
        return lambda values, rows: _call(key, function, fields, values, rows)

    shown = ", ".join(f"{f.name} {sql.sql_name(f.type)}" for f in fields)
    form = f"{key}({', '.join(map(sql.sql_name, fixed))}) -> TABLE ({shown})"
    add_user_function(TableFunction(key, form, "user-defined table function", choose, build, True))


def _call(
    name: str, function: Callable[..., object], fields: Fields, values: Sequence[pa.Array], rows: int
) -> Made:
    try:
        result = function(*values)
    except Exception as error:
        raise ValueFault(UDF_FAILED, f"{type(error).__name__}: {error}") from error
    if isinstance(result, pa.Array | pa.ChunkedArray):
        return _of_lists(name, _whole(result), fields, rows)
    if not isinstance(result, tuple) or len(result) != 2:
        raise _misfit(name, f"a {type(result).__name__}")
    made, parents = result
    columns = _columns(name, made, fields)
    owners = _parents(name, parents, len(columns[0]), rows)
    if len(owners) > 1 and (owners[1:] < owners[:-1]).any():
        order = pa.array(np.argsort(owners, kind="stable"))
        columns = [c.take(order) for c in columns]
    return Made(columns, np.bincount(owners, minlength=rows).astype(np.int64))


def _of_lists(name: str, result: pa.Array, fields: Fields, rows: int) -> Made:
    kind = result.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or len(result) != rows:
        raise _misfit(name, f"an array of {len(result)} {sql.sql_name(kind)}")
    counts = lengths(result)
    flat = result.flatten()
    if pa.types.is_struct(flat.type) and not (len(fields) == 1 and flat.type == fields[0].type):
        parts = dict(zip((f.name for f in flat.type), flat.flatten(), strict=True))
        return Made(_columns(name, parts, fields), counts)
    if len(fields) != 1:
        raise _misfit(name, f"arrays of {sql.sql_name(flat.type)}")
    return Made([_cast(name, flat, fields[0])], counts)


def _columns(name: str, made: object, fields: Fields) -> list[pa.Array]:
    """The declared columns of what came back, by name."""
    if isinstance(made, pa.Table | pa.RecordBatch):
        found = dict(zip(made.schema.names, made.columns, strict=True))
    elif isinstance(made, Mapping):
        found = dict(made)
    else:
        raise _misfit(name, f"a {type(made).__name__} with its parents")
    missing = [f.name for f in fields if f.name not in found]
    if missing:
        raise _misfit(name, f"no column {missing[0]}, but {', '.join(map(str, found)) or 'none'}")
    columns = [_cast(name, _whole(found[f.name]), f) for f in fields]
    if len({len(c) for c in columns}) > 1:
        raise _misfit(name, "columns of different lengths")
    return columns


def _parents(name: str, parents: object, count: int, rows: int) -> Int64Array:
    try:
        owners = np.asarray(_whole(parents))
    except (pa.ArrowException, TypeError, ValueError):
        owners = np.empty(0)
    if owners.dtype.kind not in "iu" or owners.ndim != 1:
        if count or owners.size:
            raise _misfit(name, f"parents that are {owners.dtype}, not integers")
        return np.empty(0, np.int64)
    if len(owners) != count:
        raise _misfit(name, f"{len(owners)} parents for {count} rows")
    if count and (int(owners.min()) < 0 or int(owners.max()) >= rows):
        raise _misfit(name, f"a parent that is none of the {rows} input rows")
    return owners.astype(np.int64)


def _whole(values: object) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    return values if isinstance(values, pa.Array) else pa.array(values)


def _cast(name: str, column: pa.Array, field: pa.Field) -> pa.Array:
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise BadData(
            f"table function {name} returned {sql.sql_name(column.type)} instead of {sql.sql_name(field.type)} "
            f"for {field.name}",
            code="MR2011",
            hint="return the declared types",
        ) from error


def _misfit(name: str, what: str) -> BadData:
    return BadData(f"table function {name} returned {what}", code="MR2010", hint=CONTRACT)
