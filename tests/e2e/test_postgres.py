"""The PostgreSQL sink against a real server: types, keys, exactly once through crashes, restarts and zombies."""

from __future__ import annotations

import datetime
import decimal
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from adbc_driver_postgresql import dbapi
from tests.e2e.postgres_server import Server

import millrace
from millrace.errors import Invalid, Unavailable
from millrace.operators.batch import Batch
from millrace.operators.connectors import registry
from millrace.operators.connectors.postgres.sink import PostgresSink
from millrace.operators.connectors.postgres.spec import PostgresSinkSpec
from millrace.operators.sink import Changelog
from millrace.operators.spec import decode, encode

SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string())])
SOURCE = Path(__file__).parents[2] / "src"


def rows(server: Server, sql: str) -> list[tuple[object, ...]]:
    with dbapi.connect(server.url) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return [tuple(row) for row in cursor.fetchall()]


def run(server: Server, *statements: str) -> None:
    with dbapi.connect(server.url) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        connection.commit()


def fresh(prefix: str = "t") -> str:
    return f"{prefix}_{uuid.uuid4().hex[:10]}"


def sink_of(
    server: Server, table: str, key: tuple[str, ...] = (), partition: int = 0, **options: str
) -> PostgresSink:
    mode = Changelog.UPSERT if key else Changelog.APPEND
    named = {name.replace("_", "."): value for name, value in options.items()}
    given = {"url": server.url, "table": table, "create": "true", **named}
    spec = registry.sink_spec("postgres", given, SCHEMA, mode, key)
    spec = decode(encode(spec.in_job("job.1", "sink", "exactly_once")))
    assert isinstance(spec, PostgresSinkSpec)
    return PostgresSink(spec, partition)


def batch(*ids: int, weights: list[int] | None = None) -> Batch:
    data = pa.RecordBatch.from_pylist([{"id": i, "name": f"näme {i}"} for i in ids], schema=SCHEMA)
    return Batch(data, None if weights is None else np.array(weights, np.int64))


def test_an_outbox_is_there_once_however_often_it_is_published(postgres: Server) -> None:
    table = fresh()
    sink = sink_of(postgres, table, marker_table=fresh("m"))
    sink.fence()
    assert sink.marker() is None
    sink.write(batch(1, 2))
    first = sink.seal(5)
    sink.publish(5, first)
    sink.publish(5, first)
    assert sink.marker() == 5
    sink.write(batch(3))
    second = sink.seal(6)
    sink.publish(6, second)
    sink.publish(5, first)
    sink.publish(6, second)
    assert sink.seal(7) == b""
    assert rows(postgres, f"SELECT id FROM {table} ORDER BY id") == [(1,), (2,), (3,)]
    sink.close()


def test_keys_replace_and_remove_rows(postgres: Server) -> None:
    table = fresh()
    sink = sink_of(postgres, table, ("id",), marker_table=fresh("m"))
    sink.write(batch(1, 2, 2, 3, weights=[1, 1, -1, 1]))
    sink.publish(1, sink.seal(1))
    assert rows(postgres, f"SELECT id FROM {table} ORDER BY id") == [(1,), (3,)]
    sink.write(batch(3, 2, 1, 1, weights=[-1, 1, -1, 1]))
    sink.publish(2, sink.seal(2))
    assert rows(postgres, f"SELECT id, name FROM {table} ORDER BY id") == [(1, "näme 1"), (2, "näme 2")]
    sink.close()


