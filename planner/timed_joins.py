"""Joins that go by time, as logical relations: interval, window, as-of and temporal. Chooses none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import pyarrow as pa

from millrace.errors import Position
from millrace.operators.expressions.tree import Expression
from millrace.operators.joins.interval import joined_schema
from millrace.operators.joins.late import late_schema
from millrace.operators.sink import Changelog
from millrace.planner.logical import AssignWindow, Filter, Join, Project, Relation, Unary
from millrace.planner.table_functions import Expansion

Places = Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Interval:
    """`lower <= right time - left time <= upper`, in µs; a bound that is `open` does not belong to it."""

    left_time: int
    right_time: int
    lower: int
    upper: int
    open: tuple[bool, bool] = (False, False)

    def moved(self, left: Places, right: Places) -> Interval:
        """The same over inputs whose columns are elsewhere."""
        return replace(self, left_time=left[self.left_time], right_time=right[self.right_time])

    @property
    def columns(self) -> tuple[set[int], set[int]]:
        """The columns it reads of both sides."""
        return {self.left_time}, {self.right_time}

    right_is_set: ClassVar[bool] = True
    """Whether a row on the right matches by itself, whatever others there are."""

    def times(self) -> tuple[int, int]:
        """The column of each side that may be the event time of what comes out."""
        return self.left_time, self.right_time


@dataclass(frozen=True, slots=True)
class SameWindow:
    """Both rows are in one window: its end is in these columns, and equal."""

    left_end: int
    right_end: int

    def moved(self, left: Places, right: Places) -> SameWindow:
        """The same over inputs whose columns are elsewhere."""
        return SameWindow(left[self.left_end], right[self.right_end])

    @property
    def columns(self) -> tuple[set[int], set[int]]:
        """The columns it reads of both sides."""
        return {self.left_end}, {self.right_end}

    right_is_set: ClassVar[bool] = True

    def times(self) -> tuple[int, int]:
        """The column of each side that may be the event time of what comes out."""
        return self.left_end, self.right_end


@dataclass(frozen=True, slots=True)
class Asof:
    """The one right row that is last before the left one's time, first after it, or nearest, as `AsofJoin` says.

    `versions`: the right side is a changelog whose rows are versions of what its key names. `event` is the left
    side's event time where `left_time` is another, from `reach[0]` to `reach[1]` µs after it.
    """

    left_time: int
    right_time: int
    direction: str = "backward"
    strict: bool = False
    tolerance: int | None = None
    changes: bool = False
    versions: bool = False
    event: int | None = None
    reach: tuple[int, int] = (0, 0)

    right_is_set: ClassVar[bool] = False

    def moved(self, left: Places, right: Places) -> Asof:
        """The same over inputs whose columns are elsewhere."""
        event = None if self.event is None else left[self.event]
        return replace(self, left_time=left[self.left_time], right_time=right[self.right_time], event=event)

    @property
    def columns(self) -> tuple[set[int], set[int]]:
        """The columns it reads of both sides."""
        also = set() if self.event is None else {self.event}
        return {self.left_time} | also, {self.right_time}

    def times(self) -> tuple[int, int]:
        """The columns of both times."""
        return self.left_time, self.right_time


@dataclass(frozen=True, slots=True)
class Latest:
    """The right row that is the key's latest when the left one arrives. `left_time` is the left side's event time."""

    left_time: int | None

    right_is_set: ClassVar[bool] = False

    def moved(self, left: Places, right: Places) -> Latest:
        """The same over inputs whose columns are elsewhere."""
        return Latest(None if self.left_time is None else left[self.left_time])

    @property
    def columns(self) -> tuple[set[int], set[int]]:
        """The columns it reads of both sides."""
        return (set() if self.left_time is None else {self.left_time}), set()

    def times(self) -> tuple[int | None, None]:
        """The column of each side that may be the event time of what comes out."""
        return self.left_time, None


Form = Interval | SameWindow | Asof | Latest


@dataclass(frozen=True)
class TimedJoin(Relation):
    """Two relations by equal columns, a relation of their times, and perhaps a condition over the columns of both.

    `kind` is inner, left, right, full, semi or anti. The event time of the output is that of the left side; of the
    right side where `kind` is right; there is none where it is full. Of an inner interval or window join both times
    are: the watermark is held back as far as those that are passed on need.
    """

    left: Relation
    right: Relation
    kind: str
    equal: tuple[tuple[int, int], ...]
    form: Form
    condition: Expression | None = None
    position: Position | None = field(default=None, compare=False)
    late_table: str | None = None
    """The table that late rows of either side go to."""

    @property
    def inputs(self) -> tuple[Relation, ...]:
        return (self.left, self.right)

    @cached_property
    def schema(self) -> pa.Schema:
        left, right = self.left.schema, self.right.schema
        width = len(left) if self.kind in ("semi", "anti") else len(left) + len(right)
        return joined_schema(left, right, self.kind, tuple(range(width)))

    @property
    def event_time(self) -> int | None:
        left, right = self.form.times()
        if isinstance(self.form, Asof) and self.form.event is not None:
            left = self.form.event
        match self.kind:
            case "full":
                return None
            case "right":
                return None if right is None else len(self.left.schema) + right
        return left

    @property
    def other_time(self) -> int | None:
        _, right = self.form.times()
        two = self.kind == "inner" and isinstance(self.form, Interval | SameWindow)
        if not two or right is None or self.left.time_unit != self.right.time_unit:
            return None
        return len(self.left.schema) + right

    @property
    def time_unit(self) -> str:
        return self.right.time_unit if self.kind == "right" else self.left.time_unit

    @property
    def changelog(self) -> Changelog:
        changes = isinstance(self.form, Asof) and self.form.changes
        return Changelog.RETRACT if changes else Changelog.APPEND

    @property
    def key(self) -> tuple[int, ...] | None:
        return self.left.key if isinstance(self.form, Asof | Latest) else None

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        if not isinstance(self.form, SameWindow) or self.kind == "full":
            return (None, None)
        if self.kind != "right":
            return self.left.bounds
        width = len(self.left.schema)
        start, end = self.right.bounds
        return (None if start is None else start + width, None if end is None else end + width)

    def with_inputs(self, *inputs: Relation) -> Relation:
        left, right = inputs
        return self if left is self.left and right is self.right else replace(self, left=left, right=right)


@dataclass(frozen=True)
class LateSides(Unary):
    """The rows of either side that came too late for the join it reads: columns of both, NULL in the other side's."""

    input: TimedJoin

    @cached_property
    def schema(self) -> pa.Schema:
        return late_schema(self.input.left.schema, self.input.right.schema)

    @property
    def event_time(self) -> int | None:
        return None

    @property
    def changelog(self) -> Changelog:
        return Changelog.APPEND

    @property
    def key(self) -> tuple[int, ...] | None:
        return None

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        return (None, None)


def _keeping_late(relation: Relation) -> Relation:
    """The side of a window join that leaves it to the join which rows are late."""
    match relation:
        case Filter() | Project() | Expansion():
            return relation.with_inputs(_keeping_late(relation.input))
        case AssignWindow():
            return replace(relation, keeps_late=True)
    return relation


def with_late_sides(relation: Relation, table: str) -> Relation | None:
    """The relation whose join on time sends late rows to `table`; None where it has not just one such join."""
    match relation:
        case Filter() | Project() | Expansion():
            below = with_late_sides(relation.input, table)
            return None if below is None else relation.with_inputs(below)
        case TimedJoin() if not isinstance(relation.form, Latest):
            if any(with_late_sides(item, table) is not None for item in relation.inputs):
                return None
            sides = relation.inputs
            if isinstance(relation.form, SameWindow):
                sides = tuple(_keeping_late(item) for item in sides)
            left, right = sides
            return replace(relation, left=left, right=right, late_table=table)
        case Join():
            of_left, of_right = (with_late_sides(item, table) for item in relation.inputs)
            if (of_left is None) == (of_right is None):
                return None
            return relation.with_inputs(of_left or relation.left, of_right or relation.right)
    return None
