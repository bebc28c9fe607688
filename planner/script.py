"""A whole SQL text to statements: split, fill in variables, parse each, collect every error. Looks no name up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from millrace.errors import Bug, Invalid, MillraceError, Position
from millrace.planner.statements import Annotation, InsertQuery, InsertValues, Script, Statement

if TYPE_CHECKING:
    from millrace.planner.dialect.tokens import Text, Token
    from millrace.planner.statements import Expression

_ANNOTATION = re.compile(r"^[ \t]*--[ \t]*@([A-Za-z_][\w.]*)[ \t]*(:?)[ \t]*(.*?)[ \t]*$", re.MULTILINE)
LENGTH_MAX = 10_000_000
"""Characters of a script."""


def parse_script(text: str, variables: Mapping[str, str] | None = None) -> Script:
    """Every statement in `text` and every error, each with its line and column in `text`.

    `variables` fill `${NAME}`. Raises nothing but Bug. A text without statements is a Script without statements.
    """
    # Deferred: sqlglot takes a tenth of a second to import, and only a session that parses needs it.
    from millrace.planner.dialect.preparation import prepare
    from millrace.planner.dialect.tokens import tokenize

    if len(text) > LENGTH_MAX:
        message = f"a script of {len(text):,} characters: at most {LENGTH_MAX:,}"
        return Script((), (Invalid(message, code="MR1006", hint="split it into several files"),))
    prepared, problems = prepare(text, variables or {})
    errors: list[MillraceError] = list(problems)
    try:
        tokens = tokenize(prepared)
    except Invalid as error:
        errors.append(error)
        # What stands before the unreadable place can still be checked.
        prepared, _ = prepare(text[: _offset(text, error.position)], variables or {})
        try:
            tokens = _whole_statements(tokenize(prepared))
        except Invalid:
            tokens = []
    reading = _Reading(prepared, text, errors)
    reading.read(tokens)
    return Script(tuple(reading.statements), tuple(sorted(errors, key=_place)))


def parse_statement(text: str, variables: Mapping[str, str] | None = None) -> Statement:
    """The one statement in `text`. Raises the first error, or Invalid MR1007 where there is not exactly one."""
    script = parse_script(text, variables)
    if script.errors:
        raise script.errors[0]
    if len(script.statements) != 1:
        raise Invalid(f"expected one statement, found {len(script.statements)}", code="MR1007")
    return script.statements[0]


def parse_expression(text: str) -> Expression:
    """The one expression that `text` is. Raises the first error."""
    from millrace.planner.dialect.cursor import Cursor
    from millrace.planner.dialect.preparation import prepare
    from millrace.planner.dialect.queries import CLAUSE_WORDS, GRAMMAR
    from millrace.planner.dialect.tokens import tokenize

    prepared, problems = prepare(text, {})
    if problems:
        raise problems[0]
    cursor = Cursor(prepared, tokenize(prepared), GRAMMAR)
    found = cursor.expression()
    if not cursor.at_end():
        cursor.leftover(*CLAUSE_WORDS)
    return found


def _offset(text: str, position: Position | None) -> int:
    if position is None:
        return 0
    lines = text.splitlines(keepends=True)
    return sum(len(line) for line in lines[: position.line - 1]) + position.column - 1


def _whole_statements(tokens: list[Token]) -> list[Token]:
    """`tokens` up to the last `;`."""
    for index in range(len(tokens) - 1, -1, -1):
        if tokens[index].word == ";":
            return tokens[: index + 1]
    return []


def _place(error: MillraceError) -> tuple[int, int]:
    return (error.position.line, error.position.column) if error.position else (0, 0)


@dataclass(slots=True)
class _Set:
    """A STATEMENT SET that has begun."""

    position: Position


class _Reading:
    """One pass over the tokens of a script."""

    def __init__(self, text: Text, original: str, errors: list[MillraceError]) -> None:
        from millrace.planner.dialect.tokens import line_starts

        self.statements: list[Statement] = []
        self._text = text
        self._original = original
        self._errors = errors
        starts = line_starts(original)
        places = [error.position for error in errors if error.position is not None]
        self._unfilled = [starts[place.line - 1] + place.column - 1 for place in places]
        self._set: _Set | None = None
        self._seen = 0

    def read(self, tokens: list[Token]) -> None:
        part: list[Token] = []
        for token in tokens:
            if token.word == ";":
                self._read_part(part)
                self._seen = token.stop
                part = []
            else:
                part.append(token)
        self._read_part(part)
        if self._set is not None:
            self._complain("the STATEMENT SET does not end", "MR1008", self._set.position, "add END;")

    def _read_part(self, part: list[Token]) -> None:
        annotations = self._annotations(part[0].start) if part else ()
        part = self._without_set(part)
        # A statement with a variable that could not be filled in has its error already.
        if part and not any(self._holds(part, offset) for offset in self._unfilled):
            self._parse(part, annotations)

    def _holds(self, part: list[Token], offset: int) -> bool:
        return self._text.origin(part[0].start) <= offset <= self._text.origin(part[-1].stop - 1)

    def _without_set(self, part: list[Token]) -> list[Token]:
        """`part` without the words around a STATEMENT SET, which are no statement."""
        words = [token.word for token in part[:4]]
        for opening in (
            ["EXECUTE", "STATEMENT", "SET", "BEGIN"],
            ["BEGIN", "STATEMENT", "SET"],
            ["STATEMENT", "SET", "BEGIN"],
        ):
            if words[: len(opening)] == opening:
                if self._set is not None:
                    self._complain(
                        "a STATEMENT SET inside another",
                        "MR1008",
                        part[0].position,
                        "end the first with END;",
                    )
                self._set = _Set(part[0].position)
                return part[len(opening) :]
        if words[:1] == ["END"] and len(part) == 1:
            if self._set is None:
                self._complain("END without a STATEMENT SET", "MR1008", part[0].position, None)
            self._set = None
            return []
        return part

    def _parse(self, part: list[Token], annotations: tuple[Annotation, ...]) -> None:
        from millrace.planner.dialect.commands import read_statement
        from millrace.planner.dialect.cursor import Cursor
        from millrace.planner.dialect.definitions import Head
        from millrace.planner.dialect.queries import GRAMMAR

        first, last = part[0], part[-1]
        head = Head(
            position=first.position,
            text=self._text.prepared[first.start : last.stop],
            annotations=annotations,
        )
        try:
            statement = read_statement(Cursor(self._text, part, GRAMMAR), head)
        except Bug:
            raise
        except MillraceError as error:
            if error.position is None:
                error.position = first.position
            error.source_text = self._original
            self._errors.append(error)
            return
        except RecursionError:
            self._complain(
                "the statement is too deep", "MR1012", first.position, "split it with WITH or CREATE VIEW"
            )
            return
        if self._set is not None and not isinstance(statement, (InsertQuery, InsertValues)):
            self._complain("a STATEMENT SET holds INSERT statements only", "MR1008", first.position, None)
            return
        self.statements.append(statement)

    def _complain(self, message: str, code: str, position: Position, hint: str | None) -> None:
        self._errors.append(
            Invalid(message, code=code, hint=hint, position=position, source_text=self._original)
        )

    def _annotations(self, start: int) -> tuple[Annotation, ...]:
        """The `-- @name: value` lines between the statement before and this one."""
        gap = self._text.prepared[self._seen : start]
        return tuple(
            Annotation(
                found[1].lower(),
                found[3],
                self._text.position(self._seen + found.start(1) - 1, self._seen + found.end()),
                bool(found[2]),
            )
            for found in _ANNOTATION.finditer(gap)
        )
