"""The reader of one statement's tokens that every piece of the grammar shares: look, take, expect, complain."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

from sqlglot import exp

from millrace.errors import Invalid, MillraceError, Position, Unsupported
from millrace.planner.dialect.nodes import set_position
from millrace.planner.dialect.tokens import Kind, Text, Token
from millrace.planner.statements import Name

if TYPE_CHECKING:
    from millrace.planner.statements import Query

T = TypeVar("T")
N = TypeVar("N", bound=exp.Expr)

NESTING_MAX = 60
"""Levels of parentheses, calls and subqueries: beyond it Python's own stack would be at risk."""


def words(text: str) -> frozenset[str]:
    """The words of `text` as a set."""
    return frozenset(text.split())


RESERVED = words(
    """ALL AND ANY AS ASC BETWEEN BY CASE CAST CREATE CROSS DELETE DESC DISTINCT DROP ELSE END EXCEPT EXISTS FALSE
    FETCH FROM FULL GROUP HAVING IN INNER INSERT INTERSECT INTO IS JOIN LEFT LIKE ILIKE LIMIT NATURAL NOT NULL OFFSET ON
    OR ORDER OUTER OVER QUALIFY RIGHT SELECT SIMILAR TABLE THEN TRUE UNION UPDATE USING VALUES WHEN WHERE WITH"""
)
"""Words that are names only between quotes."""

CLAUSES = words(
    """ALLOW ALLOWED_LATENESS ANTI ASOF CLUSTER COLLATE CONNECT DISTRIBUTE EMIT FOR LATE LATERAL MATCH_CONDITION
    MATCH_RECOGNIZE MINUS PIVOT PREWHERE PRIMARY RETURNING SEMI SORT START STRATEGY TABLESAMPLE TOP UNPIVOT WINDOW WITHIN"""
)
"""Words that may be names but no alias without AS, because a clause begins with them."""


OR, AND, NOT, IS, COMPARISON, RANGE, OTHER, SUM, PRODUCT, UNARY, ZONE = range(1, 12)
"""Precedence of operators, loosest first, as PostgreSQL has it."""


class Grammar(Protocol):
    """The recursive parts of the grammar, which all its modules reach through the cursor."""

    def query(self, cursor: Cursor) -> Query: ...

    def operand(self, cursor: Cursor, least: int) -> exp.Expression: ...


