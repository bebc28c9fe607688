"""A bound query: its relation, and the order and limit that only its surroundings can make use of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot import exp

from millrace.errors import Invalid, Position
from millrace.operators.expressions.tree import Call, Column, Expression
from millrace.planner.binder.errors import invalid
from millrace.planner.binder.scalars import check_repeatable
from millrace.planner.binder.select_list import Item, Resolve, Sort
from millrace.planner.binder.set_operations import distinct_rows
from millrace.planner.dialect import nodes
from millrace.planner.expressions import column
from millrace.planner.logical import Project, Relation
from millrace.planner.ranking import SortKey, TopN


@dataclass(frozen=True, slots=True)
class BoundQuery:
    """A query's relation, and what only its surroundings can make use of.

    `order`, `limit` and `offset` are those of the outermost block; the last `hidden` columns are there for `order`
    alone; `key` is the output key that `PRIMARY KEY` in the select list sets.
    """

    relation: Relation
    order: tuple[SortKey, ...] = ()
    limit: int | None = None
    offset: int = 0
    key: tuple[str, ...] | None = None
    hidden: int = 0

    def limited(self, position: Position | None) -> Relation:
        """The relation with the limit applied, as a top-N that is kept up to date. ORDER BY alone says nothing."""
        relation = self.relation
        if self.limit is not None or self.offset:
            relation = TopN(relation, (), self.order, self.limit, self.offset, position=position)
        return shown(relation, self.hidden)

    def standing(self, position: Position | None) -> Relation:
        """The same for rows that go on as they come. Raises Invalid MR1344 where ORDER BY has no LIMIT."""
        check_order(self.order, self.limit, self.offset, position)
        return self.limited(position)


def check_order(order: Sequence[SortKey], limit: int | None, offset: int, position: Position | None) -> None:
    """Raises Invalid MR1344 where rows without end would have to be put in order."""
    if order and limit is None and not offset:
        raise Invalid(
            "rows that go on as they come can not be ordered without a LIMIT",
            code="MR1344",
            hint="add LIMIT: the first rows in that order are then kept up to date; or leave ORDER BY out",
            position=position,
        )


def shown(relation: Relation, hidden: int) -> Relation:
    """The relation without its last `hidden` columns."""
    if not hidden:
        return relation
    width = len(relation.schema) - hidden
    values = tuple(column(relation.schema, at) for at in range(width))
    return Project(relation, values, tuple(relation.schema.names[:width]))


def projected(relation: Relation, values: Sequence[Expression], names: Sequence[str]) -> Relation:
    """The relation with these columns, itself where they are its own; `end - …` called …time is a window's time."""
    own = len(values) == len(relation.schema) and all(
        isinstance(v, Column) and v.index == i for i, v in enumerate(values)
    )
    if own and list(names) == relation.schema.names:
        return relation
    end = relation.bounds[1]
    time = None
    for at, value in enumerate(values):
        if isinstance(value, Call) and end is not None and value.function == "-":
            first = value.arguments[0]
            if isinstance(first, Column) and first.index == end and names[at].lower().endswith("time"):
                time = at
    return Project(relation, tuple(values), tuple(names), time)


def renamed(relation: Relation, columns: Sequence[str], node: object) -> Relation:
    """The relation with its first columns called `columns`. Raises Invalid MR1109."""
    if not columns:
        return relation
    names = list(relation.schema.names)
    if len(columns) > len(names):
        raise invalid(node, "MR1109", f"{len(columns)} names are given for {len(names)} columns")
    names[: len(columns)] = columns
    return projected(relation, [column(relation.schema, i) for i in range(len(names))], names)


def finish(
    node: exp.Expr,
    relation: Relation,
    items: Sequence[Item],
    sort: Sequence[Sort],
    final: Resolve,
    distinct_on: Sequence[Sort] | None = None,
) -> BoundQuery:
    """A block's select list, DISTINCT, order and limit over `relation`; `final` maps expressions onto it.

    Values that ORDER BY or DISTINCT ON need and the select list does not have become hidden columns.
    """
    distinct = node.args.get("distinct")
    values = [final(item.value, item.node) for item in items]
    for value, item in zip(values, items, strict=True):
        check_repeatable(value, relation, item.node)
    names = [item.name for item in items]
    width = len(values)

    def place(one: Sort) -> int:
        if one.place is not None:
            return one.place
        value = final(one.value, one.node)
        if value not in values:
            values.append(value)
            names.append(f"_order{len(values)}")
        return values.index(value)

    keys = tuple(SortKey(place(s), s.descending, s.nulls_first) for s in sort)
    once = None if distinct_on is None else tuple(dict.fromkeys(place(s) for s in distinct_on))
    below = projected(relation, values, names)
    key = tuple(c.name for c in node.args.get("key") or []) or None
    if once is not None:
        leading = {k.column for k in keys[: len(once)]}
        if keys and not (leading <= set(once) and (set(once) <= leading or len(keys) < len(once))):
            raise invalid(
                node.args["order"],
                "MR1149",
                "ORDER BY must begin with the values of DISTINCT ON",
                "put them first: which row is kept is decided by what follows",
            )
        below = TopN(below, once, keys, 1, position=nodes.position_of(node))
    elif distinct is not None:
        if len(values) > width:
            raise invalid(distinct, "MR1107", "with DISTINCT, ORDER BY takes columns of the select list only")
        below = distinct_rows(below)
    limit, offset = count_of(node, "limit"), count_of(node, "offset") or 0
    return BoundQuery(below, keys, limit, offset, key, len(values) - width)


def count_of(node: exp.Expr, clause: str) -> int | None:
    """The number that LIMIT, FETCH or OFFSET gives. Raises Invalid MR1135."""
    found = node.args.get(clause)
    if found is None:
        return None
    value = found.expression if found.expression is not None else found.args.get("count")
    if not isinstance(value, exp.Literal) or value.is_string or not str(value.this).isdigit():
        raise invalid(found, "MR1135", f"{clause.upper()} must be a whole number")
    return int(value.this)
