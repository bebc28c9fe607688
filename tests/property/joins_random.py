"""Random queries with joins over random changelogs, run against DuckDB after every step.

`python -m tests.property.joins_random --seeds 10000 [--first 0]` tries many; a seed that fails is printed and can be
tried alone with `--first SEED --seeds 1`.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import duckdb
import numpy as np
import pyarrow as pa

from millrace.cluster.capture import PartitionCapture, Restored
from millrace.cluster.dataflow import Dataflow
from millrace.cluster.vertex import Tap
from millrace.operators.batch import Batch
from millrace.operators.sink import Changelog
from millrace.operators.source import SourceInput
from millrace.planner.logical import Scan
from millrace.planner.plan import Plan
from millrace.planner.session import Planner

Row = tuple[object, ...]
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("k", pa.int64()),
        ("j", pa.int32()),
        ("s", pa.string()),
        ("v", pa.int64()),
        ("d", pa.decimal128(20, 2)),
    ]
)
DECLARED = "id BIGINT, k BIGINT, j INT, s STRING, v BIGINT, d DECIMAL(20, 2)"
NAMES = SCHEMA.names


@dataclass(frozen=True)
class Input:
    """One input: its name and what its rows mean to those before."""

    name: str
    mode: Changelog
    keyed: bool


@dataclass(frozen=True)
class Case:
    """A query over inputs, and the steps: (input, rows with weights)."""

    seed: int
    inputs: tuple[Input, ...]
    sql: str
    steps: tuple[tuple[int, tuple[tuple[Row, int], ...]], ...]
    restore_at: frozenset[int]


def make_case(
    seed: int,
    restores: bool = True,
    query: Callable[[random.Random, Sequence[Input]], str] | None = None,
) -> Case:
    """The case of a seed; `query` writes another query than one with joins over the inputs."""
    rng = random.Random(seed)
    count = rng.choice((2, 2, 2, 3, 3, 4))
    inputs = []
    for number in range(count):
        mode = rng.choice(
            (Changelog.APPEND, Changelog.APPEND, Changelog.RETRACT, Changelog.RETRACT, Changelog.UPSERT)
        )
        keyed = mode is Changelog.UPSERT or (mode is Changelog.RETRACT and rng.random() < 0.6)
        inputs.append(Input(f"t{number}", mode, keyed))
    sql = (query or _query)(rng, inputs)
    steps = _steps(rng, inputs, rng.randint(4, 9))
    chosen = {at for at in range(len(steps)) if restores and rng.random() < 0.15}
    return Case(seed, tuple(inputs), sql, steps, frozenset(chosen))


# The query


def _query(rng: random.Random, inputs: Sequence[Input]) -> str:
    text = f"{inputs[0].name} AS a0"
    seen = [0]
    comma = rng.random() < 0.15
    where: list[str] = []
    for number in range(1, len(inputs)):
        kind = rng.choice(
            ("JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN")
        )
        condition = _condition(rng, seen, number)
        if comma:
            text += f", {inputs[number].name} AS a{number}"
            where.append(condition)
        else:
            text += f" {kind} {inputs[number].name} AS a{number} ON {condition}"
        if comma or kind.split()[0] not in ("SEMI", "ANTI"):
            seen.append(number)
    if rng.random() < 0.4 and inputs[0].mode is not Changelog.UPSERT:
        where.append(_filter(rng, rng.choice(seen)))
    where += [_subquery(rng, seen, inputs) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
    filtered = f" WHERE {' AND '.join(where)}" if where else ""
    style = rng.random()
    if style < 0.35:
        group = rng.choice([f"a{n}.{c}" for n in seen for c in ("k", "s", "j")])
        value = f"a{rng.choice(seen)}"
        calls = f"count(*) AS n, sum({value}.v) AS total, min({value}.v) AS low, max({value}.d) AS high"
        return f"SELECT {group} AS g, {calls} FROM {text}{filtered} GROUP BY {group}"
    columns = [f"a{n}.{c} AS {c}{n}" for n in seen for c in NAMES if rng.random() < 0.5]
    columns += [f"a{seen[0]}.v + 1 AS w"] if rng.random() < 0.3 else []
    return f"SELECT {', '.join(columns) or 'a0.k AS k'} FROM {text}{filtered}"


def _condition(rng: random.Random, seen: Sequence[int], number: int) -> str:
    other = f"a{rng.choice(seen)}"
    own = f"a{number}"
    parts = []
    style = rng.random()
    if style < 0.45:
        parts.append(f"{other}.k = {own}.k")
    elif style < 0.6:
        parts.append(f"{other}.s = {own}.s")
    elif style < 0.7:
        parts.append(f"{other}.id = {own}.id")
    elif style < 0.78:
        parts.append(f"{other}.k = {own}.j")
    elif style < 0.86:
        parts += [f"{other}.k = {own}.k", f"{own}.s = {other}.s"]
    elif style < 0.93:
        parts.append(f"{other}.k IS NOT DISTINCT FROM {own}.k")
    if rng.random() < 0.35 or not parts:
        parts.append(
            rng.choice(
                (
                    f"{other}.v < {own}.v",
                    f"{other}.v <> {own}.v",
                    f"{own}.v > 1",
                    f"{other}.v > 1",
                    f"({other}.s = 'b' OR {own}.d > 1.5)",
                    f"{other}.d = {own}.d",
                )
            )
        )
    return " AND ".join(parts)


def _filter(rng: random.Random, number: int) -> str:
    a = f"a{number}"
    return rng.choice((f"{a}.v > 0", f"{a}.k IS NOT NULL", f"{a}.s <> 'c'", f"({a}.v < 3 OR {a}.s IS NULL)"))


def _subquery(rng: random.Random, seen: Sequence[int], inputs: Sequence[Input]) -> str:
    a = f"a{rng.choice(seen)}"
    table = rng.choice(inputs).name
    key = rng.choice(("k", "k", "s", "j"))
    correlated = rng.choice(("", f" WHERE b.{key} = {a}.{key}", f" WHERE {a}.{key} = b.{key} AND b.v > 1"))
    word = rng.choice(("", "NOT "))
    style = rng.random()
    if style < 0.35:
        return f"{a}.{key} {word}IN (SELECT b.{key} FROM {table} AS b{rng.choice(('', ' WHERE b.v > 2'))})"
    if style < 0.45:
        other = "v" if key != "v" else "k"
        return f"{a}.{other} {word}IN (SELECT b.{other} FROM {table} AS b{correlated})"
    if style < 0.65:
        return f"{word}EXISTS (SELECT 1 FROM {table} AS b{correlated})"
    if style < 0.72:
        return f"{word}EXISTS (SELECT 1 FROM {table} AS b WHERE b.{key} = {a}.{key} AND b.v < {a}.v)"
    if style < 0.82:
        inner = f"{a}.{key} {word}IN (SELECT b.{key} FROM {table} AS b)"
        return f"({inner} OR {a}.v = 2 OR {word}EXISTS (SELECT 1 FROM {table} AS b{correlated}))"
    call = rng.choice(("max(b.v)", "count(*)", "sum(b.v) + 1", "coalesce(min(b.v), 7)"))
    value = f"(SELECT {call} FROM {table} AS b WHERE b.{key} = {a}.{key})"
    return f"{a}.v {rng.choice(('<', '=', '>='))} {value}"


# The input


def _steps(
    rng: random.Random, inputs: Sequence[Input], count: int
) -> tuple[tuple[int, tuple[tuple[Row, int], ...]], ...]:
    domain = rng.choice((2, 3, 6))
    held: list[list[Row]] = [[] for _ in inputs]
    next_id = [0] * len(inputs)

    def fresh(number: int, row_id: int | None = None) -> Row:
        if row_id is None:
            if inputs[number].keyed:
                next_id[number] += 1
                row_id = next_id[number]
            else:
                row_id = rng.randint(0, 3)
        key = 0 if rng.random() < 0.3 else rng.randint(0, domain)
        return (
            row_id,
            None if rng.random() < 0.2 else key,
            None if rng.random() < 0.1 else rng.randint(0, domain),
            rng.choice(("a", "b", "c", "", "ü", None)),
            None if rng.random() < 0.1 else rng.randint(0, 4),
            None if rng.random() < 0.1 else rng.choice((0, 1, 2)),
        )

    steps = []
    for _ in range(count):
        number = rng.randrange(len(inputs))
        rows: list[tuple[Row, int]] = []
        for _ in range(rng.choice((1, 2, 4, 8))):
            rows += _change(rng, inputs[number], held[number], number, fresh)
        steps.append((number, tuple(rows)))
    return tuple(steps)


def _change(rng, given: Input, held: list[Row], number: int, fresh) -> list[tuple[Row, int]]:  # type: ignore[no-untyped-def]
    style = rng.random()
    if given.mode is Changelog.APPEND or not held or style < 0.5:
        row = fresh(number)
        held.append(row)
        return [(row, 1)]
    old = held.pop(rng.randrange(len(held)))
    if style < 0.75:
        return [(old, -1)]
    new = fresh(number, old[0])
    held.append(new)
    return [(new, 1)] if given.mode is Changelog.UPSERT else [(old, -1), (new, 1)]


# Running


class Run:
    """One query on a dataflow, its output folded."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.plan = _plan(case)
        self.out: Counter[Row] = Counter()
        self.upserts = self.plan.nodes[self.plan.outputs[-1].node].changelog is Changelog.UPSERT
        self.captured: PartitionCapture | None = None
        self._build(None)

    def _build(self, restored: Restored | None) -> None:
        self.flow = Dataflow(vnodes=16)
        root = self.plan.outputs[-1].node
        self.flow.extend(self.plan, [(root, Tap(self._take))])
        if restored is not None:
            self.flow.restore(restored)

    def _take(self, batch: Batch) -> None:
        weights = np.ones(batch.num_rows, np.int64) if batch.weights is None else batch.weights
        rows = list(zip(*(c.to_pylist() for c in batch.data.columns), strict=True))
        mode = self.plan.nodes[self.plan.outputs[-1].node].changelog
        assert mode is not Changelog.APPEND or (weights == 1).all(), "an append-only output took a row back"
        for row, weight in zip(rows, weights.tolist(), strict=True):
            self.out[row] += weight
        for row in set(rows):
            assert self.out[row] >= 0, f"{row} was taken back and is not there"
            if not self.out[row]:
                del self.out[row]

    def feed(self, number: int, rows: Sequence[tuple[Row, int]]) -> None:
        """Send one batch of an input to whoever reads it."""
        name = self.case.inputs[number].name
        for vertex in self.flow.sources:
            if vertex.node.name == name:
                assert isinstance(vertex.node.spec, SourceInput)
                data = pa.RecordBatch.from_pylist([dict(zip(NAMES, r, strict=True)) for r, _ in rows], SCHEMA)
                picked = data.select(vertex.node.spec.schema.names).cast(vertex.node.spec.schema)
                weights = np.array([w for _, w in rows], np.int64)
                plain = self.case.inputs[number].mode is Changelog.APPEND
                vertex.send([Batch(picked, None if plain else weights)])

    def snapshot(self, rng: random.Random) -> None:
        """Capture as checkpoints do, whole first and then what changed."""
        if self.captured is None:
            self.captured = self.flow.capture(changes=False)
        else:
            self.captured = self.captured.then(self.flow.capture(changes=rng.random() < 0.8))

    def restart(self) -> None:
        """Go on in a new dataflow from the last capture."""
        assert self.captured is not None
        self._build(Restored.of(self.captured))


