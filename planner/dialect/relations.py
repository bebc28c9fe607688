"""What stands in FROM: tables, subqueries, functions, inline sources, and the joins between them."""

from __future__ import annotations

from sqlglot import exp

from millrace.planner.dialect.calls import read_call
from millrace.planner.dialect.cursor import CLAUSES, RANGE, RESERVED, Cursor
from millrace.planner.dialect.durations import at_duration, read_duration
from millrace.planner.dialect.nodes import (
    AsofMatch,
    Call,
    InlineSource,
    SystemTime,
    TableCall,
    Within,
)
from millrace.planner.dialect.options import read_options
from millrace.planner.dialect.probes import read_probe
from millrace.planner.dialect.row_patterns import read_match_recognize
from millrace.planner.dialect.tokens import Kind
from millrace.planner.dialect.windows import at_window_table, read_table_name, read_window_table

_JOIN_WORDS = ("ASOF", "INNER", "LEFT", "RIGHT", "FULL", "CROSS", "SEMI", "ANTI", "JOIN", "OUTER")
_NO_ALIAS = RESERVED | CLAUSES


def read_from(cursor: Cursor) -> tuple[exp.From, list[exp.Join]]:
    """What follows FROM, which has been taken."""
    token = cursor.previous()
    first = read_relation(cursor)
    joins: list[exp.Join] = []
    while True:
        if cursor.take(","):
            at = cursor.previous()
            joins.append(cursor.placed(exp.Join(this=read_relation(cursor), kind="CROSS"), at))
        elif _at_join(cursor):
            joins.append(_read_join(cursor))
        else:
            return cursor.placed(exp.From(this=first), token), joins


def _at_join(cursor: Cursor) -> bool:
    word = cursor.here.word
    if word == "NATURAL" and cursor.ahead().word in _JOIN_WORDS:
        return True
    if word == "TEMPORAL" and cursor.ahead().word in (*_JOIN_WORDS, "PROBE"):
        return True
    if word == "CROSS" and cursor.ahead().word == "APPLY":
        cursor.fail("CROSS APPLY is not supported", "MR1987", hint="use CROSS JOIN UNNEST(…)")
    return word in _JOIN_WORDS


def _read_join(cursor: Cursor) -> exp.Join:
    token = cursor.here
    if cursor.take("TEMPORAL"):
        cursor.expect("PROBE")
        cursor.expect("JOIN")
        probing = exp.Join(this=read_relation(cursor), side="LEFT")
        read_probe(cursor, probing)
        alias = read_table_alias(cursor)
        if alias is not None:
            probing.args["probe"].set("alias", alias)
        return cursor.placed(probing, token)
    natural = bool(cursor.take("NATURAL"))
    said: list[str] = []
    while not cursor.at("JOIN"):
        said.append(cursor.expect_any(_JOIN_WORDS))
    cursor.advance()
    method = "ASOF" if "ASOF" in said else None
    sides = [word for word in said if word in ("LEFT", "RIGHT", "FULL")]
    kinds = [word for word in said if word in ("INNER", "CROSS", "SEMI", "ANTI")]
    if (
        len(sides) > 1
        or len(kinds) > 1
        or len(set(said)) != len(said)
        or ("OUTER" in said and not sides)
        or (sides and kinds and kinds[0] in ("INNER", "CROSS"))
        or (kinds and sides and sides[0] != "LEFT")
        or (method and ((kinds and kinds[0] != "INNER") or "RIGHT" in said or "FULL" in said))
    ):
        cursor.fail(f"{' '.join(said)} JOIN can not be", "MR1044", at=token)
    node = exp.Join(this=read_relation(cursor), method=method)
    if natural:
        if method or "CROSS" in said:
            cursor.fail(f"NATURAL {' '.join(said)} JOIN can not be", "MR1044", at=token)
        node.set("natural", True)
    node.set("side", sides[0] if sides and not kinds else None)
    node.set("kind", kinds[0] if kinds else None)
    if cursor.at("MATCH_CONDITION"):
        _match_condition(cursor, node)
    if cursor.at("WITHIN"):
        node.set("within", _within(cursor))
    _condition(cursor, node)
    if cursor.at("MATCH_CONDITION"):
        _match_condition(cursor, node)
    if cursor.at("WITHIN"):
        if node.args.get("within"):
            cursor.fail("WITHIN is said twice", "MR1017")
        node.set("within", _within(cursor))
    if method and not node.args.get("asof"):
        node.set("asof", AsofMatch())
    return cursor.placed(node, token)


