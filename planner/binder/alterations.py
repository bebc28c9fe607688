"""ALTER of declared sources: the declaration that a statement leads to. Binds none of it."""

from __future__ import annotations

from dataclasses import replace

from millrace.errors import Unsupported
from millrace.planner.catalog import Entry
from millrace.planner.script import parse_script
from millrace.planner.statements import Alter, Connector, CreateSource, Statement


def altered(entry: Entry, statement: Alter) -> CreateSource:
    """The declaration of a source after the statement. Raises Unsupported MR1935, MR1936.

    The text of an entry is its CREATE and every ALTER since.
    """
    if entry.external is None or entry.relation is None:
        raise Unsupported(
            f"{entry.name} is a {entry.kind.value} that other rows were computed for already",
            code="MR1935",
            hint="ALTER changes sources; DROP this one, or CREATE OR REPLACE it",
            position=statement.position,
        )
    created, *since = parse_script(entry.text, {}).statements
    assert isinstance(created, CreateSource)
    for one in (*since, statement):
        created = _after(created, one, statement)
    return replace(
        created, text=f"{entry.text.rstrip().rstrip(';')};\n{statement.text}", position=statement.position
    )


def _after(created: CreateSource, change: Statement, statement: Alter) -> CreateSource:
    assert isinstance(change, Alter)
    if change.add_columns and created.columns:
        return replace(created, columns=(*created.columns, *change.add_columns))
    if (change.set_options or change.reset_options) and created.connector is not None:
        return replace(created, connector=_with_options(created.connector, change))
    raise Unsupported(
        f"source {created.name} can not be altered so",
        code="MR1936",
        hint="ADD COLUMN where its columns were declared, SET and RESET of its options; else DROP and CREATE it",
        position=statement.position,
    )


def _with_options(connector: Connector, change: Alter) -> Connector:
    named = {option.name.casefold() for option in change.set_options}
    named |= {name.casefold() for name in change.reset_options}
    kept = tuple(option for option in connector.options if option.name.casefold() not in named)
    return replace(connector, options=(*kept, *change.set_options))
