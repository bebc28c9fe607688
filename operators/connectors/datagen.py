"""The `datagen` source: rows by rules, each a function of (seed, row number), at a rate or as fast as possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.batch import Batch
from millrace.operators.connectors.datagen_columns import Column, column
from millrace.operators.connectors.options import Kind, Option, Options
from millrace.operators.connectors.pacing import Pace
from millrace.operators.connectors.registry import Connector
from millrace.operators.operator import Context
from millrace.operators.source import Polled, Position, Source, SourceSpec, SplitReader


@dataclass(frozen=True, slots=True)
class DatagenSpec(SourceSpec):
    """Columns, and by what rules they are made. `rate` is in rows a second over all splits, 0 for no limit.

    `rules` holds for some columns their parameters, by column name. `columns` are those to make, all where None.
    """

    title: ClassVar[str] = "datagen"
    schema: pa.Schema
    rows: int | None = None
    rate: float = 0.0
    seed: int = 0
    splits: int = 1
    rules: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    columns: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name, value, least in (
            ("rows", self.rows or 0, 0),
            ("rate", self.rate, 0),
            ("splits", self.splits, 1),
        ):
            if not least <= value < float("inf"):
                raise Invalid(f"datagen option {name} is {value}; it is at least {least}", code="MR1455")

    @property
    def output_schema(self) -> pa.Schema:
        return (
            self.schema if self.columns is None else pa.schema([self.schema.field(i) for i in self.columns])
        )

    @property
    def bounded(self) -> bool:
        return self.rows is not None

    def build(self, context: Context) -> DatagenSource:
        return DatagenSource(self, context)

    def with_columns(self, columns: tuple[int, ...]) -> DatagenSpec:
        chosen = columns if self.columns is None else tuple(self.columns[i] for i in columns)
        return replace(self, columns=chosen)

    def details(self) -> dict[str, str]:
        return {
            "rows": "unbounded" if self.rows is None else str(self.rows),
            "rate": f"{self.rate:g}/s" if self.rate else "unlimited",
            "seed": str(self.seed),
            "splits": str(self.splits),
        }

    def generators(self) -> tuple[list[Column], int | None]:
        """The columns to make, and after how many rows a sequence ends (None: never)."""
        rules = dict(self.rules)
        step_us = max(1, round(1_000_000 / self.rate)) if self.rate else 1_000
        made = [
            column(field, dict(rules.get(field.name, ())), self.seed, step_us) for field in self.output_schema
        ]
        return [generate for generate, _ in made], min(
            (rows for _, rows in made if rows is not None), default=None
        )


class DatagenSource(Source):
    """Opens readers on the splits `0` to `splits - 1`; a split has every n-th row."""

    def __init__(self, spec: DatagenSpec, context: Context) -> None:
        self._spec = spec
        self._context = context
        self._generators = spec.generators()[0]

    def discover(self) -> list[str]:
        return [str(split) for split in range(self._spec.splits)]

    def open(self, split: str, position: Position | None) -> DatagenReader:
        row = 0 if position is None else int(position["row"])
        return DatagenReader(self._spec, self._generators, split, row, self._context)


class DatagenReader(SplitReader):
    """Rows of one split in order. The position is the number of the next row."""

    def __init__(
        self, spec: DatagenSpec, generators: Sequence[Column], split: str, row: int, context: Context
    ) -> None:
        self.split = split
        self._schema = spec.output_schema
        self._generators = generators
        self._splits = spec.splits
        self._end = spec.rows
        self._next = row + (int(split) - row) % spec.splits
        self._pace = Pace(spec.rate, row, context) if spec.rate else None

    def poll(self, max_rows: int) -> Polled | None:
        stop = self._next + max_rows * self._splits
        if self._end is not None:
            stop = min(stop, self._end)
        if self._pace is not None:
            stop = min(stop, self._pace.due())
        if stop <= self._next:
            return None
        rows = np.arange(self._next, stop, self._splits, dtype=np.int64)
        self._next += len(rows) * self._splits
        return Polled(Batch(self._rows(rows)))

    @property
    def position(self) -> Position:
        return {"row": self._next}

    @property
    def ended(self) -> bool:
        return self._end is not None and self._next >= self._end

    def _rows(self, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> pa.RecordBatch:
        if not self._generators:
            return pa.RecordBatch.from_arrays([pa.nulls(len(rows))], names=["_"]).select([])
        return pa.RecordBatch.from_arrays([make(rows) for make in self._generators], schema=self._schema)


def source(options: Options, declared: pa.Schema | None, format: str | None) -> SourceSpec:
    """The spec. Raises Invalid MR1435 (a format), MR1450 (unknown column), MR1454 (no columns), and what rules do."""
    if declared is None or not len(declared):
        raise Invalid(
            "datagen needs its columns declared", code="MR1454", hint="CREATE SOURCE name (column TYPE, …)"
        )
    if format is not None:
        raise Invalid(
            f"datagen makes rows itself and takes no format {format!r}", code="MR1435", hint="leave it out"
        )
    rules: dict[str, dict[str, str]] = {}
    for name, text in options.prefixed("fields").items():
        owner = next((n for n in declared.names if name.startswith(f"{n}.")), None)
        if owner is None:
            raise Invalid(
                f"option 'fields.{name}' is of no column",
                code="MR1450",
                hint=f"fields.<column>.<parameter>; the columns are {', '.join(declared.names)}",
            )
        rules.setdefault(owner, {})[name.removeprefix(f"{owner}.")] = text
    spec = DatagenSpec(
        declared,
        options.integer("rows"),
        options.number("rate") or 0.0,
        options.integer("seed") or 0,
        options.integer("splits") or 0,
        tuple(sorted((name, tuple(sorted(rule.items()))) for name, rule in rules.items())),
    )
    _, rows = spec.generators()
    for field in declared:
        if not field.nullable and float(rules.get(field.name, {}).get("null_rate", "0")) > 0:
            raise Invalid(
                f"column {field.name!r} is NOT NULL and can not have a null_rate",
                code="MR1452",
                hint="drop one of them",
            )
    return spec if rows is None else replace(spec, rows=rows if spec.rows is None else min(rows, spec.rows))


CONNECTOR = Connector(
    name="datagen",
    doc="Rows made up by rules, for tests and demonstrations.",
    source_options=(
        Option("rows", "how many rows; without it they never end", Kind.INTEGER, aliases=("number-of-rows",)),
        Option(
            "rate", "rows a second, 0 for as fast as possible", Kind.NUMBER, "0", aliases=("rows-per-second",)
        ),
        Option("seed", "equal seeds give equal rows", Kind.INTEGER, default="0"),
        Option("splits", "how many readers may share the work", Kind.INTEGER, default="1"),
        Option(
            "fields.*",
            "fields.<column>.<parameter>: kind, min, max, length, values, null_rate, start, end, …",
        ),
    ),
    source=source,
)
