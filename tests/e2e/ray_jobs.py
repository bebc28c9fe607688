"""Jobs of numbers on a local Ray cluster: how they are submitted, waited for, and checked row by row."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.cluster.job import JobSpec, for_sinks
from millrace.cluster.jobs import Cluster, Job
from millrace.errors import Unavailable
from millrace.planner.session import Planner

SRC = str(Path(__file__).parents[2] / "src")
ROWS = 120_000
FILES = 6


def local_cluster() -> Iterator[Cluster]:
    """A Ray cluster of this process's own."""
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


def write_numbers(folder: Path) -> Path:
    """ROWS rows in FILES files."""
    for file in range(FILES):
        with open(folder / f"{file}.json", "w") as out:
            out.writelines(
                f'{{"id":{i},"k":{i * 7919 % 1000},"v":{i % 97}}}\n' for i in range(file, ROWS, FILES)
            )
    return folder


def submitted(
    cluster: Cluster, job: str, sql: str, store: Path, partitions: int, batch_rows: int = 512
) -> Job:
    plan, _ = Planner().compile(sql)
    spec = JobSpec(
        job,
        for_sinks(plan),
        partitions=partitions,
        batch_rows=batch_rows,
        checkpoint_interval_s=0.3,
        liveness_s=10.0,  # the machine may be busy with other tests, and nothing here hangs
        lease_s=30.0,
    )
    return cluster.submit(spec, f"file://{store}", num_cpus=0.5)


def rows_of(folder: Path) -> list[dict[str, object]]:
    found = []
    for name in glob.glob(f"{folder}/*.json"):
        with open(name) as lines:
            found += [json.loads(line) for line in lines]
    return found


def until(cluster: Cluster, job: str, decided: int, timeout: float = 90) -> None:
    """Wait until the present coordinator has decided so many checkpoints."""
    deadline = time.monotonic() + timeout
    status = None
    while time.monotonic() < deadline:
        with contextlib.suppress(Unavailable):
            status = cluster.status(job)
            if status.phase == "ended":
                pytest.fail("the job ended before the test could kill anything")
            if status.decided >= decided and status.phase == "running":
                return
        time.sleep(0.05)
    pytest.fail(f"{job} did not come to {decided} checkpoints: {status}")


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
