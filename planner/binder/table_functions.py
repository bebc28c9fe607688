"""UNNEST and other table functions: in FROM beside what stands to their left, and UNNEST in a select list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
from sqlglot import exp

from millrace.operators.expansion.functions import choose
from millrace.operators.expansion.spec import ORDINALITY
from millrace.operators.expressions.tree import Call, Column, Expression, Literal
from millrace.operators.functions import types as sql
from millrace.planner.binder.errors import invalid, located
from millrace.planner.binder.scalars import ScalarBinder, is_untyped
from millrace.planner.binder.scope import Member, Scope
from millrace.planner.dialect import nodes
from millrace.planner.dialect.nodes import position_of
from millrace.planner.expressions import column, rewrite
from millrace.planner.logical import Project, Relation
from millrace.planner.table_functions import Expansion, expanded

FIRST_EXPANSION = 1_700_000
"""What UNNEST in a select list will give stands in expressions as column `-FIRST_EXPANSION - n`."""
UNNEST = "unnest"


@dataclass(frozen=True, slots=True)
class BoundCall:
    """A call with its arguments bound, and the columns that it makes."""

    function: str
    arguments: tuple[Expression, ...]
    made: pa.Schema


def is_table_function(node: exp.Expr) -> bool:
    """Whether an item of FROM is a function of what stands to its left."""
    return isinstance(node, exp.Unnest | nodes.TableCall)


def beside(scope: Scope, node: exp.Unnest | nodes.TableCall) -> Scope:
    """The rows of a scope with those that the function makes of each. Raises Invalid MR1109, MR1210, MR1211."""
    call = _bound_call(scope, node)
    ordinality = bool(node.args.get("offset") or node.args.get("ordinality"))
    relation = expanded(
        scope.relation,
        call.function,
        call.arguments,
        call.made,
        ordinality=ordinality,
        position=position_of(node),
    )
    alias = node.args.get("alias")
    name = alias.name if alias is not None else None
    names = [c.name for c in alias.args.get("columns") or []] if alias is not None else []
    width = len(scope.relation.schema)
    values, titles = _shown(relation, width, call, names, name)
    if len(names) > len(titles):
        raise invalid(node, "MR1109", f"{len(names)} names are given for {len(titles)} columns")
    titles[: len(names)] = names
    kept = [column(relation.schema, i) for i in range(width)]
    whole = Project(relation, (*kept, *values), (*relation.schema.names[:width], *titles))
    member = Member(name, width, len(values))
    return Scope(whole, (*scope.members, member), scope.outer)


def _bound_call(scope: Scope, node: exp.Unnest | nodes.TableCall) -> BoundCall:
    binder = ScalarBinder(scope, "FROM")
    if isinstance(node, exp.Unnest):
        return bound_unnest(binder, [binder.bind(e) for e in node.expressions], node)
    call = node.this
    if any(isinstance(e, nodes.NamedArgument | exp.Star) for e in call.expressions):
        raise invalid(node, "MR1124", f"{call.args['this']} takes its arguments by position")
    arguments = [binder.bind(e) for e in call.expressions]
    return _chosen(binder, str(call.args["this"]), arguments, node)


def bound_unnest(binder: ScalarBinder, arguments: Sequence[Expression], node: exp.Expr) -> BoundCall:
    """UNNEST of arrays and maps; of one column of JSON texts, their elements."""
    first = arguments[0] if len(arguments) == 1 else None
    if isinstance(first, Column) and 0 <= first.index < len(binder.scope.relation.schema):
        metadata = binder.scope.relation.schema.field(first.index).metadata or {}
        if metadata.get(b"sql_type") == b"JSON":
            return _chosen(binder, "json_array_elements", arguments, node)
    return _chosen(binder, UNNEST, arguments, node)


def _chosen(binder: ScalarBinder, name: str, arguments: Sequence[Expression], node: exp.Expr) -> BoundCall:
    with located(node):
        types, fields = choose(name, [a.type for a in arguments], [is_untyped(a) for a in arguments])
    cast = [
        binder.coerce(a, t, node, f"the argument of {name}") for a, t in zip(arguments, types, strict=True)
    ]
    return BoundCall(name.lower(), tuple(cast), pa.schema(fields))


def _shown(
    relation: Expansion, width: int, call: BoundCall, names: Sequence[str], alias: str | None
) -> tuple[list[Expression], list[str]]:
    """The new columns as a query sees them: structs as their fields, unless there is one name for each whole."""
    made = [column(relation.schema, width + i) for i in range(len(call.made))]
    structs = [c for c in made if pa.types.is_struct(c.type)]
    number = int(relation.ordinality)
    apart = call.function == UNNEST and bool(structs)
    if apart and 0 < len(names) <= len(made) + number:
        apart = all(len(c.type) == 1 for c in structs) if len(made) == 1 else False
    values: list[Expression] = []
    titles: list[str] = []
    for c in made:
        if apart and pa.types.is_struct(c.type):
            for part in c.type:
                values.append(Call("struct_field", (c, Literal(part.name, sql.STRING)), part.type))
                titles.append(part.name)
            continue
        values.append(c)
        titles.append(alias if alias is not None and len(made) == 1 else c.name)
    if number:
        values.append(column(relation.schema, width + len(made)))
        titles.append(ORDINALITY.name)
    return values, titles


@dataclass(slots=True)
class SelectedRows:
    """The UNNESTs of a select list, until the block's rows are known."""

    binder: ScalarBinder
    pending: list[tuple[Expression, exp.Expr]] = field(default_factory=list)

    def rows(self, node: nodes.Call) -> Expression:
        """The stand-in of `unnest(array)`."""
        call = bound_unnest(self.binder, [self.binder.bind(e) for e in node.expressions], node)
        if len(call.arguments) != 1 or call.function != UNNEST:
            raise invalid(node, "MR1140", "unnest in a select list takes one array", "or use UNNEST in FROM")
        self.pending.append((call.arguments[0], node))
        return Column(-FIRST_EXPANSION - len(self.pending) + 1, call.made.field(0).type, UNNEST)

    def attach(
        self, relation: Relation, resolve: Callable[[Expression, object], Expression]
    ) -> tuple[Relation, Callable[[Expression], Expression]]:
        """`relation` with the rows of all of them in step, and how expressions over it find their values."""
        if not self.pending:
            return relation, lambda e: e
        width = len(relation.schema)
        arguments = tuple(resolve(value, node) for value, node in self.pending)
        _, fields = choose(UNNEST, [a.type for a in arguments], [False] * len(arguments))
        position = position_of(self.pending[0][1])
        whole = expanded(relation, UNNEST, arguments, pa.schema(fields), position=position)

        def settle(e: Expression) -> Expression:
            return rewrite(e, change)

        def change(e: Expression) -> Expression | None:
            if isinstance(e, Column) and -FIRST_EXPANSION - len(arguments) < e.index <= -FIRST_EXPANSION:
                return column(whole.schema, width - FIRST_EXPANSION - e.index)
            return None

        return whole, settle


def with_outer(relation: Expansion, condition: Expression | None) -> Expansion:
    """The expansion that keeps rows of which nothing is made, or nothing for which the condition holds."""
    return replace(relation, outer=True, condition=condition)
