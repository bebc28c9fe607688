"""Joins that would remember for ever get a time to live, where the job has one. Runs once a statement."""

from __future__ import annotations

from dataclasses import replace

from millrace.planner.logical import Join, Relation
from millrace.planner.rules.traversal import bottom_up


def expire_state(relation: Relation, ttl: int) -> Relation:
    """The relation whose joins forget keys that were not touched for `ttl` µs."""

    def limited(node: Relation) -> Relation:
        return replace(node, ttl=ttl) if isinstance(node, Join) and node.ttl is None else node

    return bottom_up(relation, limited)
