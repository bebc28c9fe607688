"""Random queries with joins of every kind, and what is built on joins. Runs none.

A query is written once for both engines. `{…}` marks what they spell differently; `Query.batch` is DuckDB's text.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.property.joins_random_rows import NAMES, Input

from millrace.operators.sink import Changelog

EXACT = ("id", "k", "j", "s", "v", "d", "b", "e", "q", "ts")
"""Columns by which an order is the same in both engines."""


@dataclass(frozen=True)
class Query:
    """`every_step`: the folded output is the answer after each step, not only when all input has ended."""

    sql: str
    batch: str
    every_step: bool = True
    looks_up: bool = False
    """Rows of the first input meet the second one as it is when they come."""

    @classmethod
    def same(cls, sql: str) -> Query:
        """What both engines spell alike."""
        return cls(sql, sql)

    @property
    def of_all(self) -> bool:
        """Whether it is one row of all that there is."""
        return self.sql.startswith("SELECT count(*) AS g")


def random_query(rng: random.Random, inputs: Sequence[Input]) -> Query:
    """A query over inputs of which those that are `timed` have a watermark."""
    if inputs[0].timed:
        return _timed_query(rng, inputs)
    if rng.random() < 0.08 and inputs[0].mode is Changelog.APPEND:
        return _lookup(rng, inputs)
    return Query.same(_regular(rng, inputs))


# Regular joins


def _regular(rng: random.Random, inputs: Sequence[Input]) -> str:
    seen = [0]
    text = f"{inputs[0].name} AS a0"
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
    return _shown(rng, seen, text, where)


def _shown(rng: random.Random, seen: Sequence[int], text: str, where: Sequence[str]) -> str:
    """What is made of a join's rows: columns of them, an aggregate, or the first few."""
    filtered = f" WHERE {' AND '.join(where)}" if where else ""
    style = rng.random()
    if style < 0.35:
        grouped = _grouped(rng, seen, text, filtered)
        return _grouped_again(rng, grouped) if rng.random() < 0.2 else grouped
    if style < 0.6:
        return _ranked(rng, seen, text, filtered)
    columns = [f"a{n}.{c} AS {c}{n}" for n in seen for c in NAMES if rng.random() < 0.4]
    columns += [f"a{seen[0]}.v + 1 AS w"] if rng.random() < 0.3 else []
    distinct = "DISTINCT " if rng.random() < 0.15 else ""
    return f"SELECT {distinct}{', '.join(columns) or 'a0.k AS k'} FROM {text}{filtered}"


def _grouped(rng: random.Random, seen: Sequence[int], text: str, filtered: str) -> str:
    a = f"a{rng.choice(seen)}"
    group = rng.choice([f"a{n}.{c}" for n in seen for c in ("k", "s", "j", "b", "e", "q", "f", "d")])
    calls = rng.sample(
        (
            f"sum({a}.v)",
            f"sum({a}.d)",
            f"sum({a}.q)",
            f"sum(CASE WHEN {a}.f < 3 THEN {a}.f END)",
            *(f"{call}({a}.{c})" for call in ("min", "max") for c in NAMES if c != "b"),
            *(f"count(DISTINCT {a}.{c})" for c in ("k", "s", "v", "d", "e", "b", "q", "ts")),
            f"count({a}.v)",
            f"sum(DISTINCT {a}.v)",
            f"count(*) FILTER (WHERE {a}.v > 1)",
            f"bool_or({a}.b)",
            f"bool_and({a}.b)",
        ),
        rng.randint(1, 4),
    )
    shown = ", ".join(f"{call} AS c{i}" for i, call in enumerate(calls))
    having = " HAVING count(*) > 1" if rng.random() < 0.15 else ""
    if rng.random() < 0.1:
        return f"SELECT count(*) AS g, {shown} FROM {text}{filtered}"
    return f"SELECT {group} AS g, count(*) AS n, {shown} FROM {text}{filtered} GROUP BY {group}{having}"


def _grouped_again(rng: random.Random, inner: str) -> str:
    if " AS n," not in inner:
        return inner
    call = rng.choice(("max(n)", "min(n)", "sum(n)", "count(DISTINCT n)"))
    return f"SELECT n % 2 AS odd, {call} AS c, count(*) AS m FROM ({inner}) AS i GROUP BY n % 2"


