"""The state of a join's side as a table, and back. Knows neither kinds of joins nor conditions.

Columns: k0 … the join key, c… the kept columns, `_row` (int64) which identifies a row, `_count` (int64, how often
it is there), `_touched` (int64 µs, when its key was last touched; 0 without a time to live) and `_vnode`.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from millrace.operators.joins.sides import Side
from millrace.operators.operator import VNODE, StateDelta
from millrace.state.columns import SlotColumn
from millrace.state.hashing import vnodes_of
from millrace.state.key_index import KeyIndex

ROW = "_row"
COUNT = "_count"
TOUCHED = "_touched"


def capture_side(
    side: Side, index: KeyIndex, mark: int | None, touched: SlotColumn | None, vnodes: int
) -> StateDelta:
    """All rows, or with `mark` those with numbers from there on and which older ones are gone."""
    entries = side.links.live()
    numbers = side.numbers_of(entries)
    deleted = None
    if mark is not None:
        recent = numbers >= mark
        entries, numbers = entries[recent], numbers[recent]
        deleted = _deleted(side, mark)
    side.forgotten = []
    side.vnodes_of = lambda slots: vnodes_of(index.hashes(slots), vnodes)
    slots = side.links.owners(entries)
    counts = side.counts(entries)
    times = np.zeros(len(slots), np.int64) if touched is None else touched.values[slots]
    columns = [
        *index.keys(slots),
        *side.gather(entries, range(len(side.schema))),
        pa.array(numbers),
        pa.array(np.ones(len(slots), np.int64) if counts is None else counts),
        pa.array(times),
        pa.array(vnodes_of(index.hashes(slots), vnodes)),
    ]
    keys = [f"k{i}" for i in range(len(index.types))]
    names = [*keys, *side.schema.names, ROW, COUNT, TOUCHED, VNODE]
    return StateDelta((ROW,), pa.RecordBatch.from_arrays(columns, names), deleted, mark is None)


def restore_side(side: Side, index: KeyIndex, table: pa.RecordBatch, touched: SlotColumn | None) -> None:
    """Load a table that `capture_side` made into an empty side."""
    order = np.argsort(np.asarray(table.column(ROW)), kind="stable")
    table = table.take(pa.array(order))
    rows = table.num_rows
    if not rows:
        return
    keys = [table.column(f"k{i}") for i in range(len(index.types))]
    slots = index.upsert(keys, rows).slots
    if touched is not None:
        touched.grow(index.high)
        np.maximum.at(touched.values, slots, np.asarray(table.column(TOUCHED)))
    data = table.select(side.schema.names)
    counts = np.asarray(table.column(COUNT))
    side.absorb(data, slots, None if (counts == 1).all() else counts)


def _deleted(side: Side, mark: int) -> pa.RecordBatch | None:
    numbers = np.concatenate([np.empty(0, np.int64), *(n for n, _ in side.forgotten)])
    nodes = np.concatenate([np.empty(0, np.uint16), *(v for _, v in side.forgotten)])
    known = numbers < mark
    if not known.any():
        return None
    return pa.RecordBatch.from_arrays([pa.array(numbers[known]), pa.array(nodes[known])], [ROW, VNODE])