def _condition(cursor: Cursor, node: exp.Join) -> None:
    at = cursor.here
    if cursor.take("ON"):
        node.set("on", cursor.expression())
    elif cursor.take("USING"):
        node.set("using", cursor.wrapped(lambda: cursor.identifier("a column")))
    free = node.args.get("kind") == "CROSS" or isinstance(node.this, (exp.Unnest, TableCall))
    conditioned = bool(node.args.get("on") or node.args.get("using"))
    if node.args.get("kind") == "CROSS" and conditioned:
        cursor.fail("a CROSS JOIN takes no condition", "MR1044", hint="write JOIN … ON", at=at)
    if node.args.get("natural") and conditioned:
        cursor.fail("a NATURAL JOIN takes no condition", "MR1044", at=at)
    if not conditioned and not free and not node.args.get("asof") and not node.args.get("natural"):
        if cursor.here.kind is Kind.WORD and not cursor.at_any(RESERVED | CLAUSES):
            cursor.unexpected("ON", "USING")
        cursor.fail(
            "a JOIN needs ON or USING", "MR1044", hint="for all pairs write CROSS JOIN", at=cursor.here
        )


def _match_condition(cursor: Cursor, node: exp.Join) -> None:
    token = cursor.expect("MATCH_CONDITION")
    if node.args.get("method") != "ASOF":
        cursor.fail("MATCH_CONDITION belongs to an ASOF JOIN", "MR1044", hint="write ASOF JOIN", at=token)
    if node.args.get("asof"):
        cursor.fail("MATCH_CONDITION is said twice", "MR1017", at=token)
    cursor.expect("(")
    condition = cursor.expression()
    cursor.expect(")")
    calls = condition.find_all(Call)
    nearest = any(call.args["this"] == "nearest" for call in calls)
    node.set("asof", cursor.placed(AsofMatch(this=condition, nearest=nearest or None), token))


def _within(cursor: Cursor) -> Within:
    token = cursor.expect("WITHIN")
    if cursor.at("(") and at_duration_behind(cursor):
        cursor.advance()
        before = read_duration(cursor, "the time before", 0)
        cursor.expect(",")
        after = read_duration(cursor, "the time after", 0)
        cursor.expect(")")
    else:
        before = after = read_duration(cursor, "the time of WITHIN", 0)
    return cursor.placed(Within(before=before, after=after), token)


def at_duration_behind(cursor: Cursor) -> bool:
    """True where a duration stands behind the token here."""
    index = cursor.index
    cursor.advance()
    found = at_duration(cursor)
    cursor.rewind(index)
    return found


def read_relation(cursor: Cursor) -> exp.Expression:
    """One relation with its alias. Raises Invalid MR1010 where none stands."""
    cursor.enter()
    token = cursor.here
    lateral = cursor.at("LATERAL")
    if lateral:
        if cursor.ahead().word == "VIEW":
            cursor.leftover()
        cursor.advance()
    node = _unaliased(cursor, lateral)
    if isinstance(node, exp.Table):
        _system_time(cursor, node)
    if cursor.at("MATCH_RECOGNIZE"):
        node = read_match_recognize(cursor, node)
    alias = read_table_alias(cursor)
    if alias is not None:
        node.set("alias", alias)
    if isinstance(node, exp.Table):
        _system_time(cursor, node)
    if cursor.at("MATCH_RECOGNIZE"):
        node = read_match_recognize(cursor, node)
        outer = read_table_alias(cursor)
        if outer is not None:
            node.set("alias", outer)
    if isinstance(node, (exp.Unnest, TableCall)) and cursor.at("WITH", "ORDINALITY"):
        cursor.fail("WITH ORDINALITY stands before the alias", "MR1019")
    if cursor.at_any(("PIVOT", "UNPIVOT", "TABLESAMPLE")):
        cursor.leftover()
    cursor.leave()
    return cursor.placed(node, token)


