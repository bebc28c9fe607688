"""Queries inside expressions: IN and EXISTS become semi and anti joins, values become columns of outer joins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
from sqlglot import exp

from millrace.errors import Position
from millrace.operators.aggregates.calls import CHANGES
from millrace.operators.expressions.tree import Call, Case, Column, Expression, Literal
from millrace.operators.functions import types as sql
from millrace.planner.binder.correlation import (
    OUTER,
    Plain,
    has_one_row,
    is_correlated,
    is_outer,
    or_empty,
    value_without_rows,
)
from millrace.planner.binder.domains import made_plain, over_domain
from millrace.planner.binder.errors import invalid, unsupported
from millrace.planner.binder.scalars import BINARY, ScalarBinder
from millrace.planner.binder.scope import Scope
from millrace.planner.dialect.nodes import position_of
from millrace.planner.expressions import column, columns_of, rewrite
from millrace.planner.join_conditions import EQUAL, NULL_EQUAL, joined
from millrace.planner.logical import Aggregate, Filter, Project, Relation

FIRST_SUBQUERY = 1_500_000
"""A value that a subquery will give stands in expressions as column `-FIRST_SUBQUERY - n`."""
COMPARED: dict[type[exp.Expr], str] = {
    t: BINARY[t] for t in (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE)
}
TRUE = Literal(True, pa.bool_())

BindQuery = Callable[[exp.Expr, Scope], Relation]
Resolve = Callable[[Expression, object], Expression]


def split_where(node: exp.Expr) -> tuple[list[exp.Expr], list[exp.Expr]]:
    """The conjuncts of a condition: the plain ones, and those that are [NOT] IN or EXISTS of a query."""
    inner = node
    while isinstance(inner, exp.Paren):
        inner = inner.this
    if isinstance(inner, exp.And):
        left, right = split_where(inner.this), split_where(inner.expression)
        return left[0] + right[0], left[1] + right[1]
    return ([], [node]) if _membership(inner) is not None else ([node], [])


def _membership(node: exp.Expr) -> tuple[exp.Expr, bool] | None:
    """The IN or EXISTS of a query that a condition is, and whether it is negated."""
    negated = False
    while isinstance(node, exp.Paren | exp.Not):
        negated ^= isinstance(node, exp.Not)
        node = node.this
    found = isinstance(node, exp.Exists) or (isinstance(node, exp.In) and node.args.get("query") is not None)
    return (node, negated) if found or _is_quantified(node) else None


def _is_quantified(node: exp.Expr) -> bool:
    """Whether it compares with ANY or ALL rows of a query."""
    return type(node) in COMPARED and isinstance(node.expression, exp.Any | exp.All)


def _apply_quantified(scope: Scope, test: exp.Expr, negated: bool, bind: BindQuery) -> Scope:
    """The rows for which `value > ANY (query)` or `value > ALL (query)` is true, or is false where `negated`."""
    query = test.expression.this
    relation = bind(query.this if isinstance(query, exp.Subquery) else query, scope)
    if len(relation.schema) != 1:
        raise invalid(
            test, "MR1151", f"it is compared with a query of {len(relation.schema)} columns", "select one"
        )
    _check_grouped(relation, test)
    outer = scope.relation
    width = len(outer.schema)
    plain = made_plain(outer, relation, lambda e, at: e, test)
    binder = ScalarBinder(scope, "WHERE")
    found = column(plain.relation.schema, 0)
    holds = binder.call(
        COMPARED[type(test)], [binder.bind(test.this), Column(width, found.type, found.name)], test
    )
    every = isinstance(test.expression, exp.All)
    if every != negated:  # no row may speak against it, nor leave it open
        against = binder.call("is false" if negated else "is true", [holds], test)
        kind, holds = "anti", binder.call("not", [against], test)
    else:
        kind, holds = "semi", binder.call("not", [holds], test) if negated else holds
    own = [_placed(part, width) for part in plain.conditions]
    return Scope(
        joined(outer, plain.relation, kind, [holds, *own], position_of(test)), scope.members, scope.outer
    )


def apply_membership(scope: Scope, node: exp.Expr, bind: BindQuery) -> Scope:
    """The rows of a scope for which a conjunct of `split_where` holds."""
    found = _membership(node)
    assert found is not None
    test, negated = found
    if _is_quantified(test):
        return _apply_quantified(scope, test, negated, bind)
    query = test.this if isinstance(test, exp.Exists) else test.args["query"]
    relation = bind(query, scope)
    _check_grouped(relation, test)
    outer = scope.relation
    plain = made_plain(outer, relation, lambda e, at: e, test)
    width = len(outer.schema)
    own = [_placed(part, width) for part in plain.conditions]
    kind = "anti" if negated else "semi"
    if isinstance(test, exp.Exists):
        return Scope(joined(outer, plain.relation, kind, own, position_of(test)), scope.members, scope.outer)
    values = _values(scope, test)
    if len(values) != len(relation.schema):
        raise invalid(
            test,
            "MR1151",
            f"IN compares {len(values)} values with a query of {len(relation.schema)} columns",
            "select as many columns as stand before IN",
        )
    binder = ScalarBinder(scope, "IN")
    right = [column(plain.relation.schema, at) for at in range(len(values))]
    shifted = [Column(c.index + width, c.type, c.name) for c in right]
    pairs = [binder.call("=", [value, c], test) for value, c in zip(values, shifted, strict=True)]
    result = joined(outer, plain.relation, kind, [*pairs, *own], position_of(test))
    if negated and len(values) > 1:
        # True only where every row of the query differs for sure in one of the columns.
        unsure = [binder.call("not", [binder.call("is false", [pair], test)], test) for pair in pairs]
        result = joined(outer, plain.relation, "anti", [*unsure, *own], position_of(test))
    elif negated:
        result = _without_doubt(result, values[0], plain, position_of(test))
    return Scope(result, scope.members, scope.outer)


def _without_doubt(outer: Relation, value: Expression, plain: Plain, position: Position | None) -> Relation:
    """The rows for which NOT IN is true, not NULL: the query has no NULL, and no row where the value is NULL.

    For that the query is looked at a second time, reduced to whether a column is NULL.
    """
    schema = plain.relation.schema
    needed = sorted({c for c in columns_of(plain.conditions) if c < OUTER})
    is_null = Call("is null", (column(schema, 0),), pa.bool_())
    kept: tuple[Expression, ...] = (is_null, *(column(schema, c) for c in needed))
    names = ("_null", *(f"_c{c}" for c in needed))
    reduced = Project(plain.relation, kept, names)
    distinct = Aggregate(reduced, tuple(range(len(kept))), (), names, CHANGES)
    width = len(outer.schema)
    places = {c: width + 1 + at for at, c in enumerate(needed)}
    own = [
        rewrite(part, lambda e: _shift(e, places) if isinstance(e, Column) else None)
        for part in plain.conditions
    ]
    missing = Call("is null", (value,), pa.bool_())
    doubt = Call("or", (Column(width, pa.bool_(), "_null"), missing), pa.bool_())
    return joined(outer, distinct, "anti", [*own, doubt], position)


def _shift(e: Column, places: dict[int, int]) -> Expression:
    at = e.index - OUTER if e.index >= OUTER else places[e.index]
    return Column(at, e.type, e.name)


def _placed(part: Expression, width: int) -> Expression:
    """A condition of `Plain` over the columns of the outer query and, behind them, of the inner one."""

    def move(e: Expression) -> Expression | None:
        if not isinstance(e, Column):
            return None
        return Column(e.index - OUTER if e.index >= OUTER else e.index + width, e.type, e.name)

    return rewrite(part, move)


def _values(scope: Scope, node: exp.Expr) -> list[Expression]:
    left = node.this
    while isinstance(left, exp.Paren):
        left = left.this
    binder = ScalarBinder(scope, "IN")
    return [binder.bind(e) for e in (left.expressions if isinstance(left, exp.Tuple) else [left])]


def _check_grouped(relation: Relation, node: object) -> None:
    """An aggregate without GROUP BY has a row even where none comes in, which a join can not know."""
    if is_correlated(relation) and has_one_row(relation):
        raise unsupported(
            node,
            "MR1903",
            "a correlated aggregate can not stand in IN or EXISTS",
            "compare with it as a value: x = (SELECT max(y) …)",
        )


@dataclass(slots=True)
class Subqueries:
    """The queries that stand for values in a block, until the block's rows are known and they can be joined."""

    scope: Scope
    bind: BindQuery
    pending: list[tuple[Relation, exp.Expr, Expression | None]] = field(default_factory=list)

    def value(self, node: exp.Expr) -> Expression:
        """The stand-in of `(SELECT …)`. Raises Unsupported MR1922 where it may have several rows."""
        relation = self.bind(node, self.scope)
        if len(relation.schema) != 1:
            raise invalid(
                node,
                "MR1139",
                f"a query that stands for a value has {len(relation.schema)} columns",
                "select one",
            )
        if not has_one_row(relation):
            raise unsupported(
                node,
                "MR1922",
                "a query that stands for a value may have several rows here",
                "aggregate it, e.g. (SELECT max(…) …), or LIMIT 1",
            )
        self.pending.append((relation, node, None))
        return Column(-FIRST_SUBQUERY - len(self.pending) + 1, relation.schema.field(0).type, "_subquery")

    def test(self, node: exp.Expr, value: Expression | None) -> Expression:
        """The stand-in of EXISTS, or of `value` IN, where it is part of a larger condition."""
        query = node.this if value is None else node.args["query"]
        relation = self.bind(query, self.scope)
        _check_grouped(relation, node)
        if value is not None and len(relation.schema) != 1:
            raise invalid(
                node, "MR1151", f"IN compares 1 value with a query of {len(relation.schema)} columns"
            )
        self.pending.append((relation, node, TRUE if value is None else value))
        return Column(-FIRST_SUBQUERY - len(self.pending) + 1, sql.BOOLEAN, "_subquery")

    def attach(self, relation: Relation, resolve: Resolve) -> tuple[Relation, list[Expression]]:
        """`relation` with further columns, and the value of each stand-in over it.

        `resolve` maps an expression of the block's input onto `relation`.
        """
        values: list[Expression] = []
        for inner, node, tested in self.pending:
            plain = made_plain(relation, inner, resolve, node)
            if tested is None:
                relation, value = self._joined_value(relation, inner, plain, resolve, node)
            else:
                given = None if isinstance(node, exp.Exists) else resolve(tested, node)
                if any(not _is_equality(part) for part in plain.conditions):
                    plain = over_domain(relation, inner, resolve, node)
                relation, value = self._joined_test(relation, plain, given, resolve, node)
            values.append(value)
        return relation, values

    def _joined_value(
        self, relation: Relation, inner: Relation, plain: Plain, resolve: Resolve, node: exp.Expr
    ) -> tuple[Relation, Expression]:
        empty = value_without_rows(inner, 0)
        if empty is not None:
            empty = self._condition(empty, 0, resolve, node)
        if is_correlated(inner) and empty is None and _has_aggregate(inner):
            raise unsupported(
                node, "MR1903", "HAVING can not stand in a correlated value", "put the condition into CASE"
            )
        below = plain.relation
        marked = Project(
            below,
            (*(column(below.schema, i) for i in range(len(below.schema))), TRUE),
            (*below.schema.names, "_found"),
        )
        width = len(relation.schema)
        conditions = [self._condition(part, width, resolve, node) for part in plain.conditions]
        whole = joined(relation, marked, "left", conditions, position_of(node))
        value = column(whole.schema, width)
        found = column(whole.schema, width + len(below.schema))
        return whole, or_empty(found, value, empty)

    def _joined_test(
        self, relation: Relation, plain: Plain, value: Expression | None, resolve: Resolve, node: exp.Expr
    ) -> tuple[Relation, Expression]:
        """Outer joins with what the query has: its values, and whether it has a row and a NULL among them."""
        needed = sorted({c for c in columns_of(plain.conditions) if c < OUTER})
        assert all(_is_equality(part) for part in plain.conditions)
        schema = plain.relation.schema
        keys = tuple(column(schema, c) for c in needed)

        def attach(whole: Relation, more: Sequence[Expression], extra: Callable[[int], list[Expression]]):  # type: ignore[no-untyped-def]
            values = (*keys, *more) or (TRUE,)
            names = tuple(f"_c{i}" for i in range(len(values)))
            shown = Project(plain.relation, values, names)
            distinct = Aggregate(shown, tuple(range(len(names))), (), names, CHANGES)
            marked = Project(
                distinct, (*(column(distinct.schema, i) for i in range(len(names))), TRUE), (*names, "_found")
            )
            width = len(whole.schema)
            places = {c: at for at, c in enumerate(needed)}
            own = [
                self._condition(
                    rewrite(part, lambda e: _inner(e, places) if isinstance(e, Column) else None),
                    width,
                    resolve,
                    node,
                )
                for part in plain.conditions
            ]
            after = joined(whole, marked, "left", [*own, *extra(width + len(keys))], position_of(node))
            return after, column(after.schema, width + len(names))

        if value is None:
            whole, found = attach(relation, (), lambda at: [])
            return whole, Call("is not null", (found,), sql.BOOLEAN)
        binder = ScalarBinder(self.scope, "IN")
        own = column(schema, 0)
        whole, found = attach(
            relation, (own,), lambda at: [binder.call("=", [value, Column(at, own.type, own.name)], node)]
        )
        null = Call("is null", (own,), sql.BOOLEAN)
        whole, doubt = attach(whole, (null,), lambda at: [Column(at, sql.BOOLEAN, "_null")])
        whole, some = attach(whole, (), lambda at: [])
        absent = Literal(False, sql.BOOLEAN)
        yes = Call("is not null", (found,), sql.BOOLEAN)
        empty = Call("is null", (some,), sql.BOOLEAN)
        unsure = Call(
            "or",
            (Call("is null", (value,), sql.BOOLEAN), Call("is not null", (doubt,), sql.BOOLEAN)),
            sql.BOOLEAN,
        )
        chosen = Case(
            (yes, empty, unsure),
            (Literal(True, sql.BOOLEAN), absent, Literal(None, sql.BOOLEAN)),
            absent,
            sql.BOOLEAN,
        )
        return whole, chosen

    def _condition(self, part: Expression, width: int, resolve: Resolve, node: object) -> Expression:
        def move(e: Expression) -> Expression | None:
            if not isinstance(e, Column):
                return None
            if e.index >= OUTER:
                return resolve(Column(e.index - OUTER, e.type, e.name), node)
            return Column(e.index + width, e.type, e.name)

        return rewrite(part, move)


def settled(expression: Expression, values: Sequence[Expression]) -> Expression:
    """The expression with every stand-in replaced by its value."""

    def change(e: Expression) -> Expression | None:
        if isinstance(e, Column) and e.index <= -FIRST_SUBQUERY and e.index > -FIRST_SUBQUERY - 100_000:
            return values[-FIRST_SUBQUERY - e.index]
        return None

    return rewrite(expression, change)


def _inner(e: Column, places: dict[int, int]) -> Expression:
    return e if e.index >= OUTER else Column(places[e.index], e.type, e.name)


def _is_equality(part: Expression) -> bool:
    if not isinstance(part, Call) or part.function not in (EQUAL, NULL_EQUAL):
        return False
    return sum(is_outer(e) for e in part.arguments) == 1


def _has_aggregate(relation: Relation) -> bool:
    while isinstance(relation, Project | Filter):
        relation = relation.input
    return isinstance(relation, Aggregate)
