"""Every kind of statement and clause that the dialect reads is executed, or refused with a code of its own."""

import dataclasses
import inspect

import pytest

import millrace
from millrace.errors import Invalid, MillraceError, Unsupported
from millrace.planner import statements
from millrace.planner.dialect import nodes
from millrace.planner.script import parse_script
from millrace.planner.statements import Statement

SETUP = """
    CREATE SOURCE s (k STRING, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts) WITH ('connector' = 'push');
    CREATE TABLE t (k STRING, v BIGINT, PRIMARY KEY (k));
"""
DONE, REFUSED, WANTING = "done", "refused", "wanting"
STATEMENTS = [
    ("CREATE SOURCE x (a INT) WITH ('connector' = 'push')", DONE),
    ("CREATE STREAM x AS SELECT k FROM s", DONE),
    ("CREATE VIEW x AS SELECT k FROM s", DONE),
    ("CREATE LOOKUP TABLE x (a INT, PRIMARY KEY (a)) FROM POSTGRES (url = 'u', table = 't')", REFUSED),
    ("CREATE SINK x FROM s INTO BLACKHOLE ()", DONE),
    ("INSERT INTO t SELECT k, v FROM s", DONE),
    ("INSERT INTO t VALUES ('a', 1)", DONE),
    ("UPDATE t SET v = 1", DONE),
    ("DELETE FROM t", DONE),
    ("SELECT 1", DONE),
    ("DROP TABLE t", DONE),
    ("ALTER SOURCE s ADD COLUMN z INT", DONE),
    ("SHOW TABLES", DONE),
    ("SHOW JOBS", REFUSED),
    ("DESCRIBE s", DONE),
    ("EXPLAIN SELECT k FROM s", DONE),
    ("EXPLAIN (FORMAT JSON) SELECT k FROM s", DONE),
    ("EXPLAIN ANALYZE SELECT k FROM t", DONE),
    ("SET bad_rows = 'skip'", DONE),
    ("CHECKPOINT", WANTING),
    ("RESTORE FROM CHECKPOINT 3", REFUSED),
    ("SUBSCRIBE s", DONE),
    ("START JOB j AS SELECT 1", REFUSED),
    ("STOP JOB j", REFUSED),
    ("CREATE FUNCTION x (a INT) RETURNS INT LANGUAGE PYTHON AS $$ def x(a): return a $$", DONE),
]
QUERIES = {
    "NamedArgument": ("SELECT k FROM TABLE(TUMBLE(DATA => TABLE s, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '1' MINUTE))", DONE),
    "TypeName": ("SELECT CAST(k AS INT) AS c FROM s", DONE),
    "Interval": ("SELECT ts + INTERVAL '1' DAY AS d FROM s", DONE),
    "WindowTable": ("SELECT k, window_start FROM TUMBLE(s, ts, INTERVAL '1' MINUTE)", DONE),
    "GroupWindow": ("SELECT count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)", DONE),
    "WindowBound": ("SELECT TUMBLE_START(ts, INTERVAL '1' MINUTE) AS w FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)", DONE),
    "Emit": ("SELECT k, count(*) AS n FROM s GROUP BY k EMIT EVERY INTERVAL '1' SECOND", DONE),
    "AllowLateness": ("SELECT count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE) ALLOW LATENESS INTERVAL '1' MINUTE", DONE),
    "LateDataTo": ("SELECT count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE) LATE DATA TO late", DONE),
    "RowsWindow": ("SELECT sum(v) OVER (ROWS WINDOW BUFFER 10 ROWS PARTITION BY k) AS n FROM s", DONE),
    "InlineSource": ("SELECT * FROM 'postgres://db/t'", REFUSED),
    "MatchRecognize": ("SELECT * FROM s MATCH_RECOGNIZE (ORDER BY ts MEASURES A.v AS x PATTERN (A) DEFINE A AS v > 1)", DONE),
    "MeasureFrame": ("SELECT * FROM s MATCH_RECOGNIZE (ORDER BY ts MEASURES FINAL LAST(v) AS x PATTERN (A) DEFINE A AS v > 1)", DONE),
    "TableCall": ("SELECT * FROM TABLE(generate_series(1, 3))", DONE),
    "Probe": ("SELECT 1 FROM s TEMPORAL PROBE JOIN s AS r ON (k) LIST (1s)", DONE),
    "Within": ("SELECT a.k FROM s a JOIN s b ON a.k = b.k WITHIN INTERVAL '5' MINUTE", DONE),
    "SystemTime": ("SELECT a.k FROM s a JOIN s FOR SYSTEM_TIME AS OF a.ts AS b ON a.k = b.k", None),
    "AsofMatch": ("SELECT a.k FROM s a ASOF JOIN s b MATCH_CONDITION (a.ts >= b.ts) ON a.k = b.k", None),
    "Call": ("SELECT upper(k) AS u FROM s", DONE),
}  # fmt: skip
CLAUSES = [
    ("SELECT k FROM s EXCEPT SELECT k FROM t", DONE),
    ("SELECT k FROM s INTERSECT SELECT k FROM t", DONE),
    ("SELECT DISTINCT ON (k) k, v FROM s", DONE),
    ("SELECT k FROM s TABLESAMPLE (3)", REFUSED),
    ("SELECT FINAL max(v) AS m FROM s", REFUSED),
    ("SELECT * FROM s MATCH_RECOGNIZE (ORDER BY ts PATTERN (A) DEFINE A AS max(k) > 'a')", REFUSED),
    (
        "SELECT * FROM s MATCH_RECOGNIZE (ORDER BY ts MEASURES max(v) FILTER (WHERE v > 1) AS m PATTERN (A) DEFINE A AS v > 1)",
        REFUSED,
    ),
    ("WITH RECURSIVE r AS (SELECT 1) SELECT * FROM r", REFUSED),
    (
        "CREATE STREAM x WITH ('late.data.strategy' = 'include_in_next') AS SELECT count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)",
        DONE,
    ),
    (
        "CREATE STREAM x WITH ('late.data.strategy' = 'update_previous', 'allowed.lateness' = '1h') AS SELECT count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)",
        DONE,
    ),
    ("CREATE STREAM x WITH ('late.data.strategy' = 'drop') AS SELECT k FROM s", DONE),
    ("INSERT INTO t SELECT k, v FROM s WITH ('state.ttl' = '1h')", REFUSED),
]