def _unaliased(cursor: Cursor, lateral: bool) -> exp.Expression:
    token = cursor.here
    if cursor.at("("):
        return _parenthesised(cursor, lateral)
    if cursor.at("UNNEST", "("):
        cursor.advance()
        node = exp.Unnest(expressions=cursor.wrapped(cursor.expression))
        if cursor.take("WITH", "ORDINALITY"):
            node.set("offset", True)
        return node
    if token.kind is Kind.STRING:
        return _inline(cursor)
    if cursor.at("TABLE", "("):
        cursor.advance(2)
        inner: exp.Expression = (
            read_window_table(cursor) if at_window_table(cursor) else _table_call(cursor, lateral)
        )
        cursor.expect(")")
        if isinstance(inner, TableCall) and cursor.take("WITH", "ORDINALITY"):
            inner.set("ordinality", True)
        return inner
    if at_window_table(cursor):
        return read_window_table(cursor)
    if cursor.at_name() and cursor.ahead().word == "(":
        return _table_call(cursor, lateral)
    if lateral:
        cursor.unexpected("TABLE(…)", "UNNEST(…)")
    if not cursor.at_name():
        cursor.identifier("a table")
    return read_table_name(cursor)


def _parenthesised(cursor: Cursor, lateral: bool) -> exp.Expression:
    if not cursor.at_query():
        cursor.fail(
            "parentheses around joins are not supported",
            "MR1984",
            hint="write the joins in order, or a subquery: (SELECT …) AS t",
        )
    cursor.advance()
    query = cursor.query()
    cursor.expect(")")
    if isinstance(query, exp.Select) and query.meta.get("values"):
        values = query.args["from_"].this
        values.set("alias", None)
        return values
    node = exp.Subquery(this=query)
    if lateral:
        node.set("lateral", True)
    return node


def _inline(cursor: Cursor) -> InlineSource:
    token = cursor.here
    uri = cursor.advance().text
    scheme, separator, rest = uri.partition("://")
    if not separator or not scheme.replace("+", "").isalnum() or not rest:
        cursor.fail(
            f"'{uri}' is no source",
            "MR1048",
            hint="write a URI such as 'file://./data.csv' or 'kafka://host:9092/topic', or a table's name without quotes",
            at=token,
        )
    node = InlineSource(uri=uri)
    if cursor.at("WITH", "(") or cursor.at("("):
        cursor.take("WITH")
        pairs = [
            exp.Tuple(expressions=[exp.Literal.string(option.name), exp.Literal.string(option.value)])
            for option in read_options(cursor)
        ]
        node.set("options", pairs)
    return node


def _table_call(cursor: Cursor, lateral: bool) -> TableCall:
    token = cursor.here
    call = read_call(cursor)
    if not isinstance(call, Call):
        cursor.fail(f"{token.text} can not stand in FROM", "MR1044", at=token)
    node = TableCall(this=call, lateral=lateral or None)
    if cursor.take("WITH", "ORDINALITY"):
        node.set("ordinality", True)
    return node


def _system_time(cursor: Cursor, node: exp.Table) -> None:
    if not cursor.at("FOR") or cursor.ahead().word not in ("SYSTEM_TIME", "SYSTEM", "PROCTIME"):
        return
    token = cursor.advance()
    if node.args.get("version"):
        cursor.fail("FOR SYSTEM_TIME is said twice", "MR1017", at=token)
    if cursor.take("PROCTIME"):
        cursor.expect("(")
        cursor.expect(")")
    elif not cursor.take("SYSTEM_TIME"):
        cursor.expect("SYSTEM", "TIME")
    if not cursor.at("AS", "OF"):
        cursor.fail("only FOR SYSTEM_TIME AS OF is supported", "MR1988", hint="name one time")
    cursor.advance(2)
    node.set("version", cursor.placed(SystemTime(this=cursor.operand(RANGE)), token))


def read_table_alias(cursor: Cursor) -> exp.TableAlias | None:
    """`[AS] name [(columns)]`, or None."""
    token = cursor.here
    if cursor.take("AS"):
        if cursor.here.kind is Kind.WORD and cursor.here.word in RESERVED:
            cursor.identifier("an alias")
        this = cursor.label("an alias")
    elif cursor.at("TEMPORAL", "PROBE"):
        return None
    elif token.kind is Kind.QUOTED or (token.kind is Kind.WORD and token.word not in _NO_ALIAS):
        this = cursor.label()
    else:
        return None
    alias = exp.TableAlias(this=this)
    if cursor.at("("):
        alias.set("columns", cursor.wrapped(lambda: cursor.identifier("a column")))
    return cursor.placed(alias, token)
