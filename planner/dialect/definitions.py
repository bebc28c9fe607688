"""CREATE statements: sources, tables, streams, views, lookup tables, sinks and functions."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TypedDict

from sqlglot import exp

from millrace.errors import Position
from millrace.planner.dialect.connections import connected, read_clauses, split_options
from millrace.planner.dialect.cursor import Cursor
from millrace.planner.dialect.nodes import Interval, position_of
from millrace.planner.dialect.options import read_option_name, read_options
from millrace.planner.dialect.queries import CLAUSE_WORDS, apply_changes, read_query
from millrace.planner.dialect.tokens import Kind
from millrace.planner.dialect.types import at_type, read_type
from millrace.planner.dialect.windows import read_table_name
from millrace.planner.statements import (
    Annotation,
    ColumnDefinition,
    CreateFunction,
    CreateLookup,
    CreateQuery,
    CreateSink,
    CreateSource,
    Name,
    Option,
    Parameter,
    QueryKind,
    SourceKind,
    Statement,
    Watermark,
)


class Head(TypedDict):
    """What every statement has."""

    position: Position
    text: str
    annotations: tuple[Annotation, ...]


_KINDS = (
    "SOURCE",
    "TABLE",
    "STREAM",
    "VIEW",
    "MATERIALIZED",
    "CONTINUOUS",
    "LOOKUP",
    "SINK",
    "FUNCTION",
    "AGGREGATE",
)


def read_create(cursor: Cursor, head: Head) -> Statement:
    """The statement behind CREATE, which has been taken."""
    replace = cursor.take("OR", "REPLACE")
    token = cursor.here
    if cursor.at_any(("TEMPORARY", "TEMP")):
        cursor.fail("temporary objects are not supported", "MR1996", hint="use CREATE VIEW")
    match token.word:
        case "SOURCE":
            cursor.advance()
            return _source(cursor, head, SourceKind.SOURCE, replace)
        case "TABLE":
            cursor.advance()
            return _source(cursor, head, SourceKind.TABLE, replace)
        case "STREAM":
            cursor.advance()
            return _source(cursor, head, SourceKind.SOURCE, replace, QueryKind.STREAM)
        case "VIEW":
            cursor.advance()
            return _query(cursor, head, QueryKind.VIEW, replace)
        case "MATERIALIZED":
            cursor.expect("MATERIALIZED", "VIEW")
            return _query(cursor, head, QueryKind.TABLE, replace)
        case "CONTINUOUS":
            cursor.advance()
            cursor.expect_any(("QUERY", "VIEW"))
            return _query(cursor, head, QueryKind.CONTINUOUS, replace)
        case "LOOKUP":
            cursor.expect("LOOKUP", "TABLE")
            return _lookup(cursor, head, replace)
        case "SINK":
            cursor.advance()
            return _sink(cursor, head, replace)
        case "FUNCTION" | "AGGREGATE":
            aggregate = cursor.take("AGGREGATE")
            cursor.expect("FUNCTION")
            return _function(cursor, head, replace, aggregate)
        case (
            "INDEX"
            | "SCHEMA"
            | "DATABASE"
            | "CATALOG"
            | "USER"
            | "ROLE"
            | "TYPE"
            | "SEQUENCE"
            | "TRIGGER"
            | "SECRET"
        ):
            cursor.fail(f"CREATE {token.word} is not supported", "MR1995")
    cursor.unexpected(*_KINDS)


def if_not_exists(cursor: Cursor) -> bool:
    return cursor.take("IF", "NOT", "EXISTS")


# Columns


@dataclass(slots=True)
class _Elements:
    """What stands between the parentheses of a table."""

    columns: list[ColumnDefinition] = field(default_factory=list)
    watermark: Watermark | None = None
    primary_key: tuple[Name, ...] = ()
    enforced: bool = True

    def keys(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.primary_key)


def _elements(cursor: Cursor) -> _Elements:
    """`(column, …, WATERMARK FOR …, PRIMARY KEY (…))`; nothing where no parenthesis stands."""
    found = _Elements()
    if cursor.at("("):
        cursor.wrapped(lambda: _element(cursor, found))
    _check_names(cursor, found)
    return found


def _element(cursor: Cursor, found: _Elements) -> None:
    token = cursor.here
    if cursor.at("WATERMARK", "FOR"):
        if found.watermark is not None:
            cursor.fail("WATERMARK is said twice", "MR1017")
        found.watermark = _watermark(cursor)
        return
    if cursor.at("CONSTRAINT"):
        cursor.advance()
        cursor.identifier("a constraint's name")
    if cursor.at("PRIMARY", "KEY") and cursor.ahead(2).word == "(":
        cursor.advance(2)
        _set_key(cursor, found, tuple(cursor.wrapped(lambda: _column_name(cursor))))
        return
    if cursor.at_any(("UNIQUE", "FOREIGN", "CHECK", "PERIOD")) and cursor.ahead().word in ("(", "KEY", "FOR"):
        cursor.fail(f"{token.word} constraints are not supported", "MR1997", hint="filter rows in the query")
    if token.word == "CONSTRAINT":
        cursor.unexpected("PRIMARY KEY")
    found.columns.append(read_column_definition(cursor, found))


def _column_name(cursor: Cursor) -> Name:
    position = cursor.here.position
    return Name((cursor.identifier("a column").name,), position)


def _set_key(cursor: Cursor, found: _Elements, names: tuple[Name, ...]) -> None:
    if found.primary_key:
        cursor.fail("PRIMARY KEY is said twice", "MR1017", hint="list all columns in one: PRIMARY KEY (a, b)")
    found.primary_key = names
    if cursor.take("NOT", "ENFORCED"):
        found.enforced = False


def read_column_definition(cursor: Cursor, found: _Elements | None = None) -> ColumnDefinition:
    """`name TYPE [NOT NULL] [PRIMARY KEY] [METADATA [FROM 'key']]`, or `name [TYPE] AS expression`."""
    position = cursor.here.position
    name = cursor.identifier("a column").name
    type_ = None if cursor.at("AS") else read_type(cursor)
    not_null, computed, key, virtual = False, None, None, False
    while True:
        token = cursor.here
        if cursor.take("NOT", "NULL"):
            not_null = True
        elif cursor.take("NULL"):
            not_null = False
        elif cursor.at("PRIMARY", "KEY"):
            if found is None:
                cursor.fail("a PRIMARY KEY can not be added", "MR1998")
            cursor.advance(2)
            _set_key(cursor, found, (Name((name,), position),))
        elif cursor.take("METADATA"):
            key = cursor.string("a key") if cursor.take("FROM") else name
            virtual = cursor.take("VIRTUAL")
        elif cursor.take("COMMENT"):
            cursor.string("a comment")
        elif cursor.at("AS") or cursor.at("GENERATED"):
            if cursor.take("GENERATED"):
                cursor.expect("ALWAYS")
            cursor.expect("AS")
            computed = cursor.expression()
            cursor.take_any(("STORED", "VIRTUAL"))
        elif cursor.at_any(("DEFAULT", "UNIQUE", "CHECK", "REFERENCES", "COLLATE")):
            cursor.fail(
                f"{token.word} of a column is not supported",
                "MR1997",
                hint="use coalesce or WHERE in the query",
            )
        else:
            return ColumnDefinition(name, position, type_, not_null, computed, key, virtual)


def _check_names(cursor: Cursor, found: _Elements) -> None:
    seen: dict[str, str] = {}
    for column in found.columns:
        if column.name in seen:
            cursor.fail(f"column {column.name} is declared twice", "MR1062", at=column.position)
        seen[column.name] = column.name
    if not seen:
        return
    named = [(str(name), name.position) for name in found.primary_key]
    if found.watermark is not None:
        named.append((found.watermark.column, found.watermark.position))
    lower = {name.lower(): name for name in seen}
    for name, position in named:
        if name.lower() not in lower:
            close = difflib.get_close_matches(name.lower(), lower, 1, 0.6)
            hint = f"did you mean {lower[close[0]]}?" if close else None
            cursor.fail(f"there is no column {name}", "MR1063", hint=hint, at=position)


def _watermark(cursor: Cursor) -> Watermark:
    cursor.expect("WATERMARK", "FOR")
    position = cursor.here.position
    parts = [cursor.identifier("a time column").name]
    while cursor.take("."):
        parts.append(cursor.label().name)
    name = ".".join(parts)
    if not cursor.take("AS"):
        return Watermark(name, position)
    expression = cursor.expression()
    return Watermark(name, position, _delay(cursor, name, expression), expression)


def _delay(cursor: Cursor, name: str, expression: exp.Expression) -> int | None:
    """The constant that `expression` takes from the column; None where it is anything else."""
    column, delay = expression, 0
    if isinstance(expression, exp.Sub) and isinstance(expression.expression, Interval):
        interval = expression.expression
        if interval.months:
            hint = "a month has no fixed length: say it in days"
            cursor.fail("a watermark can not lag by months", "MR1031", hint=hint, at=position_of(interval))
        if interval.us < 0:
            cursor.fail("a watermark can not be ahead of its rows", "MR1032", at=position_of(interval))
        column, delay = expression.this, interval.us
    same = isinstance(column, exp.Column) and not column.table and column.name.lower() == name.lower()
    return delay if same else None


# Sources and queries


def _source(
    cursor: Cursor, head: Head, kind: SourceKind, replace: bool, query_kind: QueryKind = QueryKind.TABLE
) -> Statement:
    exists = if_not_exists(cursor)
    name = cursor.name(f"a name for the {kind.value}")
    start = cursor.index
    bare = cursor.at("(") and cursor.ahead(2).word in (",", ")")
    if bare or cursor.at("AS"):
        if kind is SourceKind.SOURCE and query_kind is QueryKind.TABLE:
            cursor.advance()
            cursor.fail("a source has no query", "MR1066", hint="write CREATE STREAM … AS SELECT …")
        return _query_rest(cursor, head, query_kind, name, exists, replace)
    elements = _elements(cursor)
    clauses = read_clauses(cursor, "FROM")
    if cursor.at("AS") and clauses.connector is None and cursor.here is not None:
        if elements.columns or elements.watermark is not None:
            cursor.fail(
                "columns with types can not stand before AS",
                "MR1066",
                hint="cast in the query, or write INSERT INTO … SELECT",
                at=name.position,
            )
        cursor.rewind(start)
        return _query_rest(cursor, head, query_kind, name, exists, replace)
    if query_kind is QueryKind.STREAM and clauses.connector is None and clauses.options_at is None:
        hint = f"write CREATE STREAM {name} AS SELECT …; CREATE SOURCE declares input from outside"
        cursor.fail(
            f"stream {name} has neither a query nor a connector", "MR1067", hint=hint, at=name.position
        )
    needed = f"{kind.value} {name}" if kind is SourceKind.SOURCE else None
    connector = connected(cursor, clauses, needed)
    if connector is None and not elements.columns:
        hint = "list its columns, name its connector, or write AS SELECT …"
        cursor.fail(f"table {name} has neither columns nor a query", "MR1067", hint=hint, at=name.position)
    return CreateSource(
        kind=kind,
        name=name,
        columns=tuple(elements.columns),
        watermark=elements.watermark,
        connector=connector,
        primary_key=elements.keys(),
        enforced=elements.enforced,
        if_not_exists=exists,
        or_replace=replace,
        **head,
    )


def _query(cursor: Cursor, head: Head, kind: QueryKind, replace: bool) -> Statement:
    exists = if_not_exists(cursor)
    return _query_rest(cursor, head, kind, cursor.name(), exists, replace)


def _query_rest(
    cursor: Cursor, head: Head, kind: QueryKind, name: Name, exists: bool, replace: bool
) -> Statement:
    columns: tuple[str, ...] = ()
    if cursor.at("("):
        columns = tuple(cursor.wrapped(lambda: cursor.identifier("a column").name))
    options: tuple[Option, ...] = ()
    if cursor.at("WITH", "("):
        cursor.advance()
        options = read_options(cursor)
    cursor.expect("AS")
    if not cursor.at_query():
        cursor.unexpected("SELECT")
    found = read_query(cursor, may_store=True)
    into = found.into
    options, into = read_query_end(cursor, options, into)
    rest, connectors = split_options(cursor, apply_changes(cursor, found.query, options))
    return CreateQuery(
        kind=kind,
        name=name,
        query=found.query,
        column_names=columns,
        options=rest,
        connectors=connectors,
        into=into,
        if_not_exists=exists,
        or_replace=replace,
        **head,
    )


def read_query_end(
    cursor: Cursor, options: tuple[Option, ...], into: Name | None
) -> tuple[tuple[Option, ...], Name | None]:
    """`WITH (…)` and `INTO t` behind a query."""
    while True:
        token = cursor.here
        if cursor.at("WITH", "("):
            cursor.advance()
            more = read_options(cursor)
            known = {option.name for option in options}
            for option in more:
                if option.name in known:
                    cursor.fail(f"option '{option.name}' is given twice", "MR1060", at=option.position)
            options += more
        elif cursor.take("INTO"):
            if into is not None:
                cursor.fail("INTO is said twice", "MR1017", at=token)
            into = cursor.name("a table")
        else:
            if cursor.at_any(CLAUSE_WORDS) and options:
                cursor.fail(f"{token.word} must stand before WITH", "MR1019")
            return options, into


def _lookup(cursor: Cursor, head: Head, replace: bool) -> Statement:
    exists = if_not_exists(cursor)
    name = cursor.name("a name for the lookup table")
    elements = _elements(cursor)
    if elements.watermark is not None:
        cursor.fail("a lookup table has no watermark", "MR1068", at=elements.watermark.position)
    connector = connected(cursor, read_clauses(cursor, "FROM"), f"lookup table {name}")
    assert connector is not None
    return CreateLookup(
        name=name,
        columns=tuple(elements.columns),
        primary_key=elements.keys(),
        connector=connector,
        if_not_exists=exists,
        or_replace=replace,
        **head,
    )


def _sink(cursor: Cursor, head: Head, replace: bool) -> Statement:
    exists = if_not_exists(cursor)
    name = cursor.name("a name for the sink")
    if cursor.at("("):
        cursor.fail(
            "a sink takes its columns from its query", "MR1069", hint="write CREATE SINK s FROM (SELECT …)"
        )
    query: exp.Query | None = None
    if cursor.take("FROM"):
        query = _sink_input(cursor)
    elif cursor.take("AS"):
        query = read_query(cursor).query
    clauses = read_clauses(cursor, "INTO")
    with_is_connector = clauses.connector is None
    connector = connected(cursor, clauses, f"sink {name}")
    assert connector is not None
    return CreateSink(
        name=name,
        query=query,
        connector=connector,
        options=() if with_is_connector else clauses.options,
        if_not_exists=exists,
        or_replace=replace,
        **head,
    )


def _sink_input(cursor: Cursor) -> exp.Query:
    token = cursor.here
    if cursor.at_query():
        return read_query(cursor).query
    select = exp.Select(expressions=[exp.Star()], from_=exp.From(this=read_table_name(cursor)))
    at = cursor.here
    if cursor.take("WHERE"):
        select.set("where", cursor.placed(exp.Where(this=cursor.expression()), at))
    return cursor.placed(select, token)


# Functions


def _function(cursor: Cursor, head: Head, replace: bool, aggregate: bool) -> Statement:
    exists = if_not_exists(cursor)
    name = cursor.name("a name for the function")
    cursor.expect("(")
    parameters = [] if cursor.at(")") else cursor.commas(lambda: _parameter(cursor))
    cursor.expect(")")
    cursor.expect("RETURNS")
    returns = _columns_returned(cursor, aggregate) if cursor.at("TABLE") else read_type(cursor)
    language, target, body = "python", None, None
    options: tuple[Option, ...] = ()
    while not cursor.at_end():
        token = cursor.here
        if cursor.take("LANGUAGE"):
            language = read_option_name(cursor).lower()
            if language != "python":
                cursor.fail(
                    f"LANGUAGE {language} is not supported", "MR1994", hint="write LANGUAGE PYTHON", at=token
                )
        elif cursor.at("AS") and target is None and body is None:
            cursor.advance()
            if cursor.here.kind is Kind.BODY:
                body = cursor.advance().text
            else:
                target = cursor.string("'module:function' or a text between $$")
                if ":" not in target:
                    hint = "write 'module:function'"
                    cursor.fail(f"'{target}' names no function", "MR1070", hint=hint, at=cursor.previous())
        elif cursor.at("WITH", "("):
            cursor.advance()
            options = read_options(cursor)
        else:
            cursor.leftover("LANGUAGE", "AS", "WITH")
    if target is None and body is None:
        cursor.unexpected("AS")
    return CreateFunction(
        name=name,
        parameters=tuple(parameters),
        returns=returns,
        language=language,
        target=target,
        body=body,
        aggregate=aggregate,
        options=options,
        if_not_exists=exists,
        or_replace=replace,
        **head,
    )


def _columns_returned(cursor: Cursor, aggregate: bool) -> tuple[Parameter, ...]:
    token = cursor.advance()
    if aggregate:
        cursor.fail(
            "an aggregate returns one value, no table", "MR1070", hint="write CREATE FUNCTION", at=token
        )
    cursor.expect("(")
    columns = cursor.commas(lambda: Parameter(cursor.label("a column").name, read_type(cursor)))
    cursor.expect(")")
    return tuple(columns)


def _parameter(cursor: Cursor) -> Parameter:
    named = cursor.ahead().word not in (",", ")", "(", "<", "[") or not at_type(cursor)
    name = cursor.label("a parameter").name if named else ""
    return Parameter(name, read_type(cursor))
