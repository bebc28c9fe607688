"""Function calls in all their syntaxes, and OVER behind them. All of them become `Call`."""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from millrace.planner.dialect.cursor import OTHER, RESERVED, Cursor, words
from millrace.planner.dialect.durations import read_duration, unit_named
from millrace.planner.dialect.nodes import Call, NamedArgument, RowsWindow, TypeName
from millrace.planner.dialect.tokens import Kind, Token
from millrace.planner.dialect.types import read_type

CONSTANTS = frozenset(("CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_TIME", "LOCALTIMESTAMP", "LOCALTIME"))
"""Functions that are called without parentheses."""

_RESERVED_FUNCTIONS = ("LEFT", "RIGHT")
_UNIT_FIRST = ("TIMESTAMPADD", "TIMESTAMPDIFF", "DATEDIFF", "DATE_DIFF", "DATEADD")
_UNITS = words(
    """MICROSECOND MILLISECOND SECOND MINUTE HOUR DAY WEEK MONTH QUARTER YEAR DECADE CENTURY MILLENNIUM EPOCH DOW DOY
    ISODOW ISOYEAR JULIAN NANOSECOND TIMEZONE TIMEZONE_HOUR TIMEZONE_MINUTE MICROSECONDS MILLISECONDS"""
)


def at_call(cursor: Cursor) -> bool:
    """True where a name with a parenthesis behind it stands."""
    token = cursor.here
    if cursor.ahead().word != "(":
        return False
    return token.kind is Kind.QUOTED or token.word not in RESERVED or token.word in _RESERVED_FUNCTIONS


def read_constant(cursor: Cursor) -> exp.Expression:
    token = cursor.advance()
    return cursor.placed(Call(this=token.word.lower(), expressions=[]), token)


def read_call(cursor: Cursor) -> exp.Expression:
    """The call at this place with FILTER, WITHIN GROUP, IGNORE NULLS and OVER."""
    token = cursor.advance()
    cursor.expect("(")
    special = _SPECIAL.get(token.word)
    call = special(cursor, token) if special is not None else None
    if call is None:
        call = _plain(cursor, token)
    cursor.placed(call, token)
    if token.word == "JSON_VALUE" and cursor.take("RETURNING"):
        at = cursor.here
        to = cursor.placed(TypeName(this=read_type(cursor).text), at)
        cursor.expect(")")
        return cursor.placed(exp.Cast(this=call, to=to), token)
    cursor.expect(")")
    _modified(cursor, call)
    return read_over(cursor, call) if cursor.at("OVER") else call


def _plain(cursor: Cursor, token: Token) -> Call:
    call = Call(this=token.text.lower(), expressions=[])
    if cursor.at(")"):
        return call
    if cursor.at("*"):
        star = cursor.advance()
        call.set("expressions", [cursor.placed(exp.Star(), star)])
        return call
    if cursor.take("DISTINCT"):
        call.set("distinct", True)
    elif cursor.at("ALL") and cursor.ahead().word not in (",", ")"):
        cursor.advance()
    arguments: list[exp.Expression] = []
    if token.word in _UNIT_FIRST and cursor.here.word in _UNITS and cursor.ahead().word == ",":
        arguments.append(_unit(cursor))
        cursor.expect(",")
    arguments += cursor.commas(lambda: _argument(cursor))
    call.set("expressions", arguments)
    _nulls(cursor, call)
    if cursor.take("ORDER", "BY"):
        call.set("order", cursor.commas(lambda: read_ordered(cursor)))
    _nulls(cursor, call)
    return call


def _argument(cursor: Cursor) -> exp.Expression:
    token, after = cursor.here, cursor.ahead()
    if after.word == "=>" and cursor.at_name():
        cursor.advance(2)
        value = cursor.expression()
        return cursor.placed(NamedArgument(this=token.text.lower(), expression=value), token)
    if after.word == "." and cursor.ahead(2).word == "*" and cursor.at_name():
        table = cursor.identifier()
        cursor.advance(2)
        return cursor.placed(exp.Column(this=exp.Star(), table=table), token)
    # `x -> 'a'` takes a member of JSON; any other `x -> …` is a function of x.
    if after.word == "->" and cursor.at_name() and cursor.ahead(2).kind not in (Kind.STRING, Kind.NUMBER):
        names = [cursor.identifier()]
    elif token.word == "(" and (count := _lambda_names(cursor)):
        cursor.advance()
        names = cursor.commas(cursor.identifier)
        assert len(names) == count
        cursor.expect(")")
    else:
        if cursor.at_any(("SELECT", "WITH")):
            cursor.fail(
                "a query as an argument needs its own parentheses", "MR1016", hint="write f((SELECT …))"
            )
        return cursor.expression()
    cursor.expect("->")
    return cursor.placed(exp.Lambda(this=cursor.expression(), expressions=names), token)


