"""What the key index promises beside being a dict: memory, the global group, refusals."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from millrace.errors import Bug, Unsupported
from millrace.state.key_index import KeyIndex


def test_no_column_is_one_global_group() -> None:
    index = KeyIndex([])
    first = index.upsert([], rows=3)
    assert first.slots.tolist() == [0, 0, 0]
    assert first.created.tolist() == [0]
    assert index.upsert([], rows=2).created.tolist() == []
    assert index.lookup([]).tolist() == [0]
    assert index.keys(index.live()) == []
    index.remove(np.array([0]))
    assert index.lookup([]).tolist() == [-1]
    assert len(index) == index.high == 0


def test_first_null_after_many_keys_keeps_them() -> None:
    index = KeyIndex([pa.int64(), pa.string()])
    numbers, names = pa.array([0, 1, 2]), pa.array(["a", None, "b" * 40])
    before = index.upsert([numbers, names]).slots
    with_null = index.upsert([pa.array([None, 0], pa.int64()), pa.array(["a", "a"])]).slots
    assert with_null.tolist() == [3, 0]
    assert index.lookup([numbers, names]).tolist() == before.tolist()
    assert index.keys(np.arange(4))[0].to_pylist() == [0, 1, 2, None]
    assert index.keys(np.arange(4))[1].to_pylist() == ["a", None, "b" * 40, "a"]


def test_memory_stays_flat_under_ever_new_keys() -> None:
    index = KeyIndex([pa.string(), pa.int64()])
    sizes = []
    for n in range(120):
        numbers = np.arange(n * 1000, n * 1000 + 1000)
        names = pa.array([f"a rather long key with number {i}" for i in numbers.tolist()])
        index.upsert([names, pa.array(numbers)])
        if n >= 4:
            old = numbers - 4000
            gone = pa.array([f"a rather long key with number {i}" for i in old.tolist()])
            index.remove(index.lookup([gone, pa.array(old)]))
        sizes.append(index.nbytes)
    assert len(index) == 4000
    assert max(sizes[60:]) <= 1.2 * max(sizes[20:40])


def test_memory_is_given_back_after_a_spike() -> None:
    index = KeyIndex([pa.string()])
    index.upsert([pa.array([f"a key that does not fit a record {i}" for i in range(100)])])
    small = index.nbytes
    index.upsert([pa.array([f"spike of keys that are just as long {i}" for i in range(100_000)])])
    assert index.nbytes > 20 * small
    index.remove(index.live()[100:])
    assert index.nbytes <= 2 * small
    keys = index.keys(index.live())[0].to_pylist()
    assert keys == [f"a key that does not fit a record {i}" for i in range(100)]


def test_removing_what_is_not_live_is_a_bug() -> None:
    index = KeyIndex([pa.int64()])
    index.upsert([pa.array([1, 2])])
    for slots in ([2], [-1], [0, 0]):
        with pytest.raises(Bug, match="not live"):
            index.remove(np.array(slots))


def test_wrong_columns_are_a_bug() -> None:
    index = KeyIndex([pa.int64()])
    with pytest.raises(Bug, match="2 key columns"):
        index.upsert([pa.array([1]), pa.array([2])])
    with pytest.raises(Bug, match="double column"):
        index.upsert([pa.array([1.5])])


def test_union_is_refused_as_a_key() -> None:
    with pytest.raises(Unsupported, match="cannot be a key"):
        KeyIndex([pa.dense_union([pa.field("a", pa.int64())])])


def test_dictionary_column_meets_the_same_key_as_text() -> None:
    index = KeyIndex([pa.string()])
    slots = index.upsert([pa.array(["x", "y", "x"])]).slots
    assert index.lookup([pa.array(["x", "y", "x"]).dictionary_encode()]).tolist() == slots.tolist()
