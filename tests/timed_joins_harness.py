"""Drives two-sided operators over cut, disordered input, with snapshots and re-sharding on the way."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from millrace.operators.batch import END_OF_TIME, Batch
from millrace.operators.operator import VNODE, Capture, Operator
from millrace.operators.spec import OperatorSpec, decode, encode
from millrace.state.hashing import hash_columns, vnodes_of

VNODES = 16
SCHEMA = pa.schema([("k", pa.string()), ("ts", pa.timestamp("ms")), ("v", pa.int64())])
Row = tuple[str | None, int | None, int]


@dataclass
class Surroundings:
    vnodes: int = VNODES
    late_rows: list[Batch] = field(default_factory=list)

    def now(self) -> int:
        return 0

    def late(self, batch: Batch) -> None:
        self.late_rows.append(batch)

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        raise AssertionError(reason)


def record_batch(rows: Sequence[Row], schema: pa.Schema = SCHEMA) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True)) if rows else [[] for _ in schema]
    arrays = [pa.array([None, *c], t).slice(1) for c, t in zip(columns, schema.types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


@dataclass
class Partitions:
    """Several copies of one operator that share its vnodes; a row goes where the vnode of its key is."""

    spec: OperatorSpec
    keys: tuple[int, ...] = (0,)
    count: int = 1
    operators: list[Operator] = field(default_factory=list)
    context: Surroundings = field(default_factory=Surroundings)
    kept: dict[str, dict[tuple[object, ...], dict[str, object]]] = field(default_factory=dict)
    schemas: dict[str, pa.Schema] = field(default_factory=dict)
    out: Counter[tuple[object, ...]] = field(default_factory=Counter)
    sent: int = 0

    def __post_init__(self) -> None:
        self.spec = decode(encode(self.spec))
        self.operators = [self.spec.build(self.context) for _ in range(self.count)]

    def owner(self, data: pa.RecordBatch) -> np.ndarray:
        keys = [data.column(k) for k in self.keys]
        return vnodes_of(hash_columns(keys, data.num_rows), VNODES) % self.count

    def process(self, port: int, batch: Batch) -> None:
        owners = self.owner(batch.data)
        for at, operator in enumerate(self.operators):
            mine = np.flatnonzero(owners == at)
            if len(mine):
                self._emit(operator.process(port, batch.take(mine)))

    def on_watermark(self, watermark: int) -> None:
        for operator in self.operators:
            self._emit(operator.on_watermark(watermark))

    def checkpoint(self, *, changes: bool) -> None:
        """Capture all partitions into one snapshot."""
        captures = [operator.capture(changes=changes) for operator in self.operators]
        for number, capture in enumerate(captures):
            self._fold(number, capture)

    def reshard(self, count: int) -> None:
        """Restore the snapshot into new operators. Call right after `checkpoint`."""
        self.count = count
        self.operators = [self.spec.build(self.context) for _ in range(count)]
        for at, operator in enumerate(self.operators):
            tables = {}
            for name, rows in self.kept.items():
                table = pa.RecordBatch.from_pylist(list(rows.values()), schema=self.schemas[name])
                owned = np.asarray(table.column(VNODE)) % count == at
                tables[name] = table.filter(pa.array(owned))
            operator.restore(tables)
        self.kept = {}

    def _fold(self, number: int, capture: Capture) -> None:
        for name, delta in capture.items():
            rows = self.kept.setdefault(name, {})
            self.schemas[name] = delta.rows.schema
            key = (*delta.key, VNODE)
            if delta.complete:
                for known in [k for k in rows if k[0] == number]:
                    del rows[known]
            if delta.deleted is not None:
                for gone in delta.deleted.to_pylist():
                    del rows[(number, *(gone[k] for k in key))]
            for row in delta.rows.to_pylist():
                rows[(number, *(row[k] for k in key))] = row

    def _emit(self, batches: list[Batch]) -> None:
        for batch in batches:
            assert batch.num_rows
            assert batch.schema.names == self.spec.output_schema.names
            assert batch.schema.types == self.spec.output_schema.types
            weights = [1] * batch.num_rows if batch.weights is None else batch.weights.tolist()
            columns = [column.to_pylist() for column in batch.data.columns]
            for values, weight in zip(zip(*columns, strict=True), weights, strict=True):
                self.out[values] += weight
                assert self.out[values] >= 0, "a row was taken back that was not there"
                self.sent += abs(weight)


def some_rows(rng: random.Random, count: int, keys: int, span: int, *, nulls: bool = True) -> list[Row]:
    """Rows by time (ms), a few without key or time; every second key is the first: it is hot."""
    rows: list[Row] = []
    for number in range(count):
        key: str | None = f"k{rng.randrange(keys) if rng.random() < 0.6 else 0}"
        if nulls and rng.random() < 0.05:
            key = None
        rows.append((key, rng.randrange(span), number))
    rows.sort(key=lambda r: r[1] or 0)
    return rows


def disordered(rng: random.Random, rows: Sequence[Row], by: int) -> list[Row]:
    """Rows that arrive at most `by` ms after younger ones."""
    return sorted(rows, key=lambda r: (r[1] or 0) + rng.randrange(by + 1))


def drive(
    parts: Partitions,
    rng: random.Random,
    sides: tuple[Sequence[Row], Sequence[Row]],
    disorder: int,
    *,
    largest: int = 12,
    snapshots: bool = True,
    ports: tuple[int, int] = (0, 1),
) -> None:
    """All rows in random cuts, with the watermark (µs) as far as the disorder allows, then the end."""
    at = [0, 0]
    high = [-(2**40), -(2**40)]
    watermark = -(2**62)
    while at[0] < len(sides[0]) or at[1] < len(sides[1]):
        port = rng.randrange(2)
        rows = sides[port][at[port] : at[port] + rng.randrange(1, largest)]
        if not rows:
            continue
        at[port] += len(rows)
        marks = []
        for row in rows:
            marks.append((high[port] - disorder) * 1000)
            high[port] = max(high[port], row[1] if row[1] is not None else high[port])
        batch = Batch(record_batch(rows), None, np.array(marks, np.int64))
        parts.process(ports[port], batch)
        low = min((high[p] - disorder) * 1000 if at[p] < len(sides[p]) else END_OF_TIME for p in (0, 1))
        if low > watermark and low != END_OF_TIME and rng.random() < 0.7:
            watermark = low
            parts.on_watermark(watermark)
        if snapshots and rng.random() < 0.15:
            parts.checkpoint(changes=bool(parts.kept) and rng.random() < 0.7)
            if rng.random() < 0.4:
                parts.reshard(rng.randrange(1, 4))
    parts.on_watermark(END_OF_TIME)
