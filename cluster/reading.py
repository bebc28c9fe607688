"""A source as a node of a dataflow: polls splits, computes columns, sets watermarks. Knows no connector."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter_ns

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.cluster.capture import SourceCapture, SplitCapture
from millrace.cluster.input_digests import InputDigest, verify_input
from millrace.cluster.surroundings import VertexContext, VertexMetrics
from millrace.cluster.vertex import Vertex
from millrace.errors import Invalid
from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Batch
from millrace.operators.calc import Calc
from millrace.operators.connectors.push import SPLIT as PUSHED
from millrace.operators.connectors.push import PushSpec
from millrace.operators.operator import Operator
from millrace.operators.source import BadRecord, Position, SourceInput, SplitReader
from millrace.operators.watermarks import SplitWatermark, WatermarkTracker
from millrace.planner.plan import Node

DISCOVERY_INTERVAL_US = 1_000_000


class SourceVertex(Vertex):
    """A source with the readers of its splits, their watermarks and positions."""

    def __init__(
        self,
        position: int,
        node: Node,
        context: VertexContext,
        metrics: VertexMetrics,
        batch_rows: int,
        assigned: frozenset[str] | None = None,
    ) -> None:
        """`assigned` are the splits it may read; None: all there are."""
        super().__init__(position, node, context, metrics)
        assert isinstance(node.spec, SourceInput)
        self._assigned = assigned
        self.spec = node.spec
        self.ended = False
        self._source = node.spec.source.build(context)
        self._batch_rows = batch_rows
        self._computed = self._build_computed(node.spec)
        self._readers: dict[str, SplitReader] = {}
        self._ended_splits: set[str] = set()
        self._tracker = WatermarkTracker(
            None if node.spec.event_time is None else node.spec.event_time.idle_timeout
        )
        self._watermarks: dict[str, SplitWatermark] = {}
        self._next_discovery = 0
        self._digests: dict[str, InputDigest] | None = None if assigned is None else {}
        """Of the splits of a partition; a database on its own has nobody to compare with."""
        self._to_verify: dict[str, tuple[Position, Position, int, int]] = {}

    def poll(self) -> int:
        """One poll of every split; answers how many records came."""
        now = self.context.now()
        if now >= self._next_discovery:
            self._discover(now)
        moved = 0
        begun = perf_counter_ns()
        for split, reader in list(self._readers.items()):
            polled = reader.poll(self._batch_rows)
            if polled is not None:
                moved += len(polled.bad) + (polled.batch.num_rows if polled.batch is not None else 0)
                self.metrics.busy_ns += perf_counter_ns() - begun
                self._take(split, polled.batch, polled.bad, now)
                begun = perf_counter_ns()
            elif not reader.ended and reader.caught_up:
                self._tracker.silent(split, now)
            if reader.ended:
                self._end_split(split)
        self.metrics.busy_ns += perf_counter_ns() - begun
        self._advance()
        return moved

    def push(self, batches: Sequence[pa.RecordBatch], bad: Sequence[BadRecord], taken: int = 0) -> None:
        """Take rows of the source's whole schema that somebody hands over; the first `taken` batches take rows back."""
        now = self._ready()
        source = self.spec.source
        assert isinstance(source, PushSpec)
        for number, batch in enumerate(batches):
            weights = np.full(batch.num_rows, -1, np.int64) if number < taken else None
            self._take(PUSHED, Batch(source.project(batch), weights), [], now)
        if bad:
            self._take(PUSHED, None, bad, now)
        self._advance()

    def insert(self, batch: Batch) -> None:
        """Take rows, perhaps with weights, that a query of this dataflow writes into the table behind this source.

        Rows with NULL in a column that can not be NULL are dead letters.
        """
        now = self._ready()
        source = self.spec.source
        assert isinstance(source, PushSpec)
        for field, column in zip(source.schema, batch.data.columns, strict=True):
            if not field.nullable and column.null_count:
                missing = pc.is_null(batch.data.column(field.name))
                self.context.dead_letter(
                    batch.filter(missing), "MR1522", f"column {field.name} can not be NULL"
                )
                batch = batch.filter(pc.invert(missing))
        if batch.num_rows:
            self._take(PUSHED, Batch(source.project(batch.data), batch.weights), [], now)
            self._advance()

    def _ready(self) -> int:
        if self.ended:
            raise Invalid(
                f"the input of {self.context.name} was ended", code="MR1521", hint="create another source"
            )
        now = self.context.now()
        if PUSHED not in self._readers:
            self._discover(now)
        return now

    def end(self) -> None:
        """No further row will be pushed."""
        self._readers.clear()
        self._ended_splits.add(PUSHED)
        self._finish()

    def discover(self) -> None:
        """Open the splits there are, if none was looked for yet, so that a capture says something of each."""
        if not self._next_discovery:
            self._discover(self.context.now())

    def capture(self) -> SourceCapture:
        """Where every split goes on."""
        splits = {
            split: self._capture_split(split, reader.position) for split, reader in self._readers.items()
        }
        return SourceCapture(splits, frozenset(self._ended_splits), self._tracker.current)

    @property
    def lag(self) -> int | None:
        """How many records there are that were not read, as far as readers know; None where none does."""
        known = [lag for reader in tuple(self._readers.values()) if (lag := reader.lag) is not None]
        return sum(known) if known else None

    def _capture_split(self, split: str, position: Position) -> SplitCapture:
        watermark = self._split_watermark(split)
        digest = None if self._digests is None else self._digests.get(split)
        if digest is None:
            return SplitCapture(position, watermark)
        captured = SplitCapture(position, watermark, digest.records, digest.value, digest.since)
        digest.restart(position)
        return captured

    def verify(self) -> list[str]:
        """Read again what was read before the checkpoint that this was restored from; what could not be had in time.

        May be called from another thread. Raises Corrupt MR5045 where the input is another now.
        """
        return (
            verify_input(self.spec, self.context, self._to_verify, self._batch_rows)
            if self._to_verify
            else []
        )

    def survey(self) -> dict[str, tuple[str, int, int | None, bool]]:
        """Of every split its position in words, watermark (µs), lag and whether it ended. From any thread."""
        found: dict[str, tuple[str, int, int | None, bool]] = dict.fromkeys(
            tuple(self._ended_splits), ("read to its end", END_OF_TIME, 0, True)
        )
        for split, reader in tuple(self._readers.items()):
            words = ", ".join(f"{name} {value!r}" for name, value in reader.position.items())
            mark = self._watermarks.get(split)
            found[split] = words, START_OF_TIME if mark is None else mark.current, reader.lag, False
        return dict(sorted(found.items()))

    def restore(self, captured: SourceCapture) -> None:
        """Go on as captured; before the first poll. What was promised downstream is promised again."""
        assert not self._readers
        self._ended_splits = set(captured.ended)
        self._tracker.restore(captured.watermark)
        for split, at in captured.splits.items():
            self._readers[split] = self._source.open(split, at.position)
            self._open_watermark(split, at.watermark)
            self._begin_digest(split, at.position)
            if at.since is not None and at.records and self._digests is not None:
                self._to_verify[split] = dict(at.since), dict(at.position), at.records, at.digest
        self.send_watermark(self._tracker.current)
        if isinstance(self.spec.source, PushSpec) and PUSHED in self._ended_splits:
            self._finish()

    def close(self) -> None:
        """Close all readers and the source."""
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
        self._source.close()

    def _discover(self, now: int) -> None:
        self._next_discovery = now + DISCOVERY_INTERVAL_US
        # Who has his splits assigned is given others only with a new life.
        for split in self._source.discover() if self._assigned is None else sorted(self._assigned):
            if split not in self._readers and split not in self._ended_splits:
                self._readers[split] = self._source.open(split, None)
                self._begin_digest(split, self._readers[split].position)
                self._open_watermark(split)
        if self.spec.source.bounded or self._assigned is not None:
            self._next_discovery = END_OF_TIME
            if not self._readers and (self.spec.source.bounded or not self._assigned):
                self._finish()

    def _begin_digest(self, split: str, since: Position) -> None:
        if self._digests is not None and self.spec.source.replayable:
            self._digests[split] = InputDigest(self.spec.source.output_schema, dict(since))

    def _open_watermark(self, split: str, watermark: int = START_OF_TIME) -> None:
        self._tracker.add(split, watermark)
        if self.spec.event_time is not None:
            kind = self.spec.schema.field(self.spec.event_time.column).type
            mark = SplitWatermark(self.spec.event_time, kind)
            mark.restore(watermark)
            self._watermarks[split] = mark

    def _split_watermark(self, split: str) -> int:
        mark = self._watermarks.get(split)
        return START_OF_TIME if mark is None else mark.capture()

    def _take(self, split: str, batch: Batch | None, bad: Sequence[BadRecord], now: int) -> None:
        self.metrics.rows_in += len(bad) + (0 if batch is None else batch.num_rows)
        if self._digests is not None and split in self._digests:
            self._digests[split].add(None if batch is None else batch.data, len(bad))
        self.metrics.batches_in += 1
        self.context.bad_records(bad)
        if batch is None:
            return
        if self._computed is None:
            self._send_timed(split, batch, now)
        else:
            for computed in self._computed.process(0, batch):
                self._send_timed(split, computed, now)

    def _send_timed(self, split: str, batch: Batch, now: int) -> None:
        event_time = self.spec.event_time
        if event_time is not None and batch.num_rows:
            mark = self._watermarks[split]
            mark.raise_to(self._tracker.current)
            observed = mark.observe(batch.data.column(event_time.column), now)
            batch.row_watermarks = observed.row_watermarks
            if observed.timeless is not None:
                self.context.dead_letter(batch.filter(observed.timeless), "MR1520", "the event time is NULL")
                batch = batch.filter(pc.invert(observed.timeless))
            self._tracker.deliver(split, mark.current)
            self.send_idle(False)
        if batch.num_rows:
            self.send([batch])

    def _advance(self) -> None:
        if not self.ended and self.spec.event_time is not None:
            self.send_watermark(self._tracker.current)
            self.send_idle(self._tracker.idle)

    def _end_split(self, split: str) -> None:
        self._readers.pop(split).close()
        self._watermarks.pop(split, None)
        self._ended_splits.add(split)
        self._tracker.end(split)
        if not self._readers and self.spec.source.bounded:
            self._finish()

    def _finish(self) -> None:
        self.ended = True
        self.send_watermark(END_OF_TIME)

    def _build_computed(self, spec: SourceInput) -> Operator | None:
        if spec.computed is None:
            return None
        names = tuple(spec.schema.names)
        return Calc(spec.source.output_schema, None, spec.computed, names).build(self.context)
