"""The row store behaves like a dict from row number to row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.errors import Bug
from millrace.state.row_store import RowStore

SCHEMA = pa.schema(
    [
        ("i", pa.int64()),
        ("s", pa.string()),
        ("b", pa.bool_()),
        ("f", pa.float32()),
        ("d", pa.decimal128(30, 2)),
        ("l", pa.list_(pa.int16())),
        ("e", pa.dictionary(pa.int32(), pa.string())),
        ("y", pa.large_binary()),
        ("n", pa.null()),
        ("u", pa.uint8()),
    ]
)


def batch_of(numbers: range, pad: int) -> pa.RecordBatch:
    whole = range(numbers.start - pad, numbers.stop + pad)
    columns: list[list[Any]] = [
        [None if i % 5 == 0 else i for i in whole],
        [None if i % 7 == 0 else f"naïve {i}" * (i % 4) for i in whole],
        [None if i % 3 == 0 else i % 2 == 0 for i in whole],
        [i / 2 for i in whole],
        [None if i % 11 == 0 else i for i in whole],
        [None if i % 4 == 0 else [i % 100, None] for i in whole],
        [None if i % 6 == 0 else f"e{i % 3 + pad}" for i in whole],
        [str(i).encode() for i in whole],
        [None for _ in whole],
        [i % 200 for i in whole],
    ]
    arrays = [pa.array(v, f.type) for v, f in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA).slice(pad, len(numbers))


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from([0, 1, 1, 1, 2, 5, 9, 70, 300]), st.integers(0, 9)),
        st.tuples(st.just("remove"), st.integers(0, 10), st.integers(1, 4)),
        st.tuples(st.just("gather"), st.integers(0, 1000), st.integers(0, 60)),
    ),
    max_size=60,
)


@settings(max_examples=40, deadline=None)
@given(steps)
def test_store_equals_a_dict(script: list[tuple[str, int, int]]) -> None:
    store = RowStore(SCHEMA)
    model: dict[int, dict[str, Any]] = {}
    value = 1000
    for kind, first, second in script:
        if kind == "append":
            batch = batch_of(range(value, value + first), second)
            value += first
            mark = store.next_row
            numbers = store.append(batch)
            assert numbers.tolist() == list(range(mark, mark + first))
            model.update(zip(numbers.tolist(), batch.to_pylist(), strict=True))
            assert store.rows_since(mark).tolist() == numbers.tolist()
        elif kind == "remove":
            alive = sorted(model)
            gone = alive[first * len(alive) // 10 :: second]
            store.remove(np.array(gone, np.int64))
            for number in gone:
                del model[number]
        else:
            alive = sorted(model)
            picked = [alive[(first + 7919 * i) % len(alive)] for i in range(second)] if alive else []
            rows = store.gather(np.array(picked, np.int64))
            rows.validate(full=True)
            assert rows.schema.equals(SCHEMA)
            assert rows.to_pylist() == [model[number] for number in picked]
        assert len(store) == len(model)
        assert store.live().tolist() == sorted(model)
    rows = store.gather(store.live(), ["s", "i"])
    assert rows.to_pylist() == [{"s": model[n]["s"], "i": model[n]["i"]} for n in sorted(model)]


def test_rows_that_do_not_live_are_a_bug() -> None:
    store = RowStore(SCHEMA)
    numbers = store.append(batch_of(range(10), 0))
    store.remove(numbers[3:5])
    for wrong in ([3], [10], [-1]):
        with pytest.raises(Bug, match="does not live"):
            store.gather(np.array(wrong))
    with pytest.raises(Bug, match="removed twice"):
        store.remove(np.array([0, 0]))


def test_one_row_appends_keep_few_chunks_and_little_memory() -> None:
    store = RowStore(SCHEMA.remove(SCHEMA.get_field_index("n")))
    whole = batch_of(range(3000), 0).drop_columns(["n"])
    for i in range(3000):
        store.append(whole.slice(i, 1))
    assert len(store._chunks) < 70
    assert store.nbytes < 1.5 * whole.nbytes + 64 * len(store)
    assert store.gather(np.arange(3000)).to_pylist() == whole.to_pylist()


def test_a_slice_does_not_keep_its_parent() -> None:
    store = RowStore(pa.schema([("i", pa.int64())]))
    parent = pa.record_batch({"i": np.arange(1_000_000)})
    store.append(parent.slice(500, 10))
    assert store.nbytes < 10_000


def test_memory_follows_what_lives() -> None:
    store = RowStore(pa.schema([("i", pa.int64())]))
    kept = []
    peak = 0
    for n in range(200):
        numbers = store.append(pa.record_batch({"i": np.arange(n * 1000, n * 1000 + 1000)}))
        kept.append(int(numbers[n % 1000]))
        if n >= 5:
            old = np.arange((n - 5) * 1000, (n - 4) * 1000)
            store.remove(old[old != kept[n - 5]])
        peak = max(peak, store.nbytes)
    assert len(store) == 5 * 1000 + 195
    assert peak < 300_000
    assert len(store._chunks) < 60
    rows = store.gather(np.array(kept))
    assert rows.column(0).to_pylist() == kept
