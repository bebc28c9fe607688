"""Statements: every spelling gives the values it means; what contradicts itself or is unknown is refused."""

from __future__ import annotations

import dataclasses

import pyarrow as pa
import pytest
from sqlglot import exp

from millrace.errors import Invalid, Position, Unsupported
from millrace.planner.script import parse_statement
from millrace.planner.statements import (
    Alter,
    Checkpoint,
    Connector,
    CreateFunction,
    CreateLookup,
    CreateQuery,
    CreateSink,
    CreateSource,
    Delete,
    Describe,
    Drop,
    Explain,
    InsertQuery,
    InsertValues,
    JobAction,
    JobControl,
    ObjectKind,
    Option,
    QueryKind,
    Restore,
    Role,
    SelectStatement,
    SetVariable,
    Show,
    ShowKind,
    SourceKind,
    Statement,
    Subscribe,
    Update,
)


def source(sql: str) -> CreateSource:
    statement = parse_statement(sql)
    assert isinstance(statement, CreateSource)
    return statement


def settings(options: tuple[Option, ...]) -> dict[str, str]:
    return {option.name: option.value for option in options}


def plain(connector: Connector | None) -> tuple[str, dict[str, str], str | None]:
    assert connector is not None
    return connector.name, settings(connector.options), connector.format


KAFKA = ("kafka", {"bootstrap.servers": "h:9092", "topic": "trades", "retries": "3"}, "json")


@pytest.mark.parametrize(
    "tail",
    [
        "FROM KAFKA (bootstrap.servers = 'h:9092', topic = trades, retries = 3) FORMAT JSON",
        "FROM KAFKA ('bootstrap.servers' = 'h:9092', 'topic' = 'trades', retries = '3', format = json)",
        "FROM kafka_source (\"bootstrap.servers\" = 'h:9092', topic => 'trades', retries = 3) FORMAT json",
        "FROM KAFKA (bootstrap.servers = 'h:9092', topic = trades, retries = 3) FORMAT PLAIN ENCODE JSON",
        "WITH ('connector' = 'kafka', 'bootstrap.servers' = 'h:9092', 'topic' = 'trades', 'retries' = 3, 'format' = 'json')",
        "WITH (type = 'kafka_source', bootstrap.servers = 'h:9092', topic = trades, retries = 3) FORMAT JSON",
        "FORMAT JSON WITH ('connector' = 'kafka', 'bootstrap.servers' = 'h:9092', 'topic' = 'trades', 'retries' = '3')",
    ],
)
def test_spellings_of_a_connector(tail: str) -> None:
    for start in ("CREATE SOURCE trades", "CREATE SOURCE trades (a INT)", "CREATE TABLE trades (a INT)"):
        assert plain(source(f"{start} {tail}").connector) == KAFKA


def test_a_source_with_everything() -> None:
    found = source(
        "CREATE OR REPLACE SOURCE IF NOT EXISTS db.Trades (\n"
        "  sym VARCHAR(10) NOT NULL,\n"
        "  dateTime TIMESTAMP(3),\n"
        "  price DECIMAL(10, 2) COMMENT 'in euro',\n"
        "  notional AS price * 2,\n"
        "  part BIGINT METADATA FROM 'partition' VIRTUAL,\n"
        "  off BIGINT METADATA,\n"
        "  WATERMARK FOR datetime AS dateTime - INTERVAL '5' SECOND,\n"
        "  PRIMARY KEY (sym, dateTime) NOT ENFORCED\n"
        ") FROM KAFKA (topic = 'x')"
    )
    assert (found.kind, str(found.name), found.or_replace, found.if_not_exists) == (
        SourceKind.SOURCE,
        "db.Trades",
        True,
        True,
    )
    assert [column.name for column in found.columns] == [
        "sym",
        "dateTime",
        "price",
        "notional",
        "part",
        "off",
    ]
    sym, at, price, notional, part, off = found.columns
    assert sym.not_null
    assert at.type is not None
    assert at.type.arrow == pa.timestamp("ms")
    assert price.type is not None
    assert price.type.arrow == pa.decimal64(10, 2)
    assert notional.type is None
    assert isinstance(notional.computed, exp.Mul)
    assert (part.metadata_key, part.virtual, off.metadata_key) == ("partition", True, "off")
    assert found.watermark is not None
    assert (found.watermark.column, found.watermark.delay_us) == ("datetime", 5_000_000)
    assert (found.primary_key, found.enforced) == (("sym", "dateTime"), False)
    assert price.position == Position(4, 3, 5)