class Cursor:
    """A place in the tokens of one statement, with the grammar that reads on from there."""

    def __init__(self, text: Text, tokens: Sequence[Token], grammar: Grammar | None) -> None:
        self.text = text
        self._grammar = grammar
        stop = tokens[-1].stop if tokens else 0
        end = text.position(max(0, stop - 1))
        after = Token(Kind.END, "", "", stop, stop, end.line, end.column + 1, 1)
        self._tokens = [*tokens, after]
        self._last = len(self._tokens) - 1
        self.index = 0
        self.here = self._tokens[0]
        self._depth = 0

    def query(self) -> Query:
        """The query at this place."""
        assert self._grammar is not None
        return self._grammar.query(self)

    def expression(self) -> exp.Expression:
        """The expression at this place."""
        return self.operand(OR)

    def operand(self, least: int) -> exp.Expression:
        """An expression of operators that bind at least as tightly as `least`."""
        assert self._grammar is not None
        return self._grammar.operand(self, least)

    # Looking

    def ahead(self, count: int = 1) -> Token:
        return self._tokens[min(self.index + count, self._last)]

    def first(self) -> Token:
        return self._tokens[0]

    def previous(self) -> Token:
        return self._tokens[max(0, self.index - 1)]

    def at(self, *words: str) -> bool:
        """True where the next tokens are these words or symbols (upper case)."""
        index, tokens, last = self.index, self._tokens, self._last
        for word in words:
            if index > last or tokens[index].word != word:
                return False
            index += 1
        return True

    def at_any(self, words: frozenset[str] | tuple[str, ...]) -> bool:
        return self.here.word in words and bool(self.here.word)

    def at_end(self) -> bool:
        return self.here.kind is Kind.END

    def at_query(self) -> bool:
        """True where a query begins, opening parentheses aside."""
        index = self.index
        while self._tokens[index].word == "(":
            index += 1
        return self._tokens[index].word in ("SELECT", "WITH", "VALUES")

    def at_name(self) -> bool:
        token = self.here
        return token.kind is Kind.QUOTED or (token.kind is Kind.WORD and token.word not in RESERVED)

    # Taking

    def advance(self, count: int = 1) -> Token:
        """Moves on; gives the last token passed."""
        self.index = min(self.index + count, self._last)
        self.here = self._tokens[self.index]
        return self._tokens[self.index - 1]

    def rewind(self, index: int) -> None:
        self.index = index
        self.here = self._tokens[index]

    def take(self, *words: str) -> bool:
        """Moves behind these words if they are next."""
        if not self.at(*words):
            return False
        self.advance(len(words))
        return True

    def take_any(self, words: frozenset[str] | tuple[str, ...]) -> str | None:
        if not self.at_any(words):
            return None
        return self.advance().word

    def expect(self, *words: str) -> Token:
        """Moves behind these words. Raises Invalid MR1010 where something else stands."""
        for word in words:
            if self.here.word != word:
                self.unexpected(word)
            self.advance()
        return self.previous()

    def expect_any(self, words: tuple[str, ...]) -> str:
        found = self.take_any(words)
        if found is None:
            self.unexpected(*words)
        return found

    def string(self, what: str) -> str:
        if self.here.kind is not Kind.STRING:
            self.unexpected(f"{what} in quotes")
        return self.advance().text

    def whole_number(self, what: str) -> int:
        token = self.here
        if token.kind is not Kind.NUMBER or not token.text.isdecimal() or len(token.text) > 18:
            self.unexpected(f"{what} (a whole number)")
        return int(self.advance().text)

    def identifier(self, what: str = "a name") -> exp.Identifier:
        """A name, as a node. Reserved words must be quoted."""
        token = self.here
        if not self.at_name():
            if token.kind is Kind.WORD:
                hint = f'to use it as a name write "{token.text}"'
                if self.previous().word == "," and self.index:
                    hint = "take out the comma before it"
                self.fail(f"expected {what}, found the reserved word {token.word}", "MR1011", hint=hint)
            self.unexpected(what)
        return self.label(what)

    def label(self, what: str = "a name") -> exp.Identifier:
        """A name after AS or a dot, where reserved words are clear enough."""
        token = self.here
        if token.kind not in (Kind.QUOTED, Kind.WORD):
            self.unexpected(what)
        if not token.text:
            self.fail("a name can not be empty", "MR1009")
        self.advance()
        return self.placed(exp.Identifier(this=token.text, quoted=token.kind is Kind.QUOTED), token)

    def name(self, what: str = "a name") -> Name:
        """A dotted name, as a value."""
        first = self.here
        parts = [self.identifier(what).name]
        while self.at(".") and self.ahead().kind in (Kind.QUOTED, Kind.WORD):
            self.advance()
            parts.append(self.label(what).name)
        return Name(tuple(parts), first.position, first.kind is Kind.QUOTED)

    def commas(self, item: Callable[[], T]) -> list[T]:
        """One or more items with commas between."""
        items = [item()]
        while self.take(","):
            items.append(item())
        return items

    def wrapped(self, item: Callable[[], T]) -> list[T]:
        """One or more items with commas between and parentheses around."""
        self.expect("(")
        items = self.commas(item)
        self.expect(")")
        return items

    def placed(self, node: N, token: Token) -> N:
        """`node`, noted to begin at `token`."""
        set_position(node, token.position)
        return node

    # Nesting

    def enter(self) -> None:
        """Called on each level of nesting, with `leave` at its end. Raises Invalid MR1012 beyond NESTING_MAX."""
        self._depth += 1
        if self._depth > NESTING_MAX:
            self.fail(
                f"more than {NESTING_MAX} levels of nesting",
                "MR1012",
                hint="split the query: name parts of it with WITH or CREATE VIEW",
            )

    def leave(self) -> None:
        self._depth -= 1

    # Complaining

    def error(
        self, message: str, code: str, hint: str | None = None, at: Position | Token | None = None
    ) -> MillraceError:
        """An Invalid (Unsupported for MR19xx) about this place or `at`."""
        place = self.here.position if at is None else at.position if isinstance(at, Token) else at
        kind = Unsupported if code.startswith("MR19") else Invalid
        return kind(message, code=code, hint=hint, position=place, source_text=self.text.original)

    def fail(
        self, message: str, code: str, hint: str | None = None, at: Position | Token | None = None
    ) -> NoReturn:
        raise self.error(message, code, hint, at)

    def unexpected(self, *wanted: str) -> NoReturn:
        """Raises Invalid MR1010: none of `wanted` is here."""
        words = [word if " " in word or word.islower() else f"'{word}'" for word in wanted]
        listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
        self.fail(f"expected {listed}, found {self.here.shown()}", "MR1010", hint=self._misspelling(*wanted))

    def leftover(self, *possible: str) -> NoReturn:
        """Raises MR19xx for a known clause that is not supported, else Invalid MR1013: what is here belongs nowhere."""
        token = self.here
        refused = _REFUSED.get(token.word)
        if refused is not None:
            self.fail(f"{refused[0]} is not supported", refused[1], hint=refused[2])
        hint = None
        # A misspelt clause may have passed as an alias, so that the token behind it is the one that fits nowhere.
        close = _close(token, possible) or (_close(self.previous(), possible) if self.index else None)
        if close:
            hint = f"did you mean {close}?"
        elif token.word in _STARTS:
            hint = "end the statement before it with ';'"
        self.fail(f"did not expect {token.shown()} here", "MR1013", hint=hint)

    def _misspelling(self, *wanted: str) -> str | None:
        if self.here.kind is not Kind.WORD:
            return None
        for token in (self.here, self.previous()):
            if token.kind is Kind.WORD and token.word not in wanted and token.word not in RESERVED:
                close = _close(token, wanted or _WORDS)
                if close:
                    return f"did you mean {close}?"
        return None


