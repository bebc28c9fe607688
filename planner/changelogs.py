"""A stream known by key, made to say what it takes back. Knows no operator."""

from __future__ import annotations

from dataclasses import dataclass

from millrace.operators.sink import Changelog
from millrace.planner.logical import Relation, Unary


@dataclass(frozen=True)
class Retracting(Unary):
    """The rows of an upsert stream; the row that a new one replaces is taken back first."""

    @property
    def changelog(self) -> Changelog:
        return Changelog.RETRACT


def retracting(relation: Relation) -> Relation:
    """The relation, which takes back what it replaces if it did not before."""
    return Retracting(relation) if relation.changelog is Changelog.UPSERT else relation