@pytest.mark.parametrize(
    ("clause", "delay"),
    [
        ("WATERMARK FOR ts", None),
        ("WATERMARK FOR ts AS ts", 0),
        ("WATERMARK FOR ts AS ts - INTERVAL '250' MILLISECOND", 250_000),
        ("WATERMARK FOR ts AS ts - 5s", 5_000_000),
        ("WATERMARK FOR ts AS ts - INTERVAL '0' SECOND", 0),
        ("WATERMARK FOR ts AS to_timestamp(ts) - INTERVAL '1' SECOND", None),
    ],
)
def test_watermarks(clause: str, delay: int | None) -> None:
    found = source(f"CREATE SOURCE t (ts TIMESTAMP, {clause}) WITH (connector = push)").watermark
    assert found is not None
    assert found.delay_us == delay
    assert (found.expression is None) == (clause == "WATERMARK FOR ts")


def test_tables_of_ours_and_generated_columns() -> None:
    table = source("CREATE TABLE t (id BIGINT PRIMARY KEY, v DOUBLE GENERATED ALWAYS AS (id * 2) STORED)")
    assert table.connector is None
    assert table.primary_key == ("id",)
    assert table.columns[1].computed is not None
    inline = source("CREATE SOURCE t FROM 'file://./x.csv' FORMAT CSV (header = true)")
    assert plain(inline.connector) == ("file", {"uri": "file://./x.csv"}, "csv")
    assert inline.connector is not None
    assert settings(inline.connector.format_options) == {"header": "true"}


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("STREAM", QueryKind.STREAM),
        ("VIEW", QueryKind.VIEW),
        ("TABLE", QueryKind.TABLE),
        ("MATERIALIZED VIEW", QueryKind.TABLE),
        ("CONTINUOUS QUERY", QueryKind.CONTINUOUS),
    ],
)
def test_named_queries(words: str, kind: QueryKind) -> None:
    found = parse_statement(f"create or replace {words} if not exists S as select a from t emit changes")
    assert isinstance(found, CreateQuery)
    assert (found.kind, str(found.name), found.or_replace, found.if_not_exists) == (kind, "S", True, True)
    assert found.query.args["emit"] is not None
    named = parse_statement(f"CREATE {words} s (x, y) WITH ('state.ttl' = '1h') AS SELECT a, b FROM t")
    assert isinstance(named, CreateQuery)
    assert named.column_names == ("x", "y")
    assert settings(named.options) == {"state.ttl": "1h"}


@pytest.mark.parametrize("start", ["CREATE STREAM s AS ", "INSERT INTO s ", ""])
def test_changes_by_record_are_a_kind_of_emission(start: str) -> None:
    query = "SELECT k, count(*) FROM t GROUP BY k, TUMBLE(ts, 1m) EMIT CHANGES"
    found = parse_statement(f"{start}{query} WITH ('changes' = 'every_record')")
    assert isinstance(found, (CreateQuery, InsertQuery, SelectStatement))
    assert found.options == ()
    assert found.query.args["emit"].args["mode"] == "every_record"


