"""The two engines that are compared: ours and DuckDB on one thread, over the same Arrow batches."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from benchmarks.data import declared_side_input, event_time, read_side_input, table
from benchmarks.queries import Query
from millrace.cluster.dataflow import Dataflow
from millrace.database import Database
from millrace.operators.connectors.arrow import register
from millrace.planner.session import Planner

WARM_BATCHES = 3


@dataclass(frozen=True, slots=True)
class Timing:
    """One run: seconds on the clock and of CPU, and the process's greatest resident size so far in MB."""

    wall_s: float
    cpu_s: float
    peak_rss_mb: float


class Millrace:
    """Runs a query from Arrow batches to `blackhole`, on one thread; planning and compiling is not timed."""

    def __init__(self, query: Query, events: int) -> None:
        self._query = query
        self._sources = {
            name: (register(table(name, events)), register(table(name, events)[:WARM_BATCHES]))
            for name in query.tables
        }
        self.rows = sum(batch.num_rows for name in query.tables for batch in table(name, events))
        self._run(warm=True)

    def run(self) -> Timing:
        """One timed run."""
        return self._run(warm=False)

    def result(self) -> pa.Table:
        """The final result."""
        with Database() as database:
            database.execute(self._declarations(warm=False))
            return database.query(self._query.stream).arrow

    def _run(self, *, warm: bool) -> Timing:
        script = f"{self._declarations(warm=warm)};CREATE SINK benchmark FROM ({self._query.stream}) INTO BLACKHOLE ()"
        plan, _ = Planner().compile(script)
        dataflow = Dataflow()
        dataflow.extend(plan)
        wall, cpu = time.perf_counter(), time.process_time()
        while not dataflow.ended:
            dataflow.poll()
        dataflow.publish(1)
        timing = _timing(wall, cpu)
        dataflow.close()
        return timing

    def _declarations(self, *, warm: bool) -> str:
        statements = [declared_side_input()] if self._query.side_input else []
        for name, tokens in self._sources.items():
            time_column = event_time(name)
            watermark = f"(WATERMARK FOR {time_column})" if time_column else ""
            statements.append(
                f"CREATE SOURCE {name} {watermark} WITH ('connector' = 'arrow', 'token' = '{tokens[warm]}')"
            )
        return ";".join(statements)


class DuckDB:
    """Runs a query in one shot over the same batches, its result streamed as Arrow batches and dropped."""

    def __init__(self, query: Query, events: int) -> None:
        self._query = query
        self._connection = duckdb.connect()
        self._connection.execute("SET threads = 1; SET TimeZone = 'UTC'")
        if query.side_input:
            self._connection.execute(read_side_input())
        for name in query.tables:
            self._connection.register(name, pa.Table.from_batches(table(name, events)))
        self.run()

    def run(self) -> Timing:
        """One timed run."""
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in self._connection.sql(self._query.batch).to_arrow_reader(65_536):
            pass
        return _timing(wall, cpu)

    def result(self) -> pa.Table:
        """The final result."""
        return self._connection.sql(self._query.batch).to_arrow_table()


ENGINES = {"millrace": Millrace, "duckdb": DuckDB}


def _timing(wall: float, cpu: float) -> Timing:
    return Timing(time.perf_counter() - wall, time.process_time() - cpu, peak_rss_mb())


def peak_rss_mb() -> float:
    """The greatest resident size of this process: `ru_maxrss` would start from the parent's."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
