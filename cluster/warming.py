"""Loads what a job's operators need before there is anything for them to do. Keeps nothing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from millrace.cluster.job import JobSpec
from millrace.cluster.surroundings import VertexContext, VertexMetrics, wall_clock_us
from millrace.operators.batch import END_OF_TIME, Batch
from millrace.operators.calc import Calc
from millrace.operators.sink import SinkSpec
from millrace.operators.source import SourceInput
from millrace.planner.plan import Node, Plan
from millrace.planner.user_functions import called_functions

ROWS = 2


def warm_up(job: JobSpec) -> None:
    """Import the modules of the job's operators and load their compiled kernels from the disk.

    Each operator is given a few made-up rows and is thrown away. Sources and sinks are not built, since they open
    connections; nor is what calls functions of users, who need not see rows that never were.
    """
    own = {function.name for function in job.functions}
    for node in job.plan.nodes:
        if not isinstance(node.spec, SourceInput | SinkSpec | Calc) and own.isdisjoint(
            called_functions(node.spec)
        ):
            try:
                _run(job, node, job.plan)
            except Exception:  # noqa: BLE001, S112  # made-up rows may not fit; what is really wrong is told by real ones
                continue


def _run(job: JobSpec, node: Node, plan: Plan) -> None:
    assert not isinstance(node.spec, SourceInput | SinkSpec)
    context = VertexContext("warming", job.vnodes, wall_clock_us, VertexMetrics(), False)
    operator = node.spec.build(context)
    try:
        for port, below in enumerate(node.inputs):
            for made in (_zero, pa.nulls):
                schema = plan.nodes[below].schema
                arrays = [made(ROWS, field.type) for field in schema]
                rows = pa.RecordBatch.from_arrays(arrays, names=schema.names)
                operator.process(
                    port, Batch(pa.RecordBatch.from_arrays(rows.columns, schema=_nullable(schema)))
                )
                operator.capture(changes=True)
        whole = operator.capture(changes=False)
        operator.on_watermark(END_OF_TIME)
        again = node.spec.build(context)
        again.restore({name: delta.rows for name, delta in whole.items()})
        again.close()
    finally:
        operator.close()


def _zero(rows: int, kind: pa.DataType) -> pa.Array:
    """Zeros, or empty texts, of a type; NULLs where it has neither."""
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return pa.array([""] * rows).cast(kind)
    if pa.types.is_boolean(kind):
        return pa.array([False] * rows)
    if pa.types.is_primitive(kind) or pa.types.is_decimal(kind):
        width = kind.bit_width // 8
        return pa.Array.from_buffers(
            kind, rows, [None, pa.py_buffer(np.zeros(rows * width, np.uint8).tobytes())]
        )
    return pa.nulls(rows, kind)


def _nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in schema])
