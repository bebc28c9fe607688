"""What was dropped is over: its readers end, and what is created under its name later gives them nothing."""

import millrace


def test_readers_of_a_dropped_source_end() -> None:
    with millrace.connect() as db:
        db.execute("CREATE SOURCE p (b STRING) WITH ('connector' = 'push')")
        old = db.subscribe("SELECT upper(b) AS b FROM p", "rows")
        db.push("p", {"b": "x"})
        db.execute("DROP SOURCE p")
        assert list(old) == [{"b": "X"}]


def test_a_source_of_the_same_name_gives_nothing_to_readers_of_the_former() -> None:
    with millrace.connect() as db:
        db.execute("CREATE SOURCE p (b STRING) WITH ('connector' = 'push')")
        old = db.subscribe("SELECT upper(b) AS b FROM p", "rows")
        db.execute("DROP SOURCE p; CREATE SOURCE p (b INT) WITH ('connector' = 'push')")
        new = db.subscribe("SELECT b + 1 AS b FROM p", "rows")
        assert db.push("p", {"b": 1}) == 1
        db.end("p")
        assert (list(old), list(new)) == ([], [{"b": 2}])


def test_a_table_of_the_same_name_takes_each_row_once() -> None:
    with millrace.connect() as db:
        db.execute("CREATE TABLE t (a INT)")
        old = db.subscribe("t", "rows")
        db.execute("INSERT INTO t VALUES (1)")
        db.execute("DROP TABLE t; CREATE TABLE t (a INT); INSERT INTO t VALUES (2)")
        new = db.subscribe("t", "rows")
        assert db.query("SELECT a FROM t").tuples() == [(2,)]
        assert [row["a"] for row in old] == [1]
        db.end("t")
        assert [row["a"] for row in new] == [2]


def test_a_query_that_inserts_writes_into_the_present_table_alone() -> None:
    with millrace.connect() as db:
        db.execute("CREATE TABLE t (a INT)")
        old = db.subscribe("t", "rows")
        db.execute("DROP TABLE t; CREATE TABLE t (a INT)")
        db.execute("CREATE SOURCE s (a INT) WITH ('connector' = 'push'); INSERT INTO t SELECT a FROM s")
        db.push("s", {"a": 3})
        assert db.query("SELECT a FROM t").tuples() == [(3,)]
        assert list(old) == []
