"""Which aggregates there are, what they take and return. Computes none of them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pt

from millrace.errors import Invalid
from millrace.operators.functions.types import sql_name


@dataclass(frozen=True, slots=True)
class AggregateSignature:
    """One aggregate with its types settled.

    `name` is canonical. `parameters` are the types that `AggregateCall.arguments` must have (cast where they
    differ). The last `len(constants)` arguments as written must be constants and become the call's options
    under these names. With `within_group` the column of WITHIN GROUP (ORDER BY x) is the first argument.
    `retractable`: takes rows back; all do but some functions of users.
    """

    name: str
    parameters: tuple[pa.DataType, ...]
    returns: pa.DataType
    constants: tuple[str, ...] = ()
    within_group: bool = False
    retractable: bool = True


@dataclass(frozen=True, slots=True)
class AggregateDescription:
    """One line of the list of aggregates; `usage` as a person would write the call."""

    name: str
    aliases: tuple[str, ...]
    usage: str
    summary: str


Types = Sequence[pa.DataType]
Rule = Callable[[Types], tuple[tuple[pa.DataType, ...], pa.DataType] | None]
"""From argument types (constants left out) to parameter and return types; None where they do not fit."""

INT64 = pa.int64()
DOUBLE = pa.float64()
BOOL = pa.bool_()
STRING = pa.string()


@dataclass(frozen=True, slots=True)
class _Definition:
    name: str
    aliases: tuple[str, ...]
    usage: str
    summary: str
    rule: Rule
    constants: tuple[str, ...] = ()
    optional: int = 0
    within_group: bool = False


def resolve_aggregate(name: str, types: Types, distinct: bool = False) -> AggregateSignature:
    """The signature for a call of `name` with arguments of these types (constants included; none: `count(*)`).

    Raises Invalid MR1210 for an unknown name and MR1211 where the arguments do not fit.
    """
    lowered = name.lower()
    own = _REGISTERED.get(lowered)
    if own is not None:
        if len(types) != len(own.parameters):
            raise _misfit(name, types, own.usage)
        return AggregateSignature(own.name, own.parameters, own.returns, retractable=own.retractable)
    definition = _BY_NAME.get(lowered)
    if definition is None:
        near = difflib.get_close_matches(lowered, [*_BY_NAME, *_REGISTERED], n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see the list of aggregate functions"
        raise Invalid(f"no aggregate function {name!r}", code="MR1210", hint=hint)
    for constants in range(
        len(definition.constants), len(definition.constants) - definition.optional - 1, -1
    ):
        values = list(types)[: len(types) - constants] if constants else list(types)
        if len(types) < constants:
            continue
        fit = definition.rule([_plain(t) for t in values])
        if fit is not None:
            if distinct and not values:
                raise Invalid(f"{name}(DISTINCT *) counts nothing", code="MR1211", hint="name the columns")
            return AggregateSignature(
                definition.name, fit[0], fit[1], definition.constants[:constants], definition.within_group
            )
    raise _misfit(name, types, definition.usage)


def is_aggregate(name: str) -> bool:
    """Whether a function of this name is an aggregate."""
    return name.lower() in _BY_NAME or name.lower() in _REGISTERED


def aggregate_functions() -> list[AggregateDescription]:
    """All aggregates, by name, with those users registered."""
    known = [AggregateDescription(d.name, d.aliases, d.usage, d.summary) for d in _DEFINITIONS]
    own = [AggregateDescription(r.name, (), r.usage, "registered in Python") for r in _REGISTERED.values()]
    return sorted(known + own, key=lambda d: d.name)


def _misfit(name: str, types: Types, usage: str) -> Invalid:
    given = ", ".join(sql_name(t) for t in types)
    return Invalid(f"{name} does not take ({given})", code="MR1211", hint=f"the form is {usage}")


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pt.is_dictionary(kind) else kind


# --- functions of users -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RegisteredAggregate:
    """An aggregate of a user: `factory()` makes the state of one group (see `python_calls`)."""

    name: str
    factory: Callable[[], object]
    parameters: tuple[pa.DataType, ...]
    returns: pa.DataType
    retractable: bool

    @property
    def usage(self) -> str:
        return f"{self.name}({', '.join(sql_name(t) for t in self.parameters)})"


_REGISTERED: dict[str, RegisteredAggregate] = {}


def register_aggregate(
    name: str, factory: Callable[[], object], parameters: Types, returns: pa.DataType
) -> None:
    """Make a Python class callable as an aggregate from SQL.

    `factory()` gives the empty state of one group: `accumulate(*arrays)` takes Arrow arrays of that group's
    rows in order, `result()` gives a Python value of type `returns`; `retract(*arrays)` takes rows back
    (needed for changelogs), `merge(other)` adds another state (needed for hopping and cumulating windows).
    Instances must pickle. Raises Invalid MR1212 for a name that is taken or a class that lacks a method.
    """
    lowered = name.lower()
    if lowered in _BY_NAME:
        raise Invalid(f"{name!r} is a built-in aggregate", code="MR1212", hint="choose another name")
    for method in ("accumulate", "result"):
        if not hasattr(factory, method) and not hasattr(factory(), method):
            raise Invalid(
                f"the aggregate {name!r} has no method {method!r}",
                code="MR1212",
                hint="define accumulate(*arrays) and result()",
            )
    retractable = hasattr(factory, "retract") or hasattr(factory(), "retract")
    _REGISTERED[lowered] = RegisteredAggregate(lowered, factory, tuple(parameters), returns, retractable)


def unregister_aggregate(name: str) -> None:
    """Remove a user's aggregate; nothing happens where there is none of that name."""
    _REGISTERED.pop(name.lower(), None)


