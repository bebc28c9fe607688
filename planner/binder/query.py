"""Queries as relations: FROM, WHERE, SELECT, set operations, CTEs. Grouping and windows have modules of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import pyarrow as pa
from sqlglot import exp

from millrace.errors import Invalid, Position
from millrace.operators.aggregates.calls import CHANGES
from millrace.operators.expressions.tree import Column, Expression
from millrace.operators.functions import types as sql
from millrace.planner.binder.calls import FIRST_BOUND, FIRST_OVER, Calls
from millrace.planner.binder.errors import invalid, unsupported
from millrace.planner.binder.grouping import (
    Grouped,
    Grouping,
    cross_sets,
    group,
    grouping_sets,
    resolve_bound,
)
from millrace.planner.binder.joins import bind_join
from millrace.planner.binder.joins_on_time import sent_at_once
from millrace.planner.binder.over import apply_over
from millrace.planner.binder.row_patterns import bind_match_recognize
from millrace.planner.binder.scalars import ScalarBinder, cast
from millrace.planner.binder.scope import Member, Scope
from millrace.planner.binder.select_list import (
    Item,
    Sort,
    generated_names_apart,
    group_key,
    sort_items,
    starred,
    title_of,
)
from millrace.planner.binder.sources import one_row
from millrace.planner.binder.subqueries import Subqueries, apply_membership, settled, split_where
from millrace.planner.binder.temporal import apply_condition
from millrace.planner.binder.windows import assign_window, check_no_emission, emission_of
from millrace.planner.dialect import nodes
from millrace.planner.expressions import column, conjunction, rewrite
from millrace.planner.logical import Aggregate, AssignWindow, Filter, Project, Relation, Session, Union
from millrace.planner.ranking import SortKey, TopN
from millrace.planner.rules.to_timed_join import to_timed_join


class Names(Protocol):
    """What a query may read."""

    def relation(self, name: str, position: Position | None) -> Relation:
        """The relation behind a name of the catalog. Raises Invalid MR1201."""
        ...

    def inline(self, node: nodes.InlineSource) -> Relation:
        """The rows of a source named by URI."""
        ...


@dataclass(frozen=True, slots=True)
class BoundQuery:
    """A query's relation, and what only its surroundings can make use of.

    `order`, `limit` and `offset` are those of the outermost block; `key` is the output key that
    `PRIMARY KEY` in the select list sets.
    """

    relation: Relation
    order: tuple[SortKey, ...] = ()
    limit: int | None = None
    offset: int = 0
    key: tuple[str, ...] | None = None

    def limited(self, position: Position | None) -> Relation:
        """The relation with the limit applied, as a top-N that is kept up to date. ORDER BY alone says nothing."""
        if self.limit is None and not self.offset:
            return self.relation
        return TopN(self.relation, (), self.order, self.limit, self.offset, position=position)

    def standing(self, position: Position | None) -> Relation:
        """The same for rows that go on as they come. Raises Invalid MR1344 where ORDER BY has no LIMIT."""
        check_order(self.order, self.limit, self.offset, position)
        return self.limited(position)


@dataclass(slots=True)
class QueryBinder:
    """Binds queries against `names`; `ctes` are the WITH queries in sight."""

    names: Names
    ctes: Mapping[str, Relation] = field(default_factory=dict)
    outer: Scope | None = None
    """What names mean around a query that stands inside an expression."""

    def bind(self, node: exp.Expr) -> Relation:
        """A nested query: LIMIT makes a top-N, ORDER BY alone says nothing."""
        return self.bind_outer(node).limited(nodes.position_of(node))

    def bind_outer(self, node: exp.Expr) -> BoundQuery:
        """The outermost query of a statement."""
        inner = self._with_ctes(node)
        if isinstance(node, exp.Subquery):
            bound = inner.bind_outer(node.this)
        elif isinstance(node, exp.Select):
            bound = inner._select(node)
        elif isinstance(node, exp.Union):
            bound = inner._union(node)
        elif isinstance(node, exp.Except | exp.Intersect):
            word = type(node).__name__.upper()
            raise unsupported(node, "MR1924", f"{word} is not executed yet", "use a filter, or UNION")
        else:
            raise unsupported(node, "MR1901", f"{type(node).__name__.upper()} is no query that can run")
        return bound

    def _with_ctes(self, node: exp.Expr) -> QueryBinder:
        clause = node.args.get("with_")
        if clause is None:
            return self
        if clause.args.get("recursive"):
            raise unsupported(clause, "MR1929", "WITH RECURSIVE is not executed", "unroll the steps")
        inner = QueryBinder(self.names, dict(self.ctes), self.outer)
        for cte in clause.expressions:
            name = cte.alias
            if any(
                other is not cte and other.alias.casefold() == name.casefold() for other in clause.expressions
            ):
                raise invalid(cte, "MR1106", f"there are two WITH queries named {name}", "rename one")
            bound = inner.bind(cte.this)
            columns = cte.args["alias"].args.get("columns") or []
            inner.ctes = {**inner.ctes, name.casefold(): renamed(bound, [c.name for c in columns], cte)}
        return inner

    # FROM

    def _from(self, node: exp.Select) -> Scope:
        clause = node.args.get("from_")
        if clause is None:
            return Scope(one_row(), (Member(None, 0, 1, frozenset({0})),))
        version = clause.this.args.get("version")
        if version is not None:
            raise invalid(
                version,
                "MR1138",
                "FOR SYSTEM_TIME AS OF belongs to the right side of a join",
                "write FROM t JOIN r FOR SYSTEM_TIME AS OF t.ts ON …",
            )
        scope = self.member(clause.this)
        for join in node.args.get("joins") or []:
            scope = bind_join(scope, self.member(join.this), join)
        return replace(scope, outer=self.outer)

    def _where(self, scope: Scope, condition: exp.Expr) -> Scope:
        """Plain conditions first, then those that need a value of a query, then IN and EXISTS."""
        plain, tests = split_where(condition)
        site = Subqueries(scope, self._inner)
        binder = ScalarBinder(scope, "WHERE")
        binder.subqueries = site
        whole: list[Expression] = []
        valued: list[Expression] = []
        for part in plain:
            count = len(site.pending)
            bound = binder.condition(part)
            (valued if len(site.pending) > count else whole).append(bound)
        if whole:
            scope = apply_condition(scope, conjunction(whole), condition)
        if valued:
            width = len(scope.relation.schema)
            relation, values = site.attach(scope.relation, lambda e, at: e)
            relation = Filter(relation, settled(conjunction(valued), values))
            kept = tuple(column(relation.schema, i) for i in range(width))
            scope = replace(scope, relation=Project(relation, kept, tuple(relation.schema.names[:width])))
        for part in tests:
            scope = apply_membership(scope, part, self._inner)
        return scope

    def _inner(self, node: exp.Expr, scope: Scope) -> Relation:
        """A query that stands inside an expression of this one."""
        return QueryBinder(self.names, self.ctes, scope).bind(node)

    def member(self, node: exp.Expr) -> Scope:
        """One item of FROM as a scope of its own."""
        alias = node.args.get("alias")
        name = alias.name if alias is not None else None
        match node:
            case exp.Table():
                relation = self._table(node)
                name = name or node.name
            case exp.Subquery():
                relation = self.bind(node.this)
            case nodes.WindowTable():
                inner = self.member(node.this)
                partition = self._partition(node, inner)
                relation = assign_window(node, inner, partition)
                name = name or (inner.members[0].alias if len(inner.members) == 1 else None)
            case nodes.InlineSource():
                relation = self.names.inline(node)
            case nodes.MatchRecognize():
                relation = bind_match_recognize(node, self.member(node.this))
            case exp.Unnest() | nodes.TableCall():
                raise unsupported(node, "MR1945", "functions in FROM other than windows are not executed yet")
            case exp.Values():
                raise unsupported(
                    node, "MR1927", "VALUES in FROM is not executed", "CREATE TABLE and INSERT INTO it"
                )
            case _:
                raise unsupported(node, "MR1901", f"{type(node).__name__.upper()} can not stand in FROM")
        columns = [c.name for c in alias.args.get("columns") or []] if alias is not None else []
        return Scope.of(renamed(relation, columns, node), name)

    def _table(self, node: exp.Table) -> Relation:
        full = ".".join(part.name for part in node.parts)
        cte = self.ctes.get(full.casefold())
        return cte if cte is not None else self.names.relation(full, nodes.position_of(node))

    def _partition(self, node: nodes.WindowTable, scope: Scope) -> tuple[int, ...]:
        binder = ScalarBinder(scope, "PARTITION BY")
        bound = [binder.bind(p) for p in node.args.get("partition_by") or []]
        if any(not isinstance(b, Column) for b in bound):
            raise invalid(
                node, "MR1131", "a window is partitioned by columns", "compute the value in a subquery"
            )
        return tuple(b.index for b in bound if isinstance(b, Column))

    # SELECT

    def _select(self, node: exp.Select) -> BoundQuery:
        scope = self._from(node)
        where = node.args.get("where")
        if where is not None:
            scope = self._where(scope, where.this)
            scope = scope.over(to_timed_join(scope.relation))
        clause = node.args.get("group")
        group_window = next(
            (
                e
                for e in (clause.expressions if clause is not None else [])
                if isinstance(e, nodes.GroupWindow)
            ),
            None,
        )
        if group_window is not None:
            if scope.relation.bounds != (None, None) and isinstance(scope.relation, AssignWindow):
                raise invalid(
                    group_window, "MR1132", "the query has two windows", "keep the one in FROM or in GROUP BY"
                )
            scope = scope.over(assign_window(group_window, scope))
        calls = Calls(scope, _bound_type(scope.relation))
        binder = ScalarBinder(scope, "SELECT", calls)
        site = binder.subqueries = Subqueries(scope, self._inner)
        items = self._items(node, scope, binder)
        binder.aliases = {item.name.casefold(): item.value for item in items}
        having, qualify = node.args.get("having"), node.args.get("qualify")
        conditions = [None if c is None else binder.condition(c.this) for c in (having, qualify)]
        order = node.args.get("order")
        sort = sort_items(order.expressions if order is not None else [], binder, items)
        if clause is not None or calls.aggregates or having is not None:
            relation, resolve = self._grouped(node, scope, clause, calls, items, binder)
        else:
            check_no_emission(node)
            emit = node.args.get("emit")
            if emit is not None and str(emit.args["mode"]) == "changes":
                scope = scope.over(sent_at_once(scope.relation))
            relation, resolve = scope.relation, partial(_resolve_plain, scope.relation)
        relation, resolve = _with_subqueries(relation, resolve, site)
        if conditions[0] is not None:
            relation = Filter(relation, resolve(conditions[0], having))
        overs = [(call, around, at) for call, around, at in calls.overs]
        relation, places = apply_over(relation, overs, resolve)

        def final(e: Expression, at: object) -> Expression:
            return _resolve_over(resolve(e, at), relation, places)

        if conditions[1] is not None:
            relation = Filter(relation, final(conditions[1], qualify))
        return self._finish(node, relation, items, sort, final)

    def _items(self, node: exp.Select, scope: Scope, binder: ScalarBinder) -> list[Item]:
        items: list[Item] = []
        for position, expression in enumerate(node.expressions):
            inner = expression.this if isinstance(expression, exp.Alias) else expression
            star = (
                inner
                if isinstance(inner, exp.Star)
                else inner.this
                if isinstance(inner, exp.Column)
                else None
            )
            if isinstance(star, exp.Star):
                qualifier = inner.table if isinstance(inner, exp.Column) else None
                items += starred(star, scope.star(qualifier or None, expression), expression, binder)
                continue
            value = binder.bind(inner)
            items.append(Item(title_of(expression, value, position), value, expression))
        return generated_names_apart(items)

    def _grouped(
        self,
        node: exp.Select,
        scope: Scope,
        clause: exp.Group | None,
        calls: Calls,
        items: Sequence[Item],
        binder: ScalarBinder,
    ) -> tuple[Relation, Resolve]:
        relation = scope.relation
        grouping = Grouping()
        windowed = self._keys(clause, scope, grouping, items, binder)
        start, end = relation.bounds
        if start is not None and end is not None:
            asked = any(isinstance(k, Column) and k.index in (start, end) for k in grouping.keys)
            if asked or _innermost_window(relation):
                both = (
                    grouping.add(column(relation.schema, start)),
                    grouping.add(column(relation.schema, end)),
                )
                windowed = True
                if grouping.sets is not None:
                    grouping.sets = [tuple(dict.fromkeys((*s, *both))) for s in grouping.sets]
        _check_session(relation, grouping, node)
        emitting = emission_of(node, relation, windowed=windowed)
        titles = {item.value: item.name for item in reversed(items)}
        call_titles = [
            titles.get(Column(-1 - i, call.type, call.title), call.title)
            for i, call in enumerate(calls.aggregates)
        ]
        grouped: Grouped = group(relation, grouping, calls.aggregates, emitting, titles, call_titles)
        return grouped.relation, grouped.resolve

    def _keys(
        self,
        clause: exp.Group | None,
        scope: Scope,
        grouping: Grouping,
        items: Sequence[Item],
        binder: ScalarBinder,
    ) -> bool:
        """Adds the keys of the clause; True where it holds a window."""
        if clause is None:
            return False
        plain: list[int] = []
        windowed = False
        for expression in clause.expressions:
            if isinstance(expression, nodes.GroupWindow):
                windowed = True
            elif not isinstance(expression, exp.Cube | exp.Rollup | exp.GroupingSets):
                key = group_key(expression, items, binder)
                plain += [] if key is None else [grouping.add(key)]
        lists = grouping_sets(clause)
        sets = [
            [
                tuple(grouping.add(k) for e in one if (k := group_key(e, items, binder)) is not None)
                for one in many
            ]
            for many in lists
        ]
        grouping.sets = cross_sets(plain, sets)
        return windowed

    def _finish(
        self,
        node: exp.Select,
        relation: Relation,
        items: Sequence[Item],
        sort: Sequence[Sort],
        final: Resolve,
    ) -> BoundQuery:
        values = [final(item.value, item.node) for item in items]
        names = [item.name for item in items]
        key = tuple(c.name for c in node.args.get("key") or []) or None
        distinct = node.args.get("distinct")
        extra = [] if distinct is not None else [final(s.value, s.node) for s in sort if s.place is None]
        shown = _project(relation, values, names)
        if distinct is not None:
            if distinct.args.get("on") is not None:
                raise unsupported(
                    distinct, "MR1946", "DISTINCT ON is not executed yet", "use first_value with GROUP BY"
                )
            if any(s.place is None for s in sort):
                raise invalid(
                    distinct, "MR1107", "with DISTINCT, ORDER BY takes columns of the select list only"
                )
            shown = distinct_rows(shown)
        if extra and not (node.args.get("limit") is None and node.args.get("offset") is None):
            raise unsupported(
                node.args["order"],
                "MR1942",
                "ORDER BY a value that is not selected is not executed",
                "select it too",
            )
        keys = tuple(SortKey(s.place, s.descending, s.nulls_first) for s in sort if s.place is not None)
        if extra:
            raise unsupported(
                node.args["order"],
                "MR1942",
                "ORDER BY a value that is not selected is not executed",
                "select it too",
            )
        return BoundQuery(shown, keys, _count(node, "limit"), _count(node, "offset") or 0, key)

    def _union(self, node: exp.Union) -> BoundQuery:
        if any(node.args.get(c) is not None for c in ("emit", "lateness", "late_data")):
            check_no_emission(node)
        parts = [self.bind(node.this), self.bind(node.expression)]
        widths = [len(p.schema) for p in parts]
        if widths[0] != widths[1]:
            raise invalid(
                node,
                "MR1108",
                f"the sides of UNION have {widths[0]} and {widths[1]} columns",
                "select equally many",
            )
        types = [
            sql.common_type([a.type, b.type]) for a, b in zip(parts[0].schema, parts[1].schema, strict=True)
        ]
        for index, kind in enumerate(types):
            if kind is None:
                a, b = (p.schema.field(index) for p in parts)
                raise invalid(
                    node,
                    "MR1111",
                    f"column {index + 1} of UNION is {sql.sql_name(a.type)} ({a.name}) and {sql.sql_name(b.type)} ({b.name})",
                    "cast one of them",
                )
        parts = [_cast_all(p, types) for p in parts]
        flat = [q for p in parts for q in (p.parts if isinstance(p, Union) else (p,))]
        relation: Relation = Union(tuple(flat))
        if node.args.get("distinct"):
            relation = distinct_rows(relation)
        order = node.args.get("order")
        binder = ScalarBinder(Scope.of(relation, None), "ORDER BY")
        items = [Item(f.name, column(relation.schema, i), node) for i, f in enumerate(relation.schema)]
        sort = sort_items(order.expressions if order is not None else [], binder, items)
        keys = tuple(SortKey(s.place, s.descending, s.nulls_first) for s in sort if s.place is not None)
        return BoundQuery(relation, keys, _count(node, "limit"), _count(node, "offset") or 0)


def check_order(order: Sequence[SortKey], limit: int | None, offset: int, position: Position | None) -> None:
    """Raises Invalid MR1344 where rows without end would have to be put in order."""
    if order and limit is None and not offset:
        raise Invalid(
            "rows that go on as they come can not be ordered without a LIMIT",
            code="MR1344",
            hint="add LIMIT: the first rows in that order are then kept up to date; or leave ORDER BY out",
            position=position,
        )


class Resolve(Protocol):
    """Turns an expression over a block's input into one over a later stage of the block."""

    def __call__(self, e: Expression, at: object, /) -> Expression: ...


