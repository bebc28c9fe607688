"""`python -m benchmarks nexmark --queries q0,q5 --events 2000000 --json`: figures beside DuckDB on one thread."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.cep import CEP
from benchmarks.comparison import difference
from benchmarks.queries import NEXMARK, NEXMARK_JOINS, NEXMARK_SIDE_INPUTS, ONE_BRC, SCENARIOS, Query

GROUPS = {
    "nexmark": [*NEXMARK, *NEXMARK_JOINS, *NEXMARK_SIDE_INPUTS],
    "cep": CEP,
    "scenarios": SCENARIOS,
    "onebrc": [ONE_BRC],
}
DEFAULT_EVENTS = {"nexmark": 2_000_000, "cep": 2_000_000, "scenarios": 5_000_000, "onebrc": 10_000_000}
FLOORS = {
    "q0": (1.0, 3), "q1": (0.7, 1.5), "q2": (0.5, 1), "q3": (0.2, 0.5), "q4": (0.2, 0.5), "q5": (1.5, 3),
    "q5_join": (1.5, 3), "q7": (0.25, 0.7), "q8": (0.4, 1), "q9": (0.7, 2), "q11": (3, 8), "q15": (1.5, 4),
    "q16": (1.5, 4), "q17": (0.7, 1.5), "q18": (0.6, 1.5), "q19": (0.5, 1.5), "q20": (0.25, 0.7), "q21": (0.8, 2),
    "q22": (0.6, 1.5), "rows_window": (4, 10), "group_by_100": (0.6, 1),
    "group_by_10k": (0.8, 1.3), "group_by_1m": (1.2, 2.5), "tumble_100": (0.8, 1.5), "tumble_10k": (0.8, 1.5),
}  # fmt: skip
"""Ratio to DuckDB that must hold, and the one we are after, where one is set."""


@dataclass(slots=True)
class Worker:
    """An engine in its own process, asked line by line."""

    process: subprocess.Popen[str]

    def ask(self, command: str) -> dict[str, Any]:
        """Send one command and read its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.read()

    def read(self) -> dict[str, Any]:
        """One answer; stops the benchmark where the engine failed."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"benchmark worker {self.process.args} failed with {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def start(stack: ExitStack, engine: str, query: str, events: int) -> Worker:
    """A worker, ended with the stack."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.worker", engine, query, str(events)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    stack.callback(process.kill)
    return Worker(process)


def measure(query: Query, events: int, runs: int) -> Iterator[dict[str, object]]:
    """One row an engine: medians over `runs`, in turns, after the results were found equal."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = {engine: start(stack, engine, query.name, events) for engine in ("millrace", "duckdb")}
        hello = {engine: worker.read() for engine, worker in workers.items()}
        rows = hello["millrace"]["rows"]
        timings: dict[str, list[dict[str, Any]]] = {engine: [] for engine in workers}
        for _ in range(runs):
            for engine, worker in workers.items():
                timings[engine].append(worker.ask("run"))
        for engine, worker in workers.items():
            worker.ask(f"result {folder / engine}")
        ours, theirs = (pq.read_table(folder / engine) for engine in ("millrace", "duckdb"))
        wrong = difference(ours, theirs, query.compare)
        if wrong:
            yield {"query": query.name, "equal": False, "difference": wrong}
            return
        walls = {e: statistics.median(t["wall_s"] for t in ts) for e, ts in timings.items()}
        for engine, ts in timings.items():
            spread = max(t["wall_s"] for t in ts) / min(t["wall_s"] for t in ts) - 1
            yield {
                "query": query.name,
                "engine": engine,
                "events": rows,
                "wall_s": round(walls[engine], 4),
                "cpu_s": round(statistics.median(t["cpu_s"] for t in ts), 4),
                "events_per_s": round(rows / walls[engine]),
                "peak_rss_mb": round(max(t["peak_rss_mb"] for t in ts)),
                "spread": round(spread, 3),
                "ratio": round(walls["duckdb"] / walls[engine], 3),
                "equal": True,
                "versions": hello[engine]["version"],
                "machine": f"{platform.machine()} {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
            }


def show(rows: Iterator[dict[str, object]], *, as_json: bool) -> bool:
    """Print rows as they come; answers whether all results were equal."""
    good = True
    for row in rows:
        if as_json:
            print(json.dumps(row), flush=True)
        elif not row["equal"]:
            print(f"{row['query']:<20} NOT EQUAL: {row['difference']}", flush=True)
        else:
            print(_line(row), flush=True)
        good = good and bool(row["equal"])
    return good


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "group",
        choices=[
            *GROUPS,
            "keyindex",
            "latency",
            "joins",
            "soak",
            "soak_joins",
            "kafka",
            "recovery",
            "checkpoint",
            "scaling",
            "cluster",
            "all",
        ],
    )
    parser.add_argument("--queries", help="comma-separated names; all of the group without")
    parser.add_argument("--events", type=int, help="input events")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each engine (3 at least)")
    parser.add_argument("--against", choices=["duckdb"], default="duckdb")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    arguments = parser.parse_args()
    groups = [*GROUPS, "keyindex", "latency"] if arguments.group == "all" else [arguments.group]
    good = True
    for group in groups:
        if group not in GROUPS:
            run: Callable[[bool], None] = importlib.import_module(f"benchmarks.{group}").run
            run(arguments.json)
            continue
        wanted = None if arguments.queries is None else set(arguments.queries.split(","))
        chosen = [q for q in GROUPS[group] if wanted is None or q.name in wanted]
        if not arguments.json:
            print(HEADER)
        for query in chosen:
            rows = measure(query, arguments.events or DEFAULT_EVENTS[group], max(3, arguments.runs))
            good = show(rows, as_json=arguments.json) and good
    raise SystemExit(0 if good else 1)


HEADER = f"{'query':<20} {'engine':<9} {'events/s':>13} {'wall s':>8} {'cpu s':>8} {'peak MB':>8} {'spread':>7}  ratio (floor, goal)"


def _line(row: dict[str, object]) -> str:
    text = (
        f"{row['query']:<20} {row['engine']:<9} {row['events_per_s']:>13,} {row['wall_s']:>8} {row['cpu_s']:>8} "
        f"{row['peak_rss_mb']:>8} {row['spread']:>7.0%}"
    )
    if row["engine"] != "millrace":
        return text
    floor = FLOORS.get(str(row["query"]))
    return f"{text}  {row['ratio']:.2f}" + (f" ({floor[0]}, {floor[1]})" if floor else "")


if __name__ == "__main__":
    main()
