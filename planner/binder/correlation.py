"""Correlated subqueries made plain: conditions on the outer row are taken out, to become those of a join.

A column of the outer query stands in the inner relation as a column from `OUTER` on. Binds no text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa

from millrace.operators.expressions.tree import Call, Case, Column, Expression, Literal
from millrace.planner.binder.errors import unsupported
from millrace.planner.expressions import column, columns_of, conjunction, conjuncts, remap, rewrite
from millrace.planner.join_conditions import EQUAL, conditions_of, joined
from millrace.planner.logical import Aggregate, Filter, Join, Project, Read, Relation
from millrace.planner.ranking import TopN
from millrace.planner.table_functions import Expansion

OUTER = 10_000_000
"""Column `OUTER + i` is column i of the outer query."""
COUNTS = frozenset({"count", "approx_count_distinct", "count_if", "regr_count"})
"""Aggregates that are 0, not NULL, where there is no row."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A relation that reads nothing outer: the columns it had, perhaps more behind them.

    `conditions` are over its columns and outer ones; a row of it belongs to an outer row where all hold.
    """

    relation: Relation
    conditions: tuple[Expression, ...] = ()


def is_outer(expression: Expression) -> bool:
    """Whether it reads a column of the outer query."""
    return any(c >= OUTER for c in columns_of([expression]))


def is_correlated(relation: Relation) -> bool:
    """Whether anything in the relation reads the outer query."""
    for node in relation.walk():
        match node:
            case Filter() if is_outer(node.predicate):
                return True
            case Project() if any(is_outer(e) for e in node.expressions):
                return True
            case Join() if node.condition is not None and is_outer(node.condition):
                return True
            case Expansion() if any(is_outer(e) for e in node.arguments):
                return True
    return False


def decorrelate(relation: Relation, node: object) -> Plain:
    """The relation without outer columns. Raises Unsupported MR1903 where that can not be kept incrementally."""
    if isinstance(relation, Read) or not is_correlated(relation):
        return Plain(relation)
    match relation:
        case Filter():
            below = decorrelate(relation.input, node)
            parts = conjuncts(relation.predicate)
            own = [part for part in parts if not is_outer(part)]
            inner = Filter(below.relation, conjunction(own)) if own else below.relation
            return Plain(inner, (*below.conditions, *(part for part in parts if is_outer(part))))
        case Project():
            return _project(relation, node)
        case Aggregate():
            return _aggregate(relation, node)
        case TopN() if relation.rank_name is None:
            below = decorrelate(relation.input, node)
            inner, keys = _keys(below, node)
            partition = tuple(dict.fromkeys((*relation.partition, *keys)))
            return Plain(replace(relation, input=inner, partition=partition), below.conditions)
        case Join() if relation.kind in ("inner", "cross"):
            return _join(relation, node)
        case Expansion() if not any(is_outer(e) for e in relation.arguments):
            return _expansion(relation, node)
        case Expansion():
            raise unsupported(
                node,
                "MR1903",
                "a query in an expression can not make rows of a value of the outer query",
                "use functions of arrays, such as x = ANY(a), array_max(a), array_length(a)",
            )
    raise refused(node, f"{type(relation).__name__} stands between the outer row and the condition on it")


def _project(relation: Project, node: object) -> Plain:
    if any(is_outer(e) for e in relation.expressions):
        raise refused(node, "it selects columns of the outer query")
    below = decorrelate(relation.input, node)
    needed = sorted({c for c in columns_of(below.conditions) if c < OUTER})
    places = dict(relation.places)
    missing = [c for c in needed if c not in places]
    schema = below.relation.schema
    places |= {c: len(relation.expressions) + at for at, c in enumerate(missing)}
    moved = replace(
        relation,
        input=below.relation,
        expressions=(*relation.expressions, *(column(schema, c) for c in missing)),
        names=(*relation.names, *(f"_outer{at}" for at in range(len(missing)))),
    )
    return Plain(moved, _moved(below.conditions, places))


def _aggregate(relation: Aggregate, node: object) -> Plain:
    below = decorrelate(relation.input, node)
    inner, keys = _keys(below, node)
    added = [k for k in dict.fromkeys(keys) if k not in relation.keys]
    old, calls = len(relation.keys), len(relation.calls)
    names = (
        *relation.names[:old],
        *(f"_outer{at}" for at in range(len(added))),
        *relation.names[old:],
    )
    grouped = replace(relation, input=inner, keys=(*relation.keys, *added), names=names)
    places = {k: at for at, k in enumerate(relation.keys)}
    places |= {k: old + calls + at for at, k in enumerate(added)}
    order = [*range(old), *range(old + len(added), old + len(added) + calls), *range(old, old + len(added))]
    shown = Project(grouped, tuple(column(grouped.schema, i) for i in order), tuple(names[i] for i in order))
    return Plain(shown, _moved(below.conditions, places))


def _keys(below: Plain, node: object) -> tuple[Relation, list[int]]:
    """The relation, and its columns that conditions compare with outer ones for being equal."""
    keys = []
    for part in below.conditions:
        inner = [
            e
            for e in (part.arguments if isinstance(part, Call) and part.function == EQUAL else ())
            if isinstance(e, Column) and e.index < OUTER
        ]
        if len(inner) != 1:
            raise refused(
                node, "below an aggregate or LIMIT it compares with the outer row by more than column = value"
            )
        keys.append(inner[0].index)
    return below.relation, keys


def _join(relation: Join, node: object) -> Plain:
    left, right = decorrelate(relation.left, node), decorrelate(relation.right, node)
    width, other = len(relation.left.schema), len(relation.right.schema)
    wide = len(left.relation.schema)
    places = {**{i: i for i in range(width)}, **{width + i: wide + i for i in range(other)}}
    conditions = [remap(part, places) for part in conditions_of(relation) if not is_outer(part)]
    if any(is_outer(part) for part in conditions_of(relation)):
        raise refused(node, "ON reads the outer query: put that condition into WHERE")
    both = joined(left.relation, right.relation, relation.kind, conditions, relation.position, relation.ttl)
    extra_left, extra_right = wide - width, len(right.relation.schema) - other
    order = [*range(width), *(wide + i for i in range(other)), *range(width, wide)]
    order += [wide + other + i for i in range(extra_right)]
    names = tuple(both.schema.names[i] for i in order)
    shown = Project(both, tuple(column(both.schema, i) for i in order), names)
    of_left = {i: i for i in range(width)} | {width + i: width + other + i for i in range(extra_left)}
    of_right = {i: width + i for i in range(other)}
    of_right |= {other + i: width + other + extra_left + i for i in range(extra_right)}
    return Plain(shown, (*_moved(left.conditions, of_left), *_moved(right.conditions, of_right)))


def _expansion(relation: Expansion, node: object) -> Plain:
    below = decorrelate(relation.input, node)
    width, wide = len(relation.input.schema), len(below.relation.schema)
    made = len(relation.schema) - width
    whole = replace(relation, input=below.relation)
    order = [*range(width), *range(wide, wide + made), *range(width, wide)]
    names = tuple(whole.schema.names[i] for i in order)
    shown = Project(whole, tuple(column(whole.schema, i) for i in order), names)
    return Plain(shown, _moved(below.conditions, {c: at for at, c in enumerate(order)}))


def _moved(conditions: tuple[Expression, ...], places: dict[int, int]) -> tuple[Expression, ...]:
    outer = {c: c for c in columns_of(conditions) if c >= OUTER}
    return tuple(remap(part, {**places, **outer}) for part in conditions)


def value_without_rows(relation: Relation, place: int) -> Expression | None:
    """What column `place` of a query that has exactly one row is where no row comes in; None: it has none then."""
    match relation:
        case Project():
            values = [value_without_rows(relation.input, i) for i in range(len(relation.input.schema))]
            if any(v is None for v in values):
                return None
            return rewrite(
                relation.expressions[place],
                lambda e: values[e.index] if isinstance(e, Column) and e.index < OUTER else None,
            )
        case Aggregate(keys=()):
            call = relation.calls[place]
            return Literal(0 if call.function in COUNTS else None, call.type)
    return None


def has_one_row(relation: Relation) -> bool:
    """Whether it never has more than one row (for each outer row)."""
    match relation:
        case Project() | Filter():
            return has_one_row(relation.input)
        case Aggregate():
            return not relation.keys
        case TopN():
            return relation.limit == 1 and not relation.partition and relation.function == "row_number"
    return False


def or_empty(found: Expression, value: Expression, empty: Expression | None) -> Expression:
    """`value` where the marker `found` is there, else what the query is without rows."""
    if empty is None or (isinstance(empty, Literal) and empty.value is None):
        return value
    return Case((Call("is null", (found,), pa.bool_()),), (empty,), value, value.type)


def refused(node: object, why: str) -> Exception:
    """The error for what can not be made plain."""
    return unsupported(
        node,
        "MR1903",
        f"this correlated query can not be kept up to date: {why}",
        "write it as a join with an aggregate by the columns it is correlated by",
    )
