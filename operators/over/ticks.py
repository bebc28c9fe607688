"""A time column as int64 ticks that kernels compare: µs, or ns where the column counts those."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Batch, Int64Array
from millrace.operators.operator import Context

NULL_TIME = "MR2021"
"""Code of rows whose event time is NULL."""
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@dataclass(frozen=True, slots=True)
class Ticks:
    """How values of one time column become ticks and back.

    `up` multiplies a value of the column into ticks; `per_us` is the number of ticks in a µs (1, or 1,000).
    """

    type: pa.DataType
    up: int
    per_us: int

    @classmethod
    def of(cls, type_: pa.DataType, time_unit: str) -> Ticks:
        """Of a timestamp type, or of an integer that counts `time_unit`s."""
        per_second = _PER_SECOND[type_.unit if pa.types.is_timestamp(type_) else time_unit]
        return cls(type_, max(1, 1_000_000 // per_second), max(1, per_second // 1_000_000))

    def read(self, column: pa.Array) -> Int64Array:
        """Ticks of a column without nulls; a view where no arithmetic is needed."""
        if column.type.bit_width != 64:
            column = column.cast(pa.int64())
        values: Int64Array = np.frombuffer(column.buffers()[1], np.int64)[column.offset :][: len(column)]
        return values * self.up if self.up > 1 else values

    def write(self, ticks: Int64Array) -> pa.Array:
        """A column of the type from ticks."""
        values = ticks // self.up if self.up > 1 else ticks
        if pa.types.is_timestamp(self.type):
            return pa.array(values, pa.int64()).view(self.type)
        return pa.array(values, pa.int64()).cast(self.type)

    def span(self, us: int) -> int:
        """A duration in µs as ticks."""
        return us * self.per_us

    def moment(self, us: int) -> int:
        """A time in µs as ticks; the ends of time stay what they are."""
        if us in (START_OF_TIME, END_OF_TIME):
            return us
        return max(START_OF_TIME, min(END_OF_TIME, us * self.per_us))

    def moments(self, us: Int64Array) -> Int64Array:
        """Times in µs as ticks; the ends of time stay what they are."""
        if self.per_us == 1:
            return us
        limit = END_OF_TIME // self.per_us
        scaled = np.clip(us, -limit, limit) * self.per_us
        return np.where(us > limit, END_OF_TIME, np.where(us < -limit, START_OF_TIME, scaled))

    def us(self, ticks: int) -> int:
        """A tick as µs, rounded down; the ends of time stay what they are."""
        if ticks in (START_OF_TIME, END_OF_TIME):
            return ticks
        return ticks // self.per_us


def null_rows(column: pa.Array) -> npt.NDArray[np.bool_] | None:
    """Which values are null; None where none is."""
    if column.null_count == 0:
        return None
    return np.asarray(pc.is_null(column))


def without_times(batch: Batch, time: int, context: Context) -> Batch | None:
    """The rows that have a time; those where it is NULL go to the dead letters. None where no row is left."""
    missing = null_rows(batch.data.column(time))
    if missing is None:
        return batch
    name = batch.schema.field(time).name
    bad = batch.take(np.flatnonzero(missing))
    context.dead_letter(bad, NULL_TIME, f"the event time {name} is NULL")
    known = np.flatnonzero(~missing)
    return batch.take(known) if len(known) else None
