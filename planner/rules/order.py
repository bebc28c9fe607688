"""The order in which rewrite rules run. Each takes a relation and gives an equal one."""

from __future__ import annotations

from collections.abc import Callable

from millrace.planner.logical import Relation
from millrace.planner.rules.fuse_windows import fuse_windows
from millrace.planner.rules.merge_filters import merge_filters
from millrace.planner.rules.merge_projects import merge_projects
from millrace.planner.rules.normalize_upserts import normalize_upserts
from millrace.planner.rules.order_joins import order_joins
from millrace.planner.rules.prune_columns import prune_columns
from millrace.planner.rules.push_predicates import push_predicates
from millrace.planner.rules.rank_to_top import rank_to_top
from millrace.planner.rules.read_through_projects import read_through_projects
from millrace.planner.rules.to_timed_join import time_joins

RULES: tuple[Callable[[Relation], Relation], ...] = (
    normalize_upserts,
    rank_to_top,
    push_predicates,
    order_joins,
    push_predicates,
    time_joins,
    merge_filters,
    fuse_windows,
    prune_columns,
    merge_projects,
    read_through_projects,
)


def optimize(relation: Relation) -> Relation:
    """The relation after all rules."""
    for rule in RULES:
        after = rule(relation)
        assert after.schema.equals(relation.schema), f"{rule.__name__} changed the columns"
        relation = after
    return relation
