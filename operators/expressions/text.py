"""Expressions as SQL text for people: EXPLAIN, messages and plan tests. Not meant to be parsed back."""

from __future__ import annotations

import datetime

from millrace.operators.expressions.tree import Call, Case, Cast, Column, Expression, Literal
from millrace.operators.functions.types import sql_name

_BINARY = {"+", "-", "*", "/", "%", "=", "<>", "<", "<=", ">", ">=", "||", "like", "ilike", "and", "or",
           "is distinct from", "is not distinct from", "similar to", "->", "->>"}  # fmt: skip


def to_sql(expression: Expression) -> str:
    """The expression as one line of SQL."""
    match expression:
        case Column():
            return expression.name
        case Literal():
            return _literal(expression.value)
        case Cast():
            verb = "TRY_CAST" if expression.safe else "CAST"
            return f"{verb}({to_sql(expression.argument)} AS {sql_name(expression.type)})"
        case Case():
            arms = " ".join(
                f"WHEN {to_sql(c)} THEN {to_sql(v)}"
                for c, v in zip(expression.conditions, expression.values, strict=True)
            )
            return f"CASE {arms} ELSE {to_sql(expression.default)} END"
        case Call():
            return _call(expression)


def _literal(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta):
        return f"'{value}'"
    return str(value)


def _call(call: Call) -> str:
    parts = [f"({to_sql(a)})" if _is_binary(a) else to_sql(a) for a in call.arguments]
    name = call.function
    if name in _BINARY and len(parts) > 1:
        return f" {name.upper()} ".join(parts)
    if name.startswith("is ") and len(parts) == 1:
        return f"{parts[0]} {name.upper()}"
    if name == "not":
        return f"NOT {parts[0]}"
    if name == "-":
        return f"-{parts[0]}"
    if name == "in":
        return f"{parts[0]} IN ({', '.join(parts[1:])})"
    return f"{name}({', '.join(to_sql(a) for a in call.arguments)})"


def _is_binary(expression: Expression) -> bool:
    return isinstance(expression, Call) and expression.function in _BINARY