def test_connectors_on_a_query() -> None:
    found = parse_statement(
        "CREATE STREAM s AS SELECT * FROM t EMIT CHANGES WITH ('t.type' = 'kafka_source', 't.topic.name' = 'in',"
        " 't.format' = 'json', 's.type' = 'kafka_sink', 's.topic.name' = 'out', 'late.data.strategy' = 'drop')"
    )
    assert isinstance(found, CreateQuery)
    assert settings(found.options) == {"late.data.strategy": "drop"}
    into, out = found.connectors
    assert (into.name, into.role, plain(into.connector)) == (
        "t",
        Role.SOURCE,
        ("kafka", {"topic.name": "in"}, "json"),
    )
    assert (out.name, out.role, plain(out.connector)) == (
        "s",
        Role.SINK,
        ("kafka", {"topic.name": "out"}, None),
    )
    bare = parse_statement("SELECT * FROM t WITH ('t.type' = 'file_source', 't.path' = 'x.csv')")
    assert isinstance(bare, SelectStatement)
    assert plain(bare.connectors[0].connector) == ("file", {"path": "x.csv"}, None)


def test_lookup_tables() -> None:
    declared = parse_statement(
        "CREATE LOOKUP TABLE d (id INT, name STRING, PRIMARY KEY (id))"
        " WITH ('connector' = 'postgres', 'strategy' = 'on-demand', 'cache.ttl' = '10m')"
    )
    assert isinstance(declared, CreateLookup)
    assert declared.primary_key == ("id",)
    assert plain(declared.connector) == ("postgres", {"strategy": "on-demand", "cache.ttl": "10m"}, None)
    inferred = parse_statement("CREATE LOOKUP TABLE d FROM POSTGRES(url = 'x', table = t, cache.ttl = 10m)")
    assert isinstance(inferred, CreateLookup)
    assert inferred.columns == ()
    assert plain(inferred.connector) == ("postgres", {"url": "x", "table": "t", "cache.ttl": "10m"}, None)


@pytest.mark.parametrize(
    ("middle", "has_query", "has_where"),
    [
        ("FROM s", True, False),
        ("FROM s WHERE x > 1", True, True),
        ("FROM (SELECT * FROM s WHERE x > 1)", True, True),
        ("", False, False),
    ],
)
def test_sinks(middle: str, has_query: bool, has_where: bool) -> None:
    found = parse_statement(
        f"CREATE SINK out {middle} INTO KAFKA (topic = 'o') FORMAT JSON WITH (key = 'id')"
    )
    assert isinstance(found, CreateSink)
    assert plain(found.connector) == ("kafka", {"topic": "o"}, "json")
    assert settings(found.options) == {"key": "id"}
    assert (found.query is not None) == has_query
    assert found.query is None or (found.query.args.get("where") is not None) == has_where


def test_sinks_by_options() -> None:
    found = parse_statement("CREATE SINK out AS SELECT * FROM s WITH (connector = 'kafka', topic = 'o')")
    assert isinstance(found, CreateSink)
    assert plain(found.connector) == ("kafka", {"topic": "o"}, None)


def test_rows() -> None:
    by_insert = parse_statement("INSERT INTO out SELECT * FROM t")
    by_into = parse_statement("SELECT * INTO out FROM t")
    at_end = parse_statement("SELECT * FROM t EMIT CHANGES INTO out")
    for found in (by_insert, by_into, at_end):
        assert isinstance(found, InsertQuery)
        assert str(found.target) == "out"
    assert isinstance(by_insert, InsertQuery)
    assert isinstance(by_into, InsertQuery)
    assert by_insert.query == by_into.query
    columns = parse_statement("INSERT INTO out (a, b) (SELECT * FROM t)")
    assert isinstance(columns, InsertQuery)
    assert columns.columns == ("a", "b")
    values = parse_statement("INSERT INTO t (a, b) VALUES (1, 'x'), (2, NULL)")
    assert isinstance(values, InsertValues)
    assert [len(row) for row in values.rows] == [2, 2]
    update = parse_statement("UPDATE t SET a = 1, b = b + 1 WHERE c")
    assert isinstance(update, Update)
    assert [str(name) for name, _ in update.assignments] == ["a", "b"]
    assert update.where is not None
    delete = parse_statement("DELETE FROM t WHERE a = 1")
    assert isinstance(delete, Delete)
    assert delete.where is not None


