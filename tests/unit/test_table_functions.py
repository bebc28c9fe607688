"""Table functions: users' in Python, of JSON and of series; what is shown, refused, and what does not compute."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import millrace
from millrace.database import Database
from millrace.errors import MillraceError

SOURCE = "CREATE SOURCE t (id BIGINT, s STRING, j JSON, PRIMARY KEY (id)) WITH ('connector' = 'push')"
PAIRS = """
    CREATE FUNCTION pairs (n BIGINT) RETURNS TABLE (x BIGINT, y STRING) LANGUAGE PYTHON AS $$
    import pyarrow as pa

    def pairs(n):
        kind = pa.list_(pa.struct([("y", pa.string()), ("x", pa.int32())]))
        return pa.array([[{"x": i, "y": str(v)} for i in range(v or 0)] for v in n.to_pylist()], kind)
    $$
"""


@pytest.fixture
def db() -> Iterator[Database]:
    with millrace.connect() as database:
        database.execute(SOURCE)
        yield database


def words(text: pa.Array) -> tuple[dict[str, pa.Array], pa.Array]:
    parts = pc.split_pattern(text, " ")
    flat = pc.list_flatten(parts)
    if "boom" in flat.to_pylist():
        raise RuntimeError("no booms")
    return {"word": flat, "size": pc.utf8_length(flat)}, pc.list_parent_indices(parts)


def push(db: Database, *texts: str | None) -> None:
    db.push("t", [{"id": at, "s": text, "j": text} for at, text in enumerate(texts)])


def answers(db: Database, query: str, *texts: str | None) -> list[tuple[object, ...]]:
    rows = db.subscribe(query, "rows")
    push(db, *texts)
    found = []
    while (row := rows.poll()) is not None:
        found.append(tuple(row.values()))
    return found


def refusal(db: Database, sql: str) -> MillraceError:
    with pytest.raises(MillraceError) as caught:
        db.execute(sql)
    return caught.value


def test_function_that_returns_rows_and_their_parents(db: Database) -> None:
    db.register_table_function("words", words, ["STRING"], {"word": "STRING", "size": "BIGINT"})
    query = "SELECT id, w, z FROM t, LATERAL TABLE(words(s)) AS u(w, z)"
    assert answers(db, query, "a bb", None, "c") == [(0, "a", 1), (0, "bb", 2), (2, "c", 1)]


def test_parents_in_any_order_are_put_in_order(db: Database) -> None:
    def backwards(text: pa.Array) -> tuple[pa.Table, list[int]]:
        return pa.table({"w": text[::-1]}), list(range(len(text)))[::-1]

    db.register_table_function("backwards", backwards, ["STRING"], pa.schema([("w", pa.string())]))
    query = "SELECT id, w, n FROM t LEFT JOIN LATERAL TABLE(backwards(s)) WITH ORDINALITY AS u(w, n) ON TRUE"
    assert answers(db, query, "a", "b") == [(0, "a", 1), (1, "b", 1)]


def test_function_declared_in_sql_that_returns_lists(db: Database) -> None:
    db.execute(PAIRS)
    query = "SELECT id, x, y FROM t LEFT JOIN pairs(id) AS u ON TRUE"
    assert answers(db, query, "a", "b", "c") == [(0, None, None), (1, 0, "1"), (2, 0, "2"), (2, 1, "2")]
    shown = db.execute("SHOW FUNCTIONS LIKE 'pairs'").arrow.to_pylist()
    assert [(r["signature"], r["kind"]) for r in shown] == [
        ("pairs(BIGINT) -> TABLE (x BIGINT, y STRING)", "table")
    ]


def test_a_row_at_which_the_function_raises_is_a_dead_letter(db: Database) -> None:
    db.register_table_function("words", words, ["STRING"], {"word": "STRING"})
    assert answers(db, "SELECT word FROM t, words(s)", "a", "x boom", "b c") == [("a",), ("b",), ("c",)]
    (dead,) = [r["dead_rows"] for r in db.metrics().arrow.to_pylist() if r["operator"] == "Expand"]
    assert dead == 1


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda a: 5, "returned a int"),
        (lambda a: ({"word": a}, [0] * (len(a) + 1)), "parents for"),
        (lambda a: ({"word": a}, [7] * len(a)), "none of the"),
        (lambda a: ({"word": a}, ["x"] * len(a)), "not integers"),
        (lambda a: ({"other": a}, list(range(len(a)))), "no column word"),
        (lambda a: pa.array([1] * len(a)), "an array of"),
    ],
)
def test_what_a_function_may_not_return(made: object, said: str) -> None:
    with millrace.connect() as db:
        db.execute(SOURCE)
        db.register_table_function("odd", made, ["STRING"], {"word": "STRING"})  # type: ignore[arg-type]
        rows = db.subscribe("SELECT word FROM t, odd(s)", "rows")
        with pytest.raises(MillraceError, match=said) as caught:
            push(db, "a", "b")
            rows.poll()
        assert caught.value.code == "MR2010"


def test_wrong_types_are_told(db: Database) -> None:
    db.register_table_function("odd", lambda a: ({"n": a}, range(len(a))), ["STRING"], {"n": "BIGINT"})
    rows = db.subscribe("SELECT n FROM t, odd(s)", "rows")
    with pytest.raises(MillraceError) as caught:
        push(db, "a")
        rows.poll()
    assert caught.value.code == "MR2011"


def test_a_function_that_is_read_is_not_dropped(db: Database) -> None:
    db.execute(PAIRS)
    db.execute("CREATE STREAM p AS SELECT id, x FROM t, pairs(id)")
    assert refusal(db, "DROP FUNCTION pairs").code == "MR1206"
    db.execute("DROP STREAM p; DROP FUNCTION pairs")
    assert refusal(db, "SELECT id FROM t, pairs(id)").code == "MR1210"


def test_elements_of_json(db: Database) -> None:
    texts = ['[1, "a", {"b": null}, 2.50]', "[]", None, "null"]
    found = answers(db, "SELECT id, e, n FROM t, UNNEST(j) WITH ORDINALITY AS u(e, n)", *texts)
    assert found == [(0, "1", 1), (0, '"a"', 2), (0, '{"b":null}', 3), (0, "2.50", 4)]
    query = "SELECT id, key, value FROM t LEFT JOIN json_each_text(j) AS u ON TRUE"
    assert answers(db, query, '{"a": "x", "b": [1]}', "{}") == [
        (0, "a", "x"),
        (0, "b", "[1]"),
        (1, None, None),
    ]


def test_text_that_is_no_json_array_is_a_dead_letter(db: Database) -> None:
    assert answers(db, "SELECT e FROM t, UNNEST(j) AS u(e)", "[1]", "{}", "[", "[2]") == [("1",), ("2",)]


def test_series_that_can_not_be(db: Database) -> None:
    query = "SELECT id, g FROM t, generate_series(1, 2, id) AS u(g)"
    assert answers(db, query, "a", "b", "c") == [(1, 1), (1, 2), (2, 1)]
    query = "SELECT id, g FROM t, generate_series(0, id * 9000000000000000000) AS u(g)"
    assert answers(db, query, "a", "b") == [(0, 0)]


def test_changes_are_carried_through(db: Database) -> None:
    db.execute("CREATE TABLE c AS SELECT s, count(*) AS n FROM t GROUP BY s")
    db.execute("CREATE TABLE e AS SELECT s, g FROM c, generate_series(1, n) AS u(g)")
    push(db, "a", "b", "a")
    push(db, "a")
    found = db.query("SELECT s, g FROM e").arrow.to_pylist()
    assert sorted((r["s"], r["g"]) for r in found) == [("a", 1), ("a", 2), ("a", 3), ("b", 1)]


def test_explain_shows_what_is_made(db: Database) -> None:
    text = db.explain(
        "SELECT id, x FROM t LEFT JOIN UNNEST(ARRAY[id, 5]) WITH ORDINALITY AS u(x, n) ON x > 4"
    )
    for line in (
        "each: unnest(",
        "with ordinality",
        "makes: unnest, ordinality",
        "where: ",
        "of none: the row stays",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT * FROM t, nope(s)", "MR1210"),
        ("SELECT * FROM t, UNNEST(id)", "MR1211"),
        ("SELECT * FROM t, generate_series(s, 1)", "MR1211"),
        ("SELECT * FROM t, UNNEST(ARRAY[id]) AS u(a, b)", "MR1109"),
        ("SELECT * FROM t, UNNEST(ARRAY[id]) AS t", "MR1113"),
        ("SELECT id FROM t WHERE unnest(ARRAY[id]) = 1", "MR1945"),
        ("SELECT id FROM t GROUP BY unnest(ARRAY[id])", "MR1134"),
        ("SELECT unnest(ARRAY[id], ARRAY[id]) FROM t", "MR1140"),
        ("SELECT * FROM t RIGHT JOIN UNNEST(ARRAY[id]) AS u(x) ON TRUE", "MR1141"),
        ("SELECT * FROM t JOIN UNNEST(ARRAY[id]) AS u(id) USING (id)", "MR1141"),
        ("SELECT * FROM t, generate_series(a => 1, b => 2)", "MR1124"),
        (
            "SELECT * FROM t LEFT JOIN LATERAL (SELECT count(*) AS n FROM t AS o WHERE o.id = t.id) AS l ON n > 1",
            "MR1903",
        ),
        ("CREATE FUNCTION f (a INT) RETURNS TABLE (x INT, X INT) LANGUAGE PYTHON AS 'json:loads'", "MR1225"),
        ("CREATE AGGREGATE FUNCTION f (a INT) RETURNS TABLE (x INT) LANGUAGE PYTHON AS 'a:b'", "MR1070"),
        (
            "CREATE FUNCTION unnest (a INT) RETURNS TABLE (x INT) LANGUAGE PYTHON AS 'json:loads'",
            "MR1212",
        ),
    ],
)
def test_what_is_refused(db: Database, sql: str, code: str) -> None:
    assert refusal(db, sql).code == code
