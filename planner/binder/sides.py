"""Tables that a statement brings along: late rows of its windows, bad records of its source. Declares none itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from millrace.errors import Invalid, Position
from millrace.operators.connectors.registry import common_options
from millrace.operators.expressions.tree import Column, Expression
from millrace.planner.binder.grouping import distinct_names
from millrace.planner.catalog import Catalog, Change, Entry, EntryKind
from millrace.planner.expressions import column
from millrace.planner.logical import (
    Aggregate,
    AssignWindow,
    BadRecords,
    LateInput,
    Project,
    Read,
    Relation,
    Scan,
    WindowedAggregate,
)
from millrace.planner.timed_joins import LateSides, TimedJoin


def with_late_table(relation: Relation, table: str) -> Relation:
    """The relation whose windows send late rows to `table`, where they do not say where."""
    return own_windows(
        relation, lambda node: node if node.late_table is not None else replace(node, late_table=table)
    )


def own_windows(relation: Relation, change: Callable[[Aggregate | WindowedAggregate], Relation]) -> Relation:
    """The relation with the windowed aggregates changed that belong to it, and not to what it reads by name."""
    if isinstance(relation, Read) or not relation.inputs:
        return relation
    relation = relation.with_inputs(*(own_windows(item, change) for item in relation.inputs))
    windowed = isinstance(relation, Aggregate) and isinstance(relation.input, AssignWindow)
    if isinstance(relation, WindowedAggregate) or (windowed and isinstance(relation, Aggregate)):
        return change(relation)
    return relation


def late_tables(relation: Relation) -> list[tuple[str, Relation]]:
    """For each window of the relation that names a table for late rows: the name, and those rows."""
    if isinstance(relation, Read | LateInput | LateSides):
        return []
    found = [table for item in relation.inputs for table in late_tables(item)]
    if isinstance(relation, WindowedAggregate) and relation.late_table is not None:
        found.append((relation.late_table, _shown(LateInput(relation))))
    if isinstance(relation, TimedJoin) and relation.late_table is not None:
        found.append((relation.late_table, _both_shown(LateSides(relation))))
    return found


def _both_shown(late: LateSides) -> Relation:
    """Late rows of a join without the columns that planning added, each under a name of its own."""
    schema = late.schema
    places = [at for at, name in enumerate(schema.names) if not name.startswith("_")]
    names = distinct_names([schema.names[at] for at in places])
    return Project(late, tuple(column(schema, at) for at in places), names)


def _shown(late: LateInput) -> Relation:
    """Late rows without the columns that planning added to them."""
    below = late.input.input
    schema = late.schema
    values: list[Expression] = []
    names: list[str] = []
    for at, name in enumerate(schema.names):
        made = isinstance(below, Project) and not isinstance(below.expressions[at], Column)
        if made or name.startswith("_") or name in names:
            continue
        values.append(column(schema, at))
        names.append(name)
    return late if len(names) == len(schema) else Project(late, tuple(values), tuple(names))


def declare_table(
    catalog: Catalog, name: str, relation: Relation, position: Position, depends: str = ""
) -> Change:
    """A catalog entry for such a table. Raises Invalid MR1202 where the name is taken."""
    catalog.check_creatable(name, EntryKind.TABLE, position=position)
    entry = Entry(name, EntryKind.TABLE, Read(relation, name, True), (depends,) if depends else ())
    return catalog.put(entry)


def bad_table(scan: Scan) -> str | None:
    """The table that takes the bad records of a source, if it names one."""
    table = scan.input.bad_rows
    return None if table in ("skip", "fail") else table


def check_bad_table(catalog: Catalog, table: str, source: str, position: Position) -> None:
    """Raises Invalid MR1164 where another source's bad records are in `table`, MR1202 where something else is."""
    known = catalog.find(table)
    below = known.relation.input if known is not None and isinstance(known.relation, Read) else None
    if (
        known is not None
        and isinstance(below, BadRecords)
        and below.input.name.casefold() != source.casefold()
    ):
        raise Invalid(
            f"the bad records of {below.input.name} are in {known.name}, those of {source} need a table of their own",
            code="MR1164",
            hint=f"give the source an option, such as 'bad_rows' = '{table}_{source}'",
            position=position,
        )
    catalog.check_creatable(table, EntryKind.TABLE, position=position)


def unsaid_bad_rows(entry: Entry) -> str:
    """What a declared source does with bad records by a setting of its time; skip where its options say."""
    said = entry.external is not None and "bad_rows" in common_options(dict(entry.external.options)).given
    return entry.relation.input.bad_rows if isinstance(entry.relation, Scan) and not said else "skip"


def bad_records(scan: Scan) -> Relation:
    """The bad records of a source."""
    return BadRecords(scan)
