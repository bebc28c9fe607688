"""Output rows of joins on time: pairs, rows alone, and the condition on pairs. Knows no time and keeps no rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from millrace.operators.batch import Batch, Int64Array
from millrace.operators.expressions.evaluate import Program, columns_of
from millrace.operators.expressions.tree import Expression, moved
from millrace.operators.functions.buffers import broadcast
from millrace.operators.functions.row_error import RowError
from millrace.operators.operator import Context
from millrace.state.row_store import RowStore


@dataclass(frozen=True, slots=True)
class PairShape:
    """Where output columns come from: `outputs` are (port, place among the columns kept of that side).

    `kept[port]` are positions in the input of that port; `stored[port]` is their schema as state keeps them.
    """

    kept: tuple[tuple[int, ...], tuple[int, ...]]
    stored: tuple[pa.Schema, pa.Schema]
    outputs: tuple[tuple[int, int], ...]
    schema: pa.Schema

    @classmethod
    def of(
        cls,
        inputs: tuple[pa.Schema, pa.Schema],
        outputs: tuple[int, ...],
        condition: Expression | None,
        schema: pa.Schema,
        also: frozenset[int] = frozenset(),
    ) -> PairShape:
        """The shape for `outputs`, positions in the columns of both sides; what a condition reads is kept, and `also`."""
        width = len(inputs[0])
        read = set(outputs) | also | (set() if condition is None else columns_of(condition))
        kept = (
            tuple(sorted(c for c in read if c < width)) or (0,),
            tuple(sorted(c - width for c in read if c >= width)) or (0,),
        )
        stored = tuple(
            pa.schema([pa.field(f"c{c}", side.field(c).type) for c in columns])
            for side, columns in zip(inputs, kept, strict=True)
        )
        places = tuple((0, kept[0].index(c)) if c < width else (1, kept[1].index(c - width)) for c in outputs)
        return cls(kept, (stored[0], stored[1]), places, schema)

    def keep(self, port: int, data: pa.RecordBatch) -> pa.RecordBatch:
        """The columns kept of an input batch, with the names they have in state."""
        columns = data.columns
        arrays = [columns[c] for c in self.kept[port]]
        return pa.RecordBatch.from_arrays(arrays, schema=self.stored[port])

    def alone(self, port: int, rows: pa.RecordBatch) -> Batch:
        """Kept rows of one side with NULL for the columns of the other."""
        arrays = [
            rows.column(place) if side == port else pa.nulls(rows.num_rows, field.type)
            for (side, place), field in zip(self.outputs, self.schema, strict=True)
        ]
        return Batch(pa.RecordBatch.from_arrays(arrays, schema=self.schema))

    def pairs(
        self, port: int, rows: pa.RecordBatch, picked: Int64Array, store: RowStore, numbers: Int64Array
    ) -> Batch:
        """Kept rows of side `port` at `picked`, each beside the other side's stored row."""
        mine = sorted({place for side, place in self.outputs if side == port})
        theirs = sorted({place for side, place in self.outputs if side != port})
        names = [self.stored[1 - port].names[place] for place in theirs]
        found = dict(zip(theirs, store.gather(numbers, names).columns, strict=True)) if theirs else {}
        if len(picked) == rows.num_rows and bool((picked == np.arange(len(picked))).all()):
            own = {place: rows.column(place) for place in mine}
        else:
            indices = pa.array(picked)
            own = {place: rows.column(place).take(indices) for place in mine}
        arrays = [own[place] if side == port else found[place] for side, place in self.outputs]
        return Batch(pa.RecordBatch.from_arrays(arrays, schema=self.schema))


class PairCondition:
    """What else must hold of a pair, beyond keys and times; reads only the columns it needs."""

    def __init__(
        self, condition: Expression, inputs: tuple[pa.Schema, pa.Schema], shape: PairShape, context: Context
    ) -> None:
        width = len(inputs[0])
        read = sorted(columns_of(condition))
        both = [*inputs[0], *inputs[1]]
        self._context = context
        self._places = (
            [shape.kept[0].index(c) for c in read if c < width],
            [shape.kept[1].index(c - width) for c in read if c >= width],
        )
        self._names = [[shape.stored[p].names[at] for at in self._places[p]] for p in (0, 1)]
        self._schema = pa.schema([pa.field(both[c].name, both[c].type) for c in read])
        self._program = Program(
            [moved(condition, {c: at for at, c in enumerate(read)})], self._schema, context.now
        )

    def holding(
        self, port: int, rows: pa.RecordBatch, picked: Int64Array, store: RowStore, numbers: Int64Array
    ) -> Int64Array:
        """Which pairs fulfil it, by position. Pairs for which it has no value go to the dead letters."""
        indices = pa.array(picked)
        own = [rows.column(place).take(indices) for place in self._places[port]]
        names = self._names[1 - port]
        theirs = store.gather(numbers, names).columns if names else []
        columns = [*own, *theirs] if port == 0 else [*theirs, *own]
        if not columns:
            columns, schema = [pa.nulls(len(picked))], pa.schema([pa.field("_", pa.null())])
        else:
            schema = self._schema
        batch = pa.RecordBatch.from_arrays(columns, schema=schema)
        places: Int64Array = np.arange(len(picked))
        while len(places):
            try:
                value = broadcast(self._program.evaluators[0](self._program.frame(batch)), batch.num_rows)
            except RowError as error:
                bad = np.flatnonzero(error.rows)
                self._context.dead_letter(Batch(batch.take(pa.array(bad))), error.code, error.reason)
                good = np.flatnonzero(~error.rows)
                batch, places = batch.take(pa.array(good)), places[good]
                continue
            return places[np.asarray(value.fill_null(False))]
        return places