def _ranked(rng: random.Random, seen: Sequence[int], text: str, filtered: str) -> str:
    """The first rows of an order in which only equal rows are equal, or ranks that tell equal rows apart by none."""
    names = [f"{c}{n}" for n in seen for c in EXACT if rng.random() < 0.35] or [f"k{seen[0]}", f"v{seen[0]}"]
    columns = ", ".join(f"a{name[-1]}.{name[:-1]} AS {name}" for name in names)
    rows = f"SELECT {columns} FROM {text}{filtered}"
    function = rng.choice(("ROW_NUMBER", "ROW_NUMBER", "RANK", "DENSE_RANK", "LIMIT"))
    partition = [] if rng.random() < 0.2 or function == "LIMIT" else rng.sample(names, 1)
    order = rng.sample(names, len(names))
    if function in ("RANK", "DENSE_RANK"):
        order = order[: rng.randint(1, len(order))]
    by = ", ".join(
        f"{name} {rng.choice(('ASC', 'DESC'))} NULLS {rng.choice(('FIRST', 'LAST'))}" for name in order
    )
    limit = rng.choice((1, 1, 2, 3, 5))
    if function == "LIMIT":
        offset = f" OFFSET {rng.randint(1, 3)}" if rng.random() < 0.3 else ""
        return f"SELECT * FROM ({rows} ORDER BY {by} LIMIT {limit}{offset}) AS l"
    within = f"PARTITION BY {partition[0]} " if partition else ""
    ranks = f"SELECT *, {function}() OVER ({within}ORDER BY {by}) AS r FROM ({rows}) AS i"
    shown = ", ".join(names) + (", r" if rng.random() < 0.5 else "")
    kept = rng.choice(
        (f"r <= {limit}", f"r <= {limit}", f"r = {limit}", f"r > 1 AND r <= {limit + 1}", "r > 0")
    )
    return f"SELECT {shown} FROM ({ranks}) AS o WHERE {kept}"


def _condition(rng: random.Random, seen: Sequence[int], number: int) -> str:
    other, own = f"a{rng.choice(seen)}", f"a{number}"
    parts = []
    style = rng.random()
    if style < 0.35:
        parts.append(f"{other}.k = {own}.k")
    elif style < 0.6:
        key = rng.choice(("s", "f", "b", "e", "q", "d", "ts", "v"))
        parts.append(f"{other}.{key} = {own}.{key}")
    elif style < 0.7:
        parts.append(f"{other}.id = {own}.id")
    elif style < 0.78:
        parts.append(f"{other}.k = {own}.j")
    elif style < 0.86:
        parts += [f"{other}.k = {own}.k", f"{own}.s = {other}.s"]
    elif style < 0.93:
        key = rng.choice(("k", "s", "e"))
        parts.append(f"{other}.{key} IS NOT DISTINCT FROM {own}.{key}")
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
                    f"{other}.f < {own}.f",
                    f"{other}.e >= {own}.e",
                    f"{own}.b",
                )
            )
        )
    return " AND ".join(parts)


def _filter(rng: random.Random, number: int) -> str:
    a = f"a{number}"
    return rng.choice(
        (
            f"{a}.v > 0",
            f"{a}.k IS NOT NULL",
            f"{a}.s <> 'c'",
            f"({a}.v < 3 OR {a}.s IS NULL)",
            f"{a}.b IS NOT TRUE",
            f"{a}.f > 0",
            f"{a}.e < DATE '2024-01-03'",
        )
    )


def _subquery(rng: random.Random, seen: Sequence[int], inputs: Sequence[Input]) -> str:
    a = f"a{rng.choice(seen)}"
    table = rng.choice(inputs).name
    key = rng.choice(("k", "k", "s", "j", "e", "q"))
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
    call = rng.choice(
        ("max(b.v)", "count(*)", "sum(b.v) + 1", "coalesce(min(b.v), 7)", "count(DISTINCT b.v)")
    )
    value = f"(SELECT {call} FROM {table} AS b WHERE b.{key} = {a}.{key})"
    return f"{a}.v {rng.choice(('<', '=', '>='))} {value}"


