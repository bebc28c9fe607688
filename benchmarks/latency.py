"""Latency of a one-row push to its subscriber, through a filter and a projection."""

from __future__ import annotations

import json
import statistics
import time

from millrace.database import connect

PUSHES = 5_000
WARM = 500
LIMITS_US = {"p50": 500, "p99": 2_000}


def run(as_json: bool) -> None:
    """Print p50 and p99 in µs, with the limits that hold."""
    took: list[float] = []
    with connect() as db:
        db.execute(
            "CREATE SOURCE ticks (symbol STRING, price DOUBLE, size BIGINT) WITH ('connector' = 'push')"
        )
        rows = db.subscribe("SELECT symbol, price * size AS value FROM ticks WHERE size > 0", "rows")
        for number in range(PUSHES + WARM):
            begun = time.perf_counter_ns()
            db.push("ticks", {"symbol": "ABC", "price": 1.5, "size": number + 1})
            row = rows.poll(timeout=1)
            took.append((time.perf_counter_ns() - begun) / 1_000)
            assert row == {"symbol": "ABC", "value": 1.5 * (number + 1)}
    kept = sorted(took[WARM:])
    figures = {"p50": statistics.median(kept), "p99": kept[int(len(kept) * 0.99)]}
    if as_json:
        print(json.dumps({"benchmark": "push_to_subscriber", **{k: round(v, 1) for k, v in figures.items()}}))
        return
    for name, value in figures.items():
        print(f"push to subscriber {name}: {value:,.0f} µs (limit {LIMITS_US[name]:,} µs)")