def test_changes() -> None:
    drop = parse_statement("DROP MATERIALIZED VIEW IF EXISTS a, b CASCADE")
    assert isinstance(drop, Drop)
    assert (drop.kind, [str(name) for name in drop.names], drop.if_exists, drop.cascade) == (
        ObjectKind.MATERIALIZED_VIEW,
        ["a", "b"],
        True,
        True,
    )
    add = parse_statement("ALTER SOURCE t ADD COLUMN c INT NOT NULL")
    assert isinstance(add, Alter)
    assert add.add_columns[0].not_null
    changed = parse_statement("ALTER JOB j SET (checkpoint.interval = '10s')")
    assert isinstance(changed, Alter)
    assert settings(changed.set_options) == {"checkpoint.interval": "10s"}
    for sql, field, value in [
        ("ALTER TABLE t DROP COLUMN c", "drop_columns", ("c",)),
        ("ALTER TABLE t RENAME COLUMN a TO b", "rename_column", ("a", "b")),
        ("ALTER SINK s RESET ('a.b')", "reset_options", ("a.b",)),
    ]:
        assert getattr(parse_statement(sql), field) == value


@pytest.mark.parametrize(
    ("sql", "kind", "name", "like"),
    [
        ("SHOW SOURCES", ShowKind.SOURCES, None, None),
        ("SHOW SINKS", ShowKind.SINKS, None, None),
        ("SHOW STREAMS", ShowKind.STREAMS, None, None),
        ("SHOW TABLES LIKE 'p%'", ShowKind.TABLES, None, "p%"),
        ("SHOW MATERIALIZED VIEWS", ShowKind.VIEWS, None, None),
        ("SHOW JOBS", ShowKind.JOBS, None, None),
        ("SHOW FUNCTIONS LIKE 'a%'", ShowKind.FUNCTIONS, None, "a%"),
        ("SHOW TOPICS", ShowKind.TOPICS, None, None),
        ("SHOW PARTITIONS s", ShowKind.PARTITIONS, "s", None),
        ("SHOW STATUS", ShowKind.STATUS, None, None),
        ("SHOW METRICS j", ShowKind.METRICS, "j", None),
        ("SHOW CHECKPOINT STATUS", ShowKind.CHECKPOINT_STATUS, None, None),
        ("SHOW CREATE t", ShowKind.CREATE, "t", None),
        ("SHOW CREATE TABLE db.t", ShowKind.CREATE, "db.t", None),
        ("SHOW COLUMNS FROM t", ShowKind.COLUMNS, "t", None),
        ("SHOW ALL", ShowKind.SETTINGS, None, None),
        ("SET", ShowKind.SETTINGS, None, None),
    ],
)
def test_shows(sql: str, kind: ShowKind, name: str | None, like: str | None) -> None:
    found = parse_statement(sql)
    assert isinstance(found, Show)
    assert (found.kind, str(found.name) if found.name else None, found.like) == (kind, name, like)


def test_describe_and_explain() -> None:
    described = parse_statement("DESCRIBE EXTENDED t")
    assert isinstance(described, Describe)
    assert (str(described.name), described.extended) == ("t", True)
    query = parse_statement("DESC SELECT 1")
    assert isinstance(query, Describe)
    assert query.query is not None
    explained = parse_statement("EXPLAIN ANALYZE (FORMAT JSON)\n  INSERT INTO a SELECT 1")
    assert isinstance(explained, Explain)
    assert (explained.analyze, explained.json) == (True, True)
    assert isinstance(explained.statement, InsertQuery)
    assert (explained.statement.text, explained.statement.position) == (
        "INSERT INTO a SELECT 1",
        Position(2, 3, 6),
    )
    assert isinstance(parse_statement("EXPLAIN PLAN FOR SELECT 1"), Explain)


@pytest.mark.parametrize(
    ("sql", "name", "value"),
    [
        ("SET 'checkpoint.interval' = '10s'", "checkpoint.interval", "10s"),
        ("SET checkpoint.interval = 10s", "checkpoint.interval", "10s"),
        ("SET guarantee = exactly_once", "guarantee", "exactly_once"),
        ("SET partitions TO 4", "partitions", "4"),
        ("SET state.ttl = INTERVAL '1' HOUR", "state.ttl", "INTERVAL '1' HOUR"),
        ("SET x = -5", "x", "-5"),
        ("RESET partitions", "partitions", None),
        ("RESET ALL", None, None),
    ],
)
def test_settings(sql: str, name: str | None, value: str | None) -> None:
    found = parse_statement(sql)
    assert isinstance(found, SetVariable)
    assert (found.name, found.value) == (name, value)


