"""The function library by name: which functions there are, and which form of one given argument types choose.

Bodies register themselves from the modules of this package; users' functions come and go by `register_scalar`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa

from millrace.errors import BadData, Invalid
from millrace.operators.functions import types as sql
from millrace.operators.functions.row_error import UDF_FAILED, Body, Value, ValueFault
from millrace.operators.functions.signature import Overload, parse

Types = tuple[pa.DataType, ...]
Binding = tuple[Types, pa.DataType]
"""Parameter types and result type."""
Bind = Callable[[Sequence[pa.DataType], Sequence[bool]], Binding | None]
"""Chooses a binding for argument types, of which some are string literals; None where they do not fit."""
Literals = tuple[pa.Scalar | None, ...]
"""For each argument its value, where it is a constant."""
Build = Callable[[Types, pa.DataType, Literals], Body]
"""Makes the body for one use of a function: called once per expression, never per batch."""


COMPARISONS = frozenset({"=", "<>", "<", "<=", ">", ">="})


@dataclass(frozen=True, slots=True)
class Signature:
    """The form of a function that was chosen. Arguments are to be cast to `parameters`."""

    name: str
    parameters: Types
    returns: pa.DataType
    deterministic: bool = True
    can_fail: bool = False
    null_propagating: bool = True


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the library with all its forms."""

    name: str
    forms: tuple[str, ...]
    description: str
    bind: Bind
    build: Build
    aliases: tuple[str, ...] = ()
    deterministic: bool = True
    can_fail: bool = False
    null_propagating: bool = True
    hidden: bool = False
    user_defined: bool = False


@dataclass(slots=True)
class _Library:
    functions: dict[str, Function] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    loaded: bool = False

    def add(self, function: Function) -> None:
        for name in (function.name, *function.aliases):
            assert name not in self.names, f"two functions named {name}"
            self.names[name] = function.name
        self.functions[function.name] = function


_LIBRARY = _Library()


def _library() -> _Library:
    if not _LIBRARY.loaded:
        # Deferred: the bodies import this module to register, and cost time that `import millrace` must not pay.
        import millrace.operators.functions.library

        assert millrace.operators.functions.library
        _LIBRARY.loaded = True
    return _LIBRARY


def define(
    *forms: str,
    description: str,
    aliases: Sequence[str] = (),
    bind: Bind | None = None,
    deterministic: bool = True,
    can_fail: bool = False,
    null_propagating: bool = True,
    hidden: bool = False,
) -> Callable[[Build], Build]:
    """Decorator: the function below builds the body of the function whose forms are stated."""

    def add(build: Build) -> Build:
        name = forms[0].partition("(")[0]
        overloads = [parse(form) for form in forms] if bind is None else []
        _LIBRARY.add(
            Function(
                name,
                forms,
                description,
                bind or partial(_choose, overloads),
                build,
                tuple(aliases),
                deterministic,
                can_fail,
                null_propagating,
                hidden,
            )
        )
        return build

    return add


def scalar(
    *forms: str,
    description: str,
    aliases: Sequence[str] = (),
    can_fail: bool = False,
    null_propagating: bool = True,
) -> Callable[[Body], Body]:
    """Decorator: the function below is itself the body, whatever the argument types."""

    def add(body: Body) -> Body:
        define(
            *forms,
            description=description,
            aliases=aliases,
            can_fail=can_fail,
            null_propagating=null_propagating,
        )(lambda types, returns, literals: body)
        return body

    return add


def _choose(
    overloads: Sequence[Overload], types: Sequence[pa.DataType], literals: Sequence[bool]
) -> Binding | None:
    best: tuple[int, Types, pa.DataType] | None = None
    for overload in overloads:
        match = overload.match(types, literals)
        if match is not None and (best is None or match[0] < best[0]):
            best = match
    return None if best is None else best[1:]


def find(name: str) -> Function | None:
    """The function of this name or alias (in any case), if there is one."""
    library = _library()
    canonical = library.names.get(name.lower())
    return None if canonical is None else library.functions[canonical]


