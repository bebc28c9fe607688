"""A join whose vnodes move from one partition to two and three goes on as if it had never stopped."""

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from millrace.operators.batch import Batch
from millrace.operators.expressions.tree import Call, Column
from millrace.operators.joins.regular_spec import JoinKind, RegularJoin, SideInput
from millrace.operators.operator import VNODE, Operator, StateDelta
from millrace.operators.sink import Changelog
from millrace.state.hashing import hash_columns, vnodes_of
from millrace.state.snapshot import fold

INT = pa.int64()
LEFT = pa.schema([("id", INT), ("k", INT), ("v", INT)])
RIGHT = pa.schema([("id", INT), ("k", INT), ("w", INT)])
VNODES = 16
Row = tuple[object, ...]
Pair = tuple[Row | None, Row | None]


class Surroundings:
    vnodes = VNODES
    time = 0

    def now(self) -> int:
        return self.time

    def late(self, batch: Batch) -> None:
        raise AssertionError

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        raise AssertionError


class Partitions:
    """Several copies of one join, rows sent by vnode; captured as a chain of changes."""

    def __init__(self, spec: RegularJoin, count: int, tables: dict[str, pa.RecordBatch]) -> None:
        self.spec = spec
        self.bounds = np.linspace(0, VNODES, count + 1).astype(int)
        self.parts: list[Operator] = []
        self.kept: list[dict[str, StateDelta]] = []
        for first, end in zip(self.bounds, self.bounds[1:], strict=False):
            part = spec.build(Surroundings())
            if tables:
                part.restore({name: _within(table, first, end) for name, table in tables.items()})
            self.parts.append(part)
            self.kept.append({})

    def send(self, port: int, batch: Batch) -> list[Batch]:
        keys = [batch.data.column(k) for k in self.spec.keys(port)]
        nodes = vnodes_of(hash_columns(keys, batch.num_rows), VNODES)
        out: list[Batch] = []
        for part, first, end in zip(self.parts, self.bounds, self.bounds[1:], strict=False):
            mine = np.flatnonzero((nodes >= first) & (nodes < end))
            if len(mine):
                out += part.process(port, batch.take(mine))
        return out

    def capture(self, *, changes: bool) -> None:
        for part, kept in zip(self.parts, self.kept, strict=True):
            for name, delta in part.capture(changes=changes).items():
                if delta.complete:
                    kept[name] = delta
                else:
                    rows = fold(kept[name].rows, [(delta.rows, delta.deleted)], delta.key)
                    kept[name] = StateDelta(delta.key, rows)

    def tables(self) -> dict[str, pa.RecordBatch]:
        names = self.kept[0]
        return {name: pa.concat_batches([kept[name].rows for kept in self.kept]) for name in names}


def _within(table: pa.RecordBatch, first: int, end: int) -> pa.RecordBatch:
    nodes = np.asarray(table.column(VNODE))
    return table.take(pa.array(np.flatnonzero((nodes >= first) & (nodes < end))))


def expected(kind: JoinKind, left: Sequence[Row], right: Sequence[Row], residual: bool) -> Counter[Row]:
    def matches(a: Row, b: Row) -> bool:
        if a[1] is None or a[1] != b[1]:
            return False
        return not residual or (a[2] is not None and b[2] is not None and a[2] < b[2])  # type: ignore[operator]

    out: Counter[Row] = Counter()
    for a in left:
        found = [b for b in right if matches(a, b)]
        if kind in (JoinKind.SEMI, JoinKind.ANTI):
            out[a] += bool(found) == (kind is JoinKind.SEMI)
            continue
        for b in found:
            out[a + b] += 1
        if not found and kind.keeps(0):
            out[(*a, None, None, None)] += 1
    if kind.pairs and kind.keeps(1):
        for b in right:
            if not any(matches(a, b) for a in left):
                out[(None, None, None, *b)] += 1
    return +out


def spec_of(rng: random.Random, kind: JoinKind, residual: bool) -> RegularJoin:
    inputs = [
        rng.choice((SideInput(), SideInput(Changelog.RETRACT), SideInput(Changelog.RETRACT, (0,))))
        for _ in "ab"
    ]
    condition = Call("<", (Column(2, INT, "v"), Column(5, INT, "w")), pa.bool_()) if residual else None
    outputs = tuple(range(6 if kind.pairs else 3))
    names = ("id", "k", "v", "rid", "rk", "w")[: len(outputs)]
    return RegularJoin(
        LEFT, RIGHT, kind, (1,), (1,), (False,), condition, outputs, names, inputs[0], inputs[1]
    )


@pytest.mark.parametrize("residual", [False, True], ids=["equal", "residual"])
@pytest.mark.parametrize("kind", list(JoinKind), ids=lambda kind: kind.value)
def test_capture_restore_and_reshard_at_random_points(kind: JoinKind, residual: bool) -> None:
    for seed in range(6):
        rng = random.Random(f"{kind} {residual} {seed}")
        spec = spec_of(rng, kind, residual)
        join = Partitions(spec, 1, {})
        held: tuple[list[Row], list[Row]] = ([], [])
        out: Counter[Row] = Counter()
        ids = 0
        for _ in range(14):
            port = rng.randrange(2)
            given = spec.right_input if port else spec.left_input
            rows: list[Row] = []
            weights: list[int] = []
            for _ in range(rng.choice((1, 3, 9))):
                if held[port] and given.changelog is not Changelog.APPEND and rng.random() < 0.4:
                    rows.append(held[port].pop(rng.randrange(len(held[port]))))
                    weights.append(-1)
                    continue
                ids += 1
                number = ids if given.key else rng.randrange(2)
                row = (number, rng.choice((None, 0, 0, 1, 2, 3)), rng.choice((None, 0, 1, 2)))
                held[port].append(row)
                rows.append(row)
                weights.append(1)
            schema = RIGHT if port else LEFT
            columns = [pa.array(list(column), INT) for column in zip(*rows, strict=True)]
            data = pa.RecordBatch.from_arrays(columns, schema=schema)
            for batch in join.send(port, Batch(data, np.array(weights))):
                signs = np.ones(batch.num_rows, int) if batch.weights is None else batch.weights
                shown = zip(*(c.to_pylist() for c in batch.data.columns), strict=True)
                for row, weight in zip(shown, signs.tolist(), strict=True):
                    out[row] += weight
                assert min(out.values(), default=0) >= 0
            assert +out == expected(kind, *held, residual), f"seed {seed}"
            if rng.random() < 0.3:
                join.capture(changes=rng.random() < 0.7)
                if rng.random() < 0.6:
                    join = Partitions(spec, rng.choice((1, 2, 3)), join.tables())
