"""Figures of jobs, checkpoints and channels: what is computed from what, with a clock of the test's own."""

import math

from millrace.cluster.checkpoint_timings import CheckpointTimings
from millrace.cluster.coordination import JobStatus, RoundStatus
from millrace.cluster.figures import KNOWN, together, watermark_readings
from millrace.cluster.job_figures import JobFigures
from millrace.cluster.partition import PartitionStatus
from millrace.operators.batch import END_OF_TIME, START_OF_TIME
from millrace.operators.reading import Reading
from millrace.state.checkpoints.manifest import Contribution, Link, ObjectRef, OutboxRef, TableChain
from millrace.state.checkpoints.number import CheckpointNumber


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def partition(number: int, epoch: int) -> PartitionStatus:
    return PartitionStatus(number, epoch, "running", 0, 0, 0, 0, 0, 0, False, 0.0)


def status(
    checkpoint: str, *partitions: PartitionStatus, round: RoundStatus | None = None, decided: int = 0
) -> JobStatus:
    return JobStatus("j", "running", 3, checkpoint, decided, partitions, (), round, 2)


def figures(found: JobFigures, at: JobStatus) -> dict[str, float]:
    return {r.name.removeprefix("millrace_"): r.value for r in found.read(at)}


def test_a_job_tells_of_its_checkpoints_and_restarts() -> None:
    clock = Clock()
    job = JobFigures(clock)
    job.observe(status("none", partition(0, 1), partition(1, 1)))
    clock.now += 1
    under_way = RoundStatus("3.1", "regular", 0.25, (), (1,))
    job.observe(at := status("none", partition(0, 1), partition(1, 1), round=under_way))
    assert figures(job, at)["checkpoint_waits_for"] == 1
    assert "checkpoint_seconds" not in figures(job, at) and "checkpoint_number" not in figures(job, at)
    clock.now += 0.5
    job.observe(at := status("3.17", partition(0, 1), partition(1, 2), decided=1))
    clock.now += 4
    job.observe(at)
    found = figures(job, at)
    assert math.isclose(found["checkpoint_seconds"], 0.75)
    assert math.isclose(found["checkpoint_age_seconds"], 4)
    assert (found["checkpoint_number"], found["checkpoints_decided"], found["coordinator_epoch"]) == (
        17,
        1,
        3,
    )
    assert (found["partition_restarts"], found["partitions"], found["partitions_wanted"]) == (1, 2, 2)


def test_a_round_that_was_given_up_takes_no_time() -> None:
    clock = Clock()
    job = JobFigures(clock)
    job.observe(status("3.1", round=RoundStatus("3.2", "regular", 9, (), ())))
    job.observe(status("3.1"))
    job.observe(at := status("3.3"))
    assert "checkpoint_seconds" not in figures(job, at)


def chain(*objects: str) -> TableChain:
    return TableChain("n", "t", ("k",), tuple(Link(ObjectRef(o, 10, b"")) for o in objects))


def test_a_partition_tells_how_long_and_how_large_its_part_was() -> None:
    clock = Clock()
    timings = CheckpointTimings(clock)
    first, second = CheckpointNumber(1, 1), CheckpointNumber(1, 2)
    for number, objects in ((first, ("a",)), (second, ("a", "b"))):
        timings.begin(number)
        clock.now += 1
        timings.cut(number)
        clock.now += 2
        outbox = OutboxRef("s", 0, number, ObjectRef(f"o{number}", 5, b""))
        timings.store(number, Contribution(0, 1, 0, 9, (chain(*objects),), (), (outbox,)))
    found = timings.last
    assert found is not None and timings.stored == 2
    assert (found.number, found.alignment_s, found.store_s) == (second, 1, 2)
    assert (found.written_bytes, found.state_bytes) == (15, 20)


def test_a_watermark_that_says_nothing_is_not_told() -> None:
    assert not list(watermark_readings(START_OF_TIME, 9)) and not list(watermark_readings(END_OF_TIME, 9))
    assert [r.value for r in watermark_readings(7_500_000, 9)] == [7.5, 1.5]


def test_counts_of_two_queries_add_up_and_gauges_do_not() -> None:
    one = Reading("n", "counter", "", "n_total", (), 1)
    gauge = Reading("g", "gauge", "", "g", (), 5)
    assert [r.value for r in together([one, gauge, one, gauge])] == [2, 5]


def test_names_are_ones_that_prometheus_takes() -> None:
    for name, (kind, text) in KNOWN.items():
        assert name.replace("_", "").isalpha() and kind in ("counter", "gauge") and text
