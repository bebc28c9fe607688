"""WHERE: plain conditions as filters, conditions on now() as filters that move with time."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from sqlglot import exp

from millrace.operators.expressions.tree import Call, Cast, Column, Expression, Literal
from millrace.operators.functions import types as sql
from millrace.operators.sink import Changelog
from millrace.operators.temporal_filter import Clock, TimeBound
from millrace.planner.binder.errors import unsupported
from millrace.planner.binder.scope import Scope
from millrace.planner.expressions import conjunction, conjuncts, walk
from millrace.planner.logical import Filter, MovingFilter, Relation

NOW = frozenset({"now", "current_timestamp", "localtimestamp", "proctime"})
_SWAPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True, slots=True)
class _Moving:
    column: int
    operator: str
    offset: int


def apply_condition(scope: Scope, whole: Expression, node: exp.Expr) -> Scope:
    """The scope's rows for which a bound condition holds."""
    plain: list[Expression] = []
    moving: dict[int, list[_Moving]] = {}
    for part in conjuncts(whole):
        if not any(isinstance(e, Call) and e.function in NOW for e in walk(part)):
            plain.append(part)
            continue
        found = _moving(part)
        if found is None:
            raise unsupported(
                node,
                "MR1925",
                "now() in WHERE can be compared with a time column only",
                "write it as ts > now() - INTERVAL '1' HOUR",
            )
        moving.setdefault(found.column, []).append(found)
    relation: Relation = scope.relation
    if plain:
        relation = Filter(relation, conjunction(plain))
    for column, bounds in moving.items():
        relation = _filter(relation, column, bounds, node)
    return scope.over(relation)


def _filter(relation: Relation, column: int, bounds: list[_Moving], node: exp.Expr) -> Relation:
    if relation.changelog is not Changelog.APPEND:
        raise unsupported(
            node, "MR1925", "a filter on now() needs an append-only input", "put it into the inner query"
        )
    lower = [TimeBound(b.offset, b.operator == ">=") for b in bounds if b.operator in (">", ">=")]
    upper = [TimeBound(b.offset, b.operator == "<=") for b in bounds if b.operator in ("<", "<=")]
    return MovingFilter(
        relation,
        column,
        max(lower, key=lambda b: (b.offset, not b.inclusive)) if lower else None,
        min(upper, key=lambda b: (b.offset, b.inclusive)) if upper else None,
        Clock.PROCESSING,
    )


def _moving(part: Expression) -> _Moving | None:
    """`time op now() ± interval` in any arrangement of its terms, or None."""
    if not isinstance(part, Call) or part.function not in _SWAPPED:
        return None
    left, right = (_linear(a) for a in part.arguments)
    if left is None or right is None:
        return None
    column = left[0] if left[0] is not None else right[0]
    signs = (left[1] - right[1], left[2] - right[2])
    if column is None or (left[0] is not None and right[0] is not None) or signs not in ((1, -1), (-1, 1)):
        return None
    # ±(column - now) + left constant  op  right constant
    offset = right[3] - left[3]
    if signs[0] == 1:
        return _Moving(column, part.function, offset)
    return _Moving(column, _SWAPPED[part.function], -offset)


def _linear(e: Expression) -> tuple[int | None, int, int, int] | None:
    """(column, its sign, the sign of now(), µs) of a sum of a time column, now() and intervals."""
    match e:
        case Cast():
            return _linear(e.argument) if sql.is_timestamp(e.type) else None
        case Column() if pa.types.is_timestamp(e.type):
            return (e.index, 1, 0, 0)
        case Call() if e.function in NOW:
            return (None, 0, 1, 0)
        case Literal() if pa.types.is_duration(e.type) and isinstance(e.value, int):
            return (None, 0, 0, e.value)
        case Call() if e.function in ("+", "-") and len(e.arguments) == 2:
            left, right = (_linear(a) for a in e.arguments)
            if left is None or right is None or (left[0] is not None and right[0] is not None):
                return None
            sign = 1 if e.function == "+" else -1
            column = left[0] if left[0] is not None else right[0]
            return (column, left[1] + sign * right[1], left[2] + sign * right[2], left[3] + sign * right[3])
    return None
