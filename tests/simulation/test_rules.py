"""No interleaving of owners loses or doubles a row under the rules; without any one of them, some does."""

import pytest
from tests.simulation.rules import RULES, explore


def test_every_interleaving_shows_each_row_once_and_in_order() -> None:
    states, wrong = explore(rows=2, owners=3)
    assert wrong is None
    assert states > 10_000


@pytest.mark.parametrize("rule", RULES)
def test_without_a_rule_some_schedule_is_wrong(rule: str) -> None:
    _, wrong = explore(rule, rows=3, owners=3)
    assert wrong is not None and len(wrong) < 40
