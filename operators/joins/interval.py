"""Interval and window joins as specs: which rows of two streams meet, and when they can no longer. Joins nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from millrace.operators.expressions.text import to_sql
from millrace.operators.expressions.tree import Expression
from millrace.operators.operator import Context, Operator
from millrace.operators.spec import OperatorSpec

KINDS = ("inner", "left", "right", "full", "semi", "anti")


def joined_schema(
    left: pa.Schema, right: pa.Schema, kind: str, outputs: tuple[int, ...], names: tuple[str, ...] = ()
) -> pa.Schema:
    """Columns `outputs` of both sides, called `names` if given; nullable where the kind may leave a side out."""
    width = len(left)
    fields = []
    for place in outputs:
        field = left.field(place) if place < width else right.field(place - width)
        absent = kind == "full" or kind == ("right" if place < width else "left")
        fields.append(field.with_nullable(True) if absent else field)
    if names:
        fields = [field.with_name(name) for field, name in zip(fields, names, strict=True)]
    return pa.schema(fields)


def key_text(left: pa.Schema, right: pa.Schema, equal: tuple[tuple[int, int], ...]) -> str:
    """The equal columns for EXPLAIN."""
    pairs = [(left.names[a], right.names[b]) for a, b in equal]
    return ", ".join(f"left.{a} = right.{b}" for a, b in pairs) or "none: every pair within the bounds"


@dataclass(frozen=True, slots=True)
class IntervalJoin(OperatorSpec):
    """Rows of two append-only inputs with equal keys where `lower <= right time - left time <= upper`.

    Times are columns of TIMESTAMP, or of integers that count `time_units`; bounds are in µs, and one that is `open`
    does not belong to the interval. `condition` (over the columns of both sides) must hold too. Rows that outer kinds
    leave alone come once, when the watermark says that nothing can match them any more. `outputs` are positions in
    the columns of both sides (of the left one only where `kind` is semi or anti).
    A row is late, and goes to the late output, where the rows before it had set a watermark above its time: what it
    could match may be gone.
    """

    title: ClassVar[str] = "IntervalJoin"

    left: pa.Schema
    right: pa.Schema
    kind: str
    equal: tuple[tuple[int, int], ...]
    times: tuple[int, int]
    lower: int
    upper: int
    outputs: tuple[int, ...]
    condition: Expression | None = None
    open: tuple[bool, bool] = (False, False)
    time_units: tuple[str, str] = ("ms", "ms")
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind
        assert self.kind not in ("semi", "anti") or all(o < len(self.left) for o in self.outputs)

    @property
    def output_schema(self) -> pa.Schema:
        return joined_schema(self.left, self.right, self.kind, self.outputs, self.names)

    @property
    def held_back(self) -> int:
        """By how many µs the output's watermark is behind the input's, for the times that are passed on."""
        waits = (max(0, self.upper), max(0, -self.lower))
        if self.kind != "inner":
            return waits[self.kind == "right"]
        shown = [port for port in (0, 1) if self.times[port] + port * len(self.left) in self.outputs]
        return max((waits[port] for port in shown), default=waits[0])

    def build(self, context: Context) -> Operator:
        from millrace.operators.joins.interval_operator import IntervalJoinOperator  # breaks a cycle of types

        return IntervalJoinOperator(self, context)  # pyright: ignore[reportArgumentType]

    def details(self) -> dict[str, str]:
        left, right = self.left.names[self.times[0]], self.right.names[self.times[1]]
        low = "<" if self.open[0] else "<="
        high = "<" if self.open[1] else "<="
        shown = {
            "kind": self.kind,
            "key": key_text(self.left, self.right, self.equal),
            "bounds": f"{_seconds(self.lower)} {low} right.{right} - left.{left} {high} {_seconds(self.upper)}",
        }
        if self.condition is not None:
            shown["condition"] = to_sql(self.condition)
        shown["state"] = (
            f"left rows until the watermark passes {left} {_signed(self.upper)}, "
            f"right rows until it passes {right} {_signed(-self.lower)}"
        )
        return shown


@dataclass(frozen=True, slots=True)
class WindowJoin(OperatorSpec):
    """Rows of two append-only inputs that are in one window and have equal keys.

    `ends` are the columns of the windows' ends; all other equal columns, the starts among them, are in `equal`.
    State goes when the watermark passes the end, and so do rows of outer kinds that are left alone.
    """

    title: ClassVar[str] = "WindowJoin"

    left: pa.Schema
    right: pa.Schema
    kind: str
    equal: tuple[tuple[int, int], ...]
    ends: tuple[int, int]
    outputs: tuple[int, ...]
    condition: Expression | None = None
    time_units: tuple[str, str] = ("ms", "ms")
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind

    @property
    def output_schema(self) -> pa.Schema:
        return joined_schema(self.left, self.right, self.kind, self.outputs, self.names)

    def build(self, context: Context) -> Operator:
        from millrace.operators.joins.interval_operator import IntervalJoinOperator  # breaks a cycle of types

        return IntervalJoinOperator(self, context)  # pyright: ignore[reportArgumentType]

    def details(self) -> dict[str, str]:
        shown = {
            "kind": self.kind,
            "key": key_text(self.left, self.right, self.equal),
            "window": f"left.{self.left.names[self.ends[0]]} = right.{self.right.names[self.ends[1]]}",
        }
        if self.condition is not None:
            shown["condition"] = to_sql(self.condition)
        shown["state"] = "rows of both sides until the watermark passes the end of their window"
        return shown


def _seconds(us: int) -> str:
    return f"{us / 1e6:g} s"


def _signed(us: int) -> str:
    return f"{'-' if us < 0 else '+'} {abs(us) / 1e6:g} s"
