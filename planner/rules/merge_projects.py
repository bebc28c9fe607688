"""Projections in a row are one, and one that changes nothing is none."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from millrace.operators.expressions.evaluate import is_deterministic
from millrace.operators.expressions.tree import Column, Literal
from millrace.planner.expressions import substitute, walk
from millrace.planner.logical import Aggregate, Project, Relation, Union, WindowedAggregate
from millrace.planner.rules.traversal import bottom_up


def merge_projects(relation: Relation) -> Relation:
    """Substitutes an inner projection into an outer one unless that would compute something twice.

    A projection that only renames an aggregate's columns in order names the aggregate's output instead.
    """
    return bottom_up(relation, _merge)


def _merge(node: Relation) -> Relation:
    if not isinstance(node, Project):
        return node
    below = node.input
    if isinstance(below, Project):
        uses = Counter(e.index for root in node.expressions for e in walk(root) if isinstance(e, Column))
        inner = below.expressions
        cheap = all(
            isinstance(inner[i], Column | Literal) or (count == 1 and is_deterministic(inner[i]))
            for i, count in uses.items()
        )
        if not cheap:
            return node
        time = None
        if node.event_time is not None and below.input.event_time is None:
            time = node.event_time
        values = tuple(substitute(e, inner) for e in node.expressions)
        window_time = node.window_time
        if window_time is None and node.event_time is not None:
            at = node.event_time
            source = node.expressions[at]
            if isinstance(source, Column) and source.index == below.window_time:
                window_time = at
        return _merge(Project(below.input, values, node.names, window_time if time is None else time))
    if node.names == tuple(below.schema.names) and _identity(node):
        return below
    if _identity(node) and isinstance(below, Aggregate | WindowedAggregate):
        return replace(below, names=node.names)
    if _identity(node) and isinstance(below, Union):
        first = below.parts[0]
        renamed = Project(first, tuple(node.expressions), node.names)
        return Union((_merge(renamed), *below.parts[1:]))
    return node


def _identity(node: Project) -> bool:
    return len(node.expressions) == len(node.input.schema) and all(
        isinstance(e, Column) and e.index == i for i, e in enumerate(node.expressions)
    )
