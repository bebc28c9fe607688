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
from millrace.operators.aggregates.specs import GroupAggregate, WindowAggregate, WindowAssign

__all__ = [
    "CHANGES",
    "EVERY_RECORD",
    "FINAL",
    "ON_CLOSE",
    "AggregateCall",
    "Cumulate",
    "Emission",
    "EmissionKind",
    "GroupAggregate",
    "Hop",
    "Tumble",
    "Window",
    "WindowAggregate",
    "WindowAssign",
]
