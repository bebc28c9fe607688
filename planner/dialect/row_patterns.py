"""MATCH_RECOGNIZE: its clauses, and the pattern as a tree. Binds nothing."""

from __future__ import annotations

from sqlglot import exp

from millrace.operators.match_recognize.pattern import (
    Pattern,
    PatternChoice,
    PatternExclusion,
    PatternRepeat,
    PatternSequence,
    PatternVariable,
)
from millrace.planner.dialect.calls import read_call, read_ordered
from millrace.planner.dialect.cursor import Cursor
from millrace.planner.dialect.durations import read_duration
from millrace.planner.dialect.nodes import MatchRecognize, MeasureFrame
from millrace.planner.dialect.tokens import Kind

REPEATS_MAX = 2_000
_QUANTIFIERS = {"*": (0, None), "+": (1, None), "?": (0, 1)}


def at_frame(cursor: Cursor) -> bool:
    """Whether `FINAL f(…)` or `RUNNING f(…)` is next."""
    return (
        cursor.at_any(("FINAL", "RUNNING"))
        and cursor.ahead().kind is Kind.WORD
        and cursor.ahead(2).word == "("
    )


def read_frame(cursor: Cursor) -> MeasureFrame:
    """`FINAL f(…)` or `RUNNING f(…)`."""
    token = cursor.advance()
    return cursor.placed(MeasureFrame(this=read_call(cursor), final=token.word == "FINAL"), token)


def read_match_recognize(cursor: Cursor, this: exp.Expression) -> MatchRecognize:
    """MATCH_RECOGNIZE (…) over the relation before it."""
    token = cursor.advance()
    cursor.expect("(")
    node = MatchRecognize(this=this, rows="one", after="past last row")
    if cursor.take("PARTITION", "BY"):
        node.set("partition_by", cursor.commas(cursor.expression))
    if cursor.take("ORDER", "BY"):
        node.set("order", exp.Order(expressions=cursor.commas(lambda: read_ordered(cursor))))
    if cursor.take("MEASURES"):
        node.set("measures", cursor.commas(lambda: _measure(cursor)))
    if cursor.at_any(("ONE", "ALL")):
        node.set("rows", _rows(cursor))
    if cursor.take("AFTER", "MATCH", "SKIP"):
        _skip(cursor, node)
    if cursor.at_any(("INITIAL", "SEEK")):
        cursor.fail(f"{cursor.here.word} is not supported", "MR1918", hint="leave it out")
    cursor.expect("PATTERN", "(")
    node.set("pattern", _Patterns(cursor).whole())
    if cursor.take("WITHIN"):
        node.set("within", read_duration(cursor, "the time of WITHIN"))
    if cursor.take("SUBSET"):
        node.set("subsets", cursor.commas(lambda: _subset(cursor)))
    cursor.expect("DEFINE")
    node.set("define", cursor.commas(lambda: _definition(cursor)))
    cursor.expect(")")
    return cursor.placed(node, token)


def _measure(cursor: Cursor) -> exp.Alias:
    value = cursor.expression()
    cursor.expect("AS")
    return exp.Alias(this=value, alias=cursor.label())


def _definition(cursor: Cursor) -> exp.Alias:
    label = cursor.identifier("a pattern variable")
    cursor.expect("AS")
    return exp.Alias(this=cursor.expression(), alias=label)


def _subset(cursor: Cursor) -> exp.Alias:
    label = cursor.identifier("a name for a subset")
    cursor.expect("=")
    members = cursor.wrapped(lambda: cursor.identifier("a pattern variable"))
    return exp.Alias(this=exp.Tuple(expressions=members), alias=label)


def _rows(cursor: Cursor) -> str:
    """`one` or `all`. No pattern matches without a row, so that empty matches may be shown or omitted alike."""
    rows = cursor.advance().word
    cursor.expect("ROW" if rows == "ONE" else "ROWS", "PER", "MATCH")
    if rows == "ALL" and cursor.at_any(("SHOW", "OMIT")):
        cursor.advance()
        cursor.expect("EMPTY", "MATCHES")
    if cursor.at("WITH"):
        words = " ".join(cursor.ahead(count).text for count in (0, 1, 2))
        cursor.fail(f"{words} is not supported", "MR1937", hint="matches alone are sent")
    return rows.lower()


def _skip(cursor: Cursor, node: MatchRecognize) -> None:
    if cursor.take("PAST", "LAST", "ROW"):
        return
    cursor.expect("TO")
    if cursor.take("NEXT", "ROW"):
        node.set("after", "to next row")
        return
    side = (cursor.take_any(("FIRST", "LAST")) or "LAST").lower()
    node.set("after", f"to {side}")
    node.set("target", cursor.identifier("a pattern variable"))


class _Patterns:
    """Reads a pattern; a variable is called as it is spelt first."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._spelt: dict[str, str] = {}

    def whole(self) -> Pattern:
        """The pattern behind `PATTERN (`, and the `)`."""
        found = self._choice()
        self._cursor.expect(")")
        return found

    def _choice(self) -> Pattern:
        cursor = self._cursor
        cursor.enter()
        parts = [self._sequence()]
        while cursor.take("|"):
            parts.append(self._sequence())
        cursor.leave()
        return parts[0] if len(parts) == 1 else PatternChoice(tuple(parts))

    def _sequence(self) -> Pattern:
        parts = [self._repeated()]
        cursor = self._cursor
        while not cursor.at_end() and cursor.here.word not in (")", "|", "-", "||"):
            parts.append(self._repeated())
        if cursor.at("||"):
            cursor.unexpected("|")
        return parts[0] if len(parts) == 1 else PatternSequence(tuple(parts))

    def _repeated(self) -> Pattern:
        cursor = self._cursor
        inner = self._primary()
        token = cursor.here
        if token.word in _QUANTIFIERS:
            cursor.advance()
            least, most = _QUANTIFIERS[token.word]
        elif token.word == "{" and cursor.ahead().word != "-":
            cursor.advance()
            least, most = self._numbers()
        else:
            return inner
        if most is not None and (most < max(least, 1)):
            cursor.fail(
                f"a repetition of {least} to {most} times can not be",
                "MR1054",
                hint="write {least,most}",
                at=token,
            )
        if max(least, most or 0) > REPEATS_MAX:
            cursor.fail(f"a pattern repeats {REPEATS_MAX} times at most", "MR1054", at=token)
        return PatternRepeat(inner, least, most, cursor.take("?"))

    def _numbers(self) -> tuple[int, int | None]:
        cursor = self._cursor
        least = 0 if cursor.at(",") else cursor.whole_number("a number of times")
        most: int | None = least
        if cursor.take(","):
            most = None if cursor.at("}") else cursor.whole_number("a number of times")
        cursor.expect("}")
        return least, most

    def _primary(self) -> Pattern:
        cursor = self._cursor
        token = cursor.here
        if cursor.take("("):
            if cursor.at(")"):
                cursor.fail(
                    "the empty pattern () is not supported", "MR1918", hint="write ? behind a part", at=token
                )
            return self.whole()
        if cursor.take("{", "-"):
            inner = self._choice()
            cursor.expect("-", "}")
            return PatternExclusion(inner)
        if cursor.at("PERMUTE", "("):
            cursor.fail("PERMUTE is not supported", "MR1918", hint="write the orders out: (a b | b a)")
        if token.word == "^" or token.text == "$":
            cursor.fail(
                f"{token.text} is not supported in a pattern",
                "MR1918",
                hint="a stream has no last row; name the first row with a condition",
            )
        name = cursor.identifier("a pattern variable").name
        return PatternVariable(self._spelt.setdefault(name.casefold(), name))
