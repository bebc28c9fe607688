"""Joins by what they must hold: small changes against much state, hot keys, and memory a row.

`python -m benchmarks joins`: 1,000 new rows against 10 M rows of state (p50, p99 and the slowest call), one key with
30 % of the rows beside uniform keys at an equal number of matches, and the bytes kept for each row.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from benchmarks.soak import resident_mb
from millrace.operators.batch import Batch
from millrace.operators.joins.interval import IntervalJoin
from millrace.operators.joins.regular_spec import JoinKind, RegularJoin
from millrace.operators.operator import Operator

STATE_ROWS = 10_000_000
CALL_ROWS = 1_000
CALLS = 1_000
LIMIT_MS = 5.0
BYTES_A_ROW = 88
HOT_ROWS = 1_000_000
HOT_SHARE = 0.3
HOT_AT_MOST = 2.0
BATCH_ROWS = 65_536
RUNS = 5
SCHEMA = pa.schema([("k", pa.int64()), ("v", pa.int64())])
TIMED = pa.schema([("k", pa.int64()), ("ts", pa.timestamp("ms"))])


class Surroundings:
    """What an operator asks for, and nothing of it is needed."""

    vnodes = 256

    def now(self) -> int:
        """The beginning of time."""
        return 0

    def late(self, batch: Batch) -> None:
        """No row is late."""
        raise AssertionError

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        """Every row computes."""
        raise AssertionError(reason)


def regular() -> Operator:
    """An inner join by one key, both sides append-only."""
    spec = RegularJoin(SCHEMA, SCHEMA, JoinKind.INNER, (0,), (0,), (False,), None, (0, 1, 3), ("k", "v", "w"))
    return spec.build(Surroundings())


def interval() -> Operator:
    """An inner join by one key, right rows up to a minute after left ones."""
    return IntervalJoin(TIMED, TIMED, "inner", ((0, 0),), (1, 1), 0, 60_000_000, (0, 1, 3)).build(
        Surroundings()
    )


def rows(keys: np.ndarray, schema: pa.Schema = SCHEMA) -> Batch:
    """Rows with these keys, numbered."""
    numbers = pa.array(np.arange(len(keys))).cast(schema.field(1).type)
    return Batch(pa.RecordBatch.from_arrays([pa.array(keys), numbers], schema=schema))


def scrambled(first: int, end: int) -> np.ndarray:
    """Distinct keys in no order."""
    return np.arange(first, end) * 2_654_435_761 % (1 << 40)


def incremental() -> dict[str, object]:
    """1,000 rows a call, in turns matches for old rows and rows of new keys; ms on the clock and of this thread's CPU."""
    join = regular()
    for port in (0, 1):  # warms the kernels
        for _ in join.process(port, rows(np.arange(-CALL_ROWS, 0))):
            pass
    gc.collect()
    before = resident_mb()
    for first in range(0, STATE_ROWS, BATCH_ROWS):
        for _ in join.process(0, rows(scrambled(first, min(first + BATCH_ROWS, STATE_ROWS)))):
            pass
    gc.collect()
    resident = (resident_mb() - before) * 2**20 / STATE_ROWS
    kept = join.state_bytes / join.state_rows  # type: ignore[attr-defined]
    wall, cpu = [], []
    for call in range(CALLS):
        first = call * CALL_ROWS
        old = rows(
            scrambled(first * 7 % (STATE_ROWS - CALL_ROWS), first * 7 % (STATE_ROWS - CALL_ROWS) + CALL_ROWS)
        )
        new = rows(scrambled(STATE_ROWS + first, STATE_ROWS + first + CALL_ROWS))
        for port, batch in ((1, old), (0, new)):
            begun, used = time.perf_counter(), time.thread_time()
            for _ in join.process(port, batch):
                pass
            cpu.append((time.thread_time() - used) * 1e3)
            wall.append((time.perf_counter() - begun) * 1e3)
    shown = {
        f"{name}_{label}_ms": round(float(value), 3)
        for name, times in (("wall", wall), ("cpu", cpu))
        for label, value in (
            ("p50", np.percentile(times, 50)),
            ("p99", np.percentile(times, 99)),
            ("max", max(times)),
        )
    }
    return {"benchmark": "incremental", "state_rows": STATE_ROWS, "call_rows": CALL_ROWS, "calls": 2 * CALLS, **shown,
            "limit_ms": LIMIT_MS, "state_bytes_a_row": round(kept, 1), "resident_bytes_a_row": round(resident, 1),
            "limit_bytes_a_row": BYTES_A_ROW}  # fmt: skip


