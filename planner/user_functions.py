"""Functions that users wrote in Python: found by name or read from SQL, checked, known to the library while in use.

The library is one for the whole process, and each catalog has functions of its own: `activate` makes the library
hold those of the catalog that is about to be used. Plans that run keep the bodies they were built with.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from types import ModuleType
from typing import Any

import pyarrow as pa

from millrace.errors import Invalid, Position
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.aggregates.signatures import is_aggregate, register_aggregate, unregister_aggregate
from millrace.operators.expansion.functions import find as find_table_function
from millrace.operators.expansion.functions import unregister_table_function
from millrace.operators.expansion.user import register_table_function
from millrace.operators.expressions.tree import Call
from millrace.operators.functions.registry import find, register_scalar, unregister
from millrace.operators.over.frames import WINDOW_FUNCTIONS
from millrace.planner.catalog import Catalog, Change, Entry, EntryKind, Function
from millrace.planner.logical import Relation
from millrace.planner.statements import CreateFunction
from millrace.planner.table_functions import Expansion

SOURCES = "millrace_functions"
"""Functions given as source live in modules below this name, where pickle finds them."""

_lock = threading.Lock()
_active: dict[str, Function] = {}


def declare_function(
    catalog: Catalog,
    name: str,
    function: Function,
    *,
    text: str = "",
    replace: bool = False,
    if_not_exists: bool = False,
    position: Position | None = None,
) -> tuple[Change, ...]:
    """Add a function to the catalog and the library; nothing where it exists and that is fine.

    Raises Invalid: MR1202–MR1204 where the name is taken, MR1212 by a built-in function, MR1223 where `body`
    does not take the parameters.
    """
    if not catalog.check_creatable(
        name, EntryKind.FUNCTION, replace=replace, if_not_exists=if_not_exists, position=position
    ):
        return ()
    try:
        _check_name(name, function)
        _check_parameters(name, function)
        change = catalog.put(Entry(name, EntryKind.FUNCTION, function=function, text=text))
        activate(catalog)
    except Invalid as error:
        error.position = error.position or position
        raise
    return (change,)


def function_of(statement: CreateFunction) -> Function:
    """The function that a statement declares, its Python found. Raises Invalid MR1220–MR1222, MR1224."""
    if statement.options:
        raise Invalid(
            f"a function has no option '{statement.options[0].name}'",
            code="MR1224",
            hint="leave it out",
            position=statement.options[0].position,
        )
    try:
        if statement.target is not None:
            body = _imported(statement.target)
        else:
            body = _compiled(str(statement.name), statement.body or "")
    except Invalid as error:
        error.position = statement.name.position
        raise
    parameters = tuple(parameter.type.arrow for parameter in statement.parameters)
    returns = statement.returns
    result: pa.DataType | pa.Schema
    if isinstance(returns, tuple):
        _check_columns([c.name for c in returns], statement.name.position)
        result = pa.schema([pa.field(c.name, c.type.arrow) for c in returns])
    else:
        result = returns.arrow
    return Function(parameters, result, statement.aggregate, body)


def functions_in(catalog: Catalog) -> dict[str, Function]:
    """The users' functions of a catalog, by name in lower case."""
    return {
        entry.name.lower(): entry.function
        for entry in catalog.of_kind(EntryKind.FUNCTION)
        if entry.function is not None
    }


def activate(catalog: Catalog) -> None:
    """Let the library hold the users' functions of this catalog, and of no other one."""
    wanted = functions_in(catalog)
    with _lock:
        for name in [n for n, function in _active.items() if wanted.get(n) is not function]:
            _unregister(name, _active.pop(name))
        for name, function in wanted.items():
            if name not in _active:
                _register(name, function)
                _active[name] = function


def _register(name: str, function: Function) -> None:
    if isinstance(function.result, pa.Schema):
        register_table_function(name, function.body, function.arguments, function.result)
    elif function.aggregate:
        register_aggregate(name, function.body, function.arguments, function.result)
    else:
        register_scalar(name, function.body, function.arguments, function.result)


def _unregister(name: str, function: Function) -> None:
    if isinstance(function.result, pa.Schema):
        unregister_table_function(name)
    elif function.aggregate:
        unregister_aggregate(name)
    else:
        unregister(name)


def _check_columns(names: list[str], position: Position | None) -> None:
    twice = [n for at, n in enumerate(names) if n.casefold() in {m.casefold() for m in names[:at]}]
    if twice:
        raise Invalid(
            f"the table that the function returns has two columns named {twice[0]}",
            code="MR1225",
            hint="rename one",
            position=position,
        )


def with_functions(catalog: Catalog, change: Change, relation: Relation | None) -> Change:
    """The change, whose entry also depends on the users' functions that its relation calls."""
    own = {entry.name.lower(): entry.name for entry in catalog.of_kind(EntryKind.FUNCTION)}
    if not own or relation is None:
        return change
    called = {name for node in relation.walk() for name in called_functions(node) if name in own}
    if not called:
        return change
    depends = (*change.entry.depends, *sorted(f"{own[name]}()" for name in called))
    entry = dataclasses.replace(change.entry, depends=depends)
    catalog.put(entry)
    return Change(change.kind, entry)


