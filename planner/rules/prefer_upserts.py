"""Where the reader knows rows by key, an aggregate or a top-N need not take back the row that its new one replaces."""

from __future__ import annotations

from dataclasses import replace

from millrace.operators.aggregates.calls import EmissionKind
from millrace.planner.logical import Aggregate, Project, Relation, Session, WindowedAggregate
from millrace.planner.ranking import TopN


def prefer_upserts(relation: Relation) -> Relation:
    """The relation sending upserts, where only projections that keep the key stand above it.

    Not through a filter: a row that stops to pass it would never be taken back. Not through `Read`: a
    stream has other readers.
    """
    match relation:
        case Project() if relation.key is not None:
            below = prefer_upserts(relation.input)
            return relation if below is relation.input else replace(relation, input=below)
        case Aggregate() | WindowedAggregate():
            session = isinstance(relation, WindowedAggregate) and isinstance(relation.window, Session)
            changes = relation.emission.kind in (EmissionKind.CHANGES, EmissionKind.INTERVAL)
            if session or not relation.calls or relation.key is None or not relation.key:
                return relation
            if changes or (isinstance(relation, WindowedAggregate) and relation.allowed_lateness):
                return replace(relation, emission=replace(relation.emission, upsert=True))
        case TopN() if relation.keeps_one:
            return replace(relation, upsert=True)
    return relation
