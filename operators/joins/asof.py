"""As-of and temporal joins as specs: to each row the one of the other side that was valid at its time. Joins nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from millrace.operators.joins.interval import joined_schema, key_text
from millrace.operators.operator import Context, Operator
from millrace.operators.spec import OperatorSpec

DIRECTIONS = ("backward", "forward", "nearest")


@dataclass(frozen=True, slots=True)
class AsofJoin(OperatorSpec):
    """To each row of the left input the row of the right one with equal keys that is last at or before its time.

    Or, by `direction`, the first at or after it, or the nearest; `strict` leaves out equal times; `tolerance` (µs) is
    the greatest distance. `kind` is inner, or left: rows without a match come alone. Of right rows with one time the
    one that arrived last counts.
    Rows are held until the watermark says that no other right row can belong to them. With `changes` a row is sent at
    once and corrected when a right row arrives that suits better.
    With `versions` the right input is a changelog: a row with weight -1 ends the validity of its key at its time,
    unless it has the time of a version and a row with weight +1 and that key follows in the same batch: an update.
    With `event` the left time is not the left side's event time, which is that column: it lies from `reach[0]` to
    `reach[1]` µs after it.
    """

    title: ClassVar[str] = "AsofJoin"

    left: pa.Schema
    right: pa.Schema
    kind: str
    equal: tuple[tuple[int, int], ...]
    times: tuple[int, int]
    outputs: tuple[int, ...]
    direction: str = "backward"
    strict: bool = False
    tolerance: int | None = None
    changes: bool = False
    versions: bool = False
    time_units: tuple[str, str] = ("ms", "ms")
    names: tuple[str, ...] = ()
    event: int | None = None
    reach: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        assert self.kind in ("inner", "left"), self.kind
        assert self.direction in DIRECTIONS, self.direction
        assert not (self.changes and self.versions)
        assert self.event is None or self.direction == "backward"

    @property
    def output_schema(self) -> pa.Schema:
        return joined_schema(self.left, self.right, self.kind, self.outputs, self.names)

    def build(self, context: Context) -> Operator:
        from millrace.operators.joins.asof_changes import AsofChangesOperator  # breaks a cycle of types
        from millrace.operators.joins.asof_operator import AsofOperator

        return AsofChangesOperator(self, context) if self.changes else AsofOperator(self, context)  # pyright: ignore[reportArgumentType]

    def details(self) -> dict[str, str]:
        left, right = self.left.names[self.times[0]], self.right.names[self.times[1]]
        compared = {"backward": "<", "forward": ">"}.get(self.direction)
        match = f"the right row whose {right} is nearest to left.{left}"
        if compared is not None:
            which = "last" if self.direction == "backward" else "first"
            match = f"the {which} right row with {right} {compared}{'' if self.strict else '='} left.{left}"
        if self.tolerance is not None:
            match += f", at most {self.tolerance / 1e6:g} s away"
        if self.event is not None:
            low, high = (f"{us / 1e6:+g} s" for us in self.reach)
            match += f" (from {self.left.names[self.event]} {low} to {self.left.names[self.event]} {high})"
        held = "left rows until the watermark says that their match is final"
        kept = f"right rows that a left row from the watermark on may need{'' if self.tolerance is not None else ': the last of each key stays'}"
        return {
            "kind": self.kind,
            "key": key_text(self.left, self.right, self.equal),
            "match": match,
            "emit": "at once, corrected by later right rows"
            if self.changes
            else "when the watermark makes it final",
            "state": f"{held}, {kept}",
        }
