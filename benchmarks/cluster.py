"""The runtime on Ray beside the embedded one, the exchange beside bare Flight, and the latency of a paced job."""

from __future__ import annotations

import json
import statistics

from benchmarks import exchange_rate
from benchmarks.exchange_latency import latencies_ms
from benchmarks.on_ray import cluster_of_our_own
from benchmarks.rates import bids, embedded, on_ray

RUNS = 3
QUERY = "SELECT bidder, count(*) AS n, sum(price) AS s, max(price) AS m FROM bid GROUP BY bidder"
GOALS = {"ray_to_embedded": 0.95, "exchange_gb_per_s": 1.0, "exchange_to_flight": 0.7, "latency_p99_ms": 50}


def run(as_json: bool) -> None:
    """Print the figures with their goals."""
    figures: dict[str, float] = {}
    rates = [exchange_rate.measured() for _ in range(RUNS)]
    figures["exchange_gb_per_s"] = round(statistics.median(r["exchange"] for r in rates), 2)
    figures["flight_gb_per_s"] = round(statistics.median(r["flight"] for r in rates), 2)
    figures["exchange_to_flight"] = round(figures["exchange_gb_per_s"] / figures["flight_gb_per_s"], 2)
    took = sorted(latencies_ms())
    figures["latency_p50_ms"] = round(statistics.median(took), 1)
    figures["latency_p99_ms"] = round(took[int(len(took) * 0.99)], 1)
    ours, theirs = [], []
    with cluster_of_our_own() as (cluster, folder):
        for turn in range(RUNS):
            theirs.append(embedded(bids(QUERY)))
            ours.append(on_ray(cluster, folder / str(turn), f"one-{turn}", bids(QUERY), 1)[0])
    figures["embedded_rows_per_s"] = round(statistics.median(theirs))
    figures["ray_rows_per_s"] = round(statistics.median(ours))
    figures["ray_to_embedded"] = round(statistics.median(ours) / statistics.median(theirs), 2)
    if as_json:
        print(json.dumps({"benchmark": "cluster", **figures, "goals": GOALS}), flush=True)
        return
    for name, figure in figures.items():
        print(f"{name:<22} {figure:>14,}" + (f"  (goal {GOALS[name]})" if name in GOALS else ""), flush=True)
