"""Every statement that is no CREATE: rows, changes, looks, settings, checkpoints and jobs; and which word begins which."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace

from sqlglot import exp

from millrace.planner.dialect.connections import split_options
from millrace.planner.dialect.cursor import Cursor
from millrace.planner.dialect.definitions import (
    Head,
    read_column_definition,
    read_create,
    read_query_end,
)
from millrace.planner.dialect.options import read_option_name, read_option_value, read_options
from millrace.planner.dialect.queries import CLAUSE_WORDS, apply_changes, read_condition, read_query
from millrace.planner.dialect.tokens import Kind
from millrace.planner.statements import (
    Alter,
    Checkpoint,
    CreateQuery,
    Delete,
    Describe,
    Drop,
    Explain,
    InsertQuery,
    InsertValues,
    JobAction,
    JobControl,
    Name,
    ObjectKind,
    Option,
    Restore,
    SelectStatement,
    SetVariable,
    Show,
    ShowKind,
    Statement,
    Subscribe,
    Update,
)

Reader = Callable[[Cursor, Head], Statement]


def read_statement(cursor: Cursor, head: Head) -> Statement:
    """The whole statement. Raises Invalid or Unsupported; MR1005 for a first word that begins none."""
    statement = _statement(cursor, head)
    if not cursor.at_end():
        cursor.leftover(*CLAUSE_WORDS)
    return statement


def _statement(cursor: Cursor, head: Head) -> Statement:
    token = cursor.here
    if cursor.at_query():
        return _select(cursor, head)
    reader = _READERS.get(token.word)
    if reader is not None:
        cursor.advance()
        return reader(cursor, head)
    if token.word in _REFUSED:
        cursor.fail(f"{token.word} is not supported", "MR1995", hint=_REFUSED[token.word])
    words = [*_READERS, "SELECT", "WITH", "VALUES"]
    close = difflib.get_close_matches(token.word, words, 1, 0.6) if token.kind is Kind.WORD else []
    hint = f"did you mean {close[0]}?" if close else None
    cursor.fail(f"no statement begins with {token.shown()}", "MR1005", hint=hint)


def _inner(cursor: Cursor) -> Statement:
    """A statement inside another: its text is its own."""
    token = cursor.here
    statement = _statement(cursor, Head(position=token.position, text="", annotations=()))
    return replace(statement, text=cursor.text.prepared[token.start : cursor.previous().stop])


# Rows


def _select(cursor: Cursor, head: Head) -> Statement:
    found = read_query(cursor, may_store=True)
    options, into = read_query_end(cursor, (), found.into)
    rest, connectors = split_options(cursor, apply_changes(cursor, found.query, options))
    if into is not None:
        return InsertQuery(target=into, query=found.query, options=rest, connectors=connectors, **head)
    return SelectStatement(query=found.query, options=rest, connectors=connectors, **head)


def _insert(cursor: Cursor, head: Head) -> Statement:
    if cursor.at("OVERWRITE"):
        cursor.fail("INSERT OVERWRITE is not supported", "MR1995", hint="use INSERT INTO")
    cursor.expect("INTO")
    cursor.take("TABLE")
    target = cursor.name("a table")
    columns: tuple[str, ...] = ()
    if cursor.at("(") and not cursor.at_query():
        columns = tuple(cursor.wrapped(lambda: cursor.identifier("a column").name))
    if cursor.at("VALUES"):
        return _values(cursor, head, target, columns)
    if not cursor.at_query():
        cursor.unexpected("VALUES", "SELECT")
    query = read_query(cursor).query
    options, _ = read_query_end(cursor, (), target)
    rest, connectors = split_options(cursor, apply_changes(cursor, query, options))
    return InsertQuery(
        target=target, query=query, columns=columns, options=rest, connectors=connectors, **head
    )


def _values(cursor: Cursor, head: Head, target: Name, columns: tuple[str, ...]) -> Statement:
    cursor.expect("VALUES")
    width = len(columns)
    rows: list[tuple[exp.Expression, ...]] = []

    def row() -> None:
        nonlocal width
        token = cursor.here
        values = tuple(cursor.wrapped(cursor.expression))
        if width and len(values) != width:
            what = f"{width} columns" if columns else f"{width} values in the first row"
            cursor.fail(f"a row of {len(values)} values for {what}", "MR1050", at=token)
        width = len(values)
        rows.append(values)

    cursor.commas(row)
    return InsertValues(target=target, rows=tuple(rows), columns=columns, **head)


def _update(cursor: Cursor, head: Head) -> Statement:
    target = cursor.name("a table")
    cursor.expect("SET")

    def assignment() -> tuple[Name, exp.Expression]:
        name = cursor.name("a column")
        cursor.expect("=")
        return name, cursor.expression()

    assignments = tuple(cursor.commas(assignment))
    if cursor.at("FROM"):
        cursor.fail("UPDATE … FROM is not supported", "MR1999", hint="use a subquery in SET")
    return Update(target=target, assignments=assignments, where=read_condition(cursor), **head)


def _delete(cursor: Cursor, head: Head) -> Statement:
    cursor.expect("FROM")
    target = cursor.name("a table")
    if cursor.at("USING"):
        cursor.fail("DELETE … USING is not supported", "MR1999", hint="use WHERE … IN (SELECT …)")
    return Delete(target=target, where=read_condition(cursor), **head)


# Changes


def _kind(cursor: Cursor, may_be_any: bool) -> ObjectKind:
    for kind in _KINDS_LONGEST_FIRST:
        if cursor.take(*kind.value.upper().split()):
            return kind
    if not may_be_any:
        cursor.unexpected(*(kind.value.upper() for kind in ObjectKind if kind is not ObjectKind.ANY))
    return ObjectKind.ANY


_KINDS_LONGEST_FIRST = sorted(
    (kind for kind in ObjectKind if kind is not ObjectKind.ANY), key=lambda kind: -len(kind.value.split())
)


def _drop(cursor: Cursor, head: Head) -> Statement:
    kind = _kind(cursor, False)
    exists = cursor.take("IF", "EXISTS")
    names = tuple(cursor.commas(lambda: cursor.name(f"the {kind.value}'s name")))
    cascade = cursor.take_any(("CASCADE", "RESTRICT")) == "CASCADE"
    return Drop(kind=kind, names=names, if_exists=exists, cascade=cascade, **head)


def _alter(cursor: Cursor, head: Head) -> Statement:
    kind = _kind(cursor, False)
    exists = cursor.take("IF", "EXISTS")
    name = cursor.name(f"the {kind.value}'s name")
    match cursor.expect_any(("ADD", "DROP", "RENAME", "SET", "RESET")):
        case "ADD":
            cursor.take("COLUMN")
            if cursor.at("("):
                columns = cursor.wrapped(lambda: read_column_definition(cursor))
            else:
                columns = [read_column_definition(cursor)]
            return Alter(kind=kind, name=name, if_exists=exists, add_columns=tuple(columns), **head)
        case "DROP":
            cursor.take("COLUMN")
            dropped = cursor.commas(lambda: cursor.identifier("a column").name)
            return Alter(kind=kind, name=name, if_exists=exists, drop_columns=tuple(dropped), **head)
        case "RENAME" if cursor.take("TO"):
            return Alter(
                kind=kind, name=name, if_exists=exists, rename_to=cursor.name("the new name"), **head
            )
        case "RENAME":
            cursor.take("COLUMN")
            old = cursor.identifier("a column").name
            cursor.expect("TO")
            renamed = (old, cursor.identifier("the new name").name)
            return Alter(kind=kind, name=name, if_exists=exists, rename_column=renamed, **head)
        case "SET":
            return Alter(kind=kind, name=name, if_exists=exists, set_options=read_options(cursor), **head)
        case _:
            keys = cursor.wrapped(lambda: read_option_name(cursor))
            return Alter(kind=kind, name=name, if_exists=exists, reset_options=tuple(keys), **head)


# Looks

_PLAIN_SHOWS = {
    "SOURCES": ShowKind.SOURCES,
    "SINKS": ShowKind.SINKS,
    "STREAMS": ShowKind.STREAMS,
    "TABLES": ShowKind.TABLES,
    "VIEWS": ShowKind.VIEWS,
    "JOBS": ShowKind.JOBS,
    "QUERIES": ShowKind.QUERIES,
    "FUNCTIONS": ShowKind.FUNCTIONS,
    "TOPICS": ShowKind.TOPICS,
    "SETTINGS": ShowKind.SETTINGS,
    "ALL": ShowKind.SETTINGS,
    "PARTITIONS": ShowKind.PARTITIONS,
    "STATUS": ShowKind.STATUS,
    "METRICS": ShowKind.METRICS,
    "CHECKPOINT": ShowKind.CHECKPOINT_STATUS,
    "CREATE": ShowKind.CREATE,
    "COLUMNS": ShowKind.COLUMNS,
}
_NAMED = (ShowKind.PARTITIONS, ShowKind.CREATE, ShowKind.COLUMNS)
_MAY_BE_NAMED = (ShowKind.STATUS, ShowKind.METRICS, ShowKind.CHECKPOINT_STATUS)


def _show(cursor: Cursor, head: Head) -> Statement:
    if cursor.at("MATERIALIZED", "VIEWS"):
        cursor.advance()
    kind = _PLAIN_SHOWS[cursor.expect_any(tuple(_PLAIN_SHOWS))]
    name: Name | None = None
    if kind is ShowKind.CHECKPOINT_STATUS:
        cursor.expect("STATUS")
    if kind is ShowKind.CREATE and not (cursor.at_name() and cursor.ahead().kind is Kind.END):
        _kind(cursor, True)
    if kind in _NAMED:
        cursor.take_any(("FROM", "IN", "FOR"))
        name = cursor.name()
    elif kind in _MAY_BE_NAMED and not cursor.at_end() and not cursor.at("LIKE"):
        cursor.take_any(("OF", "FOR"))
        cursor.take("JOB")
        name = cursor.name()
    like = cursor.string("a pattern") if cursor.take("LIKE") else None
    return Show(kind=kind, name=name, like=like, **head)


def _describe(cursor: Cursor, head: Head) -> Statement:
    extended = cursor.take("EXTENDED")
    if cursor.at_query():
        return Describe(name=None, query=read_query(cursor).query, extended=extended, **head)
    if not (cursor.at_name() and cursor.ahead().kind is Kind.END):
        _kind(cursor, True)
    return Describe(name=cursor.name(), extended=extended, **head)


def _explain(cursor: Cursor, head: Head) -> Statement:
    analyze = cursor.take("ANALYZE")
    json = False
    if cursor.at("(", "FORMAT") or cursor.at("FORMAT"):
        wrapped = cursor.take("(")
        cursor.expect("FORMAT")
        json = cursor.expect_any(("JSON", "TEXT")) == "JSON"
        if wrapped:
            cursor.expect(")")
    elif cursor.take("JSON"):
        json = True
    cursor.take("PLAN", "FOR")
    if cursor.at("EXPLAIN"):
        cursor.fail("EXPLAIN EXPLAIN can not be", "MR1071")
    return Explain(statement=_inner(cursor), analyze=analyze, json=json, **head)


# Settings, checkpoints, jobs


def _set(cursor: Cursor, head: Head) -> Statement:
    if cursor.at_end():
        return Show(kind=ShowKind.SETTINGS, **head)
    name = read_option_name(cursor)
    if not cursor.take("="):
        if not cursor.at("TO"):
            cursor.unexpected("=")
        cursor.advance()
    return SetVariable(name=name, value=read_option_value(cursor), **head)


def _reset(cursor: Cursor, head: Head) -> Statement:
    if cursor.at_end() or cursor.take("ALL"):
        return SetVariable(name=None, value=None, **head)
    return SetVariable(name=read_option_name(cursor), value=None, **head)


def _checkpoint(cursor: Cursor, head: Head) -> Statement:
    return Checkpoint(job=cursor.name("a job") if cursor.take("JOB") else None, **head)


def _restore(cursor: Cursor, head: Head) -> Statement:
    cursor.expect("FROM", "CHECKPOINT")
    return Restore(checkpoint=cursor.whole_number("the checkpoint's number"), **head)


def _subscribe(cursor: Cursor, head: Head) -> Statement:
    cursor.take("TO")
    name = cursor.name("what to subscribe to")
    epoch = None
    if cursor.take("AS", "OF"):
        cursor.expect("EPOCH")
        epoch = cursor.whole_number("an epoch")
    return Subscribe(name=name, epoch=epoch, where=read_condition(cursor), **head)


def _job(action: JobAction) -> Reader:
    def read(cursor: Cursor, head: Head) -> Statement:
        cursor.expect("JOB")
        job = cursor.name("a job")
        version, body, strategy, force = None, None, None, False
        options: tuple[Option, ...] = ()
        if action in (JobAction.DEPLOY, JobAction.ROLLBACK):
            to = action is JobAction.ROLLBACK and cursor.take("TO")
            if cursor.take("VERSION"):
                version = read_option_value(cursor)
            elif to:
                cursor.unexpected("VERSION")
        if action in (JobAction.DEPLOY, JobAction.START) and cursor.take("AS"):
            body = _inner(cursor)
            if not isinstance(body, (SelectStatement, InsertQuery, CreateQuery)):
                cursor.fail(
                    "a job runs a query",
                    "MR1072",
                    hint="write AS SELECT …, or AS INSERT INTO …",
                    at=body.position,
                )
        if action is JobAction.DEPLOY and body is None:
            cursor.unexpected("AS")
        if action is JobAction.DEPLOY and cursor.take("STRATEGY"):
            strategy, options = _strategy(cursor)
        if action is JobAction.STOP:
            force = cursor.take("FORCE")
        return JobControl(
            action=action,
            job=job,
            version=version,
            body=body,
            strategy=strategy,
            options=options,
            force=force,
            **head,
        )

    return read


_STRATEGIES = ("BLUE_GREEN", "CANARY", "ROLLING", "REPLACE")


def _strategy(cursor: Cursor) -> tuple[str, tuple[Option, ...]]:
    if cursor.here.kind is Kind.STRING:
        token = cursor.advance()
        name = token.text.upper()
        if name not in _STRATEGIES:
            cursor.fail(
                f"there is no strategy '{token.text}'", "MR1073", hint=", ".join(_STRATEGIES), at=token
            )
    else:
        name = cursor.expect_any(_STRATEGIES)
    if cursor.at("(") and cursor.ahead().kind is Kind.NUMBER:
        cursor.advance()
        position = cursor.here.position
        share = cursor.whole_number("a share in percent")
        cursor.take("%")
        cursor.expect(")")
        return name.lower(), (Option("percent", str(share), position),)
    return name.lower(), read_options(cursor) if cursor.at("(") else ()


_READERS: dict[str, Reader] = {
    "CREATE": read_create,
    "INSERT": _insert,
    "UPDATE": _update,
    "DELETE": _delete,
    "DROP": _drop,
    "ALTER": _alter,
    "SHOW": _show,
    "DESCRIBE": _describe,
    "DESC": _describe,
    "EXPLAIN": _explain,
    "SET": _set,
    "RESET": _reset,
    "CHECKPOINT": _checkpoint,
    "RESTORE": _restore,
    "SUBSCRIBE": _subscribe,
    **{action.name: _job(action) for action in JobAction},
}
_REFUSED = {
    "MERGE": "use a table with a PRIMARY KEY: INSERT replaces rows by key",
    "TRUNCATE": "use DELETE FROM t",
    "COPY": "use CREATE SINK … INTO FILE (…)",
    "USE": "there is one catalog; write names in full",
    "BEGIN": "every statement is its own transaction",
    "COMMIT": "every statement is its own transaction",
    "GRANT": None,
    "REVOKE": None,
    "ANALYZE": "use EXPLAIN ANALYZE",
    "CALL": None,
    "LOAD": None,
    "VACUUM": None,
    "DECLARE": None,
    "PREPARE": None,
    "EXECUTE": "write EXECUTE STATEMENT SET BEGIN … END",
    "ATTACH": None,
    "PRAGMA": "use SET",
    "COMMENT": None,
    "KILL": "use STOP JOB j",
    "UNSET": "use RESET k",
}
