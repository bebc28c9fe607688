"""The temporal join by processing time as a spec: to each row the latest of the other side. Joins nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from millrace.operators.joins.interval import joined_schema, key_text
from millrace.operators.operator import Context, Operator
from millrace.operators.spec import OperatorSpec


@dataclass(frozen=True, slots=True)
class LatestJoin(OperatorSpec):
    """To each row of the append-only left input the right row with equal keys that arrived last, when it arrives.

    The right input is append-only or a changelog whose key is the join's: a row with weight -1 takes its key away
    unless one with weight +1 follows. What was sent is not touched by later changes of the right side. `kind` is inner
    or left: then rows without a match come alone. The right input's watermark holds nothing back.
    """

    title: ClassVar[str] = "LatestJoin"

    left: pa.Schema
    right: pa.Schema
    kind: str
    equal: tuple[tuple[int, int], ...]
    outputs: tuple[int, ...]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.kind in ("inner", "left"), self.kind

    @property
    def output_schema(self) -> pa.Schema:
        return joined_schema(self.left, self.right, self.kind, self.outputs, self.names)

    def build(self, context: Context) -> Operator:
        from millrace.operators.joins.temporal_operator import LatestJoinOperator  # breaks a cycle of types

        return LatestJoinOperator(self, context)  # pyright: ignore[reportArgumentType]

    def details(self) -> dict[str, str]:
        return {
            "kind": self.kind,
            "key": key_text(self.left, self.right, self.equal),
            "match": "the right row that is the key's latest when the left row arrives",
            "emit": "at once; later changes of the right side do not change what was sent",
            "state": "one right row a key, until it is deleted",
        }
