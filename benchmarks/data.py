"""Inputs of the benchmarks as Arrow batches: seeded, the same in every process."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from millrace.operators.connectors.nexmark import generate

BATCH_ROWS = 65_536
SEED = 20_150_715
TRADES_FROM_MS = 1_700_000_000_000
STATIONS = 413
SIDE_KEYS = 10_000
KEYS = {"100": 100, "200": 200, "5k": 5_000, "10k": 10_000, "1m": 1_000_000}


@cache
def table(name: str, events: int) -> tuple[pa.RecordBatch, ...]:
    """The batches of one input: `bid` and the other Nexmark tables, `trades_<keys>`, `listing_<keys>`, or `measurements`."""
    if name.startswith("listing_"):
        return tuple(_listing(KEYS[name.removeprefix("listing_")]))
    if name.startswith("trades_"):
        return tuple(_trades(KEYS[name.removeprefix("trades_")], events))
    if name == "measurements":
        return tuple(_measurements(events))
    return tuple(_nexmark(name, events))


def event_time(name: str) -> str | None:
    """The event-time column of an input."""
    if name == "measurements" or name.startswith("listing_"):
        return None
    return "ts" if name.startswith("trades_") else "dateTime"


@cache
def side_input() -> Path:
    """A CSV file with a text for each of 10,000 keys."""
    path = Path(tempfile.mkdtemp(prefix="millrace-benchmark-")) / "side_input.csv"
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    path.write_text("key,value\n" + "".join(f"{key},value {key}\n" for key in range(SIDE_KEYS)))
    return path


def declared_side_input() -> str:
    """The statement that makes the file readable in Millrace."""
    options = f"'connector' = 'file', 'path' = '{side_input()}', 'format' = 'csv'"
    return f"CREATE SOURCE side_input (key BIGINT, value VARCHAR) WITH ({options})"


def read_side_input() -> str:
    """The statement that makes the file readable in DuckDB."""
    return f"CREATE VIEW side_input AS SELECT * FROM read_csv('{side_input()}')"


def _nexmark(name: str, events: int) -> list[pa.RecordBatch]:
    batches = []
    step = BATCH_ROWS * 50 // 46 if name == "bid" else BATCH_ROWS * 8
    for first in range(0, events, step):
        batches.append(generate(name, first, min(step, events - first), SEED, None))
    return batches


def _listing(keys: int) -> list[pa.RecordBatch]:
    """A row for each symbol that trades have."""
    rng = np.random.default_rng(SEED)
    numbers = rng.permutation(keys)
    return [
        pa.RecordBatch.from_pydict(
            {
                "symbol": pa.array([f"SYM{number:07d}" for number in part]),
                "sector": pa.array(part % 11),
                "shares": pa.array(part * 7919),
            }
        )
        for part in np.array_split(numbers, max(1, keys // BATCH_ROWS))
    ]


def _trades(keys: int, rows: int) -> list[pa.RecordBatch]:
    rng = np.random.default_rng(SEED)
    symbols = pa.array([f"SYM{number:07d}" for number in range(keys)])
    batches = []
    for first in range(0, rows, BATCH_ROWS):
        count = min(BATCH_ROWS, rows - first)
        seq = np.arange(first, first + count)
        batches.append(
            pa.RecordBatch.from_pydict(
                {
                    "symbol": symbols.take(pa.array(rng.integers(0, keys, count))),
                    "price": pa.array(np.round(rng.uniform(1, 500, count), 2)),
                    "ts": pa.array(TRADES_FROM_MS + seq // 10).cast(pa.timestamp("ms")),
                    "seq": pa.array(seq),
                }
            )
        )
    return batches


def _measurements(rows: int) -> list[pa.RecordBatch]:
    rng = np.random.default_rng(SEED)
    names = pa.array([f"Station {number:03d}" for number in range(STATIONS)])
    means = rng.uniform(-10, 35, STATIONS)
    batches = []
    for first in range(0, rows, BATCH_ROWS):
        count = min(BATCH_ROWS, rows - first)
        station = rng.integers(0, STATIONS, count)
        temp = np.round(rng.normal(means[station], 10), 1)
        batches.append(
            pa.RecordBatch.from_arrays([names.take(pa.array(station)), pa.array(temp)], ["station", "temp"])
        )
    return batches
