"""How long a row takes from when it is due to the sink, at a given rate, through an exchange of two partitions."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa

from benchmarks.in_threads import ThreadProcesses
from millrace.cluster.coordination import CoordinatorDriver
from millrace.cluster.job import JobSpec, for_sinks
from millrace.operators.batch import Batch
from millrace.operators.operator import Context
from millrace.operators.sink import Changelog, Commit, Sink, SinkSpec
from millrace.planner.session import Planner
from millrace.state.store import open_store

RATE = 50_000
SECONDS = 10.0
WARM_S = 4.0
_TAKEN: list[tuple[float, Batch]] = []


@dataclass(frozen=True, slots=True)
class Stopwatch(SinkSpec):
    """Notes when rows come."""

    title: ClassVar[str] = "stopwatch"
    commit: ClassVar[Commit] = Commit.NONE
    changelogs: ClassVar[frozenset[Changelog]] = frozenset(Changelog)
    schema: pa.Schema

    @property
    def input_schema(self) -> pa.Schema:
        return self.schema

    def build(self, context: Context, partition: int) -> Sink:
        return _Noting()


class _Noting(Sink):
    def write(self, batch: Batch) -> None:
        _TAKEN.append((time.time(), batch))


def latencies_ms() -> list[float]:
    """Of each row after the first seconds. Checkpoints are taken every second, rows are shown as they come."""
    _TAKEN.clear()
    sql = f"""
        CREATE SOURCE s (id BIGINT, v BIGINT) WITH ('connector' = 'datagen', 'rate' = '{RATE}', 'splits' = '2',
            'fields.id.kind' = 'sequence', 'fields.v.min' = '0', 'fields.v.max' = '1000');
        CREATE SINK o FROM (SELECT v, max(id) AS id FROM s GROUP BY v) INTO BLACKHOLE ();
    """
    plan, _ = Planner().compile(sql)
    nodes = tuple(
        replace(n, spec=Stopwatch(n.spec.input_schema)) if isinstance(n.spec, SinkSpec) else n
        for n in plan.nodes
    )
    job = JobSpec("latency", for_sinks(replace(plan, nodes=nodes)), partitions=2, guarantee="at_least_once")
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"file://{folder}")
        processes = ThreadProcesses(job, store)
        driver = CoordinatorDriver(job, f"bench-{random.random()}", store, processes.ledger(), processes)
        processes.coordinator = driver
        leading = threading.Thread(target=driver.run, daemon=True)
        leading.start()
        while not _TAKEN:
            time.sleep(0.05)
            assert driver.ended is None, driver.ended
        time.sleep(WARM_S)
        warm = time.time()
        time.sleep(SECONDS)
        driver.stop("measured")
        leading.join(30)
    assert not driver.broken, driver.ended
    # Row `id` is due at start + id / rate; the start is found as the least difference: the quickest row took no time.
    came, ids = [], []
    for at, batch in _TAKEN:
        new = np.ones(batch.num_rows, bool) if batch.weights is None else batch.weights > 0
        column = np.asarray(batch.data.column("id"))[new]
        came.append(np.full(len(column), at))
        ids.append(column)
    late = np.concatenate(came) - np.concatenate(ids) / RATE
    late = (late - late.min()) * 1000
    kept = np.concatenate(came) > warm
    return [float(value) for value in late[kept]]
