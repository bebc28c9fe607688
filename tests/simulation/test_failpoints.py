"""A crash at any edge of the protocol, and at any two, costs no row and doubles none."""

import pytest
from tests.simulation.cluster import Cluster, scenario_of
from tests.simulation.failpoints import FAILPOINTS, FAULTY_ONLY, crash_at, pairs

PAIRS = 120


@pytest.mark.parametrize("name", FAILPOINTS)
def test_crash_at_every_failpoint_is_survived(name: str) -> None:
    found = crash_at(0, name)
    if not found.world.crashed[name]:
        found = crash_at(1, name)
    assert found.world.crashed[name] == 1


def test_edges_that_only_faults_lead_to_are_reached() -> None:
    wanted = set(FAULTY_ONLY)
    for seed in range(200):
        cluster = Cluster(seed, scenario_of(seed))
        cluster.run()
        wanted -= cluster.world.reached.keys()
        if not wanted:
            return
    pytest.fail(f"never reached: {sorted(wanted)}")


def test_crashes_at_two_failpoints_are_survived() -> None:
    for seed, names in enumerate(pairs(PAIRS)):
        crash_at(seed, *names)