def _lambda_names(cursor: Cursor) -> int:
    """How many names stand in `(a, b) ->` here; 0 where it is something else."""
    count, at = 0, 1
    while cursor.ahead(at).kind in (Kind.WORD, Kind.QUOTED) and cursor.ahead(at).word not in RESERVED:
        count += 1
        if cursor.ahead(at + 1).word == ")":
            return count if cursor.ahead(at + 2).word == "->" else 0
        if cursor.ahead(at + 1).word != ",":
            return 0
        at += 2
    return 0


def _nulls(cursor: Cursor, call: Call) -> None:
    if cursor.at_any(("IGNORE", "RESPECT")) and cursor.ahead().word == "NULLS":
        if call.args.get("nulls"):
            cursor.fail("NULLS is treated twice", "MR1017")
        call.set("nulls", cursor.here.word.lower())
        cursor.advance(2)


def _modified(cursor: Cursor, call: Call) -> None:
    """Takes what may stand between a call and OVER."""
    while True:
        token = cursor.here
        if cursor.at("WITHIN", "GROUP"):
            cursor.advance(2)
            if call.args.get("order"):
                cursor.fail("the call has an ORDER BY already", "MR1017", at=token)
            cursor.expect("(")
            cursor.expect("ORDER", "BY")
            call.set("order", cursor.commas(lambda: read_ordered(cursor)))
            call.set("within_group", True)
            cursor.expect(")")
        elif cursor.at("FILTER", "("):
            cursor.advance(2)
            if call.args.get("filter"):
                cursor.fail("the call has a FILTER already", "MR1017", at=token)
            cursor.expect("WHERE")
            call.set("filter", cursor.expression())
            cursor.expect(")")
        elif cursor.at_any(("IGNORE", "RESPECT")) and cursor.ahead().word == "NULLS":
            _nulls(cursor, call)
        else:
            return


def read_ordered(cursor: Cursor) -> exp.Ordered:
    """One key of an ORDER BY; `desc` and `nulls_first` are None where nothing was said."""
    this = cursor.expression()
    said = cursor.take_any(("ASC", "DESC"))
    first: bool | None = None
    if cursor.take("NULLS"):
        first = cursor.expect_any(("FIRST", "LAST")) == "FIRST"
    return exp.Ordered(this=this, desc=said == "DESC" if said else None, nulls_first=first)


# Calls whose arguments are not just expressions. Each reader returns None to say that this one is plain after all.


def _text(cursor: Cursor, token: Token, text: str) -> exp.Expression:
    return cursor.placed(exp.Literal.string(text), token)


def _call(name: str, *arguments: exp.Expression) -> Call:
    return Call(this=name, expressions=list(arguments))


def _unit(cursor: Cursor) -> exp.Expression:
    """A unit of time as a string: in full if it is one of ours, else as written."""
    token = cursor.here
    if token.kind not in (Kind.WORD, Kind.STRING):
        cursor.unexpected("a unit of time")
    cursor.advance()
    named = token.text.upper()
    if named not in _UNITS:
        full = unit_named(named)
        if full is None:
            cursor.fail(
                f"'{token.text}' is no unit of time",
                "MR1018",
                hint="units are YEAR, MONTH, DAY, HOUR, …",
                at=token,
            )
        named = full
    return _text(cursor, token, named.lower())


def _extract(cursor: Cursor, token: Token) -> Call | None:
    unit = _unit(cursor)
    cursor.expect("FROM")
    return _call("date_part", unit, cursor.expression())


def _position(cursor: Cursor, token: Token) -> Call | None:
    needle = cursor.operand(OTHER)
    if cursor.take("IN"):
        return _call("strpos", cursor.expression(), needle)
    cursor.expect(",")
    return _call("position", needle, *cursor.commas(cursor.expression))


def _substring(cursor: Cursor, token: Token) -> Call | None:
    this = cursor.expression()
    if cursor.take("FROM"):
        start = cursor.expression()
        return _call("substring", this, start, *([cursor.expression()] if cursor.take("FOR") else []))
    if cursor.take("FOR"):
        return _call("substring", this, exp.Literal.number(1), cursor.expression())
    cursor.expect(",")
    return _call("substring", this, *cursor.commas(cursor.expression))


def _trim(cursor: Cursor, token: Token) -> Call | None:
    side = cursor.take_any(("LEADING", "TRAILING", "BOTH"))
    name = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(side or "", "btrim")
    if side is not None and cursor.take("FROM"):
        return _call(name, cursor.expression())
    first = cursor.expression()
    if cursor.take("FROM"):
        return _call(name, cursor.expression(), first)
    if cursor.take(","):
        return _call(name, first, cursor.expression())
    return _call(name, first)


def _overlay(cursor: Cursor, token: Token) -> Call | None:
    this = cursor.expression()
    if cursor.take(","):
        return _call("overlay", this, *cursor.commas(cursor.expression))
    cursor.expect("PLACING")
    new = cursor.expression()
    cursor.expect("FROM")
    arguments = [this, new, cursor.expression()]
    if cursor.take("FOR"):
        arguments.append(cursor.expression())
    return _call("overlay", *arguments)


