"""Which accumulator serves which call: builds the set behind a list of calls. Computes nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.types as pt

from millrace.errors import Bug
from millrace.operators.aggregates.accumulators import Accumulator, AccumulatorSet, Counter, Part
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.aggregates.columns import is_word
from millrace.operators.aggregates.numeric import FloatNumbers, IntegerNumbers, WideSum

COUNT_ROWS = AggregateCall("count", (), pa.int64())
"""The call that counts all rows of a group."""

_NUMBERS = frozenset(("sum", "avg", "min", "max"))


def build_set(calls: Sequence[AggregateCall], schema: pa.Schema, *, retracting: bool) -> AccumulatorSet:
    """Empty accumulators for `calls` over batches of `schema`; `retracting`: weights may be negative."""
    calls = [_simplified(call) for call in calls]
    parts: dict[object, Part] = {}
    places: list[int] = []
    for call in calls:
        key = _need(call, schema, retracting)
        if key not in parts:
            sharing = [other for other in calls if _need(other, schema, retracting) == key]
            accumulator = _build(call, sharing, schema, retracting)
            parts[key] = Part(accumulator, _columns(call), call.filter, f"a{len(parts)}")
        places.append(list(parts).index(key))
    return AccumulatorSet(list(parts.values()), places, calls)


def _simplified(call: AggregateCall) -> AggregateCall:
    """Without the DISTINCT and ORDER BY that make no difference."""
    if call.function in ("min", "max", "any_value", "bool_and", "bool_or", "bit_and", "bit_or"):
        return replace(call, distinct=False, order_by=())
    if call.function in ("approx_count_distinct", "mode", "arg_min", "arg_max"):
        return replace(call, distinct=False, order_by=())
    if call.function not in ("array_agg", "string_agg", "first_value", "last_value"):
        return replace(call, order_by=())
    return call


def _columns(call: AggregateCall) -> tuple[int, ...]:
    return call.arguments + tuple(key[0] for key in call.order_by)


def _need(call: AggregateCall, schema: pa.Schema, retracting: bool) -> tuple[object, ...]:
    """Calls with equal needs share an accumulator."""
    return (_family(call, schema, retracting), call.arguments, call.filter, call.distinct, call.order_by)


def _family(call: AggregateCall, schema: pa.Schema, retracting: bool) -> str:
    name = call.function
    if call.distinct:
        return f"distinct {name}"
    if name in _NUMBERS:
        kind = schema.field(call.arguments[0]).type
        extreme = name in ("min", "max")
        if extreme and (retracting or not is_word(kind)):
            return f"values {name}"
        return "wide" if pt.is_decimal128(kind) or pt.is_decimal256(kind) else "numbers"
    return name


def _build(
    call: AggregateCall, sharing: Sequence[AggregateCall], schema: pa.Schema, retracting: bool
) -> Accumulator:
    family = _family(call, schema, retracting)
    if family in ("count", "count_if"):
        return Counter(of_true=family == "count_if")
    if family in ("numbers", "wide"):
        kind = schema.field(call.arguments[0]).type
        if family == "wide":
            return WideSum(kind.scale)
        functions = {other.function for other in sharing}
        sums, least, greatest = bool(functions & {"sum", "avg"}), "min" in functions, "max" in functions
        if pt.is_floating(kind):
            return FloatNumbers(sums=sums, least=least, greatest=greatest)
        scale = kind.scale if pt.is_decimal(kind) else 0
        return IntegerNumbers(sums=sums, least=least, greatest=greatest, scale=scale)
    raise Bug(f"no accumulator serves {call.function}")
