"""The key index behaves like a dict from key tuples to the lowest free number."""

from __future__ import annotations

import datetime
import decimal
import math
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millrace.state.hashing import hash_columns
from millrace.state.key_index import KeyIndex

QUIET = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
WORDS = [
    "",
    "a",
    "ab",
    "abc",
    "abcd",
    "abcdefg",
    "abcdefgh",
    "abcdefghi",
    "0123456789abcdef",
    "ä",
    "\0",
    "\0\0",
]
LONG = ["0123456789abcdef" + tail for tail in ("0", "1", "0123456789abcdef", "0123456789abcdeg", "x" * 300)]
POOLS: dict[pa.DataType, list[Any]] = {
    pa.int64(): [None, 0, 1, -1, 2**63 - 1, -(2**63), 77],
    pa.int8(): [None, 0, 1, -1, 127, -128],
    pa.int32(): [None, 0, -1, 2**31 - 1, 5],
    pa.uint16(): [None, 0, 65535],
    pa.uint64(): [None, 0, 2**64 - 1, 2**63],
    pa.bool_(): [None, True, False],
    pa.float64(): [None, 0.0, -0.0, math.nan, math.inf, 1.5, -1.5],
    pa.float32(): [None, 0.0, -0.0, math.nan, 1.5],
    pa.string(): [None, *WORDS, *LONG],
    pa.large_string(): [None, *WORDS, *LONG],
    pa.binary(): [None, b"", b"\0", b"\xff" * 9, b"\xff" * 20, b"\xff" * 21],
    pa.binary(3): [None, b"abc", b"abd"],
    pa.dictionary(pa.int32(), pa.string()): [None, "x", "y", "z" * 30],
    pa.date32(): [None, datetime.date(2024, 1, 1), datetime.date(1969, 12, 31)],
    pa.timestamp("us", "UTC"): [None, datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)],
    pa.time64("us"): [None, datetime.time(1, 2, 3), datetime.time(0)],
    pa.duration("us"): [None, datetime.timedelta(seconds=1)],
    pa.decimal128(38, 2): [None, decimal.Decimal("1.00"), decimal.Decimal("-1.00"), decimal.Decimal(10**35)],
    pa.decimal64(18, 2): [None, decimal.Decimal("1.00"), decimal.Decimal("-1.00")],
    pa.null(): [None],
    pa.list_(pa.int64()): [None, [], [1], [1, None], [None], [1, 2]],
    pa.list_(pa.string()): [None, [], [""], ["", ""], ["a", None], ["ab"], ["a", "b"]],
    pa.struct([("a", pa.int64()), ("b", pa.string())]): [
        None,
        {"a": None, "b": None},
        {"a": 1, "b": ""},
        {"a": 1, "b": None},
    ],
    pa.map_(pa.string(), pa.int64()): [None, [], [("a", 1)], [("a", None)], [("a", 1), ("b", 2)]],
}


def identity(value: Any) -> Any:
    """What makes two values the same key."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value + 0.0
    if isinstance(value, list | tuple):
        return tuple(identity(v) for v in value)
    if isinstance(value, dict):
        return tuple((k, identity(v)) for k, v in value.items())
    return value


def array_of(values: list[Any], data_type: pa.DataType, pad: int) -> pa.Array:
    """An array that is a slice of a longer one, `pad` rows in."""
    pool = POOLS[data_type]
    around = [pool[i % len(pool)] for i in range(pad)]
    return pa.array(around + values + around, data_type).slice(pad, len(values))


types = st.lists(st.sampled_from(list(POOLS)), min_size=1, max_size=4)


@st.composite
def scripts(draw: st.DrawFn) -> tuple[list[pa.DataType], list[tuple[str, Any]]]:
    chosen = draw(types)
    row = st.tuples(*(st.sampled_from(POOLS[t]) for t in chosen))
    step = st.one_of(
        st.tuples(st.just("upsert"), st.tuples(st.lists(row, max_size=40), st.integers(0, 9))),
        st.tuples(st.just("lookup"), st.tuples(st.lists(row, max_size=10), st.integers(0, 9))),
        st.tuples(st.just("remove"), st.lists(st.integers(0, 200), max_size=20)),
    )
    return chosen, draw(st.lists(step, max_size=12))


@QUIET
@given(scripts())
def test_index_equals_a_dict(script: tuple[list[pa.DataType], list[tuple[str, Any]]]) -> None:
    chosen, steps = script
    index = KeyIndex(chosen, capacity=1)
    model: dict[Any, int] = {}
    shown: dict[int, Any] = {}
    for kind, argument in steps:
        if kind == "remove":
            slots = sorted(shown)
            gone = list(dict.fromkeys(slots[i % len(slots)] for i in argument)) if slots else []
            index.remove(np.array(gone, np.int32))
            for slot in gone:
                del model[identity(shown.pop(slot))]
        else:
            rows, pad = argument
            columns = [array_of([row[c] for row in rows], t, pad) for c, t in enumerate(chosen)]
            if kind == "lookup":
                assert index.lookup(columns).tolist() == [model.get(identity(row), -1) for row in rows]
                continue
            upserted = index.upsert(columns)
            created = []
            for row, slot in zip(rows, upserted.slots.tolist(), strict=True):
                if identity(row) not in model:
                    free = next(s for s in range(len(shown) + 1) if s not in shown)
                    model[identity(row)] = free
                    shown[free] = row
                    created.append(free)
                assert slot == model[identity(row)]
            assert upserted.created.tolist() == created
            assert index.hashes(upserted.slots).tolist() == hash_columns(columns).tolist()
        assert len(index) == len(shown)
        assert index.live().tolist() == sorted(shown)
        assert index.high == max(shown, default=-1) + 1
    live = index.live()
    keys = index.keys(live[::-1])
    assert [key.type for key in keys] == chosen
    for key in keys:
        key.validate(full=True)
    pythonic = zip(*(key.to_pylist() for key in keys), strict=True)
    assert [identity(row) for row in pythonic] == [identity(shown[slot]) for slot in live[::-1].tolist()]


@QUIET
@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 3000), st.booleans()), min_size=1, max_size=15),
    st.sampled_from(["int", "string", "both"]),
)
def test_ranges_of_keys_come_and_go(moves: list[tuple[int, int, bool]], shape: str) -> None:
    def columns(numbers: np.ndarray[Any, Any]) -> list[pa.Array]:
        text = pa.array([f"key {n} " + "y" * (n % 29) for n in numbers.tolist()], pa.string())
        return {"int": [pa.array(numbers)], "string": [text], "both": [text, pa.array(numbers)]}[shape]

    types = {"int": [pa.int64()], "string": [pa.string()], "both": [pa.string(), pa.int64()]}[shape]
    index = KeyIndex(types)
    model: dict[int, int] = {}
    for first, length, add in moves:
        numbers = np.arange(first, first + length)
        if add:
            slots = index.upsert(columns(numbers)).slots.tolist()
            for n, slot in zip(numbers.tolist(), slots, strict=True):
                assert model.setdefault(n, slot) == slot
        else:
            found = index.lookup(columns(numbers))
            assert found.tolist() == [model.get(n, -1) for n in numbers.tolist()]
            index.remove(found[found >= 0])
            for n in numbers.tolist():
                model.pop(n, None)
        assert len(index) == len(model)
    have = np.array(sorted(model), np.int64)
    found = index.lookup(columns(have))
    assert found.tolist() == [model[n] for n in have.tolist()]
    assert all(a.equals(b) for a, b in zip(index.keys(found), columns(have), strict=True))
