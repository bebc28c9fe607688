"""A partition's real dataflow with an exchange in memory, its sources and sink; and a stub for questions of scale."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import msgpack
import numpy as np
import pyarrow as pa

from millrace.cluster.capture import Restored, SourceCapture, SplitCapture
from millrace.cluster.dataflow import Dataflow
from millrace.cluster.protocol.alignment import BarrierAligner
from millrace.cluster.vertex import OperatorVertex, SinkVertex, Vertex
from millrace.operators.batch import START_OF_TIME, Batch
from millrace.operators.operator import Context
from millrace.operators.sink import Changelog, Commit, Sink, SinkSpec
from millrace.operators.source import Polled, Position, Source, SourceInput, SourceSpec, SplitReader
from millrace.planner.physical.exchange import layout_of
from millrace.planner.plan import Plan
from millrace.planner.session import Planner
from millrace.state.checkpoints.manifest import SourcePoint, SplitPoint
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.checkpoints.snapshots import TableCapture
from millrace.state.hashing import hash_columns, partition_rows, vnodes_of

VNODES = 8
KEYS = 5
SCHEMA = pa.schema([("id", pa.int64()), ("k", pa.string()), ("v", pa.int64()), ("ts", pa.timestamp("us"))])
Tables = dict[tuple[str, str], TableCapture]


def row_of(split: int, at: int) -> tuple[int, str, int, int]:
    """Row `at` of a split: id, key, value, event time (µs, rising)."""
    identity = split * 1_000_000 + at
    return identity, f"k{(identity * 7919 + at * at) % KEYS}", identity % 13, at * 100_000 + split * 1000


@dataclass(frozen=True, slots=True)
class SimSource(SourceSpec):
    """Splits of `rows` rows each; a row appears every `every` µs of virtual time."""

    title: ClassVar[str] = "sim"
    splits: tuple[str, ...]
    rows: int
    every: int
    columns: tuple[int, ...]

    @property
    def output_schema(self) -> pa.Schema:
        return pa.schema([SCHEMA.field(i) for i in self.columns])

    @property
    def bounded(self) -> bool:
        return True

    def with_columns(self, columns: tuple[int, ...]) -> "SimSource":
        return replace(self, columns=tuple(self.columns[i] for i in columns))

    def build(self, context: Context) -> Source:
        return _Source(self, context)


class _Source(Source):
    def __init__(self, spec: SimSource, context: Context) -> None:
        self._spec, self._context = spec, context

    def discover(self) -> list[str]:
        return list(self._spec.splits)

    def open(self, split: str, position: Position | None) -> SplitReader:
        return _Reader(self._spec, self._context, split, 0 if position is None else int(position["row"]))


class _Reader(SplitReader):
    def __init__(self, spec: SimSource, context: Context, split: str, at: int) -> None:
        self.split = split
        self._spec, self._context, self._at = spec, context, at

    def poll(self, max_rows: int) -> Polled | None:
        there = min(self._spec.rows, self._context.now() // self._spec.every)
        end = min(there, self._at + max_rows)
        if end <= self._at:
            return None
        rows = [row_of(int(self.split), at) for at in range(self._at, end)]
        self._at = end
        arrays = [pa.array([r[i] for r in rows], SCHEMA.field(i).type) for i in self._spec.columns]
        return Polled(Batch(pa.RecordBatch.from_arrays(arrays, schema=self._spec.output_schema)))

    @property
    def position(self) -> Position:
        return {"row": self._at}

    @property
    def ended(self) -> bool:
        return self._at >= self._spec.rows


@dataclass(frozen=True, slots=True)
class SimSink(SinkSpec):
    """Rows as tuples, sealed as one outbox."""

    title = "sim"
    commit = Commit.TRANSACTIONAL
    changelogs = frozenset(Changelog)
    schema: pa.Schema

    @property
    def input_schema(self) -> pa.Schema:
        return self.schema

    def build(self, context: Context, partition: int) -> "Outbox":
        return Outbox()


class Outbox(Sink):
    """What was written since the last seal."""

    def __init__(self) -> None:
        self._rows: list[tuple[object, ...]] = []

    def write(self, batch: Batch) -> None:
        columns = [
            column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in batch.data
        ]
        weights = np.ones(batch.num_rows, np.int64) if batch.weights is None else batch.weights
        values = zip(*(column.to_pylist() for column in columns), strict=True)
        self._rows += [(*row, int(w)) for row, w in zip(values, weights, strict=True)]

    def seal(self, checkpoint: int) -> bytes:
        rows, self._rows = self._rows, []
        return msgpack.packb(rows) if rows else b""


QUERIES = {
    "stateless": "SELECT id, k, v FROM s WHERE v <> 5",
    "windowed": """SELECT k, window_start, count(*) AS n, sum(v) AS total
        FROM TUMBLE(s, ts, INTERVAL '1' SECOND) GROUP BY k, window_start""",
    "counted": "SELECT k, count(*) AS n, sum(v) AS total FROM s GROUP BY k",
}


_PLANS: dict[str, Plan] = {}


def upgraded(plan: Plan) -> Plan:
    """The same plan, but for its source having another hash, as if it read another column."""
    source = source_node(plan)
    nodes = (replace(n, hash=f"{n.hash}+") if n.hash == source else n for n in plan.nodes)
    return replace(plan, nodes=tuple(nodes))


def plan_of(query: str) -> Plan:
    """The plan of a query whose source and sink are the simulator's (splits are given by `Engine`)."""
    if query not in _PLANS:
        text = f"""
        CREATE TABLE s (id BIGINT, k VARCHAR, v BIGINT, ts TIMESTAMP(6),
            WATERMARK FOR ts AS ts) WITH ('connector' = 'push');
        CREATE SINK out FROM ({QUERIES[query]}) WITH ('connector' = 'blackhole');
        """
        plan, _ = Planner().compile(text)
        nodes = []
        for node in plan.nodes:
            spec = node.spec
            if isinstance(spec, SourceInput):
                names = spec.source.output_schema.names
                sim = SimSource((), 0, 1, tuple(SCHEMA.names.index(name) for name in names))
                event_time = None if spec.event_time is None else replace(spec.event_time, idle_timeout=None)
                spec = replace(spec, source=sim, event_time=event_time)
            elif isinstance(spec, SinkSpec):
                spec = SimSink(spec.input_schema)
            nodes.append(replace(node, spec=spec))
        _PLANS[query] = replace(plan, nodes=tuple(nodes))
    return _PLANS[query]


