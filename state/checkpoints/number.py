"""The number of a checkpoint: the epoch that issued it, then a count. Knows no checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from millrace.errors import Invalid

Epoch = NewType("Epoch", int)
"""Fences owners: what carries a lower one is refused. Raised only by a record in the ledger."""

_COUNT_BITS = 32


@dataclass(frozen=True, slots=True, order=True)
class CheckpointNumber:
    """`epoch` is that of the coordinator which issued it, `count` rises within. Never issued twice."""

    epoch: int
    count: int

    def __post_init__(self) -> None:
        assert self.epoch >= 0 and 0 <= self.count < 1 << _COUNT_BITS

    @property
    def value(self) -> int:
        """One int64 that orders as the number does: what sinks get."""
        return self.epoch << _COUNT_BITS | self.count

    @classmethod
    def of(cls, value: int) -> CheckpointNumber:
        """The number with this `value`."""
        return cls(value >> _COUNT_BITS, value & ((1 << _COUNT_BITS) - 1))

    @classmethod
    def parse(cls, text: str) -> CheckpointNumber:
        """The number that is written like this (`2.17`). Raises Invalid MR1568."""
        epoch, dot, count = text.strip().partition(".")
        if not (dot and epoch.isdigit() and count.isdigit()):
            raise Invalid(
                f"{text!r} is not the number of a checkpoint", code="MR1568", hint="it is written like 2.17"
            )
        return cls(int(epoch), int(count))

    def __str__(self) -> str:
        return f"{self.epoch}.{self.count}"


NO_CHECKPOINT = CheckpointNumber(0, 0)
"""Before the first one: a job starts from its sources' configured start."""
