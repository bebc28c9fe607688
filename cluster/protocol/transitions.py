"""Which change of phase is legal, in tables; an illegal one carries its story. Knows no machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

from millrace.errors import Bug

STORY_LENGTH = 40


class PartitionPhase(Enum):
    """Where a partition's owner is in its life."""

    STOPPED = "stopped"
    PURGING = "purging"
    RESTORING = "restoring"
    FENCING = "fencing"
    PUBLISHING = "publishing"
    CONNECTING = "connecting"
    RUNNING = "running"
    DRAINING = "draining"
    ENDED = "ended"


class JobPhase(Enum):
    """Where a coordinator is with its job."""

    STARTING = "starting"
    TAKING_OVER = "taking over"
    READING = "reading"
    ASSIGNING = "assigning"
    RECOVERING = "recovering"
    RUNNING = "running"
    DRAINING = "draining"
    ENDED = "ended"


_P = PartitionPhase
PARTITION_TRANSITIONS: Mapping[PartitionPhase, frozenset[PartitionPhase]] = {
    _P.STOPPED: frozenset({_P.PURGING, _P.ENDED}),
    _P.PURGING: frozenset({_P.RESTORING, _P.ENDED}),
    _P.RESTORING: frozenset({_P.FENCING, _P.ENDED}),
    _P.FENCING: frozenset({_P.PUBLISHING, _P.ENDED}),
    _P.PUBLISHING: frozenset({_P.CONNECTING, _P.ENDED}),
    _P.CONNECTING: frozenset({_P.RUNNING, _P.ENDED}),
    _P.RUNNING: frozenset({_P.DRAINING, _P.ENDED}),
    _P.DRAINING: frozenset({_P.RUNNING, _P.ENDED}),
    _P.ENDED: frozenset(),
}
_J = JobPhase
JOB_TRANSITIONS: Mapping[JobPhase, frozenset[JobPhase]] = {
    _J.STARTING: frozenset({_J.TAKING_OVER, _J.ENDED}),
    _J.TAKING_OVER: frozenset({_J.STARTING, _J.READING, _J.ENDED}),
    _J.READING: frozenset({_J.ASSIGNING, _J.RECOVERING, _J.ENDED}),
    _J.ASSIGNING: frozenset({_J.RECOVERING, _J.ENDED}),
    _J.RECOVERING: frozenset({_J.RUNNING, _J.READING, _J.ENDED}),
    _J.RUNNING: frozenset({_J.READING, _J.DRAINING, _J.ENDED}),
    _J.DRAINING: frozenset({_J.READING, _J.ENDED}),
    _J.ENDED: frozenset(),
}

PhaseT = TypeVar("PhaseT", bound=Enum)


class IllegalTransition(Bug):
    """A machine was about to change phase in a way that no table allows."""

    default_code = "MR9012"


class Phases(Generic[PhaseT]):
    """The present phase of one machine, and what led to it."""

    def __init__(self, name: str, first: PhaseT, table: Mapping[PhaseT, frozenset[PhaseT]]) -> None:
        self.now: PhaseT = first
        self._name = name
        self._table = table
        self._story: deque[str] = deque(maxlen=STORY_LENGTH)

    def note(self, event: object) -> None:
        """Remember that this came, for the story."""
        self._story.append(type(event).__name__)

    def go(self, phase: PhaseT) -> None:
        """Change phase; raises `IllegalTransition` where the table has no such change."""
        if phase not in self._table[self.now]:
            raise IllegalTransition(
                f"{self._name} can not go from {self.now.value} to {phase.value}; so far: {' '.join(self._story)}",
                hint="report this with the log of the process",
            )
        self._story.append(f"→{phase.value}")
        self.now = phase
