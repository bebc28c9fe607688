"""A soak: ever-new keys at full speed through windows, sessions and row buffers; memory must stay flat."""

from __future__ import annotations

import gc
import json
import os
import time
from pathlib import Path

from millrace.cluster.dataflow import Dataflow
from millrace.planner.session import Planner

SECONDS = 600.0
WARM_SHARE = 0.2
FLAT = 0.10
SCRIPT = """
    CREATE SOURCE events (id BIGINT, price BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts)
    WITH ('connector' = 'datagen', 'fields.id.kind' = 'sequence', 'fields.price.min' = '1',
          'fields.price.max' = '1000', 'fields.ts.kind' = 'time', 'fields.ts.step' = '1ms');
    CREATE STREAM keyed AS SELECT CAST(id / 3 AS STRING) AS key, price, ts FROM events;
    CREATE SINK tumbled FROM (
      SELECT key, window_start, count(*) AS n, sum(price) AS total, count(DISTINCT price) AS prices
      FROM TABLE(TUMBLE(TABLE keyed, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY key, window_start, window_end
    ) INTO BLACKHOLE ();
    CREATE SINK hopped FROM (
      SELECT key, window_start, max(price) AS top
      FROM TABLE(HOP(TABLE keyed, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '20' SECOND))
      GROUP BY key, window_start, window_end
    ) INTO BLACKHOLE ();
    CREATE SINK visited FROM (
      SELECT key, window_start, count(*) AS n
      FROM TABLE(SESSION(TABLE keyed PARTITION BY key, DESCRIPTOR(ts), INTERVAL '5' SECOND))
      GROUP BY key, window_start, window_end
    ) INTO BLACKHOLE ();
"""


def resident_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def soak(seconds: float, script: str = SCRIPT) -> dict[str, float]:
    """Run for `seconds`; answers rows, and resident MB after the warm-up, at the peak after it, and at the end."""
    plan, _ = Planner().compile(script)
    dataflow = Dataflow()
    dataflow.extend(plan)
    begun = time.monotonic()
    rows = 0
    samples: list[float] = []
    while (elapsed := time.monotonic() - begun) < seconds:
        rows += dataflow.poll()
        if elapsed > seconds * WARM_SHARE and len(samples) < (elapsed / seconds - WARM_SHARE) * 100:
            gc.collect()
            samples.append(resident_mb())
    dataflow.close()
    tenth = max(1, len(samples) // 10)
    early, late = sum(samples[:tenth]) / tenth, sum(samples[-tenth:]) / tenth
    return {
        "rows": rows,
        "early_mb": early,
        "late_mb": late,
        "peak_mb": max(samples),
        "growth": late / early - 1,
    }


def run(as_json: bool, seconds: float = SECONDS, name: str = "soak", script: str = SCRIPT) -> None:
    """Print what was found; fails where memory grew."""
    found = soak(seconds, script)
    if as_json:
        print(
            json.dumps({"benchmark": name, "seconds": seconds, **{k: round(v, 3) for k, v in found.items()}})
        )
    else:
        print(
            f"{name} {seconds:.0f} s: {found['rows']:,.0f} rows, {found['early_mb']:.0f} MB after warm-up, "
            f"{found['late_mb']:.0f} MB at the end ({found['growth']:+.1%}), peak {found['peak_mb']:.0f} MB"
        )
    if abs(found["growth"]) > FLAT:
        raise SystemExit(f"memory moved by {found['growth']:+.1%}; {FLAT:.0%} is allowed")
