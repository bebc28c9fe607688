"""Upserts are made into changes where what reads them can not know rows by key."""

from __future__ import annotations

from millrace.operators.sink import Changelog
from millrace.planner.expressions import columns_of
from millrace.planner.logical import BadRecords, Filter, Join, LateInput, Project, Read, Relation
from millrace.planner.normalized import Normalized
from millrace.planner.rules.traversal import bottom_up
from millrace.planner.table_lookup import TableLookup
from millrace.planner.timed_joins import LateSides, TimedJoin


def normalize_upserts(relation: Relation) -> Relation:
    """Upserts pass what keeps their key: projections of it, filters by it, joins. All else reads changes."""
    return bottom_up(relation, _normalize)


def _normalize(node: Relation) -> Relation:
    inputs = node.inputs
    if isinstance(node, Read | Normalized) or all(i.changelog is not Changelog.UPSERT for i in inputs):
        return node
    return node.with_inputs(*(i if _fits(node, i) else Normalized(i) for i in inputs))


def _fits(node: Relation, below: Relation) -> bool:
    if below.changelog is not Changelog.UPSERT:
        return True
    match node:
        case Project():
            return node.key is not None
        case Filter():
            return columns_of([node.predicate]) <= set(below.key or ())
        case Join() | TableLookup() | TimedJoin():
            return below.key is not None
        case BadRecords() | LateInput() | LateSides():
            return True
    return False
