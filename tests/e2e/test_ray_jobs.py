"""Jobs on a local Ray cluster: real actors, real processes, killed with SIGKILL, checked row by row."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.e2e.ray_jobs import FILES, ROWS, check_numbers, rows_of, sql_of, submitted, until

from millrace.cluster.job import JobSpec, for_sinks
from millrace.cluster.jobs import Cluster
from millrace.errors import Invalid, Unavailable
from millrace.job_views import status_json, status_lines, summary_lines
from millrace.planner.session import Planner

pytestmark = [
    pytest.mark.timeout(170),
    # Ray leaves sockets and files to the end of the process.
    pytest.mark.filterwarnings("default"),
]


def test_exact_through_kill_of_partitions_and_coordinator(
    cluster: Cluster, numbers: Path, tmp_path: Path
) -> None:
    submitted(cluster, "kills", sql_of(numbers, tmp_path), tmp_path / "store", 2)
    until(cluster, "kills", 1)
    os.kill(cluster.processes("kills")["partition-1"], signal.SIGKILL)
    until(cluster, "kills", 2)
    os.kill(cluster.processes("kills")["coordinator"], signal.SIGKILL)
    time.sleep(0.5)
    ended = cluster.wait("kills", 100)
    assert ended is not None and not ended.failed, cluster.status("kills")
    assert cluster.status("kills").epoch > 1
    check_numbers(tmp_path)


def test_a_job_outlives_its_client_and_stops_in_good_order(
    cluster: Cluster, numbers: Path, tmp_path: Path
) -> None:
    import ray

    text = sql_of(numbers, tmp_path).replace("format='json');", "format='json', follow='true');", 1)
    text = text.replace(" EMIT FINAL", "")
    (tmp_path / "app.sql").write_text(text)
    address = ray.get_runtime_context().gcs_address
    store = f"file://{tmp_path}/store"
    command = "from millrace.cli import main; main()"
    options = ["--store", store, "--partitions", "2", "--cpus", "0.5", "--address", address]
    client = subprocess.run(
        [sys.executable, "-c", command, "submit", str(tmp_path / "app.sql"), *options],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert client.returncode == 0, client.stderr
    assert "job app is running" in client.stdout
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        with contextlib.suppress(Unavailable):
            if sum(p.rows_in for p in cluster.status("app").partitions) == ROWS:
                break
        time.sleep(0.1)
    job = cluster.job("app")
    assert any(line.startswith("app") and "running" in line for line in summary_lines(cluster.jobs()))
    status = status_json(job.status(), job.splits())
    assert [p["partition"] for p in status["partitions"]] == [0, 1]
    assert sum(len(p["splits"]) for p in status["partitions"]) == FILES
    assert any("partition 1" in line for line in status_lines(job.status(), job.splits()))
    with pytest.raises(Invalid, match="MR1591"):
        cluster.submit(job_spec_of(text), store)
    assert job.stop(60, savepoint="end") == "stopped by a user"
    assert [k.label for k in job.status().kept][-1] == "end"
    ids = sorted(row["id"] for row in rows_of(tmp_path / "raw"))
    assert ids == [i for i in range(ROWS) if i % 97 != 5]


def job_spec_of(text: str) -> JobSpec:
    return JobSpec("app", for_sinks(Planner().compile(text)[0]), partitions=2)