# Joins with a table as it is


def _lookup(rng: random.Random, inputs: Sequence[Input]) -> Query:
    kind = rng.choice(("JOIN", "LEFT JOIN"))
    condition = rng.choice(
        ("a0.k = a1.k", "a0.k = a1.k AND a0.v < a1.v", "a0.s = a1.s", "a0.id = a1.id", "a0.e = a1.e")
    )
    columns = ", ".join(
        f"a{n}.{c} AS {c}{n}" for n in (0, 1) for c in NAMES if c == "k" or rng.random() < 0.4
    )
    text = f"SELECT {columns} FROM {inputs[0].name} AS a0 {kind} {inputs[1].name}{{}} AS a1 ON {condition}"
    return Query(text.format(" FOR SYSTEM_TIME AS OF PROCTIME()"), text.format(""), looks_up=True)


# Joins on time


def _timed_query(rng: random.Random, inputs: Sequence[Input]) -> Query:
    made = rng.choice((_interval, _interval, _window, _window_aggregates, _asof))
    return made(rng, inputs)


def _interval(rng: random.Random, inputs: Sequence[Input]) -> Query:
    kind = rng.choice(("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN"))
    low, high = rng.choice(((-4, 6), (0, 5), (2, 5), (-5, -1), (0, 0)))
    key = rng.choice(("k", "s", "e"))
    within = rng.choice(
        (
            f"a1.ts BETWEEN a0.ts + INTERVAL '{low}' SECOND AND a0.ts + INTERVAL '{high}' SECOND",
            f"a0.ts <= a1.ts - INTERVAL '{low}' SECOND AND a1.ts < a0.ts + INTERVAL '{high + 1}' SECOND",
        )
    )
    condition = f"a0.{key} = a1.{key} AND {within}"
    condition += rng.choice(("", "", " AND a0.v < a1.v", " AND a1.b"))
    text = f"{inputs[0].name} AS a0 {kind} {inputs[1].name} AS a1 ON {condition}"
    seen = [0] if kind.split()[0] in ("SEMI", "ANTI") else [0, 1]
    every = kind == "JOIN"
    if len(inputs) > 2:
        more = rng.choice(("JOIN", "LEFT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN"))
        text += f" {more} {inputs[2].name} AS a2 ON {_condition(rng, seen, 2)}"
        seen += [] if more in ("SEMI JOIN", "ANTI JOIN") else [2]
    elif 0 in seen and kind in ("JOIN", "LEFT JOIN", "SEMI JOIN") and rng.random() < 0.25:
        return _tumbled(text, rng.choice(("a0", "a1")) if kind == "JOIN" else "a0")
    sql = _shown(rng, seen, text, [])
    return Query(sql, sql, every)


def _tumbled(text: str, side: str) -> Query:
    """A window over a join by the time of one side: the rows of each, once it is over."""
    calls = "count(*) AS n, sum(v) AS total, max(q) AS high"
    rows = f"SELECT a0.k AS k, a0.v AS v, a0.q AS q, {side}.ts AS ts FROM {text}"
    sql = f"SELECT k, window_start, {calls} FROM ({rows}) AS i GROUP BY k, TUMBLE(ts, INTERVAL '5' SECOND)"
    batch = f"SELECT k, time_bucket(INTERVAL '5' SECOND, ts) AS w, {calls} FROM ({rows}) AS i GROUP BY k, w"
    return Query(sql, batch, every_step=False)


