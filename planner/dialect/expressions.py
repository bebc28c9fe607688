"""Expressions: operators by precedence, literals, names, and what follows them. Calls are in `calls`."""

from __future__ import annotations

from collections.abc import Callable

from sqlglot import exp

from millrace.planner.dialect.calls import CONSTANTS, at_call, read_call, read_constant
from millrace.planner.dialect.cursor import (
    AND,
    COMPARISON,
    IS,
    NOT,
    OR,
    OTHER,
    PRODUCT,
    RANGE,
    SUM,
    UNARY,
    ZONE,
    Cursor,
)
from millrace.planner.dialect.durations import at_duration, read_duration, read_interval
from millrace.planner.dialect.nodes import Call, Interval, TypeName
from millrace.planner.dialect.row_patterns import at_frame, read_frame
from millrace.planner.dialect.tokens import Kind
from millrace.planner.dialect.types import read_type

CHAIN_MAX = 150
"""Operators in a row, AND and OR aside: each is a level of the tree, and those who walk it recurse."""

_COMPARISONS: dict[str, type[exp.Expression]] = {
    "=": exp.EQ,
    "==": exp.EQ,
    "<>": exp.NEQ,
    "!=": exp.NEQ,
    "<": exp.LT,
    "<=": exp.LTE,
    ">": exp.GT,
    ">=": exp.GTE,
    "<=>": exp.NullSafeEQ,
}
_PLAIN: dict[str, tuple[int, type[exp.Expression]]] = {
    "OR": (OR, exp.Or),
    "AND": (AND, exp.And),
    "||": (OTHER, exp.DPipe),
    "|": (OTHER, exp.BitwiseOr),
    "&": (OTHER, exp.BitwiseAnd),
    "#": (OTHER, exp.BitwiseXor),
    "+": (SUM, exp.Add),
    "-": (SUM, exp.Sub),
    "*": (PRODUCT, exp.Mul),
    "/": (PRODUCT, exp.Div),
    "%": (PRODUCT, exp.Mod),
}
_MATCHES = ("BETWEEN", "IN", "LIKE", "ILIKE", "SIMILAR", "RLIKE", "REGEXP")
_OPERATOR_CALLS = {"->": "json_get", "->>": "json_get_text"}
_REGULAR = {"~": (False, False), "~*": (False, True), "!~": (True, False), "!~*": (True, True)}
_PREFIXED_LITERALS = ("DATE", "TIME", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMP_LTZ", "JSON")


def read_operand(cursor: Cursor, least: int) -> exp.Expression:
    """An expression of operators that bind at least as tightly as `least`."""
    cursor.enter()
    left = _prefixed(cursor, least)
    count = 0
    while True:
        word = cursor.here.word
        plain = _PLAIN.get(word)
        if plain is not None:
            level, kind = plain
            if level < least:
                break
            if level in (AND, OR):
                left = _connected(cursor, left, word)
            else:
                cursor.advance()
                left = kind(this=left, expression=read_operand(cursor, level + 1))
        elif word in _COMPARISONS:
            if least > COMPARISON:
                break
            left = _comparison(cursor, left)
        else:
            step = _STEPS.get(word)
            if step is None or step[0] < least:
                break
            following = step[1](cursor, left)
            if following is None:
                break
            left = following
        count += 1
        if count > CHAIN_MAX:
            cursor.fail(
                f"more than {CHAIN_MAX} operators in a row", "MR1012", hint="group them with parentheses"
            )
    cursor.leave()
    return left


def _connected(cursor: Cursor, left: exp.Expression, word: str) -> exp.Expression:
    """`left AND b AND c …`. Long chains become balanced trees, so that depth grows with the logarithm only."""
    level, kind = _PLAIN[word]
    operands = [left]
    while cursor.take(word):
        operands.append(read_operand(cursor, level + 1))
    if len(operands) <= 8:
        for operand in operands[1:]:
            left = kind(this=left, expression=operand)
        return left
    while len(operands) > 1:
        pairs = zip(operands[::2], operands[1::2], strict=False)
        rest = operands[-1:] if len(operands) % 2 else []
        operands = [kind(this=one, expression=other) for one, other in pairs] + rest
    return operands[0]


def _prefixed(cursor: Cursor, least: int) -> exp.Expression:
    token = cursor.here
    if token.word == "NOT" and least <= NOT:
        cursor.advance()
        return cursor.placed(exp.Not(this=read_operand(cursor, NOT)), token)
    if token.word in ("-", "+", "~"):
        cursor.advance()
        operand = read_operand(cursor, UNARY)
        if token.word == "+":
            return operand
        node = exp.Neg(this=operand) if token.word == "-" else exp.BitwiseNot(this=operand)
        return cursor.placed(node, token)
    return _suffixed(cursor, read_primary(cursor))


def _comparison(cursor: Cursor, left: exp.Expression) -> exp.Expression:
    kind = _COMPARISONS[cursor.advance().word]
    some = cursor.take_any(("ANY", "ALL", "SOME"))
    if some is None:
        right = read_operand(cursor, RANGE)
    else:
        at = cursor.previous()
        cursor.expect("(")
        inner = exp.Subquery(this=cursor.query()) if cursor.at_query() else cursor.expression()
        cursor.expect(")")
        right = cursor.placed(exp.All(this=inner) if some == "ALL" else exp.Any(this=inner), at)
    if cursor.here.word in _COMPARISONS:
        cursor.fail("comparisons do not chain", "MR1014", hint="write a < b AND b < c, or use parentheses")
    return kind(this=left, expression=right)


def _is(cursor: Cursor, left: exp.Expression) -> exp.Expression:
    cursor.advance()
    negated = cursor.take("NOT")
    if cursor.take("DISTINCT"):
        cursor.expect("FROM")
        right = read_operand(cursor, RANGE)
        return (
            exp.NullSafeEQ(this=left, expression=right)
            if negated
            else exp.NullSafeNEQ(this=left, expression=right)
        )
    word = cursor.expect_any(("NULL", "TRUE", "FALSE", "UNKNOWN"))
    value: exp.Expression = exp.Boolean(this=word == "TRUE") if word in ("TRUE", "FALSE") else exp.Null()
    node = exp.Is(this=left, expression=value)
    return exp.Not(this=node) if negated else node


def _null_test(cursor: Cursor, left: exp.Expression) -> exp.Expression:
    node = exp.Is(this=left, expression=exp.Null())
    return exp.Not(this=node) if cursor.advance().word == "NOTNULL" else node


def _matched(cursor: Cursor, left: exp.Expression) -> exp.Expression | None:
    """BETWEEN, IN, LIKE and their kind, with NOT before them; None where NOT begins something else."""
    if cursor.here.word == "NOT" and cursor.ahead().word not in _MATCHES:
        return None
    negated = cursor.take("NOT")
    word = cursor.advance().word
    node: exp.Expression
    if word == "BETWEEN":
        if cursor.at_any(("SYMMETRIC", "ASYMMETRIC")):
            cursor.fail("BETWEEN SYMMETRIC is not supported", "MR1975", hint="use least(…) and greatest(…)")
        low = read_operand(cursor, OTHER)
        cursor.expect("AND")
        node = exp.Between(this=left, low=low, high=read_operand(cursor, OTHER))
    elif word == "IN":
        node = _in(cursor, left)
    elif word in ("RLIKE", "REGEXP"):
        node = Call(this="regexp_like", expressions=[left, read_operand(cursor, OTHER)])
    else:
        if word == "SIMILAR":
            cursor.expect("TO")
        kinds: dict[str, type[exp.Expression]] = {
            "LIKE": exp.Like,
            "ILIKE": exp.ILike,
            "SIMILAR": exp.SimilarTo,
        }
        node = kinds[word](this=left, expression=read_operand(cursor, OTHER))
        if cursor.take("ESCAPE"):
            token = cursor.here
            node = exp.Escape(
                this=node, expression=cursor.placed(exp.Literal.string(cursor.string("ESCAPE")), token)
            )
    return exp.Not(this=node) if negated else node


def _in(cursor: Cursor, left: exp.Expression) -> exp.Expression:
    if cursor.at("UNNEST"):
        cursor.fail("IN UNNEST(…) is not supported", "MR1978", hint="use = ANY(array)")
    start = cursor.expect("(")
    if cursor.at_query():
        node = exp.In(this=left, query=cursor.placed(exp.Subquery(this=cursor.query()), start))
    else:
        node = exp.In(this=left, expressions=cursor.commas(cursor.expression))
    cursor.expect(")")
    return node


def _operator_call(cursor: Cursor, left: exp.Expression) -> exp.Expression:
    token = cursor.advance()
    call = Call(this=_OPERATOR_CALLS[token.word], expressions=[left, read_operand(cursor, SUM)])
    return cursor.placed(call, token)


def _regular(cursor: Cursor, left: exp.Expression) -> exp.Expression:
    token = cursor.advance()
    negated, folded = _REGULAR[token.word]
    arguments = [left, read_operand(cursor, SUM)]
    if folded:
        arguments.append(exp.Literal.string("i"))
    call = cursor.placed(Call(this="regexp_like", expressions=arguments), token)
    return exp.Not(this=call) if negated else call


def _zone(cursor: Cursor, left: exp.Expression) -> exp.Expression | None:
    if not cursor.take("AT", "TIME", "ZONE"):
        return None
    return exp.AtTimeZone(this=left, zone=read_operand(cursor, UNARY))


def _power(cursor: Cursor, left: exp.Expression) -> exp.Expression:
    cursor.fail(
        "the operator ^ means different things in different systems",
        "MR1974",
        hint="use power(a, b) or a # b",
    )


_STEPS: dict[str, tuple[int, Callable[[Cursor, exp.Expression], exp.Expression | None]]] = {
    "IS": (IS, _is),
    "ISNULL": (IS, _null_test),
    "NOTNULL": (IS, _null_test),
    "NOT": (RANGE, _matched),
    **dict.fromkeys(_MATCHES, (RANGE, _matched)),
    **dict.fromkeys(_OPERATOR_CALLS, (OTHER, _operator_call)),
    **dict.fromkeys(_REGULAR, (OTHER, _regular)),
    "^": (OTHER, _power),
    "AT": (ZONE, _zone),
}


def _suffixed(cursor: Cursor, node: exp.Expression) -> exp.Expression:
    """`node` with the casts, fields and elements behind it."""
    for _ in range(CHAIN_MAX):
        token = cursor.here
        if token.word == "::":
            cursor.advance()
            at = cursor.here
            to = cursor.placed(TypeName(this=read_type(cursor).text), at)
            node = exp.Cast(this=node, to=to)
        elif token.word == ".":
            cursor.advance()
            node = exp.Dot(this=node, expression=cursor.label("a field's name"))
            if cursor.here.word == "(":
                cursor.fail("functions are not called with a dot", "MR1979", hint="write f(x) for x.f()")
        elif token.word == "[":
            cursor.advance()
            element = cursor.expression()
            if cursor.at(":"):
                cursor.fail("slices are not supported", "MR1977", hint="use array_slice(a, from, to)")
            cursor.expect("]")
            node = exp.Bracket(this=node, expressions=[element])
        else:
            return node
    cursor.fail(f"more than {CHAIN_MAX} casts, fields and elements in a row", "MR1012")


def read_primary(cursor: Cursor) -> exp.Expression:
    """A literal, a name, a call, or something in parentheses."""
    token = cursor.here
    match token.kind:
        case Kind.NUMBER:
            return _number(cursor)
        case Kind.STRING | Kind.BODY:
            return cursor.placed(exp.Literal.string(cursor.advance().text), token)
        case Kind.HEX:
            return cursor.placed(exp.HexString(this=cursor.advance().text), token)
        case Kind.QUOTED:
            return read_call(cursor) if at_call(cursor) else read_column(cursor)
        case Kind.SYMBOL:
            return _bracketed(cursor)
        case Kind.WORD:
            return _worded(cursor)
        case Kind.END:
            cursor.unexpected("an expression")


def _number(cursor: Cursor) -> exp.Expression:
    token, after = cursor.here, cursor.ahead()
    if after.kind is Kind.WORD and after.start == token.stop:
        if not at_duration(cursor):
            cursor.fail(f"'{token.text}{after.text}' is neither a number nor a duration", "MR1015")
        return cursor.placed(Interval(us=read_duration(cursor, "a duration", 0) or None), token)
    cursor.advance()
    return cursor.placed(exp.Literal.number(token.text), token)


def _bracketed(cursor: Cursor) -> exp.Expression:
    token = cursor.here
    if cursor.take("("):
        if cursor.at_query():
            node: exp.Expression = exp.Subquery(this=cursor.query())
        else:
            items = cursor.commas(cursor.expression)
            node = exp.Paren(this=items[0]) if len(items) == 1 else exp.Tuple(expressions=items)
        cursor.expect(")")
        return cursor.placed(node, token)
    if cursor.take("["):
        return cursor.placed(_array(cursor), token)
    if cursor.at(".") and cursor.ahead().kind is Kind.NUMBER and cursor.ahead().text.isdecimal():
        cursor.advance()
        return cursor.placed(exp.Literal.number(f"0.{cursor.advance().text}"), token)
    if token.word in ("?", "@", "$", ":"):
        cursor.fail("parameters are not supported", "MR1976", hint="use ${NAME} and set it as a variable")
    if token.word == "{":
        cursor.fail(
            "{…} is not supported", "MR1981", hint="write ROW(…), named_struct('a', 1) or MAP['k', v]"
        )
    cursor.unexpected("an expression")


def _array(cursor: Cursor) -> exp.Expression:
    """The elements behind `[`, which has been taken, and the `]`."""
    items = [] if cursor.at("]") else cursor.commas(cursor.expression)
    cursor.expect("]")
    return exp.Array(expressions=items)


def _map(cursor: Cursor) -> exp.Expression:
    closer = "]" if cursor.advance().word == "[" else "}"
    keys: list[exp.Expression] = []
    values: list[exp.Expression] = []

    def pair() -> None:
        keys.append(cursor.expression())
        cursor.expect("," if closer == "]" else ":")
        values.append(cursor.expression())

    if not cursor.at(closer):
        cursor.commas(pair)
    cursor.expect(closer)
    return exp.Map(keys=exp.Array(expressions=keys), values=exp.Array(expressions=values))


def _worded(cursor: Cursor) -> exp.Expression:
    token, after = cursor.here, cursor.ahead()
    match token.word:
        case "FINAL" | "RUNNING" if at_frame(cursor):
            return read_frame(cursor)
        case "NULL":
            return cursor.placed(exp.Null(), cursor.advance())
        case "TRUE" | "FALSE":
            return cursor.placed(exp.Boolean(this=token.word == "TRUE"), cursor.advance())
        case "CASE":
            return _case(cursor)
        case "CAST" | "TRY_CAST" if after.word == "(":
            return _cast(cursor)
        case "EXISTS" if after.word == "(":
            cursor.advance(2)
            node = exp.Exists(this=cursor.query())
            cursor.expect(")")
            return cursor.placed(node, token)
        case "INTERVAL" if after.kind in (Kind.STRING, Kind.NUMBER) or after.word == "-":
            cursor.advance()
            return read_interval(cursor)
        case "ARRAY" if after.word == "[":
            cursor.advance(2)
            return cursor.placed(_array(cursor), token)
        case "MAP" if after.word in ("[", "{"):
            cursor.advance()
            return cursor.placed(_map(cursor), token)
        case word if word in _PREFIXED_LITERALS and _string_follows(cursor):
            to = cursor.placed(TypeName(this=read_type(cursor).text), token)
            literal = cursor.placed(exp.Literal.string(cursor.here.text), cursor.advance())
            return cursor.placed(exp.Cast(this=literal, to=to), token)
        case word if word in CONSTANTS and after.word not in ("(", "."):
            return read_constant(cursor)
    return read_call(cursor) if at_call(cursor) else read_column(cursor)


def _string_follows(cursor: Cursor) -> bool:
    """True for `DATE '…'` and `TIMESTAMP WITH TIME ZONE '…'`."""
    count = 1
    if cursor.ahead().word in ("WITH", "WITHOUT") and cursor.ahead(2).word == "TIME":
        count = 4
    return cursor.ahead(count).kind is Kind.STRING


def _case(cursor: Cursor) -> exp.Expression:
    token = cursor.advance()
    subject = None if cursor.at("WHEN") else cursor.expression()
    branches = []
    while cursor.take("WHEN"):
        condition = cursor.expression()
        cursor.expect("THEN")
        branches.append(exp.If(this=condition, true=cursor.expression()))
    if not branches:
        cursor.unexpected("WHEN")
    default = cursor.expression() if cursor.take("ELSE") else None
    cursor.expect("END")
    return cursor.placed(exp.Case(this=subject, ifs=branches, default=default), token)


def _cast(cursor: Cursor) -> exp.Expression:
    token = cursor.advance()
    cursor.expect("(")
    value = cursor.expression()
    cursor.expect("AS")
    at = cursor.here
    to = cursor.placed(TypeName(this=read_type(cursor).text), at)
    if cursor.at("FORMAT"):
        cursor.fail(
            "CAST with FORMAT is not supported", "MR1982", hint="use to_timestamp(text, format) or to_char"
        )
    cursor.expect(")")
    kind = exp.Cast if token.word == "CAST" else exp.TryCast
    return cursor.placed(kind(this=value, to=to), token)


def read_column(cursor: Cursor) -> exp.Expression:
    """`a`, `t.a`, `t.a.b`; more parts than four, or fields behind them, are exp.Dot."""
    token = cursor.here
    parts = [cursor.identifier("an expression")]
    while cursor.at(".") and cursor.ahead().kind in (Kind.WORD, Kind.QUOTED) and len(parts) < 4:
        cursor.advance()
        parts.append(cursor.label())
        if cursor.here.word == "(":
            cursor.fail(
                "functions are not called with a dot", "MR1979", hint="write f(x) for x.f()", at=token
            )
    names = dict(zip(("this", "table", "db", "catalog"), reversed(parts), strict=False))
    return cursor.placed(exp.Column(**names), token)
