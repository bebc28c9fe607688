"""Jobs on a local Ray cluster: real actors, real processes, killed with SIGKILL, checked row by row."""

import contextlib
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.cluster.job import JobSpec, for_sinks
from millrace.cluster.jobs import Cluster
from millrace.errors import Invalid, Unavailable
from millrace.planner.session import Planner
from millrace.submitting import list_jobs, show_status, stop_job

SRC = str(Path(__file__).parents[2] / "src")
ROWS = 120_000
FILES = 6

pytestmark = [
    pytest.mark.timeout(170),
    # Ray leaves sockets and files to the end of the process.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    import ray

    folder = tempfile.mkdtemp(prefix="mr", dir="/tmp")  # Ray's sockets need a short path
    os.environ.update(
        RAY_TMPDIR=folder,
        RAY_AUTH_MODE="disabled",
        RAY_USAGE_STATS_ENABLED="0",
        RAY_worker_niceness="0",
        PYTHONPATH=SRC,
    )
    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=100_000_000,
        include_dashboard=False,
        namespace="millrace",
        log_to_driver=False,
        configure_logging=False,
    )
    yield Cluster("local")
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numbers")
    for file in range(FILES):
        with open(folder / f"{file}.json", "w") as out:
            out.writelines(
                f'{{"id":{i},"k":{i * 7919 % 1000},"v":{i % 97}}}\n' for i in range(file, ROWS, FILES)
            )
    return folder


def submitted(
    cluster: Cluster, job: str, sql: str, store: Path, partitions: int, batch_rows: int = 512
) -> None:
    plan, _ = Planner().compile(sql)
    spec = JobSpec(
        job, for_sinks(plan), partitions=partitions, batch_rows=batch_rows, checkpoint_interval_s=0.3
    )
    cluster.submit(spec, f"file://{store}", num_cpus=0.5)


def rows_of(folder: Path) -> list[dict[str, object]]:
    found = []
    for name in glob.glob(f"{folder}/*.json"):
        with open(name) as lines:
            found += [json.loads(line) for line in lines]
    return found


def until(cluster: Cluster, job: str, decided: int, timeout: float = 90) -> None:
    """Wait until the present coordinator has decided so many checkpoints."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with contextlib.suppress(Unavailable):
            status = cluster.status(job)
            if status.phase == "ended":
                pytest.fail("the job ended before the test could kill anything")
            if status.decided >= decided and status.phase == "running":
                return
        time.sleep(0.05)
    pytest.fail(f"{job} did not come to {decided} checkpoints")


def sql_of(numbers: Path, out: Path) -> str:
    return f"""
        CREATE SOURCE s (id BIGINT, k BIGINT, v BIGINT) WITH (connector='file', path='{numbers}', format='json');
        CREATE SINK agg FROM (SELECT k, count(*) AS n, sum(v) AS total FROM s GROUP BY k EMIT FINAL)
            INTO FILE (path='{out}/agg', format='json');
        CREATE SINK raw FROM (SELECT id, v FROM s WHERE v <> 5) INTO FILE (path='{out}/raw', format='json');
    """


def check_numbers(out: Path) -> None:
    ids = Counter(row["id"] for row in rows_of(out / "raw"))
    wanted = {i for i in range(ROWS) if i % 97 != 5}
    assert not wanted - ids.keys(), "rows are lost"
    assert not ids.keys() - wanted
    assert max(ids.values()) == 1, f"{sum(c > 1 for c in ids.values())} rows came twice"
    groups: dict[object, list[int]] = {}
    for i in range(ROWS):
        group = groups.setdefault(i * 7919 % 1000, [0, 0])
        group[0] += 1
        group[1] += i % 97
    found = {row["k"]: [row["n"], row["total"]] for row in rows_of(out / "agg")}
    assert len(rows_of(out / "agg")) == len(groups)
    assert found == groups


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
    assert any(line.startswith("app") and "running" in line for line in list_jobs(address))
    assert any("partition 1" in line for line in show_status(address, "app"))
    with pytest.raises(Invalid, match="MR1591"):
        cluster.submit(job_spec_of(text), store)
    assert stop_job(address, "app", 60) == "stopped by a user"
    ids = sorted(row["id"] for row in rows_of(tmp_path / "raw"))
    assert ids == [i for i in range(ROWS) if i % 97 != 5]


def job_spec_of(text: str) -> JobSpec:
    return JobSpec("app", for_sinks(Planner().compile(text)[0]), partitions=2)
