"""Random patterns over random rows, in any cuts, out of order within the bound, restored and re-sharded anywhere,
give the matches of a plain backtracking matcher. For many seeds: MATCH_SEEDS=5000 pytest -k seeds."""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.row_pattern_model import Maker, Query, Row, TooLong, expected

from millrace.errors import Invalid
from millrace.operators.batch import END_OF_TIME, Batch
from millrace.operators.match_recognize.specs import MatchRecognize
from millrace.operators.operator import VNODE, Operator, StateDelta
from millrace.planner.session import Planner
from millrace.state.hashing import hash_columns, vnodes_of
from millrace.state.snapshot import fold

SEEDS = int(os.environ.get("MATCH_SEEDS", "40"))
VNODES = 16
BOUND = 3
SOURCE = """CREATE SOURCE s (k STRING, v BIGINT, i BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts) WITH ('connector' = 'push');"""
KEYS = ["a", "b", "ö", None]


class World:
    vnodes = VNODES

    def __init__(self) -> None:
        self.late_rows: list[Batch] = []

    def now(self) -> int:
        return 0

    def late(self, batch: Batch) -> None:
        self.late_rows.append(batch)

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        raise AssertionError(reason)


def spec_of(query: str) -> MatchRecognize:
    plan, _ = Planner().compile(SOURCE + query)
    (spec,) = (node.spec for node in plan.nodes if isinstance(node.spec, MatchRecognize))
    return spec


def rows_of(rng: random.Random, count: int) -> list[Row]:
    out: list[Row] = []
    time = 0
    spread = rng.choice([3, 9])
    for i in range(count):
        time += rng.choice([0, 1, 1, 2, 5])
        value = None if rng.random() < 0.08 else rng.randint(-spread, spread)
        out.append({"k": rng.choice(KEYS), "t": time, "i": i, "v": value})
    return out


def batch_of(spec: MatchRecognize, rows: list[Row]) -> pa.RecordBatch:
    columns = {
        "k": pa.array([r["k"] for r in rows], pa.string()),
        "v": pa.array([r["v"] for r in rows], pa.int64()),
        "i": pa.array([r["i"] for r in rows], pa.int64()),
        "ts": pa.array([r["t"] * 1000 for r in rows], pa.timestamp("ms")),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in spec.input.names], schema=spec.input)


class Partitions:
    """Several copies of the operator, rows sent by vnode; captured as a chain of changes."""

    def __init__(self, spec: MatchRecognize, count: int, tables: dict[str, pa.RecordBatch]) -> None:
        self.spec = spec
        bounds = np.linspace(0, VNODES, count + 1).astype(int)
        self.ranges = list(itertools.pairwise(bounds))
        self.parts: list[Operator] = []
        self.kept: list[dict[str, StateDelta]] = [{} for _ in self.ranges]
        self.watermark = -(2**63)
        for first, end in self.ranges:
            part = spec.build(World())
            if tables:
                part.restore({name: within(table, first, end) for name, table in tables.items()})
            self.parts.append(part)

    def send(self, batch: pa.RecordBatch) -> None:
        keys = [batch.column(key) for key in self.spec.keys]
        nodes = vnodes_of(hash_columns(keys, batch.num_rows), VNODES)
        for part, (first, end) in zip(self.parts, self.ranges, strict=True):
            mine = np.flatnonzero((nodes >= first) & (nodes < end))
            if len(mine):
                assert part.process(0, Batch(batch).take(mine)) == []

    def advance(self, watermark: int) -> list[Batch]:
        return [out for part in self.parts for out in part.on_watermark(watermark)]

    def promised(self, watermark: int) -> int:
        return min(part.output_watermark(watermark) for part in self.parts)

    def capture(self, *, changes: bool) -> None:
        for part, kept in zip(self.parts, self.kept, strict=True):
            for name, delta in part.capture(changes=changes).items():
                if not delta.complete:
                    rows = fold(kept[name].rows, [(delta.rows, delta.deleted)], delta.key)
                    delta = StateDelta(delta.key, rows)
                kept[name] = delta

    def tables(self) -> dict[str, pa.RecordBatch]:
        return {name: pa.concat_batches([kept[name].rows for kept in self.kept]) for name in self.kept[0]}


def within(table: pa.RecordBatch, first: int, end: int) -> pa.RecordBatch:
    nodes = np.asarray(table.column(VNODE))
    return table.take(pa.array(np.flatnonzero((nodes >= first) & (nodes < end))))


def run(query: Query, rows: list[Row], rng: random.Random, *, restarts: float) -> Counter[tuple[Any, ...]]:
    spec = spec_of(query.sql())
    noisy = [(row["t"] + rng.uniform(0, BOUND), row) for row in rows]
    arriving = [row for _, row in sorted(noisy, key=lambda pair: pair[0])]
    parts = Partitions(spec, 1, {})
    out: list[Batch] = []
    seen, promised, at = -(2**62), -(2**62), 0
    while at < len(arriving):
        size = rng.choice([1, 2, 5, 30])
        some = arriving[at : at + size]
        at += size
        parts.send(batch_of(spec, some))
        latest = (max(row["t"] for row in some) - BOUND) * 1_000_000
        if latest > seen and rng.random() < 0.7:
            seen = latest
            sent = parts.advance(seen)
            check_times(spec, sent, promised)
            promised = parts.promised(seen)
            out += sent
        if rng.random() < restarts:
            parts.capture(changes=rng.random() < 0.7 and bool(parts.kept[0]))
            if rng.random() < 0.6:
                parts = Partitions(spec, rng.choice([1, 2, 3]), parts.tables())
    out += parts.advance(END_OF_TIME)
    for part in parts.parts:
        rest = part.capture(changes=False)
        assert rest["held"].rows.num_rows == 0
        assert spec.rows_back or rest["rows"].rows.num_rows == 0
    return Counter(tuple_of(row) for batch in out for row in batch.data.to_pylist())


def check_times(spec: MatchRecognize, sent: list[Batch], promised: int) -> None:
    """No row comes out that is older than the watermark that was promised."""
    for batch in sent if spec.event_time is not None else []:
        times = batch.data.column(spec.event_time).cast(pa.timestamp("us")).cast(pa.int64())
        assert min(times.to_pylist()) >= promised


def tuple_of(row: dict[str, Any]) -> tuple[Any, ...]:
    values = list(row.values())
    if "ts" in row:
        values[1] = int(row["ts"].timestamp())
    return tuple(round(v, 9) if isinstance(v, float) else v for v in values)


@pytest.mark.parametrize("restarts", [0, 0.25], ids=["straight", "restored"])
@pytest.mark.parametrize("part", range(4))
def test_seeds(part: int, restarts: float) -> None:
    tried = 0
    seed = part * 1_000_000 + int(1000 * restarts)
    while tried < SEEDS:
        seed += 1
        rng = random.Random(seed)
        query = Maker(rng).make()
        rows = rows_of(rng, rng.choice([0, 10, 40, 60]))
        try:
            wanted = Counter(
                tuple(round(v, 9) if isinstance(v, float) else v for v in row)
                for row in expected(query, rows)
            )
        except (TooLong, AssertionError, IndexError):
            continue  # matches nothing, or skips to a row that is not there: refused, as test_refused shows
        try:
            found = run(query, rows, rng, restarts=restarts)
        except Invalid as error:
            assert error.code in ("MR1356", "MR1351", "MR1352"), error
            continue
        tried += 1
        assert found == wanted, f"seed {seed}: {query.sql()}\n{found - wanted}\n{wanted - found}"
