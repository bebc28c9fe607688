"""The little language in which functions state their parameters, and how argument types are matched to it.

`substring(STRING, BIGINT[, BIGINT]) -> STRING`: a type name, a class (ANY, NUMBER, INTEGER, DECIMAL, TIMESTAMP:
the argument keeps its own type), a variable (T, U: all of that name get their common supertype), ARRAY<T>,
MAP<T, U>, and `T...` for one or more. A result of a class is the type of the first parameter of that class.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from millrace.operators.functions import types as sql

CONCRETE = {
    "BOOLEAN": sql.BOOLEAN,
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INT": sql.INT,
    "BIGINT": sql.BIGINT,
    "FLOAT": pa.float32(),
    "DOUBLE": sql.DOUBLE,
    "STRING": sql.STRING,
    "BYTES": sql.BYTES,
    "DATE": sql.DATE,
    "TIME": sql.TIME,
    "INTERVAL": sql.INTERVAL,
    "TIMESTAMP_LTZ": pa.timestamp("us", "UTC"),
    "TIMESTAMP_US": sql.TIMESTAMP,
    "MONTHS": sql.MONTHS,
}
NARROWING = 5
"""What it costs to take a wide integer for a narrow parameter such as a position; checked when it runs."""
CLASSES = ("ANY", "NUMBER", "INTEGER", "DECIMAL", "TIMESTAMP", "ROW")
_TOKEN = re.compile(r"[A-Z_]+|[<>,]")


@dataclass(frozen=True, slots=True)
class Pattern:
    """One parameter: a name from the language, with the patterns inside the angle brackets."""

    name: str
    inner: tuple[Pattern, ...] = ()

    @property
    def variable(self) -> bool:
        return len(self.name) == 1


@dataclass(frozen=True, slots=True)
class Overload:
    """One form of a function. The last `optional` parameters may be left out; `variadic` repeats the last one."""

    text: str
    parameters: tuple[Pattern, ...]
    optional: int
    variadic: bool
    returns: Pattern

    def match(
        self, types: Sequence[pa.DataType], literals: Sequence[bool]
    ) -> tuple[int, tuple[pa.DataType, ...], pa.DataType] | None:
        """(cost, parameter types, result type) where the argument types fit, else None."""
        patterns = self._patterns(len(types))
        if patterns is None:
            return None
        variables = _bind_variables(patterns, types, literals)
        if variables is None:
            return None
        parameters, cost = [], 0
        for pattern, kind, literal in zip(patterns, types, literals, strict=True):
            target = _target(pattern, kind, variables)
            step = None if target is None else sql.coercion_cost(kind, target, literal=literal)
            if step is None and pattern.name in CONCRETE and sql.is_integer(kind) and sql.is_integer(target):
                step = NARROWING
            if target is None or step is None:
                return None
            parameters.append(target)
            cost += step
        classes = {p.name: t for p, t in zip(reversed(patterns), reversed(parameters), strict=True)}
        return cost, tuple(parameters), _result(self.returns, variables, classes)

    def _patterns(self, count: int) -> tuple[Pattern, ...] | None:
        most = len(self.parameters)
        if self.variadic:
            return None if count < most else self.parameters + (self.parameters[-1],) * (count - most)
        return self.parameters[:count] if most - self.optional <= count <= most else None


def parse(text: str) -> Overload:
    """The overload that a line such as `power(DOUBLE, DOUBLE) -> DOUBLE` states."""
    head, _, returns = text.partition(" -> ")
    inside = head[head.index("(") + 1 : head.rindex(")")]
    required, _, rest = inside.partition("[")
    optional = rest.replace("[", "").replace("]", "").strip()
    variadic = inside.endswith("...")
    parameters = _split(required.removesuffix("...")) + _split(optional)
    count = len(_split(optional))
    return Overload(text, parameters, count, variadic, _split(returns)[0])


def _split(text: str) -> tuple[Pattern, ...]:
    tokens = _TOKEN.findall(text)

    def read(position: int) -> tuple[Pattern, int]:
        name, position = tokens[position], position + 1
        inner: list[Pattern] = []
        if position < len(tokens) and tokens[position] == "<":
            while tokens[position] != ">":
                item, position = read(position + 1)
                inner.append(item)
            position += 1
        return Pattern(name, tuple(inner)), position

    found, position = [], 0
    while position < len(tokens):
        if tokens[position] == ",":
            position += 1
            continue
        pattern, position = read(position)
        found.append(pattern)
    return tuple(found)


def _bind_variables(
    patterns: Sequence[Pattern], types: Sequence[pa.DataType], literals: Sequence[bool]
) -> dict[str, pa.DataType] | None:
    seen: dict[str, list[tuple[pa.DataType, bool]]] = {}
    for pattern, kind, literal in zip(patterns, types, literals, strict=True):
        if not _collect(pattern, kind, literal, seen):
            return None
    bound: dict[str, pa.DataType] = {}
    for name, uses in seen.items():
        common = sql.common_type([u[0] for u in uses], [u[1] for u in uses])
        if common is None:
            return None
        bound[name] = common
    return bound


def _collect(
    pattern: Pattern, kind: pa.DataType, literal: bool, seen: dict[str, list[tuple[pa.DataType, bool]]]
) -> bool:
    if pattern.variable:
        seen.setdefault(pattern.name, []).append((kind, literal))
        return True
    if pattern.name == "ARRAY":
        if pa.types.is_null(kind):
            return _collect(pattern.inner[0], kind, False, seen)
        return sql.is_list(kind) and _collect(pattern.inner[0], kind.value_type, False, seen)
    if pattern.name == "MAP":
        if pa.types.is_null(kind):
            return all(_collect(inner, kind, False, seen) for inner in pattern.inner)
        return bool(
            pa.types.is_map(kind)
            and _collect(pattern.inner[0], kind.key_type, False, seen)
            and _collect(pattern.inner[1], kind.item_type, False, seen)
        )
    return True


def _target(pattern: Pattern, kind: pa.DataType, variables: dict[str, pa.DataType]) -> pa.DataType | None:
    """The type that an argument of type `kind` is cast to for `pattern`, or None where it does not fit."""
    name, null = pattern.name, pa.types.is_null(kind)
    if name in CONCRETE:
        return CONCRETE[name]
    if pattern.variable or pattern.inner:
        return _result(pattern, variables, {})
    if name == "ANY":
        return kind
    if name == "NUMBER":
        return kind if sql.is_number(kind) else sql.DOUBLE if null else None
    if name == "INTEGER":
        return kind if sql.is_integer(kind) else sql.BIGINT if null else None
    if name == "DECIMAL":
        return kind if sql.is_decimal(kind) else None
    if name == "ROW":
        return kind if pa.types.is_struct(kind) else None
    assert name == "TIMESTAMP", name
    if sql.is_timestamp(kind):
        return kind
    return sql.TIMESTAMP if null or kind == sql.DATE or sql.is_string(kind) else None


def _result(
    pattern: Pattern, variables: dict[str, pa.DataType], classes: dict[str, pa.DataType]
) -> pa.DataType:
    if pattern.name in CONCRETE:
        return CONCRETE[pattern.name]
    if pattern.variable:
        return variables[pattern.name]
    if pattern.name == "ARRAY":
        return pa.list_(_result(pattern.inner[0], variables, classes))
    if pattern.name == "MAP":
        key, item = (_result(inner, variables, classes) for inner in pattern.inner)
        return pa.map_(key, item)
    return classes[pattern.name]
