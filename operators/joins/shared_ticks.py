"""The times of both sides of a join in one unit, and which rows are late. Knows no state."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Int64Array
from millrace.operators.over.ticks import Ticks


class SharedTicks:
    """Time columns as ticks: µs, or ns where either side counts those. `back` is taken off every tick."""

    def __init__(
        self,
        schemas: tuple[pa.Schema, pa.Schema],
        columns: tuple[int, int],
        units: tuple[str, str],
        back: int = 0,
    ) -> None:
        kinds = [schema.field(c).type for schema, c in zip(schemas, columns, strict=True)]
        self._ticks = [Ticks.of(kind, unit) for kind, unit in zip(kinds, units, strict=True)]
        self._columns = columns
        self._back = back
        self.per_us = max(ticks.per_us for ticks in self._ticks)

    def read(self, port: int, data: pa.RecordBatch) -> Int64Array:
        """Ticks of the rows of one side, whose times are not null."""
        return self._scaled(port, data.column(self._columns[port]))

    def of_left(self, column: pa.Array) -> Int64Array:
        """Ticks of a column that has the left side's times."""
        return self._scaled(0, column)

    def _scaled(self, port: int, column: pa.Array) -> Int64Array:
        ticks = self._ticks[port].read(column)
        scale = self.per_us // self._ticks[port].per_us
        if scale > 1:
            ticks = ticks * scale
        return ticks - self._back if self._back else ticks


def late_rows(
    ticks: Int64Array, now: int, row_watermarks: Int64Array | None, per_us: int
) -> npt.NDArray[np.bool_] | None:
    """Rows behind the watermark that holds (`now`, a tick) or that the rows before them had set; None: no row is."""
    if not len(ticks):
        return None
    late: npt.NDArray[np.bool_] | None = None
    if now != START_OF_TIME and int(ticks.min()) < now:
        late = ticks < now
    if row_watermarks is not None:
        marks = row_watermarks
        if per_us > 1:
            limit = END_OF_TIME // per_us
            marks = np.clip(row_watermarks, -limit, limit) * per_us
        behind = ticks < marks
        late = behind if late is None else late | behind
    return late if late is not None and late.any() else None