def test_checkpoints_subscriptions_and_jobs() -> None:
    assert isinstance(parse_statement("CHECKPOINT"), Checkpoint)
    restore = parse_statement("RESTORE FROM CHECKPOINT 42")
    assert isinstance(restore, Restore)
    assert restore.checkpoint == 42
    subscribe = parse_statement("SUBSCRIBE s AS OF EPOCH 7 WHERE a > 1")
    assert isinstance(subscribe, Subscribe)
    assert subscribe.epoch == 7
    assert subscribe.where is not None
    for action in (JobAction.START, JobAction.STOP, JobAction.PAUSE, JobAction.RESUME, JobAction.ROLLBACK):
        job = parse_statement(f"{action.name} JOB j")
        assert isinstance(job, JobControl)
        assert (job.action, str(job.job)) == (action, "j")
    deploy = parse_statement("DEPLOY JOB j VERSION '1.2' AS SELECT * FROM t STRATEGY CANARY(25)")
    assert isinstance(deploy, JobControl)
    assert (deploy.version, deploy.strategy, settings(deploy.options)) == ("1.2", "canary", {"percent": "25"})
    assert isinstance(deploy.body, SelectStatement)
    assert deploy.body.text == "SELECT * FROM t"
    started = parse_statement("START JOB j AS INSERT INTO a SELECT * FROM t")
    assert isinstance(started, JobControl)
    assert isinstance(started.body, InsertQuery)


def test_functions() -> None:
    by_name = parse_statement(
        "CREATE OR REPLACE FUNCTION f (a INT, b ARRAY<DOUBLE>) RETURNS DOUBLE LANGUAGE PYTHON AS 'pkg.mod:f'"
    )
    assert isinstance(by_name, CreateFunction)
    assert by_name.target == "pkg.mod:f"
    assert [(p.name, p.type.arrow) for p in by_name.parameters] == [
        ("a", pa.int32()),
        ("b", pa.list_(pa.float64())),
    ]
    by_body = parse_statement(
        "CREATE AGGREGATE FUNCTION g (INT) RETURNS BIGINT LANGUAGE PYTHON AS $$ x; y $$"
    )
    assert isinstance(by_body, CreateFunction)
    assert (by_body.aggregate, by_body.body, by_body.parameters[0].name) == (True, " x; y ", "")


