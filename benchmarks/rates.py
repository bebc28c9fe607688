"""Rows a second of a query: as a job on Ray, and embedded in a process of its own. Compares nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.on_ray import SRC, submitted, wait_until
from millrace.cluster.coordination import JobStatus
from millrace.cluster.jobs import Cluster
from millrace.planner.session import Planner

WARM_S = 3.0
MEASURED_S = 6.0
EMBEDDED = """
import json, sys, time
from benchmarks.rates import embedded_here
print(json.dumps(embedded_here(sys.argv[1], float(sys.argv[2]))))
"""


def bids(query: str, splits: int = 4) -> str:
    """A script that runs a query over bids without end, as fast as they can be made."""
    return f"""
        CREATE SOURCE bid WITH ('connector' = 'nexmark', 'table' = 'bid', 'splits' = '{splits}');
        CREATE SINK o FROM ({query}) INTO BLACKHOLE ();
    """


def on_ray(
    cluster: Cluster, folder: Path, name: str, sql: str, partitions: int, interval_s: float = 1.0
) -> tuple[float, JobStatus]:
    """Rows a second of a job without end, and its last status."""
    job = submitted(
        cluster,
        name,
        sql,
        folder,
        partitions=partitions,
        guarantee="at_least_once",
        checkpoint_interval_s=interval_s,
    )

    def all_read(status: JobStatus) -> bool:
        found = status.partitions
        return status.phase == "running" and len(found) == partitions and all(p.rows_in for p in found)

    wait_until(job, all_read)
    time.sleep(WARM_S)
    before = job.status()
    time.sleep(MEASURED_S)
    after = job.status()
    rate = 0.0
    for then, now in zip(before.partitions, after.partitions, strict=True):
        assert then.epoch == now.epoch, f"a partition was lost while it was measured: {after.problems}"
        rate += (now.rows_in - then.rows_in) / (now.at - then.at)
    job.stop()
    return rate, after


def embedded(sql: str) -> float:
    """Rows a second of the same on the one thread of a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([SRC, str(Path(__file__).parents[1])])}
    done = subprocess.run(
        [sys.executable, "-c", EMBEDDED, sql, str(MEASURED_S)],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    rate: float = json.loads(done.stdout)
    return rate


def embedded_here(sql: str, seconds: float) -> float:
    """The same in this process."""
    from millrace.cluster.dataflow import Dataflow

    plan, _ = Planner().compile(sql)
    dataflow = Dataflow()
    dataflow.extend(plan)
    until = time.perf_counter() + WARM_S
    while time.perf_counter() < until:
        dataflow.poll()
    before = sum(source.metrics.rows_in for source in dataflow.sources)
    begun = time.perf_counter()
    while time.perf_counter() < begun + seconds:
        dataflow.poll()
    rows = sum(source.metrics.rows_in for source in dataflow.sources) - before
    return rows / (time.perf_counter() - begun)
