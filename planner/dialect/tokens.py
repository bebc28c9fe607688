"""Tokens with their places in the user's text, by sqlglot's tokenizer with our words. Knows no grammar."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from sqlglot import tokens as sqlglot_tokens
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import TokenError
from sqlglot.tokenizer_core import Token as RawToken
from sqlglot.tokenizer_core import TokenType

from millrace.errors import Invalid, Position


class Millrace(Dialect):
    """The dialect as sqlglot knows it.

    Only its tokenizer is sqlglot's. The grammar on top is ours: sqlglot's parser takes what it does not understand
    (a trailing comma, a BETWEEN without AND, an unknown clause as a raw command), and we must refuse that.
    """

    class Tokenizer(sqlglot_tokens.Tokenizer):
        QUOTES: ClassVar = ["'"]
        IDENTIFIERS: ClassVar = ['"', "`"]
        HEREDOC_STRINGS: ClassVar = ["$"]
        HEREDOC_TAG_IS_IDENTIFIER = True
        NESTED_COMMENTS = False
        SINGLE_TOKENS: ClassVar = {**sqlglot_tokens.Tokenizer.SINGLE_TOKENS, "$": TokenType.HEREDOC_STRING}
        HEX_STRINGS: ClassVar = [("x'", "'"), ("X'", "'")]
        # Words are told apart by the grammar, where they stand: nearly all may be names.
        KEYWORDS: ClassVar = {
            "||": TokenType.DPIPE,
            "->": TokenType.ARROW,
            "->>": TokenType.DARROW,
            "<=>": TokenType.NULLSAFE_EQ,
            "!=": TokenType.NEQ,
            "<>": TokenType.NEQ,
            "<=": TokenType.LTE,
            ">=": TokenType.GTE,
            "::": TokenType.DCOLON,
            "=>": TokenType.FARROW,
            "==": TokenType.EQ,
            "~*": TokenType.IRLIKE,
            "!~": TokenType.NOT,
            "!~*": TokenType.NOT,
            "/*+": TokenType.HINT,
        }


class Kind(Enum):
    WORD = "word"
    QUOTED = "quoted name"
    STRING = "string"
    NUMBER = "number"
    HEX = "hex string"
    BODY = "dollar-quoted text"
    SYMBOL = "symbol"
    END = "end of statement"


_KINDS = {
    TokenType.VAR: Kind.WORD,
    TokenType.IDENTIFIER: Kind.QUOTED,
    TokenType.STRING: Kind.STRING,
    TokenType.NUMBER: Kind.NUMBER,
    TokenType.HEX_STRING: Kind.HEX,
    TokenType.HEREDOC_STRING: Kind.BODY,
}


@dataclass(slots=True)
class Token:
    """`word` is the text in upper case for words and symbols and '' for the rest, so that one comparison decides.

    `start` and `stop` are offsets into the prepared text (stop exclusive); `line` and `column` are the user's.
    """

    kind: Kind
    text: str
    word: str
    start: int
    stop: int
    line: int
    column: int
    length: int

    @property
    def position(self) -> Position:
        return Position(self.line, self.column, self.length)

    def shown(self) -> str:
        """The token as an error quotes it."""
        match self.kind:
            case Kind.END:
                return "the end of the statement"
            case Kind.STRING:
                return f"the string '{_shortened(self.text)}'"
            case Kind.BODY:
                return "a dollar-quoted text"
            case _:
                return f"'{_shortened(self.text)}'"


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "…"


@dataclass(frozen=True, slots=True)
class Text:
    """SQL text as the tokenizer reads it (variables filled in) and where each part of it came from.

    `starts[i]` (rising) is an offset into `prepared` whose text came from `origins[i]` of `original`; if `fixed[i]`
    the whole part came from that one place (a variable).
    """

    original: str
    prepared: str
    starts: tuple[int, ...]
    origins: tuple[int, ...]
    fixed: tuple[bool, ...]
    line_starts: tuple[int, ...]

    def origin(self, offset: int) -> int:
        """The offset into `original` that `offset` into `prepared` came from."""
        part = bisect_right(self.starts, offset) - 1
        return self.origins[part] if self.fixed[part] else self.origins[part] + offset - self.starts[part]

    def position(self, start: int, stop: int | None = None) -> Position:
        """Line and column of an offset into `prepared`, up to `stop`."""
        first = self.origin(start)
        last = self.origin(stop - 1) if stop is not None and stop > start else first
        return self.original_position(first, max(1, last - first + 1))

    def original_position(self, offset: int, length: int = 1) -> Position:
        line = bisect_right(self.line_starts, offset)
        return Position(line, offset - self.line_starts[line - 1] + 1, length)


def line_starts(text: str) -> tuple[int, ...]:
    """Offsets at which the lines begin, as `str.splitlines` sees lines."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return tuple(starts[:-1]) if len(starts) > 1 and starts[-1] == len(text) and text else tuple(starts[:1])


def tokenize(text: Text) -> list[Token]:
    """All tokens of `text`. Raises Invalid (MR1001) at what is no token, such as a string that does not end."""
    try:
        raw = Millrace().tokenize(text.prepared)
    except TokenError:
        raise unreadable(text) from None
    return [_token(text, item) for item in raw]


def unreadable(text: Text) -> Invalid:
    """The error about the first thing in `text` that does not end, or is no hex string."""
    start, what, hint = _unclosed(text.prepared)
    wrong = next((m for m in _HEX.finditer(text.prepared) if re.search("[^0-9A-Fa-f]", m[1])), None)
    if not what:
        place = text.position(wrong.start(), wrong.end()) if wrong is not None else text.position(start)
        message = f"{wrong[0]} is no hex string" if wrong is not None else "the text can not be read"
        return Invalid(message, code="MR1001", position=place, source_text=text.original)
    return Invalid(
        f"{what} does not end",
        code="MR1001",
        hint=hint,
        position=text.position(start),
        source_text=text.original,
    )


def _token(text: Text, raw: RawToken) -> Token:
    kind = _KINDS.get(raw.token_type, Kind.SYMBOL)
    start, stop = raw.start, raw.end + 1
    written = text.prepared[start:stop]
    if kind is Kind.WORD and not (written[0].isalpha() or written[0] == "_"):
        kind = Kind.SYMBOL
    place = text.position(start, stop)
    word = written.upper() if kind in (Kind.WORD, Kind.SYMBOL) else ""
    return Token(kind, raw.text, word, start, stop, place.line, place.column, place.length)


_HEX = re.compile(r"\b[xX]'([^']*)'")
_OPENERS = (
    ("'", "'", "a string", "close it with ', and write '' for a quote inside"),
    ('"', '"', "a quoted name", 'close it with "'),
    ("`", "`", "a quoted name", "close it with `"),
    ("/*", "*/", "a comment", "close it with */"),
    ("--", "\n", "", ""),
)


def _unclosed(sql: str) -> tuple[int, str, str]:
    at = 0
    while at < len(sql):
        for opener, closer, what, hint in _OPENERS:
            if sql.startswith(opener, at):
                end = sql.find(closer, at + len(opener))
                if end < 0 and what:
                    return at, what, hint
                at = len(sql) if end < 0 else end + len(closer)
                break
        else:
            if sql[at] == "$":
                tag = sql[at : sql.find("$", at + 1) + 1]
                if tag and (tag == "$$" or tag[1:-1].isidentifier()):
                    end = sql.find(tag, at + len(tag))
                    if end < 0:
                        return at, "a dollar-quoted text", f"close it with {tag}"
                    at = end + len(tag)
                    continue
            at += 1
    return max(0, len(sql) - 1), "", ""
