"""An upsert stream says what it takes back where its reader has to know: below all but what keeps to its key."""

from __future__ import annotations

from millrace.operators.sink import Changelog
from millrace.planner.changelogs import Retracting, retracting
from millrace.planner.expressions import columns_of
from millrace.planner.logical import BadRecords, Filter, LateInput, Project, Relation
from millrace.planner.rules.traversal import bottom_up


def take_back_upserts(relation: Relation) -> Relation:
    """The relation with its upsert inputs made to take rows back, as high up as that is right."""
    return bottom_up(relation, _settle)


def _settle(relation: Relation) -> Relation:
    if all(item.changelog is not Changelog.UPSERT for item in relation.inputs) or _keeps_to_key(relation):
        return relation
    return relation.with_inputs(*(retracting(item) for item in relation.inputs))


def _keeps_to_key(relation: Relation) -> bool:
    """Whether rows with the same key fare alike, so that an upsert in is an upsert out."""
    match relation:
        case Filter():
            return columns_of([relation.predicate]) <= set(relation.input.key or ())
        case Project():
            return relation.key is not None
        case Retracting() | BadRecords() | LateInput():
            return True
    return False
