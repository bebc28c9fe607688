"""The spec of a join with a table as it is when a row comes: later changes of the table send nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from millrace.operators.expressions.tree import Expression
from millrace.operators.joins.regular_spec import JoinKind, RegularJoin, SideInput
from millrace.operators.operator import Context, Operator
from millrace.operators.spec import OperatorSpec

_APPEND = SideInput()


@dataclass(frozen=True, slots=True)
class LookupJoin(OperatorSpec):
    """Rows of `left`, which are never taken back, with the rows that `right` holds when they come.

    Keys, `condition`, `outputs` and `names` are those of `RegularJoin`; `kind` is INNER or LEFT.
    """

    title: ClassVar[str] = "LookupJoin"

    left: pa.Schema
    right: pa.Schema
    kind: JoinKind
    left_keys: tuple[int, ...]
    right_keys: tuple[int, ...]
    condition: Expression | None
    outputs: tuple[int, ...]
    names: tuple[str, ...]
    right_input: SideInput = _APPEND

    def __post_init__(self) -> None:
        assert self.kind in (JoinKind.INNER, JoinKind.LEFT)

    @property
    def regular(self) -> RegularJoin:
        """The regular join with the same pairs."""
        strict = (False,) * len(self.left_keys)
        return RegularJoin(
            self.left,
            self.right,
            self.kind,
            self.left_keys,
            self.right_keys,
            strict,
            self.condition,
            self.outputs,
            self.names,
            SideInput(),
            self.right_input,
        )

    @property
    def output_schema(self) -> pa.Schema:
        return self.regular.output_schema

    def build(self, context: Context) -> Operator:
        from millrace.operators.joins.lookup import LookupJoinOperator  # deferred: kernels import numba

        return LookupJoinOperator(self, context)  # pyright: ignore[reportArgumentType]

    def details(self) -> dict[str, str]:
        shown = self.regular.details()
        return {
            "kind": shown["kind"],
            "on": shown["on"],
            **({"condition": shown["condition"]} if "condition" in shown else {}),
            "table": "as it is when a row comes; its later changes send nothing",
            "state": shown["state"].split("; ", 1)[1].replace("right", "table", 1),
            "expires": "rows go when the table loses them",
        }
