"""Rows that wait for their time: in as they come, out in order of time. Knows no clock."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from millrace.operators.batch import END_OF_TIME, Int64Array
from millrace.operators.operator import VNODE, StateDelta
from millrace.state.hashing import hash_columns, vnodes_of
from millrace.state.row_store import RowStore

_RUNS_MAX = 8


@dataclass(slots=True)
class _Run:
    """Ascending ticks with the row of each; those before `start` are gone."""

    ticks: Int64Array
    rows: Int64Array
    start: int = 0


class HeldRows:
    """Owns rows of one schema, each due at a tick. Rows of equal tick come out in the order they came in."""

    def __init__(self, schema: pa.Schema, keys: tuple[int, ...], vnodes: int) -> None:
        self._schema = schema
        self._keys = keys
        self._vnodes = vnodes
        self._store = RowStore(schema)
        self._runs: list[_Run] = []
        self._mark: int | None = None
        self._gone: list[tuple[Int64Array, pa.RecordBatch]] = []

    def __len__(self) -> int:
        return len(self._store)

    @property
    def earliest(self) -> int:
        """The least tick held; END_OF_TIME where no row is."""
        return min((int(run.ticks[run.start]) for run in self._runs), default=END_OF_TIME)

    @property
    def latest(self) -> int:
        """The greatest tick held; far in the past where no row is."""
        return max((int(run.ticks[-1]) for run in self._runs), default=-(2**62))

    def add(self, data: pa.RecordBatch, ticks: Int64Array) -> None:
        """Hold rows until their ticks."""
        if not len(ticks):
            return
        rows = self._store.append(data)
        if len(ticks) > 1 and (ticks[1:] < ticks[:-1]).any():
            order = np.argsort(ticks, kind="stable")
            ticks, rows = ticks[order], rows[order]
        last = self._runs[-1] if self._runs else None
        if last is not None and len(last.ticks) - last.start < 4096 and last.ticks[-1] <= ticks[0]:
            last.ticks = np.concatenate([last.ticks[last.start :], ticks])
            last.rows = np.concatenate([last.rows[last.start :], rows])
            last.start = 0
        else:
            self._runs.append(_Run(np.array(ticks), rows))
        if len(self._runs) > _RUNS_MAX:
            self._runs = [_Run(*self._merged(self._runs, [len(run.ticks) for run in self._runs]))]

    def pop(self, below: int) -> tuple[pa.RecordBatch, Int64Array] | None:
        """The rows with ticks below a tick (END_OF_TIME: all), in order, with their ticks; None where there are none."""
        if below == END_OF_TIME:
            ends = [len(run.ticks) for run in self._runs]
        else:
            ends = [int(np.searchsorted(run.ticks, below)) for run in self._runs]
        due = [(run, end) for run, end in zip(self._runs, ends, strict=True) if end > run.start]
        if not due:
            return None
        ticks, rows = self._merged([run for run, _ in due], [end for _, end in due])
        for run, end in due:
            run.start = end
        self._runs = [run for run in self._runs if run.start < len(run.ticks)]
        data = self._store.gather(rows)
        if self._mark is not None:
            told = rows < self._mark
            if told.any():
                picked = data.filter(pa.array(told)) if not told.all() else data
                self._gone.append((rows[told], picked.select([self._schema.names[k] for k in self._keys])))
        self._store.remove(rows)
        return data, ticks

    def capture(self, *, changes: bool) -> StateDelta:
        """Table of `c0` … (the rows), `_tick`, `_row`, and the vnode of the key."""
        complete = not changes or self._mark is None
        rows = self._store.live() if complete else self._store.rows_since(self._mark or 0)
        ticks, numbers = self._merged(self._runs, [len(run.ticks) for run in self._runs])
        order = np.argsort(numbers)
        ticks = ticks[order][np.searchsorted(numbers[order], rows)]
        data = self._store.gather(rows)
        columns = {f"c{i}": column for i, column in enumerate(data.columns)}
        columns["_tick"] = pa.array(ticks)
        columns["_row"] = pa.array(rows)
        columns[VNODE] = pa.array(self._vnodes_of(data.select(self._keys), data.num_rows))
        deleted = None
        if not complete:
            gone = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in self._gone)])
            parts = [self._vnodes_of(keys, keys.num_rows) for _, keys in self._gone]
            vnodes = np.concatenate([np.empty(0, np.uint16), *parts])
            deleted = pa.record_batch({"_row": pa.array(gone), VNODE: pa.array(vnodes)})
        self._mark = self._store.next_row
        self._gone = []
        return StateDelta(("_row",), pa.record_batch(columns), deleted, complete)

    def restore(self, table: pa.RecordBatch) -> None:
        """The inverse of `capture`; rows of equal tick keep their order."""
        order = pa.array(np.argsort(table.column("_row").to_numpy(), kind="stable"))
        table = table.take(order)
        width = len(self._schema)
        data = pa.RecordBatch.from_arrays(table.columns[:width], schema=self._schema)
        self.add(data, np.array(table.column("_tick").to_numpy()))

    def _vnodes_of(self, keys: pa.RecordBatch, rows: int) -> Int64Array:
        return vnodes_of(hash_columns(keys.columns, rows), self._vnodes)  # type: ignore[return-value]

    def _merged(self, runs: list[_Run], ends: list[int]) -> tuple[Int64Array, Int64Array]:
        """Ticks and rows of several runs from their starts to `ends`, in order."""
        if len(runs) == 1:
            part = slice(runs[0].start, ends[0])
            return runs[0].ticks[part], runs[0].rows[part]
        parts = [
            (run.ticks[run.start : end], run.rows[run.start : end])
            for run, end in zip(runs, ends, strict=True)
        ]
        ticks = np.concatenate([np.empty(0, np.int64), *(part[0] for part in parts)])
        rows = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
        order = np.lexsort((rows, ticks))
        return ticks[order], rows[order]