def outcome(sql: str) -> str:
    with millrace.connect() as db:
        db.execute(SETUP)
        try:
            if sql.startswith(("SELECT", "WITH")) and sql != "SELECT 1":
                db.execute(f"CREATE STREAM tried AS {sql}; EXPLAIN SELECT * FROM tried")
            else:
                db.execute(sql)
        except Unsupported as error:
            assert error.code.startswith("MR19"), error
            assert error.position is not None, error
            return REFUSED
        except Invalid as error:
            assert error.code == "MR1560", error  # a database without a place for checkpoints
            return WANTING
        return DONE


@pytest.mark.parametrize(
    ("sql", "expected"), STATEMENTS + list(QUERIES.values()) + CLAUSES, ids=lambda v: str(v)[:50]
)
def test_is_executed_or_refused(sql: str, expected: str | None) -> None:
    """Expected None: not yet settled; either, but nothing else."""
    assert outcome(sql) in ((DONE, REFUSED) if expected is None else (expected,))


def test_every_kind_of_statement_is_tried() -> None:
    kinds = {
        name
        for name, cls in vars(statements).items()
        if inspect.isclass(cls) and issubclass(cls, Statement) and cls is not Statement
    }
    tried = {type(parse_script(sql, {}).statements[0]).__name__ for sql, _ in STATEMENTS}
    assert tried == kinds


def test_every_node_of_the_dialect_is_tried() -> None:
    kinds = {
        name
        for name, cls in vars(nodes).items()
        if inspect.isclass(cls)
        and cls.__module__ == nodes.__name__
        and not dataclasses.is_dataclass(cls)
        and not name.startswith("_")
        and name != "WindowFields"
    }
    assert set(QUERIES) == kinds


def test_dead_letter_strategy_keeps_late_rows_in_a_table() -> None:
    with millrace.connect() as db:
        db.execute(SETUP)
        db.execute(
            "CREATE TABLE counts WITH ('late.data.strategy' = 'dead_letter') AS "
            "SELECT window_start, count(*) AS n FROM s GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)"
        )
        for ts in ("2026-01-01T00:00:01", "2026-01-01T00:02:00", "2026-01-01T00:00:02"):
            db.push("s", {"k": "a", "v": 1, "ts": ts})
        assert db.query("SELECT n FROM counts").tuples() == [(1,)]
        assert db.query("SELECT count(*) FROM counts_late").tuples() == [(1,)]
        with pytest.raises(MillraceError) as caught:
            db.execute("CREATE TABLE x WITH ('late.data.strategy' = 'dead_letter') AS SELECT k FROM s")
        assert caught.value.code == "MR1324"


def test_defaults_of_a_job_are_said_by_explain() -> None:
    with millrace.connect() as db:
        db.execute(SETUP)
        shown = db.explain("-- @job_name: j\n-- @batch_size: 9\nSELECT k FROM s")
    assert shown.splitlines()[-1] == "for run and submit: @job_name, @batch_size"
