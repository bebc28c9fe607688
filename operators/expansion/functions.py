"""Table functions by name: what each makes of given argument types, and the bodies that run. Knows no row of input.

A body takes one Arrow array an argument and gives, for each row, a number of new rows. Users' functions come and go by
`register_table_function`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.batch import Int64Array
from millrace.operators.functions import types as sql


@dataclass(slots=True)
class Made:
    """What a body made of some rows: `counts` says how many new rows each gave, `columns` hold those in order."""

    columns: list[pa.Array]
    counts: Int64Array


Body = Callable[[Sequence[pa.Array], int], Made]
Types = tuple[pa.DataType, ...]
Fields = tuple[pa.Field, ...]
Chosen = tuple[Types, Fields]
"""The types that arguments are cast to, and the columns that come out."""
Choose = Callable[[Sequence[pa.DataType], Sequence[bool]], Chosen | None]
"""Chooses for argument types, of which some are string literals; None where they do not fit."""
Build = Callable[[Types, Fields], Body]


@dataclass(frozen=True, slots=True)
class TableFunction:
    """One table function; `forms` and `description` are for people."""

    name: str
    forms: str
    description: str
    choose: Choose
    build: Build
    user_defined: bool = False


_FUNCTIONS: dict[str, TableFunction] = {}
_LOADED: list[bool] = []


def _functions() -> dict[str, TableFunction]:
    if not _LOADED:
        # Deferred: the bodies import this module to register.
        import millrace.operators.expansion.json_elements
        import millrace.operators.expansion.series
        import millrace.operators.expansion.unnest

        assert millrace.operators.expansion.json_elements
        assert millrace.operators.expansion.series
        assert millrace.operators.expansion.unnest
        _LOADED.append(True)
    return _FUNCTIONS


def define(name: str, forms: str, description: str, choose: Choose) -> Callable[[Build], Build]:
    """Decorator: the function below builds the body of a table function of the library."""

    def add(build: Build) -> Build:
        assert name not in _FUNCTIONS, f"two table functions named {name}"
        _FUNCTIONS[name] = TableFunction(name, forms, description, choose, build)
        return build

    return add


def find(name: str) -> TableFunction | None:
    """The table function of this name (in any case), if there is one."""
    return _functions().get(name.lower())


def table_functions() -> Iterator[TableFunction]:
    """All of them, by name."""
    known = _functions()
    return (known[name] for name in sorted(known))


def choose(name: str, types: Sequence[pa.DataType], literals: Sequence[bool]) -> Chosen:
    """What the function makes of these arguments. Raises Invalid MR1210 (no such function), MR1211 (they do not fit)."""
    function = find(name)
    if function is None:
        close = difflib.get_close_matches(name.lower(), _functions(), 3, 0.6)
        hint = (
            f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(sorted(_functions()))}"
        )
        raise Invalid(f"unknown table function {name}", code="MR1210", hint=hint)
    chosen = function.choose(types, literals)
    if chosen is None:
        given = ", ".join(sql.sql_name(t) for t in types)
        raise Invalid(
            f"table function {function.name} does not take ({given})",
            code="MR1211",
            hint=f"its forms: {function.forms}",
        )
    return chosen


def build(name: str, types: Types, fields: Fields) -> Body:
    """The body for one use of a function that `choose` knew."""
    function = find(name)
    if function is None:
        raise Invalid(
            f"unknown table function {name}", code="MR1210", hint="register it before the plan runs"
        )
    return function.build(types, fields)


def add_user_function(function: TableFunction) -> None:
    """Make a user's table function known; another one of that name is replaced. Raises Invalid MR1212."""
    known = find(function.name)
    if known is not None and not known.user_defined:
        raise Invalid(
            f"table function {function.name} is part of the library",
            code="MR1212",
            hint="register under another name",
        )
    _FUNCTIONS[function.name] = function


def unregister_table_function(name: str) -> None:
    """Remove a user's table function; nothing happens where there is none of that name."""
    known = _functions().get(name.lower())
    if known is not None and known.user_defined:
        del _FUNCTIONS[known.name]
