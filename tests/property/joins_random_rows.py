"""Random inputs: rows of every type with NULLs, duplicates and hot keys, and what happens to them. Knows no query."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa

from millrace.operators.sink import Changelog

Row = tuple[object, ...]
Change = tuple[Row, int]
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("k", pa.int64()),
        ("j", pa.int32()),
        ("s", pa.string()),
        ("v", pa.int64()),
        ("d", pa.decimal128(20, 2)),
        ("f", pa.float64()),
        ("b", pa.bool_()),
        ("e", pa.date32()),
        ("q", pa.decimal64(12, 3)),
        ("ts", pa.timestamp("ms")),
    ]
)
DECLARED = (
    "id BIGINT, k BIGINT, j INT, s STRING, v BIGINT, d DECIMAL(20, 2), f DOUBLE, b BOOLEAN, e DATE,"
    " q DECIMAL(12, 3), ts TIMESTAMP(3)"
)
NAMES = SCHEMA.names
EPOCH = datetime(2024, 1, 1)
DISORDER_S = 3
"""How many seconds a row of a timed input may be behind one that came before it."""
_STRINGS = ("a", "b", "c", "", "ü", "longer than twelve bytes", None)
_FLOATS = (0.0, -0.0, 0.5, -1.25, 2.0, 1e300, float("nan"), float("inf"), None)


@dataclass(frozen=True)
class Input:
    """One input: its name and what its rows mean to those before. A `timed` one has a watermark."""

    name: str
    mode: Changelog
    keyed: bool
    timed: bool = False


@dataclass(frozen=True)
class Step:
    """Rows of one input, or (`rows` empty) the watermark of all inputs being told."""

    input: int
    rows: tuple[Change, ...]
    watermark: datetime | None = None


class Rows:
    """Makes rows and changes of them; `domain` is how many keys there are, `skew` the share of the hot one."""

    def __init__(self, rng: random.Random, inputs: Sequence[Input]) -> None:
        self._rng = rng
        self._inputs = inputs
        self._domain = rng.choice((2, 3, 6))
        self._skew = rng.choice((0.0, 0.3, 0.8))
        self._nulls = rng.choice((0.0, 0.1, 0.4))
        self._held: list[list[Row]] = [[] for _ in inputs]
        self._next_id = [0] * len(inputs)
        self._clock = 0
        """Seconds of event time; times are `DISORDER_S` below it at most."""

    def steps(self, count: int) -> tuple[Step, ...]:
        """So many batches; between those of timed inputs, watermarks."""
        rng = self._rng
        found = []
        for _ in range(count):
            number = rng.randrange(len(self._inputs))
            rows: list[Change] = []
            for _ in range(rng.choice((1, 2, 4, 8))):
                rows += self._change(number)
            found.append(Step(number, tuple(rows), EPOCH + timedelta(seconds=self._clock - DISORDER_S)))
        return tuple(found)

    def _change(self, number: int) -> list[Change]:
        rng, given, held = self._rng, self._inputs[number], self._held[number]
        style = rng.random()
        if given.mode is Changelog.APPEND or not held or style < 0.5:
            row = held[rng.randrange(len(held))] if held and self._repeats(given) else self._fresh(number)
            held.append(row)
            return [(row, 1)]
        old = held.pop(rng.randrange(len(held)))
        if style < 0.75:
            return [(old, -1)]
        new = self._fresh(number, old[0])
        held.append(new)
        return [(new, 1)] if given.mode is Changelog.UPSERT else [(old, -1), (new, 1)]

    def _repeats(self, given: Input) -> bool:
        """Whether the next row is one that is there already."""
        return not given.keyed and not given.timed and self._rng.random() < 0.15

    def _fresh(self, number: int, row_id: object = None) -> Row:
        rng, given = self._rng, self._inputs[number]
        if row_id is None:
            if given.keyed or given.timed:
                self._next_id[number] += 1
                row_id = self._next_id[number]
            else:
                row_id = rng.randint(0, 3)
        return (
            row_id,
            self._or_null(0 if rng.random() < self._skew else rng.randint(0, self._domain)),
            self._or_null(rng.randint(0, self._domain)),
            rng.choice(_STRINGS[: self._domain + 1] if self._nulls == 0 else _STRINGS),
            self._or_null(rng.randint(0, 4)),
            self._or_null(Decimal(rng.choice((0, 1, 2)))),
            rng.choice(_FLOATS),
            rng.choice((True, False, None)),
            self._or_null(date(2024, 1, rng.randint(1, 3))),
            self._or_null(Decimal(rng.choice((-1500, 0, 250, 1000))).scaleb(-3)),
            self._time(given),
        )

    def _time(self, given: Input) -> object:
        rng = self._rng
        if not given.timed:
            return self._or_null(EPOCH + timedelta(seconds=rng.randint(0, self._domain)))
        self._clock += rng.choice((0, 0, 1, 1, 2, 7))
        return EPOCH + timedelta(seconds=self._clock - rng.randint(0, DISORDER_S))

    def _or_null(self, value: object) -> object:
        return None if self._rng.random() < self._nulls else value


class Folded:
    """What an input comes to."""

    def __init__(self, given: Input) -> None:
        self.given = given
        self.rows: list[Row] = []

    def apply(self, rows: Sequence[Change]) -> None:
        """Take changes in."""
        for row, weight in rows:
            if self.given.mode is Changelog.UPSERT:
                self.rows = [r for r in self.rows if r[0] != row[0]]
                if weight > 0:
                    self.rows.append(row)
            elif weight > 0:
                self.rows.append(row)
            else:
                self.rows.remove(row)


def record_batch(rows: Sequence[Row]) -> pa.RecordBatch:
    """Rows as Arrow."""
    columns = list(zip(*rows, strict=True)) if rows else [() for _ in SCHEMA]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
