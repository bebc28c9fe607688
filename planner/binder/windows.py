"""Windows of time: which column is their time, what they are made of, and when a query with them emits."""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from millrace.operators.aggregates.calls import (
    CHANGES,
    EVERY_RECORD,
    FINAL,
    ON_CLOSE,
    Cumulate,
    Emission,
    EmissionKind,
    Hop,
    Tumble,
)
from millrace.operators.expressions.tree import Call, Column
from millrace.operators.sink import Changelog
from millrace.planner.binder.errors import invalid, located, unsupported
from millrace.planner.binder.scalars import ScalarBinder
from millrace.planner.binder.scope import Scope
from millrace.planner.dialect import nodes
from millrace.planner.logical import AnyWindow, AssignWindow, Filter, Project, Read, Relation, Scan, Session

CLOCK_FUNCTIONS = frozenset({"proctime", "now", "current_timestamp", "localtimestamp"})
"""Functions that tell the time of processing."""


def window_of(node: exp.Expr) -> AnyWindow:
    """The window that a WindowTable or GroupWindow describes. Raises Invalid for sizes that make none."""
    us = {name: int(node.args.get(name) or 0) for name in ("size", "slide", "step", "gap", "offset")}
    with located(node):
        match str(node.args["kind"]):
            case "tumble":
                return Tumble(us["size"], us["offset"])
            case "hop":
                return Hop(us["size"], us["slide"], us["offset"])
            case "cumulate":
                return Cumulate(us["size"], us["step"], us["offset"])
            case "session":
                return Session(us["gap"])
            case other:
                raise unsupported(node, "MR1901", f"there is no window of kind {other}")


def assign_window(node: exp.Expr, scope: Scope, partition: tuple[int, ...] = ()) -> AssignWindow:
    """The scope's rows with their windows."""
    window = window_of(node)
    return AssignWindow(
        scope.relation, window_time(node, scope), window, partition, position=nodes.position_of(node)
    )


def window_time(node: exp.Expr, scope: Scope) -> int | None:
    """The column a window goes by; None is processing time. Raises Invalid MR1321."""
    relation = scope.relation
    time = node.args.get("time")
    hint = "declare it on the source: WATERMARK FOR ts AS ts - INTERVAL '5' SECOND, or use PROCTIME()"
    if time is None:
        if relation.event_time is None:
            raise invalid(node, "MR1321", "the window needs an event time, and its input has none", hint)
        return relation.event_time
    if isinstance(time, nodes.WindowBound):  # of the inner query's window: the outer one is only being made
        bound = scope.resolve([f"window_{time.args['bound']}"], time)
    else:
        bound = ScalarBinder(scope, "a window's time").bind(time)
    if isinstance(bound, Call) and bound.function in CLOCK_FUNCTIONS:
        return None
    if not isinstance(bound, Column):
        raise invalid(
            time, "MR1321", "a window's time must be a column", "compute it in a subquery or on the source"
        )
    if is_processing_time(relation, bound.index):
        return None
    if bound.index in (relation.event_time, relation.other_time, relation.bounds[1], relation.window_last):
        return bound.index
    if relation.event_time is None:
        raise invalid(
            time, "MR1321", f"{bound.name} is not known to be an event time: no watermark speaks of it", hint
        )
    known = relation.schema.field(relation.event_time).name
    raise invalid(
        time,
        "MR1321",
        f"{bound.name} is not the event time of the window's input",
        f"its watermark speaks of {known}",
    )


def is_processing_time(relation: Relation, index: int) -> bool:
    """Whether a column is PROCTIME() by another name."""
    match relation:
        case Project():
            value = relation.expressions[index]
            if isinstance(value, Column):
                return is_processing_time(relation.input, value.index)
            return isinstance(value, Call) and value.function in CLOCK_FUNCTIONS
        case Filter() | Read():
            return is_processing_time(relation.input, index)
        case Scan():
            computed = relation.input.computed
            if computed is None:
                return False
            value = computed[relation.columns[index]]
            return isinstance(value, Call) and value.function in CLOCK_FUNCTIONS
    return False


@dataclass(frozen=True, slots=True)
class Emitting:
    """The emission clauses of one query block."""

    emission: Emission
    allowed_lateness: int = 0
    late_table: str | None = None


def emission_of(node: exp.Expr, relation: Relation, *, windowed: bool) -> Emitting:
    """How an aggregating block emits; the defaults are those of the language."""
    emit = node.args.get("emit")
    mode = None if emit is None else str(emit.args["mode"])
    lateness = node.args.get("lateness")
    late = node.args.get("late_data")
    for clause, name in ((lateness, "ALLOW LATENESS"), (late, "LATE DATA TO")):
        if clause is not None and not windowed:
            raise invalid(
                clause, "MR1324", f"{name} needs a window of event time", "no row is late without one"
            )
    assert emit is not None or mode is None
    us = 0 if lateness is None else int(lateness.args["us"])
    table = None if late is None else str(late.this.name)
    if mode is None:
        return Emitting(ON_CLOSE if windowed else CHANGES, us, table)
    if mode == "final":
        if not windowed and not relation.bounded:
            raise invalid(
                emit,
                "MR1322",
                "EMIT ON WINDOW CLOSE without a window would never emit: the input has no end",
                "add a window to GROUP BY, or EMIT CHANGES",
            )
        return Emitting(ON_CLOSE if windowed else FINAL, us, table)
    if mode == "every_record":
        if relation.changelog is not Changelog.APPEND:
            raise invalid(
                emit,
                "MR1326",
                "one output row for every input row needs an append-only input",
                "use EMIT CHANGES",
            )
        return Emitting(EVERY_RECORD, us, table)
    if emit is not None and mode == "interval":
        return Emitting(Emission(EmissionKind.INTERVAL, int(emit.args["us"])), us, table)
    assert mode == "changes", mode
    return Emitting(CHANGES, us, table)


def check_no_emission(node: exp.Expr, *, late_rows: bool = False) -> None:
    """Refuses emission clauses on a block that aggregates nothing. EMIT CHANGES says what it does anyway.

    `late_rows`: it has a join that some rows are late for.
    """
    emit = node.args.get("emit")
    if emit is not None and str(emit.args["mode"]) in ("final", "interval"):
        raise invalid(
            emit, "MR1323", "this EMIT has no meaning here: the query aggregates nothing", "leave it out"
        )
    for clause, name in (("lateness", "ALLOW LATENESS"), ("late_data", "LATE DATA TO")):
        if node.args.get(clause) is not None and not (late_rows and clause == "late_data"):
            raise invalid(
                node.args[clause],
                "MR1324",
                f"{name} needs a window of event time",
                "no row is late without one"
                if clause == "lateness"
                else "or, in a query that aggregates nothing, one join on time: interval, window or as-of",
            )
