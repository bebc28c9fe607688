"""The life of a job on Ray: scaled, stopped, resumed, upgraded while rows flow; checked row by row."""

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.e2e.ray_jobs import rows_of, submitted, until
from typer.testing import CliRunner

from millrace.cli import app
from millrace.cluster.jobs import Cluster, Job
from millrace.errors import Corrupt, Invalid
from millrace.submitting import examine_upgrade

ROWS = 14_000
RATE = 1_400
"""Rows a second over all splits, while the job runs."""

pytestmark = [
    pytest.mark.timeout(300),
    # Ray leaves sockets and files to the end of the process.
    pytest.mark.filterwarnings("default"),
]


def sql_of(out: Path, condition: str = "id % 97 <> 5") -> str:
    return f"""
        CREATE SOURCE s (id BIGINT) WITH (connector='datagen', rows='{ROWS}', rate='{RATE}', splits='6',
            'fields.id.kind'='sequence', 'fields.id.start'='0');
        CREATE SINK agg FROM (SELECT id % 100 AS k, count(*) AS n, sum(id) AS total FROM s GROUP BY id % 100 EMIT FINAL)
            INTO FILE (path='{out}/agg', format='json');
        CREATE SINK raw FROM (SELECT id FROM s WHERE {condition}) INTO FILE (path='{out}/raw', format='json');
    """


def begun(cluster: Cluster, name: str, folder: Path) -> Job:
    job = submitted(cluster, name, sql_of(folder), folder / "store", 2)
    until(cluster, name, 1)
    return job


