"""Mutations of valid SQL: a statement or a coded error with a place, soon, and never anything else."""

from __future__ import annotations

import pickle
import re
import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millrace.errors import Invalid, MillraceError
from millrace.planner.dialect.nodes import position_of
from millrace.planner.dialect.preparation import prepare
from millrace.planner.dialect.tokens import Kind, tokenize
from millrace.planner.script import parse_script, parse_statement
from millrace.planner.statements import CreateQuery, InsertQuery, SelectStatement, Statement

CORPUS = [
    (
        "CREATE SOURCE t (a INT NOT NULL, b ARRAY<ROW<x DECIMAL(10, 2), y STRING>>, c AS a + 1, ts TIMESTAMP(3),"
        " WATERMARK FOR ts AS ts - INTERVAL '5' SECOND, PRIMARY KEY (a) NOT ENFORCED)"
        " FROM KAFKA (bootstrap.servers = 'h:1', topic = x) FORMAT JSON"
    ),
    "CREATE TABLE t (a INT) WITH ('connector' = 'kafka', 'topic' = 'x')",
    "CREATE LOOKUP TABLE d (id INT, PRIMARY KEY (id)) WITH ('connector' = 'postgres', 'strategy' = 'on-demand')",
    "CREATE SINK o FROM s WHERE a > 1 INTO KAFKA (topic = x) FORMAT JSON WITH (key = 'id')",
    (
        "CREATE STREAM s AS SELECT a, count(*) AS n FROM t GROUP BY a, TUMBLE(ts, INTERVAL '1' MINUTE) EMIT FINAL"
        " ALLOW LATENESS INTERVAL '1' HOUR LATE DATA TO late WITH ('s.type' = 'kafka_sink', 's.topic' = 'y')"
    ),
    "SELECT k, TUMBLE_START(ts, 1m), avg(x) FILTER (WHERE y IS NOT NULL) FROM t GROUP BY k, TUMBLE(ts, 1m) HAVING max(x) > 3",
    "SELECT k, _WINDOW_START FROM t GROUP BY k WINDOW SLIDING(ts, 5m, 1m) EMIT CHANGES",
    "SELECT * FROM TABLE(HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE)) AS w",
    "SELECT * FROM TABLE(SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '30' SECOND))",
    (
        "SELECT sum(x) OVER (ROWS WINDOW BUFFER 10 ROWS PARTITION BY k ORDER BY ts EMIT EVERY RECORD), rank() OVER w"
        " FROM t WINDOW w AS (PARTITION BY k ORDER BY x DESC NULLS LAST)"
    ),
    "SELECT lag(x, 1) OVER (ORDER BY ts ROWS BETWEEN 2 PRECEDING AND UNBOUNDED FOLLOWING) FROM t QUALIFY x <= 3",
    (
        "SELECT * FROM t ASOF JOIN q MATCH_CONDITION(t.ts >= q.ts) ON t.s = q.s LEFT JOIN r FOR SYSTEM_TIME AS OF t.ts AS z"
        " ON z.a = t.a JOIN u ON u.a = t.a WITHIN INTERVAL '5' MINUTE"
    ),
    (
        "WITH a AS (SELECT 1 AS x), b (y) AS (VALUES (1), (2)) SELECT DISTINCT * EXCEPT (x) FROM a, b WHERE x IN (SELECT y FROM b)"
        " AND EXISTS (SELECT 1) UNION ALL SELECT 2 ORDER BY 1 DESC LIMIT 5 OFFSET 2"
    ),
    (
        "SELECT CASE WHEN a BETWEEN 1 AND 2 THEN 'x' ELSE b::INT END, CAST(x AS MAP<STRING, INT[]>), l[1], j -> 'a' ->> 'b',"
        " f(x -> x + 1), EXTRACT(HOUR FROM ts), TRIM(LEADING 'x' FROM s), MAP['a', 1], INTERVAL '1-6' YEAR TO MONTH FROM t"
    ),
    "SELECT a FROM t GROUP BY GROUPING SETS ((a, b), (), ROLLUP (c)), CUBE (d)",
    "SELECT * FROM t MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts MEASURES a.x AS y PATTERN (a b+) DEFINE b AS b.x > 1)",
    "SELECT * FROM 'file://./x.csv' WITH (format = csv) x CROSS JOIN UNNEST(x.l) WITH ORDINALITY AS u (v, i)",
    "INSERT INTO t (a, b) VALUES (1, 'x'), (-2.5e3, NULL)",
    "UPDATE t SET a = a + 1 WHERE b NOT LIKE '%x' ESCAPE '!'",
    "ALTER SOURCE t ADD COLUMN c INT",
    "EXPLAIN ANALYZE (FORMAT JSON) SELECT ${A:-1}, '${B}' -- @x: y",
    "DEPLOY JOB j VERSION '1' AS SELECT * FROM t STRATEGY CANARY(25)",
    "CREATE FUNCTION f (a INT, VARCHAR) RETURNS INT LANGUAGE PYTHON AS $$ return 1; $$",
    "EXECUTE STATEMENT SET BEGIN INSERT INTO a SELECT 1; INSERT INTO b SELECT 2; END",
    "SET 'a.b' = '5'; SHOW TABLES LIKE 'p%'; DROP TABLE IF EXISTS a, b CASCADE; SUBSCRIBE s AS OF EPOCH 3 WHERE a",
]
PIECES = [
    *[
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ";",
        ".",
        ":",
        "'",
        '"',
        "`",
        "$",
        "$$",
        "--",
        "/*",
        "*/",
        "/*+",
        "\n",
        "\t",
        "\x00",
        "\\",
        "@",
        "?",
        "#",
        "!",
        "^",
        "~",
        "|",
        "&",
        "%",
        "*",
        "+",
        "-",
        "/",
        "<",
        ">",
        "=",
        "=>",
        "->",
        "->>",
        "::",
        "${",
        "${A}",
        "5m",
    ],
    *[
        "SELECT",
        "FROM",
        "WHERE",
        "GROUP",
        "BY",
        "WINDOW",
        "EMIT",
        "NOT",
        "NULL",
        "AND",
        "AS",
        "OVER",
        "INTERVAL",
        "TABLE",
        "TUMBLE",
        "JOIN",
        "ON",
        "IN",
        "CASE",
        "END",
        "WITH",
    ],
    *["1", "0", "-1", "1e999", "99999999999999999999", "0x1F", "1_000", "é", "日本", "🎉", "ıſ", "ſELECT"],
    "INTERVAL '999999999999 years'",
    "DECIMAL(99999999999999999999)",
]


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """A statement of the corpus with up to six pieces lost, doubled, swapped, added or cut."""
    text = draw(st.sampled_from(CORPUS))
    for _ in range(draw(st.integers(1, 6))):
        pieces = re.findall(r"\w+|\s+|.", text, re.DOTALL)
        if not pieces:
            break
        at = draw(st.integers(0, len(pieces) - 1))
        match draw(st.integers(0, 6)):
            case 0:
                del pieces[at : at + draw(st.integers(1, 5))]
            case 1:
                pieces.insert(at, pieces[at])
            case 2:
                other = draw(st.integers(0, len(pieces) - 1))
                pieces[at], pieces[other] = pieces[other], pieces[at]
            case 3:
                pieces.insert(at, draw(st.sampled_from(PIECES)))
            case 4:
                pieces[at] = draw(st.sampled_from(PIECES))
            case 5:
                pieces[at:at] = re.findall(r"\w+|\s+|.", draw(st.sampled_from(CORPUS)), re.DOTALL)[
                    : draw(st.integers(1, 20))
                ]
            case _:
                del pieces[at:]
        text = "".join(pieces)
    return text


