"""The spec of regular joins: both sides kept for ever (or until idle), any row of one with any of the other."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from millrace.operators.expressions.text import to_sql
from millrace.operators.expressions.tree import Expression
from millrace.operators.operator import Context, Operator
from millrace.operators.sink import Changelog
from millrace.operators.spec import OperatorSpec, serialisable


@serialisable
class JoinKind(enum.Enum):
    """Which rows the result has besides the pairs that match."""

    INNER = "inner"
    LEFT = "left"
    RIGHT = "right"
    FULL = "full"
    SEMI = "semi"
    """Left rows that have a match, once."""
    ANTI = "anti"
    """Left rows that have none."""

    @property
    def pairs(self) -> bool:
        """Whether columns of both sides come out."""
        return self not in (JoinKind.SEMI, JoinKind.ANTI)

    def keeps(self, port: int) -> bool:
        """Whether rows of that side are known by whether they have a match."""
        return self is JoinKind.FULL or self in (
            (JoinKind.LEFT, JoinKind.SEMI, JoinKind.ANTI) if port == 0 else (JoinKind.RIGHT,)
        )


@serialisable
@dataclass(frozen=True, slots=True)
class SideInput:
    """What a join knows of one input: its changelog mode and, of a changelog, the columns that identify a row."""

    changelog: Changelog = Changelog.APPEND
    key: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        assert self.changelog is not Changelog.UPSERT or self.key is not None


@dataclass(frozen=True, slots=True)
class RegularJoin(OperatorSpec):
    """Rows of `left` and `right` whose keys are equal and for which `condition` is true.

    `condition` reads the columns of both, the left one's first; so do `outputs`, which the result has under
    `names` (of SEMI and ANTI: left ones only). A NULL key matches nothing, unless `null_equal` says for that
    key that NULL equals NULL. No keys: every pair. `ttl` (µs): a key that no row of either side touched for so
    long is forgotten.
    """

    title: ClassVar[str] = "Join"

    left: pa.Schema
    right: pa.Schema
    kind: JoinKind
    left_keys: tuple[int, ...]
    right_keys: tuple[int, ...]
    null_equal: tuple[bool, ...]
    condition: Expression | None
    outputs: tuple[int, ...]
    names: tuple[str, ...]
    left_input: SideInput = SideInput()
    right_input: SideInput = SideInput()
    ttl: int | None = None

    def __post_init__(self) -> None:
        assert len(self.left_keys) == len(self.right_keys) == len(self.null_equal)
        assert len(self.outputs) == len(self.names) > 0
        assert self.kind.pairs or all(place < len(self.left) for place in self.outputs)
        for a, b in zip(self.left_keys, self.right_keys, strict=True):
            assert self.left.field(a).type == self.right.field(b).type, "keys of two types"

    @property
    def output_schema(self) -> pa.Schema:
        """The chosen columns; those of a side that may be missing can be NULL."""
        both = [*self.left, *self.right]
        width = len(self.left)
        fields = []
        for place, name in zip(self.outputs, self.names, strict=True):
            missing = self.kind.pairs and self.kind.keeps(1 if place < width else 0)
            field = both[place].with_name(name)
            fields.append(field.with_nullable(True) if missing else field)
        return pa.schema(fields)

    def keys(self, port: int) -> tuple[int, ...]:
        """The key columns of one side."""
        return self.right_keys if port else self.left_keys

    def build(self, context: Context) -> Operator:
        from millrace.operators.joins.regular import RegularJoinOperator  # deferred: kernels import numba

        return RegularJoinOperator(self, context)  # pyright: ignore[reportArgumentType]

    def details(self) -> dict[str, str]:
        keys = [
            f"{self.left.field(a).name} {'IS NOT DISTINCT FROM' if null else '='} {self.right.field(b).name}"
            for a, b, null in zip(self.left_keys, self.right_keys, self.null_equal, strict=True)
        ]
        shown = {"kind": self.kind.value, "on": " AND ".join(keys) or "every pair"}
        if self.condition is not None:
            shown["condition"] = to_sql(self.condition)
        shown["state"] = f"left: {self._kept(0)}; right: {self._kept(1)}"
        shown["expires"] = (
            "never" if self.ttl is None else f"keys that no row touched for {self.ttl / 1e6:g} s"
        )
        return shown

    def _kept(self, port: int) -> str:
        given, schema = (self.right_input, self.right) if port else (self.left_input, self.left)
        if given.changelog is Changelog.APPEND:
            present = port and not self.kind.pairs and self.condition is None
            return "the keys that are there" if present else "a list of rows a key"
        if given.key is None:
            return "rows with their number a key"
        names = ", ".join(schema.field(k).name for k in given.key)
        if set(given.key) == set(self.keys(port)):
            return "one row a key"
        return f"rows a key, each known by {names}" if names else "one row"
