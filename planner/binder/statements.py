"""Statements bound against a catalog: what each changes there, what it yields, what is left for the front door."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from millrace.errors import Invalid, MillraceError, Position, Unsupported
from millrace.operators.connectors.push import PushSpec
from millrace.operators.connectors.registry import canonical_name, find
from millrace.operators.sink import Changelog, SinkSpec
from millrace.planner.binder.errors import invalid
from millrace.planner.binder.grouping import distinct_names
from millrace.planner.binder.inline import open_uri
from millrace.planner.binder.query import BoundQuery, QueryBinder, check_order, renamed
from millrace.planner.binder.sides import bad_records, bad_table, declare_table, late_tables, with_late_table
from millrace.planner.binder.sinks import align, bind_sink, bind_table
from millrace.planner.binder.sources import bind_source, inline_source, options_of, placed
from millrace.planner.binder.values import bind_values
from millrace.planner.catalog import Catalog, Change, ChangeKind, Entry, EntryKind, External, suggest
from millrace.planner.dialect import nodes
from millrace.planner.logical import Read, Relation, Scan, as_snapshot
from millrace.planner.normalized import normalized
from millrace.planner.plan import OutputKind
from millrace.planner.ranking import SortKey, TopN
from millrace.planner.rules.order import optimize
from millrace.planner.statements import (
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
    Option,
    QueryKind,
    Role,
    SelectStatement,
    SourceKind,
    Statement,
    Update,
)
from millrace.planner.user_functions import declare_function, function_of, with_functions

if TYPE_CHECKING:
    from millrace.planner.statements import Query


@dataclass(frozen=True, slots=True)
class PlannedOutput:
    """One thing to be run: `relation` is its rows, `sink` and `mode` belong to sinks.

    `order`, `limit` and `offset` of a select are for whoever shows its rows: the plan does not apply them.
    """

    name: str
    kind: OutputKind
    relation: Relation
    position: Position
    sink: SinkSpec | None = None
    mode: Changelog | None = None
    order: tuple[SortKey, ...] = ()
    limit: int | None = None
    offset: int = 0

    def streamed(self) -> PlannedOutput:
        """The same for a reader without end: the limit is kept up to date. Raises Invalid MR1344 (ORDER BY alone)."""
        check_order(self.order, self.limit, self.offset, self.position)
        if self.limit is None and not self.offset:
            return self
        top = TopN(self.relation, (), self.order, self.limit, self.offset, position=self.position)
        return replace(self, relation=optimize(top), order=(), limit=None, offset=0)


@dataclass(frozen=True, slots=True)
class Command:
    """A statement that the front door carries out itself; `rows` are those of INSERT … VALUES, bound to the table."""

    statement: Statement
    target: Entry | None = None
    rows: pa.RecordBatch | None = None


@dataclass(frozen=True, slots=True)
class PlannedStatement:
    """What a statement comes to."""

    statement: Statement
    changes: tuple[Change, ...] = ()
    outputs: tuple[PlannedOutput, ...] = ()
    command: Command | None = None

    def streamed(self) -> PlannedStatement:
        """See `PlannedOutput.streamed`."""
        return replace(self, outputs=tuple(output.streamed() for output in self.outputs))


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


KEY_OPTIONS = ("key", "primary.key")
LATE = "late.data.strategy"
HEEDED_VALUES = frozenset({(LATE, "drop"), (LATE, "dead_letter")})
LATER_OPTIONS = {
    LATE: "'drop' and 'dead_letter' are; ALLOW LATENESS brings windows up to date when late rows come",
    "state.ttl": "use a window, which forgets by itself",
    "parallelism": "leave it out: everything runs in one partition",
}


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


@dataclass(slots=True)
class Binder:
    """Binds one statement at a time against a catalog, which changes only when the statement is sound.

    With `snapshot` queries read tables as they are now, and not what happens to them.
    """

    catalog: Catalog
    snapshot: bool = False

    def bind(self, statement: Statement) -> PlannedStatement:
        """What the statement comes to. Raises Invalid and Unsupported with the place in the text."""
        trial = self.catalog.copy()
        planned = self._with_late_tables(Binder(trial, self.snapshot)._bind(statement), trial)
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
                raise Unsupported(
                    "UPDATE and DELETE are not executed yet",
                    code="MR1950",
                    hint="INSERT a row with the same primary key to replace one",
                    position=statement.position,
                )
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
        scan = bind_source(statement)
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
            self.catalog.check_creatable(table, EntryKind.TABLE, position=statement.position)
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
        bound = _with_options(bound, name, statement.options)
        relation = renamed(bound.relation, statement.column_names, statement.query)
        _check_columns(relation, statement.query)
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
            outputs.append(self._to(sink.name, sink.connector, read, bound.key, statement.position))
        if statement.into is not None:
            into = statement.into
            outputs.append(self._into(str(into), read, (), bound.key, into.position, reader.read))
        change = self.catalog.put(Entry(name, kind, read, tuple(reader.read), text=statement.text))
        return PlannedStatement(statement, (change,), tuple(outputs))

    def _create_sink(self, statement: CreateSink) -> PlannedStatement:
        name = str(statement.name)
        if not self._creatable(statement, name, EntryKind.SINK):
            return PlannedStatement(statement)
        connector = statement.connector
        options = options_of(connector)
        key = _key_option(statement.options)
        external = External(connector.name, tuple(options.items()), connector.format, None, key or ())
        if statement.query is None:
            _known(connector)
            change = self.catalog.put(Entry(name, EntryKind.SINK, None, (), external, text=statement.text))
            return PlannedStatement(statement, (change,))
        reader, _, bound = self._query(statement.query, (), ordered=False)
        bound = _with_options(bound, name, statement.options)
        output = self._to(name, connector, bound.relation, bound.key, statement.position)
        external = External(
            connector.name, tuple(options.items()), connector.format, bound.relation.schema, key or ()
        )
        entry = Entry(name, EntryKind.SINK, None, tuple(reader.read), external, text=statement.text)
        return PlannedStatement(statement, (self.catalog.put(entry),), (output,))

    def _insert(self, statement: InsertQuery) -> PlannedStatement:
        reader, sink, bound = self._query(statement.query, statement.connectors, ordered=False)
        name, position = str(statement.target), statement.target.position
        bound = _with_options(bound, name, statement.options)
        if sink is not None and sink.name.casefold() == name.casefold():
            output = self._to(name, sink.connector, bound.relation, bound.key, position)
        else:
            output = self._into(name, bound.relation, statement.columns, bound.key, position, reader.read)
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
        bound = _with_options(bound, "" if sink is None else sink.name, statement.options)
        if sink is not None:
            relation = bound.standing(statement.position)
            output = self._to(sink.name, sink.connector, relation, bound.key, statement.position)
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

    def _to(
        self,
        name: str,
        connector: Connector,
        relation: Relation,
        key: tuple[str, ...] | None,
        position: Position,
    ) -> PlannedOutput:
        _check_columns(relation, None, position)
        relation = optimize(relation)
        try:
            bound = bind_sink(
                connector.name, options_of(connector), connector.format, relation, key, position
            )
        except MillraceError as error:
            raise placed(error, connector) from None
        return PlannedOutput(name, OutputKind.SINK, bound.relation, position, bound.spec, bound.mode)

    def _into(
        self,
        name: str,
        relation: Relation,
        columns: Sequence[str],
        key: tuple[str, ...] | None,
        position: Position,
        reads: Sequence[str],
    ) -> PlannedOutput:
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
            relation = align(relation, external.schema, columns, entry.name, position)
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


def _with_functions(catalog: Catalog, planned: PlannedStatement) -> Iterator[Change]:
    outputs = {output.name: output.relation for output in planned.outputs}
    for change in planned.changes:
        entry = change.entry
        kept = change.kind in (ChangeKind.CREATED, ChangeKind.REPLACED)
        relation = entry.relation or outputs.get(entry.name)
        yield with_functions(catalog, change, relation) if kept else change


def _check_columns(relation: Relation, node: object, position: Position | None = None) -> None:
    """Names of a stored result must differ. Raises Invalid MR1118."""
    seen: set[str] = set()
    for name in relation.schema.names:
        if name.casefold() in seen:
            error = invalid(node, "MR1118", f"two columns of the result are named {name}", "name one with AS")
            error.position = error.position or position
            raise error
        seen.add(name.casefold())


def _can_read(connector: Connector) -> bool:
    return _known(connector)


def _known(connector: Connector) -> bool:
    """Whether the connector can be read from. Raises Invalid MR1400, Unsupported MR1910 at its place."""
    try:
        canonical_name(connector.name)
        return find(connector.name).source is not None
    except MillraceError as error:
        raise placed(error, connector) from None


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


def _with_options(bound: BoundQuery, name: str, options: Sequence[Option]) -> BoundQuery:
    """The query with the key, and with the table for late rows, that its options ask for. Raises Invalid MR1324."""
    bound = replace(bound, key=_key_option(options) or bound.key)
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


def _key_option(options: Sequence[Option]) -> tuple[str, ...] | None:
    _check_options(options)
    found = [o for o in options if o.name.lower() in KEY_OPTIONS]
    return tuple(part.strip() for part in found[0].value.split(",")) if found else None
