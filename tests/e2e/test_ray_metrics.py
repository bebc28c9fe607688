"""A job's figures on the port of Ray's metrics agent, as Prometheus would read them."""

import re
import time
import urllib.request
from pathlib import Path

import pytest
from tests.e2e.ray_jobs import submitted

from millrace.cluster.jobs import Cluster

pytestmark = [
    pytest.mark.timeout(170),
    # Ray leaves sockets and files to the end of the process.
    pytest.mark.filterwarnings("default"),
]

SQL = """
    CREATE SOURCE s (k BIGINT, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts) WITH (
        'connector' = 'datagen', 'rows-per-second' = '2000', 'fields.k.min' = '1', 'fields.k.max' = '3',
        'fields.v.min' = '1', 'fields.v.max' = '9');
    -- @metric: seen_total
    -- @metric_labels: k
    -- @metric: v_seen
    -- @metric_type: histogram
    -- @metric_field: v
    -- @metric_buckets: 4, 8
    CREATE STREAM t AS SELECT k, v, ts FROM s;
    CREATE SINK agg FROM (SELECT k, count(*) AS n FROM t GROUP BY k) INTO FILE (path='{out}', format='json');
"""
WANTED = (
    'ray_millrace_rows_in_total{job="metered",partition="0"}',
    'ray_millrace_rows_out_total{job="metered",partition="1"}',
    'ray_millrace_rows_out_total{job="metered",partition="0"}',
    'ray_millrace_busy_ratio{job="metered",partition="0"}',
    'ray_millrace_watermark_lag_seconds{job="metered",partition="0"}',
    'ray_millrace_exchange_bytes_total{job="metered",partition="0"}',
    'ray_millrace_checkpoints_stored_total{job="metered",partition="0"}',
    'ray_millrace_checkpoint_state_bytes{job="metered",partition="0"}',
    'ray_millrace_checkpoint_alignment_seconds{job="metered",partition="0"}',
    'ray_millrace_unpublished_outboxes{job="metered",partition="0"}',
    'ray_millrace_node_rows_in_total{job="metered",node="s",partition="0"}',
    'ray_millrace_checkpoints_decided_total{job="metered"}',
    'ray_millrace_checkpoint_age_seconds{job="metered"}',
    'ray_millrace_checkpoint_seconds{job="metered"}',
    'ray_millrace_coordinator_epoch{job="metered"}',
    'ray_millrace_partitions{job="metered"}',
    'ray_seen_total{job="metered",k="1",partition="0"}',
    'ray_v_seen_bucket{job="metered",le="4.0",partition="0"}',
    'ray_v_seen_bucket{job="metered",le="+Inf",partition="0"}',
)
OURS = frozenset({"job", "partition", "node", "k", "le"})


def scraped() -> dict[str, float]:
    """Our samples by name and our tags; those that Ray adds are left out."""
    import ray

    (node,) = ray.nodes()
    port = node["MetricsExportPort"]
    with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for name, labels, value in re.findall(r"^(ray_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        tags = sorted((k, v) for k, v in re.findall(r'(\w+)="([^"]*)"', labels) if k in OURS)
        if ("job", "metered") in tags:
            shown = ",".join(f'{k}="{v}"' for k, v in tags)
            key = f"{name}{{{shown}}}"
            found[key] = max(found.get(key, 0.0), float(value))
    return found


def test_prometheus_reads_a_job(cluster: Cluster, tmp_path: Path) -> None:
    job = submitted(cluster, "metered", SQL.format(out=tmp_path / "out"), tmp_path / "store", partitions=2)
    try:
        deadline = time.monotonic() + 90
        found = scraped()
        while time.monotonic() < deadline and not all(found.get(name) is not None for name in WANTED):
            time.sleep(1)
            found = scraped()
        status = job.status()
    finally:
        job.stop()
    missing = [name for name in WANTED if name not in found]
    if missing:
        pytest.fail(f"not there: {missing}; there: {found}, {status}")
    assert found['ray_millrace_rows_in_total{job="metered",partition="0"}'] > 0
    assert found['ray_millrace_partitions{job="metered"}'] == 2
    assert 0 <= found['ray_millrace_busy_ratio{job="metered",partition="0"}'] <= 1
    low, all_ = (
        found[f'ray_v_seen_bucket{{job="metered",le="{le}",partition="0"}}'] for le in ("4.0", "+Inf")
    )
    assert 0 < low < all_
