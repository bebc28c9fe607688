"""Shared by the tests of aggregates: a context, random rows, and folding of what operators send."""

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from millrace.operators.aggregates import AggregateCall, resolve_aggregate
from millrace.operators.batch import Batch
from millrace.operators.operator import Operator
from millrace.operators.spec import OperatorSpec, decode, encode


class Recorder:
    """A context that keeps late rows and dead letters."""

    vnodes = 256

    def __init__(self) -> None:
        self.late_batches: list[Batch] = []
        self.dead: list[tuple[Batch, str]] = []
        self.time = 0

    def now(self) -> int:
        return self.time

    def late(self, batch: Batch) -> None:
        self.late_batches.append(batch)

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        self.dead.append((batch, code))

    @property
    def late_rows(self) -> int:
        return sum(batch.num_rows for batch in self.late_batches)


def call(schema: pa.Schema, name: str, *columns: str, **options: object) -> AggregateCall:
    """A call by column names; `filter`, `distinct`, `order_by` as in AggregateCall, the rest are options."""
    places = tuple(schema.get_field_index(column) for column in columns)
    constants = {k: v for k, v in options.items() if k not in ("filter", "distinct", "order_by")}
    types = [schema.field(i).type for i in places] + [pa.float64()] * len(constants)
    signature = resolve_aggregate(name, types)
    chosen = options.get("filter")
    order = options.get("order_by", ())
    assert isinstance(order, tuple)
    return AggregateCall(
        signature.name,
        places,
        signature.returns,
        distinct=bool(options.get("distinct")),
        filter=None if chosen is None else schema.get_field_index(str(chosen)),
        order_by=tuple((schema.get_field_index(c), d, n) for c, d, n in order),
        options=tuple(constants.items()),
    )


def plain(value: object) -> object:
    """A value that compares and hashes; floats to 9 significant digits."""
    if isinstance(value, list):
        return tuple(plain(item) for item in value)
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        return 0.0 if abs(value) < 1e-9 else float(f"{value:.9g}")
    return value


def fold(
    batches: Iterable[Batch], into: Counter[tuple[object, ...]] | None = None
) -> Counter[tuple[object, ...]]:
    """The multiset of rows sent, retractions taken off."""
    rows: Counter[tuple[object, ...]] = Counter() if into is None else into
    for batch in batches:
        weights = [1] * batch.num_rows if batch.weights is None else batch.weights.tolist()
        columns = [[plain(v) for v in column.to_pylist()] for column in batch.data.columns]
        for row, weight in zip(zip(*columns, strict=True), weights, strict=True):
            rows[row] += weight
            if not rows[row]:
                del rows[row]
    return rows


def upserts(batches: Iterable[Batch], keys: int) -> Counter[tuple[object, ...]]:
    """What a reader by key sees: the last +1 row of each key that no −1 row removed."""
    shown: dict[tuple[object, ...], tuple[object, ...]] = {}
    for batch in batches:
        weights = [1] * batch.num_rows if batch.weights is None else batch.weights.tolist()
        columns = [[plain(v) for v in column.to_pylist()] for column in batch.data.columns]
        for row, weight in zip(zip(*columns, strict=True), weights, strict=True):
            if weight > 0:
                shown[row[:keys]] = row
            else:
                shown.pop(row[:keys], None)
    return Counter(shown.values())


def built(spec: OperatorSpec, context: Recorder) -> Operator:
    """The operator of a spec that went through its bytes."""
    again = decode(encode(spec))
    assert again == spec
    return again.build(context)


class Store:
    """State tables as a store keeps them: captures applied one on the other."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[tuple[object, ...], dict[str, object]]] = {}
        self.schemas: dict[str, pa.Schema] = {}

    def apply(self, operator: Operator, *, changes: bool) -> None:
        for name, delta in operator.capture(changes=changes).items():
            table = self.tables.setdefault(name, {})
            if delta.complete:
                table.clear()
            self.schemas[name] = delta.rows.schema
            if delta.deleted is not None:
                for row in delta.deleted.to_pylist():
                    table.pop(self._key(row, delta.key), None)
            for row in delta.rows.to_pylist():
                table[self._key(row, delta.key)] = row

    @staticmethod
    def _key(row: dict[str, object], key: tuple[str, ...]) -> tuple[object, ...]:
        return tuple("NaN" if row[k] != row[k] else row[k] for k in key)

    def load(self, operator: Operator) -> Operator:
        operator.restore(
            {
                name: pa.RecordBatch.from_pylist(list(rows.values()), schema=self.schemas[name])
                for name, rows in self.tables.items()
                if rows
            }
        )
        return operator


def cuts(rng: np.random.Generator, rows: int, size: int) -> list[tuple[int, int]]:
    """Slices of up to `size` rows; a size of 0 cuts at random."""
    out, at = [], 0
    while at < rows:
        length = size or int(rng.integers(1, 60))
        out.append((at, min(length, rows - at)))
        at += length
    return out
