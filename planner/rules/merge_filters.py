"""Two filters in a row are one."""

from __future__ import annotations

from dataclasses import replace

from millrace.planner.expressions import conjunction, conjuncts
from millrace.planner.logical import Filter, Relation
from millrace.planner.rules.traversal import bottom_up


def merge_filters(relation: Relation) -> Relation:
    """Filter over Filter becomes one Filter; the inner condition comes first."""
    return bottom_up(relation, _merge)


def _merge(node: Relation) -> Relation:
    if not isinstance(node, Filter) or not isinstance(node.input, Filter):
        return node
    both = conjunction([*conjuncts(node.input.predicate), *conjuncts(node.predicate)])
    return replace(node, input=node.input.input, predicate=both)
