"""Relations that add calls over rows around a row: OVER windows and row buffers. Computes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.over.frames import BufferEmission, Frame
from millrace.operators.sink import Changelog
from millrace.planner.logical import Positions, Unary
from millrace.planner.ranking import SortKey


@dataclass(frozen=True)
class Over(Unary):
    """The input's columns, then calls over a frame around each row; `order` None: in order of arrival."""

    partition: Positions
    order: int | None
    frame: Frame
    calls: tuple[AggregateCall, ...]
    names: tuple[str, ...]

    @cached_property
    def schema(self) -> pa.Schema:
        return _with_calls(self.input.schema, self.calls, self.names)


@dataclass(frozen=True)
class RowBuffer(Unary):
    """The input's columns, then calls over the last `rows` rows of each partition, in order of arrival."""

    partition: Positions
    rows: int
    calls: tuple[AggregateCall, ...]
    names: tuple[str, ...]
    emission: BufferEmission = BufferEmission.EVERY_RECORD
    expire_after: int | None = None

    @cached_property
    def schema(self) -> pa.Schema:
        return _with_calls(self.input.schema, self.calls, self.names)


@dataclass(frozen=True)
class OverChanges(Unary):
    """The input's columns, then calls over a frame around each row in any order, brought up to date as rows come and go."""

    partition: Positions
    order: tuple[SortKey, ...]
    frame: Frame
    calls: tuple[AggregateCall, ...]
    names: tuple[str, ...]

    @cached_property
    def schema(self) -> pa.Schema:
        return _with_calls(self.input.schema, self.calls, self.names)

    @property
    def changelog(self) -> Changelog:
        return Changelog.RETRACT


def _with_calls(below: pa.Schema, calls: tuple[AggregateCall, ...], names: tuple[str, ...]) -> pa.Schema:
    return pa.schema([*below, *(pa.field(n, c.type) for n, c in zip(names, calls, strict=True))])
