"""The options of a query: its key and what becomes of its late rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from millrace.errors import Invalid, Unsupported
from millrace.planner.binder.bound import BoundQuery
from millrace.planner.binder.sides import late_tables, with_late_table
from millrace.planner.catalog import suggest
from millrace.planner.rules.order import optimize
from millrace.planner.statements import Option

KEY_OPTIONS = ("key", "primary.key")
LATE = "late.data.strategy"
HEEDED_VALUES = frozenset({(LATE, "drop"), (LATE, "dead_letter")})
LATER_OPTIONS = {
    LATE: "'drop' and 'dead_letter' are; ALLOW LATENESS brings windows up to date when late rows come",
    "state.ttl": "use a window, which forgets by itself",
    "parallelism": "leave it out: everything runs in one partition",
}


def with_options(bound: BoundQuery, name: str, options: Sequence[Option]) -> BoundQuery:
    """The query with the key, and with the table for late rows, that its options ask for. Raises Invalid MR1324."""
    bound = replace(bound, key=key_option(options) or bound.key)
    for option in options:
        if (option.name.lower(), option.value.lower()) == (LATE, "dead_letter"):
            relation = optimize(with_late_table(bound.relation, f"{name}_late") if name else bound.relation)
            if not late_tables(relation):
                raise Invalid(
                    f"option '{option.name}' needs a name and a window of event time",
                    code="MR1324",
                    hint="late rows go to the table <name of the stream, table or sink>_late",
                    position=option.position,
                )
            bound = replace(bound, relation=relation)
    return bound


def key_option(options: Sequence[Option]) -> tuple[str, ...] | None:
    """The columns that `key` names. Raises what an option that is not heeded raises."""
    _check_options(options)
    found = [o for o in options if o.name.lower() in KEY_OPTIONS]
    return tuple(part.strip() for part in found[0].value.split(",")) if found else None


def _check_options(options: Sequence[Option]) -> None:
    """Refuses options of a query that nothing would heed: MR1344 unknown, MR1954 known and not executed."""
    for option in options:
        name = option.name.lower()
        if name in KEY_OPTIONS or (name, option.value.lower()) in HEEDED_VALUES:
            continue
        if name in LATER_OPTIONS:
            raise Unsupported(
                f"option '{option.name}' = '{option.value}' is not executed yet",
                code="MR1954",
                hint=LATER_OPTIONS[name],
                position=option.position,
            )
        raise Invalid(
            f"a query has no option '{option.name}'",
            code="MR1344",
            hint=suggest(name, [*KEY_OPTIONS, "changes", *LATER_OPTIONS])
            or "leave it out, or SET it for the job",
            position=option.position,
        )
