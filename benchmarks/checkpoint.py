"""What checkpoints cost: a million keys of which a tenth changes between two, once a second and never, in turns."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from benchmarks.on_ray import cluster_of_our_own
from benchmarks.rates import on_ray

KEYS = 1_000_000
CHANGING = KEYS // 10
RUNS = 3
NEVER_S = 3_600.0
GOALS = {"slowdown": 0.05, "size_ratio": 0.2, "decided_p99_ms": 500}


def script(rows_a_second: float) -> str:
    """All keys come in the first million rows; after that a tenth of them in each `rows_a_second` rows."""
    step = max(1, round(rows_a_second))
    key = f"CASE WHEN id < {KEYS} THEN id ELSE ((id / {step}) * {CHANGING} + (id * 7919) % {CHANGING}) % {KEYS} END"
    return f"""
        CREATE SOURCE s (id BIGINT, v BIGINT) WITH ('connector' = 'datagen', 'splits' = '2',
            'fields.id.kind' = 'sequence', 'fields.v.min' = '0', 'fields.v.max' = '1000');
        CREATE SINK o FROM (SELECT k, count(*) AS n, sum(v) AS s FROM (SELECT {key} AS k, v FROM s) GROUP BY k)
            INTO BLACKHOLE ();
    """


def run(as_json: bool) -> None:
    """Print throughput with and without checkpoints, what an increment weighs, and how long decisions take."""
    row = measured(RUNS)
    if as_json:
        print(json.dumps(row), flush=True)
        return
    print(
        f"checkpoints every second: {row['rows_per_s']:,} rows/s, never: {row['rows_per_s_without']:,} rows/s, "
        f"slower by {row['slowdown']:.1%} (goal {GOALS['slowdown']:.0%})\n"
        f"an increment of about {row['changed']:.0%} of the keys has {row['size_ratio']:.1%} of a whole one's bytes "
        f"(goal {GOALS['size_ratio']:.0%})\n"
        f"barrier to decision: p50 {row['decided_p50_ms']} ms, p99 {row['decided_p99_ms']} ms "
        f"(goal {GOALS['decided_p99_ms']} ms)"
    )


def measured(runs: int) -> dict[str, float]:
    """Medians over `runs` in turns."""
    rates: dict[float, list[float]] = {NEVER_S: [], 1.0: []}
    decisions: list[float] = []
    sizes: list[tuple[int, int]] = []
    with cluster_of_our_own() as (cluster, folder):
        step, _ = on_ray(cluster, folder / "trial", "trial", script(KEYS), 1, NEVER_S)
        for turn in range(runs):
            for interval, found in rates.items():
                job = f"every-{interval:g}-{turn}"
                rate, status = on_ray(cluster, folder / job, job, script(step), 1, interval)
                found.append(rate)
                if interval == 1.0:
                    decisions += status.decisions_s[1:]
                    sizes.append(_sizes(folder / job / "store"))
    without, with_ = (statistics.median(found) for found in rates.values())
    decisions.sort()
    whole, changed = (statistics.median(side) for side in zip(*sizes, strict=True))
    return {
        "rows_per_s": round(with_),
        "rows_per_s_without": round(without),
        "slowdown": round(1 - with_ / without, 3),
        "changed": CHANGING / KEYS,
        "size_ratio": round(changed / whole, 3),
        "decided_p50_ms": round(statistics.median(decisions) * 1000),
        "decided_p99_ms": round(decisions[int(len(decisions) * 0.99)] * 1000),
    }


def _sizes(store: Path) -> tuple[int, int]:
    """Bytes of the largest whole table in a store, and of a middling increment."""
    whole = [path.stat().st_size for path in store.rglob("*-whole")]
    changed = sorted(path.stat().st_size for path in store.rglob("*-changed"))
    return max(whole), changed[len(changed) // 2] if changed else 0
