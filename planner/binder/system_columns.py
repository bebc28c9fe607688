"""What records bring beside their values, as queries name it: system columns, HEADER(…), SET_HEADER(…)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
from sqlglot import exp

from millrace.operators.expressions.tree import Expression
from millrace.operators.functions import types as sql
from millrace.planner.binder.errors import invalid
from millrace.planner.binder.scalars import HEADER_CHANGES, HEADER_FUNCTIONS, ScalarBinder, cast
from millrace.planner.binder.scope import HEADERS, SYSTEM_COLUMNS
from millrace.planner.binder.select_list import Item
from millrace.planner.dialect import nodes
from millrace.planner.logical import Relation, Scan

PARAMETERS = {"set_header": 2, "remove_header": 1}


def named_in(node: exp.Select) -> frozenset[str]:
    """The system columns that a query, or one inside it, names."""
    found: set[str] = set()
    for part in node.walk():
        if isinstance(part, exp.Identifier):
            found.add(part.name.casefold())
        elif isinstance(part, nodes.Call) and str(part.this) in (*HEADER_FUNCTIONS, *HEADER_CHANGES):
            found.add(HEADERS)
    return SYSTEM_COLUMNS & found


def with_named(relation: Relation, named: frozenset[str]) -> tuple[Relation, frozenset[int]]:
    """The relation with those of `named` that its source offers, and where they stand."""
    if not isinstance(relation, Scan):
        return relation, frozenset()
    names = relation.input.schema.names
    more = tuple(place for place in relation.offered if names[place] in named)
    width = len(relation.columns)
    return replace(relation, columns=(*relation.columns, *more)), frozenset(range(width, width + len(more)))


def with_headers(
    node: exp.Select, items: Sequence[Item], binder: ScalarBinder, aggregates: Sequence[object]
) -> list[Item]:
    """The items with a last one for the headers of the record, where the select list changes them.

    They begin with those of the row's own record, if the query reads a source that has any and aggregates nothing.
    Raises Invalid MR1155, MR1156, MR1211.
    """
    changes = [e for e in node.expressions if header_change(e) is not None]
    if not changes:
        return list(items)
    bound: list[tuple[nodes.Call, list[Expression]]] = []
    for expression in changes:
        call = header_change(expression)
        assert call is not None
        if len(call.expressions) != PARAMETERS[str(call.this)]:
            name = str(call.this)
            raise invalid(call, "MR1211", f"{name} does not take {len(call.expressions)} arguments")
        values = [cast(binder.bind(argument), sql.STRING) for argument in call.expressions]
        bound.append((call, values))
    grouped = node.args.get("group") or node.args.get("having") or node.args.get("distinct") or aggregates
    headers: Expression | None = None
    if not grouped and binder.scope.has(HEADERS):
        headers = binder.scope.resolve([HEADERS], changes[0])
    for call, values in bound:
        headers = _changed(binder, headers, call, values)
    assert headers is not None
    kept = [item for item in items if item.name.casefold() != HEADERS]
    return [*kept, Item(HEADERS, headers, exp.Alias(this=changes[0].copy(), alias=HEADERS))]


def _changed(
    binder: ScalarBinder, headers: Expression | None, call: nodes.Call, values: list[Expression]
) -> Expression:
    if str(call.this) == "set_header":
        one = binder.call("map", values, call)
        return one if headers is None else binder.call("map_concat", [headers, one], call)
    if headers is None:
        raise invalid(
            call,
            "MR1156",
            "there are no headers that one could be removed from",
            "records begin with headers where a query reads a Kafka source and aggregates nothing",
        )
    without = binder.call("map_remove", [headers, *values], call)
    return binder.call("coalesce", [without, headers], call)


def header_change(node: exp.Expr) -> nodes.Call | None:
    """The call of SET_HEADER or REMOVE_HEADER that a select-list item is."""
    inner = node.this if isinstance(node, exp.Alias) else node
    return inner if isinstance(inner, nodes.Call) and str(inner.this) in HEADER_CHANGES else None


def header_value(call: nodes.Call) -> exp.Expr:
    """What a change that has an alias is worth: the value that is set, or that of the header that is removed."""
    if str(call.this) == "set_header" and len(call.expressions) == PARAMETERS["set_header"]:
        return call.expressions[1]
    before = nodes.Call(this="header", expressions=[e.copy() for e in call.expressions])
    before.meta.update(call.meta)
    return before


def is_headers(field: pa.Field) -> bool:
    """Whether a column that goes to a sink is the headers of its records."""
    type = field.type
    return bool(
        field.name.casefold() == HEADERS
        and pa.types.is_map(type)
        and pa.types.is_string(type.key_type)
        and (pa.types.is_string(type.item_type) or pa.types.is_binary(type.item_type))
    )