def renamed(relation: Relation, columns: Sequence[str], node: object) -> Relation:
    """The relation with its first columns called `columns`. Raises Invalid MR1109."""
    if not columns:
        return relation
    names = list(relation.schema.names)
    if len(columns) > len(names):
        raise invalid(node, "MR1109", f"{len(columns)} names are given for {len(names)} columns")
    names[: len(columns)] = columns
    return _project(relation, [column(relation.schema, i) for i in range(len(names))], names)


def distinct_rows(relation: Relation) -> Relation:
    """Each row once; rows that carry the end of their window are forgotten with it."""
    every = tuple(range(len(relation.schema)))
    closes = relation.bounds[1] if relation.event_time is not None else None
    return Aggregate(relation, every, (), tuple(relation.schema.names), CHANGES, closes)


def _project(relation: Relation, values: Sequence[Expression], names: Sequence[str]) -> Relation:
    identity = len(values) == len(relation.schema) and all(
        isinstance(v, Column) and v.index == i for i, v in enumerate(values)
    )
    if identity and list(names) == relation.schema.names:
        return relation
    end = relation.bounds[1]
    time = None
    for at, value in enumerate(values):
        if not isinstance(value, Column) and end is not None and getattr(value, "function", None) == "-":
            first = value.arguments[0] if hasattr(value, "arguments") else None
            if isinstance(first, Column) and first.index == end and names[at].lower().endswith("time"):
                time = at
    return Project(relation, tuple(values), tuple(names), time)


