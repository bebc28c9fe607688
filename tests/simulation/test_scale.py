"""A job of 1,000 partitions and 10,000 splits: planned at once, and a checkpoint costs its coordinator under a second."""

from tests.simulation.scale import measure


def test_coordinator_work_is_linear_and_under_a_second() -> None:
    small = min(measure(250, 2_500)[1] for _ in range(3))
    planned, large = map(min, zip(*(measure(1_000, 10_000) for _ in range(3)), strict=True))
    assert planned < 3.0
    assert large < 1.0
    assert large < 4 * small * 2.5, "four times the partitions should cost about four times the work"
