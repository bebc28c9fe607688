"""The tree of a typed scalar expression, as it stands in operator specs. Evaluates nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from millrace.operators.spec import serialisable


@serialisable
@dataclass(frozen=True, slots=True)
class Column:
    """The input column at `index` (from 0); `name` is for people."""

    index: int
    type: pa.DataType
    name: str


@serialisable
@dataclass(frozen=True, slots=True)
class Literal:
    """A constant: a Python value that `pa.scalar(value, type)` takes, or None for NULL."""

    value: object
    type: pa.DataType


@serialisable
@dataclass(frozen=True, slots=True)
class Call:
    """A function of the library applied to arguments; `type` is what the chosen overload returns.

    Arguments already have the overload's parameter types: the binder inserts casts.
    """

    function: str
    arguments: tuple[Expression, ...]
    type: pa.DataType


@serialisable
@dataclass(frozen=True, slots=True)
class Cast:
    """A conversion; with `safe` a value that does not convert becomes NULL instead of a row error."""

    argument: Expression
    type: pa.DataType
    safe: bool = False


@serialisable
@dataclass(frozen=True, slots=True)
class Case:
    """The value behind the first condition that is true, else `default`; untaken values are not computed."""

    conditions: tuple[Expression, ...]
    values: tuple[Expression, ...]
    default: Expression
    type: pa.DataType


Expression = Column | Literal | Call | Cast | Case


def moved(expression: Expression, places: Mapping[int, int]) -> Expression:
    """The same expression with each column at its new place."""
    match expression:
        case Column():
            return Column(places[expression.index], expression.type, expression.name)
        case Literal():
            return expression
        case Call():
            arguments = tuple(moved(a, places) for a in expression.arguments)
            return Call(expression.function, arguments, expression.type)
        case Cast():
            return Cast(moved(expression.argument, places), expression.type, expression.safe)
        case Case():
            return Case(
                tuple(moved(c, places) for c in expression.conditions),
                tuple(moved(v, places) for v in expression.values),
                moved(expression.default, places),
                expression.type,
            )