def _close(token: Token, possible: Sequence[str]) -> str | None:
    if token.kind is not Kind.WORD or token.word in possible or token.word in RESERVED:
        return None
    return next(
        iter(difflib.get_close_matches(token.word, possible, 1, 0.5 if len(token.word) == 2 else 0.7)), None
    )


_STARTS = words("SELECT INSERT CREATE DROP ALTER UPDATE DELETE SHOW DESCRIBE EXPLAIN SET WITH")
_WORDS = (*sorted(RESERVED), *sorted(CLAUSES))
_REFUSED = {
    "LATERAL": ("LATERAL VIEW", "MR1963", "use CROSS JOIN UNNEST(…)"),
    "PIVOT": ("PIVOT", "MR1964", "use aggregates with FILTER (WHERE …)"),
    "UNPIVOT": ("UNPIVOT", "MR1964", "use UNION ALL, or CROSS JOIN UNNEST(ARRAY[…])"),
    "TABLESAMPLE": ("TABLESAMPLE", "MR1965", "use WHERE rand() < …"),
    "PREWHERE": ("PREWHERE", "MR1966", "use WHERE"),
    "CONNECT": ("CONNECT BY", "MR1967", None),
    "START": ("START WITH", "MR1967", None),
    "CLUSTER": ("CLUSTER BY", "MR1968", "use ORDER BY with LIMIT"),
    "DISTRIBUTE": ("DISTRIBUTE BY", "MR1968", "rows are distributed by the plan"),
    "SORT": ("SORT BY", "MR1968", "use ORDER BY with LIMIT"),
    "RETURNING": ("RETURNING", "MR1969", None),
    "FOR": ("FOR UPDATE", "MR1970", "reads take no locks"),
    "COLLATE": ("COLLATE", "MR1971", "compare lower(…) or upper(…)"),
    "NATURAL": ("NATURAL JOIN", "MR1972", "name the columns with USING (…)"),
    "TOP": ("TOP", "MR1973", "use ORDER BY … LIMIT"),
}
