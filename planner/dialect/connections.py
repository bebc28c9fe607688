"""Connectors in every spelling: `FROM KAFKA (…)`, `WITH ('connector' = …)`, and `'t.type' = 'kafka_source'`."""

from __future__ import annotations

from dataclasses import dataclass

from millrace.errors import Position
from millrace.planner.dialect.cursor import RESERVED, Cursor
from millrace.planner.dialect.options import read_option_name, read_options
from millrace.planner.dialect.tokens import Kind
from millrace.planner.statements import Connector, NamedConnector, Option, Role


@dataclass(slots=True)
class Clauses:
    """The clauses behind a name and its columns, in any order."""

    connector: Connector | None = None
    options: tuple[Option, ...] = ()
    options_at: Position | None = None
    format: str | None = None
    format_options: tuple[Option, ...] = ()


def read_clauses(cursor: Cursor, connects: str) -> Clauses:
    """`FROM|INTO NAME (…)`, `WITH (…)`, `FORMAT name`, `COMMENT '…'`; `connects` is FROM or INTO."""
    found = Clauses()
    while True:
        token = cursor.here
        if cursor.at(connects):
            if found.connector is not None:
                cursor.fail(f"{connects} is said twice", "MR1017")
            cursor.advance()
            found.connector = _named_connector(cursor)
        elif cursor.at("WITH", "("):
            if found.options_at is not None:
                cursor.fail("WITH is said twice", "MR1017")
            cursor.advance()
            found.options, found.options_at = read_options(cursor), token.position
        elif cursor.at("FORMAT"):
            if found.format is not None:
                cursor.fail("FORMAT is said twice", "MR1017")
            _format(cursor, found)
        elif cursor.take("COMMENT"):
            cursor.string("a comment")
        elif cursor.at_any(("PARTITIONED", "DISTRIBUTED", "INCLUDE", "LIKE", "ENCODE")):
            cursor.fail(
                f"{token.word} is not supported here", "MR1993", hint="give it as an option in WITH (…)"
            )
        else:
            return found


def _format(cursor: Cursor, found: Clauses) -> None:
    cursor.expect("FORMAT")
    name = read_option_name(cursor)
    if cursor.take("ENCODE"):
        if name.upper() not in ("PLAIN", "DEBEZIUM"):
            cursor.fail(f"FORMAT {name} ENCODE … is not supported", "MR1993", hint="write FORMAT JSON")
        encoding = read_option_name(cursor)
        name = encoding if name.upper() == "PLAIN" else f"debezium-{encoding}"
    found.format = name.lower()
    if cursor.at("("):
        found.format_options = read_options(cursor)


def _named_connector(cursor: Cursor) -> Connector:
    token = cursor.here
    if token.kind is Kind.STRING:
        uri = cursor.advance().text
        scheme, separator, _ = uri.partition("://")
        if not separator:
            cursor.fail(f"'{uri}' is no URI", "MR1048", hint="write 'file://./data.csv'", at=token)
        return Connector(scheme.lower(), token.position, (Option("uri", uri, token.position),))
    if token.kind is not Kind.WORD or token.word in RESERVED:
        cursor.unexpected("a connector such as KAFKA (…)")
    name = read_option_name(cursor)
    options = read_options(cursor) if cursor.at("(") else ()
    return _without_format(cursor, connector_name(name), token.position, options)


def connector_name(name: str) -> str:
    """`KAFKA`, `kafka_source` and `kafka_sink` are all `kafka`."""
    return name.lower().removesuffix("_source").removesuffix("_sink")


def _without_format(cursor: Cursor, name: str, position: Position, options: tuple[Option, ...]) -> Connector:
    formats = [option for option in options if option.name.lower() == "format"]
    rest = tuple(option for option in options if option not in formats)
    return Connector(name, position, rest, formats[0].value.lower() if formats else None)


def connected(cursor: Cursor, found: Clauses, needed: str | None) -> Connector | None:
    """The one connector of a statement, from either spelling, with its format. MR1061 where `needed` and none."""
    connector = found.connector
    if connector is None:
        words = [option for option in found.options if option.name.lower() in ("connector", "type")]
        if words:
            rest = tuple(option for option in found.options if option is not words[0])
            connector = _without_format(cursor, connector_name(words[0].value), words[0].position, rest)
        elif found.options_at is not None or needed:
            hint = "add 'connector' = 'kafka', or another one"
            cursor.fail(
                f"{needed or 'WITH'} names no connector",
                "MR1061",
                hint=hint,
                at=found.options_at or cursor.first(),
            )
    if connector is None:
        if found.format is not None:
            cursor.fail("FORMAT needs a connector", "MR1061")
        return None
    if found.format is not None and connector.format is not None:
        cursor.fail(
            "the format is given twice", "MR1060", hint="keep FORMAT or the option", at=connector.position
        )
    return Connector(
        connector.name,
        connector.position,
        connector.options,
        found.format or connector.format,
        found.format_options,
    )


def split_options(
    cursor: Cursor, options: tuple[Option, ...]
) -> tuple[tuple[Option, ...], tuple[NamedConnector, ...]]:
    """Options of a query, apart from the sources and sinks that `'t.type' = 'kafka_source'` and `'t.…'` declare."""
    roles: dict[str, tuple[Role, Option]] = {}
    for option in options:
        name, dot, last = option.name.rpartition(".")
        kind = option.value.lower()
        if dot and last == "type" and "." not in name and kind.endswith(("_source", "_sink")):
            roles[name] = (Role.SOURCE if kind.endswith("_source") else Role.SINK, option)
    rest: list[Option] = []
    owned: dict[str, list[Option]] = {name: [] for name in roles}
    for option in options:
        name, dot, key = option.name.partition(".")
        if dot and name in roles:
            if key != "type":
                owned[name].append(Option(key, option.value, option.position))
        else:
            rest.append(option)
    connectors = tuple(
        NamedConnector(
            name,
            role,
            _without_format(cursor, connector_name(option.value), option.position, tuple(owned[name])),
        )
        for name, (role, option) in roles.items()
    )
    return tuple(rest), connectors
