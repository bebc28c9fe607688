"""What UPDATE and DELETE send into a table: rows that go, rows that come. Finds none of them itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from millrace.errors import Invalid
from millrace.persistence import Pushed
from millrace.planner.catalog import Entry


def row_change(rows: pa.Table, target: Entry, key: Sequence[int], held: Callable[[], pa.Table]) -> Pushed:
    """The change of `target` that `rows` ask for: its columns as they are and, for UPDATE, as they will be.

    `held` gives all rows of the table. Raises Invalid MR1119 for NULL where there can be none, MR1146 where two rows
    would have one key.
    """
    assert target.schema is not None
    schema = target.schema
    width = len(schema)
    if not rows.num_rows:
        return Pushed([], [])
    old = _batch(rows.columns[:width], schema)
    if rows.num_columns == width:
        return Pushed([old], [], taken=1)
    new = _batch(rows.columns[width:], schema)
    for field, column in zip(schema, new.columns, strict=True):
        if not field.nullable and column.null_count:
            raise Invalid(f"column {field.name} can not be NULL", code="MR1119", hint="set another value")
    if all(old.column(k).equals(new.column(k)) for k in key):
        return Pushed([new], [])
    names = [schema.names[k] for k in key]
    parts = [(held(), 1), (pa.Table.from_batches([old]), -1), (pa.Table.from_batches([new]), 1)]
    signed = pa.concat_tables(
        pa.table([*part.select(names).columns, pa.repeat(sign, part.num_rows)], [*names, "_sign"])
        for part, sign in parts
    )
    counts = signed.group_by(names).aggregate([("_sign", "sum")])
    twice = counts.filter(pc.greater(counts.column("_sign_sum"), 1)).slice(0, 1).select(names).to_pylist()
    if twice:
        text = ", ".join(f"{name} = {value!r}" for name, value in twice[0].items())
        raise Invalid(
            f"two rows of {target.name} would have the key {text}, so none was changed",
            code="MR1146",
            hint="give each row a key of its own",
        )
    return Pushed([old, new], [], taken=1)


def _batch(columns: Sequence[pa.ChunkedArray], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([_whole(column) for column in columns], schema=schema)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole.combine_chunks() if isinstance(whole, pa.ChunkedArray) else whole