def registered(name: str) -> RegisteredAggregate | None:
    """The user's aggregate of that name."""
    return _REGISTERED.get(name.lower())


# --- rules --------------------------------------------------------------------------------------------------


def is_number(kind: pa.DataType) -> bool:
    return pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind)


def is_ordered(kind: pa.DataType) -> bool:
    return (
        is_number(kind)
        or pt.is_temporal(kind)
        or pt.is_boolean(kind)
        or pt.is_string(kind)
        or pt.is_binary(kind)
        or pt.is_large_string(kind)
    )


def _any_count(types: Types) -> tuple[tuple[pa.DataType, ...], pa.DataType] | None:
    return tuple(types), INT64


def _sum(types: Types) -> tuple[tuple[pa.DataType, ...], pa.DataType] | None:
    match list(types):
        case [kind] if pt.is_null(kind):
            return (INT64,), INT64
        case [kind] if pt.is_uint64(kind):
            wide = pa.decimal128(20, 0)
            return (wide,), pa.decimal128(38, 0)
        case [kind] if pt.is_integer(kind):
            return (INT64,), INT64
        case [kind] if pt.is_floating(kind):
            return (DOUBLE,), DOUBLE
        case [kind] if pt.is_decimal(kind):
            return (kind,), pa.decimal128(38, kind.scale)
        case [kind] if pt.is_duration(kind):
            return (kind,), kind
    return None


def _average(types: Types) -> tuple[tuple[pa.DataType, ...], pa.DataType] | None:
    match list(types):
        case [kind] if pt.is_integer(kind) or pt.is_null(kind):
            wide = pa.decimal128(20, 0) if pt.is_uint64(kind) else INT64
            return (wide,), DOUBLE
        case [kind] if pt.is_floating(kind):
            return (DOUBLE,), DOUBLE
        case [kind] if pt.is_decimal(kind):
            return (kind,), pa.decimal128(38, max(kind.scale, 6))
        case [kind] if pt.is_duration(kind):
            return (kind,), kind
    return None


def _same_ordered(types: Types) -> tuple[tuple[pa.DataType, ...], pa.DataType] | None:
    if len(types) == 1 and (is_ordered(types[0]) or pt.is_null(types[0])):
        return (types[0],), types[0]
    return None


def _same_any(types: Types) -> tuple[tuple[pa.DataType, ...], pa.DataType] | None:
    return ((types[0],), types[0]) if len(types) == 1 else None


def _by_second(types: Types) -> tuple[tuple[pa.DataType, ...], pa.DataType] | None:
    return (tuple(types), types[0]) if len(types) == 2 and is_ordered(types[1]) else None


def _list_of(types: Types) -> tuple[tuple[pa.DataType, ...], pa.DataType] | None:
    return ((types[0],), pa.list_(types[0])) if len(types) == 1 else None


def _doubles(count: int, returns: pa.DataType = DOUBLE) -> Rule:
    def rule(types: Types) -> tuple[tuple[pa.DataType, ...], pa.DataType] | None:
        fits = len(types) == count and all(is_number(t) or pt.is_null(t) for t in types)
        return ((DOUBLE,) * count, returns) if fits else None

    return rule


def _booleans(returns: pa.DataType) -> Rule:
    def rule(types: Types) -> tuple[tuple[pa.DataType, ...], pa.DataType] | None:
        fits = len(types) == 1 and (pt.is_boolean(types[0]) or pt.is_null(types[0]))
        return ((BOOL,), returns) if fits else None

    return rule


def _integer(types: Types) -> tuple[tuple[pa.DataType, ...], pa.DataType] | None:
    if len(types) == 1 and pt.is_integer(types[0]) and not pt.is_uint64(types[0]):
        return (INT64,), INT64
    return None


def _text(types: Types) -> tuple[tuple[pa.DataType, ...], pa.DataType] | None:
    return ((STRING,), STRING) if len(types) == 1 else None


def _continuous(types: Types) -> tuple[tuple[pa.DataType, ...], pa.DataType] | None:
    return ((DOUBLE,), DOUBLE) if len(types) == 1 and is_number(types[0]) else None


def _plain_definition(name: str, aliases: str, usage: str, summary: str, rule: Rule) -> _Definition:
    return _Definition(name, tuple(aliases.split()), usage, summary, rule)


