"""Top-N against DuckDB on the folded input, after every batch: orders, ties, nulls, changelogs, restores, shards."""

from __future__ import annotations

import dataclasses
import datetime
import random
from collections import Counter
from decimal import Decimal

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from millrace.operators.batch import END_OF_TIME, Batch
from millrace.operators.operator import VNODE, Operator
from millrace.operators.sink import Changelog
from millrace.operators.top import TopRows, WindowTopRows, updating
from millrace.operators.top.bounded import BoundedTop
from millrace.operators.top.updating import UpdatingTop
from millrace.state.hashing import hash_columns, vnodes_of
from millrace.state.snapshot import fold

SCHEMA = pa.schema(
    [
        ("k", pa.string()),
        ("g", pa.int32()),
        ("i", pa.int64()),
        ("f", pa.float64()),
        ("s", pa.string()),
        ("d", pa.decimal64(12, 2)),
        ("b", pa.bool_()),
        ("t", pa.timestamp("us")),
        ("u", pa.uint64()),
        ("w", pa.decimal128(30, 3)),
        ("x", pa.int8()),
    ]
)
VNODES = 8
CONNECTION = duckdb.connect()
CONNECTION.execute("SET threads = 1")


class World:
    """A context that keeps what was late."""

    vnodes = VNODES

    def __init__(self) -> None:
        self.late_rows: list[dict] = []

    def now(self) -> int:
        return 0

    def late(self, batch: Batch) -> None:
        self.late_rows += batch.data.to_pylist()

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        raise AssertionError(reason)


def random_row(rng: random.Random) -> tuple:
    def maybe(value: object) -> object:
        return None if rng.random() < 0.15 else value

    return (
        maybe(rng.choice(["a", "b", "ü", ""])),
        maybe(rng.randrange(3)),
        maybe(rng.choice([-(2**63), 2**63 - 1, 0, 1, 2, -5])),
        maybe(rng.choice([float("nan"), float("inf"), -float("inf"), 0.0, 1.5, -2.25])),
        maybe(rng.choice(["", "a", "ab", "é", "zz", "z" * 40])),
        maybe(Decimal(rng.randrange(-3, 3)).scaleb(-2)),
        maybe(rng.random() < 0.5),
        maybe(datetime.datetime(2024, 1, 1) + datetime.timedelta(microseconds=rng.randrange(4))),
        maybe(rng.choice([0, 2**64 - 1, 2**63, 7])),
        maybe(Decimal(rng.randrange(-2, 2)) * 10**20),
        rng.randrange(3),
    )


def batch_of(rows: list[tuple], weights: list[int] | None = None) -> Batch:
    """The rows as a slice that does not start at its buffers' beginning."""
    filler = random_row(random.Random(1))
    columns = [pa.array([filler[i], *(row[i] for row in rows)], field.type) for i, field in enumerate(SCHEMA)]
    data = pa.RecordBatch.from_arrays(columns, schema=SCHEMA).slice(1)
    return Batch(data, None if weights is None else np.array(weights, np.int64))


def rows_of(data: pa.RecordBatch) -> list[tuple[str, ...]]:
    return list(zip(*([repr(v) for v in column.to_pylist()] for column in data.columns), strict=True))


def folded(counts: Counter, batches: list[Batch]) -> None:
    """Take what an operator sent into the table a reader has of it; nothing is taken back that is not there."""
    for batch in batches:
        weights = [1] * batch.num_rows if batch.weights is None else batch.weights.tolist()
        for row, weight in zip(rows_of(batch.data), weights, strict=True):
            counts[row] += weight
            assert counts[row] >= 0, row
            if not counts[row]:
                del counts[row]