def source_node(plan: Plan) -> str:
    return next(node.hash for node in plan.nodes if isinstance(node.spec, SourceInput))


@dataclass(frozen=True)
class Cut:
    """What one partition captured at a checkpoint, in memory."""

    tables: Tables
    sources: tuple[SourcePoint, ...]
    outbox: bytes


Item = Batch | int
"""What goes over a channel besides barriers: rows, or a watermark (µs)."""


class Engine:
    """One partition's dataflow. `send(to, item)` hands rows, watermarks and barriers to a channel."""

    def __init__(
        self,
        plan: Plan,
        partition: int,
        splits: tuple[str, ...],
        rows: int,
        every: int,
        clock: Callable[[], int],
        owners: tuple[int, ...],
        send: Callable[[int, Item | CheckpointNumber], None],
        passed: Callable[[CheckpointNumber, Cut], None],
    ) -> None:
        nodes = tuple(
            replace(
                n, spec=replace(n.spec, source=replace(n.spec.source, splits=splits, rows=rows, every=every))
            )
            if isinstance(n.spec, SourceInput)
            else n
            for n in plan.nodes
        )
        self.dataflow = Dataflow(clock=clock, vnodes=VNODES, partition=partition, batch_rows=3)
        self.dataflow.extend(replace(plan, nodes=nodes))
        self._passed = passed
        self._send = send
        self._parts = len(set(owners))
        self._owners = np.array(owners, np.int16)
        self._polled = False
        self._begun: dict[CheckpointNumber, tuple[Tables, tuple[SourcePoint, ...]]] = {}
        self._marks = [START_OF_TIME] * self._parts
        self._before: list[Vertex] = list(self.dataflow.vertices)
        self._after: list[Vertex] = []
        self._target: OperatorVertex | None = None
        self.aligner: BarrierAligner[int, Item] | None = None
        for edge in layout_of(plan, 2).edges:
            assert self._target is None and edge.keys is not None, "one exchange is what is simulated"
            self._split_at(edge.consumer, edge.keys)

    def _split_at(self, position: int, keys: tuple[int, ...]) -> None:
        vertices = self.dataflow.vertices
        target = vertices[position]
        assert isinstance(target, OperatorVertex)
        upstream = vertices[target.node.inputs[0]]
        upstream.detach(target)
        upstream.attach(_ExchangeOut(self, keys), 0)
        self._target = target
        self._before, self._after = vertices[:position], vertices[position:]
        self.aligner = BarrierAligner(range(self._parts), self._deliver, self._cut)

    def spread(self, keys: tuple[int, ...], batch: Batch) -> None:
        """Send rows to the owners of their vnodes."""
        vnodes = vnodes_of(hash_columns([batch.data.column(k) for k in keys], batch.num_rows), VNODES)
        order, bounds = partition_rows(vnodes, self._owners, self._parts)
        for to in range(self._parts):
            rows = order[bounds[to] : bounds[to + 1]]
            if len(rows):
                self._send(to, batch.take(rows))

    def promise(self, watermark: int) -> None:
        """Send a watermark to all."""
        for to in range(self._parts):
            self._send(to, watermark)

    def poll(self) -> None:
        self._polled = True
        self.dataflow.poll()

    @property
    def ended(self) -> bool:
        return self.dataflow.ended

    def take(self, channel: int, item: Item | CheckpointNumber) -> None:
        """Something came from partition `channel`."""
        assert self.aligner is not None
        if isinstance(item, CheckpointNumber):
            self.aligner.barrier(channel, item)
        else:
            self.aligner.take(channel, item)

    def _deliver(self, channel: int, item: Item) -> None:
        assert self._target is not None
        if isinstance(item, Batch):
            self._target.receive(0, item)
            return
        self._marks[channel] = item
        low = min(self._marks)
        if low > START_OF_TIME:
            self._target.advance(0, low)

    def inject(self, number: CheckpointNumber) -> None:
        """The sources' barrier."""
        if not self._polled:
            self.poll()
        tables = self._capture(self._before)
        self._begun[number] = tables, self._sources()
        if self._target is None:
            self._cut(number)
        else:
            for to in range(self._parts):
                self._send(to, number)

    def _cut(self, number: CheckpointNumber) -> None:
        if number not in self._begun:
            return  # the barrier of others reached us, but this partition was never told or has moved on
        tables, sources = self._begun.pop(number)
        for stale in [n for n in self._begun if n < number]:
            earlier, _ = self._begun.pop(stale)
            tables = merged(earlier, tables)
        tables = merged(tables, self._capture(self._after))
        sink = next(v for v in self.dataflow.vertices if isinstance(v, SinkVertex))
        self._passed(number, Cut(tables, sources, sink.sink.seal(number.value)))

    def _capture(self, vertices: list[Vertex], *, changes: bool = True) -> Tables:
        return {
            (v.node.hash, table): TableCapture(d.key, d.rows, d.deleted, d.complete)
            for v in vertices
            if isinstance(v, OperatorVertex)
            for table, d in v.operator.capture(changes=changes).items()
        }

    def whole(self) -> Tables:
        """All tables as they stand."""
        return self._capture(self.dataflow.vertices, changes=False)

    def _sources(self) -> tuple[SourcePoint, ...]:
        points = []
        for source in self.dataflow.sources:
            captured = source.capture()
            splits = {k: SplitPoint(p.position, p.watermark) for k, p in captured.splits.items()}
            points.append(SourcePoint(source.node.hash, splits, captured.ended, captured.watermark))
        return tuple(points)

    def restore(
        self, tables: Mapping[tuple[str, str], pa.RecordBatch], sources: tuple[SourcePoint, ...]
    ) -> None:
        operators: dict[str, dict[str, pa.RecordBatch]] = {}
        for (node, table), rows in tables.items():
            operators.setdefault(node, {})[table] = rows
        self.dataflow.restore(
            Restored(
                operators,
                {
                    s.node: SourceCapture(
                        {k: SplitCapture(dict(p.position), p.watermark) for k, p in s.splits.items()},
                        s.ended,
                        s.watermark,
                    )
                    for s in sources
                },
            )
        )

    def close(self) -> None:
        self.dataflow.close()


def merged(earlier: Tables, later: Tables) -> Tables:
    """Two captures, one after the other, as one."""
    out = dict(earlier)
    for name, capture in later.items():
        known = out.get(name)
        if known is None or capture.complete:
            out[name] = capture
            continue
        deltas = [d for d in (known.deleted, capture.deleted) if d is not None]
        assert not known.complete and not deltas, "captures of one vertex are not merged here"
        out[name] = capture
    return out


class _ExchangeOut:
    def __init__(self, engine: Engine, keys: tuple[int, ...]) -> None:
        self._engine, self._keys = engine, keys

    def receive(self, port: int, batch: Batch) -> None:
        self._engine.spread(self._keys, batch)

    def advance(self, port: int, watermark: int) -> None:
        self._engine.promise(watermark)

    def set_idle(self, port: int, idle: bool) -> None:
        assert not idle, "sources that are simulated are never idle"
