"""For each logical node the operator spec that runs it, or a coded refusal where there is none."""

from __future__ import annotations

import pyarrow as pa

from millrace.errors import Bug, Invalid, Unsupported
from millrace.operators.aggregates.specs import GroupAggregate, WindowAggregate, WindowAssign
from millrace.operators.calc import Calc
from millrace.operators.expansion.spec import Expand
from millrace.operators.expressions.tree import Column
from millrace.operators.normalize import Normalize
from millrace.operators.over.specs import OverAggregate, RowBufferAggregate
from millrace.operators.over.updating_spec import UpdatingOver
from millrace.operators.repeat import Repeat
from millrace.operators.sessions.spec import SessionAggregate
from millrace.operators.side import DeadLetters, LateRows
from millrace.operators.sink import Changelog
from millrace.operators.spec import OperatorSpec
from millrace.operators.temporal_filter import TemporalFilter
from millrace.operators.top.specs import TopRows, WindowTopRows, sortable
from millrace.operators.union import UnionAll
from millrace.planner.expressions import column
from millrace.planner.framing import Over, OverChanges, RowBuffer
from millrace.planner.logical import (
    Aggregate,
    AssignWindow,
    BadRecords,
    Filter,
    Join,
    LateInput,
    MovingFilter,
    Project,
    Relation,
    Repeated,
    Session,
    Union,
    WindowedAggregate,
)
from millrace.planner.normalized import Normalized
from millrace.planner.physical.joins import join_of, project_join
from millrace.planner.physical.timed_joins import timed_join_spec
from millrace.planner.ranking import Ranking, TopN, closing_end
from millrace.planner.row_patterns import MatchRows
from millrace.planner.table_functions import Expansion
from millrace.planner.table_lookup import TableLookup
from millrace.planner.timed_joins import LateSides, TimedJoin

FOREVER = 2**60
"""µs by which a row may be late that is never too late: beyond any clock, and a sum with one is still 64 bits."""
Lowered = tuple[tuple[Relation, ...], OperatorSpec]
"""The relations the operator reads, one a port, and the operator."""


def spec_of(relation: Relation) -> Lowered:
    """The operator for the top of `relation`. Raises Unsupported where there is none."""
    match relation:
        case Project(input=Filter() as below):
            return (below.input,), Calc(
                below.input.schema, below.predicate, relation.expressions, relation.names
            )
        case Project(input=TimedJoin(late_table=None) as below) if all(
            isinstance(e, Column) for e in relation.expressions
        ):
            return below.inputs, timed_join_spec(below, relation)
        case Project(input=Join() | TableLookup() as below):
            return project_join(relation, below)
        case Project():
            return (relation.input,), Calc(relation.input.schema, None, relation.expressions, relation.names)
        case Filter():
            schema = relation.input.schema
            every = tuple(column(schema, i) for i in range(len(schema)))
            return (relation.input,), Calc(schema, relation.predicate, every, tuple(schema.names))
        case LateInput() | LateSides():
            return (relation.input,), LateRows(relation.schema)
        case BadRecords():
            return (relation.input,), DeadLetters()
        case Aggregate():
            return (relation.input,), _group(relation)
        case WindowedAggregate():
            return (relation.input,), _windowed(relation)
        case AssignWindow():
            return (relation.input,), _assign(relation)
        case Over():
            return (relation.input,), _over(relation)
        case OverChanges():
            return (relation.input,), UpdatingOver(
                relation.input.schema,
                relation.partition,
                tuple((key.column, key.descending, key.nulls_first) for key in relation.order),
                relation.frame,
                relation.calls,
                relation.names,
            )
        case RowBuffer():
            time = None if relation.expire_after is None else relation.input.event_time
            return (relation.input,), RowBufferAggregate(
                relation.input.schema,
                relation.partition,
                relation.rows,
                relation.calls,
                relation.names,
                relation.emission,
                time,
                relation.expire_after,
                relation.time_unit,
            )
        case MatchRows():
            return (relation.input,), relation.spec
        case MovingFilter():
            return (relation.input,), TemporalFilter(
                relation.input.schema,
                relation.time,
                relation.lower,
                relation.upper,
                relation.clock,
                relation.time_unit,
                relation.input.key or (),
            )
        case Expansion():
            return (relation.input,), Expand(
                relation.input.schema,
                relation.function,
                relation.arguments,
                relation.made,
                relation.kept,
                relation.outer,
                relation.ordinality,
                relation.condition,
            )
        case Union():
            return relation.parts, UnionAll(_nullable(relation.schema), len(relation.parts))
        case TimedJoin():
            return relation.inputs, timed_join_spec(relation)
        case Join() | TableLookup():
            return join_of(relation)
        case Normalized():
            assert relation.key is not None
            return (relation.input,), Normalize(relation.schema, relation.key)
        case Ranking():
            return (relation.input,), _top(
                TopN(
                    relation.input,
                    relation.partition,
                    relation.order,
                    None,
                    rank_name=relation.name,
                    function=relation.function,
                    position=relation.position,
                )
            )
        case TopN():
            return (relation.input,), _top(relation)
        case Repeated():
            return (relation.input,), Repeat(relation.input.schema, relation.rising)
    raise Bug(f"no operator for {type(relation).__name__}", code="MR9005")


