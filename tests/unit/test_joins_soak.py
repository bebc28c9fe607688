"""Joins on time over ever-new keys keep what the watermark has not passed, and no more: memory is flat."""

import gc
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.timed_joins_harness import SCHEMA, Surroundings

from millrace.operators.batch import Batch
from millrace.operators.joins.interval import IntervalJoin, WindowJoin

ROWS = 20_000
ROUNDS = 60
SPECS = {
    "interval": IntervalJoin(
        SCHEMA, SCHEMA, "full", ((0, 0),), (1, 1), -2_000_000, 5_000_000, (0, 1, 2, 3, 4, 5)
    ),
    "window": WindowJoin(SCHEMA, SCHEMA, "left", ((0, 0),), (1, 1), (0, 1, 2, 3, 4, 5)),
}


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def rows(first: int, windowed: bool) -> Batch:
    """One a ms; of a window, all have its end."""
    numbers = np.arange(first, first + ROWS)
    times = (numbers // 1000 + 1) * 1000 if windowed else numbers
    keys = pa.array((numbers // 2).astype(str)).cast(pa.string())
    return Batch(
        pa.RecordBatch.from_arrays(
            [keys, pa.array(times).cast(pa.timestamp("ms")), pa.array(numbers)], schema=SCHEMA
        )
    )


@pytest.mark.parametrize("name", SPECS)
def test_state_of_ever_new_keys_stays_flat(name: str) -> None:
    operator = SPECS[name].build(Surroundings())
    bytes_kept, sizes = [], []
    out = 0
    for number in range(ROUNDS):
        for port in (0, 1):
            out += sum(b.num_rows for b in operator.process(port, rows(number * ROWS, name == "window")))
        out += sum(b.num_rows for b in operator.on_watermark((number + 1) * ROWS * 1000 - 1))
        assert operator.state_rows is not None and operator.state_bytes is not None
        assert operator.state_rows <= 2 * ROWS
        bytes_kept.append(operator.state_bytes)
        if number % 10 == 9:
            gc.collect()
            sizes.append(resident())
    assert out >= ROUNDS * ROWS
    third = ROUNDS // 3
    assert max(bytes_kept[-third:]) <= 1.1 * max(bytes_kept[third:-third])
    assert sizes[-1] <= 1.1 * sizes[2]
