"""The options of a query: its key and what becomes of its late rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from millrace.errors import Invalid, MillraceError, Unsupported
from millrace.operators.sink import Changelog
from millrace.planner.binder.bound import BoundQuery
from millrace.planner.binder.sides import late_tables, own_windows, with_late_table
from millrace.planner.catalog import suggest
from millrace.planner.dialect.durations import parse_duration
from millrace.planner.logical import Relation, Session, WindowedAggregate
from millrace.planner.rules.order import optimize
from millrace.planner.statements import Option

KEY_OPTIONS = ("key", "primary.key")
LATE = "late.data.strategy"
LATENESS = "allowed.lateness"
STRATEGIES = ("drop", "dead_letter", "include_in_next", "update_previous")
LATER_OPTIONS = {
    "state.ttl": "use a window, which forgets by itself",
    "parallelism": "leave it out: everything runs in one partition",
}


def with_options(bound: BoundQuery, name: str, options: Sequence[Option]) -> BoundQuery:
    """The query with the key, and with what becomes of its late rows, that its options ask for.

    Raises Invalid MR1324, MR1349; Unsupported MR1954.
    """
    bound = replace(bound, key=key_option(options) or bound.key)
    given = {option.name.lower(): option for option in options}
    strategy, lateness = given.get(LATE), given.get(LATENESS)
    if strategy is None:
        if lateness is not None:
            raise _wrong(lateness, f"option '{lateness.name}' needs '{LATE}' = 'update_previous'")
        return bound
    relation = bound.relation
    match strategy.value.lower():
        case "dead_letter":
            relation = optimize(with_late_table(relation, f"{name}_late") if name else relation)
            if not late_tables(relation):
                raise _no_window(
                    strategy, "late rows go to the table <name of the stream, table or sink>_late"
                )
        case "include_in_next":
            relation = _into_next(relation, strategy)
        case "update_previous":
            relation = _corrected(relation, strategy, lateness)
    return replace(bound, relation=relation)


def _into_next(relation: Relation, option: Option) -> Relation:
    changed = optimize(own_windows(relation, lambda node: replace(node, late_to_next=True)))
    found = [n for n in changed.walk() if isinstance(n, WindowedAggregate) and n.late_to_next]
    if not found or any(n.time is None for n in found):
        raise _no_window(option, "a late row is counted in the window that holds the watermark")
    if any(isinstance(n.window, Session) or n.input.changelog is not Changelog.APPEND for n in found):
        raise Unsupported(
            "late rows go into the next window only where windows are fixed and rows are never taken back",
            code="MR1954",
            hint="'dead_letter' keeps them; 'update_previous' corrects the window they belong to",
            position=option.position,
        )
    return changed


def _corrected(relation: Relation, option: Option, lateness: Option | None) -> Relation:
    if lateness is None:
        raise _wrong(
            option, f"'{LATE}' = 'update_previous' needs '{LATENESS}', how long a window is kept for it"
        )
    try:
        us = parse_duration(lateness.value)
    except MillraceError as error:
        error.position = lateness.position
        raise
    changed = optimize(own_windows(relation, lambda node: replace(node, allowed_lateness=us)))
    if not any(isinstance(n, WindowedAggregate) and n.allowed_lateness == us for n in changed.walk()):
        raise _no_window(option, "a late row corrects the window that it belongs to")
    return changed


def _no_window(option: Option, hint: str) -> Invalid:
    return Invalid(
        f"option '{option.name}' needs a name and a window of event time",
        code="MR1324",
        hint=hint,
        position=option.position,
    )


def _wrong(option: Option, message: str) -> Invalid:
    hint = f"'{LATE}' is one of {', '.join(STRATEGIES)}"
    return Invalid(message, code="MR1349", hint=hint, position=option.position)


def key_option(options: Sequence[Option]) -> tuple[str, ...] | None:
    """The columns that `key` names. Raises what an option that is not heeded raises."""
    _check_options(options)
    found = [o for o in options if o.name.lower() in KEY_OPTIONS]
    return tuple(part.strip() for part in found[0].value.split(",")) if found else None


def _check_options(options: Sequence[Option]) -> None:
    """Refuses options of a query that nothing would heed: MR1348 unknown, MR1954 known and not executed."""
    for option in options:
        name = option.name.lower()
        if name in (*KEY_OPTIONS, LATENESS) or (name == LATE and option.value.lower() in STRATEGIES):
            continue
        if name == LATE:
            raise _wrong(option, f"late rows can not be treated as '{option.value}'")
        if name in LATER_OPTIONS:
            raise Unsupported(
                f"option '{option.name}' = '{option.value}' is not executed yet",
                code="MR1954",
                hint=LATER_OPTIONS[name],
                position=option.position,
            )
        raise Invalid(
            f"a query has no option '{option.name}'",
            code="MR1348",
            hint=suggest(name, [*KEY_OPTIONS, "changes", LATE, LATENESS, *LATER_OPTIONS])
            or "leave it out, or SET it for the job",
            position=option.position,
        )
