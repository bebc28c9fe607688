"""Walking a relation tree for rules. Rewrites nothing by itself."""

from __future__ import annotations

from collections.abc import Callable

from millrace.planner.logical import Read, Relation


def bottom_up(relation: Relation, change: Callable[[Relation], Relation]) -> Relation:
    """Every node after its inputs. What is behind a `Read` is left alone: it was rewritten with its own statement."""
    if isinstance(relation, Read):
        return relation
    inputs = relation.inputs
    if inputs:
        relation = relation.with_inputs(*(bottom_up(item, change) for item in inputs))
    return change(relation)


def top_down(relation: Relation, change: Callable[[Relation], Relation]) -> Relation:
    """Every node before its inputs."""
    if isinstance(relation, Read):
        return relation
    relation = change(relation)
    if isinstance(relation, Read) or not relation.inputs:
        return relation
    return relation.with_inputs(*(top_down(item, change) for item in relation.inputs))
