"""State tables come back as written, by any vnode range; damage is told; a folded chain equals a dict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.errors import Corrupt
from millrace.state.snapshot import fold, read_block, read_index, read_table, write_table


def table_of(vnodes: list[int]) -> pa.RecordBatch:
    n = len(vnodes)
    return pa.record_batch(
        {
            "key": pa.array([f"k{i}" if i % 5 else None for i in range(n)], pa.string()),
            "total": pa.array(range(n), pa.int64()),
            "_vnode": pa.array(vnodes, pa.uint16()),
        }
    )


def rows_of(batch: pa.RecordBatch) -> list[Any]:
    return sorted((row["_vnode"], row["total"], row["key"]) for row in batch.to_pylist())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 40), max_size=80),
    st.integers(1, 30),
    st.integers(0, 45),
    st.integers(0, 45),
)
def test_any_vnode_range_comes_back(vnodes: list[int], block_rows: int, first: int, end: int) -> None:
    table = table_of(vnodes)
    data = write_table(table, block_rows)
    whole = read_table(data)
    assert whole.schema.equals(table.schema)
    assert rows_of(whole) == rows_of(table)
    part = read_table(data, range(first, end))
    assert rows_of(part) == [row for row in rows_of(table) if first <= row[0] < end]


def test_a_range_is_read_from_its_blocks_alone() -> None:
    table = table_of([i // 10 for i in range(1000)])
    data = write_table(table, 100)
    index = read_index(data[-4096:], len(data))
    assert index.rows == 1000
    blocks = index.within(30, 35)
    assert len(blocks) == 1
    batch = read_block(index, blocks[0], data[blocks[0].start : blocks[0].start + blocks[0].length])
    assert set(batch.column("_vnode").to_pylist()) == set(range(30, 40))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_and_truncation_are_told(data: st.DataObject) -> None:
    table = table_of([i // 3 for i in range(60)])
    good = write_table(table, 20)
    if data.draw(st.booleans()):
        bad = good[: data.draw(st.integers(0, len(good) - 1))]
    else:
        place = data.draw(st.integers(0, len(good) - 1))
        bad = good[:place] + bytes([good[place] ^ (1 << data.draw(st.integers(0, 7)))]) + good[place + 1 :]
    with pytest.raises(Corrupt, match=r"MR500\d"):
        read_table(bad)


operations = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["put", "delete"]), st.integers(0, 12), st.integers(0, 99)), max_size=15
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(operations)
def test_a_folded_chain_equals_a_dict(chain: list[list[tuple[str, int, int]]]) -> None:
    schema = pa.schema([("key", pa.int64()), ("value", pa.int64()), ("_vnode", pa.uint16())])
    keys = pa.schema([("key", pa.int64()), ("_vnode", pa.uint16())])

    def record(key: int, value: int) -> dict[str, Any]:
        return {"key": None if key == 0 else key, "value": value, "_vnode": key}

    full = pa.RecordBatch.from_pylist([record(1, 1), record(2, 2)], schema=schema)
    model = {1: 1, 2: 2}
    deltas = []
    for step in chain:
        gone = [key for kind, key, _ in step if kind == "delete"]
        put = [(key, value) for kind, key, value in step if kind == "put"]
        for key in gone:
            model.pop(key, None)
        model.update(put)
        deleted = pa.RecordBatch.from_pylist([{"key": k or None, "_vnode": k} for k in gone], schema=keys)
        rows = pa.RecordBatch.from_pylist([record(k, v) for k, v in put], schema=schema)
        deltas.append((rows, deleted if gone else None))
    folded = fold(full, deltas, ["key"])
    assert folded.schema.equals(schema)
    assert {row["key"] or 0: row["value"] for row in folded.to_pylist()} == model
    assert folded.num_rows == len(model)


def test_fold_without_key_keeps_the_last_row() -> None:
    def one(value: int) -> pa.RecordBatch:
        return pa.record_batch({"value": pa.array([value]), "_vnode": pa.array([0], pa.uint16())})

    assert fold(one(1), [(one(2), None), (one(3), None)], []).to_pylist() == [{"value": 3, "_vnode": 0}]
    empty, gone = one(0).slice(0, 0), pa.record_batch({"_vnode": pa.array([0], pa.uint16())})
    assert fold(one(1), [(empty, gone)], []).num_rows == 0


def test_an_empty_table_comes_back() -> None:
    table = table_of([])
    assert read_table(write_table(table)).equals(table)
    assert np.array(read_index(write_table(table)).blocks).size == 0