def spec_of(rng: random.Random, *, retracting: bool, orders: list[int] | None = None) -> TopRows:
    partition = tuple(rng.sample([0, 1], rng.randrange(3)))
    order = tuple(
        (c, rng.random() < 0.5, rng.random() < 0.5)
        for c in rng.sample(orders or list(range(2, 11)), rng.randrange(1 if orders else 0, 4))
    )
    return TopRows(
        SCHEMA,
        partition,
        order,
        rng.choice([0, 1, 1, 2, 3, 10, 70, None]),
        rng.choice([0, 0, 0, 1, 3]),
        rng.choice(["row_number", "row_number", "rank", "dense_rank"]),
        rng.choice([None, "place"]),
        Changelog.RETRACT if retracting else Changelog.APPEND,
    )


def expected(spec: TopRows | WindowTopRows, rows: list[tuple], sequence: list[int]) -> Counter:
    """DuckDB's answer over these rows; equal ones stand by `sequence`."""
    columns = batch_of(rows).data.columns if rows else SCHEMA.empty_table().columns
    table = pa.table([*columns, pa.array(sequence, pa.int64())], names=[*SCHEMA.names, "seq"])
    by = ", ".join(SCHEMA.names[i] for i in spec.partition)
    items = [
        f"{SCHEMA.names[c]} {'DESC' if descending else 'ASC'} NULLS {'FIRST' if first else 'LAST'}"
        for c, descending, first in spec.order
    ]
    if spec.function == "row_number":
        items.append("seq")
    over = f"{'PARTITION BY ' + by if by else ''} {'ORDER BY ' + ', '.join(items) if items else ''}"
    last = "" if spec.limit is None else f"AND place <= {spec.offset + spec.limit}"
    kept = "" if spec.rank_name is None else ", place"
    CONNECTION.register("t", table)
    found = CONNECTION.sql(
        f"SELECT {', '.join(SCHEMA.names)}{kept} FROM (SELECT *, {spec.function}() OVER ({over}) AS place FROM t)"
        f" WHERE place > {spec.offset} {last}"
    ).to_arrow_table()
    cast = found.cast(spec.output_schema)
    return Counter(row for batch in cast.to_batches() for row in rows_of(batch))


class Shards:
    """One or more operators of one spec, each with its vnodes, that are captured and restored together."""

    def __init__(self, spec: TopRows) -> None:
        self.spec = spec
        self.parts: list[Operator] = [spec.build(World())]
        self.bases: list[dict] = [{}]

    def process(self, batch: Batch) -> list[Batch]:
        owners = self._owners(batch.data, len(self.parts))
        out: list[Batch] = []
        for owner, part in enumerate(self.parts):
            rows = np.flatnonzero(owners == owner)
            if len(rows):
                out += part.process(0, batch.take(rows))
        return out

    def checkpoint(self) -> None:
        """Capture changes into what was captured before."""
        for part, base in zip(self.parts, self.bases, strict=True):
            delta = part.capture(changes=True)["rows"]
            if delta.complete:
                base["rows"] = delta.rows
            else:
                base["rows"] = fold(base["rows"], [(delta.rows, delta.deleted)], delta.key)

    def restart(self, count: int) -> None:
        """Build `count` new operators from the last checkpoint."""
        whole = pa.concat_batches([base["rows"] for base in self.bases])
        owners = whole.column(VNODE).to_numpy() % count
        self.parts = [self.spec.build(World()) for _ in range(count)]
        self.bases = [{} for _ in range(count)]
        for owner, part in enumerate(self.parts):
            part.restore({"rows": whole.filter(pa.array(owners == owner))})

    def _owners(self, data: pa.RecordBatch, count: int) -> np.ndarray:
        keys = [data.column(i) for i in self.spec.partition]
        return vnodes_of(hash_columns(keys, data.num_rows), VNODES) % count


@pytest.fixture(params=[1, 256], ids=["split", "whole"])
def front(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updating, "_FRONT_MIN", request.param)


