"""Joins whose right side reads the left one: table functions, and LATERAL queries made into joins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pyarrow as pa
from sqlglot import exp

from millrace.operators.expressions.tree import Call, Case, Column, Expression, Literal
from millrace.planner.binder.correlation import (
    OUTER,
    is_correlated,
    or_empty,
    value_without_rows,
)
from millrace.planner.binder.domains import made_plain
from millrace.planner.binder.errors import invalid, unsupported
from millrace.planner.binder.scalars import ScalarBinder
from millrace.planner.binder.scope import Member, Scope
from millrace.planner.binder.sources import is_one_row
from millrace.planner.binder.table_functions import beside, is_table_function, with_outer
from millrace.planner.dialect.nodes import position_of
from millrace.planner.expressions import column, conjunction, conjuncts, rewrite
from millrace.planner.join_conditions import conditions_of, joined
from millrace.planner.logical import Aggregate, Filter, Join, Project, Relation, Rows
from millrace.planner.table_functions import Expansion

TRUE = Literal(True, pa.bool_())
BindQuery = Callable[[exp.Expr, Scope], Relation]


def is_lateral(node: exp.Expr) -> bool:
    """Whether an item of FROM may read what stands to its left."""
    return is_table_function(node) or (isinstance(node, exp.Subquery) and bool(node.args.get("lateral")))


def bind_lateral(left: Scope, node: exp.Join, bind: BindQuery) -> Scope:
    """The left rows joined with those that the right side gives for each of them."""
    kind = _kind(node)
    alias = node.this.args.get("alias")
    if alias is not None and any((m.alias or "").casefold() == alias.name.casefold() for m in left.members):
        raise invalid(node, "MR1113", f"two relations are named {alias.name}", "give one an alias")
    if is_table_function(node.this):
        return _function(left, node, kind)
    relation = bind(node.this.this, left)
    names = list(relation.schema.names)
    given = [c.name for c in alias.args.get("columns") or []] if alias is not None else []
    if len(given) > len(names):
        raise invalid(node.this, "MR1109", f"{len(given)} names are given for {len(names)} columns")
    names[: len(given)] = given
    width = len(left.relation.schema)
    member = Member(None if alias is None else alias.name, width, len(names))
    members = (*left.members, member)
    fields = [f.with_name(n) for f, n in zip(relation.schema, names, strict=True)]
    both = Scope(Rows(pa.schema([*left.relation.schema, *fields])), members, left.outer)
    on = _condition(both, node)
    inner = [rewrite(part, lambda e: _to_inner(e, width)) for part in on]
    whole = _attached(left.relation, relation, inner, kind, tuple(names), node)
    return Scope(whole, members, left.outer)


def _kind(node: exp.Join) -> str:
    kind = str(node.args.get("kind") or node.args.get("side") or "INNER").lower()
    if kind not in ("inner", "cross", "left") or node.args.get("method") or node.args.get("natural"):
        raise invalid(
            node,
            "MR1141",
            "what reads the left side can be joined by CROSS JOIN, JOIN or LEFT JOIN only",
            "join it that way, and filter afterwards",
        )
    if node.args.get("using") or node.args.get("within"):
        raise invalid(node, "MR1141", "what reads the left side is joined with ON", "write ON …")
    return "left" if kind == "left" else "inner"


def _condition(scope: Scope, node: exp.Join) -> list[Expression]:
    on = node.args.get("on")
    parts = [] if on is None else conjuncts(ScalarBinder(scope, "ON").condition(on))
    return [p for p in parts if not (isinstance(p, Literal) and p.value is True)]


def _function(left: Scope, node: exp.Join, kind: str) -> Scope:
    scope = beside(left, node.this)
    conditions = _condition(scope, node)
    relation = scope.relation
    assert isinstance(relation, Project) and isinstance(relation.input, Expansion)
    if kind == "inner":
        return replace(scope, relation=Filter(relation, conjunction(conditions))) if conditions else scope
    below = [rewrite(c, lambda e: _replaced(e, relation.expressions)) for c in conditions]
    outer = with_outer(relation.input, conjunction(below) if below else None)
    return replace(scope, relation=replace(relation, input=outer))


def _replaced(e: Expression, values: Sequence[Expression]) -> Expression | None:
    return values[e.index] if isinstance(e, Column) and e.index < OUTER else None


def _to_inner(e: Expression, width: int) -> Expression | None:
    """A column of both sides as `correlation` has it: those of the left side are outer ones."""
    if not isinstance(e, Column):
        return None
    return replace(e, index=e.index - width if e.index >= width else e.index + OUTER)


def _to_both(e: Expression, width: int) -> Expression:
    """The other way round."""

    def move(part: Expression) -> Expression | None:
        if not isinstance(part, Column):
            return None
        return replace(part, index=part.index - OUTER if part.index >= OUTER else part.index + width)

    return rewrite(e, move)


def _attached(
    left: Relation,
    relation: Relation,
    conditions: list[Expression],
    kind: str,
    names: tuple[str, ...],
    node: exp.Join,
) -> Relation:
    """Left columns and, behind them, those of `relation` for that row; `conditions` are over its columns and outer ones."""
    values: list[Expression] = [column(relation.schema, i) for i in range(len(relation.schema))]
    core = relation
    while is_correlated(core) or core is relation:
        if isinstance(core, Project):
            put = partial(_replaced, values=core.expressions)
            values = [rewrite(v, put) for v in values]
            conditions = [rewrite(c, put) for c in conditions]
        elif isinstance(core, Filter):
            conditions = [*conditions, *conjuncts(core.predicate)]
        else:
            break
        core = core.input
    width = len(left.schema)
    if isinstance(core, Aggregate) and not core.keys and is_correlated(core):
        whole, placed = _aggregated(left, core, conditions, kind, node)
        values = [_placed(v, placed, width) for v in values]
    elif kind == "inner":
        whole = _applied(left, core, node)
        if conditions:
            whole = Filter(whole, conjunction([_to_both(c, width) for c in conditions]))
        values = [_to_both(v, width) for v in values]
    else:
        whole, values = _outer(left, core, conditions, values, node)
    kept = [column(left.schema, i) for i in range(width)]
    return Project(whole, (*kept, *values), (*left.schema.names, *names))


def _placed(value: Expression, places: Sequence[Expression], width: int) -> Expression:
    """A value over inner and outer columns, where each inner column is an expression over the whole."""

    def put(e: Expression) -> Expression | None:
        if not isinstance(e, Column):
            return None
        return replace(e, index=e.index - OUTER) if e.index >= OUTER else places[e.index]

    return rewrite(value, put)


def _aggregated(
    left: Relation, core: Aggregate, conditions: list[Expression], kind: str, node: exp.Join
) -> tuple[Relation, list[Expression]]:
    """An aggregate without keys has one row for each left one, even where nothing comes in."""
    if kind == "left" and conditions:
        raise unsupported(
            node,
            "MR1903",
            "LEFT JOIN LATERAL of an aggregate takes no condition but TRUE",
            "write CROSS JOIN LATERAL, and the condition into CASE",
        )
    whole, found, width = _marked_join(left, core, [], node)
    places = [
        or_empty(found, column(whole.schema, width + i), value_without_rows(core, i))
        for i in range(len(core.schema))
    ]
    if conditions:
        whole = Filter(whole, conjunction([_placed(c, places, width) for c in conditions]))
    return whole, places


def _marked_join(
    left: Relation, core: Relation, conditions: list[Expression], node: exp.Join
) -> tuple[Relation, Expression, int]:
    """LEFT JOIN of a query made plain, a marker of it that is NULL where it has no row, and where its columns begin."""
    plain = made_plain(left, core, lambda e, at: e, node)
    below = plain.relation
    every = tuple(column(below.schema, i) for i in range(len(below.schema)))
    marked = Project(below, (*every, TRUE), (*below.schema.names, "_found"))
    width = len(left.schema)
    on = [_to_both(c, width) for c in (*plain.conditions, *conditions)]
    whole = joined(left, marked, "left", on, position_of(node))
    return whole, column(whole.schema, width + len(every)), width


def _outer(
    left: Relation,
    core: Relation,
    conditions: list[Expression],
    values: list[Expression],
    node: exp.Join,
) -> tuple[Relation, list[Expression]]:
    """LEFT JOIN: the whole, and the values over it, NULL where nothing is found."""
    width = len(left.schema)
    whole: Relation
    if isinstance(core, Expansion) and is_one_row(core.input) and not core.outer:
        arguments = tuple(_to_both(a, width) for a in core.arguments)
        first = width - 1  # its input has one column, which nobody reads
        below = [_to_both(c, first) for c in conditions]
        whole = Expansion(
            left,
            core.function,
            arguments,
            core.made,
            True,
            True,
            conjunction(below) if below else None,
            position=core.position,
        )
        found: Expression = column(whole.schema, width + len(core.made))
        placed = [_to_both(v, first) for v in values]
    else:
        whole, found, _ = _marked_join(left, core, conditions, node)
        placed = [_to_both(v, width) for v in values]
    absent = Call("is null", (found,), pa.bool_())
    return whole, [
        p
        if isinstance(v, Column) and v.index < OUTER
        else Case((absent,), (Literal(None, p.type),), p, p.type)
        for v, p in zip(values, placed, strict=True)
    ]


def _applied(left: Relation, relation: Relation, node: exp.Join) -> Relation:
    """Every left row with its rows of `relation`, as columns behind its own."""
    width = len(left.schema)
    if is_one_row(relation):
        kept = tuple(column(left.schema, i) for i in range(width))
        return Project(left, (*kept, TRUE), (*left.schema.names, relation.schema.names[0]))
    if not is_correlated(relation):
        if isinstance(relation, Project | Filter | Expansion) and _on_one_row(relation):
            return _chain(left, relation, node)
        return joined(left, relation, "cross", [], position_of(node))
    if isinstance(relation, Project | Filter | Expansion):
        return _chain(left, relation, node)
    if isinstance(relation, Join) and relation.kind in ("inner", "cross"):
        both = _applied(_applied(left, relation.left, node), relation.right, node)
        parts = conditions_of(relation)
        return Filter(both, conjunction([_to_both(p, width) for p in parts])) if parts else both
    plain = made_plain(left, relation, lambda e, at: e, node)
    on = [_to_both(c, width) for c in plain.conditions]
    whole = joined(left, plain.relation, "inner", on, position_of(node))
    kept = tuple(column(whole.schema, i) for i in range(width + len(relation.schema)))
    return Project(whole, kept, tuple(whole.schema.names[: len(kept)]))


def _chain(left: Relation, relation: Project | Filter | Expansion, node: exp.Join) -> Relation:
    width = len(left.schema)
    below = _applied(left, relation.input, node)
    match relation:
        case Project():
            kept = tuple(column(left.schema, i) for i in range(width))
            values = tuple(_to_both(e, width) for e in relation.expressions)
            return Project(below, (*kept, *values), (*left.schema.names, *relation.names))
        case Filter():
            return Filter(below, _to_both(relation.predicate, width))
    condition = None if relation.condition is None else _to_both(relation.condition, width)
    arguments = tuple(_to_both(a, width) for a in relation.arguments)
    return replace(relation, input=below, arguments=arguments, condition=condition)


def _on_one_row(relation: Relation) -> bool:
    while isinstance(relation, Project | Filter | Expansion):
        relation = relation.input
    return is_one_row(relation)
