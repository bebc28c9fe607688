"""The relation that makes changes of upserts. Keeps no row."""

from __future__ import annotations

from dataclasses import dataclass

from millrace.operators.sink import Changelog
from millrace.planner.logical import Unary


@dataclass(frozen=True)
class Normalized(Unary):
    """The rows of an upsert stream as changes that say what they take back."""

    @property
    def changelog(self) -> Changelog:
        return Changelog.RETRACT
