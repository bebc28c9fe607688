"""The spec of OVER windows whose answers change: over rows that are taken back, or in an order that is not time's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.aggregates.specs import describe
from millrace.operators.operator import Context, Operator
from millrace.operators.over.frames import Frame, frameless
from millrace.operators.spec import OperatorSpec
from millrace.operators.top.specs import Order


@dataclass(frozen=True, slots=True)
class UpdatingOver(OperatorSpec):
    """Calls OVER (PARTITION BY keys ORDER BY order frame) of any input, kept up to date: sends a retract stream.

    The output is the input's columns, then the calls, named `names` (of the calls only). Rows that are equal in the
    order stand as they arrived. A frame of RANGE has no offsets but UNBOUNDED and CURRENT ROW. All rows are kept; a
    batch costs as much as there are rows in the partitions that it touches.
    """

    title: ClassVar[str] = "UpdatingOver"

    input: pa.Schema
    keys: tuple[int, ...]
    order: Order
    frame: Frame
    calls: tuple[AggregateCall, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        assert len(self.names) == len(self.calls)

    @property
    def output_schema(self) -> pa.Schema:
        made = (pa.field(name, call.type) for call, name in zip(self.calls, self.names, strict=True))
        return pa.schema([*self.input, *made])

    def build(self, context: Context) -> Operator:
        from millrace.operators.over.updating import UpdatingOverOperator  # deferred: kernels import numba

        return UpdatingOverOperator(self, context)  # pyright: ignore[reportArgumentType]

    def details(self) -> dict[str, str]:
        words = [
            f"{self.input.field(c).name}{' desc' if down else ''}{' nulls first' if first else ''}"
            for c, down, first in self.order
        ]
        shown = {
            "partition": ", ".join(self.input.field(k).name for k in self.keys) or "none",
            "order": ", ".join(words) or "arrival",
            "calls": ", ".join(describe(call, self.input) for call in self.calls),
        }
        if not all(frameless(call) for call in self.calls):
            shown["frame"] = str(self.frame)
        shown["emit"] = "changes of the rows whose answers changed"
        shown["state"] = "every row, kept for ever"
        return shown
