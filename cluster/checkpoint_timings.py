"""How long a partition's part in checkpoints took, and how large it was. Takes no part in them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from millrace.state.checkpoints.manifest import Contribution, ObjectRef
from millrace.state.checkpoints.number import CheckpointNumber


@dataclass(frozen=True, slots=True)
class CheckpointTiming:
    """Of one checkpoint: seconds from barrier to the last cut, from there to the store; bytes written and referred to."""

    number: CheckpointNumber
    alignment_s: float
    store_s: float
    written_bytes: int
    state_bytes: int


class CheckpointTimings:
    """Fed by the partition as it goes. Each method is called by one thread; `last` may be read by any."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun: dict[CheckpointNumber, float] = {}
        self._cut: dict[CheckpointNumber, tuple[float, float]] = {}
        self._objects: frozenset[str] = frozenset()
        self.stored = 0
        self.last: CheckpointTiming | None = None

    def begin(self, number: CheckpointNumber) -> None:
        """The barrier was let in at the sources. Earlier ones that nobody finished were given up."""
        self._begun = {number: self._clock()}

    def cut(self, number: CheckpointNumber) -> None:
        """Every region was cut."""
        now = self._clock()
        self._cut = {n: at for n, at in list(self._cut.items()) if n >= number}  # the other thread pops
        self._cut[number] = (now - self._begun.get(number, now), now)

    def store(self, number: CheckpointNumber, contribution: Contribution) -> None:
        """Everything was stored."""
        now = self._clock()
        alignment, cut_at = self._cut.pop(number, (0.0, now))
        state: dict[str, ObjectRef] = {
            ref.key: ref for chain in contribution.tables for ref in chain.objects()
        }
        written = sum(ref.size for key, ref in state.items() if key not in self._objects)
        written += sum(o.content.size for o in contribution.outboxes if o.number == number)
        self._objects = frozenset(state)
        self.stored += 1
        self.last = CheckpointTiming(
            number, alignment, now - cut_at, written, sum(ref.size for ref in state.values())
        )
