"""Frames of OVER windows, and the functions that exist only there. Computes nothing."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.spec import serialisable


@serialisable
class FrameUnit(enum.Enum):
    """What a frame's offsets count."""

    ROWS = "rows"
    RANGE = "range"
    """µs of the ORDER BY column; rows of equal time are peers, in the frame together."""


@serialisable
@dataclass(frozen=True, slots=True)
class Frame:
    """The rows around a row that its calls see, both ends included.

    `start` and `end` are offsets from the row: negative is PRECEDING, 0 CURRENT ROW, positive FOLLOWING, and
    None is UNBOUNDED (PRECEDING as `start`, FOLLOWING as `end`). ROWS counts rows, RANGE µs.
    """

    unit: FrameUnit
    start: int | None
    end: int | None

    def __post_init__(self) -> None:
        if self.start is not None and self.end is not None and self.start > self.end:
            raise Invalid(
                f"the frame {self} ends before it starts",
                code="MR1331",
                hint="write the earlier bound first: BETWEEN start AND end",
            )

    def __str__(self) -> str:
        start, end = self._bound(self.start, "preceding"), self._bound(self.end, "following")
        return f"{self.unit.value} between {start} and {end}"

    def _bound(self, offset: int | None, side: str) -> str:
        if offset is None:
            return f"unbounded {side}"
        if offset == 0:
            return "current row"
        amount = f"{abs(offset)}" if self.unit is FrameUnit.ROWS else f"{abs(offset) / 1e6:g} s"
        return f"{amount} {'preceding' if offset < 0 else 'following'}"


DEFAULT_FRAME = Frame(FrameUnit.RANGE, None, 0)
"""What ORDER BY without a frame means."""


@serialisable
class BufferEmission(enum.Enum):
    """When a row buffer says what it knows."""

    EVERY_RECORD = "every_record"
    BUFFER_FULL = "buffer_full"
    """With every n-th row of a key."""


WINDOW_FUNCTIONS: dict[str, tuple[int, int]] = {
    "row_number": (0, 0),
    "rank": (0, 0),
    "dense_rank": (0, 0),
    "ntile": (0, 0),
    "percent_rank": (0, 0),
    "cume_dist": (0, 0),
    "lag": (1, 1),
    "lead": (1, 1),
    "first_value": (1, 1),
    "last_value": (1, 1),
    "nth_value": (1, 1),
}
"""Functions of OVER beside the aggregates: fewest and most columns they take.

Constants are options of the call: `offset` (>= 0, default 1) and `default` (a Python value of the argument's
type, default NULL) of lag and lead, `n` (>= 1) of ntile and nth_value.
"""

_WHOLE = frozenset({"ntile", "percent_rank", "cume_dist"})
_FRAMELESS = frozenset(
    {"row_number", "rank", "dense_rank", "ntile", "percent_rank", "cume_dist", "lag", "lead"}
)


def window_function_type(function: str, arguments: tuple[pa.DataType, ...]) -> pa.DataType:
    """What a function of `WINDOW_FUNCTIONS` returns for arguments of these types."""
    if function in ("percent_rank", "cume_dist"):
        return pa.float64()
    return arguments[0] if arguments else pa.int64()


def frameless(call: AggregateCall) -> bool:
    """Whether the call looks at its partition and not at the frame."""
    return call.function in _FRAMELESS


def needs_whole_partition(call: AggregateCall, frame: Frame) -> bool:
    """Whether the call has no answer before the end of its partition, which only bounded input has."""
    if call.function in _WHOLE:
        return True
    if frameless(call):
        return False
    # A start without bound and an end that is not the current row keep every row for ever.
    return frame.end is None or (frame.start is None and frame.end != 0)
