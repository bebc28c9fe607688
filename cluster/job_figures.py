"""What partitions and the coordinator of a job tell of themselves as metrics. Exports nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from millrace.cluster.coordination import JobStatus
from millrace.cluster.figures import node_readings, reading, tap_readings, together, watermark_readings
from millrace.cluster.partition import PartitionDriver
from millrace.operators.reading import Reading


class PartitionFigures:
    """The figures of one owner of a partition, from beside its thread."""

    def __init__(self, driver: PartitionDriver, clock: Callable[[], float] = time.monotonic) -> None:
        self._driver = driver
        self._clock = clock
        self._last = (clock(), 0.0)

    def read(self) -> list[Reading]:
        """Everything, as it is now."""
        driver = self._driver
        status = driver.status()
        then, busy = self._last
        now = self._clock()
        self._last = (now, status.busy_s)
        found = [
            reading("rows_in", status.rows_in),
            reading("rows_out", status.rows_out),
            reading("late_rows", status.late_rows),
            reading("dead_rows", status.dead_rows),
            reading("busy_seconds", status.busy_s),
            *watermark_readings(status.watermark, time.time()),
            reading("exchange_bytes", 0 if driver.share is None else driver.share.exchanged_bytes),
            reading("unpublished_outboxes", driver.unpublished),
        ]
        if now > then:
            found.append(reading("busy_ratio", min(1.0, (status.busy_s - busy) / (now - then))))
        checkpoint = driver.timings.last
        if checkpoint is not None:
            found += [
                reading("checkpoints_stored", driver.timings.stored),
                reading("checkpoint_alignment_seconds", checkpoint.alignment_s),
                reading("checkpoint_store_seconds", checkpoint.store_s),
                reading("checkpoint_bytes", checkpoint.written_bytes),
                reading("checkpoint_state_bytes", checkpoint.state_bytes),
            ]
        if driver.share is not None:
            vertices = list(driver.share.dataflow.vertices)
            found += node_readings(vertices)
            found += together(tap_readings(vertices))
        return found


class JobFigures:
    """The figures of a job, out of the statuses that its coordinator shows round by round."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._epochs: dict[int, int] = {}
        self._restarts = 0
        self._checkpoint = ""
        self._decided_at = clock()
        self._begun_at: float | None = None
        self._took: float | None = None

    def observe(self, status: JobStatus) -> None:
        """Note what changed since the last round."""
        now = self._clock()
        for partition in status.partitions:
            before = self._epochs.get(partition.partition)
            self._restarts += before is not None and before != partition.epoch
            self._epochs[partition.partition] = partition.epoch
        if status.checkpoint != self._checkpoint:
            if self._begun_at is not None:
                self._took = now - self._begun_at
            self._checkpoint, self._decided_at, self._begun_at = status.checkpoint, now, None
        if status.round is None:
            self._begun_at = None  # decided or given up
        elif self._begun_at is None:
            self._begun_at = now - status.round.age_s

    def read(self, status: JobStatus) -> list[Reading]:
        """Everything, as it is now."""
        found = [
            reading("checkpoints_decided", status.decided),
            reading("checkpoint_age_seconds", self._clock() - self._decided_at),
            reading("coordinator_epoch", status.epoch),
            reading("partition_restarts", self._restarts),
            reading("partitions", len(status.partitions)),
            reading("partitions_wanted", status.target),
            reading("checkpoint_waits_for", 0 if status.round is None else len(status.round.storing)),
        ]
        number = status.checkpoint.rpartition(".")[2]
        if number.isdigit():
            found.append(reading("checkpoint_number", int(number)))
        if self._took is not None:
            found.append(reading("checkpoint_seconds", self._took))
        return found