def _group(node: Aggregate) -> OperatorSpec:
    if node.allowed_lateness or node.late_table or node.late_to_next:
        raise Unsupported(
            "what becomes of late rows belongs to the query that makes the window",
            code="MR1908",
            hint="move the clause to the inner query",
        )
    retracting = _retracting(node.input)
    return GroupAggregate(
        node.input.schema, node.keys, node.calls, node.names, node.emission, retracting, node.window_end
    )


def _windowed(node: WindowedAggregate) -> OperatorSpec:
    retracting = _retracting(node.input)
    if isinstance(node.window, Session):
        if retracting:
            raise Unsupported(
                "a session window needs rows that are never taken back",
                code="MR1933",
                hint="EMIT ON WINDOW CLOSE in the inner query",
            )
        return SessionAggregate(
            node.input.schema,
            node.time,
            node.window.gap,
            node.keys,
            node.calls,
            node.names,
            node.emission,
            node.with_bounds,
            node.allowed_lateness,
            node.time_unit,
        )
    return WindowAggregate(
        node.input.schema,
        node.time,
        node.window,
        node.keys,
        node.calls,
        node.names,
        node.emission,
        node.with_bounds,
        node.allowed_lateness,
        retracting,
        node.time_unit,
        node.late_to_next,
    )


def _assign(node: AssignWindow) -> OperatorSpec:
    if isinstance(node.window, Session):
        raise Unsupported(
            "a session window is executed together with its GROUP BY only",
            code="MR1931",
            hint="GROUP BY the partition columns, window_start and window_end",
            position=node.position,
        )
    lateness = FOREVER if node.keeps_late else 0
    return WindowAssign(
        node.input.schema, node.time, node.window, time_unit=node.time_unit, allowed_lateness=lateness
    )


def _over(node: Over) -> OperatorSpec:
    return OverAggregate(
        node.input.schema, node.partition, node.order, node.frame, node.calls, node.names, node.time_unit
    )


def _top(node: TopN) -> OperatorSpec:
    schema = node.input.schema
    for key in node.order:
        kind = schema.field(key.column).type
        if not sortable(kind):
            raise Invalid(
                f"rows can not be ordered by {schema.field(key.column).name}, which is {kind}",
                code="MR1347",
                hint="order by a number, a text or a time",
                position=node.position,
            )
    if node.input.changelog is Changelog.UPSERT and not node.input.key:
        raise Unsupported(
            "rows that replace each other by a key can not be ranked without that key",
            code="MR1940",
            hint="select the key columns too",
            position=node.position,
        )
    order = tuple((key.column, key.descending, key.nulls_first) for key in node.order)
    end = closing_end(node.input, node.partition)
    if end is not None:
        return WindowTopRows(
            schema,
            node.partition,
            end,
            order,
            node.limit,
            node.offset,
            node.function,
            node.rank_name,
            node.time_unit,
        )
    return TopRows(
        schema,
        node.partition,
        order,
        node.limit,
        node.offset,
        node.function,
        node.rank_name,
        node.input.changelog,
        (node.input.key or None) if node.input.changelog is not Changelog.APPEND else None,
        node.upsert,
    )


def _retracting(below: Relation) -> bool:
    assert below.changelog is not Changelog.UPSERT, "upserts were not normalised"
    return below.changelog is Changelog.RETRACT


def _nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([pa.field(f.name, f.type, metadata=f.metadata) for f in schema])
