"""A partition whose splits fell silent does not hold back windows in the others, nor an input the one it is joined with."""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import pyarrow as pa
import pytest
from tests.partitions_in_process import Partitions

from millrace.cluster.dataflow import Dataflow
from millrace.cluster.vertex import Tap
from millrace.operators.batch import Batch
from millrace.operators.operator import Context
from millrace.operators.source import Polled, Position, Source, SourceInput, SourceSpec, SplitReader
from millrace.planner.plan import Plan
from millrace.planner.session import Planner

SCHEMA = pa.schema([("k", pa.int64()), ("ts", pa.timestamp("ms"))])
IDLE_US = 30_000


@dataclass(frozen=True, slots=True)
class Rows(SourceSpec):
    """Splits that give their event times (s) one a poll, and then nothing, for ever."""

    title: ClassVar[str] = "rows"
    splits: tuple[tuple[int, ...], ...]
    columns: tuple[int, ...] = (0, 1)

    @property
    def output_schema(self) -> pa.Schema:
        return pa.schema([SCHEMA.field(i) for i in self.columns])

    @property
    def bounded(self) -> bool:
        return False

    def with_columns(self, columns: tuple[int, ...]) -> "Rows":
        return replace(self, columns=tuple(self.columns[i] for i in columns))

    def build(self, context: Context) -> Source:
        return _Source(self)


class _Source(Source):
    def __init__(self, spec: Rows) -> None:
        self.spec = spec

    def discover(self) -> list[str]:
        return [str(i) for i in range(len(self.spec.splits))]

    def open(self, split: str, position: Position | None) -> SplitReader:
        return _Reader(self.spec, split)


class _Reader(SplitReader):
    def __init__(self, spec: Rows, split: str) -> None:
        self.split = split
        self._columns = list(spec.columns)
        self._times: Iterator[int] = iter(spec.splits[int(split)])

    def poll(self, max_rows: int) -> Polled | None:
        second = next(self._times, None)
        if second is None:
            return None
        rows = [pa.array(range(8), pa.int64()), pa.array([second * 1000] * 8, pa.timestamp("ms"))]
        return Polled(
            Batch(pa.RecordBatch.from_arrays([rows[i] for i in self._columns], schema=self._schema()))
        )

    def _schema(self) -> pa.Schema:
        return pa.schema([SCHEMA.field(i) for i in self._columns])

    @property
    def position(self) -> Position:
        return {"row": 0}

    @property
    def ended(self) -> bool:
        return False


def plan_of(query: str, sources: dict[str, tuple[tuple[int, ...], ...]]) -> Plan:
    declared = "".join(
        f"CREATE SOURCE {name} (k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts) WITH ('connector' = 'push');"
        for name in sources
    )
    plan, _ = Planner().compile(f"{declared} CREATE SINK o FROM ({query}) INTO BLACKHOLE ()")
    nodes = []
    for node in plan.nodes:
        if isinstance(node.spec, SourceInput):
            assert node.spec.event_time is not None and node.name is not None
            columns = tuple(SCHEMA.names.index(n) for n in node.spec.source.output_schema.names)
            time_ = replace(node.spec.event_time, idle_timeout=IDLE_US)
            node = replace(
                node, spec=replace(node.spec, source=Rows(sources[node.name], columns), event_time=time_)
            )
        nodes.append(node)
    return replace(plan, nodes=tuple(nodes))


WINDOWS = (
    "SELECT k, window_end, count(*) AS n FROM TUMBLE(s, ts, INTERVAL '10' SECOND) GROUP BY k, window_end"
)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_silent_partition_holds_no_window_back(count: int) -> None:
    plan = plan_of(WINDOWS, {"s": ((1, 2, 25, 47), (3,))})
    partitions = Partitions(plan, count, random.Random(count))
    deadline = time.monotonic() + 5
    (name,) = partitions.published
    while time.monotonic() < deadline and partitions.folded(name).num_rows < 8 * 2:
        for share in partitions.shares:
            share.step(poll=True)
        partitions.checkpoint()
    found = partitions.folded(name).to_pylist()
    assert sorted(row["n"] for row in found) == [1] * 8 + [3] * 8  # [20, 30) and [0, 10); [40, 50) is open


def test_a_silent_input_does_not_hold_back_the_one_it_meets() -> None:
    union = "SELECT k, ts FROM a UNION ALL SELECT k, ts FROM b"
    query = f"SELECT window_end, count(*) AS n FROM TUMBLE(({union}), ts, INTERVAL '10' SECOND) GROUP BY window_end"
    plan = plan_of(query, {"a": ((1, 25, 47),), "b": ((3,),)})
    dataflow = Dataflow()
    batches: list[Batch] = []
    dataflow.extend(plan, [(plan.outputs[-1].node - 1, Tap(batches.append))])
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and sum(b.num_rows for b in batches) < 2:
        dataflow.poll()
    assert [row["n"] for b in batches for row in b.data.to_pylist()] == [16, 8]
