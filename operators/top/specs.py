"""What a plan says of top-N operators. Ranks nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.types as pt

from millrace.operators.operator import Context, Operator
from millrace.operators.sink import Changelog
from millrace.operators.spec import OperatorSpec

Order = tuple[tuple[int, bool, bool], ...]
"""ORDER BY items: (column, descending, nulls first). Rows that are equal in all of them stand as they arrived."""
BOUNDED_LIMIT = 64
"""Up to so many places of a partition are kept in an array of their own each."""


def sortable(kind: pa.DataType) -> bool:
    """Whether rows can be put in order of a column of this type."""
    return not (pt.is_nested(kind) or pt.is_null(kind) or kind == pa.month_day_nano_interval())


def fixed_code(kind: pa.DataType) -> bool:
    """Whether the order of single values of this type is that of numbers of at most 64 bits."""
    return (
        pt.is_integer(kind)
        or pt.is_boolean(kind)
        or pt.is_temporal(kind)
        or kind in (pa.float32(), pa.float64())
        or pt.is_decimal64(kind)
        or pt.is_decimal32(kind)
    ) and kind != pa.month_day_nano_interval()


@dataclass(frozen=True, slots=True)
class TopRows(OperatorSpec):
    """The rows of each partition whose place in `order` is above `offset` and at most `offset + limit`, as a changelog.

    `function` (row_number, rank, dense_rank) says how places count; `rank_name` adds the place (int64) as
    a last column. `limit` None keeps all rows. The output retracts what is no longer among the first.
    With `upsert` (one row a partition, from its first row on) it only says what replaces it.
    `changelog_input` is the mode of the input, and `input_key` what identifies its rows (None: all columns).
    """

    title: ClassVar[str] = "TopN"

    input: pa.Schema
    partition: tuple[int, ...]
    order: Order
    limit: int | None
    offset: int = 0
    function: str = "row_number"
    rank_name: str | None = None
    changelog_input: Changelog = Changelog.APPEND
    input_key: tuple[int, ...] | None = None
    upsert: bool = False

    def __post_init__(self) -> None:
        assert self.changelog_input is not Changelog.UPSERT or self.input_key
        assert not self.upsert or (self.limit == 1 and self.changelog_input is Changelog.APPEND)

    @property
    def output_schema(self) -> pa.Schema:
        return with_rank(self.input, self.rank_name)

    @property
    def bounded(self) -> bool:
        """Whether a partition needs its first few rows only, in an order of numbers."""
        return (
            self.changelog_input is Changelog.APPEND
            and self.function == "row_number"
            and self.offset == 0
            and self.limit is not None
            and 0 < self.limit <= BOUNDED_LIMIT
            and all(fixed_code(self.input.field(column).type) for column, _, _ in self.order)
        )

    @property
    def changelog(self) -> Changelog:
        """What the rows sent mean to those before."""
        return Changelog.UPSERT if self.upsert else Changelog.RETRACT

    @property
    def state(self) -> str:
        """What is remembered, in words."""
        if self.changelog_input is not Changelog.APPEND or self.limit is None:
            return "every row of each partition"
        last = self.limit + self.offset
        if self.function == "row_number":
            return f"the first {last} rows of each partition"
        return f"the rows of each partition with a {self.function} up to {last}"

    def build(self, context: Context) -> Operator:
        if self.bounded:
            from millrace.operators.top.bounded import BoundedTop  # deferred: kernels import numba

            return BoundedTop(self, context)  # pyright: ignore[reportArgumentType]
        from millrace.operators.top.updating import UpdatingTop  # deferred: kernels import numba

        return UpdatingTop(self, context)  # pyright: ignore[reportArgumentType]

    def details(self) -> dict[str, str]:
        shown = described(self.input, self.partition, self.order, self.function, self.limit, self.offset)
        shown["state"] = self.state
        shown["changelog"] = self.changelog.value
        return shown


@dataclass(frozen=True, slots=True)
class WindowTopRows(OperatorSpec):
    """The same over the rows of windows: each window is ranked once, when the watermark passes its end.

    `end` is the column (one of `partition`) with the end of the row's window: a timestamp, or an integer
    that counts `time_unit`s. The input and the output are append-only; rows of windows that are over go to
    `context.late`.
    """

    title: ClassVar[str] = "WindowTopN"

    input: pa.Schema
    partition: tuple[int, ...]
    end: int
    order: Order
    limit: int | None
    offset: int = 0
    function: str = "row_number"
    rank_name: str | None = None
    time_unit: str = "ms"

    def __post_init__(self) -> None:
        assert self.end in self.partition

    @property
    def output_schema(self) -> pa.Schema:
        return with_rank(self.input, self.rank_name)

    @property
    def changelog(self) -> Changelog:
        """What the rows sent mean to those before."""
        return Changelog.APPEND

    def build(self, context: Context) -> Operator:
        from millrace.operators.top.windowed import WindowTop  # deferred: kernels import numba

        return WindowTop(self, context)  # pyright: ignore[reportArgumentType]

    def details(self) -> dict[str, str]:
        shown = described(self.input, self.partition, self.order, self.function, self.limit, self.offset)
        shown["state"] = "the rows of open windows"
        shown["expires"] = f"when the watermark passes {self.input.field(self.end).name}"
        return shown


def with_rank(schema: pa.Schema, rank_name: str | None) -> pa.Schema:
    """The columns of a top-N's output."""
    return schema if rank_name is None else schema.append(pa.field(rank_name, pa.int64()))


def described(
    schema: pa.Schema,
    partition: tuple[int, ...],
    order: Order,
    function: str,
    limit: int | None,
    offset: int,
) -> dict[str, str]:
    """The part of a plan's text that all top-N have."""
    items = [
        schema.field(column).name
        + (" desc" if descending else "")
        + ("" if first == descending else " nulls first" if first else " nulls last")
        for column, descending, first in order
    ]
    shown = {
        "key": ", ".join(schema.field(i).name for i in partition) or "none",
        "order": ", ".join(items) or "arrival",
        "rank": function,
        "limit": "none" if limit is None else str(limit),
    }
    if offset:
        shown["offset"] = str(offset)
    return shown
