"""The relation that makes changes of upserts. Keeps no row."""

from __future__ import annotations

from dataclasses import dataclass

from millrace.operators.sink import Changelog
from millrace.planner.logical import Relation, Unary


@dataclass(frozen=True)
class Normalized(Unary):
    """The rows of an upsert stream as changes that say what they take back."""

    @property
    def changelog(self) -> Changelog:
        return Changelog.RETRACT


def normalized(relation: Relation) -> Relation:
    """The relation, which says what it takes back if it did not before."""
    return Normalized(relation) if relation.changelog is Changelog.UPSERT else relation
