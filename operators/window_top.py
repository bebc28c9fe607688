"""The first rows of every window in an order: top-N and ranks where windows close. Knows no SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.aggregates.columns import int64_of
from millrace.operators.aggregates.times import microseconds
from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Batch, Int64Array
from millrace.operators.materialize import with_vnodes
from millrace.operators.operator import Capture, Context, Operator, StateDelta
from millrace.operators.spec import OperatorSpec
from millrace.state.hashing import hash_columns

ARRIVAL = "_arrival"
"""Name of the state column that numbers rows as they came."""


@dataclass(frozen=True, slots=True)
class WindowTop(OperatorSpec):
    """The rows of an append-only input whose place in their partition is above `offset` and at most `offset + limit`.

    `partition` are columns, `window_end` (a timestamp, or an integer of `time_unit`s) among them: rows are held until
    the watermark reaches it, then sent at once, append-only. `order` holds (column, descending, nulls first); ties
    are by arrival for `function` row_number, and count as rank or dense_rank say. `limit` None keeps all. The output
    has the input's columns and, with `rank_name`, the place as a BIGINT.
    """

    title: ClassVar[str] = "WindowTop"

    input: pa.Schema
    partition: tuple[int, ...]
    window_end: int
    order: tuple[tuple[int, bool, bool], ...]
    limit: int | None
    offset: int = 0
    function: str = "row_number"
    rank_name: str | None = None
    time_unit: str = "ms"

    def __post_init__(self) -> None:
        assert self.window_end in self.partition
        assert self.function in ("row_number", "rank", "dense_rank"), self.function

    @property
    def output_schema(self) -> pa.Schema:
        rank = [] if self.rank_name is None else [pa.field(self.rank_name, pa.int64())]
        return pa.schema([*self.input, *rank])

    def build(self, context: Context) -> Operator:
        return WindowTopOperator(self, context)

    def details(self) -> dict[str, str]:
        names = self.input.names
        order = ", ".join(names[at] + (" DESC" if descending else "") for at, descending, _ in self.order)
        return {
            "partition": ", ".join(names[p] for p in self.partition),
            "order": order or "arrival",
            "places": f"{self.offset + 1} to {'the last' if self.limit is None else self.offset + self.limit}"
            f" by {self.function}",
            "emit": f"when the watermark reaches {names[self.window_end]}",
        }


class WindowTopOperator(Operator):
    """Holds the rows of open windows as batches; sorts each window once, when it closes."""

    def __init__(self, spec: WindowTop, context: Context) -> None:
        self._spec = spec
        self._context = context
        self._schema = spec.output_schema
        self._waiting: list[pa.RecordBatch] = []
        self._watermark = START_OF_TIME
        self._first_arrival = 0

    def process(self, port: int, batch: Batch) -> list[Batch]:
        assert batch.weights is None or bool((batch.weights > 0).all()), (
            "an append-only input takes nothing back"
        )
        late = self._ends(batch.data) <= self._watermark
        if late.any():
            self._context.late(batch.take(np.flatnonzero(late)))
            batch = batch.take(np.flatnonzero(~late))
        if batch.num_rows:
            self._waiting.append(batch.data)
        return []

    def on_watermark(self, watermark: int) -> list[Batch]:
        self._watermark = watermark
        if not self._waiting:
            return []
        rows = _one(self._waiting)
        if watermark < END_OF_TIME:
            closed = self._ends(rows) <= watermark
            if not closed.any():
                self._waiting = [rows]
                return []
            self._waiting = [] if closed.all() else [rows.filter(pa.array(~closed))]
            rows = rows if closed.all() else rows.filter(pa.array(closed))
        else:
            self._waiting = []
        top = self._top(rows)
        return [Batch(top)] if top.num_rows else []

    def capture(self, *, changes: bool) -> Capture:
        """All rows of open windows: few, and gone with the next window."""
        rows = (
            _one(self._waiting) if self._waiting else pa.RecordBatch.from_pylist([], schema=self._spec.input)
        )
        partition = [rows.column(p) for p in self._spec.partition]
        numbered = rows.append_column(ARRIVAL, pa.array(np.arange(rows.num_rows, dtype=np.int64)))
        hashes = hash_columns(partition, rows.num_rows)
        return {"rows": StateDelta((ARRIVAL,), with_vnodes(numbered, hashes, self._context.vnodes))}

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        rows = tables.get("rows")
        if rows is None or not rows.num_rows:
            return
        # Numbers repeat where several former partitions are put together; within each they keep the order.
        rows = rows.take(pc.sort_indices(rows.column(ARRIVAL)))
        self._waiting = [rows.select(self._spec.input.names)]

    def _ends(self, rows: pa.RecordBatch) -> Int64Array:
        column = rows.column(self._spec.window_end)
        ends = microseconds(column, self._spec.time_unit)
        return np.where(np.asarray(column.is_null()), END_OF_TIME, ends) if column.null_count else ends

    def _top(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        spec = self._spec
        groups = _codes([rows.column(p) for p in spec.partition])
        if spec.limit == 1 and not spec.offset and spec.order:
            leading = self._leading(rows, groups)
            if leading is not None:
                rows, groups = rows.take(pa.array(leading)), groups[leading]
        order, ties = self._sorted(rows, groups)
        places = _places(groups[order], ties, spec.function)
        keep = places > spec.offset
        if spec.limit is not None:
            keep &= places <= spec.offset + spec.limit
        chosen = rows.take(pa.array(order[keep]))
        columns = chosen.columns if spec.rank_name is None else [*chosen.columns, pa.array(places[keep])]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _leading(self, rows: pa.RecordBatch, groups: Int64Array) -> Int64Array | None:
        """Rows that are best by the first sort key, where that is an easy one: nothing else can be first."""
        at, descending, _ = self._spec.order[0]
        column = rows.column(at)
        if column.null_count or not (pa.types.is_integer(column.type) or pa.types.is_timestamp(column.type)):
            return None
        values = int64_of(column)
        best = np.full(int(groups.max()) + 1, START_OF_TIME if descending else END_OF_TIME, np.int64)
        (np.maximum if descending else np.minimum).at(best, groups, values)
        return np.flatnonzero(values == best[groups])

    def _sorted(self, rows: pa.RecordBatch, groups: Int64Array) -> tuple[Int64Array, npt.NDArray[np.bool_]]:
        """Positions sorted by group and order (stable), and for each whether it ties with the one before."""
        columns: dict[str, pa.Array] = {"group": pa.array(groups)}
        keys = [("group", "ascending")]
        for number, (at, descending, nulls_first) in enumerate(self._spec.order):
            column = rows.column(at)
            if column.null_count:
                columns[f"null{number}"] = column.is_null().cast(pa.int8())
                keys.append((f"null{number}", "descending" if nulls_first else "ascending"))
            columns[f"key{number}"] = column
            keys.append((f"key{number}", "descending" if descending else "ascending"))
        table = pa.table(columns)
        order = np.asarray(pc.sort_indices(table, sort_keys=keys)).astype(np.int64)
        ties = np.ones(len(order), np.bool_)
        for name, column in columns.items():
            if name == "group" or not len(order):
                continue
            same = _codes([column])[order]
            ties[1:] &= same[1:] == same[:-1]
        if len(order):
            sorted_groups = groups[order]
            ties[0] = False
            ties[1:] &= sorted_groups[1:] == sorted_groups[:-1]
        return order, ties


def _one(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def _codes(columns: list[pa.Array]) -> Int64Array:
    """A number for each row, equal for rows that are equal in all columns; dense from 0."""
    codes: Int64Array | None = None
    for column in columns:
        encoded = column.dictionary_encode(null_encoding="encode")
        own = np.asarray(encoded.indices).astype(np.int64)
        if codes is None:
            codes = own
            continue
        codes = np.unique(codes * max(1, len(encoded.dictionary)) + own, return_inverse=True)[1].astype(
            np.int64
        )
    assert codes is not None
    return codes


def _places(groups: Int64Array, ties: npt.NDArray[np.bool_], function: str) -> Int64Array:
    """The place of each row in its group; rows are sorted, `ties` marks those equal to the one before."""
    rows = len(groups)
    positions = np.arange(rows, dtype=np.int64)
    fresh = np.ones(rows, np.bool_)
    fresh[1:] = groups[1:] != groups[:-1]
    starts = np.maximum.accumulate(np.where(fresh, positions, 0))
    if function == "row_number":
        return positions - starts + 1
    if function == "rank":
        return np.maximum.accumulate(np.where(~ties, positions, 0)) - starts + 1
    distinct: Int64Array = np.cumsum(~ties, dtype=np.int64)
    return np.asarray(distinct - distinct[starts] + 1, np.int64)
