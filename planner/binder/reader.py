"""The names that one statement reads: those of the catalog, and sources that the query itself declares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from millrace.errors import Invalid, MillraceError, Position
from millrace.planner.binder.inline import open_uri
from millrace.planner.binder.sources import inline_source, options_of, placed
from millrace.planner.catalog import Catalog
from millrace.planner.dialect import nodes
from millrace.planner.logical import Relation, as_snapshot
from millrace.planner.statements import NamedConnector, Role


@dataclass(slots=True)
class Reader:
    """The names that one statement's query reads: the catalog, and sources declared by the query itself."""

    catalog: Catalog
    snapshot: bool = False
    own: dict[str, Relation] = field(default_factory=dict)
    read: list[str] = field(default_factory=list)

    def relation(self, name: str, position: Position | None) -> Relation:
        """See `Names.relation`."""
        own = self.own.get(name.casefold())
        if own is not None:
            return own
        entry = self.catalog.get(name, position=position)
        if entry.relation is None:
            raise Invalid(
                f"{entry.name} is a {entry.kind.value} and can not be read",
                code="MR1207",
                hint="read what feeds it",
                position=position,
            )
        if entry.name not in self.read:
            self.read.append(entry.name)
        return as_snapshot(entry.relation) if self.snapshot else entry.relation

    def inline(self, node: nodes.InlineSource) -> Relation:
        """See `Names.inline`."""
        return open_uri(node)

    def declare(self, connectors: Sequence[NamedConnector]) -> NamedConnector | None:
        """Take in a query's own connectors; the sink among them is given back."""
        sink = None
        for named in connectors:
            if named.role is Role.SINK:
                if sink is not None:
                    raise Invalid("the query has two sinks", code="MR1343", position=named.connector.position)
                sink = named
                continue
            connector = named.connector
            try:
                scan = inline_source(named.name, connector.name, options_of(connector), connector.format)
            except MillraceError as error:
                raise placed(error, connector) from None
            self.own[named.name.casefold()] = scan
        return sink