def called_functions(value: object) -> Iterator[str]:
    """Names (in lower case) of all functions called in a relation or a spec, a relation's inputs aside."""
    if isinstance(value, Call | AggregateCall):
        yield value.function.lower()
    if isinstance(value, Expansion):
        yield value.function
    if isinstance(value, tuple):
        for item in value:
            yield from called_functions(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            if not isinstance(item, Relation):
                yield from called_functions(item)


def _check_name(name: str, function: Function) -> None:
    builtin, tabular = find(name), find_table_function(name)
    taken = (
        (builtin is not None and not builtin.user_defined)
        or (tabular is not None and not tabular.user_defined)
        or name.lower() in WINDOW_FUNCTIONS
        or (is_aggregate(name) and name.lower() not in _active)
    )
    if taken:
        raise Invalid(f"{name} is a built-in function", code="MR1212", hint="choose another name")
    if not function.arguments:
        raise Invalid(
            f"function {name} has no parameters",
            code="MR1212",
            hint="give it at least one: it is called with one Arrow array a parameter",
        )


def _check_parameters(name: str, function: Function) -> None:
    """Raises Invalid MR1223 where the Python does not take the declared number of arrays."""
    body, count = function.body, len(function.arguments)
    if not callable(body):
        raise Invalid(f"the Python of function {name} is a {type(body).__name__}", code="MR1221")
    called: Callable[..., object] = body
    if function.aggregate:
        missing = [m for m in ("accumulate", "result") if not hasattr(_state(name, body), m)]
        if missing:
            raise Invalid(
                f"the Python of aggregate {name} has no method {missing[0]}",
                code="MR1223",
                hint="it is a class with accumulate(*arrays) and result(); with retract(*arrays) for changelogs",
            )
        called = _state(name, body).accumulate
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):
        return  # written in C, and says nothing of its parameters
    try:
        signature.bind(*range(count))
    except TypeError:
        what = "accumulate" if function.aggregate else "the Python"
        raise Invalid(
            f"function {name} is declared with {count} parameter{'s' if count != 1 else ''}, "
            f"and {what} of it takes {signature}",
            code="MR1223",
            hint="it is called with one Arrow array a parameter",
        ) from None


def _state(name: str, factory: Callable[..., Any]) -> Any:
    try:
        return factory()
    except Exception as error:
        raise Invalid(
            f"the Python of aggregate {name} makes no state: {type(error).__name__}: {error}",
            code="MR1223",
            hint="it is called without arguments for each group",
        ) from error


def _imported(target: str) -> Callable[..., object]:
    module_name, _, path = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        known = isinstance(error, ModuleNotFoundError) and error.name == module_name.partition(".")[0]
        why = "there is no such module" if known else f"{type(error).__name__}: {error}"
        raise Invalid(
            f"module {module_name} can not be imported: {why}",
            code="MR1220",
            hint="put it beside the SQL file, or its folder on PYTHONPATH" if known else "mend the module",
        ) from error
    try:
        body = reduce(getattr, path.split("."), module)
    except AttributeError:
        raise Invalid(
            f"module {module_name} has no {path}", code="MR1221", hint=_offer(path, vars(module))
        ) from None
    if not callable(body):
        raise Invalid(f"{target} is a {type(body).__name__} and no function", code="MR1221")
    return body


def _compiled(name: str, source: str) -> Callable[..., object]:
    """The function (or class) called `name` that the source defines, or the only one there."""
    place = f"{SOURCES}.{name.lower()}"
    module = ModuleType(place)
    text = (
        textwrap.dedent(source)
        if source.partition("\n")[0].isspace() or source[:1] == "\n"
        else source.lstrip()
    )
    try:
        exec(compile(text, f"<function {name}>", "exec"), module.__dict__)  # noqa: S102
    except Exception as error:
        line = f" in line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise Invalid(
            f"the Python of function {name} does not run: {type(error).__name__}{line}: {error}",
            code="MR1222",
            hint="the text between $$ defines a function of that name; import what it needs",
        ) from error
    own = {n: v for n, v in vars(module).items() if getattr(v, "__module__", None) == place and callable(v)}
    folded = {n.lower(): v for n, v in own.items()}
    body = folded.get(name.lower()) or (next(iter(own.values())) if len(own) == 1 else None)
    if body is None:
        raise Invalid(
            f"the Python of function {name} defines {', '.join(own) or 'no function'}",
            code="MR1221",
            hint=f"define one called {name}",
        )
    sys.modules.setdefault(SOURCES, ModuleType(SOURCES))  # pickle imports the parent too
    sys.modules[place] = module
    found: Callable[..., object] = body
    return found


def _offer(path: str, names: Mapping[str, object]) -> str:
    own = [n for n, v in names.items() if callable(v) and not n.startswith("_")]
    return f"it has {', '.join(own[:8])}" if own else f"define {path} there"
