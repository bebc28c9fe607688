"""What a database answers with: rows of a query, of its nodes, of its dead letters. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from millrace.catalog_views import text_rows
from millrace.cluster.embedded import EmbeddedRuntime
from millrace.cluster.figures import tap_readings, together
from millrace.cluster.surroundings import VertexContext, VertexMetrics, wall_clock_us
from millrace.cluster.vertex import OperatorVertex, Vertex
from millrace.errors import Invalid
from millrace.operators.batch import Batch, concatenate
from millrace.operators.materialize import Materialize, Materialized
from millrace.operators.sink import Changelog, SinkSpec
from millrace.operators.source import SourceInput
from millrace.operators.spec import OperatorSpec
from millrace.planner.plan import Node, OutputKind
from millrace.planner.session import PlannedOutput, PlannedStatement
from millrace.planner.statements import Drop
from millrace.result import Result


def done(text: str) -> Result:
    """The answer of a statement that has no rows."""
    return text_rows(["status"], [(text,)])


def effect_of(planned: PlannedStatement) -> str:
    """What a statement without rows has done, in words."""
    if planned.changes:
        return "; ".join(f"{c.kind.value} {c.entry.kind.value} {c.entry.name}" for c in planned.changes)
    written = [o.name for o in planned.outputs if o.kind is OutputKind.SINK]
    if written:
        return f"writing into {', '.join(written)}"
    word = "there is nothing to drop" if isinstance(planned.statement, Drop) else "it is there already"
    return f"nothing to do: {word}"


def check_ends(nodes: Sequence[Node]) -> None:
    """Refuse an answer that would wait for a source without end. Raises Invalid MR1503."""
    for node in nodes:
        if isinstance(node.spec, SourceInput) and not node.spec.source.bounded:
            raise Invalid(
                f"source {node.name} never ends, so this query would never answer",
                code="MR1503",
                hint="subscribe to the query, or keep it as a table: CREATE TABLE t AS SELECT …",
            )


def measures_of(ran: Sequence[Vertex]) -> dict[int, dict[str, float]]:
    """What nodes did, by position, as `explain_text` shows it."""
    return {
        v.position: {
            "rows_in": v.metrics.rows_in,
            "rows_out": v.metrics.rows_out,
            "late_rows": v.metrics.late_rows,
            "dead_rows": v.metrics.dead_rows,
            "busy_ms": v.metrics.busy_ns / 1e6,
        }
        for v in ran
    }


def metrics_of(runtime: EmbeddedRuntime) -> Result:
    """One row for each running node. The caller has the runtime's lock."""
    running = [v for v in runtime.dataflow.vertices if v.position not in runtime.dataflow.retired]
    return Result(
        pa.table(
            {
                "node": pa.array([v.position for v in running], pa.int64()),
                "operator": pa.array([_title(v.node.spec) for v in running], pa.string()),
                "name": pa.array([v.node.name or v.context.name for v in running], pa.string()),
                "rows_in": pa.array([v.metrics.rows_in for v in running], pa.int64()),
                "rows_out": pa.array([v.metrics.rows_out for v in running], pa.int64()),
                "late_rows": pa.array([v.metrics.late_rows for v in running], pa.int64()),
                "dead_rows": pa.array([v.metrics.dead_rows for v in running], pa.int64()),
                "busy_ms": pa.array([v.metrics.busy_ns / 1e6 for v in running], pa.float64()),
                "watermark_us": pa.array([v.watermark for v in running], pa.int64()),
                "state_rows": pa.array([_state(v)[0] for v in running], pa.int64()),
                "state_bytes": pa.array([_state(v)[1] for v in running], pa.int64()),
                **{
                    name: pa.array([_counted(v, name) for v in running], pa.int64())
                    for name in ("matches", "expired", "retractions")
                },
            }
        )
    )


def custom_metrics_of(runtime: EmbeddedRuntime) -> Result:
    """One row for each sample of the metrics that annotations declare; equal ones of several queries are summed up."""
    with runtime.lock:
        running = [v for v in runtime.dataflow.vertices if v.position not in runtime.dataflow.retired]
        found = together(tap_readings(running))
    labels = pa.map_(pa.string(), pa.string())
    return Result(
        pa.table(
            {
                "metric": pa.array([r.family for r in found], pa.string()),
                "type": pa.array([r.kind for r in found], pa.string()),
                "sample": pa.array([r.name for r in found], pa.string()),
                "labels": pa.array([list(r.labels) for r in found], labels),
                "value": pa.array([r.value for r in found], pa.float64()),
                "help": pa.array([r.help for r in found], pa.string()),
            }
        )
    )


def _state(vertex: Vertex) -> tuple[int | None, int | None]:
    """Rows and bytes that a node remembers, where it can tell."""
    if not isinstance(vertex, OperatorVertex):
        return None, None
    return vertex.operator.state_rows, vertex.operator.state_bytes


def _counted(vertex: Vertex, name: str) -> int | None:
    return vertex.counters.get(name) if isinstance(vertex, OperatorVertex) else None


def table_of(runtime: EmbeddedRuntime, name: str) -> pa.Table:
    """All rows that the table of this name holds. The caller has the runtime's lock."""
    nodes = [o.node for o in runtime.plan.outputs if o.kind is OutputKind.TABLE and o.name == name]
    vertex = runtime.dataflow.vertices[nodes[-1]]
    assert isinstance(vertex, OperatorVertex) and isinstance(vertex.operator, Materialized)
    return vertex.operator.snapshot()


def dead_letters_of(runtime: EmbeddedRuntime) -> Result:
    """The records that are remembered of each node. The caller has the runtime's lock."""
    kept = [(v.context.name, record) for v in runtime.dataflow.vertices for record in v.metrics.examples]
    kept.extend(runtime.answered.examples)
    return Result(
        pa.table(
            {
                "node": pa.array([name for name, _ in kept], pa.string()),
                "code": pa.array([r.code for _, r in kept], pa.string()),
                "reason": pa.array([r.reason for _, r in kept], pa.string()),
                "split": pa.array([r.split for _, r in kept], pa.string()),
                "position": pa.array([r.position for _, r in kept], pa.string()),
                "payload": pa.array([r.payload for _, r in kept], pa.binary()),
            }
        )
    )


def _title(spec: SourceInput | OperatorSpec | SinkSpec) -> str:
    return f"source {spec.source.title}" if isinstance(spec, SourceInput) else spec.title


def folded(batches: Sequence[Batch], node: Node) -> pa.Table:
    """What a changelog amounts to: its rows after all insertions and retractions."""
    whole = concatenate(list(batches), node.schema)
    if node.changelog is Changelog.APPEND:
        return pa.Table.from_batches([whole.data], node.schema)
    table = Materialize(node.schema, node.key, node.changelog).build(
        VertexContext("result", 1, wall_clock_us, VertexMetrics(), False)
    )
    assert isinstance(table, Materialized)
    table.process(0, whole)
    return table.snapshot()


def arranged(table: pa.Table, output: PlannedOutput) -> pa.Table:
    """The rows of a select in the order and number it asks for."""
    if output.order:
        keys = [
            (
                str(key.column),
                "descending" if key.descending else "ascending",
                "at_start" if key.nulls_first else "at_end",
            )
            for key in output.order
        ]
        numbered = table.rename_columns([str(i) for i in range(table.num_columns)])
        table = table.take(pc.sort_indices(numbered, sort_keys=keys))
    if output.offset or output.limit is not None:
        table = table.slice(output.offset, output.limit)
    return table.select(range(table.num_columns - output.hidden)) if output.hidden else table
