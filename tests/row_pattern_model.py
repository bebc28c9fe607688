"""A plain backtracking matcher for MATCH_RECOGNIZE, and a maker of random queries: what the operator is held against.

Patterns are ("var", name), ("seq", parts), ("alt", parts), ("rep", part, least, most, reluctant), ("hide", part).
Conditions and measures are `Term`s: their SQL, and how they are computed in Python over (rows, path, at): the rows of
the partition, the (row, variable, shown) of the match so far, and how many of these are to be seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]
Step = tuple[int, str, bool]
Path = tuple[Step, ...]
Compute = Callable[[Sequence[Row], Path], Any]
Pattern = tuple[Any, ...]


class TooLong(Exception):
    """The search takes too many steps."""


@dataclass(frozen=True)
class Term:
    sql: str
    compute: Compute


@dataclass
class Query:
    pattern: Pattern
    define: dict[str, Term]
    measures: list[tuple[str, Term]]
    subsets: dict[str, list[str]] = field(default_factory=dict)
    skip: tuple[str, str | None] = ("past last row", None)
    within: int | None = None
    all_rows: bool = False

    def sql(self, source: str = "s") -> str:
        parts = ["PARTITION BY k ORDER BY ts, i"]
        if self.measures:
            parts.append("MEASURES " + ", ".join(f"{term.sql} AS {name}" for name, term in self.measures))
        parts.append("ALL ROWS PER MATCH" if self.all_rows else "ONE ROW PER MATCH")
        kind, target = self.skip
        parts.append(f"AFTER MATCH SKIP {kind.upper()} {target or ''}")
        parts.append(f"PATTERN ({written(self.pattern)})")
        if self.within is not None:
            parts.append(f"WITHIN INTERVAL '{self.within}' SECOND")
        if self.subsets:
            parts.append("SUBSET " + ", ".join(f"{n} = ({', '.join(m)})" for n, m in self.subsets.items()))
        parts.append("DEFINE " + ", ".join(f"{name} AS {term.sql}" for name, term in self.define.items()))
        return f"SELECT * FROM {source} MATCH_RECOGNIZE ({' '.join(parts)}) AS m"

    def members(self, name: str | None) -> set[str]:
        """The variables that a name in a term stands for."""
        return set(self.subsets.get(name or "", [name or ""]))


def written(pattern: Pattern) -> str:
    match pattern:
        case ("var", name):
            return str(name)
        case ("seq", parts):
            return " ".join(f"({written(p)})" if p[0] == "alt" else written(p) for p in parts)
        case ("alt", parts):
            return " | ".join(written(p) for p in parts)
        case ("hide", part):
            return "{- " + written(part) + " -}"
        case ("rep", part, least, most, reluctant):
            marks = {(0, None): "*", (1, None): "+", (0, 1): "?"}
            mark = marks.get((least, most)) or (
                f"{{{least}}}" if least == most else f"{{{least},{most or ''}}}"
            )
            inner = written(part) if part[0] == "var" else f"({written(part)})"
            return inner + mark + ("?" if reluctant else "")
    raise AssertionError(pattern)


class Matcher:
    """Backtracking, written out: every way through the pattern in order of preference."""

    def __init__(self, query: Query, rows: Sequence[Row], budget: int = 20_000) -> None:
        self.query = query
        self.rows = rows
        self.budget = budget

    def ways(self, pattern: Pattern, at: int, path: Path, shown: bool = True) -> Iterator[tuple[int, Path]]:
        self.budget -= 1
        if self.budget < 0:
            raise TooLong
        match pattern:
            case ("var", name):
                if at < len(self.rows) and self._timely(at, path):
                    tried = (*path, (at, name, shown))
                    condition = self.query.define.get(name)
                    if condition is None or condition.compute(self.rows, tried) is True:
                        yield at + 1, tried
            case ("seq", parts):
                if not parts:
                    yield at, path
                    return
                for there, so_far in self.ways(parts[0], at, path, shown):
                    yield from self.ways(("seq", parts[1:]), there, so_far, shown)
            case ("alt", parts):
                for part in parts:
                    yield from self.ways(part, at, path, shown)
            case ("hide", part):
                yield from self.ways(part, at, path, False)
            case ("rep", part, least, most, reluctant):
                yield from self._repeat(part, least, most, reluctant, at, path, shown)

    def _repeat(
        self, part: Pattern, least: int, most: int | None, reluctant: bool, at: int, path: Path, shown: bool
    ) -> Iterator[tuple[int, Path]]:
        if least == 0 and reluctant:
            yield at, path
        if most is None or most > 0:
            for there, so_far in self.ways(part, at, path, shown):
                if there == at and least == 0 and most is None:
                    continue  # one of endless rounds without a row leads nowhere new
                fewer = None if most is None else most - 1
                yield from self._repeat(part, max(0, least - 1), fewer, reluctant, there, so_far, shown)
        if least == 0 and not reluctant:
            yield at, path

    def _timely(self, at: int, path: Path) -> bool:
        within = self.query.within
        first = path[0][0] if path else at
        return within is None or self.rows[at]["t"] - self.rows[first]["t"] < within

    def matches(self) -> Iterator[Path]:
        start = 0
        while start < len(self.rows):
            found = next((path for _, path in self.ways(self.query.pattern, start, ())), None)
            if found is None:
                start += 1
                continue
            assert found, "an empty match"
            yield found
            start = self._after(found)

    def _after(self, path: Path) -> int:
        kind, target = self.query.skip
        if kind == "past last row":
            return path[-1][0] + 1
        if kind == "to next row":
            return path[0][0] + 1
        at = [row for row, name, _ in path if name in self.query.members(target)]
        return at[0] if kind == "to first" else at[-1]


def expected(query: Query, rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    """Output rows as tuples: k, measures; or with ALL ROWS k, ts (µs), i, measures, v."""
    out: list[tuple[Any, ...]] = []
    for key in {row["k"] for row in rows}:
        mine = sorted((row for row in rows if row["k"] == key), key=lambda r: (r["t"], r["i"]))
        for number, path in enumerate(Matcher(query, mine).matches(), 1):
            whole = Matched(mine, path, number)
            if not query.all_rows:
                out.append((key, *(whole.value(term, len(path)) for _, term in query.measures)))
                continue
            for at, (row, _, shown) in enumerate(path, 1):
                if shown:
                    values = [whole.value(term, at) for _, term in query.measures]
                    out.append((key, mine[row]["t"], mine[row]["i"], *values, mine[row]["v"]))
    return out


@dataclass
class Matched:
    rows: Sequence[Row]
    path: Path
    number: int

    def value(self, term: Term, seen: int) -> Any:
        if term.sql == "MATCH_NUMBER()":
            return self.number
        final = term.sql.startswith("FINAL ")
        return term.compute(self.rows, self.path if final else self.path[:seen])


# --- random queries -----------------------------------------------------------------------------------------------


class Maker:
    """Makes random queries over columns k, ts, i, v (nullable integers) and x (floats)."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.names = ["A", "B", "C", "D"][: rng.randint(1, 4)]
        self.query = Query(("seq", []), {}, [])

    def make(self) -> Query:
        rng, query = self.rng, self.query
        query.pattern = self.pattern(3)
        used = sorted(_names(query.pattern))
        self.names = used
        if len(used) > 1 and rng.random() < 0.4:
            query.subsets["U"] = rng.sample(used, 2)
        plain = rng.random() < 0.35
        for name in used:
            if rng.random() < 0.85:
                query.define[name] = self.condition(name, 2, plain=plain)
        if not query.define:
            query.define[used[0]] = self.condition(used[0], 1, plain=plain)
        query.all_rows = rng.random() < 0.4
        query.within = rng.choice([None, None, 3, 8])
        kinds = ["past last row"] * 3 + ["to next row"] * 2 + ["to first", "to last"]
        kind = rng.choice(kinds)
        query.skip = (kind, rng.choice([*used, *query.subsets]) if kind in ("to first", "to last") else None)
        for number in range(rng.randint(1, 4)):
            query.measures.append((f"m{number}", self.measure()))
        return query

    def pattern(self, depth: int) -> Pattern:
        rng = self.rng
        kind = rng.choice(["var", "seq", "seq", "alt", "rep", "rep", "hide"]) if depth else "var"
        match kind:
            case "seq":
                return ("seq", [self.pattern(depth - 1) for _ in range(rng.randint(2, 3))])
            case "alt":
                return ("alt", [self.pattern(depth - 1) for _ in range(2)])
            case "rep":
                least, most = rng.choice([(0, None), (1, None), (0, 1), (2, 2), (1, 3), (2, None), (0, 2)])
                return ("rep", self.pattern(depth - 1), least, most, rng.random() < 0.3)
            case "hide":
                return ("hide", self.pattern(0))
        return ("var", rng.choice(self.names))

    def condition(self, own: str, depth: int, *, plain: bool) -> Term:
        rng = self.rng
        kind = rng.choice(["compare"] * 4 + ["and", "or", "null", "not"]) if depth else "compare"
        if kind in ("and", "or"):
            left, right = (self.condition(own, depth - 1, plain=plain) for _ in range(2))
            return Term(
                f"({left.sql} {kind.upper()} {right.sql})", _joined(kind, left.compute, right.compute)
            )
        if kind == "not":
            inner = self.condition(own, depth - 1, plain=plain)
            return Term(f"(NOT {inner.sql})", _negated(inner.compute))
        if kind == "null":
            term = self.term(own, plain=plain)
            no = rng.random() < 0.5
            compute = term.compute
            return Term(
                f"({term.sql} IS {'NOT ' if no else ''}NULL)", lambda r, p: (compute(r, p) is None) != no
            )
        left = self.term(own, plain=plain)
        right = self.term(own, plain=plain) if rng.random() < 0.6 else self.constant()
        op = rng.choice(["<", "<=", ">", ">=", "<>", "="])
        return Term(f"({left.sql} {op} {right.sql})", _compared(op, left.compute, right.compute))

    def constant(self) -> Term:
        number = self.rng.randint(-4, 9)
        return Term(str(number), lambda r, p: number)

    def term(self, own: str, *, plain: bool) -> Term:
        rng = self.rng
        if plain:
            found = rng.choice([self.reached(own, "LAST", 0, 0), self.shift(None), self.shift(own)])
        else:
            found = rng.choice([self.navigation, self.navigation, self.aggregate, lambda: self.shift(own)])()
        if rng.random() < 0.25:
            number, inner = rng.randint(1, 5), found.compute
            op = rng.choice(["+", "-", "*"])
            return Term(f"({found.sql} {op} {number})", _moved(op, inner, number))
        return found

    def shift(self, name: str | None) -> Term:
        rng = self.rng
        call, sign = rng.choice([("PREV", -1), ("PREV", -1), ("NEXT", 1)])
        count = rng.randint(1, 2)
        column = f"{name}.v" if name else "v"
        inner = self.reached(name, "LAST", 0, sign * count)
        return Term(f"{call}({column}, {count})", inner.compute)

    def navigation(self) -> Term:
        rng = self.rng
        name = rng.choice([None, *self.names, *self.names, *self.query.subsets])
        end = rng.choice(["FIRST", "LAST", "LAST"])
        offset = rng.choice([0, 0, 0, 1, 2])
        found = self.reached(name, end, offset, 0)
        if end == "LAST" and not offset and rng.random() < 0.5:
            return Term(f"{name}.v" if name else "v", found.compute)
        column = f"{name}.v" if name else "v"
        sql = f"{end}({column}, {offset})" if offset or rng.random() < 0.3 else f"{end}({column})"
        if rng.random() < 0.2:
            count = rng.randint(1, 2)
            return Term(f"PREV({sql}, {count})", self.reached(name, end, offset, -count).compute)
        return Term(sql, found.compute)

    def reached(self, name: str | None, end: str, offset: int, shift: int) -> Term:
        members = self.query.members

        def compute(rows: Sequence[Row], path: Path) -> Any:
            at = [row for row, variable, _ in path if name is None or variable in members(name)]
            at = at if end == "FIRST" else at[::-1]
            if offset >= len(at) or not 0 <= at[offset] + shift < len(rows):
                return None
            return rows[at[offset] + shift]["v"]

        return Term(f"{name}.v" if name else "v", compute)

    def aggregate(self) -> Term:
        name = self.rng.choice([None, *self.names, *self.query.subsets])
        call = self.rng.choice(["count", "sum", "min", "max", "avg", "count*"])
        members = self.query.members

        def compute(rows: Sequence[Row], path: Path) -> Any:
            at = [row for row, variable, _ in path if name is None or variable in members(name)]
            values = [rows[row]["v"] for row in at if rows[row]["v"] is not None]
            match call:
                case "count*":
                    return len(at)
                case "count":
                    return len(values)
                case "avg":
                    return sum(values) / len(values) if values else None
                case "sum":
                    return sum(values) if values else None
            return (min if call == "min" else max)(values, default=None)

        column = f"{name}.v" if name else "v"
        stars = f"{name}.*" if name else "*"
        return Term(f"count({stars})" if call == "count*" else f"{call}({column})", compute)

    def measure(self) -> Term:
        rng = self.rng
        kind = rng.choice(["navigation", "navigation", "aggregate", "number", "classifier", "text"])
        if kind == "number":
            return Term("MATCH_NUMBER()", lambda r, p: None)
        if kind == "classifier":
            found = Term("CLASSIFIER()", lambda r, p: p[-1][1])
        elif kind == "text":
            inner = self.reached(None, "FIRST", 0, 0).compute
            found = Term("FIRST(upper(k) || CAST(v AS STRING))", _texted(inner))
        else:
            found = self.navigation() if kind == "navigation" else self.aggregate()
        if "(" in found.sql and rng.random() < 0.3:
            word = rng.choice(["FINAL", "RUNNING"])
            return Term(f"{word} {found.sql}", found.compute)
        return found


