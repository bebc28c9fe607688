"""EXCEPT and INTERSECT, DISTINCT ON, and ORDER BY what is not selected, over random changelogs: DuckDB's answer after
every step, across restarts too."""

import random
from collections.abc import Sequence

import pytest
from tests.property.joins_random import Input, check, make_case

WORDS = ("EXCEPT", "EXCEPT ALL", "INTERSECT", "INTERSECT ALL", "UNION", "UNION ALL")
COLUMNS = ("k, s", "j", "v, k, d", "s")


def put_together(rng: random.Random, inputs: Sequence[Input]) -> str:
    """Set operations over all inputs, one after the other."""
    columns = rng.choice(COLUMNS)
    sides = [f"SELECT {columns} FROM {given.name}" for given in inputs]
    sides = [f"{side} WHERE v > 0" if rng.random() < 0.3 else side for side in sides]
    whole = sides[0]
    for side in sides[1:]:
        whole = f"({whole}) {rng.choice(WORDS)} ({side})"
    if rng.random() < 0.3:
        return f"SELECT * FROM ({whole}) AS w WHERE {columns.split(',')[0]} IS NOT NULL"
    return whole


@pytest.mark.parametrize("block", range(3))
def test_set_operations_are_kept_up_to_date(block: int) -> None:
    for seed in range(block * 20, block * 20 + 20):
        check(make_case(seed, query=put_together))


def ordered(rng: random.Random, inputs: Sequence[Input]) -> str:
    """The first rows by values that are not selected; ties are told apart by what is."""
    name = inputs[0].name
    limit = rng.randint(1, 4)
    inner = rng.choice(
        (
            f"SELECT k, s FROM {name} ORDER BY v * 2 DESC NULLS LAST, k NULLS LAST, s NULLS LAST LIMIT {limit}",
            f"SELECT s FROM {name} GROUP BY s ORDER BY count(*) DESC, s NULLS LAST LIMIT {limit}",
            f"SELECT k, s FROM (SELECT k, s FROM {name} ORDER BY v NULLS LAST, k NULLS LAST, s NULLS LAST LIMIT {limit})",
            f"SELECT DISTINCT ON (k) k, s, v FROM {name} ORDER BY k NULLS LAST, v DESC NULLS LAST, s NULLS LAST",
            f"SELECT DISTINCT ON (k + j) s, v FROM {name} ORDER BY k + j NULLS LAST, v NULLS LAST, s NULLS LAST",
        )
    )
    return f"SELECT * FROM ({inner}) AS w"


@pytest.mark.parametrize("block", range(2))
def test_first_rows_by_what_is_not_selected_are_kept_up_to_date(block: int) -> None:
    for seed in range(block * 15, block * 15 + 15):
        check(make_case(seed, query=ordered))
