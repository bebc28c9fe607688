"""The spec of aggregation by session window. Runs nothing itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from millrace.errors import Invalid, Unsupported
from millrace.operators.aggregates.calls import AggregateCall, Emission, EmissionKind
from millrace.operators.aggregates.specs import PROCESSING_TIME, describe
from millrace.operators.operator import Context, Operator
from millrace.operators.sink import Changelog
from millrace.operators.spec import OperatorSpec


@dataclass(frozen=True, slots=True)
class SessionAggregate(OperatorSpec):
    """GROUP BY keys and a session of event time: rows of one key less than `gap` µs apart belong together.

    The output is the keys, then `window_start` (the session's first time) and `window_end` (its last time
    plus the gap) as far as `bounds` asks for them, then the calls, named `names` in that order. `time` is the
    position of a timestamp column, or of an integer column that counts `time_unit`s ('s', 'ms', 'us', 'ns')
    since the epoch; None: the processing time at which a batch arrives. Bounds have the time column's type
    (timestamp[ms, UTC] without one).

    A session is over when the watermark reaches its end. A row is late, and goes to `context.late`, if its
    time plus the gap plus `allowed_lateness` (µs) is not above the watermark that the rows before it had set,
    whatever sessions are open. A row never joins a session that was over (plus lateness) by that watermark,
    so the answer does not depend on how the input is cut into batches. The input is append-only. The
    watermark that goes downstream speaks of `window_end`.
    """

    title: ClassVar[str] = "SessionAggregate"

    input: pa.Schema
    time: int | None
    gap: int
    keys: tuple[int, ...]
    calls: tuple[AggregateCall, ...]
    names: tuple[str, ...]
    emission: Emission
    bounds: tuple[bool, bool] = (True, True)
    allowed_lateness: int = 0
    time_unit: str = "ms"

    def __post_init__(self) -> None:
        assert len(self.names) == len(self.keys) + sum(self.bounds) + len(self.calls)
        assert self.allowed_lateness >= 0
        if self.gap <= 0:
            raise Invalid(
                f"the gap of a session window is {self.gap} µs",
                code="MR1330",
                hint="give a duration above zero",
            )
        if self.emission.kind is EmissionKind.EVERY_RECORD:
            raise Unsupported(
                "a session window can not be emitted once for every record",
                code="MR1907",
                hint="a row may join sessions that were separate; use EMIT CHANGES or EMIT ON WINDOW CLOSE",
            )

    @property
    def bound_type(self) -> pa.DataType:
        """The type of window_start and window_end."""
        return PROCESSING_TIME if self.time is None else self.input.field(self.time).type

    @property
    def output_schema(self) -> pa.Schema:
        fields = [
            self.input.field(key).with_name(name) for key, name in zip(self.keys, self.names, strict=False)
        ]
        at = len(self.keys)
        first_call = at + sum(self.bounds)
        fields += [pa.field(name, self.bound_type) for name in self.names[at:first_call]]
        fields += [
            pa.field(name, call.type) for call, name in zip(self.calls, self.names[first_call:], strict=True)
        ]
        return pa.schema(fields)

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
        from millrace.operators.sessions.operator import SessionOperator  # deferred: kernels import numba

        return SessionOperator(self, context)  # pyright: ignore[reportArgumentType]

    def details(self) -> dict[str, str]:
        shown = {
            "window": f"session gap {self.gap / 1e6:g} s",
            "time": "processing time" if self.time is None else self.input.field(self.time).name,
            "keys": ", ".join(self.input.field(k).name for k in self.keys) or "none",
            "calls": ", ".join(describe(call, self.input) for call in self.calls) or "none",
            "emit": str(self.emission),
        }
        if self.allowed_lateness:
            shown["allowed lateness"] = f"{self.allowed_lateness / 1e6:g} s"
        return shown