def hot_keys() -> Iterator[dict[str, object]]:
    """One key with 30 % of the rows of one side beside uniform keys; the other side so that there are as many matches."""
    rng = np.random.default_rng(7)
    hot = int(HOT_ROWS * HOT_SHARE)
    skewed = np.concatenate([np.zeros(hot, np.int64), np.arange(1, HOT_ROWS - hot + 1)])
    uniform = np.arange(HOT_ROWS)
    # The hot key is asked for ten times, each other key once; of the uniform ones, four keys are asked for by each row.
    asking_skewed = np.concatenate([np.zeros(10, np.int64), np.arange(1, HOT_ROWS - hot + 1)])
    matches = 10 * hot + HOT_ROWS - hot
    asking_uniform = np.arange(matches) % HOT_ROWS
    for name, make, schema in (("regular", regular, SCHEMA), ("interval", interval, TIMED)):
        best = {}
        found = {}
        for _ in range(RUNS):
            for case, held, asking in (("uniform", uniform, asking_uniform), ("hot", skewed, asking_skewed)):
                join = make()
                seconds, pairs = _run(join, rng.permutation(held), rng.permutation(asking), schema)
                best[case] = min(best.get(case, seconds), seconds)
                found[case] = pairs
        yield {"benchmark": f"hot_key_{name}", "rows": HOT_ROWS, "matches": found["hot"], "uniform_matches": found["uniform"],
               "uniform_s": round(best["uniform"], 3), "hot_s": round(best["hot"], 3),
               "ratio": round(best["hot"] / best["uniform"], 2), "limit": HOT_AT_MOST}  # fmt: skip


def _run(join: Operator, held: np.ndarray, asking: np.ndarray, schema: pa.Schema) -> tuple[float, int]:
    """Seconds of CPU for all of both sides, and how many pairs came out."""
    if schema is TIMED:
        batches = [(port, _timed(keys, port * 30_000)) for port, keys in ((0, held), (1, asking))]
    else:
        batches = [(port, rows(keys)) for port, keys in ((0, held), (1, asking))]
    pairs = 0
    begun = time.thread_time()
    for port, batch in batches:
        for first in range(0, batch.num_rows, BATCH_ROWS):
            part = batch.slice(first, min(BATCH_ROWS, batch.num_rows - first))
            pairs += sum(out.num_rows for out in join.process(port, part))
    return time.thread_time() - begun, pairs


def _timed(keys: np.ndarray, start_ms: int) -> Batch:
    """Rows with these keys within half a minute."""
    times = pa.array(start_ms + np.arange(len(keys)) * 30_000 // len(keys)).cast(pa.timestamp("ms"))
    return Batch(pa.RecordBatch.from_arrays([pa.array(keys), times], schema=TIMED))


def run(as_json: bool) -> None:
    """Print what was found; fails where a limit is not held."""
    broken = []
    for found in (incremental(), *hot_keys()):
        print(json.dumps(found) if as_json else "  ".join(f"{k} {v}" for k, v in found.items()), flush=True)
        if "cpu_p99_ms" in found:
            broken += [f"p99 {found['cpu_p99_ms']} ms"] if float(str(found["cpu_p99_ms"])) > LIMIT_MS else []
            kept = float(str(found["state_bytes_a_row"]))
            broken += [f"{kept} bytes a row"] if kept > BYTES_A_ROW else []
        elif float(str(found["ratio"])) > HOT_AT_MOST:
            broken.append(f"{found['benchmark']} {found['ratio']}")
    if broken:
        raise SystemExit(f"not within limits: {', '.join(broken)}")


if __name__ == "__main__":
    run(as_json=False)
