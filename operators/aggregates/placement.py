"""Where rows belong in time: panes and windows of a batch, and which rows are late. Keeps nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.aggregates import window_kernels
from millrace.operators.aggregates.calls import Cumulate, Hop, Tumble, Window
from millrace.operators.aggregates.columns import int64_of
from millrace.operators.aggregates.times import from_microseconds, ratio_of
from millrace.operators.batch import START_OF_TIME, Batch, Int64Array


@dataclass(frozen=True, slots=True)
class Expanded:
    """Rows times windows: `rows` is the input row (None: each once, in order), `ends` the window's end in µs."""

    rows: npt.NDArray[np.int64] | None
    ends: Int64Array
    late: npt.NDArray[np.int64] | None
    """Input rows of which every window is over."""


class Placement:
    """Places rows of a batch by the column at `time` (None: by the time given with the batch)."""

    def __init__(self, schema: pa.Schema, time: int | None, window: Window, time_unit: str) -> None:
        self.window = window
        self.time = time
        self.multiplier, self.divisor = 1, 1
        if time is not None:
            self.multiplier, self.divisor = ratio_of(schema.field(time).type, time_unit)
        self._unit = time_unit

    def windows(self, batch: Batch, now: int, watermark: int, lateness: int) -> Expanded:
        """Every window that each row is in and that is not over by `lateness` (µs) yet."""
        marks = None if self.time is None else batch.row_watermarks
        if lateness:
            watermark = max(watermark, START_OF_TIME + lateness) - lateness
            marks = None if marks is None else np.maximum(marks, START_OF_TIME + lateness) - lateness
        window = self.window
        if isinstance(window, Tumble):
            ends = self.panes(batch, now, window.size, window.offset + window.size)
            least = watermark if marks is None else max(watermark, int(marks.max(initial=watermark)))
            if not len(ends) or least < int(ends.min()):
                return Expanded(None, ends, None)
            late = ends <= (watermark if marks is None else np.maximum(marks, watermark))
            kept = np.flatnonzero(~late)
            return Expanded(kept, ends[kept], np.flatnonzero(late))
        starts = self.panes(batch, now, window.pane, window.offset)
        room = batch.num_rows * -(-window.size // window.slide)
        rows, ends = np.empty(room, np.int64), np.empty(room, np.int64)
        if isinstance(window, Hop):
            count = window_kernels.expand_hop(
                starts,
                marks,
                watermark,
                window.size,
                window.slide,
                window.pane,
                window.offset,
                rows,
                ends,
            )
        else:
            count = window_kernels.expand_cumulate(
                starts, marks, watermark, window.size, window.step, window.offset, rows, ends
            )
        seen = np.zeros(batch.num_rows, np.bool_)
        seen[rows[:count]] = True
        late_rows = None if seen.all() else np.flatnonzero(~seen)
        return Expanded(rows[:count], ends[:count], late_rows)

    def panes(self, batch: Batch, now: int, factor: int, shift: int) -> Int64Array:
        """index * factor + shift of the pane of each row."""
        window = self.window
        out = np.empty(batch.num_rows, np.int64)
        if self.time is None:
            out[:] = (now - window.offset) // window.pane * factor + shift
            return out
        times = int64_of(batch.data.column(self.time))
        window_kernels.panes(
            times, None, self.multiplier, self.divisor, window.pane, window.offset, factor, shift, out
        )
        return out

    def starts_of(self, ends: Int64Array) -> Int64Array:
        """The starts (µs) of windows from their ends."""
        window = self.window
        if isinstance(window, Cumulate):
            return (ends - window.step - window.offset) // window.size * window.size + window.offset
        return ends - window.size

    def bounds(self, ends: Int64Array, kind: pa.DataType) -> tuple[pa.Array, pa.Array]:
        """window_start and window_end as columns of type `kind`."""
        start = from_microseconds(self.starts_of(ends), kind, self._unit)
        return start, from_microseconds(ends, kind, self._unit)
