"""Rows that wait for their time: in as they come, out in order of time. Knows no clock."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.batch import END_OF_TIME, Int64Array
from millrace.operators.operator import VNODE, StateDelta
from millrace.state.hashing import hash_columns, vnodes_of

_RUNS_MAX = 8


@dataclass(slots=True)
class _Run:
    """Rows by ascending tick, with the number of each; those before `start` are gone."""

    data: pa.RecordBatch
    ticks: Int64Array
    rows: Int64Array
    start: int = 0

    def __len__(self) -> int:
        return len(self.ticks) - self.start

    @property
    def nbytes(self) -> int:
        return int(self.data.get_total_buffer_size()) + self.ticks.nbytes + self.rows.nbytes

    def part(self, end: int) -> _Run:
        """What is left of it up to `end`."""
        start = self.start
        return _Run(self.data.slice(start, end - start), self.ticks[start:end], self.rows[start:end])


class HeldRows:
    """Owns rows of one schema, each due at a tick. Rows of equal tick come out in the order they came in.

    Rows lie in runs; a run that came in order and is popped alone is never copied.
    """

    def __init__(self, schema: pa.Schema, keys: tuple[int, ...], vnodes: int) -> None:
        self._schema = schema
        self._keys = keys
        self._vnodes = vnodes
        self._runs: list[_Run] = []
        self._next = 0
        self._mark: int | None = None
        self._gone: list[tuple[Int64Array, npt.NDArray[np.uint16]]] = []

    def __len__(self) -> int:
        return sum(len(run) for run in self._runs)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(run.nbytes for run in self._runs)

    @property
    def earliest(self) -> int:
        """The least tick held; END_OF_TIME where no row is."""
        return min((int(run.ticks[run.start]) for run in self._runs), default=END_OF_TIME)

    @property
    def latest(self) -> int:
        """The greatest tick held; far in the past where no row is."""
        return max((int(run.ticks[-1]) for run in self._runs), default=-(2**62))

    def batches(self) -> list[pa.RecordBatch]:
        """All rows held."""
        return [run.part(len(run.ticks)).data for run in self._runs if len(run)]

    def add(self, data: pa.RecordBatch, ticks: Int64Array) -> None:
        """Hold rows until their ticks."""
        count = len(ticks)
        if not count:
            return
        if count > 1 and (ticks[1:] < ticks[:-1]).any():
            order = np.argsort(ticks, kind="stable")
            data, ticks = data.take(pa.array(order)), ticks[order]
        rows = np.arange(self._next, self._next + count)
        self._next += count
        self._runs.append(_Run(data, ticks, rows))
        if len(self._runs) > _RUNS_MAX:
            self._tidy()

    def pop(self, below: int) -> tuple[pa.RecordBatch, Int64Array] | None:
        """The rows with ticks below a tick (END_OF_TIME: all), in order, with their ticks; None where there
        are none."""
        due: list[_Run] = []
        for run in self._runs:
            end = len(run.ticks) if below == END_OF_TIME else int(np.searchsorted(run.ticks, below))
            if end > run.start:
                due.append(run.part(end))
                run.start = end
        if not due:
            return None
        popped = _merged(due)
        self._runs = [run for run in self._runs if len(run)]
        for run in self._runs:
            if run.start > 2 * len(run):  # let go of the buffers behind the few rows left
                left = run.part(len(run.ticks))
                run.data = left.data.take(pa.array(np.arange(len(left))))
                run.ticks, run.rows, run.start = left.ticks.copy(), left.rows.copy(), 0
        if self._mark is not None:
            told = popped.rows < self._mark
            if told.any():
                self._gone.append((popped.rows[told], self._vnodes_of(popped.data.filter(pa.array(told)))))
        return popped.data, popped.ticks

    def capture(self, *, changes: bool) -> StateDelta:
        """Table of `c0` … (the rows), `_tick`, `_row`, and the vnode of the key."""
        complete = not changes or self._mark is None
        parts = [run.part(len(run.ticks)) for run in self._runs]
        whole = _merged(parts) if parts else _nothing(self._schema)
        fresh = np.flatnonzero(whole.rows >= (0 if complete else self._mark or 0))
        data = whole.data.take(pa.array(fresh))
        columns = {f"c{i}": column for i, column in enumerate(data.columns)}
        columns["_tick"] = pa.array(whole.ticks[fresh])
        columns["_row"] = pa.array(whole.rows[fresh])
        columns[VNODE] = pa.array(self._vnodes_of(data))
        deleted = None
        if not complete:
            gone = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in self._gone)])
            vnodes = np.concatenate([np.empty(0, np.uint16), *(vnodes for _, vnodes in self._gone)])
            deleted = pa.record_batch({"_row": pa.array(gone), VNODE: pa.array(vnodes)})
        self._mark = self._next
        self._gone = []
        return StateDelta(("_row",), pa.record_batch(columns), deleted, complete)

    def restore(self, table: pa.RecordBatch) -> None:
        """The inverse of `capture`; rows of equal tick keep their order."""
        order = pa.array(np.argsort(table.column("_row").to_numpy(), kind="stable"))
        table = table.take(order)
        width = len(self._schema)
        data = pa.RecordBatch.from_arrays(table.columns[:width], schema=self._schema)
        self.add(data, np.array(table.column("_tick").to_numpy()))

    def _vnodes_of(self, rows: pa.RecordBatch) -> npt.NDArray[np.uint16]:
        keys = [rows.column(key) for key in self._keys]
        return vnodes_of(hash_columns(keys, rows.num_rows), self._vnodes)

    def _tidy(self) -> None:
        """Merge the last runs until each is at least twice the next: a row is merged a logarithmic number of
        times."""
        runs = self._runs
        while len(runs) > 1 and len(runs[-2]) < 2 * len(runs[-1]):
            last, before = runs.pop(), runs.pop()
            runs.append(_merged([before.part(len(before.ticks)), last.part(len(last.ticks))]))


def _merged(runs: list[_Run]) -> _Run:
    """Whole runs as one, in order."""
    if len(runs) == 1:
        return runs[0]
    ticks = np.concatenate([run.ticks for run in runs])
    rows = np.concatenate([run.rows for run in runs])
    data = pa.concat_batches([run.data for run in runs])
    if (ticks[1:] < ticks[:-1]).any() or (rows[1:] < rows[:-1]).any():
        order = np.lexsort((rows, ticks))
        ticks, rows, data = ticks[order], rows[order], data.take(pa.array(order))
    return _Run(data, ticks, rows)


def _nothing(schema: pa.Schema) -> _Run:
    none = np.empty(0, np.int64)
    return _Run(pa.RecordBatch.from_pylist([], schema=schema), none, none)
