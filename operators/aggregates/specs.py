"""Specs of keyed aggregation, plain and by window, and of window assignment. Runs nothing itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from millrace.operators.aggregates.calls import AggregateCall, Emission, Window
from millrace.operators.operator import Context, Operator
from millrace.operators.sink import Changelog
from millrace.operators.spec import OperatorSpec


@dataclass(frozen=True, slots=True)
class GroupAggregate(OperatorSpec):
    """GROUP BY. The output is the keys, then the calls, named `names`.

    `window_end`, where given, is a position in `keys`: that key is the end of a window its rows already
    carry, so groups are complete and forgotten when the watermark passes it (Emission ON_CLOSE, or
    CHANGES with expiry). No calls: DISTINCT. No keys: one group, which is there without any row.
    """

    title: ClassVar[str] = "GroupAggregate"

    input: pa.Schema
    keys: tuple[int, ...]
    calls: tuple[AggregateCall, ...]
    names: tuple[str, ...]
    emission: Emission
    retracting_input: bool = False
    window_end: int | None = None

    def __post_init__(self) -> None:
        assert len(self.names) == len(self.keys) + len(self.calls)
        assert self.window_end is None or 0 <= self.window_end < len(self.keys)

    @property
    def output_schema(self) -> pa.Schema:
        return pa.schema(
            _key_fields(self.input, self.keys, self.names) + _call_fields(self.calls, self.names)
        )

    @property
    def output_key(self) -> tuple[int, ...]:
        """Output columns that identify a row of a changelog."""
        return tuple(range(len(self.keys)))

    @property
    def changelog(self) -> Changelog:
        """What the rows sent mean to those before."""
        if self.emission.appends:
            return Changelog.APPEND
        return Changelog.UPSERT if self.emission.upsert else Changelog.RETRACT

    def build(self, context: Context) -> Operator:
        from millrace.operators.aggregates.group import GroupOperator  # deferred: kernels import numba

        return GroupOperator(self, context)  # pyright: ignore[reportArgumentType]  # sees this file under two names

    def details(self) -> dict[str, str]:
        shown = {
            "keys": ", ".join(self.input.field(k).name for k in self.keys) or "none",
            "calls": ", ".join(describe(call, self.input) for call in self.calls) or "none",
            "emit": str(self.emission),
        }
        if self.window_end is not None:
            shown["expires"] = f"when the watermark passes {self.names[self.window_end]}"
        return shown


@dataclass(frozen=True, slots=True)
class WindowAggregate(OperatorSpec):
    """GROUP BY keys and a tumbling, hopping or cumulating window of event time.

    The output is the keys, then `window_start` and `window_end` as far as `bounds` asks for them, then the
    calls, named `names` in that order. `time` is the position of a timestamp column, or of an integer
    column that counts `time_unit`s ('s', 'ms', 'us', 'ns') since the epoch; None: the processing time at which a batch
    arrives. Bounds have the time column's type (timestamp[ms, UTC] without one).
    `allowed_lateness` (µs): a closed window takes rows that long, and each correction is sent as a change.
    """

    title: ClassVar[str] = "WindowAggregate"

    input: pa.Schema
    time: int | None
    window: Window
    keys: tuple[int, ...]
    calls: tuple[AggregateCall, ...]
    names: tuple[str, ...]
    emission: Emission
    bounds: tuple[bool, bool] = (True, True)
    allowed_lateness: int = 0
    retracting_input: bool = False
    time_unit: str = "ms"
    late_to_next: bool = False
    """A late row counts as if its time were the watermark, so it is in the next window that is open."""

    def __post_init__(self) -> None:
        assert len(self.names) == len(self.keys) + sum(self.bounds) + len(self.calls)
        assert not (self.late_to_next and (self.retracting_input or self.time is None))
        assert self.allowed_lateness >= 0

    @property
    def bound_type(self) -> pa.DataType:
        """The type of window_start and window_end."""
        return PROCESSING_TIME if self.time is None else self.input.field(self.time).type

    @property
    def output_schema(self) -> pa.Schema:
        at = len(self.keys)
        bounds = [pa.field(name, self.bound_type) for name in self.names[at : at + sum(self.bounds)]]
        return pa.schema(
            _key_fields(self.input, self.keys, self.names) + bounds + _call_fields(self.calls, self.names)
        )

    @property
    def output_key(self) -> tuple[int, ...] | None:
        """Output columns that identify a row of a changelog; None where no window bound is among them."""
        return tuple(range(len(self.keys) + sum(self.bounds))) if any(self.bounds) else None

    @property
    def changelog(self) -> Changelog:
        """What the rows sent mean to those before."""
        if self.emission.appends and not self.allowed_lateness:
            return Changelog.APPEND
        return Changelog.UPSERT if self.emission.upsert else Changelog.RETRACT

    def build(self, context: Context) -> Operator:
        from millrace.operators.aggregates.window import WindowOperator  # deferred: kernels import numba

        return WindowOperator(self, context)  # pyright: ignore[reportArgumentType]  # sees this file under two names

    def details(self) -> dict[str, str]:
        shown = {
            "window": str(self.window),
            "time": "processing time" if self.time is None else self.input.field(self.time).name,
            "keys": ", ".join(self.input.field(k).name for k in self.keys) or "none",
            "calls": ", ".join(describe(call, self.input) for call in self.calls) or "none",
            "emit": str(self.emission),
        }
        if self.allowed_lateness:
            shown["allowed lateness"] = f"{self.allowed_lateness / 1e6:g} s"
        return shown


@dataclass(frozen=True, slots=True)
class WindowAssign(OperatorSpec):
    """A window table function: every row once for each window it is in.

    The output is the input's columns, then window_start, window_end and window_time (the window's last
    instant: its end less one unit of the type, 1 ms at least) of the time column's type, named `names`.
    Late rows (every window over) go to `context.late`.
    """

    title: ClassVar[str] = "WindowAssign"

    input: pa.Schema
    time: int | None
    window: Window
    names: tuple[str, str, str] = ("window_start", "window_end", "window_time")
    time_unit: str = "ms"
    allowed_lateness: int = 0

    @property
    def bound_type(self) -> pa.DataType:
        """The type of window_start, window_end and window_time."""
        return PROCESSING_TIME if self.time is None else self.input.field(self.time).type

    @property
    def output_schema(self) -> pa.Schema:
        return pa.schema([*self.input, *(pa.field(name, self.bound_type) for name in self.names)])

    def build(self, context: Context) -> Operator:
        from millrace.operators.aggregates.assign import AssignOperator  # deferred: kernels import numba

        return AssignOperator(self, context)  # pyright: ignore[reportArgumentType]  # sees this file under two names

    def details(self) -> dict[str, str]:
        time = "processing time" if self.time is None else self.input.field(self.time).name
        return {"window": str(self.window), "time": time}


PROCESSING_TIME = pa.timestamp("ms", "UTC")
"""The type of window bounds where windows are of processing time."""


def describe(call: AggregateCall, schema: pa.Schema) -> str:
    """A call as a person would write it."""
    arguments = ", ".join(schema.field(i).name for i in call.arguments) or (
        "*" if call.function == "count" else ""
    )
    text = f"{call.function}({'DISTINCT ' if call.distinct else ''}{arguments})"
    return text if call.filter is None else f"{text} FILTER ({schema.field(call.filter).name})"


def _key_fields(schema: pa.Schema, keys: tuple[int, ...], names: tuple[str, ...]) -> list[pa.Field]:
    return [schema.field(key).with_name(name) for key, name in zip(keys, names, strict=False)]


def _call_fields(calls: tuple[AggregateCall, ...], names: tuple[str, ...]) -> list[pa.Field]:
    return [
        pa.field(name, call.type) for call, name in zip(calls, names[len(names) - len(calls) :], strict=True)
    ]