_P = _plain_definition
_PAIR = "the points where neither y nor x is null"
_DEFINITIONS: tuple[_Definition, ...] = (
    _P(
        "count", "", "count(*), count([DISTINCT] x, …)", "rows, or rows where no argument is null", _any_count
    ),
    _P("count_if", "countif", "count_if(condition)", "rows where the condition is true", _booleans(INT64)),
    _P("sum", "", "sum([DISTINCT] x)", "the sum, exact for integers and decimals", _sum),
    _P("avg", "mean average", "avg([DISTINCT] x)", "the mean", _average),
    _P("min", "", "min(x)", "the smallest value", _same_ordered),
    _P("max", "", "max(x)", "the largest value", _same_ordered),
    _P("any_value", "arbitrary", "any_value(x)", "some value that is not null", _same_any),
    _P(
        "first_value",
        "first earliest earliest_by_offset",
        "first_value(x [ORDER BY t])",
        "the first",
        _same_any,
    ),
    _P(
        "last_value",
        "last latest latest_by_offset",
        "last_value(x [ORDER BY t])",
        "the last value",
        _same_any,
    ),
    _P("arg_min", "min_by argmin", "arg_min(x, y)", "x of the row with the smallest y", _by_second),
    _P("arg_max", "max_by argmax", "arg_max(x, y)", "x of the row with the largest y", _by_second),
    _P("var_samp", "variance", "var_samp(x)", "sample variance", _doubles(1)),
    _P("var_pop", "", "var_pop(x)", "population variance", _doubles(1)),
    _P("stddev_samp", "stddev stdev", "stddev_samp(x)", "sample standard deviation", _doubles(1)),
    _P("stddev_pop", "", "stddev_pop(x)", "population standard deviation", _doubles(1)),
    _P("corr", "", "corr(y, x)", f"correlation over {_PAIR}", _doubles(2)),
    _P("covar_pop", "", "covar_pop(y, x)", f"population covariance over {_PAIR}", _doubles(2)),
    _P("covar_samp", "", "covar_samp(y, x)", f"sample covariance over {_PAIR}", _doubles(2)),
    _P("regr_slope", "", "regr_slope(y, x)", f"slope of the line fitted to {_PAIR}", _doubles(2)),
    _P("regr_intercept", "", "regr_intercept(y, x)", f"intercept of the line fitted to {_PAIR}", _doubles(2)),
    _P("regr_r2", "", "regr_r2(y, x)", f"square of the correlation over {_PAIR}", _doubles(2)),
    _P("regr_count", "", "regr_count(y, x)", f"number of {_PAIR}", _doubles(2, INT64)),
    _P("regr_avgx", "", "regr_avgx(y, x)", f"mean of x over {_PAIR}", _doubles(2)),
    _P("regr_avgy", "", "regr_avgy(y, x)", f"mean of y over {_PAIR}", _doubles(2)),
    _P("regr_sxx", "", "regr_sxx(y, x)", f"sum of squares of x over {_PAIR}", _doubles(2)),
    _P("regr_syy", "", "regr_syy(y, x)", f"sum of squares of y over {_PAIR}", _doubles(2)),
    _P("regr_sxy", "", "regr_sxy(y, x)", f"sum of products over {_PAIR}", _doubles(2)),
    _P("bool_and", "every logical_and", "bool_and(x)", "whether all are true", _booleans(BOOL)),
    _P("bool_or", "some logical_or", "bool_or(x)", "whether any is true", _booleans(BOOL)),
    _P("bit_and", "", "bit_and(x)", "bits set in all", _integer),
    _P("bit_or", "", "bit_or(x)", "bits set in any", _integer),
    _P("bit_xor", "", "bit_xor(x)", "bits set in an odd number", _integer),
    _P(
        "approx_count_distinct",
        "approx_distinct hll_count",
        "approx_count_distinct(x)",
        "number of distinct values to about 2 %",
        lambda types: (tuple(types), INT64) if len(types) == 1 else None,
    ),
    _P("median", "", "median(x)", "the middle value, interpolated", _continuous),
    _P("mode", "", "mode(x)", "the most frequent value (of equals the smallest)", _same_ordered),
    _P(
        "array_agg",
        "collect_list list collect",
        "array_agg([DISTINCT] x [ORDER BY y])",
        "all values",
        _list_of,
    ),
    _Definition(
        "percentile_cont",
        ("quantile_cont",),
        "percentile_cont(fraction) WITHIN GROUP (ORDER BY x)",
        "the value at that fraction, interpolated",
        _continuous,
        ("fraction",),
        within_group=True,
    ),
    _Definition(
        "percentile_disc",
        ("quantile_disc", "quantile"),
        "percentile_disc(fraction) WITHIN GROUP (ORDER BY x)",
        "the first value at or above that fraction",
        _same_ordered,
        ("fraction",),
        within_group=True,
    ),
    _Definition(
        "approx_percentile",
        ("approx_quantile", "percentile"),
        "approx_percentile(x, fraction)",
        "the value at that fraction",
        _continuous,
        ("fraction",),
    ),
    _Definition(
        "string_agg",
        ("listagg", "group_concat"),
        "string_agg([DISTINCT] x [, separator] [ORDER BY y])",
        "all values as one text",
        _text,
        ("separator",),
        optional=1,
    ),
)
_BY_NAME = {name: d for d in _DEFINITIONS for name in (d.name, *d.aliases)}
