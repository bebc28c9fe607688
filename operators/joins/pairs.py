"""Which columns a join keeps and sends, the condition on pairs, and the batches that come out. Keeps no rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.batch import Batch, Int64Array, concatenate
from millrace.operators.expressions.evaluate import Program, columns_of
from millrace.operators.expressions.tree import Expression, moved
from millrace.operators.functions.buffers import broadcast
from millrace.operators.functions.row_error import RowError
from millrace.operators.joins.regular_spec import RegularJoin
from millrace.operators.joins.sides import Side
from millrace.operators.operator import Context
from millrace.state.words import Int32s

BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Shape:
    """Columns of both sides: which are kept, and where each output comes from.

    `kept[port]` are input columns; `outputs` are (port, place among those kept).
    """

    kept: tuple[tuple[int, ...], tuple[int, ...]]
    schemas: tuple[pa.Schema, pa.Schema]
    outputs: tuple[tuple[int, int], ...]
    output_schema: pa.Schema

    @classmethod
    def of(cls, spec: RegularJoin) -> Shape:
        """The shape of a join."""
        width = len(spec.left)
        read = set(spec.outputs) | (set() if spec.condition is None else columns_of(spec.condition))
        left = {c for c in read if c < width} | set(spec.left_input.key or ())
        right = {c - width for c in read if c >= width} | set(spec.right_input.key or ())
        # A batch without columns has no rows either, so that one is kept of each side.
        kept = (
            tuple(sorted(left or {*spec.left_keys[:1]} or {0})),
            tuple(sorted(right or {*spec.right_keys[:1]} or {0})),
        )
        schemas = tuple(
            pa.schema([pa.field(f"c{c}", schema.field(c).type) for c in columns])
            for schema, columns in zip((spec.left, spec.right), kept, strict=True)
        )
        outputs = tuple(
            (0, kept[0].index(c)) if c < width else (1, kept[1].index(c - width)) for c in spec.outputs
        )
        return cls(kept, (schemas[0], schemas[1]), outputs, spec.output_schema)

    def stored_schema(self, port: int) -> pa.Schema:
        """The columns kept of a side."""
        return self.schemas[port]

    def place(self, port: int, column: int) -> int:
        """Where an input column is among those kept."""
        return self.kept[port].index(column)

    def stored(self, port: int, data: pa.RecordBatch) -> pa.RecordBatch:
        """The columns kept, of a batch of the input."""
        columns = data.columns
        return self.batch(port, [columns[c] for c in self.kept[port]])

    def batch(self, port: int, columns: list[pa.Array]) -> pa.RecordBatch:
        """A batch of kept columns."""
        return pa.RecordBatch.from_arrays(columns, schema=self.schemas[port])


class Emitted:
    """What one call of a join sends: rows taken back before rows that are added, so that a reader who knows
    rows by key never sees the new one followed by the old one's end."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._parts: list[Batch] = []

    def alone(self, port: int, columns: list[pa.Array], weights: Int64Array | None, sign: int) -> None:
        """Kept columns of one side, with NULL for those of the other; weights (None: all 1) times `sign`."""
        shape = self._shape
        rows = len(columns[0])
        arrays = [
            columns[place] if side == port else pa.nulls(rows, field.type)
            for (side, place), field in zip(shape.outputs, shape.output_schema, strict=True)
        ]
        signed = weights
        if sign < 0:
            signed = np.full(rows, -1, np.int64) if weights is None else -weights
        self._parts.append(Batch(pa.RecordBatch.from_arrays(arrays, schema=shape.output_schema), signed))

    def pairs(
        self,
        port: int,
        data: pa.RecordBatch,
        rows: Int32s,
        other: Side,
        entries: Int32s,
        weights: Int64Array | None,
    ) -> None:
        """Rows of `data` (kept columns of side `port`) with the other side's entries."""
        shape = self._shape
        theirs = sorted({place for side, place in shape.outputs if side != port})
        gathered = dict(zip(theirs, other.gather(entries, theirs), strict=True))
        columns = data.columns
        picked: dict[int, pa.Array] = {}
        whole = len(rows) == data.num_rows and bool((rows == np.arange(len(rows))).all())
        indices = None if whole else pa.array(rows)
        for side, place in shape.outputs:
            if side == port and place not in picked:
                picked[place] = columns[place] if indices is None else columns[place].take(indices)
        arrays = [picked[place] if side == port else gathered[place] for side, place in shape.outputs]
        self._parts.append(Batch(pa.RecordBatch.from_arrays(arrays, schema=shape.output_schema), weights))

    def batches(self) -> list[Batch]:
        """All of it, small parts put together."""
        parts = [part for part in self._parts if part.num_rows]
        if len(parts) <= 1:
            return parts
        total = sum(part.num_rows for part in parts)
        if total <= BATCH_ROWS:
            return [concatenate(parts, self._shape.output_schema)]
        return [batch for part in self.by_sign() for batch in part]

    def by_sign(self) -> tuple[list[Batch], list[Batch]]:
        """The rows taken back, and those that are added."""
        taken: list[Batch] = []
        added: list[Batch] = []
        for part in self._parts:
            negative = None if part.weights is None else part.weights < 0
            if negative is None or not negative.any():
                added.append(part)
            elif negative.all():
                taken.append(part)
            else:
                taken.append(part.take(np.flatnonzero(negative)))
                added.append(part.take(np.flatnonzero(~negative)))
        return _merged(taken), _merged(added)


