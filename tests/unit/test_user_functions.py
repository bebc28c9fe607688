"""Functions that users write in Python: declared in SQL and from Python, called, replaced, dropped, refused."""

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import millrace
from millrace.database import Database
from millrace.errors import Invalid, MillraceError

TICKS = "CREATE SOURCE ticks (symbol STRING, price BIGINT) WITH ('connector' = 'push')"
TWICE = """
    CREATE FUNCTION twice (a BIGINT) RETURNS BIGINT LANGUAGE PYTHON AS $$
    import pyarrow.compute as pc

    def twice(a):
        return pc.multiply(a, 2)
    $$
"""
SPAN = """
    CREATE AGGREGATE FUNCTION span (a BIGINT) RETURNS BIGINT LANGUAGE PYTHON AS $$
    import pyarrow.compute as pc

    class Span:
        def __init__(self):
            self.values = []
        def accumulate(self, a):
            self.values += a.to_pylist()
        def retract(self, a):
            for value in a.to_pylist():
                self.values.remove(value)
        def result(self):
            return max(self.values) - min(self.values)
    $$
"""


@pytest.fixture
def db() -> Iterator[Database]:
    with millrace.connect() as database:
        yield database


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    made = types.ModuleType("millrace_test_functions")
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def prices(db: Database, *values: int) -> None:
    db.push("ticks", [{"symbol": "a", "price": value} for value in values])


def refusal(db: Database, sql: str) -> MillraceError:
    with pytest.raises(MillraceError) as caught:
        db.execute(sql)
    return caught.value


def test_function_with_its_source_in_sql(db: Database) -> None:
    db.execute(TICKS + ";" + TWICE)
    rows = db.subscribe("SELECT twice(price) AS p FROM ticks WHERE twice(price) > 2", "rows")
    prices(db, 1, 2, 3)
    assert [rows.poll(), rows.poll(), rows.poll()] == [{"p": 4}, {"p": 6}, None]


def test_function_found_in_a_module(db: Database, module: types.ModuleType) -> None:
    module.shout = lambda text: pc.utf8_upper(text)  # type: ignore[attr-defined]
    db.execute(TICKS)
    db.execute(
        "CREATE FUNCTION shout (STRING) RETURNS STRING LANGUAGE PYTHON AS 'millrace_test_functions:shout'"
    )
    rows = db.subscribe("SELECT shout(symbol) AS s FROM ticks", "rows")
    prices(db, 1)
    assert rows.poll() == {"s": "A"}


def test_arguments_are_cast_to_the_declared_types_and_so_is_the_result(db: Database) -> None:
    db.register_function("half", lambda a: pc.divide(a, 2.0), ["DOUBLE"], pa.float32())
    result = db.query("SELECT half(3) AS h, half(NULL) AS n")
    assert result.rows() == [{"h": 1.5, "n": None}]
    assert result.schema.field("h").type == pa.float32()


def test_function_registered_from_python_takes_several_arrays(db: Database) -> None:
    db.execute(TICKS)
    db.register_function("weigh", pc.add, [pa.int64(), "BIGINT"], "BIGINT")
    rows = db.subscribe("SELECT weigh(price, 10) AS w FROM ticks", "rows")
    prices(db, 1)
    assert rows.poll() == {"w": 11}


def test_aggregate_with_its_source_in_sql(db: Database) -> None:
    db.execute(TICKS + ";" + SPAN)
    db.execute("CREATE TABLE spans AS SELECT symbol, span(price) AS s FROM ticks GROUP BY symbol")
    prices(db, 5, 1)
    prices(db, 9)
    assert db.query("SELECT * FROM spans").tuples() == [("a", 8)]


def test_aggregate_of_an_aggregate_takes_rows_back(db: Database) -> None:
    db.execute(TICKS + ";" + SPAN)
    db.execute("CREATE TABLE totals AS SELECT symbol, sum(price) AS total FROM ticks GROUP BY symbol")
    db.execute("CREATE TABLE spread AS SELECT span(total) AS s FROM totals")
    db.push("ticks", [{"symbol": "a", "price": 1}, {"symbol": "b", "price": 4}])
    prices(db, 10)
    assert db.query("SELECT * FROM spread").tuples() == [(7,)]


