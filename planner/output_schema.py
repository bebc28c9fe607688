"""Schemas and changelog modes of what logical nodes send, from their parts. Knows no node."""

from __future__ import annotations

import pyarrow as pa

from millrace.operators.aggregates.calls import AggregateCall, Emission
from millrace.operators.sink import Changelog

Places = tuple[int, ...]


def schema_with_calls(
    below: pa.Schema, calls: tuple[AggregateCall, ...], names: tuple[str, ...]
) -> pa.Schema:
    """The columns of a relation with those of calls behind them."""
    return pa.schema([*below, *(pa.field(n, c.type) for n, c in zip(names, calls, strict=True))])


def emitted_mode(emission: Emission, allowed_lateness: int) -> Changelog:
    """The changelog mode of what an aggregate sends."""
    if emission.appends and not allowed_lateness:
        return Changelog.APPEND
    return Changelog.UPSERT if emission.upsert else Changelog.RETRACT


def bound_type(schema: pa.Schema, time: int | None) -> pa.DataType:
    """The type of window bounds: the time column's, timestamp[ms, UTC] for processing time."""
    return pa.timestamp("ms", "UTC") if time is None else schema.field(time).type


def grouped_schema(
    below: pa.Schema,
    keys: Places,
    bounds: tuple[pa.DataType, ...],
    calls: tuple[AggregateCall, ...],
    names: tuple[str, ...],
) -> pa.Schema:
    """Columns of an aggregate's output: keys, window bounds, calls."""
    types = [*bounds, *(call.type for call in calls)]
    fields = [below.field(k).with_name(n) for k, n in zip(keys, names, strict=False)]
    fields += [pa.field(n, t) for n, t in zip(names[len(keys) :], types, strict=True)]
    return pa.schema(fields)


def place_of(columns: Places, column: int | None) -> int | None:
    """Where a column is among `columns`, if it is."""
    return columns.index(column) if column is not None and column in columns else None


def places_of(columns: Places, wanted: Places | None) -> Places | None:
    """Where all these columns are among `columns`, if they are."""
    if wanted is None or any(c not in columns for c in wanted):
        return None
    return tuple(columns.index(c) for c in wanted)
