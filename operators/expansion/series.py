"""generate_series and range: numbers or times from one bound to another. Makes them for a whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.batch import Int64Array
from millrace.operators.expansion.functions import Body, Chosen, Fields, Made, Types, define
from millrace.operators.functions import types as sql
from millrace.operators.functions.row_error import OUT_OF_DOMAIN, OVERFLOW, RowError
from millrace.operators.over.ticks import Ticks

LONGEST = 10_000_000
"""How many rows one row may become."""


def _choose(name: str, types: Sequence[pa.DataType], literals: Sequence[bool]) -> Chosen | None:
    if not 1 + (name == "generate_series") <= len(types) <= 3:
        return None
    if all(sql.is_integer(t) or t == sql.NULL for t in types):
        return (sql.BIGINT,) * len(types), (pa.field(name, sql.BIGINT),)
    times = types[:2]
    kind = sql.common_type(list(times), list(literals[:2]))
    if kind is None or len(types) != 3 or types[2] != sql.INTERVAL:
        return None
    if pa.types.is_date(kind):
        kind = pa.timestamp("us")
    if not pa.types.is_timestamp(kind):
        return None
    return (kind, kind, sql.INTERVAL), (pa.field(name, kind),)


def _build(name: str, types: Types, fields: Fields) -> Body:
    kind = fields[0].type
    ticks = None if sql.is_integer(kind) else Ticks.of(kind, "us")
    open_end = int(name == "range")

    def body(values: Sequence[pa.Array], rows: int) -> Made:
        present = np.ones(rows, np.bool_)
        for value in values:
            if value.null_count:
                present &= np.asarray(value.is_valid())
        known = [pc.fill_null(v, pa.scalar(0).cast(v.type)) if v.null_count else v for v in values]
        if ticks is not None:
            bounds = [ticks.read(v) for v in known[:2]]
            step = np.asarray(known[2].cast(pa.int64())) * ticks.per_us
        else:
            numbers = [np.asarray(v) for v in known]
            bounds = numbers[:2] if len(numbers) > 1 else [np.zeros(rows, np.int64), numbers[0]]
            step = numbers[2] if len(numbers) == 3 else np.ones(rows, np.int64)
        values_of, counts = _series(bounds[0], bounds[1], step, present, open_end)
        return Made([pa.array(values_of) if ticks is None else ticks.write(values_of)], counts)

    return body


def _series(
    first: Int64Array,
    last: Int64Array,
    step: Int64Array,
    present: npt.NDArray[np.bool_],
    open_end: int,
) -> tuple[Int64Array, Int64Array]:
    """All values, and how many each row has. Raises RowError for steps of 0 and for series longer than LONGEST."""
    still = present & (step == 0)
    if still.any():
        raise RowError(OUT_OF_DOMAIN, "generate_series: the step is 0", still)
    safe = np.where(step == 0, 1, step)
    # In floating point first: the distance of two 64-bit numbers may need 65 bits.
    wide = (last.astype(np.float64) - first.astype(np.float64)) / safe
    long = present & (wide >= LONGEST)
    if long.any():
        raise RowError(OVERFLOW, f"generate_series: more than {LONGEST} rows of one", long)
    there = present & (wide > -1)
    distance = np.where(there, last, 0) - np.where(there, first, 0)
    counts = np.where(there, (distance - open_end * np.sign(safe)) // safe + 1, 0)
    counts = np.maximum(counts, 0)
    parents = np.repeat(np.arange(len(counts)), counts)
    ordinals = np.arange(len(parents)) - np.repeat(np.cumsum(counts) - counts, counts)
    return first[parents] + ordinals * step[parents], counts


for _name, _forms, _text in (
    (
        "generate_series",
        "generate_series(BIGINT, BIGINT [, BIGINT]); generate_series(TIMESTAMP, TIMESTAMP, INTERVAL)",
        "the numbers or times from the first to the second, that one included",
    ),
    (
        "range",
        "range([BIGINT,] BIGINT [, BIGINT]); range(TIMESTAMP, TIMESTAMP, INTERVAL)",
        "the same without the end",
    ),
):
    define(_name, _forms, _text, partial(_choose, _name))(partial(_build, _name))
