"""Makes a day of a web site's access log as JSON lines, with a few lines that a crashed logger left broken. Seeded."""

import json
import sys
from pathlib import Path

import numpy as np

PAGES = [
    "/",
    "/pricing",
    "/docs",
    "/docs/sql",
    "/docs/install",
    "/blog",
    "/blog/windows",
    "/login",
    "/search?q=x",
]
VISITORS = 3_000
DAY = np.datetime64("2026-03-02T00:00:00", "ms")
BROKEN_EVERY = 5_000


def main(folder: Path) -> None:
    """Write access.jsonl into `folder`, unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "access.jsonl"
    if path.exists():
        return
    rng = np.random.default_rng(11)
    rows = []
    for visitor in range(VISITORS):
        ip = f"10.{visitor >> 8 & 255}.{visitor & 255}.{visitor * 7 % 250}"
        for _ in range(rng.integers(1, 5)):
            clock = rng.uniform(0, 86_000_000)
            for _ in range(rng.geometric(0.12)):
                rows.append(
                    (clock, ip, PAGES[rng.zipf(1.6) % len(PAGES)], rng.random(), rng.lognormal(8, 1.2))
                )
                clock += rng.exponential(40_000)
    rows.sort(key=lambda row: row[0] + rng.uniform(0, 5_000))
    with path.open("w") as out:
        for number, (clock, ip, url, chance, size) in enumerate(rows):
            line = json.dumps(
                {
                    "ts": str(DAY + np.timedelta64(int(clock), "ms")),
                    "ip": ip,
                    "method": "GET",
                    "url": url,
                    "status": 200 if chance < 0.95 else 404 if chance < 0.99 else 500,
                    "bytes": int(size),
                }
            )
            out.write((line[: len(line) // 2] if number % BROKEN_EVERY == 4_321 else line) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
