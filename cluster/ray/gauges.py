"""A partition's figures as metrics of Ray's agent, which Prometheus reads. Counts nothing itself."""

from __future__ import annotations

from ray.util.metrics import Gauge

from millrace.cluster.partition import PartitionStatus
from millrace.operators.batch import END_OF_TIME, START_OF_TIME

_TAGS = ("job", "partition")


class Gauges:
    """Figures of one partition. Tags are job and partition only: an epoch would make new series at each restart."""

    def __init__(self, job: str, partition: int) -> None:
        tags = {"job": job, "partition": str(partition)}
        self._gauges = {
            name: Gauge(f"millrace_{name}", description, _TAGS)
            for name, description in (
                ("rows_in", "Rows read from sources since the partition started"),
                ("rows_out", "Rows written to sinks since the partition started"),
                ("late_rows", "Rows that came too late since the partition started"),
                ("dead_rows", "Records that did not decode or compute since the partition started"),
                ("busy_seconds", "Time spent in operators since the partition started"),
                ("watermark_seconds", "Lowest watermark of the sources, seconds since the epoch"),
            )
        }
        for gauge in self._gauges.values():
            gauge.set_default_tags(tags)

    def show(self, status: PartitionStatus) -> None:
        """Bring the figures up to date."""
        figures = {
            "rows_in": status.rows_in,
            "rows_out": status.rows_out,
            "late_rows": status.late_rows,
            "dead_rows": status.dead_rows,
            "busy_seconds": status.busy_s,
        }
        for name, figure in figures.items():
            self._gauges[name].set(figure)
        if status.watermark not in (START_OF_TIME, END_OF_TIME):
            self._gauges["watermark_seconds"].set(status.watermark / 1e6)