def _rounded(cursor: Cursor, token: Token) -> Call | None:
    this = cursor.expression()
    if cursor.take("TO"):
        return _call("date_trunc" if token.word == "FLOOR" else "date_ceil", _unit(cursor), this)
    rest = cursor.commas(cursor.expression) if cursor.take(",") else []
    return _call(token.text.lower(), this, *rest)


_SPECIAL: dict[str, Callable[[Cursor, Token], Call | None]] = {
    "EXTRACT": _extract,
    "POSITION": _position,
    "SUBSTRING": _substring,
    "TRIM": _trim,
    "OVERLAY": _overlay,
    "FLOOR": _rounded,
    "CEIL": _rounded,
    "CEILING": _rounded,
}


# OVER


def read_over(cursor: Cursor, call: exp.Expression) -> exp.Expression:
    """`call OVER name` (filled in later) or `call OVER (…)`."""
    token = cursor.expect("OVER")
    if not cursor.at("("):
        return cursor.placed(
            exp.Window(this=call, alias=cursor.identifier("( or the name of a window")), token
        )
    cursor.advance()
    node = _rows_window(cursor, call) if cursor.at("ROWS", "WINDOW") else read_window(cursor, call)
    cursor.expect(")")
    return cursor.placed(node, token)


def read_window(cursor: Cursor, call: exp.Expression | None) -> exp.Window:
    """What stands between the parentheses of OVER or of a named window."""
    node = exp.Window(this=call)
    if cursor.at_name() and not cursor.at_any(("PARTITION", "ROWS", "RANGE", "GROUPS")):
        node.set("alias", cursor.identifier())
    if cursor.take("PARTITION", "BY"):
        node.set("partition_by", cursor.commas(cursor.expression))
    if cursor.take("ORDER", "BY"):
        node.set("order", exp.Order(expressions=cursor.commas(lambda: read_ordered(cursor))))
    if cursor.at_any(("ROWS", "RANGE", "GROUPS")):
        node.set("spec", _frame(cursor))
    return node


def _frame(cursor: Cursor) -> exp.WindowSpec:
    token = cursor.advance()
    between = cursor.take("BETWEEN")
    start, start_side = _frame_bound(cursor)
    end: exp.Expression | str = "CURRENT ROW"
    end_side: str | None = None
    if between:
        cursor.expect("AND")
        end, end_side = _frame_bound(cursor)
    if cursor.at("EXCLUDE"):
        cursor.fail("EXCLUDE in a window frame is not supported", "MR1983")
    node = exp.WindowSpec(kind=token.word, start=start, start_side=start_side, end=end, end_side=end_side)
    return cursor.placed(node, token)


def _frame_bound(cursor: Cursor) -> tuple[exp.Expression | str, str | None]:
    if cursor.take("CURRENT", "ROW"):
        return "CURRENT ROW", None
    if cursor.take("UNBOUNDED"):
        return "UNBOUNDED", cursor.expect_any(("PRECEDING", "FOLLOWING"))
    value = cursor.operand(OTHER)
    return value, cursor.expect_any(("PRECEDING", "FOLLOWING"))


def _rows_window(cursor: Cursor, call: exp.Expression) -> RowsWindow:
    cursor.expect("ROWS", "WINDOW")
    cursor.expect("BUFFER")
    token = cursor.here
    rows = cursor.whole_number("the rows of the buffer")
    if not 1 <= rows <= 10_000_000:
        cursor.fail(f"a buffer of {rows} rows: it must be 1 to 10,000,000", "MR1043", at=token)
    cursor.expect_any(("ROWS", "ROW"))
    node = RowsWindow(this=call, rows=rows, emit="every_record")
    done: set[str] = set()
    while not cursor.at(")"):
        clause = cursor.here
        word = cursor.expect_any(("PARTITION", "ORDER", "ROWS", "RANGE", "EMIT", "EXPIRE"))
        if word in done:
            cursor.fail(f"{word} is said twice", "MR1017", at=clause)
        done.add(word)
        if word == "PARTITION":
            cursor.expect("BY")
            node.set("partition_by", cursor.commas(cursor.expression))
        elif word == "ORDER":
            cursor.expect("BY")
            node.set("order", exp.Order(expressions=cursor.commas(lambda: read_ordered(cursor))))
        elif word == "EMIT":
            every = cursor.expect_any(("EVERY", "ON")) == "EVERY"
            cursor.expect(*(("RECORD",) if every else ("BUFFER", "FULL")))
            node.set("emit", "every_record" if every else "buffer_full")
        elif word == "EXPIRE":
            cursor.expect("AFTER")
            if not cursor.take("NEVER"):
                node.set("expire", read_duration(cursor, "the expiry"))
                cursor.take("INACTIVITY")
        else:
            cursor.rewind(cursor.index - 1)
            node.set("spec", _frame(cursor))
    return node
