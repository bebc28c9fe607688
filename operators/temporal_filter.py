"""The spec of filters that compare a time column with now(). Runs nothing itself."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from millrace.operators.operator import Context, Operator
from millrace.operators.sink import Changelog
from millrace.operators.spec import OperatorSpec, serialisable


@serialisable
class Clock(enum.Enum):
    """What now() means to a temporal filter."""

    PROCESSING = "processing"
    """The clock of the machine."""
    WATERMARK = "watermark"
    """The watermark: the same answer in every run. When bounded input has ended, its last time."""


@serialisable
@dataclass(frozen=True, slots=True)
class TimeBound:
    """A bound of a time column as now() plus `offset` µs; `inclusive` is whether the time may equal it."""

    offset: int
    inclusive: bool


@dataclass(frozen=True, slots=True)
class TemporalFilter(OperatorSpec):
    """Rows whose time is between two bounds that move with now(): each is sent when it comes in, taken back
    (−1) when it goes.

    `ts > now() - INTERVAL '1' HOUR` is `lower=TimeBound(-3_600_000_000, False)`; `ts <= now()` is
    `upper=TimeBound(0, True)`. `time` is the position of a timestamp column, or of an integer column that
    counts `time_unit`s since the epoch. A row above `upper` waits until it is due; a row with a NULL time
    never passes. `partition_keys` are columns whose hash says where a row's state lives (none: all its
    columns). The output has the input's columns and is a retract stream, or append-only without `lower`.
    """

    title: ClassVar[str] = "TemporalFilter"

    input: pa.Schema
    time: int
    lower: TimeBound | None
    upper: TimeBound | None
    clock: Clock = Clock.PROCESSING
    time_unit: str = "ms"
    partition_keys: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        assert self.lower is not None or self.upper is not None

    @property
    def output_schema(self) -> pa.Schema:
        return self.input

    @property
    def changelog(self) -> Changelog:
        """What the rows sent mean to those before, where the input is append-only."""
        return Changelog.APPEND if self.lower is None else Changelog.RETRACT

    def build(self, context: Context) -> Operator:
        from millrace.operators.over.temporal import TemporalOperator  # deferred: kernels import numba

        return TemporalOperator(self, context)  # pyright: ignore[reportArgumentType]

    def details(self) -> dict[str, str]:
        shown = {"time": self.input.field(self.time).name, "now": self.clock.value}
        for side, bound, signs in (("lower", self.lower, (">=", ">")), ("upper", self.upper, ("<=", "<"))):
            if bound is not None:
                shown[side] = f"{signs[not bound.inclusive]} now {bound.offset / 1e6:+g} s"
        return shown