def test_a_zombie_waits_and_then_sees_that_it_is_late(postgres: Server) -> None:
    table, markers = fresh(), fresh("m")
    zombie, owner = (sink_of(postgres, table, marker_table=markers) for _ in range(2))
    zombie.fence()
    zombie.write(batch(1))
    outbox = zombie.seal(1)
    owner.fence()
    assert owner.marker() is None
    threads = [threading.Thread(target=sink.publish, args=(1, outbox)) for sink in (zombie, owner)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    owner.write(batch(2))
    owner.publish(2, owner.seal(2))
    zombie.publish(1, outbox)
    assert rows(postgres, f"SELECT id FROM {table} ORDER BY id") == [(1,), (2,)]
    for sink in (zombie, owner):
        sink.close()


def test_a_crashed_server_is_waited_for(postgres: Server) -> None:
    table = fresh()
    sink = sink_of(postgres, table, marker_table=fresh("m"))
    sink.fence()
    sink.write(batch(1))
    outbox = sink.seal(1)
    postgres.stop()
    with pytest.raises(Unavailable, match="MR3015"):
        sink.publish(1, outbox)
    postgres.start()
    sink.publish(1, outbox)
    sink.publish(1, outbox)
    assert rows(postgres, f"SELECT id FROM {table}") == [(1,)]
    sink.close()


@pytest.mark.parametrize(
    ("table", "sql", "message"),
    [
        ("there", "CREATE TABLE there (id bigint)", "has no column name"),
        ("narrow", "CREATE TABLE narrow (id bigint, name int)", "invalid input syntax"),
        ("nowhere", "SELECT 1", "does not exist"),
    ],
)
def test_a_table_that_does_not_fit_is_an_error(postgres: Server, table: str, sql: str, message: str) -> None:
    run(postgres, sql)
    sink = sink_of(postgres, table, create="false", marker_table=fresh("m"))
    sink.write(batch(1))
    with pytest.raises(Invalid, match=message) as caught:
        sink.publish(1, sink.seal(1))
    assert caught.value.code == "MR1494"
    sink.close()


def test_every_type_arrives_as_it_was(postgres: Server) -> None:
    table = fresh()
    db = millrace.connect()
    db.execute(f"""
        CREATE SOURCE t (i8 TINYINT, i16 SMALLINT, i INT, big BIGINT, u INT UNSIGNED, f FLOAT, x DOUBLE, d DECIMAL(10, 2),
            wide DECIMAL(30, 4), s STRING, raw BYTES, b BOOLEAN, day DATE, clock TIME, ts TIMESTAMP(3),
            tz TIMESTAMP(6) WITH TIME ZONE, j JSON) WITH ('connector' = 'push');
        CREATE SINK o FROM t INTO POSTGRES (url = '{postgres.url}', table = '{table}', 'create' = 'true')
    """)
    utc = datetime.UTC
    row = {
        "i8": -1, "i16": 300, "i": 70_000, "big": 1 << 40, "u": 4_000_000_000, "f": 0.5, "x": 0.1,
        "d": decimal.Decimal("1.25"), "wide": decimal.Decimal("12345678901234567890.1234"), "s": "ß", "raw": b"\x00\xff",
        "b": True, "day": datetime.date(2024, 2, 29), "clock": datetime.time(1, 2, 3),
        "ts": datetime.datetime(2024, 1, 1, 0, 0, 0, 123_000), "tz": datetime.datetime(2024, 1, 1, tzinfo=utc),
        "j": '{"a": 1}',
    }  # fmt: skip
    db.push("t", [row, dict.fromkeys(row)])
    db.close()
    names = ", ".join(n if n != "j" else "j::text" for n in row)
    cast = names.replace("wide", "wide::text").replace(" d,", " d::text,")
    found = rows(postgres, f"SELECT {cast} FROM {table} ORDER BY i8 NULLS LAST")
    expected = {**row, "d": "1.25", "wide": "12345678901234567890.1234"}
    assert list(found[0]) == list(expected.values())
    assert set(found[1]) == {None}


def test_changes_by_key_are_kept_up_to_date(postgres: Server) -> None:
    table = fresh()
    with millrace.connect() as db:
        db.execute(f"""
            CREATE SOURCE t (k STRING, v INT) WITH ('connector' = 'push');
            CREATE SINK o FROM (SELECT k, count(*) AS n, sum(v) AS v FROM t GROUP BY k)
            INTO POSTGRES (url = '{postgres.url}', table = '{table}', 'create' = 'true')
        """)
        for v in range(6):
            db.push("t", {"k": "a" if v % 2 else None, "v": v})
    assert rows(postgres, f"SELECT k, n, v FROM {table} ORDER BY k") == [("a", 3, 9), (None, 3, 6)]


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("MR1450", "url = 'mysql://x', table = 't'"),
        ("MR1493", "url = 'postgresql://x', table = 't', 'primary.key' = 'vv', mode = 'upsert'"),
        ("MR1452", "url = 'postgresql://x', table = 't', mode = 'upsert'"),
    ],
)
def test_wrong_options_are_refused(code: str, options: str) -> None:
    with millrace.connect() as db, pytest.raises(Invalid, match=code):
        db.execute(
            f"CREATE SOURCE t (k STRING, v INT) WITH ('connector' = 'push'); CREATE SINK o FROM t INTO POSTGRES ({options})"
        )


PROGRAM = """
import sys, millrace
folder, url, table, rows = *sys.argv[1:4], int(sys.argv[4])
db = millrace.connect(checkpoint_store=f"file://{folder}", checkpoint_interval="30ms", guarantee="exactly_once")
if not db.names():
    db.execute(f'''CREATE SOURCE t (v INT) WITH ('connector' = 'push');
        CREATE TABLE seen AS SELECT count(*) AS n FROM t;
        CREATE SINK o FROM t INTO POSTGRES (url = '{url}', table = '{table}', 'create' = 'true')''')
for v in range(db.query("SELECT coalesce(sum(n), 0) AS n FROM seen").rows()[0]["n"], rows):
    db.push("t", {"v": v})
    print(v, flush=True)
db.close()
"""


def test_rows_are_there_once_through_kill_9(postgres: Server, tmp_path: Path) -> None:
    table, wanted = fresh(), 3_000
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    for attempt in range(4):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), postgres.url, table, str(wanted)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            process.stdout.readline()
            if attempt < 3:
                time.sleep(0.15 + 0.1 * attempt)
                process.send_signal(signal.SIGKILL)
            process.stdout.read()
    assert rows(postgres, f"SELECT count(*), count(DISTINCT v), max(v) FROM {table}") == [
        (wanted, wanted, wanted - 1)
    ]