def test_aggregate_registered_from_python(db: Database) -> None:
    class Longest:
        def __init__(self) -> None:
            self.found = ""

        def accumulate(self, words: pa.Array) -> None:
            self.found = max([self.found, *words.to_pylist()], key=len)

        def result(self) -> str:
            return self.found

    db.execute(TICKS)
    db.register_aggregate("longest", Longest, ["STRING"], "STRING")
    db.execute("CREATE TABLE t AS SELECT longest(symbol) AS l FROM ticks")
    db.push("ticks", [{"symbol": s, "price": 1} for s in ("a", "ccc", "bb")])
    assert db.query("SELECT * FROM t").tuples() == [("ccc",)]


def test_error_in_a_function_is_a_row_error(db: Database) -> None:
    def broken(values: pa.Array) -> pa.Array:
        raise RuntimeError("no luck")

    db.execute(TICKS)
    db.register_function("broken", broken, ["BIGINT"], "BIGINT")
    rows = db.subscribe("SELECT broken(price) AS b FROM ticks", "rows")
    prices(db, 1)
    assert rows.poll() is None
    (letter,) = db.dead_letters().rows()
    assert "no luck" in str(letter["reason"])


def test_show_functions_lists_it_and_drop_forgets_it(db: Database) -> None:
    db.execute(TWICE)
    assert "twice(BIGINT) -> BIGINT" in db.execute("SHOW FUNCTIONS LIKE 'twi%'").tuples()[0]
    db.execute("DROP FUNCTION twice")
    assert db.execute("SHOW FUNCTIONS LIKE 'twi%'").tuples() == []
    error = refusal(db, "SELECT twice(1)")
    assert error.code == "MR1210"
    db.execute("DROP FUNCTION IF EXISTS twice")
    assert refusal(db, "DROP FUNCTION twice").code == "MR1201"


def test_function_in_use_is_neither_dropped_nor_replaced(db: Database) -> None:
    db.execute(TICKS + ";" + TWICE)
    db.execute("CREATE STREAM doubled AS SELECT twice(price) AS p FROM ticks")
    error = refusal(db, "DROP FUNCTION twice")
    assert (error.code, "stream doubled" in error.message) == ("MR1206", True)
    assert refusal(db, TWICE.replace("CREATE", "CREATE OR REPLACE")).code == "MR1204"
    db.execute("DROP FUNCTION twice CASCADE")
    assert db.execute("SHOW STREAMS").tuples() == []


def test_replaced_function_is_what_later_queries_call(db: Database) -> None:
    db.execute(TWICE)
    assert refusal(db, TWICE).code == "MR1202"
    db.execute(TWICE.replace("FUNCTION", "FUNCTION IF NOT EXISTS").replace("2", "5"))
    assert db.query("SELECT twice(1)").tuples() == [(2,)]
    db.execute(TWICE.replace("CREATE", "CREATE OR REPLACE").replace("2", "3"))
    assert db.query("SELECT twice(1)").tuples() == [(3,)]


def test_two_databases_keep_their_functions_apart(db: Database) -> None:
    db.register_function("own", lambda a: pc.add(a, 1), ["BIGINT"], "BIGINT")
    with millrace.connect() as other:
        assert refusal(other, "SELECT own(1)").code == "MR1210"
        other.register_function("own", lambda a: pc.add(a, 2), ["BIGINT"], "BIGINT")
        assert db.query("SELECT own(1)").tuples() == [(2,)]
        assert other.query("SELECT own(1)").tuples() == [(3,)]


def test_explain_and_validate_leave_no_function_behind(db: Database) -> None:
    db.execute(TICKS)
    assert "twice" in db.explain(TWICE + "; SELECT twice(price) FROM ticks")
    assert db.planner.validate(TWICE + "; SELECT twice(price) FROM ticks") == ()
    assert refusal(db, "SELECT twice(1)").code == "MR1210"