def check(text: str) -> None:
    start = time.process_time()
    script = parse_script(text, {"B": "it's"})
    assert time.process_time() - start < 2.0
    lines = text.splitlines() or [""]
    for error in script.errors:
        assert isinstance(error, Invalid)
        assert re.fullmatch(r"MR1[09]\d\d", error.code)
        assert error.position is not None
        assert 1 <= error.position.line <= len(lines) + 1
        assert error.position.column >= 1
        assert error.message[0].islower() or not error.message[0].isalpha() or error.message[:2].isupper()
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
    for statement in script.statements:
        assert isinstance(statement, Statement)
        assert 1 <= statement.position.line <= len(lines)
        if isinstance(statement, (SelectStatement, InsertQuery, CreateQuery)):
            assert position_of(statement.query) is not None
            repr(statement.query)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutations())
def test_mutated_sql_is_a_statement_or_a_coded_error(text: str) -> None:
    check(text)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_statement_or_a_coded_error(text: str) -> None:
    check(text)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_any_pieces_are_a_statement_or_a_coded_error(pieces: list[str]) -> None:
    check(" ".join(pieces))


def test_the_corpus_is_valid() -> None:
    for text in CORPUS:
        assert parse_script(text, {"B": "x"}).errors == (), text


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([t for t in CORPUS if t.startswith(("SELECT", "WITH"))]),
    st.randoms(use_true_random=False),
)
def test_case_space_and_comments_change_nothing(text: str, random: object) -> None:
    plain = parse_statement(text)
    prepared, _ = prepare(text, {})
    parts = []
    previous = 0
    for token in tokenize(prepared):
        written = prepared.prepared[token.start : token.stop]
        gap = prepared.prepared[previous : token.start]
        if gap:
            gap = random.choice([" ", "\n", "\t ", " /* c */ ", " -- c\n"])  # type: ignore[attr-defined]
        if token.kind is Kind.WORD and written.isupper():
            written = random.choice([written.lower(), written, written.title()])  # type: ignore[attr-defined]
        parts.append(gap + written)
        previous = token.stop
    changed = parse_statement("".join(parts))
    assert isinstance(plain, SelectStatement)
    assert isinstance(changed, SelectStatement)
    assert repr(changed.query).lower() == repr(plain.query).lower()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["a", "${X}", "'${X}'", "\n", "'s'", "kafka://h/t", "FROM kafka://h/t", "$$ ${X} $$", "-- ${X}\n"]
        )
    )
)
def test_places_of_tokens_are_places_in_the_text(parts: list[str]) -> None:
    text = " ".join(parts)
    try:
        tokens = tokenize(prepare(text, {"X": "value"})[0])
    except MillraceError:
        return
    lines = text.split("\n")
    for token in tokens:
        here = lines[token.line - 1][token.column - 1 :]
        if token.kind is Kind.WORD:
            assert here.startswith((token.text, "${X}"))
        elif token.kind is Kind.STRING:
            assert here.startswith(("'", "kafka"))
