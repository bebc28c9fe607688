"""A rank of which only the first few are kept is a top-N, which needs to hold no more than these."""

from __future__ import annotations

from millrace.operators.expressions.tree import Call, Column, Expression, Literal
from millrace.planner.expressions import conjunction, conjuncts, substitute
from millrace.planner.logical import Filter, Project, Relation
from millrace.planner.ranking import Ranking, TopN
from millrace.planner.rules.traversal import top_down


def rank_to_top(relation: Relation) -> Relation:
    """Filter(rank <= n) over Ranking, with projections between, becomes TopN."""
    return top_down(relation, _top)


def _top(node: Relation) -> Relation:
    if not isinstance(node, Filter):
        return node
    if isinstance(node.input, Project):
        project = node.input
        inner = _top(Filter(project.input, substitute(node.predicate, project.expressions)))
        if isinstance(inner, Filter) and not isinstance(inner.input, TopN):
            return node
        return Project(inner, project.expressions, project.names, project.window_time)
    if not isinstance(node.input, Ranking):
        return node
    ranking = node.input
    place = len(ranking.input.schema)
    rest: list[Expression] = []
    limit: int | None = None
    for part in conjuncts(node.predicate):
        found = _limit(part, place)
        if found is not None:
            limit = max(found, 0) if limit is None else max(min(limit, found), 0)
        if found is None or (found != 1 and isinstance(part, Call) and part.function == "="):
            rest.append(part)
    if limit is None:
        return node
    top = TopN(
        ranking.input,
        ranking.partition,
        ranking.order,
        limit,
        0,
        ranking.name,
        ranking.function,
        ranking.position,
    )
    return Filter(top, conjunction(rest)) if rest else top


def _limit(part: Expression, place: int) -> int | None:
    if not isinstance(part, Call) or part.function not in ("<=", "<", "=", ">=", ">"):
        return None
    left, right = part.arguments
    function = part.function
    if isinstance(right, Column):
        left, right = right, left
        function = {"<=": ">=", "<": ">", ">=": "<=", ">": "<"}.get(function, function)
    if not isinstance(left, Column) or left.index != place or not isinstance(right, Literal):
        return None
    if not isinstance(right.value, int):
        return None
    if function == "<=":
        return right.value
    if function == "<":
        return right.value - 1
    return right.value if function == "=" else None
