"""Random joins over random changelogs give DuckDB's answer after every step, across restarts too."""

import pytest
from tests.property.joins_random import check, make_case


@pytest.mark.parametrize("block", range(6))
def test_folded_output_is_the_batch_answer_after_every_step(block: int) -> None:
    for seed in range(block * 15, block * 15 + 15):
        check(make_case(seed))
