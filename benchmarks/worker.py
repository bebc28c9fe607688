"""One engine with one query in a process of its own: times runs as the parent asks for them, line by line."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys

import pyarrow.parquet as pq

from benchmarks.cep import CEP
from benchmarks.engines import ENGINES
from benchmarks.queries import NEXMARK, NEXMARK_JOINS, NEXMARK_SIDE_INPUTS, ONE_BRC, SCENARIOS, Query

QUERIES: dict[str, Query] = {
    query.name: query for query in [*NEXMARK, *NEXMARK_JOINS, *NEXMARK_SIDE_INPUTS, *CEP, *SCENARIOS, ONE_BRC]
}


def main() -> None:
    """Commands on standard input: `run`, `result PATH`. One JSON line answers each."""
    engine_name, query_name, events = sys.argv[1:4]
    engine = ENGINES[engine_name](QUERIES[query_name], int(events))
    rows = engine.rows if hasattr(engine, "rows") else 0
    version = importlib.import_module(engine_name).__version__
    print(json.dumps({"ready": True, "rows": rows, "version": version}), flush=True)
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "run":
            print(json.dumps(dataclasses.asdict(engine.run())), flush=True)
        elif command == "result":
            pq.write_table(engine.result(), argument)
            print(json.dumps({"written": argument}), flush=True)


if __name__ == "__main__":
    main()
