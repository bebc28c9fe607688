"""A bounded set of seeds runs clean, and a seed replays alike. `python -m tests.simulation --seeds 10000` runs more."""

import pytest
from tests.simulation.cluster import Cluster, scenario_of

BATCHES = 15
SEEDS_A_BATCH = 10


@pytest.mark.parametrize("batch", range(BATCHES))
def test_seeds_lose_and_double_nothing(batch: int) -> None:
    for seed in range(batch * SEEDS_A_BATCH, (batch + 1) * SEEDS_A_BATCH):
        Cluster(seed, scenario_of(seed)).run()


def test_a_seed_replays_alike() -> None:
    def story(seed: int) -> list[str]:
        cluster = Cluster(seed, scenario_of(seed))
        cluster.run()
        return list(cluster.world.trace)

    assert story(7) == story(7)
    assert story(7) != story(8)