def test_wrong_arguments_of_a_call_are_refused_with_the_form(db: Database) -> None:
    db.execute(TWICE)
    error = refusal(db, "SELECT twice(1, 2)")
    assert error.code == "MR1211" and "twice(BIGINT) -> BIGINT" in str(error.hint)
    assert error.position is not None and error.position.column == 8


@pytest.mark.parametrize(
    ("declared", "code", "says"),
    [
        ("f (a INT) RETURNS INT LANGUAGE PYTHON AS 'no_such_module:f'", "MR1220", "no_such_module"),
        ("f (a INT) RETURNS INT LANGUAGE PYTHON AS 'math:no_such'", "MR1221", "no_such"),
        ("f (a INT) RETURNS INT LANGUAGE PYTHON AS 'math:pi'", "MR1221", "float"),
        ("f (a INT) RETURNS INT LANGUAGE PYTHON AS $$ def f(: $$", "MR1222", "SyntaxError in line 1"),
        ("f (a INT) RETURNS INT LANGUAGE PYTHON AS $$ 1 / 0 $$", "MR1222", "ZeroDivisionError"),
        ("f (a INT) RETURNS INT LANGUAGE PYTHON AS $$ x = 1 $$", "MR1221", "no function"),
        ("f (a INT) RETURNS INT LANGUAGE PYTHON AS $$ def f(a, b): pass $$", "MR1223", "(a, b)"),
        ("f () RETURNS INT LANGUAGE PYTHON AS $$ def f(): pass $$", "MR1212", "no parameters"),
        ("upper (a INT) RETURNS INT LANGUAGE PYTHON AS $$ def upper(a): pass $$", "MR1212", "built-in"),
        ("sum (a INT) RETURNS INT LANGUAGE PYTHON AS $$ def sum(a): pass $$", "MR1212", "built-in"),
        ("rank (a INT) RETURNS INT LANGUAGE PYTHON AS $$ def rank(a): pass $$", "MR1212", "built-in"),
    ],
)
def test_what_is_wrong_with_a_function_is_said_at_its_declaration(
    db: Database, declared: str, code: str, says: str
) -> None:
    error = refusal(db, f"CREATE FUNCTION {declared}")
    assert error.code == code
    assert says in error.message
    assert error.position is not None and error.position.column == 17


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("class f: pass", "no method accumulate"),
        ("class f:\n  def __init__(self, x): pass", "makes no state"),
        ("class f:\n  def accumulate(self): pass\n  def result(self): pass", "declared with 1 parameter"),
    ],
)
def test_what_is_wrong_with_an_aggregate_is_said_at_its_declaration(
    db: Database, body: str, says: str
) -> None:
    error = refusal(db, f"CREATE AGGREGATE FUNCTION f (a INT) RETURNS INT LANGUAGE PYTHON AS $${body}$$")
    assert error.code == "MR1223" and says in error.message


def test_wrong_type_in_register_function(db: Database) -> None:
    with pytest.raises(Invalid) as caught:
        db.register_function("f", lambda a: a, ["INTEGR"], "INT")
    assert caught.value.code == "MR1020"


def test_script_finds_functions_in_a_module_of_the_path(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "millrace_path_functions.py").write_text("def same(a):\n    return a\n")
    monkeypatch.syspath_prepend(tmp_path)
    db.execute(
        "CREATE FUNCTION same (a INT) RETURNS INT LANGUAGE PYTHON AS 'millrace_path_functions:same';"
        "CREATE TABLE t AS SELECT same(3) AS s"
    )
    db.wait(5)
    assert db.query("SELECT * FROM t").tuples() == [(3,)]


def test_the_state_of_an_aggregate_given_as_source_is_captured() -> None:
    with millrace.connect() as db:
        db.execute(TICKS)
        db.execute(SPAN)
        db.execute("CREATE TABLE spans AS SELECT symbol, span(price) AS s FROM ticks GROUP BY symbol")
        prices(db, 3, 9)
        captured = db._runtime.dataflow.capture(changes=False)
    assert any(tables for tables in captured.operators.values())
