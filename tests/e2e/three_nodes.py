"""A cluster of three raylets on this machine, and on which of them partitions of jobs run. Prints JSON."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from millrace.cluster.jobs import Cluster
from millrace.submitting import job_spec

SQL = """
    CREATE SOURCE s (id BIGINT) WITH ('connector' = 'datagen', 'rate' = '1000', 'splits' = '3',
        'fields.id.kind' = 'sequence');
    CREATE SINK o FROM (SELECT id % 10 AS k, count(*) AS n FROM s GROUP BY id % 10) INTO FILE (path='{out}', format='json');
"""
JOBS = {
    "spread": {"placement": "spread"},
    "pack": {"placement": "pack"},
    "resources": {"placement.resources": "ssd:0.5"},
}


def parent(pid: int) -> int:
    """The process that started one: a worker's is the raylet of its node."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def nodes_of(cluster: Cluster, folder: Path, name: str, raylets: dict[int, str]) -> list[str]:
    """The node of each partition, once all run."""
    sql = SQL.format(out=folder / name)
    spec = job_spec(sql, job=name, partitions=2, checkpoint_interval=1, variables={}, settings=JOBS[name])
    job = cluster.submit(spec, f"file://{folder}/{name}-store", num_cpus=0.2)
    deadline = time.monotonic() + 120
    while True:
        status = job.status()
        if status.phase == "running" and len(status.partitions) == 2:
            break
        assert time.monotonic() < deadline, status
        time.sleep(0.1)
    pids = cluster.processes(name)
    found = [raylets[parent(pids[f"partition-{p}"])] for p in range(2)]
    job.stop()
    return found


def main() -> None:
    """Start the cluster, run the jobs one after the other, and say where they ran."""
    folder = Path(tempfile.mkdtemp(prefix="mr3", dir="/tmp"))
    os.environ.update(
        RAY_TMPDIR=str(folder), RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0"
    )
    import ray
    from ray.cluster_utils import Cluster as Nodes

    memory = 80_000_000
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": memory})
    head = nodes.head_node
    assert head is not None and nodes.address is not None
    one = nodes.add_node(num_cpus=2, object_store_memory=memory)
    two = nodes.add_node(num_cpus=2, object_store_memory=memory, resources={"ssd": 1})
    try:
        nodes.wait_for_nodes()
        ray.init(address=nodes.address, namespace="millrace", log_to_driver=False, configure_logging=False)
        raylets = {
            node.all_processes["raylet"][0].process.pid: name
            for node, name in ((head, "head"), (one, "one"), (two, "two"))
        }
        cluster = Cluster(nodes.address)
        sys.stdout.write(json.dumps({name: nodes_of(cluster, folder, name, raylets) for name in JOBS}) + "\n")
        sys.stdout.flush()
    finally:
        ray.shutdown()
        nodes.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
