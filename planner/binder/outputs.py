"""Where the rows of a query go: sinks with a connector, and tables of the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millrace.errors import Invalid, MillraceError, Position
from millrace.operators.connectors.push import PushSpec
from millrace.planner.binder.errors import invalid
from millrace.planner.binder.planned import PlannedOutput
from millrace.planner.binder.sinks import align, bind_sink, bind_table, with_headers_last
from millrace.planner.binder.sources import options_of, placed
from millrace.planner.catalog import Catalog, Entry
from millrace.planner.logical import Read, Relation, Scan
from millrace.planner.plan import OutputKind
from millrace.planner.rules.order import optimize
from millrace.planner.statements import Connector


@dataclass(frozen=True, slots=True)
class OutputBinder:
    """Binds what is written against the catalog, in which a table learns what it depends on."""

    catalog: Catalog

    def to(
        self,
        name: str,
        connector: Connector,
        relation: Relation,
        key: tuple[str, ...] | None,
        position: Position,
    ) -> PlannedOutput:
        """Rows to a connector that the statement itself names. Raises what the connector refuses, at its place."""
        check_columns(relation, None, position)
        relation = optimize(relation)
        try:
            bound = bind_sink(
                connector.name, options_of(connector), connector.format, relation, key, position
            )
        except MillraceError as error:
            raise placed(error, connector) from None
        return PlannedOutput(name, OutputKind.SINK, bound.relation, position, bound.spec, bound.mode)

    def into(
        self,
        name: str,
        relation: Relation,
        columns: Sequence[str],
        key: tuple[str, ...] | None,
        position: Position,
        reads: Sequence[str],
    ) -> PlannedOutput:
        """Rows to a sink or table of the catalog; `reads` are the names that the query reads."""
        entry = self.catalog.get(name, position=position, what="sink or table")
        external = entry.external
        if external is None:
            bound = bind_table(
                entry.name, self._own_table(entry, reads, position), relation, columns, position
            )
            return PlannedOutput(
                entry.name, OutputKind.SINK, bound.relation, position, bound.spec, bound.mode
            )
        if external.schema is not None:
            relation, target = with_headers_last(relation, external.connector, external.schema)
            named = (*columns, *target.names[len(external.schema) :]) if columns else columns
            relation = align(relation, target, named, entry.name, position)
        relation = optimize(relation)
        bound = bind_sink(
            external.connector,
            dict(external.options),
            external.format,
            relation,
            key or external.key or None,
            position,
        )
        return PlannedOutput(entry.name, OutputKind.SINK, bound.relation, position, bound.spec, bound.mode)

    def _own_table(self, entry: Entry, reads: Sequence[str], position: Position) -> Scan:
        """The scan behind a table that INSERT writes; it depends on what the query reads from now on."""
        below = entry.relation.input if isinstance(entry.relation, Read) else None
        if not isinstance(below, Scan) or not isinstance(below.input.source, PushSpec):
            raise Invalid(
                f"{entry.name} is a {entry.kind.value} and takes no rows from INSERT",
                code="MR1208",
                hint="insert into a sink, or a table that was created with its columns",
                position=position,
            )
        read = {name.casefold() for name in reads}
        if entry.name.casefold() in read | {e.name.casefold() for e in self._needed(reads)}:
            raise Invalid(
                f"the query reads {entry.name}, so its rows would go round for ever",
                code="MR1346",
                hint="insert into another table",
                position=position,
            )
        self.catalog.alter(entry.name, depends=tuple(dict.fromkeys((*entry.depends, *reads))))
        return below

    def _needed(self, names: Sequence[str]) -> list[Entry]:
        """All entries that these are built on."""
        found: dict[str, Entry] = {}
        waiting = list(names)
        while waiting:
            entry = self.catalog.find(waiting.pop())
            if entry is not None and entry.name not in found:
                found[entry.name] = entry
                waiting += entry.depends
        return list(found.values())


def check_columns(relation: Relation, node: object, position: Position | None = None) -> None:
    """Names of a stored result must differ. Raises Invalid MR1118."""
    seen: set[str] = set()
    for name in relation.schema.names:
        if name.casefold() in seen:
            error = invalid(node, "MR1118", f"two columns of the result are named {name}", "name one with AS")
            error.position = error.position or position
            raise error
        seen.add(name.casefold())
