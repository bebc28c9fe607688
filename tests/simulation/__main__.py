"""`python -m tests.simulation --seed N` replays one seed; `--seeds N` runs N of them from `--start`."""

import argparse
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))


def main() -> int:
    from tests.simulation.cluster import Cluster, scenario_of
    from tests.simulation.failpoints import run_pairs

    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this seed and show what happened")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--pairs", action="store_true", help="crash at every pair of failpoints instead")
    args = parser.parse_args()
    if args.pairs:
        return run_pairs()
    seeds = range(args.start, args.start + args.seeds) if args.seed is None else [args.seed]
    failed: list[int] = []
    reached: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    begun = time.monotonic()
    for seed in seeds:
        cluster = Cluster(seed, scenario_of(seed))
        try:
            cluster.run()
        except Exception as error:  # noqa: BLE001 - any failure is the seed's
            failed.append(seed)
            print(f"seed {seed} failed: {type(error).__name__}: {error}", flush=True)
            if args.seed is not None:
                print(*cluster.world.trace, sep="\n")
                traceback.print_exc()
                print(cluster.scenario)
            else:
                print(f"  replay: python -m tests.simulation --seed {seed}", flush=True)
        else:
            if args.seed is not None:
                print(*cluster.world.trace, sep="\n")
        reached.update(cluster.world.reached.keys())
        totals["rows"] += len(cluster.rows)
        totals["starts of partitions"] += cluster.recoveries
        totals["coordinators"] += len(cluster.coordinators)
        totals["steps"] += cluster.world.steps
    took = time.monotonic() - begun
    print(
        f"{len(seeds)} seeds, {len(failed)} failed, {took:.1f} s; {dict(totals)}; {len(reached)} failpoints"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