def _names(pattern: Pattern) -> set[str]:
    match pattern:
        case ("var", name):
            return {name}
        case ("seq" | "alt", parts):
            return {name for part in parts for name in _names(part)}
    return _names(pattern[1])


def _texted(inner: Compute) -> Compute:
    def compute(rows: Sequence[Row], path: Path) -> Any:
        value = inner(rows, path)
        key = rows[path[0][0]]["k"]
        return None if value is None or key is None else key.upper() + str(value)

    return compute


def _joined(kind: str, left: Compute, right: Compute) -> Compute:
    def compute(rows: Sequence[Row], path: Path) -> bool | None:
        values = (left(rows, path), right(rows, path))
        decides = kind == "or"
        if decides in values:
            return decides
        return None if None in values else not decides

    return compute


def _negated(inner: Compute) -> Compute:
    def compute(rows: Sequence[Row], path: Path) -> bool | None:
        value = inner(rows, path)
        return None if value is None else not value

    return compute


def _moved(op: str, inner: Compute, number: int) -> Compute:
    def compute(rows: Sequence[Row], path: Path) -> Any:
        value = inner(rows, path)
        if value is None:
            return None
        return value + number if op == "+" else value - number if op == "-" else value * number

    return compute


def _compared(op: str, left: Compute, right: Compute) -> Compute:
    def compute(rows: Sequence[Row], path: Path) -> bool | None:
        a, b = left(rows, path), right(rows, path)
        if a is None or b is None:
            return None
        answers = {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b, "=": a == b, "<>": a != b}
        return answers[op]

    return compute
