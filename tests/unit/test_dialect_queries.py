"""Queries and expressions: spellings that mean the same are the same tree; nothing unknown passes."""

from __future__ import annotations

import re

import pytest
from sqlglot import exp

from millrace.errors import Invalid, MillraceError, Unsupported
from millrace.planner.dialect import nodes
from millrace.planner.dialect.nodes import (
    AllowLateness,
    AsofMatch,
    Call,
    Emit,
    InlineSource,
    Interval,
    LateDataTo,
    MatchRecognize,
    NamedArgument,
    SystemTime,
    TableCall,
    TypeName,
    Within,
    position_of,
)
from millrace.planner.script import parse_statement
from millrace.planner.statements import SelectStatement


def query(sql: str) -> exp.Query:
    statement = parse_statement(sql)
    assert isinstance(statement, SelectStatement)
    return statement.query


def expression(sql: str) -> exp.Expression:
    return query(f"SELECT {sql} FROM t").expressions[0]


def condition(sql: str) -> exp.Expression:
    return query(f"SELECT 1 FROM t WHERE {sql}").args["where"].this


SAME = [
    ("EXTRACT(HOUR FROM ts)", "date_part('hour', ts)"),
    ("EXTRACT('hours' FROM ts)", "date_part('hour', ts)"),
    ("POSITION('a' IN s)", "strpos(s, 'a')"),
    ("SUBSTRING(s FROM 2 FOR 3)", "substring(s, 2, 3)"),
    ("SUBSTRING(s FROM 2)", "SUBSTRING(s, 2)"),
    ("TRIM(s)", "btrim(s)"),
    ("TRIM(BOTH 'x' FROM s)", "btrim(s, 'x')"),
    ("TRIM(LEADING 'x' FROM s)", "ltrim(s, 'x')"),
    ("TRIM(TRAILING FROM s)", "rtrim(s)"),
    ("OVERLAY(s PLACING 'x' FROM 2 FOR 3)", "overlay(s, 'x', 2, 3)"),
    ("FLOOR(ts TO DAY)", "date_trunc('day', ts)"),
    ("CEIL(ts TO HOUR)", "date_ceil('hour', ts)"),
    ("TIMESTAMPDIFF(MINUTE, a, b)", "timestampdiff('minute', a, b)"),
    ("CURRENT_TIMESTAMP", "current_timestamp()"),
    ("j -> 'a' ->> 'b'", "json_get_text(json_get(j, 'a'), 'b')"),
    ("s ~ 'x'", "regexp_like(s, 'x')"),
    ("s ~* 'x'", "regexp_like(s, 'x', 'i')"),
    ("s !~ 'x'", "NOT regexp_like(s, 'x')"),
    ("s RLIKE 'x'", "regexp_like(s, 'x')"),
    ("x::int", "CAST(x AS INT)"),
    ("DATE '2020-01-01'", "CAST('2020-01-01' AS DATE)"),
    ("TIMESTAMP '2020-01-01 00:00:00'", "CAST('2020-01-01 00:00:00' AS TIMESTAMP)"),
    ("TIMESTAMP WITH TIME ZONE '2020-01-01'", "'2020-01-01'::timestamptz"),
    ("x::timestamp_ltz(3)", "CAST(x AS TIMESTAMP(3) WITH TIME ZONE)"),
    ("INTERVAL '90' SECOND", "INTERVAL '1 minute 30 seconds'"),
    ("INTERVAL '1:30' MINUTE TO SECOND", "INTERVAL 90 SECONDS"),
    ("5m", "INTERVAL '5' MINUTE"),
    ("250ms", "INTERVAL '0.25' SECOND"),
    ("a != b", "a <> b"),
    ("a == b", "a = b"),
    ("a <=> b", "a IS NOT DISTINCT FROM b"),
    ("a ISNULL", "a IS NULL"),
    ("a NOTNULL", "a IS NOT NULL"),
    ("a IS UNKNOWN", "a IS NULL"),
    ("NOT a LIKE 'x'", "a NOT LIKE 'x'"),
    ("ARRAY[1, 2]", "[1, 2]"),
    ("MAP['a', 1, 'b', 2]", "MAP {'a': 1, 'b': 2}"),
    ("1 + 2 * 3", "1 + 2 * 3"),
    ("count(ALL x)", "count(x)"),
    (".5", "0.5"),
    ("JSON_VALUE(j, '$.a' RETURNING INT)", "json_value(j, '$.a')::INT"),
    ("first_value(x IGNORE NULLS) OVER (ORDER BY y)", "first_value(x) IGNORE NULLS OVER (ORDER BY y)"),
    ("string_agg(x, ',' ORDER BY y DESC)", "STRING_AGG(x, ',' ORDER BY y DESC)"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_two_spellings_are_one_expression(one: str, other: str) -> None:
    assert expression(one) == expression(other)


def test_precedence() -> None:
    wrapped = query("SELECT 1 FROM t WHERE (a OR (b AND (NOT (c = (d + (e * f))))))")
    for paren in list(wrapped.find_all(exp.Paren)):
        paren.replace(paren.this)
    assert wrapped.args["where"].this == condition("a OR b AND NOT c = d + e * f")
    assert isinstance(condition("-x::int = 1").this, exp.Neg)
    assert isinstance(condition("a = b IS NULL"), exp.Is)
    assert isinstance(condition("a BETWEEN 1 AND 2 AND b"), exp.And)
    assert isinstance(expression("a - b - c").this, exp.Sub)


def test_calls_keep_all_that_was_said() -> None:
    call = expression("COUNT(DISTINCT x) FILTER (WHERE y > 1)")
    assert isinstance(call, Call)
    assert call.args["this"] == "count"
    assert call.args["distinct"] is True
    assert isinstance(call.args["filter"], exp.GT)
    ordered = expression("percentile_cont(0.5) WITHIN GROUP (ORDER BY x DESC NULLS LAST)")
    key = ordered.args["order"][0]
    assert (key.args["desc"], key.args["nulls_first"], ordered.args["within_group"]) == (True, False, True)
    star = expression("count(*)")
    assert star.expressions == [exp.Star()]
    named = expression("f(a => 1, 2)")
    assert isinstance(named.expressions[0], NamedArgument)
    lambdas = expression("transform(l, (a, b) -> a + b)").expressions[1]
    assert isinstance(lambdas, exp.Lambda)
    assert len(lambdas.expressions) == 2


def test_names_fields_and_elements() -> None:
    three = expression("a.b.c")
    assert (three.name, three.table, three.args["db"].name) == ("c", "b", "a")
    assert isinstance(expression("f(x).a"), exp.Dot)
    assert isinstance(expression("(r).a"), exp.Dot)
    assert isinstance(expression("l[1]"), exp.Bracket)
    assert expression('"Sel ect"').this.args["quoted"] is True
    assert expression("`a b`").name == "a b"
    assert expression("dateTime").name == "dateTime"
    assert expression("timestamp").name == "timestamp"
    assert expression("left(s, 1)").args["this"] == "left"


def test_casts_name_their_type() -> None:
    cast = expression("TRY_CAST(x AS array<row<a int, b decimal(10, 2)>>)")
    assert isinstance(cast, exp.TryCast)
    assert cast.args["to"] == TypeName(this='ARRAY<ROW<"a" INT, "b" DECIMAL(10, 2)>>')


def test_months_are_kept_apart() -> None:
    mixed = expression("INTERVAL '1 year 2 days'")
    assert isinstance(mixed, Interval)
    assert (mixed.months, mixed.us) == (12, 2 * 86_400_000_000)
    assert expression("INTERVAL '1-6' YEAR TO MONTH").months == 18


@pytest.mark.parametrize(
    ("clause", "emit"),
    [
        ("EMIT FINAL", Emit(mode="final")),
        ("EMIT ON WINDOW CLOSE", Emit(mode="final")),
        ("EMIT AFTER WATERMARK", Emit(mode="final")),
        ("EMIT ON WATERMARK", Emit(mode="final")),
        ("EMIT CHANGES", Emit(mode="changes")),
        ("EMIT ON UPDATE", Emit(mode="changes")),
        ("EMIT EVERY INTERVAL '10' SECOND", Emit(mode="interval", us=10_000_000)),
        ("emit every 10 seconds", Emit(mode="interval", us=10_000_000)),
        ("EMIT EVERY RECORD", Emit(mode="every_record")),
    ],
)
def test_emission(clause: str, emit: Emit) -> None:
    assert query(f"SELECT k, count(*) FROM t GROUP BY k {clause}").args["emit"] == emit
    assert query(f"SELECT a FROM t UNION ALL SELECT b FROM u {clause}").args["emit"] == emit


def test_lateness_and_late_data() -> None:
    for clause in ("ALLOW LATENESS INTERVAL '1' HOUR", "ALLOWED_LATENESS = 1h", "ALLOWED_LATENESS '1 hour'"):
        select = query(f"SELECT 1 FROM t GROUP BY TUMBLE(ts, 1m) EMIT FINAL {clause} LATE DATA TO late")
        assert select.args["lateness"] == AllowLateness(us=3_600_000_000)
        assert isinstance(select.args["late_data"], LateDataTo)
        assert select.args["late_data"].this.name == "late"


@pytest.mark.parametrize(
    ("words", "side", "kind"),
    [
        ("JOIN", None, None),
        ("INNER JOIN", None, "INNER"),
        ("LEFT JOIN", "LEFT", None),
        ("LEFT OUTER JOIN", "LEFT", None),
        ("RIGHT JOIN", "RIGHT", None),
        ("FULL OUTER JOIN", "FULL", None),
        ("SEMI JOIN", None, "SEMI"),
        ("LEFT SEMI JOIN", None, "SEMI"),
        ("ANTI JOIN", None, "ANTI"),
    ],
)
def test_joins(words: str, side: str | None, kind: str | None) -> None:
    join = query(f"SELECT * FROM a {words} b ON a.x = b.x").args["joins"][0]
    assert (join.args.get("side"), join.args.get("kind")) == (side, kind)
    assert isinstance(join.args["on"], exp.EQ)


def test_cross_joins() -> None:
    assert query("SELECT * FROM a, b") == query("SELECT * FROM a CROSS JOIN b")
    unnest = query("SELECT * FROM a CROSS JOIN UNNEST(a.l) WITH ORDINALITY AS u (x, i)").args["joins"][0].this
    assert isinstance(unnest, exp.Unnest)
    assert unnest.args["offset"] is True
    call = query("SELECT * FROM a, LATERAL TABLE(split(a.s)) AS u (w)").args["joins"][0].this
    assert isinstance(call, TableCall)
    assert query("SELECT * FROM a JOIN b USING (x, y)").args["joins"][0].args["using"][1].name == "y"


def test_joins_in_time() -> None:
    five = Within(before=300_000_000, after=300_000_000)
    after = query("SELECT * FROM a JOIN b ON a.x = b.x WITHIN INTERVAL '5' MINUTE WHERE a.y").args["joins"][0]
    before = query("SELECT * FROM a JOIN b WITHIN 5 MINUTES ON a.x = b.x").args["joins"][0]
    assert after == before
    assert after.args["within"] == five
    uneven = query("SELECT * FROM a JOIN b ON a.x = b.x WITHIN (1m, 5m)").args["joins"][0]
    assert uneven.args["within"] == Within(before=60_000_000, after=300_000_000)
    between = "b.ts BETWEEN a.ts - INTERVAL '5' MINUTE AND a.ts + INTERVAL '5' MINUTE"
    interval = query(f"SELECT * FROM a JOIN b ON a.x = b.x AND {between}").args["joins"][0]
    assert isinstance(interval.args["on"].expression, exp.Between)


def test_asof_joins() -> None:
    bound = "t.ts >= q.ts AND t.ts - q.ts <= INTERVAL '5' SECOND"
    join = query(f"SELECT * FROM t ASOF JOIN q MATCH_CONDITION({bound}) ON t.s = q.s").args["joins"][0]
    assert join.args["method"] == "ASOF"
    assert isinstance(join.args["asof"], AsofMatch)
    assert isinstance(join.args["asof"].this, exp.And)
    inside = query("SELECT * FROM t ASOF LEFT JOIN q ON t.s = q.s AND t.ts >= q.ts").args["joins"][0]
    assert (inside.args["side"], inside.args["asof"]) == ("LEFT", AsofMatch())
    nearest = query("SELECT * FROM t ASOF JOIN q MATCH_CONDITION(NEAREST(t.ts, q.ts)) ON t.s = q.s").args[
        "joins"
    ][0]
    assert nearest.args["asof"].args["nearest"] is True


def test_temporal_joins() -> None:
    first = query("SELECT * FROM o JOIN r FOR SYSTEM_TIME AS OF o.ts AS x ON o.c = x.c").args["joins"][0]
    last = query("SELECT * FROM o JOIN r AS x FOR SYSTEM_TIME AS OF o.ts ON o.c = x.c").args["joins"][0]
    assert first == last
    assert isinstance(first.this.args["version"], SystemTime)
    bare = query("SELECT * FROM o JOIN r FOR SYSTEM_TIME AS OF PROCTIME() ON o.c = r.c").args["joins"][0]
    assert bare.this.args["version"].this == Call(this="proctime", expressions=[])


@pytest.mark.parametrize(
    "uri",
    [
        "file://./x.csv",
        "kafka://host:9092/topic",
        "kafka://topic",
        "file:///data/*.csv",
        "postgres://db/table",
    ],
)
def test_inline_sources(uri: str) -> None:
    quoted = query(f"SELECT * FROM '{uri}' AS s WHERE x").args["from_"].this
    bare = query(f"SELECT * FROM {uri} AS s WHERE x").args["from_"].this
    assert quoted == bare
    assert isinstance(quoted, InlineSource)
    assert (quoted.args["uri"], quoted.alias) == (uri, "s")


def test_inline_sources_take_options_and_join() -> None:
    source = query(
        "SELECT * FROM 'file://./x.csv' WITH (format = csv, 'header' = 'true') x JOIN kafka://t y ON x.a = y.a"
    )
    pairs = [[part.name for part in pair.expressions] for pair in source.args["from_"].this.args["options"]]
    assert pairs == [["format", "csv"], ["header", "true"]]
    assert source.args["joins"][0].this.args["uri"] == "kafka://t"


def test_set_operations() -> None:
    union = query("SELECT a FROM t UNION ALL SELECT a FROM u UNION SELECT a FROM v ORDER BY a LIMIT 3")
    assert (union.args["distinct"], union.this.args["distinct"]) == (True, False)
    assert union.args["limit"] is not None
    tighter = query("SELECT 1 UNION SELECT 2 INTERSECT SELECT 3")
    assert isinstance(tighter.expression, exp.Intersect)
    assert query("SELECT 1 MINUS SELECT 2") == query("SELECT 1 EXCEPT SELECT 2")
    assert query("(SELECT 1) UNION (SELECT 2)") == query("SELECT 1 UNION SELECT 2")
    assert isinstance(query("SELECT 1 UNION (SELECT 2 LIMIT 1)").expression, exp.Subquery)


def test_with_values_and_subqueries() -> None:
    select = query("WITH a (x) AS (SELECT 1), b AS (SELECT 2) SELECT * FROM a, b")
    assert [cte.alias for cte in select.args["with_"].expressions] == ["a", "b"]
    values = query("SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS v (x, y)").args["from_"].this
    assert isinstance(values, exp.Values)
    assert values.alias == "v"
    assert [c.name for c in values.args["alias"].args["columns"]] == ["x", "y"]
    assert isinstance(query("VALUES (1), (2)").args["from_"].this, exp.Values)
    inside = condition(
        "x IN (SELECT y FROM u) AND EXISTS (SELECT 1) AND z > ALL (SELECT 1) AND w = (SELECT 1)"
    )
    assert len(list(inside.find_all(exp.Select))) == 4


def test_grouping_and_its_kin() -> None:
    select = query(
        "SELECT a, b, count(*) FROM t GROUP BY GROUPING SETS ((a, b), (a), ()), CUBE (a, b), ROLLUP (a), 1"
    )
    kinds = [type(item) for item in select.args["group"].expressions]
    assert kinds == [exp.GroupingSets, exp.Cube, exp.Rollup, exp.Literal]
    top = query("SELECT a, ROW_NUMBER() OVER (PARTITION BY b ORDER BY c DESC) AS rn FROM t QUALIFY rn <= 3")
    assert isinstance(top.args["qualify"].this, exp.LTE)
    assert query("SELECT DISTINCT ON (a) a, b FROM t").args["distinct"].args["on"] is not None
    assert query("SELECT a FROM t LIMIT 5") == query("SELECT a FROM t FETCH FIRST 5 ROWS ONLY")
    star = query("SELECT * EXCEPT (a) REPLACE (b + 1 AS b), t.* FROM t").expressions
    assert [i.name for i in star[0].args["except_"]] == ["a"]
    assert isinstance(star[1].this, exp.Star)


def test_primary_key_in_a_select_list() -> None:
    select = query("SELECT a PRIMARY KEY, b AS c PRIMARY KEY, d PRIMARY KEY AS e, f FROM t")
    assert [key.name for key in select.args["key"]] == ["a", "c", "e"]
    select = query('SELECT PRIMARY KEY a, PRIMARY KEY "b" AS c, PRIMARY KEY CAST(x AS INT) AS d, f FROM t')
    assert [key.name for key in select.args["key"]] == ["a", "c", "d"]
    assert [e.alias_or_name for e in select.expressions] == ["a", "c", "d", "f"]
    assert query("SELECT primary key FROM t") == query("SELECT primary AS key FROM t")


def test_match_recognize() -> None:
    select = query(
        "SELECT * FROM t MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts MEASURES LAST(a.x) AS y ONE ROW PER MATCH"
        " AFTER MATCH SKIP PAST LAST ROW PATTERN (a b+ c?) WITHIN INTERVAL '1' HOUR DEFINE b AS b.x > 1) AS m"
    )
    node = select.args["from_"].this
    assert isinstance(node, MatchRecognize)
    assert (str(node.args["pattern"]), node.args["rows"], node.alias) == ("a b+ c?", "one", "m")


@pytest.mark.parametrize(
    "pattern",
    [
        "a",
        "a b+ c?",
        "a* b*? c+? d??",
        "a{3} b{2,} c{1,4}?",
        "(a | b c)+ d",
        "a (b | c)",
        "{- a+ -} b {- (c | d){2} -}",
        "((a b)? c)*",
    ],
)
def test_patterns_are_read_and_written_alike(pattern: str) -> None:
    select = query(f"SELECT * FROM t MATCH_RECOGNIZE (ORDER BY ts PATTERN ({pattern}) DEFINE a AS TRUE)")
    assert str(select.args["from_"].this.args["pattern"]) == pattern


@pytest.mark.parametrize(
    ("clauses", "code"),
    [
        ("PATTERN (PERMUTE(a, b)) DEFINE a AS TRUE", "MR1918"),
        ("PATTERN (^ a) DEFINE a AS TRUE", "MR1918"),
        ("PATTERN (()) DEFINE a AS TRUE", "MR1918"),
        ("SEEK PATTERN (a) DEFINE a AS TRUE", "MR1918"),
        ("ALL ROWS PER MATCH WITH UNMATCHED ROWS PATTERN (a) DEFINE a AS TRUE", "MR1937"),
        ("PATTERN (a{2,1}) DEFINE a AS TRUE", "MR1054"),
        ("PATTERN (a{0}) DEFINE a AS TRUE", "MR1054"),
        ("PATTERN (a{9999}) DEFINE a AS TRUE", "MR1054"),
        ("PATTERN (a || b) DEFINE a AS TRUE", "MR1010"),
        ("PATTERN (a ** b) DEFINE a AS TRUE", "MR1010"),
        ("PATTERN (a b DEFINE a AS TRUE", "MR1011"),
        ("PATTERN (a)", "MR1010"),
        ("MEASURES a.x PATTERN (a) DEFINE a AS TRUE", "MR1010"),
    ],
)
def test_patterns_that_can_not_be_read(clauses: str, code: str) -> None:
    with pytest.raises(MillraceError) as caught:
        query(f"SELECT * FROM t MATCH_RECOGNIZE (ORDER BY ts {clauses})")
    assert caught.value.code == code
    assert caught.value.position is not None


def test_every_node_has_a_place() -> None:
    select = query("SELECT\n  a.b,\n  sum(c) AS d\nFROM t\nWHERE e\n    = 'x'")
    places = {
        type(n).__name__ + n.name: position_of(n) for n in select.walk() if isinstance(n, (exp.Column, Call))
    }
    assert {k: (p.line, p.column) for k, p in places.items() if p} == {
        "Columnb": (2, 3),
        "Callsum": (3, 3),
        "Columnc": (3, 7),
        "Columne": (5, 7),
    }
    assert all(position_of(node) is not None for node in select.walk() if not isinstance(node, exp.Null))
    literal = select.find(exp.Literal)
    place = position_of(literal)
    assert place is not None
    assert (place.line, place.column, place.length) == (6, 7, 3)


UNSUPPORTED = [
    "SELECT * FROM t LATERAL VIEW explode(x) y",
    "SELECT * FROM t PIVOT (sum(x) FOR y IN (1, 2))",
    "SELECT * FROM t TABLESAMPLE (10 PERCENT)",
    "SELECT /*+ BROADCAST(t) */ * FROM t",
    "SELECT * FROM (a JOIN b ON a.x = b.x)",
    "SELECT * FROM a CROSS APPLY f(a.x)",
    "SELECT TOP 5 * FROM t",
    "SELECT a FROM t FOR UPDATE",
    "SELECT a FROM t GROUP BY a WITH ROLLUP",
    "SELECT a FROM t GROUP BY ALL",
    "SELECT a FROM t LIMIT 1, 2",
    "SELECT a FROM t FETCH FIRST 5 ROWS WITH TIES",
    "SELECT a FROM t START WITH x CONNECT BY y",
    'SELECT a COLLATE "C" FROM t',
    "SELECT a ^ b FROM t",
    "SELECT l[1:2] FROM t",
    "SELECT ? FROM t",
    "SELECT @x FROM t",
    "SELECT :x FROM t",
    "SELECT {'a': 1} FROM t",
    "SELECT x.f(1) FROM t",
    "SELECT CAST(a AS DATE FORMAT 'YYYY') FROM t",
    "SELECT a FROM t WHERE a IN UNNEST(l)",
    "SELECT a FROM t WHERE a BETWEEN SYMMETRIC 1 AND 2",
    "WITH RECURSIVE r AS (SELECT 1) SELECT * FROM r",
    "SELECT a FROM t UNION ALL BY NAME SELECT b FROM u",
    "SELECT * FROM o JOIN r FOR SYSTEM_TIME BETWEEN a AND b ON true",
]


@pytest.mark.parametrize("sql", UNSUPPORTED)
def test_what_is_understood_but_not_run_is_refused(sql: str) -> None:
    with pytest.raises(Unsupported) as caught:
        parse_statement(sql)
    assert caught.value.code.startswith("MR19")
    assert caught.value.position is not None


WRONG = [
    ('SELECT a FROM t WHERE "" = 1', "MR1009", 23),
    ("SELECT x'0g' FROM t", "MR1001", 8),
    ("SELECT a, FROM t", "MR1011", 11),
    ("SELECT a b c FROM t", "MR1013", 12),
    ("SELECT f(a,) FROM t", "MR1010", 12),
    ("SELECT f(a,,b) FROM t", "MR1010", 12),
    ("SELECT FROM t", "MR1011", 8),
    ("SELECT a FROM", "MR1010", 14),
    ("SELECT a FROM t WHERE", "MR1010", 22),
    ("SELECT a FROM t GROUP BY", "MR1010", 25),
    ("SELECT a FROM t GROUP BY a,", "MR1010", 28),
    ("SELECT a FROM t WHERE a BETWEEN 1", "MR1010", 34),
    ("SELECT CASE WHEN a b END FROM t", "MR1010", 20),
    ("SELECT CASE a END FROM t", "MR1010", 15),
    ("SELECT a < b < c FROM t", "MR1014", 14),
    ("SELECT (a FROM t", "MR1010", 11),
    ("SELECT a) FROM t", "MR1013", 9),
    ("SELECT a FROM t JOIN u", "MR1044", 23),
    ("SELECT a FROM t CROSS JOIN u ON a", "MR1044", 30),
    ("SELECT a FROM t LEFT INNER JOIN u ON a", "MR1044", 17),
    ("SELECT a FROM t JOIN u MATCH_CONDITION(x) ON a", "MR1044", 24),
    ("SELECT a FROM t ORDER BY a WHERE b", "MR1019", 28),
    ("SELECT a FROM t HAVING x WHERE b", "MR1019", 26),
    ("SELECT a FROM t WHERE x WHERE b", "MR1017", 25),
    ("SELECT a FROM t EMIT CHANGES EMIT FINAL", "MR1017", 30),
    ("SELECT a FROM t EMIT CHNAGES", "MR1010", 22),
    ("SELECT a FROM t LIMIT -1", "MR1052", 23),
    ("SELECT a FROM t LIMIT x", "MR1010", 23),
    ("SELECT 5x FROM t", "MR1015", 8),
    ("SELECT f(SELECT 1) FROM t", "MR1016", 10),
    ("SELECT CAST(a AS INTT) FROM t", "MR1020", 18),
    ("SELECT a::DECIMAL(50) FROM t", "MR1021", 11),
    ("SELECT INTERVAL 'x' DAY FROM t", "MR1030", 17),
    ("SELECT EXTRACT(FOO FROM a) FROM t", "MR1018", 16),
    ("SELECT * FROM 'data.csv'", "MR1048", 15),
    ("SELECT 1 FROM (SELECT 1 INTO x)", "MR1049", 25),
    ("VALUES (1, 2), (3)", "MR1050", 1),
    ("SELECT a + 1 PRIMARY KEY FROM t", "MR1051", 8),
    ("SELECT a AS 'b' FROM t", "MR1010", 13),
    ("SELECT 'a' 'b' FROM t", "MR1013", 12),
]


@pytest.mark.parametrize(("sql", "code", "place"), WRONG)
def test_what_is_wrong_is_said_where_it_is(sql: str, code: str, place: int) -> None:
    with pytest.raises(Invalid) as caught:
        parse_statement(sql)
    assert caught.value.code == code
    assert caught.value.position is not None
    assert caught.value.position.column == place


@pytest.mark.parametrize(
    ("sql", "hint"),
    [
        ("SELECT a FORM t", "FROM"),
        ("SELECT a FROM t WEHRE b", "WHERE"),
        ("SELECT a FROM t GRUOP BY a", "GROUP"),
        ("SELECT a FROM t EMIT CHNAGES", "CHANGES"),
        ("SELECT a FROM t ODRER BY a", "ORDER"),
        ("SELECT x::BIGNIT FROM t", "BIGINT"),
        ("SELECT a FROM t JOIN u OM t.a = u.a", "ON"),
        ("SELECT a FROM t SELECT b FROM u", "';'"),
    ],
)
def test_misspelt_words_are_guessed(sql: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_statement(sql)
    assert hint in (caught.value.hint or "")


def test_the_catalogue_names_every_node() -> None:
    assert nodes.__doc__ is not None
    documented = set(re.findall(r"\w+", nodes.__doc__))
    sql = ", ".join(spelling for pair in SAME for spelling in pair)
    more = (
        "SELECT DISTINCT a.*, sum(x) OVER (ROWS WINDOW BUFFER 2 ROWS) FROM TUMBLE(t, ts, 1m) w JOIN u ON x LIKE 'a' ESCAPE '!'"
        " ASOF JOIN v ON u WHERE a SIMILAR TO b AND EXISTS (SELECT TUMBLE_START() FROM t GROUP BY TUMBLE(1m)) AND x = ANY (l)"
    )
    for tree in (query(f"SELECT {sql} FROM t"), query(more), *map(query, QUERIES)):
        unknown = {type(node).__name__ for node in tree.walk()} - documented
        assert not unknown


QUERIES = [
    "SELECT CASE a WHEN 1 THEN 2 END, (1, 2), x'00', {f} FROM t GROUP BY ROLLUP (a), CUBE (b), GROUPING SETS (c)".replace(
        "{f}", "~a"
    ),
    "SELECT f(x -> 1, a => 2) FROM (VALUES (1)) v INTERSECT SELECT 1 EXCEPT SELECT 2 UNION SELECT 3 ORDER BY 1 LIMIT 1 OFFSET 1",
    "SELECT a FROM 'file://x' CROSS JOIN UNNEST(a) JOIN r FOR SYSTEM_TIME AS OF x ON a WITHIN 1m, f(x) QUALIFY a EMIT FINAL",
    "WITH c AS (SELECT 1) SELECT l[1], r.a FROM c HAVING a ALLOW LATENESS 1m LATE DATA TO x",
]


def test_deep_nesting_is_refused_and_long_chains_are_not() -> None:
    with pytest.raises(Invalid) as caught:
        parse_statement("SELECT " + "(" * 5000 + "1" + ")" * 5000)
    assert caught.value.code == "MR1012"
    with pytest.raises(Invalid):
        parse_statement("SELECT " + "- " * 5000 + "1")
    with pytest.raises(Invalid):
        parse_statement("SELECT * FROM " + "(SELECT * FROM " * 500 + "t" + ")" * 500)
    for chain in (
        " + ".join(["a"] * 1000),
        " || ".join(["a"] * 1000),
        "a" + "::int" * 1000,
        "a" + "[1]" * 1000,
    ):
        with pytest.raises(Invalid) as caught:
            parse_statement(f"SELECT {chain}")
        assert caught.value.code == "MR1012"
    for word in (" UNION ALL ", " INTERSECT "):
        with pytest.raises(Invalid):
            parse_statement(word.join(["SELECT 1"] * 1000))
    for word in ("AND", "OR"):
        long = condition(f" {word} ".join(["a = 1"] * 3000))
        assert max(node.depth for node in long.walk()) < 20
        assert len(list(long.find_all(exp.EQ))) == 3000
    parse_statement("SELECT " + "(" * 40 + "1" + ")" * 40)
