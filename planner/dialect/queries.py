"""Queries: SELECT with all its clauses, set operations, WITH and emission. `GRAMMAR` is the way in for the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlglot import exp

from millrace.planner.dialect.calls import read_ordered, read_window
from millrace.planner.dialect.cursor import CLAUSES, RESERVED, Cursor
from millrace.planner.dialect.durations import read_duration
from millrace.planner.dialect.expressions import read_operand
from millrace.planner.dialect.nodes import AllowLateness, Emit, LateDataTo
from millrace.planner.dialect.normal_form import Pending, normalise
from millrace.planner.dialect.relations import read_from
from millrace.planner.dialect.tokens import Kind, Token
from millrace.planner.dialect.windows import at_window_clause, read_table_name, read_window_clause
from millrace.planner.statements import Name, Option

if TYPE_CHECKING:
    from millrace.planner.statements import Query

_ORDER = ("FROM", "WHERE", "GROUP", "HAVING", "QUALIFY", "ORDER", "LIMIT", "OFFSET")
_RANK = {word: rank for rank, word in enumerate(_ORDER)} | {"FETCH": 6}
_TAIL = frozenset(("ORDER", "LIMIT", "OFFSET", "FETCH"))
CLAUSE_WORDS = (
    *_ORDER,
    "FETCH",
    "WINDOW",
    "EMIT",
    "ALLOW",
    "LATE",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "INTO",
    "JOIN",
    "WITH",
)
"""Every word that may begin a clause of a query: what a misspelt one is compared with."""


OPERANDS_MAX = 100
"""Queries that set operations put together in one."""


class QueryGrammar:
    """Ties the modules of the grammar together; see `cursor.Grammar`."""

    def query(self, cursor: Cursor) -> Query:
        return read_query(cursor).query

    def operand(self, cursor: Cursor, least: int) -> exp.Expression:
        return read_operand(cursor, least)


GRAMMAR = QueryGrammar()


@dataclass(slots=True)
class Found:
    """A query as read, and the table that `SELECT … INTO` names."""

    query: Query
    into: Name | None = None


@dataclass(slots=True)
class _Selects:
    """The plain selects of one query, to be normalised when its tail is known."""

    pending: list[Pending] = field(default_factory=list)
    into: Name | None = None


def read_query(cursor: Cursor, may_store: bool = False) -> Found:
    """The query here, in normal form. `INTO` is refused (MR1049) unless `may_store`."""
    cursor.enter()
    token = cursor.here
    with_ = _with(cursor) if cursor.at("WITH") else None
    selects = _Selects()
    query = _set_operation(cursor, selects, may_store)
    _tail(cursor, query, selects)
    if selects.into is None and cursor.at("INTO") and may_store:
        selects.into = _into(cursor)
        _tail(cursor, query, selects)
    for pending in selects.pending:
        normalise(cursor, pending)
    if with_ is not None:
        if query.args.get("with_"):
            cursor.fail("WITH is said twice", "MR1017", at=token)
        query.set("with_", with_)
    cursor.leave()
    cursor.placed(query, token)
    return Found(query, selects.into)


def _with(cursor: Cursor) -> exp.With:
    token = cursor.expect("WITH")
    if cursor.at("RECURSIVE") and cursor.ahead().word not in ("AS", "("):
        cursor.fail("WITH RECURSIVE is not supported", "MR1989", hint="a recursion has no end in a stream")
    return cursor.placed(exp.With(expressions=cursor.commas(lambda: _common_table(cursor))), token)


def _common_table(cursor: Cursor) -> exp.CTE:
    token = cursor.here
    alias = exp.TableAlias(this=cursor.identifier("a name"))
    if cursor.at("("):
        alias.set("columns", cursor.wrapped(lambda: cursor.identifier("a column")))
    cursor.expect("AS")
    if not cursor.take("NOT", "MATERIALIZED"):
        cursor.take("MATERIALIZED")
    cursor.expect("(")
    if not cursor.at_query():
        cursor.unexpected("SELECT")
    query = cursor.query()
    cursor.expect(")")
    return cursor.placed(exp.CTE(this=query, alias=alias), token)


# Set operations


def _set_operation(cursor: Cursor, selects: _Selects, may_store: bool) -> Query:
    left = _intersection(cursor, selects, may_store)
    while cursor.at_any(("UNION", "EXCEPT", "MINUS")):
        if len(selects.pending) >= OPERANDS_MAX:
            cursor.fail(
                f"more than {OPERANDS_MAX} queries in one", "MR1012", hint="name parts with CREATE VIEW"
            )
        token = cursor.advance()
        distinct = _distinct(cursor)
        kind = exp.Union if token.word == "UNION" else exp.Except
        right = _intersection(cursor, selects, False)
        left = cursor.placed(kind(this=left, expression=right, distinct=distinct), token)
    return left


def _check_count(cursor: Cursor, selects: _Selects) -> None:
    if len(selects.pending) >= OPERANDS_MAX:
        cursor.fail(f"more than {OPERANDS_MAX} queries in one", "MR1012", hint="name parts with CREATE VIEW")


def _intersection(cursor: Cursor, selects: _Selects, may_store: bool) -> Query:
    left = _select_or_parenthesis(cursor, selects, may_store)
    while cursor.at("INTERSECT"):
        _check_count(cursor, selects)
        token = cursor.advance()
        distinct = _distinct(cursor)
        right = _select_or_parenthesis(cursor, selects, False)
        left = cursor.placed(exp.Intersect(this=left, expression=right, distinct=distinct), token)
    return left


def _distinct(cursor: Cursor) -> bool:
    if cursor.at("BY") or cursor.at("ALL", "BY"):
        cursor.fail(
            "set operations BY NAME are not supported", "MR1990", hint="list the columns in the same order"
        )
    if cursor.take("ALL"):
        return False
    cursor.take("DISTINCT")
    return True


def _select_or_parenthesis(cursor: Cursor, selects: _Selects, may_store: bool) -> Query:
    token = cursor.here
    if cursor.take("("):
        query = read_query(cursor).query
        cursor.expect(")")
        if any(
            query.args.get(key)
            for key in ("order", "limit", "offset", "with_", "emit", "lateness", "late_data")
        ):
            return cursor.placed(exp.Subquery(this=query), token)
        return query
    if cursor.at("VALUES"):
        return _values(cursor)
    if not cursor.at("SELECT"):
        cursor.unexpected("SELECT")
    return _select(cursor, selects, may_store)


def _values(cursor: Cursor) -> exp.Select:
    """`VALUES (…), …` as a query: all columns of the rows. `meta["values"]` says so to FROM, which takes them bare."""
    token = cursor.expect("VALUES")
    rows = cursor.commas(lambda: exp.Tuple(expressions=cursor.wrapped(cursor.expression)))
    width = len(rows[0].expressions)
    for row in rows:
        if len(row.expressions) != width:
            cursor.fail(
                f"the rows of VALUES have {width} and {len(row.expressions)} columns", "MR1050", at=token
            )
    values = cursor.placed(exp.Values(expressions=rows), token)
    values.set("alias", exp.TableAlias(this=exp.Identifier(this="_values", quoted=False)))
    select = exp.Select(expressions=[cursor.placed(exp.Star(), token)], from_=exp.From(this=values))
    select.meta["values"] = True
    return cursor.placed(select, token)


# SELECT


def _select(cursor: Cursor, selects: _Selects, may_store: bool) -> exp.Select:
    token = cursor.expect("SELECT")
    select = cursor.placed(exp.Select(), token)
    if cursor.take("DISTINCT"):
        distinct = exp.Distinct()
        if cursor.take("ON"):
            distinct.set("on", exp.Tuple(expressions=cursor.wrapped(cursor.expression)))
        select.set("distinct", cursor.placed(distinct, cursor.previous()))
    elif cursor.at("ALL") and cursor.ahead().word not in (",", "FROM"):
        cursor.advance()
    if cursor.at("TOP") and cursor.ahead().kind is Kind.NUMBER:
        cursor.leftover()
    pending = Pending(select)
    selects.pending.append(pending)
    items = cursor.commas(lambda: _item(cursor, pending))
    select.set("expressions", items)
    if cursor.at("INTO"):
        if not may_store:
            cursor.fail("SELECT … INTO is not possible here", "MR1049", hint="use INSERT INTO t SELECT …")
        selects.into = _into(cursor)
    if cursor.take("FROM"):
        from_, joins = read_from(cursor)
        select.set("from_", from_)
        select.set("joins", joins or None)
    _clauses(cursor, pending)
    return select


def _into(cursor: Cursor) -> Name:
    cursor.expect("INTO")
    return cursor.name("a table")


def _item(cursor: Cursor, pending: Pending) -> exp.Expression:
    token = cursor.here
    node = _star(cursor)
    if node is not None:
        return node
    keyed = cursor.at("PRIMARY", "KEY") and _begins_value(cursor.ahead(2))
    if keyed:
        cursor.advance(2)
        token = cursor.here
    node = cursor.expression()
    keyed = cursor.take("PRIMARY", "KEY") or keyed
    here = cursor.here
    if cursor.take("AS"):
        alias: exp.Identifier | None = cursor.label("an alias")
    elif here.kind is Kind.QUOTED or (
        here.kind is Kind.WORD and here.word not in RESERVED and _may_alias(cursor)
    ):
        alias = cursor.label()
    else:
        alias = None
    if alias is not None:
        node = cursor.placed(exp.Alias(this=node, alias=alias), token)
    keyed = cursor.take("PRIMARY", "KEY") or keyed
    if keyed:
        if not node.alias_or_name:
            cursor.fail("a PRIMARY KEY column needs a name", "MR1051", hint="give it one with AS", at=token)
        name = exp.Column(this=exp.Identifier(this=node.alias_or_name, quoted=False))
        pending.keys.append(cursor.placed(name, token))
    return node


def _begins_value(token: Token) -> bool:
    """Whether what stands behind PRIMARY KEY is what it speaks of; else `primary key` is a column and its alias."""
    named = token.kind is Kind.WORD and (token.word not in RESERVED or token.word in ("CASE", "CAST"))
    return named or token.kind is Kind.QUOTED


def _may_alias(cursor: Cursor) -> bool:
    """True where a bare word is an alias and begins no clause: an alias is followed by a comma or a clause."""
    word, after = cursor.here.word, cursor.ahead()
    if word not in CLAUSES:
        return True
    return after.word in (",", ")", "FROM") or after.kind is Kind.END


def _star(cursor: Cursor) -> exp.Expression | None:
    """`*` or `t.*` with EXCEPT, REPLACE and RENAME; None where none stands."""
    token = cursor.here
    table: exp.Identifier | None = None
    if cursor.at("*"):
        cursor.advance()
    elif cursor.at_name() and cursor.ahead().word == "." and cursor.ahead(2).word == "*":
        table = cursor.identifier()
        cursor.advance(2)
    else:
        return None
    star = cursor.placed(exp.Star(), token)
    if cursor.at_any(("EXCEPT", "EXCLUDE")) and cursor.ahead().kind in (Kind.WORD, Kind.QUOTED, Kind.SYMBOL):
        if cursor.ahead().word == "(" and cursor.ahead(2).word not in ("SELECT", "WITH", "VALUES", "("):
            cursor.advance()
            star.set("except_", cursor.wrapped(lambda: cursor.identifier("a column")))
        elif cursor.at("EXCLUDE"):
            cursor.advance()
            star.set("except_", [cursor.identifier("a column")])
    if cursor.at("REPLACE", "("):
        cursor.advance()
        star.set("replace", cursor.wrapped(lambda: _renamed(cursor, cursor.expression())))
    if cursor.at("RENAME", "("):
        cursor.advance()
        star.set("rename", cursor.wrapped(lambda: _renamed(cursor, cursor.identifier("a column"))))
    if table is None:
        return star
    return cursor.placed(exp.Column(this=star, table=table), token)


def _renamed(cursor: Cursor, this: exp.Expression) -> exp.Alias:
    cursor.expect("AS")
    return exp.Alias(this=this, alias=cursor.label())


# Clauses


def _clauses(cursor: Cursor, pending: Pending) -> None:
    """WHERE to QUALIFY, WINDOW among them; ORDER BY and what follows belong to the whole query."""
    select = pending.select
    rank = -1
    while True:
        token = cursor.here
        word = token.word
        if word == "WINDOW":
            _window(cursor, pending)
            continue
        if word not in ("WHERE", "GROUP", "HAVING", "QUALIFY"):
            if word in ("JOIN", "LATERAL", "FOR") or (
                word in ("PIVOT", "UNPIVOT", "TABLESAMPLE", "PREWHERE")
            ):
                cursor.leftover(*CLAUSE_WORDS)
            return
        _in_order(cursor, word, rank)
        rank = _RANK[word]
        cursor.advance()
        match word:
            case "WHERE":
                select.set("where", cursor.placed(exp.Where(this=cursor.expression()), token))
            case "GROUP":
                cursor.expect("BY")
                select.set("group", cursor.placed(_group(cursor), token))
            case "HAVING":
                select.set("having", cursor.placed(exp.Having(this=cursor.expression()), token))
            case _:
                select.set("qualify", cursor.placed(exp.Qualify(this=cursor.expression()), token))


def _in_order(cursor: Cursor, word: str, rank: int) -> None:
    if _RANK[word] == rank:
        cursor.fail(f"{word} is said twice", "MR1017", hint="join conditions with AND")
    if _RANK[word] < rank:
        cursor.fail(f"{word} must stand before {_ORDER[rank]}", "MR1019")


def _group(cursor: Cursor) -> exp.Group:
    if cursor.at("ALL") and cursor.ahead().word not in (",", "("):
        cursor.fail("GROUP BY ALL is not supported", "MR1991", hint="list the columns")
    if cursor.take("DISTINCT"):
        cursor.fail("GROUP BY DISTINCT is not supported", "MR1991")
    node = exp.Group(expressions=cursor.commas(lambda: _group_item(cursor)))
    if cursor.at("WITH") and cursor.ahead().word in ("ROLLUP", "CUBE", "TOTALS"):
        cursor.fail(
            f"GROUP BY … WITH {cursor.ahead().word} is not supported", "MR1991", hint="write ROLLUP (a, b)"
        )
    return node


def _group_item(cursor: Cursor) -> exp.Expression:
    token = cursor.here
    if cursor.at("GROUPING", "SETS"):
        cursor.advance(2)
        return cursor.placed(
            exp.GroupingSets(expressions=cursor.wrapped(lambda: _grouping_set(cursor))), token
        )
    if cursor.at_any(("ROLLUP", "CUBE")) and cursor.ahead().word == "(":
        kind = exp.Rollup if cursor.advance().word == "ROLLUP" else exp.Cube
        return cursor.placed(kind(expressions=cursor.wrapped(lambda: _grouping_set(cursor))), token)
    return cursor.expression()


def _grouping_set(cursor: Cursor) -> exp.Expression:
    if cursor.at("(", ")"):
        token = cursor.advance(2)
        return cursor.placed(exp.Tuple(expressions=[]), token)
    return _group_item(cursor)


def _window(cursor: Cursor, pending: Pending) -> None:
    token = cursor.here
    if at_window_clause(cursor):
        if pending.clause is not None:
            cursor.fail("WINDOW is said twice", "MR1017")
        pending.clause = read_window_clause(cursor)
        return
    cursor.advance()

    def named() -> None:
        name = cursor.identifier("a name of a window")
        if name.name.upper() in pending.named:
            cursor.fail(f"window {name.name} is defined twice", "MR1017", at=token)
        cursor.expect("AS")
        cursor.expect("(")
        pending.named[name.name.upper()] = read_window(cursor, None)
        cursor.expect(")")

    cursor.commas(named)


def _tail(cursor: Cursor, query: Query, selects: _Selects) -> None:
    """ORDER BY, LIMIT, OFFSET, EMIT and what belongs to lateness, in the order people write them."""
    rank = -1
    while True:
        token = cursor.here
        word = token.word
        if word in _TAIL:
            _in_order(cursor, word, rank if word != "FETCH" else -1)
            if word != "OFFSET" or rank != _RANK["LIMIT"]:
                rank = max(rank, _RANK[word])
            cursor.advance()
            _limited(cursor, query, word)
        elif word == "EMIT":
            _once(cursor, query, "emit", "EMIT")
            cursor.advance()
            query.set("emit", cursor.placed(_emit(cursor), token))
        elif word in ("ALLOW", "ALLOWED_LATENESS"):
            _once(cursor, query, "lateness", "ALLOW LATENESS")
            query.set("lateness", cursor.placed(_lateness(cursor), token))
        elif word == "LATE":
            _once(cursor, query, "late_data", "LATE DATA TO")
            cursor.expect("LATE", "DATA", "TO")
            query.set("late_data", cursor.placed(LateDataTo(this=read_table_name(cursor)), token))
        elif word == "WINDOW" and len(selects.pending) == 1 and selects.pending[0].select is query:
            _window(cursor, selects.pending[0])
        elif word in ("WHERE", "GROUP", "HAVING", "QUALIFY") and isinstance(query, exp.Select):
            before = "ORDER BY, LIMIT and EMIT" if rank >= 0 or query.args.get("emit") else "what stands here"
            cursor.fail(f"{word} must stand before {before}", "MR1019")
        else:
            return


def _once(cursor: Cursor, query: Query, key: str, words: str) -> None:
    if query.args.get(key):
        cursor.fail(f"{words} is said twice", "MR1017")


def _limited(cursor: Cursor, query: Query, word: str) -> None:
    token = cursor.previous()
    if word == "ORDER":
        cursor.expect("BY")
        query.set(
            "order", cursor.placed(exp.Order(expressions=cursor.commas(lambda: read_ordered(cursor))), token)
        )
        return
    if word == "OFFSET":
        _once(cursor, query, "offset", "OFFSET")
        query.set("offset", cursor.placed(exp.Offset(expression=_count(cursor)), token))
        cursor.take_any(("ROWS", "ROW"))
        return
    _once(cursor, query, "limit", word)
    if word == "LIMIT":
        if cursor.take("ALL"):
            return
        count = _count(cursor)
        if cursor.at(","):
            cursor.fail("LIMIT a, b is not supported", "MR1992", hint="write LIMIT b OFFSET a")
        if cursor.at_any(("PERCENT", "%", "BY")):
            cursor.fail(
                f"LIMIT … {cursor.here.text} is not supported", "MR1992", hint="use ROW_NUMBER() and QUALIFY"
            )
    else:
        cursor.take_any(("FIRST", "NEXT"))
        count = exp.Literal.number(1) if cursor.at_any(("ROW", "ROWS")) else _count(cursor)
        cursor.expect_any(("ROW", "ROWS"))
        if cursor.at("WITH", "TIES"):
            cursor.fail("FETCH … WITH TIES is not supported", "MR1992", hint="use RANK() and QUALIFY")
        cursor.expect("ONLY")
    query.set("limit", cursor.placed(exp.Limit(expression=count), token))


def _count(cursor: Cursor) -> exp.Expression:
    token = cursor.here
    if token.word == "-":
        cursor.fail("a number of rows can not be negative", "MR1052")
    return cursor.placed(exp.Literal.number(cursor.whole_number("a number of rows")), token)


# Emission


def _emit(cursor: Cursor) -> Emit:
    if cursor.take("FINAL"):
        return Emit(mode="final")
    if cursor.take("CHANGES"):
        return Emit(mode="changes")
    if cursor.take("EVERY"):
        if cursor.take("RECORD"):
            return Emit(mode="every_record")
        return Emit(mode="interval", us=read_duration(cursor, "the interval of EMIT EVERY"))
    if cursor.take_any(("ON", "AFTER")):
        after = cursor.previous().word == "AFTER"
        if cursor.take("WATERMARK") or cursor.take("WINDOW", "CLOSE"):
            return Emit(mode="final")
        if not after and cursor.take("UPDATE"):
            return Emit(mode="changes")
        cursor.unexpected("WINDOW CLOSE", "UPDATE", "WATERMARK")
    cursor.unexpected("FINAL", "CHANGES", "EVERY", "ON")


def _lateness(cursor: Cursor) -> AllowLateness:
    if cursor.take("ALLOWED_LATENESS"):
        cursor.take("=")
    else:
        cursor.expect("ALLOW", "LATENESS")
    return AllowLateness(us=read_duration(cursor, "the allowed lateness", 0))


def apply_changes(cursor: Cursor, query: Query, options: tuple[Option, ...]) -> tuple[Option, ...]:
    """Takes `'changes' = 'every_record'` out of `options` and says it in the query's EMIT CHANGES.

    Raises Invalid MR1074 for another value, or a query that does not emit changes.
    """
    for option in options:
        if option.name.lower() != "changes":
            continue
        if option.value.lower() != "every_record":
            hint = "write 'changes' = 'every_record', or leave it out"
            cursor.fail(f"changes can not be '{option.value}'", "MR1074", hint=hint, at=option.position)
        emit = query.args.get("emit")
        if emit is None or emit.args["mode"] not in ("changes", "every_record"):
            hint = "add EMIT CHANGES to the query"
            cursor.fail("'changes' needs a query that emits changes", "MR1074", hint=hint, at=option.position)
        emit.set("mode", "every_record")
        return tuple(other for other in options if other is not option)
    return options


def read_condition(cursor: Cursor) -> exp.Expression | None:
    """`WHERE condition`, or None."""
    return cursor.expression() if cursor.take("WHERE") else None