def _cast_all(relation: Relation, types: Sequence[pa.DataType | None]) -> Relation:
    if all(f.type == t for f, t in zip(relation.schema, types, strict=True)):
        return relation
    values = [cast(column(relation.schema, i), t) for i, t in enumerate(types)]
    return _project(relation, values, relation.schema.names)


def _with_subqueries(relation: Relation, resolve: Resolve, site: Subqueries) -> tuple[Relation, Resolve]:
    """The rows of a block with the values of its subqueries, and how expressions find them."""
    if not site.pending:
        return relation, resolve
    whole, values = site.attach(relation, resolve)
    return whole, lambda e, at: settled(resolve(e, at), values)


def _bound_type(relation: Relation) -> pa.DataType | None:
    start, end = relation.bounds
    place = end if end is not None else start
    return None if place is None else relation.schema.field(place).type


def _innermost_window(relation: Relation) -> bool:
    """Whether the block's own FROM assigns windows (a filter may stand between)."""
    while isinstance(relation, Filter):
        relation = relation.input
    return isinstance(relation, AssignWindow)


def _check_session(relation: Relation, grouping: Grouping, node: object) -> None:
    while isinstance(relation, Filter):
        relation = relation.input
    if not isinstance(relation, AssignWindow) or not isinstance(relation.window, Session):
        return
    bounds = relation.bounds
    keys = {k.index for k in grouping.keys if isinstance(k, Column)} - set(bounds)
    if relation.partition and (keys != set(relation.partition) or grouping.sets is not None):
        raise unsupported(
            node,
            "MR1931",
            "a session window is aggregated by other columns than it is partitioned by",
            "GROUP BY the PARTITION BY columns and both window bounds",
        )


def _count(node: exp.Expr, clause: str) -> int | None:
    found = node.args.get(clause)
    if found is None:
        return None
    value = found.expression if found.expression is not None else found.args.get("count")
    if not isinstance(value, exp.Literal) or value.is_string or not str(value.this).isdigit():
        raise invalid(found, "MR1135", f"{clause.upper()} must be a whole number")
    return int(value.this)


def _resolve_plain(relation: Relation, e: Expression, at: object) -> Expression:
    def change(part: Expression) -> Expression | None:
        if isinstance(part, Column) and part.index <= -FIRST_BOUND:
            return resolve_bound(part, relation, relation.bounds, at)
        return None

    return rewrite(e, change)


def _resolve_over(e: Expression, relation: Relation, places: Sequence[int]) -> Expression:
    def change(part: Expression) -> Expression | None:
        if isinstance(part, Column) and part.index <= -FIRST_OVER:
            return column(relation.schema, places[-FIRST_OVER - part.index])
        return None

    return rewrite(e, change)
