"""Makes the challenge's file: `station;temperature`, 413 stations, 10 million rows unless told otherwise. Seeded."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

STATIONS = 413
BLOCK = 1_000_000


def main(folder: Path, rows: int) -> None:
    """Write measurements.txt into `folder`, unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "measurements.txt"
    if path.exists():
        return
    rng = np.random.default_rng(13)
    names = pa.array([f"Station {number:03d}" for number in range(STATIONS)])
    means = rng.uniform(-10, 35, STATIONS)
    options = pa.csv.WriteOptions(include_header=False, delimiter=";", quoting_style="none")
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as out:
        for first in range(0, rows, BLOCK):
            station = rng.integers(0, STATIONS, min(BLOCK, rows - first))
            degrees = pa.array(np.round(rng.normal(means[station], 10), 1))
            block = pa.table({"station": names.take(pa.array(station)), "temperature": degrees})
            pa.csv.write_csv(block, out, options)
    unfinished.rename(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10_000_000)
