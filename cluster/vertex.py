"""The running nodes of a dataflow: operators, sinks and taps that rows are pushed through. Polls no source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from time import perf_counter_ns
from typing import Protocol

from millrace.cluster.surroundings import VertexContext, VertexMetrics
from millrace.cluster.timekeeping import InputWatermarks
from millrace.operators.batch import START_OF_TIME, Batch
from millrace.operators.materialize import Materialized
from millrace.operators.operator import Operator, OperatorMetrics
from millrace.operators.sink import Sink
from millrace.planner.plan import Node


class Receiver(Protocol):
    """Whoever takes rows and watermarks from a node."""

    def receive(self, port: int, batch: Batch) -> None:
        """Take one batch in."""
        ...

    def advance(self, port: int, watermark: int) -> None:
        """No row older than `watermark` (µs) follows on `port`."""
        ...

    def set_idle(self, port: int, idle: bool) -> None:
        """Nothing comes on `port` for the time being, so its watermark holds nobody back; or it does again."""
        ...


class Vertex:
    """A node that runs: its metrics, its output watermark, and who reads it."""

    def __init__(self, position: int, node: Node, context: VertexContext, metrics: VertexMetrics) -> None:
        self.position = position
        self.node = node
        self.context = context
        self.metrics = metrics
        self.watermark = START_OF_TIME
        self.idle = False
        self._targets: list[tuple[Receiver, int]] = []
        self._receives: list[tuple[Callable[[int, Batch], None], int]] = []

    def attach(self, target: Receiver, port: int) -> None:
        """Send what follows to `target` as well; it learns of the watermark that already holds."""
        self._targets.append((target, port))
        self._receives.append((target.receive, port))
        if self.watermark != START_OF_TIME:
            target.advance(port, self.watermark)
        if self.idle:
            target.set_idle(port, True)

    def detach(self, target: object) -> None:
        """Stop sending to `target`."""
        self._targets = [entry for entry in self._targets if entry[0] is not target]
        self._receives = [(receiver.receive, port) for receiver, port in self._targets]

    def send(self, batches: Iterable[Batch]) -> None:
        """Hand batches to all who read this node."""
        for batch in batches:
            rows = batch.num_rows
            if rows:
                self.metrics.rows_out += rows
                for receive, port in self._receives:
                    receive(port, batch)

    def close(self) -> None:
        """Release what the node holds."""

    def send_watermark(self, watermark: int) -> None:
        """Promise `watermark` to all who read this node, if it is news."""
        if watermark > self.watermark:
            self.watermark = watermark
            for target, port in self._targets:
                target.advance(port, watermark)

    def send_idle(self, idle: bool) -> None:
        """Tell all who read this node whether it delivers, if it is news."""
        if idle != self.idle:
            self.idle = idle
            for target, port in self._targets:
                target.set_idle(port, idle)


class OperatorVertex(Vertex):
    """An operator with its input watermarks."""

    def __init__(
        self, position: int, node: Node, context: VertexContext, metrics: VertexMetrics, operator: Operator
    ) -> None:
        super().__init__(position, node, context, metrics)
        self.operator = operator
        self._process = operator.process
        own = getattr(operator, "metrics", None)
        self.counters: Mapping[str, int] = own.extra if isinstance(own, OperatorMetrics) else {}
        """What the operator counts beside rows: `matches`, `expired`, `retractions`."""
        self._inputs = InputWatermarks(range(max(1, len(node.inputs))))

    def receive(self, port: int, batch: Batch) -> None:
        """Run the operator on one batch and hand on what it gives."""
        metrics = self.metrics
        metrics.rows_in += batch.num_rows
        metrics.batches_in += 1
        begun = perf_counter_ns()
        out = self._process(port, batch)
        metrics.busy_ns += perf_counter_ns() - begun
        if type(out) is not list:
            self.send(self._timed(out))
        elif out:
            self.send(out)

    def _timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Batches that are made as they are asked for; the time that takes counts here."""
        begun = perf_counter_ns()
        for batch in batches:
            self.metrics.busy_ns += perf_counter_ns() - begun
            yield batch
            begun = perf_counter_ns()
        self.metrics.busy_ns += perf_counter_ns() - begun

    def advance(self, port: int, watermark: int) -> None:
        """Raise one input's watermark, and the operator's when the minimum rises."""
        if self._inputs.advance(port, watermark):
            self._advance()
        self.send_idle(self._inputs.idle)

    def set_idle(self, port: int, idle: bool) -> None:
        """An input that is idle does not hold the others back; where all are, so is the operator."""
        if self._inputs.set_idle(port, idle):
            self._advance()
        self.send_idle(self._inputs.idle)

    def _advance(self) -> None:
        low = self._inputs.current
        begun = perf_counter_ns()
        out = self.operator.on_watermark(low)
        self.metrics.busy_ns += perf_counter_ns() - begun
        if out:
            self.send(out)
        self.send_watermark(self.operator.output_watermark(low))

    def tick(self, now: int) -> None:
        """Let processing time pass."""
        out = self.operator.on_time(now)
        if out:
            self.send(out)

    def attach(self, target: Receiver, port: int) -> None:
        """As for any node; who joins a materialised table later is given its rows first."""
        if isinstance(self.operator, Materialized):
            for batch in self.operator.current():
                target.receive(port, batch)
        super().attach(target, port)

    def close(self) -> None:
        """Close the operator."""
        self.operator.close()


class SinkVertex(Vertex):
    """A sink at the end of a dataflow."""

    def __init__(
        self, position: int, node: Node, context: VertexContext, metrics: VertexMetrics, sink: Sink
    ) -> None:
        super().__init__(position, node, context, metrics)
        self.sink = sink

    def receive(self, port: int, batch: Batch) -> None:
        """Write one batch."""
        metrics = self.metrics
        metrics.rows_in += batch.num_rows
        metrics.batches_in += 1
        begun = perf_counter_ns()
        self.sink.write(batch)
        metrics.busy_ns += perf_counter_ns() - begun

    def advance(self, port: int, watermark: int) -> None:
        """Remember how far the sink's input is complete."""
        self.watermark = max(self.watermark, watermark)

    def set_idle(self, port: int, idle: bool) -> None:
        """Nobody waits for a sink."""

    def close(self) -> None:
        """Close the sink."""
        self.sink.close()


class Tap:
    """Calls back for each batch that a node sends."""

    def __init__(
        self, on_batch: Callable[[Batch], None], on_watermark: Callable[[int], None] | None = None
    ) -> None:
        self._on_batch = on_batch
        self._on_watermark = on_watermark

    def receive(self, port: int, batch: Batch) -> None:
        """Hand the batch over."""
        self._on_batch(batch)

    def advance(self, port: int, watermark: int) -> None:
        """Hand the watermark over."""
        if self._on_watermark is not None:
            self._on_watermark(watermark)

    def set_idle(self, port: int, idle: bool) -> None:
        """Rows are called back for when they come, and no others are waited for."""
