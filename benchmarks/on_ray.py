"""A Ray cluster of the benchmark's own, and jobs on it. Measures nothing itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from millrace.cluster.coordination import JobStatus
from millrace.cluster.job import JobSpec, for_sinks
from millrace.cluster.jobs import Cluster, Job
from millrace.errors import Invalid, Unavailable
from millrace.planner.session import Planner

SRC = str(Path(__file__).parents[1] / "src")


@contextlib.contextmanager
def cluster_of_our_own(num_cpus: int = 4) -> Iterator[tuple[Cluster, Path]]:
    """A local cluster and a folder, gone afterwards. Its workers are as nice as we are, not Ray's 15."""
    import ray

    folder = tempfile.mkdtemp(prefix="mrb", dir="/tmp")  # Ray's sockets need a short path
    os.environ.update(
        RAY_TMPDIR=folder,
        RAY_AUTH_MODE="disabled",
        RAY_USAGE_STATS_ENABLED="0",
        RAY_worker_niceness="0",
        PYTHONPATH=SRC,
    )
    ray.init(
        address="local",
        num_cpus=num_cpus,
        object_store_memory=100_000_000,
        include_dashboard=False,
        namespace="millrace",
        log_to_driver=False,
        configure_logging=False,
    )
    try:
        yield Cluster("local"), Path(folder) / "data"
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def submitted(cluster: Cluster, job: str, sql: str, folder: Path, **settings: object) -> Job:
    """A job whose ledger is in `folder`; `settings` are those of JobSpec."""
    plan, _ = Planner().compile(sql)
    spec = JobSpec(job, for_sinks(plan), **settings)  # type: ignore[arg-type]
    return cluster.submit(spec, f"file://{folder}/store", num_cpus=0.5)


def wait_until(job: Job, done: Callable[[JobStatus], bool], timeout: float = 120.0) -> JobStatus:
    """The first status that will do. Raises SystemExit where none comes in time."""
    deadline = time.monotonic() + timeout
    status = None
    while time.monotonic() < deadline:
        with contextlib.suppress(Unavailable, Invalid):
            status = job.status()
            if done(status):
                return status
        time.sleep(0.01)
    raise SystemExit(f"job {job.name} did not come to it: {status}")