def _window(rng: random.Random, inputs: Sequence[Input]) -> Query:
    kind = rng.choice(("JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN"))
    size, slide = rng.choice(((4, 4), (6, 3), (6, 2)))
    key = rng.choice(("k", "s", "q"))
    condition = f"a0.{key} = a1.{key} AND a0.window_start = a1.window_start AND a0.window_end = a1.window_end"
    condition += rng.choice(("", "", " AND a0.v < a1.v"))
    ours, theirs = [], []
    for number in (0, 1):
        name = inputs[number].name
        spans = f"INTERVAL '{slide}' SECOND, INTERVAL '{size}' SECOND"
        call = f"TUMBLE(TABLE {name}, DESCRIPTOR(ts), INTERVAL '{size}' SECOND)"
        ours.append(
            f"TABLE({call if size == slide else f'HOP(TABLE {name}, DESCRIPTOR(ts), {spans})'}) AS a{number}"
        )
        theirs.append(f"({_windows(name, size, slide)}) AS a{number}")
    seen = [0] if kind.split()[0] in ("SEMI", "ANTI") else [0, 1]
    columns = ", ".join(
        f"a{n}.{c} AS {c}{n}"
        for n in seen
        for c in ("window_start", *NAMES)
        if c in ("window_start", "id") or rng.random() < 0.3
    )
    text = f"SELECT {columns} FROM {{}} {kind} {{}} ON {condition}"
    return Query(text.format(*ours), text.format(*theirs), every_step=kind == "JOIN")


def _windows(name: str, size: int, slide: int) -> str:
    """DuckDB's rows of a table once for each of their windows, `size` long and one each `slide` seconds."""
    start = f"time_bucket(INTERVAL '{slide}' SECOND, ts) - to_seconds(n * {slide})"
    return (
        f"SELECT *, {start} AS window_start, {start} + INTERVAL '{size}' SECOND AS window_end"
        f" FROM {name}, range({size // slide}) AS r(n)"
    )


def _window_aggregates(rng: random.Random, inputs: Sequence[Input]) -> Query:
    """Two aggregates by window, joined."""
    kind = rng.choice(("JOIN", "LEFT JOIN", "FULL JOIN"))
    calls = "count(*) AS n, sum(v) AS total, max(e) AS high, count(DISTINCT s) AS names"
    ours, theirs = [], []
    for number in (0, 1):
        name = inputs[number].name
        window = f"TABLE(TUMBLE(TABLE {name}, DESCRIPTOR(ts), INTERVAL '5' SECOND))"
        shown = "SELECT k, window_start AS ws, window_end AS we"
        ours.append(f"({shown}, {calls} FROM {window} GROUP BY k, window_start, window_end) AS a{number}")
        theirs.append(
            f"({shown}, {calls} FROM ({_windows(name, 5, 5)}) AS w GROUP BY k, window_start, window_end) AS a{number}"
        )
    columns = "a0.k AS k, a0.ws AS ws, a0.n AS n0, a0.total AS t0, a0.high AS h0, a1.n AS n1, a1.total AS t1, a1.names AS names"
    text = f"SELECT {columns} FROM {{}} {kind} {{}} ON a0.k = a1.k AND a0.ws = a1.ws AND a0.we = a1.we"
    return Query(text.format(*ours), text.format(*theirs), every_step=False)


def _asof(rng: random.Random, inputs: Sequence[Input]) -> Query:
    """To each row the one of the other side that is nearest before or after; equal times are decided by nothing."""
    left = rng.random() < 0.5
    sign = rng.choice((">=", ">", "<=", "<"))
    key = rng.choice(("k", "s"))
    before = sign in (">=", ">")
    tolerance = rng.choice((None, None, 5))
    apart = "a0.ts - a1.ts" if before else "a1.ts - a0.ts"
    more = "" if tolerance is None else f" AND {apart} <= INTERVAL '{tolerance}' SECOND"
    columns = "a0.id AS id, a0.k AS k, a0.v AS v, a0.ts AS ts, a1.ts AS other"
    word = "LEFT " if left else ""
    ours = (
        f"SELECT {columns} FROM {inputs[0].name} AS a0 ASOF {word}JOIN {inputs[1].name} AS a1"
        f" MATCH_CONDITION (a0.ts {sign} a1.ts{more}) ON a0.{key} = a1.{key}"
    )
    best = "max" if before else "min"
    found = (
        f"(SELECT {best}(b.ts) FROM {inputs[1].name} AS b WHERE b.{key} = a0.{key} AND a0.ts {sign} b.ts"
        f"{more.replace('a1.', 'b.')})"
    )
    theirs = (
        f"SELECT id, k, v, ts, other FROM (SELECT a0.*, {found} AS other FROM {inputs[0].name} AS a0) AS i"
    )
    theirs += "" if left else " WHERE other IS NOT NULL"
    return Query(ours, theirs, every_step=False)