def _merged(parts: list[Batch]) -> list[Batch]:
    """Neighbours put together up to `BATCH_ROWS` rows."""
    merged: list[Batch] = []
    group: list[Batch] = []
    rows = 0
    for part in parts:
        if group and rows + part.num_rows > BATCH_ROWS:
            merged.append(concatenate(group, group[0].schema))
            group, rows = [], 0
        if part.num_rows:
            group.append(part)
            rows += part.num_rows
    if group:
        merged.append(concatenate(group, group[0].schema))
    return merged


class PairFilter:
    """A condition over pairs of rows, reading only the columns it needs."""

    def __init__(
        self, condition: Expression, reads: tuple[list[int], list[int]], schema: pa.Schema, context: Context
    ) -> None:
        self._reads = reads
        self._schema = schema
        self._context = context
        self._program = Program([condition], schema, context.now)
        self._evaluate = self._program.evaluators[0]

    @classmethod
    def of(cls, spec: RegularJoin, shape: Shape, context: Context) -> PairFilter | None:
        """The filter of a join, if it has a condition."""
        if spec.condition is None:
            return None
        width = len(spec.left)
        read = sorted(columns_of(spec.condition))
        both = [*spec.left, *spec.right]
        places = {c: at for at, c in enumerate(read)}
        reads = (
            [shape.place(0, c) for c in read if c < width],
            [shape.place(1, c - width) for c in read if c >= width],
        )
        schema = pa.schema([both[c] for c in read])
        return cls(moved(spec.condition, places), reads, schema, context)

    def matching(
        self, port: int, data: pa.RecordBatch, rows: Int32s, other: Side, entries: Int32s
    ) -> npt.NDArray[np.int64]:
        """Which of the pairs (row of `data`, entry) fulfil it. Pairs without a value go to the dead letters."""
        indices = pa.array(rows)
        own = [data.column(place).take(indices) for place in self._reads[port]]
        theirs = other.gather(entries, self._reads[1 - port])
        columns = [*theirs, *own] if port else [*own, *theirs]
        batch = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        places = np.arange(len(rows))
        while len(places):
            try:
                mask = broadcast(self._evaluate(self._program.frame(batch)), batch.num_rows)
            except RowError as error:
                marked = np.flatnonzero(error.rows)
                self._context.dead_letter(Batch(batch.take(pa.array(marked))), error.code, error.reason)
                kept = np.flatnonzero(~error.rows)
                batch, places = batch.take(pa.array(kept)), places[kept]
                continue
            return places[np.asarray(mask.fill_null(False))]
        return places
