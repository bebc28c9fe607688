"""The typed logical plan: immutable relations with derived schema, event time, changelog mode and key.

Columns are referred to by position, expressions are those of operator specs. Knows no SQL text and no operator.
"""

from millrace.planner.logical.combining import Join, Union
from millrace.planner.logical.grouping import (
    Aggregate,
    AnyWindow,
    AssignWindow,
    LateInput,
    Session,
    WindowedAggregate,
    bound_type,
    emitted_mode,
    grouped_schema,
)
from millrace.planner.logical.reading import BadRecords, Read, Rows, Scan, as_snapshot
from millrace.planner.logical.relation import Positions, Relation, Unary
from millrace.planner.logical.shaping import Filter, MovingFilter, Project, Repeated

__all__ = [
    "Aggregate",
    "AnyWindow",
    "AssignWindow",
    "BadRecords",
    "Filter",
    "Join",
    "LateInput",
    "MovingFilter",
    "Positions",
    "Project",
    "Read",
    "Relation",
    "Repeated",
    "Rows",
    "Scan",
    "Session",
    "Unary",
    "Union",
    "WindowedAggregate",
    "as_snapshot",
    "bound_type",
    "emitted_mode",
    "grouped_schema",
]
