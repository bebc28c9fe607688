"""What a plan says of aggregate calls, windows and emission. Computes nothing."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from math import gcd

import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.spec import serialisable


@serialisable
@dataclass(frozen=True, slots=True)
class AggregateCall:
    """One aggregate over input columns.

    `function` is a canonical name of `resolve_aggregate`; `arguments` are input column positions of the
    signature's parameter types (the binder inserts casts before); `filter` is the position of a BOOLEAN
    column: rows where it is not true do not count. `order_by` holds (column position, descending, nulls
    first). `options` are constants by name, such as ("fraction", 0.5) of percentile_cont or
    ("separator", ", ") of string_agg.
    """

    function: str
    arguments: tuple[int, ...]
    type: pa.DataType
    distinct: bool = False
    filter: int | None = None
    order_by: tuple[tuple[int, bool, bool], ...] = ()
    options: tuple[tuple[str, object], ...] = ()

    def option(self, name: str, default: object = None) -> object:
        """The constant called `name`."""
        return dict(self.options).get(name, default)


@serialisable
class EmissionKind(enum.Enum):
    """When a keyed aggregate says what it knows."""

    ON_CLOSE = "on_close"
    """Once, when the watermark passes the window's end."""
    CHANGES = "changes"
    """Once a batch, every group it touched, as a changelog."""
    EVERY_RECORD = "every_record"
    """The running value after each input row, append-only."""
    INTERVAL = "interval"
    """The groups that changed, at most once in `interval` of processing time, as a changelog."""
    FINAL = "final"
    """Once, when bounded input has ended."""


@serialisable
@dataclass(frozen=True, slots=True)
class Emission:
    """`interval` is in µs. With `upsert` old rows are not taken back before a group's new row is sent
    (a group that vanishes still is): enough where whoever reads knows rows by key."""

    kind: EmissionKind
    interval: int = 0
    upsert: bool = False

    def __post_init__(self) -> None:
        assert (self.interval > 0) == (self.kind is EmissionKind.INTERVAL)

    @property
    def appends(self) -> bool:
        """Whether what is sent is never taken back (allowed lateness aside)."""
        return self.kind in (EmissionKind.ON_CLOSE, EmissionKind.EVERY_RECORD, EmissionKind.FINAL)

    def __str__(self) -> str:
        text = self.kind.value.replace("_", " ")
        if self.interval:
            text += f" {self.interval / 1e6:g} s"
        return text + (" (upsert)" if self.upsert else "")


ON_CLOSE = Emission(EmissionKind.ON_CLOSE)
CHANGES = Emission(EmissionKind.CHANGES)
EVERY_RECORD = Emission(EmissionKind.EVERY_RECORD)
FINAL = Emission(EmissionKind.FINAL)


@serialisable
@dataclass(frozen=True, slots=True)
class Tumble:
    """Windows [n·size + offset, (n+1)·size + offset), in µs."""

    size: int
    offset: int = 0

    def __post_init__(self) -> None:
        _positive("the size of a tumbling window", self.size)

    @property
    def pane(self) -> int:
        """The width of the slices of time that all windows are made of, in µs."""
        return self.size

    @property
    def slide(self) -> int:
        """The distance from one window's end to the next one's, in µs."""
        return self.size

    def starts_of_pane(self, pane_start: int) -> list[int]:
        """The starts of the windows that hold the pane which starts at `pane_start`."""
        return [pane_start]

    def __str__(self) -> str:
        return f"tumble {_seconds(self.size)}"


@serialisable
@dataclass(frozen=True, slots=True)
class Hop:
    """Windows [n·slide + offset, n·slide + offset + size), in µs; the size may be any multiple of 1 µs >= slide."""

    size: int
    slide: int
    offset: int = 0

    def __post_init__(self) -> None:
        _positive("the size of a hopping window", self.size)
        _positive("the slide of a hopping window", self.slide)
        if self.slide > self.size:
            raise Invalid(
                f"a slide of {_seconds(self.slide)} is larger than the window of {_seconds(self.size)}",
                code="MR1310",
                hint="rows between two windows would belong to none; exchange the two or use a smaller slide",
            )

    @property
    def pane(self) -> int:
        """The width of the slices of time that all windows are made of, in µs."""
        return gcd(self.size, self.slide)

    def starts_of_pane(self, pane_start: int) -> list[int]:
        """The starts of the windows that hold the pane which starts at `pane_start`, in order."""
        last = pane_start - (pane_start - self.offset) % self.slide
        first = last - (last + self.size - 1 - pane_start) // self.slide * self.slide
        while first + self.size < pane_start + self.pane:
            first += self.slide
        return list(range(first, last + 1, self.slide))

    def __str__(self) -> str:
        return f"hop {_seconds(self.size)} every {_seconds(self.slide)}"


@serialisable
@dataclass(frozen=True, slots=True)
class Cumulate:
    """Windows [n·size + offset, n·size + offset + k·step) for k = 1 … size/step, in µs."""

    size: int
    step: int
    offset: int = 0

    def __post_init__(self) -> None:
        _positive("the size of a cumulating window", self.size)
        _positive("the step of a cumulating window", self.step)
        if self.size % self.step:
            raise Invalid(
                f"a cumulating window of {_seconds(self.size)} is no multiple of its step of {_seconds(self.step)}",
                code="MR1311",
                hint="choose a step that divides the size",
            )

    @property
    def pane(self) -> int:
        """The width of the slices of time that all windows are made of, in µs."""
        return self.step

    @property
    def slide(self) -> int:
        """The distance from one window's end to the next one's, in µs."""
        return self.step

    def __str__(self) -> str:
        return f"cumulate {_seconds(self.size)} by {_seconds(self.step)}"


Window = Tumble | Hop | Cumulate


def _positive(what: str, value: int) -> None:
    if value <= 0:
        raise Invalid(f"{what} is {value} µs", code="MR1312", hint="give a duration above zero")


def _seconds(us: int) -> str:
    return f"{us / 1e6:g} s"
