"""Option lists: `(bootstrap.servers = 'host', 'topic' = 'x', retries = 3)`."""

from __future__ import annotations

from millrace.planner.dialect.cursor import Cursor
from millrace.planner.dialect.tokens import Kind
from millrace.planner.statements import Option


def read_options(cursor: Cursor) -> tuple[Option, ...]:
    """`(name = value, …)`; names are quoted or bare and dotted. Raises Invalid MR1060 for one given twice."""
    cursor.expect("(")
    found: dict[str, Option] = {}
    while not cursor.at(")"):
        option = _option(cursor)
        if option.name in found:
            cursor.fail(f"option '{option.name}' is given twice", "MR1060", at=option.position)
        found[option.name] = option
        if not cursor.take(","):
            break
        if cursor.at(")"):
            cursor.fail("expected an option, found ')'", "MR1010", hint="take out the comma before it")
    cursor.expect(")")
    return tuple(found.values())


def _option(cursor: Cursor) -> Option:
    position = cursor.here.position
    name = read_option_name(cursor)
    if not cursor.take("="):
        cursor.expect("=>")
    return Option(name, read_option_value(cursor), position)


def read_option_name(cursor: Cursor) -> str:
    """A quoted name, or words with dots and dashes between them."""
    token = cursor.here
    if token.kind in (Kind.STRING, Kind.QUOTED):
        return cursor.advance().text
    if token.kind is not Kind.WORD:
        cursor.unexpected("an option's name")
    parts = [cursor.advance().text]
    while cursor.at_any((".", "-")):
        parts.append(cursor.advance().text)
        if cursor.here.kind not in (Kind.WORD, Kind.NUMBER, Kind.QUOTED):
            cursor.unexpected("an option's name")
        parts.append(cursor.advance().text)
    return "".join(parts)


def read_option_value(cursor: Cursor) -> str:
    """A string, a number with or without a unit, true or false, or a word, as text."""
    token = cursor.here
    if token.kind in (Kind.STRING, Kind.QUOTED, Kind.BODY):
        return cursor.advance().text
    sign = "-" if cursor.take("-") else ""
    number = cursor.here
    if number.kind is Kind.NUMBER:
        cursor.advance()
        unit = cursor.here
        if unit.kind is Kind.WORD and unit.start == number.stop:
            return f"{sign}{number.text}{cursor.advance().text}"
        return sign + number.text
    if not sign and token.kind is Kind.WORD:
        if token.word == "INTERVAL":
            start = cursor.advance()
            cursor.string("a duration")
            stop = cursor.advance() if cursor.here.kind is Kind.WORD else cursor.previous()
            return cursor.text.prepared[start.start : stop.stop]
        return read_option_name(cursor)
    cursor.unexpected("an option's value")
