"""From the loss of a partition to its first new output: killed, and hung, with and without an exchange."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.on_ray import cluster_of_our_own, submitted, wait_until
from millrace.cluster.jobs import Cluster, Job

KEYS = 1_000_000
RATE = 200_000
SOURCE = f"""
    CREATE SOURCE s (id BIGINT, v BIGINT) WITH ('connector' = 'datagen', 'rate' = '{{rate}}', 'splits' = '4',
        'fields.id.kind' = 'sequence', 'fields.v.min' = '0', 'fields.v.max' = '{KEYS}');
"""
JOBS = {
    "independent": "SELECT id, v FROM s WHERE v % 1000 = 0",
    "exchange": f"""SELECT k, n, total FROM (SELECT (id * 7919) % {KEYS} AS k, count(*) AS n, sum(v) AS total
        FROM s GROUP BY (id * 7919) % {KEYS}) WHERE k % 1000 = 0""",
}
GOALS = {"independent": 3.0, "exchange": 5.0}
DETECTION_S = {signal.SIGKILL: 1.0, signal.SIGSTOP: 2.5}


@dataclass(frozen=True, slots=True)
class Recovery:
    """One loss; times in s since the signal."""

    job: str
    signal: str
    detected: float
    running: float
    first_output: float
    goal: float


def run(as_json: bool) -> None:
    """Print the times of each loss."""
    for name, query in JOBS.items():
        with cluster_of_our_own() as (cluster, folder):
            for found in measure(cluster, folder, name, query):
                print(json.dumps(found.__dict__) if as_json else _line(found), flush=True)


def measure(cluster: Cluster, folder: Path, name: str, query: str) -> list[Recovery]:
    """A killed and a hung partition of one job."""
    sql = f"{SOURCE.format(rate=RATE)} CREATE SINK o FROM ({query}) INTO FILE (path='{folder}/out', format='json')"
    job = submitted(cluster, name, sql, folder, partitions=2)
    wait_until(job, lambda s: s.phase == "running" and sum(p.rows_in for p in s.partitions) >= 1.2 * KEYS)
    found = []
    for number in (signal.SIGKILL, signal.SIGSTOP):
        decided = job.status().decided
        wait_until(job, lambda s: s.phase == "running" and s.decided >= decided + 5)  # noqa: B023
        found.append(_lose(cluster, job, folder, number, GOALS[name]))
    cluster.stop(name)
    return found


def _lose(cluster: Cluster, job: Job, folder: Path, number: signal.Signals, goal: float) -> Recovery:
    victim = cluster.processes(job.name)["partition-1"]
    epoch = job.status().partitions[1].epoch
    begun = time.monotonic()
    os.kill(victim, number)
    status = wait_until(
        job, lambda s: s.phase != "running" or len(s.partitions) < 2 or s.partitions[1].epoch > epoch
    )
    detected = time.monotonic() - begun
    wait_until(
        job,
        lambda s: (
            s.phase == "running"
            and len(s.partitions) == 2
            and s.partitions[1].epoch > epoch
            and s.partitions[1].rows_out > 0
        ),
    )
    running = time.monotonic() - begun
    before = _parts(folder)
    while not _parts(folder) - before:
        time.sleep(0.01)
        if time.monotonic() - begun > 120:
            raise SystemExit(f"no output: {status} {job.status()}")
    output = time.monotonic() - begun
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    return Recovery(job.name, number.name, round(detected, 2), round(running, 2), round(output, 2), goal)


def _parts(folder: Path) -> set[str]:
    """Files that partition 1 has published."""
    return {path.name for path in (folder / "out").glob("part-00001-*")}


def _line(found: Recovery) -> str:
    return (
        f"{found.job:<12} {found.signal:<8} detected {found.detected:5.2f} s   running {found.running:5.2f} s   "
        f"first output {found.first_output:5.2f} s (goal {found.goal:g} s)"
    )
