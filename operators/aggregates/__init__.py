"""Aggregates: calls, windows, emission, specs and signatures. Imports no kernel until an operator is built."""

from millrace.operators.aggregates.calls import (
    CHANGES,
    EVERY_RECORD,
    FINAL,
    ON_CLOSE,
    AggregateCall,
    Cumulate,
    Emission,
    EmissionKind,
    Hop,
    Tumble,
    Window,
)
from millrace.operators.aggregates.signatures import (
    AggregateDescription,
    AggregateSignature,
    aggregate_functions,
    is_aggregate,
    register_aggregate,
    resolve_aggregate,
)
from millrace.operators.aggregates.specs import GroupAggregate, WindowAggregate, WindowAssign

__all__ = [
    "CHANGES",
    "EVERY_RECORD",
    "FINAL",
    "ON_CLOSE",
    "AggregateCall",
    "AggregateDescription",
    "AggregateSignature",
    "Cumulate",
    "Emission",
    "EmissionKind",
    "GroupAggregate",
    "Hop",
    "Tumble",
    "Window",
    "WindowAggregate",
    "WindowAssign",
    "aggregate_functions",
    "is_aggregate",
    "register_aggregate",
    "resolve_aggregate",
]
