"""Row buffers against a plain model: last n rows of a key, every record or when full, expiry, capture and
restore."""

from __future__ import annotations

import random
from collections import Counter
from statistics import mean

import numpy as np
import pyarrow as pa
import pytest

from millrace.errors import Invalid
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.batch import END_OF_TIME, Batch
from millrace.operators.over import BufferEmission, RowBufferAggregate
from millrace.operators.spec import decode, encode

SCHEMA = pa.schema([("k", pa.string()), ("ts", pa.timestamp("ms")), ("i", pa.int64()), ("v", pa.float64())])
CALLS = (
    AggregateCall("avg", (3,), pa.float64()),
    AggregateCall("count", (), pa.int64()),
    AggregateCall("max", (2,), pa.int64()),
    AggregateCall("first_value", (2,), pa.int64()),
    AggregateCall("lag", (2,), pa.int64(), options=(("offset", 2),)),
    AggregateCall("row_number", (), pa.int64()),
)
FULL = BufferEmission.BUFFER_FULL


class World:
    vnodes = 16

    def now(self) -> int:
        return 0

    def late(self, batch: Batch) -> None:
        raise AssertionError

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        self.dead = batch


def spec_of(rows: int, emission: BufferEmission, expire_ms: int | None, calls=CALLS) -> RowBufferAggregate:
    names = tuple(f"c{n}" for n in range(len(calls)))
    time = None if expire_ms is None else 1
    expire = None if expire_ms is None else expire_ms * 1000
    return RowBufferAggregate(SCHEMA, (0,), rows, calls, names, emission, time, expire)


def rows_of(count: int, seed: int) -> list[tuple]:
    rng = random.Random(seed)
    time = 0
    rows = []
    for i in range(count):
        time += rng.choice([0, 1, 2, 30, -3])
        rows.append((rng.choice(["a", "b", None]), time, i, rng.choice([None, 1.0, 2.5, -4.0])))
    return rows


