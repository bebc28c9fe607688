"""What a database answers with: rows of a query, of its nodes, of its dead letters. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from millrace.catalog_views import text_rows
from millrace.cluster.embedded import EmbeddedRuntime
from millrace.cluster.surroundings import VertexContext, VertexMetrics, wall_clock_us
from millrace.operators.batch import Batch, concatenate
from millrace.operators.materialize import Materialize, Materialized
from millrace.operators.sink import Changelog, SinkSpec
from millrace.operators.source import SourceInput
from millrace.operators.spec import OperatorSpec
from millrace.planner.plan import Node
from millrace.planner.session import PlannedOutput
from millrace.result import Result


def done(text: str) -> Result:
    """The answer of a statement that has no rows."""
    return text_rows(["status"], [(text,)])


def metrics_of(runtime: EmbeddedRuntime) -> Result:
    """One row for each running node. The caller has the runtime's lock."""
    running = [v for v in runtime.dataflow.vertices if v.position not in runtime.dataflow.retired]
    return Result(
        pa.table(
            {
                "node": pa.array([v.position for v in running], pa.int64()),
                "operator": pa.array([_title(v.node.spec) for v in running], pa.string()),
                "name": pa.array([v.node.name for v in running], pa.string()),
                "rows_in": pa.array([v.metrics.rows_in for v in running], pa.int64()),
                "rows_out": pa.array([v.metrics.rows_out for v in running], pa.int64()),
                "late_rows": pa.array([v.metrics.late_rows for v in running], pa.int64()),
                "dead_rows": pa.array([v.metrics.dead_rows for v in running], pa.int64()),
                "busy_ms": pa.array([v.metrics.busy_ns / 1e6 for v in running], pa.float64()),
                "watermark_us": pa.array([v.watermark for v in running], pa.int64()),
            }
        )
    )


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
