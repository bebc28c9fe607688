"""Slot columns keep what is written; dirty slots tell exactly what changed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.errors import Bug
from millrace.state.columns import DirtySlots, SlotColumn
from millrace.state.key_index import KeyIndex
from millrace.state.snapshot import fold


def test_growth_keeps_values_and_fills() -> None:
    column = SlotColumn(np.int64, fill=-7)
    column.values[3] = 9
    column.grow(5000)
    assert len(column) >= 5000
    assert column.values[3] == 9
    assert column.values[4999] == -7
    column.reset(np.array([3], np.int32))
    assert column.values[3] == -7
    column.reset(np.array([3], np.int32), 1)
    assert column.values[3] == 1
    column.fit(10)
    assert len(column) == 1024
    assert column.values[3] == 1


def test_gather_has_type_and_validity() -> None:
    column = SlotColumn(np.int64)
    column.values[:3] = [5, 6, 7]
    picked = column.gather(np.array([2, 0], np.int32), pa.timestamp("us"), valid=np.array([True, False]))
    assert picked.type == pa.timestamp("us")
    assert picked.cast(pa.int64()).to_pylist() == [7, None]
    flags = SlotColumn(np.bool_)
    flags.values[1] = True
    assert flags.gather(np.array([0, 1, 2], np.int32)).to_pylist() == [False, True, False]


steps = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["add", "add", "remove"]), st.integers(0, 30), st.integers(1, 9)),
        max_size=8,
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_captures_fold_to_what_is_live(epochs: list[list[tuple[str, int, int]]]) -> None:
    """Capture after each epoch; the fold of all captures is the state, and each tells only of its epoch."""
    index = KeyIndex([pa.string()])
    dirty = DirtySlots(index)
    totals = SlotColumn(np.int64)
    model: dict[str, int] = {}
    captured: list[tuple[pa.RecordBatch, pa.RecordBatch]] = []
    for epoch in epochs:
        before = dict(model)
        touched = set()
        for kind, first, length in epoch:
            names = [f"key {n}" for n in range(first, first + length)]
            if kind == "add":
                upserted = index.upsert([pa.array(names)])
                totals.grow(index.high)
                totals.reset(upserted.created)
                np.add.at(totals.values, upserted.slots, 1)
                dirty.create(upserted.created)
                dirty.mark(upserted.slots)
                model.update({name: model.get(name, 0) + 1 for name in names})
            else:
                slots = index.lookup([pa.array(names)])
                slots = slots[slots >= 0]
                dirty.remove(slots)
                index.remove(slots)
                for name in names:
                    model.pop(name, None)
            touched |= set(names)
        changes = dirty.take()
        rows = pa.record_batch({"k": index.keys(changes.slots)[0], "v": totals.gather(changes.slots)})
        gone = pa.record_batch({"k": changes.removed[0]})
        assert len(changes.removed_hashes) == gone.num_rows
        if captured:
            assert set(rows.column("k").to_pylist()) == touched & set(model)
            told = gone.column("k").to_pylist()
            assert len(told) == len(set(told))
            assert set(told) <= touched & set(before)
            assert set(told) >= (touched & set(before)) - set(model)
        captured.append((rows, gone))
    folded = fold(captured[0][0], captured[1:], ["k"])
    assert {row["k"]: row["v"] for row in folded.to_pylist()} == model
    assert dirty.take().slots.tolist() == []


@pytest.mark.parametrize("slot", [-1, 10_000])
def test_marking_a_slot_that_is_not_there_is_a_bug(slot: int) -> None:
    dirty = DirtySlots(KeyIndex([pa.int64()]))
    dirty.take()
    with pytest.raises(Bug, match="not live"):
        dirty.mark(np.array([slot], np.int32))
