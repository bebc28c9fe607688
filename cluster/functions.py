"""Functions of users on their way into a job and to the processes that run it. Knows no SQL."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType

import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.aggregates.signatures import register_aggregate
from millrace.operators.functions.registry import register_scalar
from millrace.operators.spec import serialisable
from millrace.planner.catalog import Function
from millrace.planner.plan import Plan
from millrace.planner.user_functions import called_functions


@serialisable
@dataclass(frozen=True, slots=True)
class CarriedFunction:
    """A user's function as a job keeps it: `body` is the Python of it, pickled by value."""

    name: str
    arguments: tuple[pa.DataType, ...]
    result: pa.DataType
    aggregate: bool
    body: bytes


def carried_functions(plan: Plan, known: Mapping[str, Function]) -> tuple[CarriedFunction, ...]:
    """Those of the functions (by name in lower case) that a plan calls. Raises Invalid MR1391 for what can't be pickled."""
    called = {name for node in plan.nodes for name in called_functions(node.spec)}
    used = {name: function for name, function in known.items() if name in called}
    if not used:
        return ()
    from millrace.cluster.ray.pickling import pickled  # deferred: imports Ray, and few jobs have functions

    return tuple(
        CarriedFunction(
            name, function.arguments, function.result, function.aggregate, pickled(name, function.body)
        )
        for name, function in sorted(used.items())
    )


def install(functions: tuple[CarriedFunction, ...]) -> None:
    """Let the library of this process have a job's functions. Raises Invalid MR1392 where one can't be loaded here."""
    if not functions:
        return
    from millrace.cluster.ray.pickling import unpickled  # deferred, as above

    for function in functions:
        try:
            body = unpickled(function.body)
        except Exception as error:
            raise Invalid(
                f"function {function.name} can not be loaded on this node: {type(error).__name__}: {error}",
                code="MR1392",
                hint="install the packages that it imports on every node",
            ) from error
        _place(body)
        register = register_aggregate if function.aggregate else register_scalar
        register(function.name, body, function.arguments, function.result)


def _place(body: Callable[..., object]) -> None:
    """Let the module that a class says it is from have it: states of aggregates are pickled by that name."""
    module, name = getattr(body, "__module__", None), getattr(body, "__qualname__", "")
    if not module or "." in name or "<" in name:
        return
    parts = module.split(".")
    for place in (
        ".".join(parts[:count]) for count in range(1, len(parts) + 1)
    ):  # pickle imports parents too
        if place not in sys.modules and _unknown(place):
            sys.modules[place] = ModuleType(place)
    if module in sys.modules and not hasattr(sys.modules[module], name):
        setattr(sys.modules[module], name, body)


def _unknown(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except (ImportError, ValueError):
        return True
