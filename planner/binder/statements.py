"""Statements bound against a catalog: what each changes there, what it yields, what is left for the front door."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from millrace.errors import Invalid, MillraceError, Unsupported
from millrace.operators.connectors.registry import canonical_name, find
from millrace.planner.binder.alterations import altered
from millrace.planner.binder.bound import BoundQuery, renamed
from millrace.planner.binder.grouping import distinct_names
from millrace.planner.binder.outputs import OutputBinder, check_columns
from millrace.planner.binder.planned import Command, PlannedOutput, PlannedStatement
from millrace.planner.binder.query import QueryBinder
from millrace.planner.binder.query_options import key_option, with_options
from millrace.planner.binder.reader import Reader
from millrace.planner.binder.scope import Scope
from millrace.planner.binder.sides import (
    bad_records,
    bad_table,
    check_bad_table,
    declare_table,
    late_tables,
    unsaid_bad_rows,
)
from millrace.planner.binder.sources import bind_source, options_of, placed
from millrace.planner.binder.table_changes import changed_rows
from millrace.planner.binder.values import bind_values
from millrace.planner.catalog import Catalog, Change, ChangeKind, Entry, EntryKind, External
from millrace.planner.dialect import nodes
from millrace.planner.logical import Read
from millrace.planner.normalized import normalized
from millrace.planner.plan import OutputKind
from millrace.planner.rules.order import optimize
from millrace.planner.statements import (
    Alter,
    Connector,
    CreateFunction,
    CreateLookup,
    CreateQuery,
    CreateSink,
    CreateSource,
    Delete,
    Drop,
    InsertQuery,
    InsertValues,
    NamedConnector,
    ObjectKind,
    QueryKind,
    SelectStatement,
    SourceKind,
    Statement,
    Subscribe,
    Update,
)
from millrace.planner.user_functions import declare_function, function_of, with_functions

if TYPE_CHECKING:
    from millrace.planner.statements import Query


_DROPPED = {
    ObjectKind.ANY: None,
    ObjectKind.SOURCE: EntryKind.SOURCE,
    ObjectKind.SINK: EntryKind.SINK,
    ObjectKind.STREAM: EntryKind.STREAM,
    ObjectKind.CONTINUOUS_QUERY: EntryKind.STREAM,
    ObjectKind.TABLE: EntryKind.TABLE,
    ObjectKind.MATERIALIZED_VIEW: EntryKind.TABLE,
    ObjectKind.LOOKUP_TABLE: EntryKind.LOOKUP,
    ObjectKind.VIEW: EntryKind.VIEW,
    ObjectKind.FUNCTION: EntryKind.FUNCTION,
}
_KINDS = {
    QueryKind.STREAM: EntryKind.STREAM,
    QueryKind.CONTINUOUS: EntryKind.STREAM,
    QueryKind.VIEW: EntryKind.VIEW,
    QueryKind.TABLE: EntryKind.TABLE,
}


@dataclass(slots=True)
class Binder:
    """Binds one statement at a time against a catalog, which changes only when the statement is sound.

    With `snapshot` queries read tables as they are now, and not what happens to them. `bad_rows` holds for sources
    that do not say.
    """

    catalog: Catalog
    snapshot: bool = False
    bad_rows: str = "skip"

    @property
    def _outputs(self) -> OutputBinder:
        return OutputBinder(self.catalog)

    def bind(self, statement: Statement) -> PlannedStatement:
        """What the statement comes to. Raises Invalid and Unsupported with the place in the text."""
        trial = self.catalog.copy()
        planned = self._with_late_tables(Binder(trial, self.snapshot, self.bad_rows)._bind(statement), trial)
        planned = replace(planned, changes=tuple(_with_functions(trial, planned)))
        self.catalog.take(trial)
        return planned

    def _with_late_tables(self, planned: PlannedStatement, catalog: Catalog) -> PlannedStatement:
        """The statement with a table for each window that sends its late rows somewhere."""
        changes, outputs = list(planned.changes), list(planned.outputs)
        for output in planned.outputs:
            for name, relation in late_tables(output.relation):
                changes.append(declare_table(catalog, name, relation, output.position))
                outputs.append(PlannedOutput(name, OutputKind.TABLE, relation, output.position))
        return PlannedStatement(planned.statement, tuple(changes), tuple(outputs), planned.command)

    def _bind(self, statement: Statement) -> PlannedStatement:
        match statement:
            case CreateSource():
                return self._create_source(statement)
            case CreateQuery():
                return self._create_query(statement)
            case CreateSink():
                return self._create_sink(statement)
            case InsertQuery():
                return self._insert(statement)
            case InsertValues():
                return self._insert_values(statement)
            case SelectStatement():
                return self._select(statement)
            case Drop():
                return self._drop(statement)
            case CreateFunction():
                return self._create_function(statement)
            case CreateLookup():
                raise Unsupported(
                    "lookup tables are not executed yet", code="MR1949", position=statement.position
                )
            case Update() | Delete():
                return self._change_rows(statement)
            case Alter():
                return self._alter(statement)
            case Subscribe():
                return self._subscribe(statement)
        return PlannedStatement(statement, command=Command(statement))

    def _create_source(self, statement: CreateSource) -> PlannedStatement:
        kind = EntryKind.SOURCE if statement.kind is SourceKind.SOURCE else EntryKind.TABLE
        name = str(statement.name)
        if not self._creatable(statement, name, kind):
            return PlannedStatement(statement)
        if statement.connector is None and statement.kind is SourceKind.TABLE:
            return self._create_own_table(statement, name)
        connector = statement.connector
        if connector is not None and kind is EntryKind.TABLE:
            with_source = _can_read(connector)
            if not with_source:
                return self._create_written_table(statement, name, connector)
        scan = bind_source(statement, self.bad_rows)
        external = None
        if connector is not None:
            external = External(
                connector.name,
                tuple(options_of(connector).items()),
                connector.format,
                pa.schema([scan.schema.field(c.name) for c in statement.columns if c.type is not None])
                if statement.columns
                else scan.schema,
                statement.primary_key,
                scan.input,
            )
        table = bad_table(scan)
        if table is not None:
            check_bad_table(self.catalog, table, name, statement.position)
        changes = [self.catalog.put(Entry(name, kind, scan, (), external, text=statement.text))]
        if table is not None:
            changes.append(declare_table(self.catalog, table, bad_records(scan), statement.position, name))
        return PlannedStatement(statement, tuple(changes))

    def _create_own_table(self, statement: CreateSource, name: str) -> PlannedStatement:
        scan = bind_source(statement)
        relation = Read(scan, name, True)
        change = self.catalog.put(Entry(name, EntryKind.TABLE, relation, text=statement.text))
        output = PlannedOutput(name, OutputKind.TABLE, scan, statement.position)
        return PlannedStatement(statement, (change,), (output,))

    def _create_written_table(
        self, statement: CreateSource, name: str, connector: Connector
    ) -> PlannedStatement:
        fields = [c.type.field(c.name, not c.not_null) for c in statement.columns if c.type is not None]
        external = External(
            connector.name,
            tuple(options_of(connector).items()),
            connector.format,
            pa.schema(fields) if fields else None,
            statement.primary_key,
        )
        change = self.catalog.put(Entry(name, EntryKind.TABLE, None, (), external, text=statement.text))
        return PlannedStatement(statement, (change,))

    def _create_query(self, statement: CreateQuery) -> PlannedStatement:
        kind = _KINDS[statement.kind]
        name = str(statement.name)
        if not self._creatable(statement, name, kind):
            return PlannedStatement(statement)
        reader, sink, bound = self._query(statement.query, statement.connectors, ordered=False)
        bound = with_options(bound, name, statement.options)
        relation = renamed(bound.relation, statement.column_names, statement.query)
        check_columns(relation, statement.query)
        if kind is not EntryKind.VIEW:
            relation = optimize(relation)
        if kind is EntryKind.VIEW:
            change = self.catalog.put(Entry(name, kind, relation, tuple(reader.read), text=statement.text))
            return PlannedStatement(statement, (change,))
        read = Read(relation, name, kind is EntryKind.TABLE)
        outputs = [
            PlannedOutput(
                name,
                OutputKind.TABLE if kind is EntryKind.TABLE else OutputKind.STREAM,
                relation,
                statement.position,
            )
        ]
        if sink is not None:
            outputs.append(self._outputs.to(sink.name, sink.connector, read, bound.key, statement.position))
        if statement.into is not None:
            into = statement.into
            outputs.append(self._outputs.into(str(into), read, (), bound.key, into.position, reader.read))
        change = self.catalog.put(Entry(name, kind, read, tuple(reader.read), text=statement.text))
        return PlannedStatement(statement, (change,), tuple(outputs))

    def _create_sink(self, statement: CreateSink) -> PlannedStatement:
        name = str(statement.name)
        if not self._creatable(statement, name, EntryKind.SINK):
            return PlannedStatement(statement)
        connector = statement.connector
        options = options_of(connector)
        key = key_option(statement.options)
        external = External(connector.name, tuple(options.items()), connector.format, None, key or ())
        if statement.query is None:
            _known(connector)
            change = self.catalog.put(Entry(name, EntryKind.SINK, None, (), external, text=statement.text))
            return PlannedStatement(statement, (change,))
        reader, _, bound = self._query(statement.query, (), ordered=False)
        bound = with_options(bound, name, statement.options)
        output = self._outputs.to(name, connector, bound.relation, bound.key, statement.position)
        external = External(
            connector.name, tuple(options.items()), connector.format, bound.relation.schema, key or ()
        )
        entry = Entry(name, EntryKind.SINK, None, tuple(reader.read), external, text=statement.text)
        return PlannedStatement(statement, (self.catalog.put(entry),), (output,))

    def _insert(self, statement: InsertQuery) -> PlannedStatement:
        reader, sink, bound = self._query(statement.query, statement.connectors, ordered=False)
        name, position = str(statement.target), statement.target.position
        bound = with_options(bound, name, statement.options)
        if sink is not None and sink.name.casefold() == name.casefold():
            output = self._outputs.to(name, sink.connector, bound.relation, bound.key, position)
        else:
            output = self._outputs.into(
                name, bound.relation, statement.columns, bound.key, position, reader.read
            )
        return PlannedStatement(statement, (), (output,))

    def _insert_values(self, statement: InsertValues) -> PlannedStatement:
        entry = self.catalog.get(str(statement.target), position=statement.target.position)
        if entry.relation is None or entry.kind not in (EntryKind.TABLE, EntryKind.SOURCE):
            raise Invalid(
                f"{entry.name} takes no rows from INSERT … VALUES",
                code="MR1208",
                hint="INSERT INTO a table or a push source",
                position=statement.target.position,
            )
        rows = bind_values(statement, entry)
        return PlannedStatement(statement, command=Command(statement, entry, rows))

    def _select(self, statement: SelectStatement) -> PlannedStatement:
        _, sink, bound = self._query(statement.query, statement.connectors, ordered=True)
        bound = with_options(bound, "" if sink is None else sink.name, statement.options)
        if sink is not None:
            relation = bound.standing(statement.position)
            output = self._outputs.to(sink.name, sink.connector, relation, bound.key, statement.position)
        else:
            output = PlannedOutput(
                "select",
                OutputKind.SELECT,
                normalized(
                    optimize(
                        renamed(bound.relation, distinct_names(bound.relation.schema.names), statement.query)
                    )
                ),
                statement.position,
                order=bound.order,
                limit=bound.limit,
                offset=bound.offset,
                hidden=bound.hidden,
            )
        return PlannedStatement(statement, (), (output,))

    def _alter(self, statement: Alter) -> PlannedStatement:
        """Queries that come read the source as it is declared then; those that run go on as they are."""
        name, position = str(statement.name), statement.name.position
        if statement.if_exists and self.catalog.find(name) is None:
            return PlannedStatement(statement)
        entry = self.catalog.get(name, position=position)
        self.catalog.check_kind(entry, _DROPPED.get(statement.kind), position)
        try:
            declared = altered(entry, statement)
            trial = Catalog()
            Binder(trial, bad_rows=unsaid_bad_rows(entry))._create_source(
                replace(declared, or_replace=False, if_not_exists=False)
            )
        except MillraceError as error:
            error.position = statement.position
            raise
        after = trial.get(entry.name)
        change = self.catalog.alter(
            entry.name, relation=after.relation, external=after.external, text=declared.text
        )
        return PlannedStatement(statement, (change,))

    def _change_rows(self, statement: Update | Delete) -> PlannedStatement:
        where = QueryBinder(Reader(self.catalog, snapshot=True)).where
        entry, relation, key = changed_rows(statement, self.catalog, where)
        output = PlannedOutput("changed", OutputKind.SELECT, optimize(relation), statement.position)
        return PlannedStatement(statement, (), (output,), Command(statement, entry, key=key))

    def _subscribe(self, statement: Subscribe) -> PlannedStatement:
        if statement.epoch is not None:
            raise Unsupported(
                "a subscription begins with what holds now",
                code="MR1957",
                hint="leave AS OF EPOCH out; a table gives the rows it has before its changes",
                position=statement.position,
            )
        reader = Reader(self.catalog)
        relation = reader.relation(str(statement.name), statement.name.position)
        if statement.where is not None:
            scope = Scope.of(relation, str(statement.name))
            relation = QueryBinder(reader).where(scope, statement.where).relation
        output = PlannedOutput(
            "select", OutputKind.SELECT, normalized(optimize(relation)), statement.position
        )
        return PlannedStatement(statement, (), (output,))

    def _create_function(self, statement: CreateFunction) -> PlannedStatement:
        changes = declare_function(
            self.catalog,
            str(statement.name),
            function_of(statement),
            text=statement.text,
            replace=statement.or_replace,
            if_not_exists=statement.if_not_exists,
            position=statement.name.position,
        )
        return PlannedStatement(statement, changes)

    def _drop(self, statement: Drop) -> PlannedStatement:
        if statement.kind not in _DROPPED:
            return PlannedStatement(statement, command=Command(statement))
        changes: list[Change] = []
        for name in statement.names:
            changes += self.catalog.drop(
                str(name),
                _DROPPED[statement.kind],
                if_exists=statement.if_exists,
                cascade=statement.cascade,
                position=name.position,
            )
        return PlannedStatement(statement, tuple(changes))

    def _creatable(
        self, statement: CreateSource | CreateQuery | CreateSink, name: str, kind: EntryKind
    ) -> bool:
        return self.catalog.check_creatable(
            name,
            kind,
            replace=statement.or_replace,
            if_not_exists=statement.if_not_exists,
            position=statement.name.position,
        )

    def _query(
        self, query: Query, connectors: Sequence[NamedConnector], *, ordered: bool
    ) -> tuple[Reader, NamedConnector | None, BoundQuery]:
        reader = Reader(self.catalog, self.snapshot)
        sink = reader.declare(connectors)
        binder = QueryBinder(reader)
        if ordered:
            return reader, sink, binder.bind_outer(query)
        bound = binder.bind_outer(query)
        return reader, sink, BoundQuery(bound.standing(nodes.position_of(query)), key=bound.key)


def _with_functions(catalog: Catalog, planned: PlannedStatement) -> Iterator[Change]:
    outputs = {output.name: output.relation for output in planned.outputs}
    for change in planned.changes:
        entry = change.entry
        kept = change.kind in (ChangeKind.CREATED, ChangeKind.REPLACED)
        relation = entry.relation or outputs.get(entry.name)
        yield with_functions(catalog, change, relation) if kept else change


def _can_read(connector: Connector) -> bool:
    return _known(connector)


def _known(connector: Connector) -> bool:
    """Whether the connector can be read from. Raises Invalid MR1400, Unsupported MR1910 at its place."""
    try:
        canonical_name(connector.name)
        return find(connector.name).source is not None
    except MillraceError as error:
        raise placed(error, connector) from None
