"""Which accumulator serves which call: builds the set behind a list of calls. Computes nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.types as pt

from millrace.errors import Unsupported
from millrace.operators.aggregates.accumulators import Accumulator, AccumulatorSet, Counter, Part
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.aggregates.columns import is_word
from millrace.operators.aggregates.distinct import LANES_MAX, DistinctCounts, DistinctFeed
from millrace.operators.aggregates.numeric import FloatNumbers, IntegerNumbers, WideSum
from millrace.operators.aggregates.ordered import RetractableExtreme, Values
from millrace.operators.aggregates.picks import (
    FIRST,
    GREATEST,
    LAST,
    LAST_GREATEST,
    LAST_LEAST,
    LEAST,
    ExtremeObject,
    PickedObject,
    PickedWord,
    PythonState,
)
from millrace.operators.aggregates.signatures import registered
from millrace.operators.aggregates.statistics import Bits, Booleans, DistinctSketch, Moments, Pairs

COUNT_ROWS = AggregateCall("count", (), pa.int64())
"""The call that counts all rows of a group."""

_ORDERED = frozenset(("array_agg", "string_agg", "first_value", "last_value"))
_EXTREMES = frozenset(("min", "max"))
_PICKS = frozenset(("first_value", "last_value", "any_value", "arg_min", "arg_max"))
_MOMENTS = frozenset(("var_samp", "var_pop", "stddev_samp", "stddev_pop"))
_SETTLED = frozenset(
    [
        "min",
        "max",
        "any_value",
        "bool_and",
        "bool_or",
        "bit_and",
        "bit_or",
        "approx_count_distinct",
        "arg_min",
        "arg_max",
    ]
)
"""Where DISTINCT makes no difference."""


def build_set(calls: Sequence[AggregateCall], schema: pa.Schema, *, retracting: bool) -> AccumulatorSet:
    """Empty accumulators for `calls` over batches of `schema`; `retracting`: weights may be negative."""
    simple = [_simplified(call, retracting) for call in calls]
    needs = [_need(call, schema, retracting) for call in simple]
    parts: dict[object, Part] = {}
    for call, need in zip(simple, needs, strict=True):
        if need not in parts:
            sharing = [c for c, n in zip(simple, needs, strict=True) if n == need]
            parts[need] = _part(call, sharing, schema, retracting, f"a{len(parts)}")
    places = [list(parts).index(need) for need in needs]
    return AccumulatorSet(list(parts.values()), places, simple)


def _simplified(call: AggregateCall, retracting: bool) -> AggregateCall:
    """Without the DISTINCT and ORDER BY that make no difference."""
    name = call.function
    if name == "approx_count_distinct" and retracting:
        return replace(call, function="count", distinct=True, order_by=())
    if call.distinct and name in _SETTLED:
        call = replace(call, distinct=False)
    return call if name in _ORDERED else replace(call, order_by=())


def _counts_distinct(call: AggregateCall) -> bool:
    return call.distinct and call.function == "count"


def _need(call: AggregateCall, schema: pa.Schema, retracting: bool) -> tuple[object, ...]:
    """Calls with equal needs share an accumulator."""
    if _counts_distinct(call):
        return ("distinct counts", call.arguments)
    name = call.function
    family = name
    if registered(name) is None:
        types = [schema.field(i).type for i in call.arguments]
        extreme = name in _EXTREMES and (retracting or not is_word(types[0]))
        if name in ("sum", "avg") or (name in _EXTREMES and not extreme):
            family = "numbers"
        elif name in _MOMENTS:
            family = "moments"
        elif name in ("corr",) or name.startswith(("covar", "regr")):
            family = "pairs"
        elif name.startswith("bit_"):
            family = "bits"
        elif name in ("bool_and", "bool_or"):
            family = "booleans"
        elif name in ("median", "percentile_cont", "percentile_disc", "approx_percentile", "mode"):
            family = "values"
    return (family, call.arguments, call.filter, call.distinct, call.order_by)


def _part(
    call: AggregateCall,
    sharing: Sequence[AggregateCall],
    schema: pa.Schema,
    retracting: bool,
    name: str,
) -> Part:
    types = [schema.field(i).type for i in call.arguments]
    if _counts_distinct(call):
        filters = list(dict.fromkeys(other.filter for other in sharing))
        if len(filters) > LANES_MAX:
            raise Unsupported(
                f"{len(filters)} filters over COUNT(DISTINCT) of one column, more than {LANES_MAX}",
                code="MR1905",
                hint="split the query in two",
            )
        columns = call.arguments + tuple(f for f in filters if f is not None)
        counts = DistinctCounts(types, filters, retracting=retracting)
        return Part(counts, columns, None, name, needed=call.arguments)
    columns = call.arguments + tuple(key[0] for key in call.order_by)
    if call.distinct:
        if set(columns) != set(call.arguments):
            raise Unsupported(
                f"{call.function}(DISTINCT …) ordered by something else than its argument",
                code="MR1906",
                hint="order by the argument",
            )
        fed = replace(call, distinct=False)
        inner = _build(fed, [replace(o, distinct=False) for o in sharing], schema, retracting)
        types = [schema.field(i).type for i in columns]
        return Part(DistinctFeed(types, inner, retracting=retracting), columns, call.filter, name, columns)
    needed = columns if registered(call.function) is None else ()
    if call.function in _ORDERED:
        needed = call.arguments
    return Part(_build(call, sharing, schema, retracting), columns, call.filter, name, needed)


def _build(
    call: AggregateCall, sharing: Sequence[AggregateCall], schema: pa.Schema, retracting: bool
) -> Accumulator:
    name = call.function
    types = [schema.field(i).type for i in call.arguments]
    ordering = [schema.field(key[0]).type for key in call.order_by]
    if registered(name) is not None:
        return PythonState(name)
    if name in ("count", "count_if"):
        return Counter(of_true=name == "count_if")
    if name in _EXTREMES:
        if retracting:
            return RetractableExtreme(types[0], greatest=name == "max")
        if not is_word(types[0]):
            return ExtremeObject(types[0], greatest=name == "max")
    if name in ("sum", "avg", *_EXTREMES):
        return _numbers(types[0], {other.function for other in sharing}, retracting)
    if name in _MOMENTS:
        return Moments()
    if name == "corr" or name.startswith(("covar", "regr")):
        return Pairs()
    if name in ("bool_and", "bool_or"):
        return Booleans()
    if name.startswith("bit_"):
        return Bits(retracting=retracting)
    if name == "approx_count_distinct":
        return DistinctSketch()
    keys = types[1:] + ordering
    if name in _PICKS and not retracting and len(call.order_by) < 2 and all(is_word(t) for t in keys):
        return _pick(call, types[0])
    return Values([*types, *ordering], each=not retracting and name in _ORDERED, nulls=keeps_nulls(name))


def keeps_nulls(name: str) -> bool:
    """Whether rows with a null argument count."""
    return name in ("array_agg", "first_value", "last_value")


def _numbers(kind: pa.DataType, functions: set[str], retracting: bool) -> Accumulator:
    if pt.is_decimal128(kind) or pt.is_decimal256(kind):
        return WideSum(kind.scale)
    sums, least, greatest = bool(functions & {"sum", "avg"}), "min" in functions, "max" in functions
    if pt.is_floating(kind):
        return FloatNumbers(sums=sums, least=least, greatest=greatest, retracting=retracting)
    scale = kind.scale if pt.is_decimal(kind) else 0
    return IntegerNumbers(sums=sums, least=least, greatest=greatest, scale=scale)


def _pick(call: AggregateCall, kind: pa.DataType) -> Accumulator:
    mode = {
        "first_value": FIRST,
        "any_value": FIRST,
        "last_value": LAST,
        "arg_min": LEAST,
        "arg_max": GREATEST,
    }[call.function]
    nulls_first = False
    if call.order_by:
        _, descending, nulls_first = call.order_by[0]
        first = call.function == "first_value"
        mode = (GREATEST if descending else LEAST) if first else (LAST_LEAST if descending else LAST_GREATEST)
        nulls_first = nulls_first != descending
    words = PickedWord(mode, nulls=keeps_nulls(call.function), nulls_first=nulls_first)
    return words if is_word(kind) else PickedObject(words, kind)