def _plan(case: Case) -> Plan:
    planner = Planner()
    for given in case.inputs:
        key = ", PRIMARY KEY (id) NOT ENFORCED" if given.keyed else ""
        text = f"CREATE SOURCE {given.name} ({DECLARED}{key}) WITH ('connector' = 'push')"
        for statement in planner.parse(text):
            planner.plan(statement)
        entry = planner.catalog.get(given.name)
        assert isinstance(entry.relation, Scan)
        scan = replace(entry.relation, mode=given.mode)
        planner.catalog.put(replace(entry, relation=scan))
    return planner.compile(case.sql)[0]


def check(case: Case) -> None:
    """Run a case; raises AssertionError with the seed and the query where an answer differs."""
    rng = random.Random(case.seed ^ 0x5EED)
    run = Run(case)
    tables = [_Folded(given) for given in case.inputs]
    con = duckdb.connect()
    for at, (number, rows) in enumerate(case.steps):
        tables[number].apply(rows)
        run.feed(number, rows)
        for table in tables:
            con.register(table.given.name, table.arrow())
        expected = Counter(con.sql(case.sql).fetchall())
        found = Counter({_plain(row): n for row, n in run.out.items()})
        expected = Counter({_plain(row): n for row, n in expected.items()})
        assert found == expected, (
            f"seed {case.seed}, step {at}: {case.sql}\nmissing {expected - found}\nsurplus {found - expected}"
        )
        if at in case.restore_at:
            run.snapshot(rng)
            if rng.random() < 0.7:
                run.restart()


def _plain(row: Row) -> Row:
    return tuple(int(v) if isinstance(v, int) else v for v in row)


class _Folded:
    """What an input comes to."""

    def __init__(self, given: Input) -> None:
        self.given = given
        self.rows: list[Row] = []

    def apply(self, rows: Sequence[tuple[Row, int]]) -> None:
        for row, weight in rows:
            if self.given.mode is Changelog.UPSERT:
                self.rows = [r for r in self.rows if r[0] != row[0]]
                if weight > 0:
                    self.rows.append(row)
            elif weight > 0:
                self.rows.append(row)
            else:
                self.rows.remove(row)

    def arrow(self) -> pa.Table:
        rows = [dict(zip(NAMES, row, strict=True)) for row in self.rows]
        return pa.Table.from_pylist(rows, SCHEMA)


def main() -> None:
    """Try many seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--stop", type=int, default=5, help="how many failures to show before giving up")
    arguments = parser.parse_args()
    failed = 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        try:
            check(make_case(seed))
        except Exception as error:
            failed += 1
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
            if arguments.stop == 1:
                raise
            if failed >= arguments.stop:
                break
    print(f"{failed} of {arguments.seeds} seeds failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
