"""Two partitions against one on Ray, without an exchange and with one, in turns."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator

from benchmarks.on_ray import cluster_of_our_own
from benchmarks.rates import bids, on_ray

RUNS = 3
QUERIES = {
    "stateless": (
        "SELECT auction, bidder, upper(channel) AS channel, 0.908 * price AS price FROM bid WHERE price % 7 <> 3",
        1.8,
    ),
    "exchange": (
        "SELECT bidder, count(*) AS n, sum(price) AS s, max(price) AS m FROM bid GROUP BY bidder",
        1.5,
    ),
}


def run(as_json: bool) -> None:
    """Print the rates and their ratio."""
    for row in measured(RUNS):
        print(json.dumps(row) if as_json else _line(row), flush=True)


def measured(runs: int) -> Iterator[dict[str, object]]:
    """One row a query."""
    with cluster_of_our_own() as (cluster, folder):
        for name, (query, goal) in QUERIES.items():
            rates: dict[int, list[float]] = {1: [], 2: []}
            for turn in range(runs):
                for partitions, found in rates.items():
                    job = f"{name}-{partitions}-{turn}"
                    found.append(on_ray(cluster, folder / job, job, bids(query), partitions)[0])
            one, two = (statistics.median(found) for found in rates.values())
            spread = max(max(found) / min(found) - 1 for found in rates.values())
            yield {
                "benchmark": f"scaling_{name}",
                "one_partition_rows_per_s": round(one),
                "two_partitions_rows_per_s": round(two),
                "ratio": round(two / one, 2),
                "goal": goal,
                "spread": round(spread, 2),
            }


def _line(row: dict[str, object]) -> str:
    return (
        f"{row['benchmark']:<20} 1 partition {row['one_partition_rows_per_s']:>12,} rows/s   "
        f"2 partitions {row['two_partitions_rows_per_s']:>12,} rows/s   ratio {row['ratio']} "
        f"(goal {row['goal']}, spread {row['spread']:.0%})"
    )
