"""Metrics by name: what each means, and those of nodes. Exports nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from millrace.cluster.reading import SourceVertex
from millrace.cluster.vertex import OperatorVertex, Vertex
from millrace.operators.batch import END_OF_TIME, START_OF_TIME
from millrace.operators.metric_tap import MetricTapOperator
from millrace.operators.reading import Reading

COUNTER, GAUGE = "counter", "gauge"

PARTITION = {
    "rows_in": (COUNTER, "Rows read from sources"),
    "rows_out": (COUNTER, "Rows written to sinks"),
    "late_rows": (COUNTER, "Rows that came too late"),
    "dead_rows": (COUNTER, "Records that did not decode or compute"),
    "busy_seconds": (COUNTER, "Time spent in sources, operators and sinks"),
    "busy_ratio": (GAUGE, "Part of the time since the last figure that was spent in operators"),
    "watermark_seconds": (GAUGE, "Lowest watermark of the sources, seconds since the Unix epoch"),
    "watermark_lag_seconds": (GAUGE, "How far the lowest watermark is behind the clock"),
    "exchange_bytes": (COUNTER, "Bytes of rows sent to other partitions"),
    "checkpoints_stored": (COUNTER, "Checkpoints whose capture the partition stored"),
    "checkpoint_alignment_seconds": (
        GAUGE,
        "Of the last checkpoint: from its barrier at the sources to every cut",
    ),
    "checkpoint_store_seconds": (
        GAUGE,
        "Of the last checkpoint: from the last cut to its capture in the store",
    ),
    "checkpoint_bytes": (GAUGE, "Of the last checkpoint: bytes written for it"),
    "checkpoint_state_bytes": (GAUGE, "Of the last checkpoint: bytes of stored state that it refers to"),
    "unpublished_outboxes": (GAUGE, "Sealed outboxes of sinks that are not shown outside yet"),
}
NODE = {
    "node_rows_in": (COUNTER, "Rows that a node took in"),
    "node_rows_out": (COUNTER, "Rows that a node sent"),
    "node_late_rows": (COUNTER, "Rows that came too late for a node"),
    "node_dead_rows": (COUNTER, "Rows that a node could not decode or compute"),
    "node_busy_seconds": (COUNTER, "Time spent in a node"),
    "source_lag_rows": (GAUGE, "Records that a source has not read yet, where it knows"),
    "state_rows": (GAUGE, "Rows that a node remembers"),
    "state_bytes": (GAUGE, "Bytes that a node's memory takes"),
    "node_matches": (COUNTER, "Pairs that a join has made"),
    "node_expired": (COUNTER, "Rows that a node has forgotten"),
    "node_retractions": (COUNTER, "Rows that a node took back"),
}
JOB = {
    "checkpoints_decided": (COUNTER, "Checkpoints that this coordinator decided"),
    "checkpoint_number": (GAUGE, "Number of the last decided checkpoint within its epoch"),
    "checkpoint_age_seconds": (GAUGE, "Time since a checkpoint was decided"),
    "checkpoint_seconds": (GAUGE, "Of the last checkpoint: from its begin to the decision"),
    "coordinator_epoch": (GAUGE, "The coordinator's epoch: one more with every new coordinator"),
    "partition_restarts": (COUNTER, "Partitions that got a new owner while this coordinator led"),
    "partitions": (GAUGE, "Partitions that tell of themselves"),
    "partitions_wanted": (GAUGE, "Partitions that there are to be"),
    "checkpoint_waits_for": (GAUGE, "Partitions that the checkpoint under way waits for"),
}
PREFIX = "millrace_"
KNOWN = {**PARTITION, **NODE, **JOB}


def reading(name: str, value: float, **labels: str) -> Reading:
    """A figure of ours by its short name."""
    kind, help = KNOWN[name]
    full = PREFIX + name
    return Reading(full, kind, help, full, tuple(labels.items()), value)


def node_names(vertices: list[Vertex]) -> dict[int, str]:
    """A name for each node, by position: its own, with the position where several have the same."""
    found = Counter(vertex.context.name for vertex in vertices)
    return {
        v.position: v.context.name if found[v.context.name] == 1 else f"{v.context.name}#{v.position}"
        for v in vertices
    }


def node_readings(vertices: list[Vertex]) -> Iterator[Reading]:
    """The figures of nodes. May be asked from any thread; what an operator can't tell right now is left out."""
    names = node_names(vertices)
    for vertex in vertices:
        node, metrics = names[vertex.position], vertex.metrics
        yield reading("node_rows_in", metrics.rows_in, node=node)
        yield reading("node_rows_out", metrics.rows_out, node=node)
        yield reading("node_late_rows", metrics.late_rows, node=node)
        yield reading("node_dead_rows", metrics.dead_rows, node=node)
        yield reading("node_busy_seconds", metrics.busy_ns / 1e9, node=node)
        if isinstance(vertex, SourceVertex):
            lag = vertex.lag
            if lag is not None:
                yield reading("source_lag_rows", lag, node=node)
        elif isinstance(vertex, OperatorVertex):
            for name, value in _remembered(vertex):
                yield reading(name, value, node=node)
            for name, count in vertex.counters.copy().items() if isinstance(vertex.counters, dict) else ():
                if f"node_{name}" in NODE:
                    yield reading(f"node_{name}", count, node=node)


def _remembered(vertex: OperatorVertex) -> Iterator[tuple[str, float]]:
    try:
        found = {"state_rows": vertex.operator.state_rows, "state_bytes": vertex.operator.state_bytes}
    except RuntimeError:  # the operator's own thread changes what is counted; the next reading tells
        return
    for name, value in found.items():
        if value is not None:
            yield name, value


def tap_readings(vertices: list[Vertex]) -> Iterator[Reading]:
    """What `@metric` annotations count."""
    for vertex in vertices:
        if isinstance(vertex, OperatorVertex) and isinstance(vertex.operator, MetricTapOperator):
            yield from vertex.operator.readings()


def together(readings: Iterable[Reading]) -> list[Reading]:
    """One reading for each name and labels: counts are added up, of gauges the last one stands."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], Reading] = {}
    for one in readings:
        before = found.get((one.name, one.labels))
        if before is not None and one.kind != GAUGE:
            one = replace(one, value=before.value + one.value)
        found[one.name, one.labels] = one
    return list(found.values())


def watermark_readings(watermark: int, now: float) -> Iterator[Reading]:
    """The watermark (µs) and how far it is behind `now` (s); nothing where there is none."""
    if watermark not in (START_OF_TIME, END_OF_TIME):
        yield reading("watermark_seconds", watermark / 1e6)
        yield reading("watermark_lag_seconds", max(0.0, now - watermark / 1e6))
