"""Queries as relations: FROM, WHERE, SELECT, set operations, CTEs. Grouping and windows have modules of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import pyarrow as pa
from sqlglot import exp

from millrace.errors import Position
from millrace.operators.expressions.tree import Column, Expression
from millrace.planner.binder.bound import BoundQuery, finish, renamed
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
from millrace.planner.binder.lateral import bind_lateral, is_lateral
from millrace.planner.binder.over import apply_over
from millrace.planner.binder.probes import bind_probe
from millrace.planner.binder.row_patterns import bind_match_recognize
from millrace.planner.binder.scalars import ScalarBinder, check_repeatable
from millrace.planner.binder.scope import Member, Scope
from millrace.planner.binder.select_list import (
    Item,
    Resolve,
    generated_names_apart,
    group_key,
    sort_items,
    starred,
    title_of,
)
from millrace.planner.binder.set_operations import SetOperation, set_operation
from millrace.planner.binder.sources import one_row
from millrace.planner.binder.subqueries import (
    FIRST_SUBQUERY,
    Subqueries,
    apply_membership,
    settled,
    split_where,
)
from millrace.planner.binder.system_columns import (
    header_change,
    header_value,
    named_in,
    with_headers,
    with_named,
)
from millrace.planner.binder.table_functions import SelectedRows, beside
from millrace.planner.binder.temporal import apply_condition
from millrace.planner.binder.values import constant_rows
from millrace.planner.binder.windows import assign_window, check_no_emission, emission_of
from millrace.planner.dialect import nodes
from millrace.planner.expressions import column, conjunction, rewrite
from millrace.planner.logical import AssignWindow, Filter, Project, Relation, Session
from millrace.planner.rules.to_timed_join import to_timed_join
from millrace.planner.timed_joins import with_late_sides


class Names(Protocol):
    """What a query may read."""

    def relation(self, name: str, position: Position | None) -> Relation:
        """The relation behind a name of the catalog. Raises Invalid MR1201."""
        ...

    def inline(self, node: nodes.InlineSource) -> Relation:
        """The rows of a source named by URI."""
        ...


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
        elif isinstance(node, exp.Union | exp.Except | exp.Intersect):
            bound = inner._set_operation(node)
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
            return self._one_row()
        version = clause.this.args.get("version")
        if version is not None:
            raise invalid(
                version,
                "MR1138",
                "FOR SYSTEM_TIME AS OF belongs to the right side of a join",
                "write FROM t JOIN r FOR SYSTEM_TIME AS OF t.ts ON …",
            )
        named = named_in(node)
        scope = self.member(clause.this, named)
        for join in node.args.get("joins") or []:
            if join.args.get("probe") is not None:
                scope = bind_probe(scope, self.member(join.this, named), join)
            elif is_lateral(join.this):
                scope = bind_lateral(replace(scope, outer=self.outer), join, self._inner)
            else:
                scope = bind_join(scope, self.member(join.this, named), join)
        return replace(scope, outer=self.outer)

    def _one_row(self) -> Scope:
        return Scope(one_row(), (Member(None, 0, 1, frozenset({0})),), self.outer)

    def where(self, scope: Scope, condition: exp.Expr) -> Scope:
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

    def member(self, node: exp.Expr, named: frozenset[str] = frozenset()) -> Scope:
        """One item of FROM as a scope of its own, with the system columns in `named` that it has."""
        alias = node.args.get("alias")
        name = alias.name if alias is not None else None
        apart: frozenset[int] = frozenset()
        match node:
            case exp.Table():
                relation, apart = with_named(self._table(node), named)
                name = name or node.name
            case exp.Subquery():
                relation = self.bind(node.this)
            case nodes.WindowTable():
                inner = self.member(node.this, named)
                apart = frozenset(place for member in inner.members for place in member.apart)
                partition = self._partition(node, inner)
                relation = assign_window(node, inner, partition)
                name = name or (inner.members[0].alias if len(inner.members) == 1 else None)
            case nodes.InlineSource():
                relation, apart = with_named(self.names.inline(node), named)
            case nodes.MatchRecognize():
                relation = bind_match_recognize(node, self.member(node.this))
            case exp.Unnest() | nodes.TableCall():
                return beside(self._one_row(), node)
            case exp.Values():
                relation = constant_rows(node)
            case _:
                raise unsupported(node, "MR1901", f"{type(node).__name__.upper()} can not stand in FROM")
        columns = [c.name for c in alias.args.get("columns") or []] if alias is not None else []
        return Scope.of(renamed(relation, columns, node), name, apart)

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
            scope = self.where(scope, where.this)
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
        rows = binder.rows = SelectedRows(binder)
        items = with_headers(node, self._items(node, scope, binder), binder, calls.aggregates)
        binder.aliases = {item.name.casefold(): item.value for item in items}
        having, qualify = node.args.get("having"), node.args.get("qualify")
        conditions = [None if c is None else binder.condition(c.this) for c in (having, qualify)]
        order = node.args.get("order")
        sort = sort_items(order.expressions if order is not None else [], binder, items)
        once = None if node.args.get("distinct") is None else node.args["distinct"].args.get("on")
        on = None if once is None else sort_items(once.expressions, binder, items)
        if clause is not None or calls.aggregates or calls.groupings or having is not None:
            relation, resolve = self._grouped(node, scope, clause, calls, items, binder)
        else:
            scope = _with_late_joins(scope, node)
            emit = node.args.get("emit")
            if emit is not None and str(emit.args["mode"]) == "changes":
                scope = scope.over(sent_at_once(scope.relation))
            relation, resolve = scope.relation, partial(_resolve_plain, scope.relation)
        relation, resolve = _with_subqueries(relation, resolve, site)
        if conditions[0] is not None:
            condition = resolve(conditions[0], having)
            check_repeatable(condition, relation, having)
            relation = Filter(relation, condition)
        overs = [(call, around, at) for call, around, at in calls.overs]
        relation, places = apply_over(relation, overs, resolve)

        def final(e: Expression, at: object) -> Expression:
            return _resolve_over(resolve(e, at), relation, places)

        if conditions[1] is not None:
            condition = final(conditions[1], qualify)
            check_repeatable(condition, relation, qualify)
            relation = Filter(relation, condition)
        relation, settle = rows.attach(relation, final)
        return finish(node, relation, items, sort, lambda e, at: settle(final(e, at)), on)

    def _set_operation(self, node: SetOperation) -> BoundQuery:
        if any(node.args.get(c) is not None for c in ("emit", "lateness", "late_data")):
            check_no_emission(node)
        relation = set_operation(node, self.bind(node.this), self.bind(node.expression))
        binder = ScalarBinder(Scope.of(relation, None), "ORDER BY")
        items = [Item(f.name, column(relation.schema, i), node) for i, f in enumerate(relation.schema)]
        order = node.args.get("order")
        sort = sort_items(order.expressions if order is not None else [], binder, items)
        bare = node.copy()
        bare.set("distinct", None)
        return finish(bare, relation, items, sort, lambda e, at: e)

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
            change = header_change(inner)
            if change is not None:
                if inner is expression:
                    continue
                inner = header_value(change)
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
        grouped: Grouped = group(
            relation, grouping, calls.aggregates, emitting, titles, call_titles, calls.groupings
        )
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


def _with_subqueries(relation: Relation, resolve: Resolve, site: Subqueries) -> tuple[Relation, Resolve]:
    """The rows of a block with the values of its subqueries, and how expressions find them."""
    if not site.pending:
        return relation, resolve
    whole, values = site.attach(relation, resolve)
    return whole, lambda e, at: settled(resolve(e, at), values)


def _with_late_joins(scope: Scope, node: exp.Select) -> Scope:
    """The scope of a block that aggregates nothing, its join on time sending late rows where LATE DATA TO says."""
    late = node.args.get("late_data")
    whole = None if late is None else with_late_sides(scope.relation, str(late.this.name))
    check_no_emission(node, late_rows=whole is not None)
    return scope if whole is None else scope.over(whole)


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


def _resolve_plain(relation: Relation, e: Expression, at: object) -> Expression:
    def change(part: Expression) -> Expression | None:
        if isinstance(part, Column) and part.index <= -FIRST_BOUND:
            return resolve_bound(part, relation, relation.bounds, at)
        return None

    return rewrite(e, change)


def _resolve_over(e: Expression, relation: Relation, places: Sequence[int]) -> Expression:
    def change(part: Expression) -> Expression | None:
        if isinstance(part, Column) and -FIRST_SUBQUERY < part.index <= -FIRST_OVER:
            return column(relation.schema, places[-FIRST_OVER - part.index])
        return None

    return rewrite(e, change)
