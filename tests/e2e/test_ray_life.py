"""The life of a job on Ray: scaled while it runs, checked row by row."""

from pathlib import Path

import pytest
from tests.e2e.ray_jobs import check_numbers, sql_of, submitted, until

from millrace.cluster.jobs import Cluster

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