def resolve(
    name: str, argument_types: Sequence[pa.DataType], literals: Sequence[bool] | None = None
) -> Signature:
    """The form of `name` that the argument types choose.

    `literals` says which arguments are untyped string literals, which become times, numbers and intervals where
    the function wants those; where it is left out, any string counts as one. Raises Invalid for an unknown name
    (MR1210) and for types that no form takes (MR1211).
    """
    function = find(name)
    if function is None:
        close = difflib.get_close_matches(name.lower(), _library().names, 3, 0.6)
        hint = f"did you mean {', '.join(close)}?" if close else "SHOW FUNCTIONS lists all functions"
        raise Invalid(f"unknown function {name}", code="MR1210", hint=hint)
    marks = [sql.is_string(t) for t in argument_types] if literals is None else list(literals)
    binding = function.bind(list(argument_types), marks)
    if binding is None:
        raise _misfit(function, argument_types)
    return Signature(
        function.name,
        binding[0],
        binding[1],
        function.deterministic,
        function.can_fail,
        function.null_propagating,
    )


def _misfit(function: Function, types: Sequence[pa.DataType]) -> Invalid:
    given = [sql.sql_name(t) for t in types]
    if function.name in COMPARISONS and len(given) == 2:
        return Invalid(
            f"{given[0]} and {given[1]} can not be compared ({function.name})",
            code="MR1211",
            hint=f"CAST one of them, so that both are {given[0]} or both {given[1]}",
        )
    what = function.name if not function.name[0].isalpha() else f"function {function.name}"
    forms = "; ".join(function.forms)
    return Invalid(f"{what} does not take ({', '.join(given)})", code="MR1211", hint=f"its forms: {forms}")


def scalar_functions() -> Iterable[tuple[str, tuple[str, ...], str, str]]:
    """(name, aliases, forms, description) of every function, by name."""
    for name in sorted(_library().functions):
        function = _library().functions[name]
        if not function.hidden:
            yield name, function.aliases, "; ".join(function.forms), function.description


def names() -> Iterator[str]:
    """Every name and alias."""
    return iter(_library().names)


def register_scalar(
    name: str,
    function: Callable[..., pa.Array],
    parameters: Sequence[pa.DataType],
    returns: pa.DataType,
    *,
    deterministic: bool = True,
) -> None:
    """Add a user's function: it takes one Arrow array a parameter and returns one of the same length.

    Raises Invalid (MR1212) where the name is taken by a function of the library, or where there are no parameters;
    another user's function of that name is replaced.
    """
    if not parameters:
        raise Invalid(
            f"function {name} has no parameters", code="MR1212", hint="give it at least one array to work on"
        )
    library = _library()
    key = name.lower()
    known = find(key)
    if known is not None and not known.user_defined:
        raise Invalid(
            f"function {name} is part of the library", code="MR1212", hint="register under another name"
        )
    unregister(key)
    form = f"{key}({', '.join(sql.sql_name(t) for t in parameters)}) -> {sql.sql_name(returns)}"
    fixed = tuple(parameters)

    def bind(types: Sequence[pa.DataType], literals: Sequence[bool]) -> Binding | None:
        if len(types) != len(fixed):
            return None
        fits = all(
            sql.can_coerce(t, p, literal=mark) for t, p, mark in zip(types, fixed, literals, strict=True)
        )
        return (fixed, returns) if fits else None

    def build(types: Types, kind: pa.DataType, literals: Literals) -> Body:
        return partial(_call_user_function, key, function, kind)

    library.add(
        Function(
            key, (form,), "user-defined function", bind, build, (), deterministic, can_fail=True,
            null_propagating=False, user_defined=True,
        )
    )  # fmt: skip


def unregister(name: str) -> None:
    """Remove a user's function; nothing happens where there is none of that name."""
    library = _library()
    function = library.functions.get(name.lower())
    if function is not None and function.user_defined:
        del library.functions[function.name]
        del library.names[function.name]


def _call_user_function(
    name: str, function: Callable[..., pa.Array], returns: pa.DataType, values: Sequence[Value], rows: int
) -> Value:
    arrays = [pa.repeat(v, rows) if isinstance(v, pa.Scalar) else v for v in values]
    try:
        result = function(*arrays)
    except Exception as error:
        raise ValueFault(UDF_FAILED, f"{type(error).__name__}: {error}") from error
    if isinstance(result, pa.ChunkedArray):
        result = result.combine_chunks()
    if not isinstance(result, pa.Array) or len(result) != rows:
        found = f"{len(result)} rows" if isinstance(result, pa.Array) else type(result).__name__
        raise BadData(
            f"function {name} returned {found} instead of an Arrow array of {rows} rows",
            code="MR2010",
            hint="return one value for each input row",
        )
    if result.type != returns:
        try:
            result = result.cast(returns)
        except pa.ArrowException as error:
            raise BadData(
                f"function {name} returned {sql.sql_name(result.type)} instead of {sql.sql_name(returns)}",
                code="MR2011",
                hint="return the declared type",
            ) from error
    return result
