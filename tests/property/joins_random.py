"""Random queries with joins over random changelogs, run against DuckDB after every step.

`python -m tests.property.joins_random --seeds 10000 [--first 0]` tries many; a seed that fails is printed and can be
tried alone with `--first SEED --seeds 1`.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import duckdb
import numpy as np
import pyarrow as pa
from tests.property.joins_random_partitions import Partitions
from tests.property.joins_random_queries import Query, random_query
from tests.property.joins_random_rows import (
    DECLARED,
    DISORDER_S,
    SCHEMA,
    Folded,
    Input,
    Row,
    Rows,
    Step,
    record_batch,
)

from millrace.operators.batch import Batch
from millrace.operators.sink import Changelog
from millrace.planner.logical import Scan
from millrace.planner.physical.partitioned import for_partitions
from millrace.planner.plan import Plan
from millrace.planner.session import Planner


@dataclass(frozen=True)
class Case:
    """A query over inputs, what comes in, and after which steps a snapshot is taken."""

    seed: int
    inputs: tuple[Input, ...]
    query: Query
    steps: tuple[Step, ...]
    restore_at: frozenset[int]


def make_case(
    seed: int,
    restores: bool = True,
    query: Callable[[random.Random, Sequence[Input]], str] | None = None,
) -> Case:
    """The case of a seed; `query` writes another query than one with joins over the inputs, which have no watermark."""
    rng = random.Random(seed)
    count = rng.choice((2, 2, 2, 3, 3, 4))
    timed = query is None and rng.random() < 0.25
    inputs = []
    for number in range(min(count, 3) if timed else count):
        mode = rng.choice(
            (Changelog.APPEND, Changelog.APPEND, Changelog.RETRACT, Changelog.RETRACT, Changelog.UPSERT)
        )
        keyed = mode is Changelog.UPSERT or (mode is Changelog.RETRACT and rng.random() < 0.6)
        name = f"t{number}"
        inputs.append(
            Input(name, Changelog.APPEND, False, True) if timed and number < 2 else Input(name, mode, keyed)
        )
    made = random_query(rng, inputs) if query is None else Query.same(query(rng, inputs))
    steps = Rows(rng, inputs).steps(rng.randint(4, 9))
    chosen = {at for at in range(len(steps)) if restores and rng.random() < 0.2}
    return Case(seed, tuple(inputs), made, steps, frozenset(chosen))


class Run:
    """One query on one to three partitions, its output folded."""

    def __init__(self, case: Case, rng: random.Random) -> None:
        self.case = case
        self._spread = rng.random() < 0.6
        self.plan = for_partitions(_plan(case)) if self._spread else _plan(case)
        self.out: Counter[Row] = Counter()
        self._rng = rng
        self._mode = self.plan.nodes[self.plan.outputs[-1].node].changelog
        self.parts = Partitions(self.plan, 1, self._take)
        self._seen = 0

    def _take(self, batch: Batch) -> None:
        weights = np.ones(batch.num_rows, np.int64) if batch.weights is None else batch.weights
        rows = list(zip(*(c.to_pylist() for c in batch.data.columns), strict=True))
        assert self._mode is not Changelog.APPEND or (weights == 1).all(), (
            "an append-only output took a row back"
        )
        plain = [_plain(row) for row in rows]
        for row, weight in zip(plain, weights.tolist(), strict=True):
            self.out[row] += weight
        for row in set(plain):
            assert self.out[row] >= 0, f"{row} was taken back and is not there"
            if not self.out[row]:
                del self.out[row]

    def feed(self, step: Step) -> None:
        """Send one batch of an input to whoever reads it, and then the watermark."""
        given = self.case.inputs[step.input]
        rows = [row for row, _ in step.rows]
        weights = np.array([weight for _, weight in step.rows], np.int64)
        batch = Batch(record_batch(rows), None if given.mode is Changelog.APPEND else weights)
        self.parts.feed(given.name, batch, scattered=given.mode is Changelog.APPEND)
        if step.watermark is not None and self._rng.random() < 0.8:
            self.parts.advance(_us(step.watermark))

    def restart(self) -> None:
        """Take a snapshot, and perhaps go on from it in other partitions."""
        self.parts.snapshot(changes=self._rng.random() < 0.8)
        if self._rng.random() < 0.7:
            self.parts = self.parts.resharded(self._rng.choice((1, 2, 3)) if self._spread else 1)


def _plan(case: Case) -> Plan:
    planner = Planner()
    for given in case.inputs:
        key = ", PRIMARY KEY (id) NOT ENFORCED" if given.keyed else ""
        watermark = f", WATERMARK FOR ts AS ts - INTERVAL '{DISORDER_S}' SECOND" if given.timed else ""
        text = f"CREATE SOURCE {given.name} ({DECLARED}{watermark}{key}) WITH ('connector' = 'push')"
        for statement in planner.parse(text):
            planner.plan(statement)
        entry = planner.catalog.get(given.name)
        assert isinstance(entry.relation, Scan)
        scan = replace(entry.relation, mode=given.mode)
        planner.catalog.put(replace(entry, relation=scan))
    return planner.compile(case.query.sql)[0]


def check(case: Case, note: Callable[[str], None] = lambda what: None) -> None:
    """Run a case; raises AssertionError with the seed and the query where an answer differs."""
    rng = random.Random(case.seed ^ 0x5EED)
    run = Run(case, rng)
    tables = [Folded(given) for given in case.inputs]
    looked: Counter[Row] = Counter()
    with duckdb.connect() as con:
        for at, step in enumerate(case.steps):
            tables[step.input].apply(step.rows)
            run.feed(step)
            if case.query.looks_up:
                if step.input == 0:
                    looked += _answer(con, case, [_only(tables[0], step), *tables[1:]])
                _compare(case, at, run, looked)
            elif case.query.every_step:
                _compare(case, at, run, _answer(con, case, tables))
            if at in case.restore_at:
                run.restart()
                note(f"on {run.parts.count} partitions")
        run.parts.end()
        _compare(case, len(case.steps), run, looked if case.query.looks_up else _answer(con, case, tables))


def _only(table: Folded, step: Step) -> Folded:
    """An append-only input as if it had just come."""
    fresh = Folded(table.given)
    fresh.apply(step.rows)
    return fresh


def _answer(con: duckdb.DuckDBPyConnection, case: Case, tables: list[Folded]) -> Counter[Row]:
    for table in tables:
        con.register(table.given.name, pa.Table.from_batches([record_batch(table.rows)], SCHEMA))
    return Counter(_plain(row) for row in con.sql(case.query.batch).fetchall())


def _compare(case: Case, at: int, run: Run, expected: Counter[Row]) -> None:
    if case.query.of_all and not run.out:
        expected = Counter()  # rows that never came make no row
    assert run.out == expected, (
        f"seed {case.seed}, step {at}: {case.query.sql}\nmissing {expected - run.out}\nsurplus {run.out - expected}"
    )


def _plain(row: Row) -> Row:
    """Values as both engines' Python clients give them."""
    return tuple(
        int(v) if isinstance(v, int) else "NaN" if isinstance(v, float) and math.isnan(v) else v for v in row
    )


def _us(at: object) -> int:
    return int(np.datetime64(at, "us").astype(np.int64))  # type: ignore[call-overload]


def main() -> None:
    """Try many seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--stop", type=int, default=5, help="how many failures to show before giving up")
    parser.add_argument("--every", type=int, default=500, help="after how many seeds to say how far it is")
    arguments = parser.parse_args()
    failed = 0
    begun = time.monotonic()
    notes: Counter[str] = Counter()
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        try:
            check(make_case(seed), lambda what: notes.update((what,)))
        except Exception as error:
            failed += 1
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
            if arguments.stop == 1:
                raise
            if failed >= arguments.stop:
                break
        done = seed - arguments.first + 1
        if done % arguments.every == 0:
            print(
                f"{done} seeds, {failed} failed, {time.monotonic() - begun:.0f} s, {dict(notes)}", flush=True
            )
    print(f"{failed} of {arguments.seeds} seeds failed; restarts {dict(notes)}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