@pytest.mark.parametrize("seed", range(24))
def test_append_only_top_equals_duckdb_after_every_batch(seed: int) -> None:
    rng = random.Random(seed)
    spec = spec_of(rng, retracting=False, orders=[2, 3, 5, 6, 7, 8, 10] if seed % 2 else None)
    shards, counts = Shards(spec), Counter()
    rows: list[tuple] = []
    for step in range(6):
        fresh = [random_row(rng) for _ in range(rng.randrange(1, 40))]
        rows += fresh
        folded(counts, shards.process(batch_of(fresh)))
        assert counts == expected(spec, rows, list(range(len(rows)))), (seed, step, spec)
        if rng.random() < 0.5:
            shards.checkpoint()
            if rng.random() < 0.6:
                shards.restart(rng.randrange(1, 4))


@pytest.mark.parametrize("seed", range(24))
def test_top_of_a_changelog_equals_duckdb_after_every_batch(seed: int, front: None) -> None:
    rng = random.Random(1000 + seed)
    spec = spec_of(rng, retracting=True)
    shards, counts = Shards(spec), Counter()
    live: dict[str, tuple[tuple, int, int]] = {}
    clock = 0
    few = [random_row(rng) for _ in range(30)]
    for step in range(8):
        changes: list[tuple[tuple, int]] = []
        before = dict(live)
        for _ in range(rng.randrange(1, 30)):
            clock += 1
            row = rng.choice(few)
            if live and rng.random() < 0.45:
                row = rng.choice(list(live.values()))[0]
                row, count, since = live[repr(row)]
                changes.append((row, -1))
                live[repr(row)] = (row, count - 1, since)
                if count == 1:
                    del live[repr(row)]
            else:
                _, count, since = live.get(repr(row), (row, 0, clock))
                changes.append((row, 1))
                live[repr(row)] = (row, count + 1, since)
        for name, (row, count, _) in list(live.items()):
            # Within a batch only what is left counts: a row that was there before stays where it was.
            if name in before:
                live[name] = (row, count, before[name][2])
            else:
                first = next(at for at, (r, _) in enumerate(changes) if repr(r) == name)
                live[name] = (row, count, step * 1000 + first)
        folded(counts, shards.process(batch_of([r for r, _ in changes], [w for _, w in changes])))
        there = [(row, since) for row, count, since in live.values() for _ in range(count)]
        answer = expected(spec, [row for row, _ in there], [since for _, since in there])
        assert counts == answer, (seed, step, spec)
        if rng.random() < 0.5:
            shards.checkpoint()
            if rng.random() < 0.6:
                shards.restart(rng.randrange(1, 4))


@pytest.mark.parametrize("seed", range(24))
def test_top_of_rows_with_a_key_equals_duckdb_after_every_batch(seed: int, front: None) -> None:
    rng = random.Random(3000 + seed)
    upsert = seed % 2 == 0
    mode = Changelog.UPSERT if upsert else Changelog.RETRACT
    spec = dataclasses.replace(spec_of(rng, retracting=True), changelog_input=mode, input_key=(10, 1))
    shards, counts = Shards(spec), Counter()
    if any(i not in (1, 10) for i in spec.partition):
        spec = dataclasses.replace(spec, partition=(1,))
        shards = Shards(spec)
    live: dict[tuple, tuple[tuple, int]] = {}
    for step in range(8):
        changes: list[tuple[tuple, int]] = []
        for key in {(rng.randrange(6), rng.choice([None, 0, 1])) for _ in range(rng.randrange(1, 9))}:
            row = list(random_row(rng))
            row[10], row[1] = key
            former = live.pop(key, None)
            if upsert and rng.random() < 0.3:
                changes.append((tuple(random_row(rng)[:1]) + tuple(row[1:]), 1))
            if former is not None and not upsert:
                changes.append((former[0], -1))
            if rng.random() < 0.3:
                if upsert:
                    changes.append((tuple(row), -1))
            else:
                live[key] = (tuple(row), 0)
                changes.append((live[key][0], 1))
            if not upsert and len(changes) > 1 and rng.random() < 0.5:
                changes[-2:] = changes[:-3:-1]
        if not changes:
            continue
        for at, (row, weight) in enumerate(changes):
            key = (row[10], row[1])
            if weight > 0 and key in live and live[key][0] is row:
                live[key] = (row, step * 1000 + at)
        folded(counts, shards.process(batch_of([r for r, _ in changes], [w for _, w in changes])))
        answer = expected(spec, [row for row, _ in live.values()], [since for _, since in live.values()])
        assert counts == answer, (seed, step, spec)
        if rng.random() < 0.5:
            shards.checkpoint()
            if rng.random() < 0.6:
                shards.restart(rng.randrange(1, 4))