def check(out: Path) -> None:
    """Every row once in both sinks."""
    ids = Counter(row["id"] for row in rows_of(out / "raw"))
    assert ids == Counter(i for i in range(ROWS) if i % 97 != 5)
    wanted = [{"k": k, "n": ROWS // 100, "total": sum(range(k, ROWS, 100))} for k in range(100)]
    assert sorted(rows_of(out / "agg"), key=lambda row: str(row["k"])) == sorted(
        wanted, key=lambda r: str(r["k"])
    )


def cli(*arguments: str, code: int = 0) -> str:
    """What a command prints; this process has joined the cluster already."""
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def test_scaled_saved_stopped_resumed_and_upgraded_while_rows_flow(cluster: Cluster, tmp_path: Path) -> None:
    job = begun(cluster, "lived", tmp_path)
    status = job.scale(4)
    assert [p.partition for p in status.partitions] == [0, 1, 2, 3]
    assert sum(p.splits for p in status.partitions) == 6

    assert "savepoint first of job lived is checkpoint" in cli("savepoint", "lived", "--name", "first")
    with pytest.raises(Invalid, match="MR1598"):
        job.savepoint("first")
    cli("stop", "lived", "--savepoint", "--name", "half")
    kept = json.loads(
        cli("checkpoints", "lived", "--store", f"file://{tmp_path}/store", "--verify", "--json")
    )
    assert [k["savepoint"] for k in kept if k["savepoint"]] == ["first", "half"]
    assert not any(k["damaged"] for k in kept)
    assert "goes on" in cli("resume", "lived")

    until(cluster, "lived", 1)
    shown = json.loads(cli("status", "lived", "--json"))
    assert shown["partitions_wanted"] == 4 and len(shown["partitions"]) == 4
    assert sum(len(p["splits"]) for p in shown["partitions"]) == 6
    assert "lived" in cli("top", "--once")
    new = sql_of(tmp_path, "id % 97 <> 5 AND id >= 0")
    new += f"""CREATE SINK most FROM (SELECT id % 10 AS k, max(id) AS id FROM s GROUP BY id % 10 EMIT FINAL)
        INTO FILE (path='{tmp_path}/most', format='json');"""
    (tmp_path / "new.sql").write_text(new)
    told = cli("upgrade", "lived", str(tmp_path / "new.sql"), "--dry-run").splitlines()
    assert sorted(line.split("  ")[0] for line in told) == ["goes on reading", "keeps", "starts empty"]
    assert job.status().phase == "running"
    told = cli("upgrade", "lived", str(tmp_path / "new.sql"), "--yes").splitlines()
    assert "goes on with the new plan" in told[-1]

    assert "runs in 3 partitions" in cli("scale", "lived", "--partitions", "3")
    job.drop_savepoint("first")
    job.wait(100)
    assert "first" not in [k.label for k in job.status().kept]
    check(tmp_path)
    assert len(rows_of(tmp_path / "most")) == 10


def test_a_plan_that_does_not_start_leaves_the_job_as_it_was(cluster: Cluster, tmp_path: Path) -> None:
    job = begun(cluster, "kept", tmp_path)
    (tmp_path / "taken").write_text("a file where the sink wants a folder")
    bad = sql_of(tmp_path)
    bad += f"CREATE SINK more FROM (SELECT id FROM s) INTO FILE (path='{tmp_path}/taken/x', format='json');"
    new = examine_upgrade(cluster, "kept", bad)
    assert new.upgrade is not None
    with pytest.raises(Invalid, match="MR1597"):
        job.upgrade(new.spec, timeout=20)
    job.wait(100)
    check(tmp_path)


def test_damaged_checkpoints_are_named_and_an_older_one_can_be_chosen(
    cluster: Cluster, tmp_path: Path
) -> None:
    job = begun(cluster, "damaged", tmp_path)
    older = job.savepoint("older")
    until(cluster, "damaged", 4)
    job.stop()
    store = tmp_path / "store"
    manifest = max((store / "damaged" / "manifests").iterdir())
    manifest.write_bytes(manifest.read_bytes()[:-3])
    with pytest.raises(Corrupt, match="MR5012"):
        cluster.resume("damaged")
    assert "MR5012" in cli("checkpoints", "damaged", "--store", f"file://{store}", code=1)
    with pytest.raises(Invalid, match="MR1596") as caught:
        cluster.resume("damaged", wanted="no-such")
    assert f"older ({older.number})" in str(caught.value)
    cli("resume", "damaged", "--from", "older")
    until(cluster, "damaged", 1)
    state = [f for f in (store / "damaged" / "data").rglob("*-whole") if f.is_file()]
    for file in state:  # what a partition is to restore
        file.write_bytes(file.read_bytes()[:-3])
    os.kill(cluster.processes("damaged")["partition-0"], signal.SIGKILL)
    ended = cluster.wait("damaged", 60)
    assert ended is not None and ended.failed
    assert ended.ended is not None and "MR5011" in ended.ended and "could be resumed from" in ended.ended


def test_partitions_that_exchange_nothing_recover_alone(cluster: Cluster, tmp_path: Path) -> None:
    sql = f"""
        CREATE SOURCE s (id BIGINT) WITH (connector='datagen', rows='{ROWS}', rate='{RATE}', splits='6',
            'fields.id.kind'='sequence', 'fields.id.start'='0');
        CREATE SINK raw FROM (SELECT id FROM s WHERE id % 97 <> 5) INTO FILE (path='{tmp_path}/raw', format='json');
    """
    job = submitted(cluster, "alone", sql, tmp_path / "store", 2)
    until(cluster, "alone", 1)
    before = cluster.processes("alone")
    epochs = {p.partition: p.epoch for p in job.status().partitions}
    os.kill(before["partition-1"], signal.SIGKILL)
    deadline = time.monotonic() + 60
    while (after := {p.partition: p.epoch for p in job.status().partitions}).get(1, 0) <= epochs[1]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert after[0] == epochs[0], "the other partition is the same owner"
    assert cluster.processes("alone")["partition-0"] == before["partition-0"]
    job.wait(100)
    ids = Counter(row["id"] for row in rows_of(tmp_path / "raw"))
    assert ids == Counter(i for i in range(ROWS) if i % 97 != 5)
    assert any("its process died" in line.text for line in job.log())
    assert "reads its sources" in cli("logs", "alone")
