"""Ranks in windows against a plain model: cuts, ties, nulls, late rows, capture and restore."""

import random
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest

from millrace.operators.batch import END_OF_TIME, Batch
from millrace.operators.top import WindowTopRows

SCHEMA = pa.schema([("k", pa.string()), ("v", pa.int64()), ("f", pa.float64()), ("e", pa.timestamp("ms"))])
Row = tuple[str | None, int | None, float | None, int]


@dataclass
class Surroundings:
    vnodes: int = 256
    late_rows: list[Batch] = field(default_factory=list)

    def now(self) -> int:
        return 0

    def late(self, batch: Batch) -> None:
        self.late_rows.append(batch)

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        raise AssertionError(reason)


def batch(rows: list[Row]) -> Batch:
    columns = list(zip(*rows, strict=True))
    arrays = [pa.array(c, t) for c, t in zip(columns, SCHEMA.types, strict=True)]
    return Batch(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA).slice(0))


def some_rows(seed: int, count: int = 300) -> list[Row]:
    rng = random.Random(seed)
    rows: list[Row] = [
        (
            rng.choice(["a", "b", None, "é"]),
            rng.choice([None, *range(6)]),
            rng.choice([None, 0.5, 1.5, 2.5]),
            rng.choice([10, 20, 30, 40]),
        )
        for _ in range(count)
    ]
    return sorted(rows, key=lambda r: r[3])


def model(rows: list[Row], spec: WindowTopRows) -> list[tuple[object, ...]]:
    partitions: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        partitions.setdefault(tuple(row[p] for p in spec.partition), []).append(row)
    found: list[tuple[object, ...]] = []
    for members in partitions.values():
        ordered = list(members)
        for at, descending, nulls_first in reversed(spec.order):
            values = [r for r in ordered if r[at] is not None]
            nulls = [r for r in ordered if r[at] is None]
            values.sort(key=lambda r: r[at], reverse=descending)
            ordered = [*nulls, *values] if nulls_first else [*values, *nulls]
        place = dense = 0
        before: tuple[object, ...] | None = None
        for number, row in enumerate(ordered, 1):
            key = tuple(row[at] for at, _, _ in spec.order)
            if key != before or not spec.order:
                place, dense, before = number, dense + 1, key
            rank = {"row_number": number, "rank": place, "dense_rank": dense}[spec.function]
            if rank > spec.offset and (spec.limit is None or rank <= spec.offset + spec.limit):
                found.append((*row, rank))
    return found


def read(batches: list[Batch]) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for one in batches:
        data = one.data.set_column(3, "e", one.data.column(3).cast(pa.int64()))
        found += [tuple(row.values()) for row in data.to_pylist()]
    return found


def run(rows: list[Row], spec: WindowTopRows, cut: int, *, restart: bool = False) -> list[tuple[object, ...]]:
    context = Surroundings()
    operator = spec.build(context)
    out: list[Batch] = []
    for start in range(0, len(rows), cut):
        part = rows[start : start + cut]
        out += operator.process(0, batch(part))
        following = rows[start + cut :]
        if following and following[0][3] > part[-1][3]:
            out += operator.on_watermark(part[-1][3] * 1000)
        if restart:
            tables = {
                name: delta.rows.drop_columns(["_vnode"])
                for name, delta in operator.capture(changes=False).items()
            }
            watermark = part[-1][3] * 1000 if following and following[0][3] > part[-1][3] else None
            operator = spec.build(context)
            operator.restore(tables)
            assert watermark is None or operator.on_watermark(watermark) == []
    out += operator.on_watermark(END_OF_TIME)
    assert not context.late_rows
    return read(out)


SPECS = [
    WindowTopRows(SCHEMA, (3,), 3, ((1, True, True),), 1, 0, "rank", "r"),
    WindowTopRows(SCHEMA, (3,), 3, ((1, False, False),), 2, 0, "row_number", "r"),
    WindowTopRows(SCHEMA, (0, 3), 3, ((1, True, False), (2, False, True)), 3, 1, "dense_rank", "r"),
    WindowTopRows(SCHEMA, (3, 0), 3, ((2, True, True),), None, 0, "rank", "r"),
    WindowTopRows(SCHEMA, (3,), 3, (), 2, 0, "row_number", "r"),
]


@pytest.mark.parametrize("spec", SPECS, ids=range(len(SPECS)))
@pytest.mark.parametrize("cut", [1, 7, 300])
@pytest.mark.parametrize("restart", [False, True])
def test_gives_what_the_model_gives(spec: WindowTopRows, cut: int, restart: bool) -> None:
    rows = some_rows(cut, 120)
    expected = sorted(map(repr, model(rows, spec)))
    assert sorted(map(repr, run(rows, spec, cut, restart=restart))) == expected


def test_best_of_integers_without_nulls_is_found_without_sorting_all() -> None:
    rng = np.random.default_rng(3)
    rows: list[Row] = [
        ("a", int(v), 0.0, int(e))
        for v, e in zip(rng.integers(-9, 9, 500), rng.integers(1, 9, 500), strict=True)
    ]
    for descending in (True, False):
        for function in ("rank", "row_number"):
            spec = WindowTopRows(SCHEMA, (3,), 3, ((1, descending, False),), 1, 0, function, "r")
            assert sorted(map(repr, run(sorted(rows, key=lambda r: r[3]), spec, 100))) == sorted(
                map(repr, model(sorted(rows, key=lambda r: r[3]), spec))
            )


def test_rows_of_a_window_that_is_over_are_late() -> None:
    context = Surroundings()
    operator = SPECS[0].build(context)
    operator.process(0, batch([("a", 1, None, 10)]))
    assert read(operator.on_watermark(10_000)) == [("a", 1, None, 10, 1)]
    assert operator.process(0, batch([("b", 2, None, 10), ("c", 3, None, 20)])) == []
    assert [b.data.column(0).to_pylist() for b in context.late_rows] == [["b"]]
    assert operator.on_watermark(19_999) == []
    assert read(operator.on_watermark(20_000)) == [("c", 3, None, 20, 1)]
