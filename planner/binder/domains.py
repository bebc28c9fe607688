"""Correlated queries in general: computed once for each distinct set of outer values they read, and joined by these.

The domain is what the outer rows have of those values, each set once; the query is run over it, row by row of the
domain, and its rows carry the values along. See Neumann and Kemper, "Unnesting Arbitrary Queries" (BTW 2015).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa

from millrace.errors import Unsupported
from millrace.operators.aggregates.calls import CHANGES, AggregateCall
from millrace.operators.expressions.tree import Call, Column, Expression, Literal
from millrace.planner.binder.correlation import OUTER, Plain, decorrelate, is_correlated, refused
from millrace.planner.binder.sources import is_one_row
from millrace.planner.expressions import column, conjunction, rewrite, walk
from millrace.planner.join_conditions import NULL_EQUAL, conditions_of, joined
from millrace.planner.logical import Aggregate, Filter, Join, Project, Read, Relation, Union
from millrace.planner.ranking import TopN
from millrace.planner.table_functions import Expansion

Resolve = Callable[[Expression, object], Expression]


def made_plain(outer: Relation, inner: Relation, resolve: Resolve, node: object) -> Plain:
    """`inner` without outer columns: its conditions taken out where that suffices, else over a domain.

    `resolve` maps a column of the query around it to a value over `outer`. Raises Unsupported MR1903.
    """
    try:
        return decorrelate(inner, node)
    except Unsupported as error:
        if error.code != "MR1903":
            raise
    return over_domain(outer, inner, resolve, node)


def over_domain(outer: Relation, inner: Relation, resolve: Resolve, node: object) -> Plain:
    """`inner` over the distinct values that it reads of `outer`; these stand behind its own columns."""
    read = _outer_columns(inner)
    if not read:
        return Plain(inner)
    names = tuple(f"_d{at}" for at in range(len(read)))
    values = tuple(resolve(replace(c, index=c.index - OUTER), node) for c in read)
    domain = Aggregate(Project(outer, values, names), tuple(range(len(read))), (), names, CHANGES)
    places = {c.index: at for at, c in enumerate(read)}
    whole = _dependent(domain, inner, places, node)
    width, own = len(read), len(inner.schema)
    order = [*range(width, width + own), *range(width)]
    shown = Project(
        whole,
        tuple(column(whole.schema, at) for at in order),
        (*inner.schema.names, *names),
    )
    conditions = tuple(
        Call(NULL_EQUAL, (column(shown.schema, own + at), c), pa.bool_()) for at, c in enumerate(read)
    )
    return Plain(shown, conditions)


def _outer_columns(relation: Relation) -> list[Column]:
    """The outer columns that anything in the relation reads."""
    found: dict[int, Column] = {}
    for expression in _expressions(relation):
        for part in walk(expression):
            if isinstance(part, Column) and part.index >= OUTER:
                found.setdefault(part.index, part)
    return [found[index] for index in sorted(found)]


def _expressions(relation: Relation) -> list[Expression]:
    if isinstance(relation, Read):
        return []
    own: list[Expression] = []
    match relation:
        case Filter():
            own = [relation.predicate]
        case Project():
            own = [*relation.expressions]
        case Join() if relation.condition is not None:
            own = [relation.condition]
        case Expansion():
            own = [*relation.arguments, *([] if relation.condition is None else [relation.condition])]
    return own + [e for item in relation.inputs for e in _expressions(item)]


def _dependent(domain: Relation, relation: Relation, places: dict[int, int], node: object) -> Relation:
    """Each row of the domain with the rows of `relation` for it, whose columns stand behind the domain's."""
    width = len(domain.schema)
    if is_one_row(relation):
        kept = tuple(column(domain.schema, i) for i in range(width))
        true = Literal(True, pa.bool_())
        return Project(domain, (*kept, true), (*domain.schema.names, relation.schema.names[0]))
    if not is_correlated(relation):
        return joined(domain, relation, "cross", [])

    def move(e: Expression) -> Expression:
        return rewrite(e, lambda part: _moved(part, width, places))

    match relation:
        case Project():
            below = _dependent(domain, relation.input, places, node)
            kept = tuple(column(below.schema, i) for i in range(width))
            values = (*kept, *(move(e) for e in relation.expressions))
            return Project(below, values, (*domain.schema.names, *relation.names))
        case Filter():
            below = _dependent(domain, relation.input, places, node)
            return Filter(below, move(relation.predicate))
        case Expansion():
            below = _dependent(domain, relation.input, places, node)
            condition = None if relation.condition is None else move(relation.condition)
            arguments = tuple(move(a) for a in relation.arguments)
            return replace(relation, input=below, arguments=arguments, condition=condition)
        case Aggregate() if relation.window_end is None:
            below = _dependent(domain, relation.input, places, node)
            keys = (*range(width), *(k + width for k in relation.keys))
            calls = tuple(_behind(call, width) for call in relation.calls)
            names = (*domain.schema.names, *relation.names)
            return replace(relation, input=below, keys=keys, calls=calls, names=names)
        case TopN():
            below = _dependent(domain, relation.input, places, node)
            partition = (*range(width), *(k + width for k in relation.partition))
            order = tuple(replace(key, column=key.column + width) for key in relation.order)
            return replace(relation, input=below, partition=partition, order=order)
        case Union():
            return Union(tuple(_dependent(domain, part, places, node) for part in relation.parts))
        case Join():
            return _join(domain, relation, places, move, node)
    raise refused(node, f"{type(relation).__name__} stands between the outer row and the condition on it")


def _join(
    domain: Relation,
    relation: Join,
    places: dict[int, int],
    move: Callable[[Expression], Expression],
    node: object,
) -> Relation:
    left = _dependent(domain, relation.left, places, node)
    parts = [move(part) for part in conditions_of(relation)]
    if relation.kind in ("inner", "cross"):
        both = _dependent(left, relation.right, places, node)
        return Filter(both, conjunction(parts)) if parts else both
    if relation.kind in ("left", "semi", "anti") and not is_correlated(relation.right):
        return joined(left, relation.right, relation.kind, parts, relation.position, relation.ttl)
    raise refused(node, f"a {relation.kind.upper()} JOIN of it reads the outer query on its right side")


def _moved(e: Expression, width: int, places: dict[int, int]) -> Expression | None:
    if not isinstance(e, Column):
        return None
    return replace(e, index=places[e.index] if e.index >= OUTER else e.index + width)


def _behind(call: AggregateCall, width: int) -> AggregateCall:
    return replace(
        call,
        arguments=tuple(a + width for a in call.arguments),
        filter=None if call.filter is None else call.filter + width,
        order_by=tuple((c + width, descending, first) for c, descending, first in call.order_by),
    )
