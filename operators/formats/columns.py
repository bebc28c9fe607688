"""Fits columns that are typed already to the declared types; rows that do not fit are bad records."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.formats.records import (
    NULL_VALUE,
    OUT_OF_RANGE,
    PAYLOAD_BYTES_MAX,
    WRONG_TYPE,
    BadRow,
)
from millrace.operators.formats.values import type_name


@dataclass(slots=True)
class Conformed:
    """Rows in the declared types, and those that did not fit (`line` is the row's place, from 0)."""

    data: pa.RecordBatch
    bad: list[BadRow] = field(default_factory=list)


def conform(data: pa.RecordBatch, schema: pa.Schema) -> Conformed:
    """`data`'s columns (same order) cast to `schema`'s types, without loss."""
    if data.schema.equals(schema, check_metadata=True) and all(f.nullable for f in schema):
        return Conformed(data)
    arrays: list[pa.Array] = []
    faults: dict[int, tuple[str, str]] = {}
    for i, column in enumerate(schema):
        array = _cast(data.column(i), column, faults)
        if not column.nullable and array.null_count:
            for row in np.flatnonzero(np.asarray(array.is_null())).tolist():
                faults.setdefault(row, (NULL_VALUE, f"column '{column.name}' is NOT NULL and has no value"))
        arrays.append(array)
    if not faults:
        return Conformed(pa.RecordBatch.from_arrays(arrays, schema=schema))
    bad = [_bad_row(data, row, *faults[row]) for row in sorted(faults)]
    keep = np.ones(data.num_rows, bool)
    keep[list(faults)] = False
    kept = [array.filter(pa.array(keep)) for array in arrays]
    return Conformed(pa.RecordBatch.from_arrays(kept, schema=schema), bad)


def _bad_row(data: pa.RecordBatch, row: int, code: str, reason: str) -> BadRow:
    values = {name: data.column(i)[row].as_py() for i, name in enumerate(data.schema.names)}
    payload = json.dumps(values, default=str, ensure_ascii=False).encode(errors="replace")[:PAYLOAD_BYTES_MAX]
    return BadRow(code, reason, 0, row, payload)


def _cast(array: pa.Array, column: pa.Field, faults: dict[int, tuple[str, str]]) -> pa.Array:
    if array.type == column.type:
        return array
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
        if array.type == column.type:
            return array
    try:
        return pc.cast(array, column.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return _cast_singly(array, column, faults)


def _cast_singly(array: pa.Array, column: pa.Field, faults: dict[int, tuple[str, str]]) -> pa.Array:
    """Cast by halves down to the values that do not fit; those become null and are noted in `faults`."""
    pieces: list[pa.Array] = []
    stack = [(0, len(array))]
    while stack:
        low, high = stack.pop()
        part = array.slice(low, high - low)
        try:
            pieces.append(pc.cast(part, column.type))
            continue
        except pa.ArrowNotImplementedError:
            reason = f"column '{column.name}' holds {array.type}, which is no {type_name(column.type)}"
            for row in range(low, high):
                faults.setdefault(row, (WRONG_TYPE, reason))
            pieces.append(pa.nulls(high - low, column.type))
        except pa.ArrowInvalid:
            if high - low > 1:
                middle = (low + high) // 2
                stack.append((middle, high))
                stack.append((low, middle))
                continue
            reason = f"column '{column.name}': {part[0]} does not fit {type_name(column.type)}"
            faults.setdefault(low, (OUT_OF_RANGE, reason))
            pieces.append(pa.nulls(1, column.type))
    return pa.concat_arrays(pieces)
