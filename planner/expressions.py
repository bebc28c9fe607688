"""Walking and rewriting of typed expression trees. Evaluates nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from millrace.operators.expressions.tree import Call, Case, Cast, Column, Expression, Literal


def children(expression: Expression) -> tuple[Expression, ...]:
    """The expressions right below."""
    match expression:
        case Column() | Literal():
            return ()
        case Call():
            return expression.arguments
        case Cast():
            return (expression.argument,)
        case Case():
            return (*expression.conditions, *expression.values, expression.default)


def with_children(expression: Expression, below: Sequence[Expression]) -> Expression:
    """The same expression over others of the same types."""
    match expression:
        case Column() | Literal():
            return expression
        case Call():
            return replace(expression, arguments=tuple(below))
        case Cast():
            return replace(expression, argument=below[0])
        case Case():
            count = len(expression.conditions)
            return replace(
                expression,
                conditions=tuple(below[:count]),
                values=tuple(below[count : 2 * count]),
                default=below[2 * count],
            )


def rewrite(expression: Expression, change: Callable[[Expression], Expression | None]) -> Expression:
    """Top-down: where `change` gives an expression it is taken, else the parts are rewritten."""
    changed = change(expression)
    if changed is not None:
        return changed
    below = children(expression)
    if not below:
        return expression
    after = [rewrite(item, change) for item in below]
    if all(a is b for a, b in zip(after, below, strict=True)):
        return expression
    return with_children(expression, after)


def walk(expression: Expression) -> Iterator[Expression]:
    """The expression and all below it."""
    yield expression
    for item in children(expression):
        yield from walk(item)


def columns_of(expressions: Iterable[Expression]) -> set[int]:
    """Positions of all columns that are read."""
    return {e.index for root in expressions for e in walk(root) if isinstance(e, Column)}


def remap(expression: Expression, places: Mapping[int, int]) -> Expression:
    """The same expression with every column moved to `places[its position]`."""

    def move(e: Expression) -> Expression | None:
        return replace(e, index=places[e.index]) if isinstance(e, Column) else None

    return rewrite(expression, move)


def substitute(expression: Expression, values: Sequence[Expression]) -> Expression:
    """The same expression with column i replaced by `values[i]`."""

    def put(e: Expression) -> Expression | None:
        return values[e.index] if isinstance(e, Column) else None

    return rewrite(expression, put)


def is_constant(expression: Expression) -> bool:
    """Whether it reads no column (functions of time may still differ from call to call)."""
    return not columns_of([expression])


def column(schema: pa.Schema, index: int) -> Column:
    """The column at `index` of a schema."""
    field = schema.field(index)
    return Column(index, field.type, field.name)


def conjuncts(expression: Expression) -> list[Expression]:
    """What AND joins, in order."""
    if isinstance(expression, Call) and expression.function == AND:
        return [part for argument in expression.arguments for part in conjuncts(argument)]
    return [expression]


def conjunction(parts: Sequence[Expression]) -> Expression:
    """The parts joined by AND; there must be one at least."""
    whole = parts[0]
    for part in parts[1:]:
        whole = Call(AND, (whole, part), pa.bool_())
    return whole


AND = "and"