WRONG = [
    ("SELEC 1", "MR1005", 1),
    ("42", "MR1005", 1),
    ("CREATE SORUCE t", "MR1010", 8),
    ("CREATE SOURCE t (a INT)", "MR1061", 1),
    ("CREATE SOURCE t WITH (topic = x)", "MR1061", 17),
    ("CREATE SOURCE t (a INT, a INT) FROM PUSH", "MR1062", 25),
    ("CREATE SOURCE t (a INT, PRIMARY KEY (b)) FROM PUSH", "MR1063", 38),
    ("CREATE SOURCE t (ts INT, WATERMARK FOR st) FROM PUSH", "MR1063", 40),
    ("CREATE SOURCE t (a INT,) FROM PUSH", "MR1010", 24),
    ("CREATE SOURCE t (ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1' MONTH) FROM PUSH", "MR1031", 57),
    ("CREATE SOURCE t FROM KAFKA (a = 1, a = 2)", "MR1060", 36),
    ("CREATE SOURCE t FROM KAFKA (a = 1,)", "MR1010", 35),
    ("CREATE SOURCE t FROM KAFKA (a 1)", "MR1010", 31),
    ("CREATE SOURCE t FROM KAFKA (format = csv) FORMAT JSON", "MR1060", 22),
    ("CREATE SOURCE t AS SELECT 1", "MR1066", 20),
    ("CREATE TABLE t (a INT) AS SELECT 1", "MR1066", 14),
    ("CREATE TABLE t", "MR1067", 14),
    ("CREATE LOOKUP TABLE t (a INT)", "MR1061", None),
    ("CREATE SINK s FROM t", "MR1061", None),
    ("CREATE SINK s (a INT) FROM t INTO BLACKHOLE", "MR1069", 15),
    ("CREATE STREAM s AS INSERT INTO t SELECT 1", "MR1010", 20),
    ("CREATE STREAM s AS SELECT 1 WITH (a = 1) EMIT CHANGES", "MR1019", 42),
    ("CREATE FUNCTION f (a INT) RETURNS INT LANGUAGE PYTHON", "MR1010", 54),
    ("CREATE FUNCTION f (a INT) RETURNS INT LANGUAGE PYTHON AS 'f'", "MR1070", 58),
    ("INSERT INTO t (a, b) VALUES (1)", "MR1050", 29),
    ("INSERT INTO t VALUES (1), (1, 2)", "MR1050", 27),
    ("INSERT INTO t", "MR1010", 14),
    ("INSERT t SELECT 1", "MR1010", 8),
    ("UPDATE t SET a", "MR1010", 15),
    ("DELETE t", "MR1010", 8),
    ("DROP t", "MR1010", 6),
    ("SHOW TABELS", "MR1010", 6),
    ("SHOW TABLES x", "MR1013", 13),
    ("EXPLAIN EXPLAIN SELECT 1", "MR1071", 9),
    ("SET a", "MR1010", 6),
    ("RESTORE FROM CHECKPOINT x", "MR1010", 25),
    ("SUBSCRIBE s AS OF 5", "MR1010", 19),
    ("DEPLOY JOB j", "MR1010", 13),
    ("DEPLOY JOB j AS SELECT 1 STRATEGY MAGIC", "MR1010", 35),
    ("START JOB j AS DROP TABLE t", "MR1072", 16),
    ("SELECT 1 INTO a FROM t INTO b", "MR1017", 24),
    ("SELECT 1 FROM t EMIT FINAL WITH (changes = every_record)", "MR1074", 34),
    ("SELECT 1 FROM t EMIT CHANGES WITH (changes = sometimes)", "MR1074", 36),
]


@pytest.mark.parametrize(("sql", "code", "column"), WRONG)
def test_what_is_wrong_is_said_where_it_is(sql: str, code: str, column: int | None) -> None:
    with pytest.raises(Invalid) as caught:
        parse_statement(sql)
    assert caught.value.code == code
    assert caught.value.position is not None
    assert column is None or caught.value.position.column == column


@pytest.mark.parametrize(
    "sql",
    [
        "MERGE INTO t USING u ON a WHEN MATCHED THEN DELETE",
        "TRUNCATE TABLE t",
        "COPY t FROM 'x'",
        "USE db",
        "CREATE INDEX i ON t (a)",
        "CREATE TEMPORARY TABLE t (a INT)",
        "CREATE TABLE t (a INT UNIQUE)",
        "CREATE TABLE t (a INT DEFAULT 5)",
        "CREATE TABLE t (a INT, FOREIGN KEY (a) REFERENCES u (a))",
        "CREATE TABLE t (a INT) PARTITIONED BY (a) WITH (connector = file)",
        "CREATE TABLE t LIKE u",
        "CREATE FUNCTION f (a INT) RETURNS INT LANGUAGE JAVA AS 'x:y'",
        "INSERT OVERWRITE t SELECT 1",
        "UPDATE t SET a = 1 FROM u",
        "DELETE FROM t USING u",
        "DELETE FROM t RETURNING a",
        "CREATE TABLE t (a TIME WITH TIME ZONE)",
    ],
)
def test_what_is_understood_but_not_run_is_refused(sql: str) -> None:
    with pytest.raises(Unsupported) as caught:
        parse_statement(sql)
    assert caught.value.code.startswith("MR19")
    assert caught.value.position is not None


def test_statements_are_values() -> None:
    for cls in Statement.__subclasses__():
        assert dataclasses.is_dataclass(cls)
        assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