@pytest.mark.parametrize("seed", range(10))
def test_windows_are_ranked_once_when_they_are_over(seed: int) -> None:
    rng = random.Random(2000 + seed)
    top = spec_of(rng, retracting=False)
    spec = WindowTopRows(
        SCHEMA, (*top.partition, 7), 7, top.order, top.limit, top.offset, top.function, top.rank_name
    )
    world = World()
    operator = spec.build(world)
    start = datetime.datetime(2024, 1, 1)
    sent, rows, late = Counter(), [], 0
    watermark = -1
    for _ in range(6):
        fresh = []
        for _ in range(rng.randrange(1, 30)):
            row = list(random_row(rng))
            tick = rng.randrange(0, 12)
            row[7] = start + datetime.timedelta(microseconds=tick)
            late += tick <= watermark
            fresh.append(tuple(row))
            if tick > watermark:
                rows.append(tuple(row))
        assert operator.process(0, batch_of(fresh)) == []
        if rng.random() < 0.6:
            watermark += rng.randrange(1, 4)
            micros = int((start - datetime.datetime(1970, 1, 1)).total_seconds()) * 1_000_000 + watermark
            folded(sent, operator.on_watermark(micros))
            over = [r for r in rows if r[7] <= start + datetime.timedelta(microseconds=watermark)]
            assert sent == expected(spec, over, list(range(len(over))))
        if rng.random() < 0.4:
            table = operator.capture(changes=False)["rows"].rows
            operator = spec.build(world)
            operator.restore({"rows": table})
            operator._watermark = -(2**63)  # as the driver has it after a restore
            if watermark >= 0:
                operator.on_watermark(micros)
    folded(sent, operator.on_watermark(END_OF_TIME))
    assert sent == expected(spec, rows, list(range(len(rows))))
    assert len(world.late_rows) == late


def test_specs_choose_the_operator_for_their_order_and_limit() -> None:
    few = TopRows(SCHEMA, (0,), ((2, True, False),), 3)
    assert isinstance(few.build(World()), BoundedTop)
    for other in (
        TopRows(SCHEMA, (0,), ((4, True, False),), 3),
        TopRows(SCHEMA, (0,), ((2, True, False),), None),
        TopRows(SCHEMA, (0,), ((2, True, False),), 3, function="rank"),
        TopRows(SCHEMA, (0,), ((2, True, False),), 3, changelog_input=Changelog.RETRACT),
    ):
        assert isinstance(other.build(World()), UpdatingTop)


def test_memory_follows_the_rows_that_are_among_the_first() -> None:
    for function in ("row_number", "rank"):
        operator = TopRows(SCHEMA, (1,), ((2, True, False),), 2, function=function).build(World())
        rng = random.Random(5)
        for step in range(20):
            rows = [(*random_row(rng)[:2], step * 1000 + n, *random_row(rng)[3:]) for n in range(50)]
            operator.process(0, batch_of(rows))
        assert len(operator._rows) <= 8
        assert operator._rows.store.nbytes < 100_000


def test_state_of_a_changelog_that_is_taken_back_is_gone() -> None:
    operator = TopRows(SCHEMA, (0,), ((2, False, False),), 3, changelog_input=Changelog.RETRACT).build(
        World()
    )
    rng = random.Random(6)
    rows = [random_row(rng) for _ in range(5000)]
    operator.process(0, batch_of(rows, [1] * len(rows)))
    operator.process(0, batch_of(rows, [-1] * len(rows)))
    assert (len(operator._rows), len(operator._index), len(operator._lists), len(operator._same)) == (
        0,
        0,
        0,
        0,
    )
