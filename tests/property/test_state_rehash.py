"""A key index is right at every moment while its table is carried over into a larger one."""

import itertools
import random

import numpy as np
import pyarrow as pa
import pytest

from millrace.state import key_index, rehash
from millrace.state.key_index import KeyIndex


def upserted(index: KeyIndex, model: dict[int, int], keys: list[int]) -> None:
    found = index.upsert([pa.array(keys, pa.int64())])
    assert sorted(found.created.tolist()) == sorted(
        {s for k, s in zip(keys, found.slots.tolist(), strict=True) if k not in model}
    )
    for key, slot in zip(keys, found.slots.tolist(), strict=True):
        assert model.setdefault(key, slot) == slot
    assert len(set(model.values())) == len(model) == len(index)


@pytest.mark.parametrize("seed", range(12))
def test_upserts_lookups_and_removals_while_a_table_moves(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(key_index, "FROM_ENTRIES", 0)
    monkeypatch.setattr(rehash, "_AT_LEAST", rng.choice((1, 16, 64)))
    monkeypatch.setattr(rehash, "_PER_ROW", rng.choice((0, 1, 4)))
    index = KeyIndex([pa.int64()], capacity=64)
    model: dict[int, int] = {}
    moving = 0
    for _ in range(150):
        style = rng.random()
        if style < 0.6:
            upserted(index, model, [rng.randrange(6000) for _ in range(rng.choice((1, 10, 120)))])
        elif style < 0.8 and model:
            gone = rng.sample(sorted(model), min(len(model), rng.choice((1, 5, 60))))
            index.remove(np.array([model.pop(key) for key in gone], np.int32))
        asked = [rng.randrange(6000) for _ in range(40)]
        assert index.lookup([pa.array(asked, pa.int64())]).tolist() == [model.get(key, -1) for key in asked]
        moving += index._rehash is not None and index._rehash.old is not None
    assert moving
    assert index.keys(index.live())[0].to_pylist() == sorted(model, key=model.__getitem__)
    index.remove(index.live())
    assert index.lookup([pa.array(sorted(model), pa.int64())]).tolist() == [-1] * len(model)


def test_a_large_index_is_carried_over_by_and_by() -> None:
    index = KeyIndex([pa.int64()])
    sizes = []
    for first in range(0, 300_000, 1000):
        index.upsert([pa.array(np.arange(first, first + 1000) * 7)])
        sizes.append(index.nbytes)
    assert max(b / a for a, b in itertools.pairwise(sizes[80:])) < 1.6
    assert np.array_equal(index.lookup([pa.array(np.arange(300_000) * 7)]), np.arange(300_000))
    assert index.lookup([pa.array([3, 10])]).tolist() == [-1, -1]
