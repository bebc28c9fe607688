"""CPU nanoseconds a row of the key index by key type and cardinality, beside Arrow's own grouping in the same run."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.state.key_index import KeyIndex

ROWS = 65_536
BATCHES = 8
RUNS = 5
CARDINALITIES = (100, 10_000, 1_000_000)
FLOOR_NS = {100: 15.0, 10_000: 15.0, 1_000_000: 60.0}
"""At most so many ns a row, warm, one thread, one int64 or string key."""

Int64Array = npt.NDArray[np.int64]


def _text(numbers: Int64Array) -> pa.Array:
    return pa.array([f"user-{n}" for n in numbers.tolist()], pa.string())


def _long_text(numbers: Int64Array) -> pa.Array:
    return pa.array([f"https://example.com/user/{n}" for n in numbers.tolist()], pa.string())


KEYS: dict[str, Callable[[Int64Array], list[pa.Array]]] = {
    "int64": lambda n: [pa.array(n)],
    "int64, int64": lambda n: [pa.array(n), pa.array(n % 1000)],
    "string": lambda n: [_text(n)],
    "long string": lambda n: [_long_text(n)],
    "string, int64": lambda n: [_text(n), pa.array(n)],
    "string, string": lambda n: [_text(n), _text(n % 100)],
}


def _fastest(runs: Sequence[float]) -> dict[str, float]:
    return {"ns": statistics.median(runs), "spread": max(runs) / min(runs) - 1}


def measure(name: str, cardinality: int) -> dict[str, Any]:
    """One row of the table: warm upsert, insertion of new keys, Arrow's dictionary encoding and group_by."""
    columns_of = KEYS[name]
    rng = np.random.default_rng(7)
    everything = [
        columns_of(np.arange(first, min(first + ROWS, cardinality))) for first in range(0, cardinality, ROWS)
    ]
    types = [column.type for column in everything[0]]
    KeyIndex(types).upsert(
        columns_of(np.arange(5000))
    )  # kernels are compiled or loaded before the clock starts
    index = KeyIndex(types)
    begun = time.thread_time()
    for columns in everything:
        index.upsert(columns)
    insert_ns = (time.thread_time() - begun) / cardinality * 1e9
    batches = [columns_of(rng.integers(0, cardinality, ROWS)) for _ in range(BATCHES)]
    names = [f"k{c}" for c in range(len(batches[0]))]
    tables = [pa.table(columns, names=names) for columns in batches]
    upsert, encode, group = [], [], []
    for _ in range(RUNS):
        upsert.append(_ns(lambda: [index.upsert(columns) for columns in batches]))
        encode.append(_ns(lambda: [column.dictionary_encode() for batch in batches for column in batch]))
        group.append(
            _ns(lambda: [t.group_by(names, use_threads=False).aggregate([([], "count_all")]) for t in tables])
        )
    slots = index.upsert(batches[0]).slots
    equal = (
        all(kept.equals(given) for kept, given in zip(index.keys(slots), batches[0], strict=True))
        and len(index) == cardinality
    )
    return {
        "benchmark": "keyindex",
        "key": name,
        "cardinality": cardinality,
        "upsert": _fastest(upsert),
        "insert_ns": insert_ns,
        "dictionary_encode": _fastest(encode),
        "group_by": _fastest(group),
        "bytes_per_key": index.nbytes / cardinality,
        "equal": equal,
        "machine": f"{platform.machine()} {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    }


def _ns(work: Callable[[], object]) -> float:
    begun = time.thread_time()
    work()
    return (time.thread_time() - begun) / (BATCHES * ROWS) * 1e9


def run(as_json: bool) -> None:
    """Print one line a key type and cardinality: ns a row, one thread, batches of 65,536 rows.

    Arrow's figures are for a batch by itself: it keeps nothing from batch to batch, so its groups
    would still have to be merged into state.
    """
    if not as_json:
        print(
            f"{'key':<16}{'keys':>10}{'upsert':>9}{'spread':>8}{'floor':>7}{'insert':>8}{'encode':>8}{'group':>8}{'B/key':>7}"
        )
    for name in KEYS:
        for cardinality in CARDINALITIES:
            row = measure(name, cardinality)
            assert row["equal"], f"{name}: the keys that came back are not those that went in"
            if as_json:
                print(json.dumps(row), flush=True)
                continue
            floor = FLOOR_NS[cardinality] if name in ("int64", "string") else ""
            print(
                f"{name:<16}{cardinality:>10,}{row['upsert']['ns']:>9.1f}{row['upsert']['spread']:>8.0%}"
                f"{floor:>7}{row['insert_ns']:>8.0f}{row['dictionary_encode']['ns']:>8.1f}"
                f"{row['group_by']['ns']:>8.1f}{row['bytes_per_key']:>7.0f}",
                flush=True,
            )


if __name__ == "__main__":
    run(False)
