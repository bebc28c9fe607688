"""Errors that say where in the text they are. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from millrace.errors import Invalid, MillraceError, Unsupported
from millrace.planner.dialect.nodes import position_of


def invalid(node: object, code: str, message: str, hint: str | None = None) -> Invalid:
    """An Invalid at the place of a tree node."""
    return Invalid(message, code=code, hint=hint, position=position_of(node))


def unsupported(node: object, code: str, message: str, hint: str | None = None) -> Unsupported:
    """An Unsupported at the place of a tree node."""
    return Unsupported(message, code=code, hint=hint, position=position_of(node))


@contextmanager
def located(node: object) -> Iterator[None]:
    """Gives errors raised inside that have no place the place of `node`."""
    try:
        yield
    except MillraceError as error:
        if error.position is None:
            error.position = position_of(node)
        raise
