"""Scripts: splitting, variables, annotations, places, and every error of a text at once."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from millrace.errors import Invalid, Position
from millrace.planner.script import parse_script, parse_statement
from millrace.planner.statements import InsertQuery, SelectStatement


def texts(sql: str, **variables: str) -> list[str]:
    script = parse_script(sql, variables)
    assert script.errors == ()
    return [statement.text for statement in script.statements]


def test_semicolons_split_outside_strings_comments_and_bodies() -> None:
    sql = "SELECT ';' -- a; b\n; SELECT \"a;b\" /* ; */ ; SELECT $$ ; $$ ; SELECT $t$ ; $$ $t$"
    assert len(texts(sql)) == 4
    assert texts("") == texts(" ; ; -- nothing\n ;") == []


def test_a_statement_knows_its_text_and_place() -> None:
    script = parse_script("SELECT 1;\n\n  SELECT\n 2 ;")
    assert [s.position for s in script.statements] == [Position(1, 1, 6), Position(3, 3, 6)]
    assert script.statements[1].text == "SELECT\n 2"


def test_variables_are_filled_in() -> None:
    assert texts("SELECT * FROM ${T}", T="t") == ["SELECT * FROM t"]
    assert texts("SELECT '${A}-${B:-y}' FROM ${T:-t}", A="it's") == ["SELECT 'it''s-y' FROM t"]
    assert texts("SELECT ${A:-1} -- ${NOT_HERE}\n", A="") == ["SELECT 1"]
    assert texts("SELECT '$x', '{', $$ ${A} $$") == ["SELECT '$x', '{', $$ ${A} $$"]


def test_a_value_can_not_leave_its_string() -> None:
    statement = parse_statement("SELECT '${A}'", {"A": "x'; DROP TABLE t; --"})
    assert isinstance(statement, SelectStatement)
    assert statement.query.expressions[0].name == "x'; DROP TABLE t; --"


def test_places_hold_behind_variables() -> None:
    script = parse_script("SELECT '${LONG}', a\nFROM ${T} x y", {"LONG": "z" * 50, "T": "a_long_name"})
    (error,) = script.errors
    assert error.position == Position(2, 13, 1)
    (inside,) = parse_script("SELECT a FROM ${T}", {"T": "1"}).errors
    assert inside.position is not None
    assert (inside.position.line, inside.position.column) == (1, 15)


@pytest.mark.parametrize(
    ("sql", "code", "words"),
    [
        ("SELECT ${A}", "MR1003", "'A' is not set"),
        ("SELECT ${A:?give it a number}", "MR1004", "give it a number"),
        ("SELECT ${A", "MR1002", "does not end"),
        ("SELECT ${1x}", "MR1002", "no name"),
        ("SELECT '${A}'", "MR1003", "'A' is not set"),
    ],
)
def test_variables_that_can_not_be_filled_in(sql: str, code: str, words: str) -> None:
    script = parse_script(sql)
    assert script.statements == ()
    (error,) = script.errors
    assert error.code == code
    assert words in error.message
    assert error.position is not None
    assert error.position.line == 1


def test_annotations_stand_above() -> None:
    script = parse_script(
        "-- @job_name: fraud\n-- a comment @not_one\n-- @batch_size 100\n--@enable_dlq\n"
        "SELECT 1; -- @metric: total rows\nSELECT 2 -- @inside: no\n"
    )
    first, second = script.statements
    assert [(a.name, a.value) for a in first.annotations] == [
        ("job_name", "fraud"),
        ("batch_size", "100"),
        ("enable_dlq", ""),
    ]
    assert first.annotations[0].position.line == 1
    assert [(a.name, a.value) for a in second.annotations] == [("metric", "total rows")]


def test_every_error_is_found() -> None:
    script = parse_script(
        "SELEC 1;\nSELECT a FROM;\nSELECT 1;\nCREATE SORUCE x;\nSELECT ${NO};\nSELECT 'open"
    )
    assert len(script.statements) == 1
    lines = [error.position.line for error in script.errors if error.position]
    assert lines == [1, 2, 4, 5, 6]
    assert all(error.source_text and "^" in str(error) for error in script.errors)
    assert script.errors[2].hint == "did you mean SOURCE?"


def test_statement_sets() -> None:
    for opening in ("EXECUTE STATEMENT SET BEGIN", "BEGIN STATEMENT SET;", "STATEMENT SET BEGIN"):
        script = parse_script(f"{opening} INSERT INTO a SELECT 1; INSERT INTO b SELECT 2; END; SELECT 3")
        assert script.errors == ()
        kinds = [type(statement) for statement in script.statements]
        assert kinds == [InsertQuery, InsertQuery, SelectStatement]


@pytest.mark.parametrize(
    "sql",
    [
        "EXECUTE STATEMENT SET BEGIN INSERT INTO a SELECT 1;",
        "END;",
        "EXECUTE STATEMENT SET BEGIN SELECT 1; END;",
        "BEGIN STATEMENT SET; BEGIN STATEMENT SET; END;",
    ],
)
def test_statement_sets_that_can_not_be(sql: str) -> None:
    assert [error.code for error in parse_script(sql).errors] == ["MR1008"]


def test_one_statement() -> None:
    assert parse_statement("SELECT 1;").text == "SELECT 1"
    with pytest.raises(Invalid, match="found 2"):
        parse_statement("SELECT 1; SELECT 2")
    with pytest.raises(Invalid, match="found 0"):
        parse_statement("  ")


def test_unicode_names_strings_and_places() -> None:
    sql = "SELECT 'naïve 🎉', größe AS \"日本\" FROM t x y"
    (error,) = parse_script(sql).errors
    assert error.position == Position(1, len(sql), 1)


@pytest.mark.parametrize("opener", ["'", '"', "`", "/*", "$$", "$tag$"])
def test_what_does_not_end_is_shown_where_it_begins(opener: str) -> None:
    script = parse_script(f"SELECT 1;\nSELECT 2,\n  {opener} x")
    assert [statement.text for statement in script.statements] == ["SELECT 1"]
    (error,) = script.errors
    assert error.code == "MR1001"
    assert error.position is not None
    assert (error.position.line, error.position.column) == (3, 3)


def test_sqlglot_is_imported_when_it_is_needed() -> None:
    code = (
        "import sys, millrace.planner.script, millrace.planner.statements; sys.exit('sqlglot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": "src"}, check=False)
    assert done.returncode == 0


def test_a_hundred_lines_parse_in_a_tenth_of_a_second() -> None:
    block = (
        "CREATE SOURCE t{0} (\n  a INT NOT NULL,\n  b VARCHAR,\n  ts TIMESTAMP(3),\n"
        "  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND\n) FROM KAFKA (topic = 'x');\n"
        "CREATE STREAM s{0} AS\nSELECT a, count(*) AS n, sum(CASE WHEN b = 'x' THEN 1 ELSE 0 END) AS m\nFROM t{0}\n"
    )
    text = "".join(
        block.format(i) + f"GROUP BY a, TUMBLE(ts, INTERVAL '{i}' MINUTE);\n" for i in range(1, 11)
    )
    assert text.count("\n") >= 100
    parse_script(text)
    took = []
    for _ in range(5):
        start = time.process_time()
        assert parse_script(text).errors == ()
        took.append(time.process_time() - start)
    assert min(took) < 0.1