def table(rows: list[tuple]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def model(rows: list[tuple], size: int, emission: BufferEmission, expire_ms: int | None) -> Counter:
    out: Counter = Counter()
    buffers: dict[object, list[tuple]] = {}
    seen: dict[object, int] = {}
    last: dict[object, int] = {}
    for row in rows:
        key, time = row[0], row[1]
        if expire_ms is not None and key in last and time - last[key] > expire_ms:
            buffers[key] = []
            seen[key] = 0
        last[key] = max(time, last.get(key, time))
        buffer = buffers[key] = [*buffers.get(key, []), row][-size:]
        seen[key] = seen.get(key, 0) + 1
        if emission is FULL and seen[key] % size:
            continue
        known = [r[3] for r in buffer if r[3] is not None]
        before = buffer[-3][2] if len(buffer) > 2 else None
        average = round(mean(known), 9) if known else None
        out[(row[2], average, len(buffer), max(r[2] for r in buffer), buffer[0][2], before, seen[key])] += 1
    return out


def multiset(batches: list[Batch]) -> Counter:
    return Counter(
        (row["i"], None if row["c0"] is None else round(row["c0"], 9), *(row[f"c{n}"] for n in range(1, 6)))
        for batch in batches
        for row in batch.data.to_pylist()
    )


@pytest.mark.parametrize("expire_ms", [None, 20])
@pytest.mark.parametrize("emission", BufferEmission)
@pytest.mark.parametrize("size", [1, 4, 50])
def test_any_cut_gives_the_model(size: int, emission: BufferEmission, expire_ms: int | None) -> None:
    spec = spec_of(size, emission, expire_ms)
    assert decode(encode(spec)) == spec
    rows = rows_of(300, size)
    want = model(rows, size, emission, expire_ms)
    data = table(rows)
    for step in (1, 17, 300):
        operator = spec.build(World())
        out = [b for at in range(0, 300, step) for b in operator.process(0, Batch(data.slice(at, step)))]
        assert operator.on_watermark(END_OF_TIME) == []
        assert multiset(out) == want


@pytest.mark.parametrize("expire_ms", [None, 20])
@pytest.mark.parametrize("emission", BufferEmission)
def test_restore_at_every_boundary_continues(emission: BufferEmission, expire_ms: int | None) -> None:
    spec = spec_of(4, emission, expire_ms)
    rows = rows_of(200, 9)
    data = table(rows)
    operator = spec.build(World())
    tables: dict[str, dict] = {}
    out: list[Batch] = []
    for number, start in enumerate(range(0, 200, 9)):
        out += operator.process(0, Batch(data.slice(start, 9)))
        fold(tables, operator.capture(changes=True))
        if number % 3 == 0:
            operator = spec.build(World())
            operator.restore(
                {
                    name: pa.concat_batches(list(kept["rows"].values())) if kept["rows"] else kept["empty"]
                    for name, kept in tables.items()
                }
            )
    assert multiset(out) == model(rows, 4, emission, expire_ms)


def fold(tables: dict[str, dict], capture: dict) -> None:
    """Apply deltas as a store does: what was deleted goes, then what changed comes."""
    for name, delta in capture.items():
        kept = tables.setdefault(name, {"rows": {}, "empty": delta.rows.slice(0, 0)})
        if delta.complete:
            kept["rows"] = {}
        elif delta.deleted is not None:
            for row in delta.deleted.to_pylist():
                kept["rows"].pop(tuple(row[c] for c in delta.key), None)
        for at, row in enumerate(delta.rows.select(list(delta.key)).to_pylist()):
            kept["rows"][tuple(row.values())] = delta.rows.slice(at, 1)


def test_state_is_bounded_by_the_buffer() -> None:
    calls = (*CALLS, AggregateCall("first_value", (0,), pa.string()))
    operator = spec_of(10, BufferEmission.EVERY_RECORD, None, calls).build(World())
    for seed in range(100):
        operator.process(0, Batch(table(rows_of(100, seed))))
    assert len(operator._log._store) <= 30
    assert all(engine._used <= 4096 for engine in operator._engines if hasattr(engine, "_used"))


def test_what_a_buffer_can_not_do_is_refused() -> None:
    for code, make in (
        ("MR1333", lambda: spec_of(0, FULL, None)),
        ("MR1334", lambda: spec_of(3, FULL, None, (AggregateCall("lead", (2,), pa.int64()),))),
        ("MR1335", lambda: RowBufferAggregate(SCHEMA, (0,), 3, CALLS, tuple("abcdef"), FULL, None, 5)),
    ):
        with pytest.raises(Invalid) as refused:
            make()
        assert refused.value.code == code
        assert refused.value.hint


def test_a_row_of_weight_two_is_two_rows() -> None:
    operator = spec_of(3, BufferEmission.EVERY_RECORD, None).build(World())
    (out,) = operator.process(0, Batch(table([("a", 0, 1, 1.0), ("a", 0, 2, 1.0)]), np.array([2, 1])))
    assert out.weights is None
    assert out.data.column("c1").to_pylist() == [1, 2, 3]


def test_expired_buffers_are_given_back_and_stay_expired_for_rows_behind() -> None:
    calls = (*CALLS, AggregateCall("first_value", (0,), pa.string()))
    operator = spec_of(4, BufferEmission.EVERY_RECORD, 20, calls).build(World())
    for step in range(100):
        rows = [(f"{step} {i}", step * 2000, i, 1.0) for i in range(10)]
        operator.process(0, Batch(table(rows)))
        operator.on_watermark(step * 2_000_000)
    assert len(operator._index) <= 20
    assert len(operator._log._store) <= 20
    for told in (True, False):
        operator = spec_of(4, BufferEmission.EVERY_RECORD, 20).build(World())
        data = table([("a", 0, 1, 1.0), ("b", 50, 2, 1.0), ("a", 5, 3, 1.0)])
        marks = np.array([-(2**63), 0, 50_000])
        operator.process(0, Batch(data.slice(0, 2), None, marks[:2]))
        if told:
            operator.on_watermark(50_000)
        (out,) = operator.process(0, Batch(data.slice(2), None, marks[2:]))
        assert out.data.column("c1").to_pylist() == [1]
