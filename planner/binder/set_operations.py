"""UNION, EXCEPT and INTERSECT as relations. Binds no query: it is given both sides."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from sqlglot import exp

from millrace.operators.aggregates.calls import CHANGES, AggregateCall
from millrace.operators.expressions.tree import Call, Case, Expression, Literal
from millrace.operators.functions import types as sql
from millrace.operators.sink import Changelog
from millrace.planner.binder.errors import invalid
from millrace.planner.binder.scalars import cast
from millrace.planner.expressions import column
from millrace.planner.logical import Aggregate, Project, Relation, Repeated, Union

SetOperation = exp.Union | exp.Except | exp.Intersect

_ONE, _NONE, _ZERO = Literal(1, pa.int64()), Literal(None, pa.int64()), Literal(0, pa.int64())


def set_operation(node: SetOperation, left: Relation, right: Relation) -> Relation:
    """The rows of both sides put together. Raises Invalid MR1108, MR1111 where their columns do not fit."""
    sides = _alike(node, left, right)
    distinct = bool(node.args.get("distinct"))
    if isinstance(node, exp.Union):
        flat = [q for p in sides for q in (p.parts if isinstance(p, Union) else (p,))]
        whole = Union(tuple(flat))
        return distinct_rows(whole) if distinct else whole
    return _counted(sides, intersect=isinstance(node, exp.Intersect), distinct=distinct)


def distinct_rows(relation: Relation) -> Relation:
    """Each row once; rows that carry the end of their window are forgotten with it."""
    every = tuple(range(len(relation.schema)))
    return Aggregate(relation, every, (), tuple(relation.schema.names), CHANGES, _closing(relation))


def _closing(relation: Relation) -> int | None:
    return relation.bounds[1] if relation.event_time is not None else None


def _counted(sides: Sequence[Relation], *, intersect: bool, distinct: bool) -> Relation:
    """Rows by how often each side has them: one count a row and side, from which follows how often it comes out."""
    names = tuple(sides[0].schema.names)
    width = len(names)
    marked = [_marked(side, marks) for side, marks in zip(sides, ((_ONE, _NONE), (_NONE, _ONE)), strict=True)]
    both = Union(tuple(marked))
    every = tuple(range(width))
    calls = tuple(AggregateCall("count", (width + side,), pa.int64()) for side in (0, 1))
    counts = Aggregate(both, every, calls, (*names, "_left", "_right"), CHANGES, _closing(both))
    left, right = (column(counts.schema, width + side) for side in (0, 1))
    shown = tuple(column(counts.schema, at) for at in every)
    times = Project(counts, (*shown, _times(left, right, intersect, distinct)), (*names, "_times"))
    rising = intersect and all(side.changelog is Changelog.APPEND for side in sides)
    return Repeated(times, distinct, rising)


def _marked(side: Relation, marks: tuple[Literal, Literal]) -> Relation:
    shown = tuple(column(side.schema, at) for at in range(len(side.schema)))
    return Project(side, (*shown, *marks), (*side.schema.names, "_left", "_right"))


def _times(left: Expression, right: Expression, intersect: bool, distinct: bool) -> Expression:
    """How often a row comes out that is `left` times on one side and `right` times on the other."""

    def compare(a: Expression, sign: str, b: Expression) -> Expression:
        return Call(sign, (a, b), sql.BOOLEAN)

    if intersect:
        least = Case((compare(left, "<", right),), (left,), right, pa.int64())
        return Case((compare(least, ">", _ZERO),), (_ONE,), _ZERO, pa.int64()) if distinct else least
    if distinct:
        found = Call("and", (compare(left, ">", _ZERO), compare(right, "=", _ZERO)), sql.BOOLEAN)
        return Case((found,), (_ONE,), _ZERO, pa.int64())
    rest = Call("-", (left, right), pa.int64())
    return Case((compare(left, ">", right),), (rest,), _ZERO, pa.int64())


def _alike(node: SetOperation, left: Relation, right: Relation) -> list[Relation]:
    """Both sides with columns of the same types."""
    word = type(node).__name__.upper()
    widths = len(left.schema), len(right.schema)
    if widths[0] != widths[1]:
        raise invalid(
            node,
            "MR1108",
            f"the sides of {word} have {widths[0]} and {widths[1]} columns",
            "select equally many",
        )
    types: list[pa.DataType] = []
    for index, (a, b) in enumerate(zip(left.schema, right.schema, strict=True)):
        kind = sql.common_type([a.type, b.type])
        if kind is None:
            raise invalid(
                node,
                "MR1111",
                f"column {index + 1} of {word} is {sql.sql_name(a.type)} ({a.name}) and {sql.sql_name(b.type)} ({b.name})",
                "cast one of them",
            )
        types.append(kind)
    return [_cast_all(side, types) for side in (left, right)]


def _cast_all(relation: Relation, types: Sequence[pa.DataType]) -> Relation:
    if all(f.type == t for f, t in zip(relation.schema, types, strict=True)):
        return relation
    values = [cast(column(relation.schema, i), t) for i, t in enumerate(types)]
    return Project(relation, tuple(values), tuple(relation.schema.names))
