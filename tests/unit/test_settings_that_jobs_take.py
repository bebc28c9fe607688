"""Settings of jobs: each is heeded by the embedded database and by a submission, or refused with where it belongs."""

from __future__ import annotations

from pathlib import Path

import pytest

import millrace
from millrace.cluster.job import JobSpec
from millrace.errors import MillraceError
from millrace.operators.joins.regular_spec import RegularJoin
from millrace.submitting import job_spec

BID = "CREATE SOURCE bid WITH (connector = 'nexmark', table = 'bid', events = '1000', splits = '4');"
FILE = "INTO FILE (path = '/tmp/never', format = 'json');"
JOB = f"{BID} CREATE SINK o FROM (SELECT a.price FROM bid AS a JOIN bid AS b ON a.auction = b.auction) {FILE}"


def spec_of(sql: str, **settings: str) -> JobSpec:
    given = {name.replace("_", "."): value for name, value in settings.items()}
    return job_spec(sql, job="j", partitions=2, checkpoint_interval=1, variables={}, settings=given)


def test_a_submission_heeds_what_a_job_can_have() -> None:
    spec = spec_of(
        "SET partitions = 4; SET checkpoint.interval = '5s'; SET vnodes = 64; SET batch.max_rows = 100;"
        f"SET guarantee = 'at_least_once'; SET bad_rows = 'fail'; SET state.ttl = '1h'; {JOB}"
    )
    assert (spec.partitions, spec.checkpoint_interval_s, spec.vnodes, spec.batch_rows) == (4, 5.0, 64, 100)
    assert spec.guarantee == "at_least_once" and spec.stop_at_bad_rows
    (join,) = [n.spec for n in spec.plan.nodes if isinstance(n.spec, RegularJoin)]
    assert join.ttl == 3_600_000_000
    plain = spec_of(f"SET partitions = 4; RESET partitions; {JOB}", state_ttl="2h")
    assert (plain.partitions, plain.checkpoint_interval_s) == (2, 1.0)
    (join,) = [n.spec for n in plain.plan.nodes if isinstance(n.spec, RegularJoin)]
    assert join.ttl == 7_200_000_000


@pytest.mark.parametrize(
    ("sql", "code", "hint"),
    [
        ("SET checkpoint.store = 'file:///x'", "MR1544", "--store"),
        ("SET state.dir = '/x'", "MR1544", "in one process"),
        ("SET job = 'x'", "MR1544", "--job"),
        ("SET batch.max_delay = '10ms'", "MR1544", "batch.max_rows"),
        ("SET nothing = 1", "MR1540", "settings are"),
        ("SET partitons = 1", "MR1540", "partitions"),
        ("SET partitions = 'x'", "MR1541", "partitions"),
        ("SET vnodes = 0", "MR1541", None),
        ("SET checkpoint.interval = '0s'", "MR1553", None),
        ("SET bad_rows = 'dead'", "MR1394", "SELECT * FROM dead"),
    ],
)
def test_a_submission_refuses_the_others(sql: str, code: str, hint: str | None) -> None:
    with pytest.raises(MillraceError) as error:
        spec_of(f"{sql}; {JOB}")
    assert error.value.code == code, error.value
    assert hint is None or hint in (error.value.hint or "")


@pytest.mark.parametrize(
    ("sql", "hint"), [("SET partitions = 4", "submit"), ("SET batch.max_delay = '10ms'", "batch.max_rows")]
)
def test_a_database_in_this_process_says_where_a_setting_belongs(sql: str, hint: str) -> None:
    with millrace.connect() as db, pytest.raises(MillraceError) as error:
        db.execute(sql)
    assert error.value.code == "MR1544" and hint in (error.value.hint or "")
    assert error.value.position is not None


def source(folder: Path, name: str, more: str = "") -> str:
    (folder / f"{name}.json").write_text('{"v": 1}\nx\n{"v": 2}\n')
    return (
        f"CREATE SOURCE {name} (v BIGINT) WITH ('connector' = 'file', 'path' = '{folder}/{name}.json'{more});"
    )


def test_bad_records_go_to_the_table_of_the_setting_where_the_source_does_not_say(tmp_path: Path) -> None:
    other, skip = ", 'bad_rows' = 'others'", ", 'bad_rows' = 'skip'"
    with millrace.connect() as db:
        db.execute(
            f"SET bad_rows = 'Dead'; {source(tmp_path, 'a')} {source(tmp_path, 'b', other)} {source(tmp_path, 'c', skip)}"
            "CREATE TABLE t AS SELECT v FROM a UNION ALL SELECT v FROM b UNION ALL SELECT v FROM c;"
        )
        assert db.wait(30)
        assert len(db.query("SELECT v FROM t")) == 6
        for table in ("Dead", "others"):
            assert [bytes(r["payload"]) for r in db.query(f"SELECT payload FROM {table}").rows()] == [b"x"]  # type: ignore[call-overload]
        with pytest.raises(MillraceError) as error:
            db.execute(source(tmp_path, "d"))
        assert error.value.code == "MR1164" and "'Dead_d'" in (error.value.hint or "")
        db.execute(f"SET bad_rows = 'SKIP'; {source(tmp_path, 'd')}")
        assert db.settings.bad_rows == "skip"
        db.execute("ALTER SOURCE a ADD COLUMN w BIGINT")
        assert "bad rows: Dead" in db.explain("SELECT * FROM a")


def test_a_job_writes_bad_records_of_the_setting_to_a_sink() -> None:
    dead = f"CREATE SINK d FROM (SELECT code, reason FROM dead) {FILE}"
    spec = spec_of(f"{BID} CREATE SINK o FROM bid {FILE}")
    wanted = spec_of(f"SET bad_rows = 'dead'; {BID} CREATE SINK o FROM bid {FILE} {dead}")
    assert len(wanted.plan.nodes) > len(spec.plan.nodes)


def test_connect_takes_a_table_too(tmp_path: Path) -> None:
    with millrace.connect(bad_rows="dead") as db:
        db.execute(f"{source(tmp_path, 'a')} CREATE TABLE t AS SELECT v FROM a")
        assert db.wait(30)
        assert len(db.query("SELECT * FROM dead")) == 1
