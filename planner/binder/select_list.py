"""The select list, and the GROUP BY and ORDER BY items that point into it. Groups and sorts nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlglot import exp

from millrace.operators.expressions.tree import Column, Expression
from millrace.planner.binder.calls import BOUNDS, FIRST_BOUND, bind_order
from millrace.planner.binder.errors import invalid
from millrace.planner.binder.grouping import resolve_bound
from millrace.planner.binder.scalars import ScalarBinder
from millrace.planner.binder.scope import EVENT_TIME
from millrace.planner.dialect import nodes
from millrace.planner.expressions import rewrite, walk


@dataclass(frozen=True, slots=True)
class Item:
    """One select-list column: its name, its value over the block's input, and the node it came from."""

    name: str
    value: Expression
    node: object


@dataclass(frozen=True, slots=True)
class Sort:
    """One ORDER BY item: the select-list place it names, or a value of its own."""

    place: int | None
    value: Expression
    descending: bool
    nulls_first: bool
    node: object


class Resolve(Protocol):
    """Turns an expression over a block's input into one over a later stage of the block."""

    def __call__(self, e: Expression, at: object, /) -> Expression: ...


def starred(star: exp.Star, columns: Sequence[Column], node: object, binder: ScalarBinder) -> list[Item]:
    dropped = {i.name.casefold() for i in star.args.get("except_") or []}
    unknown = dropped - {c.name.casefold() for c in columns}
    if unknown:
        raise invalid(node, "MR1101", f"there is no column named {min(unknown)} to leave out")
    renames = {a.this.name.casefold(): a.alias for a in star.args.get("rename") or []}
    replaced = {a.alias.casefold(): a.this for a in star.args.get("replace") or []}
    items = []
    for c in columns:
        folded = c.name.casefold()
        if folded in dropped:
            continue
        value = binder.bind(replaced[folded]) if folded in replaced else c
        items.append(Item(renames.get(folded, c.name), value, node))
    return items


def title_of(node: exp.Expr, value: Expression, position: int) -> str:
    if isinstance(node, exp.Alias):
        return node.alias
    inner = node
    while isinstance(inner, exp.Paren | exp.Cast | exp.TryCast):
        inner = inner.this
    if isinstance(inner, exp.Column) and inner.name.casefold() == EVENT_TIME:
        return inner.name
    if isinstance(inner, exp.Column):
        return value.name if isinstance(value, Column) and value.index >= 0 else inner.name
    if isinstance(inner, exp.Dot):
        return inner.expression.name
    if isinstance(inner, nodes.WindowBound):
        return f"window_{inner.args['bound']}"
    if isinstance(inner, exp.Window | nodes.RowsWindow):
        inner = inner.this
    if isinstance(inner, nodes.Call):
        return str(inner.this)
    return f"column{position + 1}"


def group_key(node: exp.Expr, items: Sequence[Item], binder: ScalarBinder) -> Expression | None:
    """The key that a GROUP BY item means; None for a whole window, whose bounds are keys anyway."""
    inner = node.this if isinstance(node, exp.Paren) else node
    if isinstance(inner, exp.Literal) and not inner.is_string:
        place = int(inner.this) if inner.this.isdigit() else 0
        if not 1 <= place <= len(items):
            raise invalid(node, "MR1133", f"GROUP BY {inner.this}: the select list has {len(items)} columns")
        value = items[place - 1].value
    else:
        value = binder.bind(inner)
    if any(isinstance(e, Column) and -FIRST_BOUND < e.index < 0 for e in walk(value)):
        raise invalid(node, "MR1134", "GROUP BY can not hold an aggregate or UNNEST", "use a subquery")
    if isinstance(value, Column) and value.index == -FIRST_BOUND - BOUNDS.index("struct"):
        return None
    relation = binder.scope.relation
    return rewrite(
        value,
        lambda e: (
            resolve_bound(e, relation, relation.bounds, node)
            if isinstance(e, Column) and e.index <= -FIRST_BOUND
            else None
        ),
    )


def sort_items(nodes_: Sequence[exp.Expr], binder: ScalarBinder, items: Sequence[Item]) -> list[Sort]:
    found = []
    for node in nodes_:
        inner = node.this if isinstance(node, exp.Ordered) else node
        if isinstance(inner, exp.Literal) and not inner.is_string:
            place = int(inner.this) if inner.this.isdigit() else 0
            if not 1 <= place <= len(items):
                raise invalid(
                    node, "MR1133", f"ORDER BY {inner.this}: the select list has {len(items)} columns"
                )
            ((_, descending, first),) = bind_order([_reordered(node)], binder)
            found.append(Sort(place - 1, items[place - 1].value, descending, first, node))
            continue
        named = _named_item(inner, items)
        if named is not None:
            ((_, descending, first),) = bind_order([_reordered(node)], binder)
            found.append(Sort(named, items[named].value, descending, first, node))
            continue
        ((value, descending, first),) = bind_order([node], binder)
        at = next((i for i, item in enumerate(items) if item.value == value), None)
        found.append(Sort(at, value, descending, first, node))
    return found


def _reordered(node: exp.Expr) -> exp.Expr:
    """The same direction over a constant, where the value is known already."""
    if not isinstance(node, exp.Ordered):
        return exp.Literal.number(1)
    return exp.Ordered(
        this=exp.Literal.number(1), desc=node.args.get("desc"), nulls_first=node.args.get("nulls_first")
    )


def _named_item(node: exp.Expr, items: Sequence[Item]) -> int | None:
    """ORDER BY prefers names of the select list over columns of the input."""
    if not isinstance(node, exp.Column) or node.table:
        return None
    hits = [i for i, item in enumerate(items) if item.name.casefold() == node.name.casefold()]
    return hits[0] if len(hits) == 1 else None


def generated_names_apart(items: Sequence[Item]) -> list[Item]:
    """The items, those that were named by nobody (`count`, `sum`) under names that nothing else has."""
    given = [
        isinstance(i.node, exp.Alias) or (isinstance(i.value, Column) and i.value.index >= 0) for i in items
    ]
    taken = {item.name.casefold() for item, kept in zip(items, given, strict=True) if kept}
    found = []
    for item, kept in zip(items, given, strict=True):
        name, number = item.name, 0
        while not kept and name.casefold() in taken:
            number += 1
            name = f"{item.name}_{number}"
        taken.add(name.casefold())
        found.append(Item(name, item.value, item.node))
    return found
