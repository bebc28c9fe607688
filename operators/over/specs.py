"""Specs of OVER windows and of row buffers. Runs nothing itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.aggregates.specs import describe
from millrace.operators.operator import Context, Operator
from millrace.operators.over.frames import (
    WINDOW_FUNCTIONS,
    BufferEmission,
    Frame,
    FrameUnit,
    frameless,
    needs_whole_partition,
)
from millrace.operators.spec import OperatorSpec


@dataclass(frozen=True, slots=True)
class OverAggregate(OperatorSpec):
    """Calls OVER (PARTITION BY keys ORDER BY order frame) of an append-only input; sends rows append-only.

    The output is the input's columns, then the calls, named `names` (of the calls only). `order` is the
    position of the event-time column (a timestamp, or an integer counting `time_unit`s): rows are held until
    the watermark is above them, then taken in order of time, ties by arrival. None: in order of arrival
    (processing time), at once. Calls are aggregates or `WINDOW_FUNCTIONS`; they share one frame. Late rows
    (below the watermark of the rows before them) go to `context.late`.
    """

    title: ClassVar[str] = "OverAggregate"

    input: pa.Schema
    keys: tuple[int, ...]
    order: int | None
    frame: Frame
    calls: tuple[AggregateCall, ...]
    names: tuple[str, ...]
    time_unit: str = "ms"

    def __post_init__(self) -> None:
        assert len(self.names) == len(self.calls)
        _check_calls(self.calls)
        frame = self.frame
        if self.order is None and frame.unit is FrameUnit.RANGE and (frame.start or frame.end):
            raise Invalid(
                f"the frame {frame} needs a time to order by",
                code="MR1332",
                hint="ORDER BY the event-time column, or count ROWS",
            )

    @property
    def output_schema(self) -> pa.Schema:
        return _with_calls(self.input, self.calls, self.names)

    @property
    def needs_whole_partition(self) -> bool:
        """Whether rows come only when bounded input has ended: to be refused where it never does."""
        return any(needs_whole_partition(call, self.frame) for call in self.calls)

    def build(self, context: Context) -> Operator:
        from millrace.operators.over.operator import OverOperator  # deferred: kernels import numba

        return OverOperator(self, context)  # pyright: ignore[reportArgumentType]

    def details(self) -> dict[str, str]:
        shown = {
            "partition": ", ".join(self.input.field(k).name for k in self.keys) or "none",
            "order": "arrival" if self.order is None else self.input.field(self.order).name,
            "calls": ", ".join(describe(call, self.input) for call in self.calls),
        }
        if not all(frameless(call) for call in self.calls):
            shown["frame"] = str(self.frame)
        if self.needs_whole_partition:
            shown["emit"] = "at the end of bounded input"
        return shown


@dataclass(frozen=True, slots=True)
class RowBufferAggregate(OperatorSpec):
    """Calls over the last `rows` rows of each key in order of arrival (ROWS WINDOW BUFFER); sends rows
    append-only.

    The output is the input's columns, then the calls, named `names` (of the calls only): for every row, or
    for every `rows`-th row of a key. With `expire_after` (µs) a row more than that after the key's last one
    (by column `time`, as in OverAggregate) finds the buffer empty, and so does one that comes when the
    watermark is.
    """

    title: ClassVar[str] = "RowBufferAggregate"

    input: pa.Schema
    keys: tuple[int, ...]
    rows: int
    calls: tuple[AggregateCall, ...]
    names: tuple[str, ...]
    emission: BufferEmission = BufferEmission.EVERY_RECORD
    time: int | None = None
    expire_after: int | None = None
    time_unit: str = "ms"

    def __post_init__(self) -> None:
        assert len(self.names) == len(self.calls)
        _check_calls(self.calls)
        if self.rows < 1:
            raise Invalid(
                f"a row buffer of {self.rows} rows holds nothing", code="MR1333", hint="give at least one row"
            )
        if any(needs_whole_partition(call, self.frame) or call.function == "lead" for call in self.calls):
            raise Invalid(
                "lead, ntile, percent_rank and cume_dist need rows that a row buffer has not seen",
                code="MR1334",
                hint="use an OVER window with ORDER BY",
            )
        if self.expire_after is not None and self.time is None:
            raise Invalid(
                "EXPIRE AFTER needs an event-time column",
                code="MR1335",
                hint="declare a WATERMARK on the source",
            )

    @property
    def frame(self) -> Frame:
        """The buffer as a frame."""
        return Frame(FrameUnit.ROWS, 1 - self.rows, 0)

    @property
    def output_schema(self) -> pa.Schema:
        return _with_calls(self.input, self.calls, self.names)

    def build(self, context: Context) -> Operator:
        from millrace.operators.over.operator import OverOperator  # deferred: kernels import numba

        return OverOperator(self, context)  # pyright: ignore[reportArgumentType]

    def details(self) -> dict[str, str]:
        shown = {
            "buffer": f"{self.rows} rows",
            "partition": ", ".join(self.input.field(k).name for k in self.keys) or "none",
            "calls": ", ".join(describe(call, self.input) for call in self.calls),
            "emit": self.emission.value.replace("_", " "),
        }
        if self.expire_after is not None:
            shown["expires"] = f"after {self.expire_after / 1e6:g} s"
        return shown


def _with_calls(schema: pa.Schema, calls: tuple[AggregateCall, ...], names: tuple[str, ...]) -> pa.Schema:
    return pa.schema([*schema, *(pa.field(name, call.type) for call, name in zip(calls, names, strict=True))])


def _check_calls(calls: tuple[AggregateCall, ...]) -> None:
    for call in calls:
        if call.function not in WINDOW_FUNCTIONS:
            continue
        fewest, most = WINDOW_FUNCTIONS[call.function]
        assert fewest <= len(call.arguments) <= most, call.function
        if call.distinct or call.filter is not None:
            raise Invalid(
                f"{call.function} takes neither DISTINCT nor FILTER",
                code="MR1336",
                hint="use a CASE expression",
            )
        for name, least in (("offset", 0), ("n", 1)):
            value = call.option(name, least)
            if not isinstance(value, int) or value < least:
                raise Invalid(
                    f"the {name} of {call.function} is {value!r}",
                    code="MR1337",
                    hint=f"give a whole number, {least} or more",
                )
