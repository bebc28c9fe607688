"""The life of a job on Ray: scaled while it runs, checked row by row."""

import json
import time
from pathlib import Path

import pytest
from tests.e2e.ray_jobs import ROWS, check_numbers, rows_of, sql_of, submitted, until
from typer.testing import CliRunner

from millrace.cli import app
from millrace.cluster.jobs import Cluster, Job
from millrace.errors import Corrupt, Invalid
from millrace.submitting import examine_upgrade

pytestmark = [
    pytest.mark.timeout(170),
    # Ray leaves sockets and files to the end of the process.
    pytest.mark.filterwarnings("default"),
]


def test_scaled_up_and_down_while_it_runs_no_row_is_lost_or_doubled(
    cluster: Cluster, numbers: Path, tmp_path: Path
) -> None:
    job = submitted(cluster, "scaled", sql_of(numbers, tmp_path), tmp_path / "store", 2, batch_rows=32)
    until(cluster, "scaled", 1)
    for partitions in (4, 3):
        status = job.scale(partitions)
        assert [p.partition for p in status.partitions] == list(range(partitions))
        assert sum(p.splits for p in status.partitions) == 6
    job.wait(100)
    check_numbers(tmp_path)


def cli(*arguments: str, code: int = 0) -> str:
    """What a command prints; this process has joined the cluster already."""
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def slow(cluster: Cluster, name: str, numbers: Path, folder: Path) -> Job:
    return submitted(cluster, name, sql_of(numbers, folder), folder / "store", 2, batch_rows=32)


def test_stopped_at_a_savepoint_resumed_and_upgraded(cluster: Cluster, numbers: Path, tmp_path: Path) -> None:
    job = slow(cluster, "lived", numbers, tmp_path)
    until(cluster, "lived", 1)
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
    more = sql_of(numbers, tmp_path).replace("v <> 5", "v <> 5 AND id >= 0")
    more += f"""CREATE SINK most FROM (SELECT k, max(id) AS id FROM s GROUP BY k EMIT FINAL)
        INTO FILE (path='{tmp_path}/most', format='json');"""
    (tmp_path / "new.sql").write_text(more)
    told = cli("upgrade", "lived", str(tmp_path / "new.sql"), "--dry-run").splitlines()
    assert sorted(line.split("  ")[0] for line in told) == ["goes on reading", "keeps", "starts empty"]
    assert job.status().phase == "running"
    told = cli("upgrade", "lived", str(tmp_path / "new.sql"), "--yes").splitlines()
    assert "goes on with the new plan" in told[-1]
    job.drop_savepoint("first")
    job.wait(100)
    assert "first" not in [k.label for k in job.status().kept]
    check_numbers(tmp_path)
    assert len(rows_of(tmp_path / "most")) == 1000


def test_a_plan_that_does_not_start_leaves_the_job_as_it_was(
    cluster: Cluster, numbers: Path, tmp_path: Path
) -> None:
    job = slow(cluster, "kept", numbers, tmp_path)
    until(cluster, "kept", 1)
    (tmp_path / "taken").write_text("a file where the sink wants a folder")
    bad = sql_of(numbers, tmp_path)
    bad += f"CREATE SINK more FROM (SELECT id FROM s) INTO FILE (path='{tmp_path}/taken/x', format='json');"
    new = examine_upgrade(cluster, "kept", bad)
    assert new.upgrade is not None
    with pytest.raises(Invalid, match="MR1597"):
        job.upgrade(new.spec, timeout=20)
    job.wait(100)
    check_numbers(tmp_path)


def test_damaged_checkpoints_are_named_and_an_older_one_can_be_chosen(
    cluster: Cluster, numbers: Path, tmp_path: Path
) -> None:
    job = slow(cluster, "damaged", numbers, tmp_path)
    until(cluster, "damaged", 1)
    older = job.savepoint("older")
    time.sleep(1)
    job.stop()
    store = tmp_path / "store"
    manifest = max((store / "damaged" / "manifests").iterdir())
    manifest.write_bytes(manifest.read_bytes()[:-3])
    with pytest.raises(Corrupt, match="MR5012"):
        cluster.resume("damaged")
    assert "MR5012" in cli("checkpoints", "damaged", "--store", f"file://{store}", code=1)
    with pytest.raises(Invalid, match=f"MR1596.*older \\({older.number}\\)"):
        cluster.resume("damaged", wanted="no-such")
    cli("resume", "damaged", "--from", "older")
    job.wait(100)
    assert {row["id"] for row in rows_of(tmp_path / "raw")} == {i for i in range(ROWS) if i % 97 != 5}
    assert sum(int(row["n"]) for row in rows_of(tmp_path / "agg")) == ROWS  # type: ignore[call-overload]
