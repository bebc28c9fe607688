"""A source over Arrow batches that are already in memory, by the token that `register` gave. Copies nothing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.batch import Batch
from millrace.operators.connectors.options import Kind, Option, Options
from millrace.operators.connectors.registry import Connector
from millrace.operators.operator import Context
from millrace.operators.source import Polled, Position, Source, SourceSpec, SplitReader

_TABLES: dict[int, tuple[Sequence[pa.RecordBatch], ...]] = {}
_TOKENS = itertools.count(1)


def register(*splits: Sequence[pa.RecordBatch]) -> int:
    """Make batches readable in this process, one sequence a split; the token names them until `forget`."""
    token = next(_TOKENS)
    _TABLES[token] = splits
    return token


def forget(token: int) -> None:
    """Let go of registered batches."""
    _TABLES.pop(token, None)


@dataclass(frozen=True, slots=True)
class ArrowTable(SourceSpec):
    """Batches registered in this process under `token`; `columns` picks from the batches' columns."""

    title: ClassVar[str] = "arrow"
    token: int
    schema: pa.Schema
    columns: tuple[int, ...] | None = None
    name: str = "arrow"

    @property
    def output_schema(self) -> pa.Schema:
        if self.columns is None:
            return self.schema
        return pa.schema([self.schema.field(i) for i in self.columns])

    @property
    def bounded(self) -> bool:
        return True

    def with_columns(self, columns: tuple[int, ...]) -> ArrowTable:
        chosen = columns if self.columns is None else tuple(self.columns[i] for i in columns)
        return ArrowTable(self.token, self.schema, chosen, self.name)

    def build(self, context: Context) -> Source:
        splits = _TABLES.get(self.token)
        if splits is None:
            raise Invalid(
                f"the in-memory table {self.name!r} is not in this process",
                code="MR1490",
                hint="register the Arrow data in the process that runs the job",
            )
        return ArrowSource(splits, None if self.columns is None else list(self.columns))


class ArrowSource(Source):
    """One split for each registered sequence of batches."""

    def __init__(self, splits: tuple[Sequence[pa.RecordBatch], ...], columns: list[int] | None) -> None:
        self._splits = splits
        self._columns = columns

    def discover(self) -> list[str]:
        return [str(number) for number in range(len(self._splits))]

    def open(self, split: str, position: Position | None) -> SplitReader:
        row = int(position["row"]) if position else 0
        return ArrowReader(split, self._splits[int(split)], self._columns, row)


class ArrowReader(SplitReader):
    """Hands on one batch a poll, without a copy; a batch larger than asked for is sliced."""

    def __init__(
        self, split: str, batches: Sequence[pa.RecordBatch], columns: list[int] | None, row: int
    ) -> None:
        self.split = split
        self._batches = batches
        self._columns = columns
        self._row = row
        self._batch = 0
        self._start = row
        while self._batch < len(batches) and self._start >= batches[self._batch].num_rows:
            self._start -= batches[self._batch].num_rows
            self._batch += 1

    def poll(self, max_rows: int) -> Polled | None:
        if self.ended:
            return None
        batch = self._batches[self._batch]
        rows = batch.num_rows - self._start
        if self._columns is not None:
            batch = batch.select(self._columns)
        if self._start or rows > max_rows:
            batch = batch.slice(self._start, max_rows)
        if rows > max_rows:
            self._start += max_rows
        else:
            self._batch += 1
            self._start = 0
        self._row += batch.num_rows
        return Polled(Batch(batch) if batch.num_rows else None)

    @property
    def position(self) -> Position:
        return {"row": self._row}

    @property
    def ended(self) -> bool:
        return self._batch >= len(self._batches)


def _spec(options: Options, schema: pa.Schema | None, format: str | None) -> SourceSpec:
    token = options.integer("token")
    assert token is not None
    if token not in _TABLES:
        raise Invalid(
            f"there is no Arrow data with token {token} in this process",
            code="MR1490",
            hint="register it: millrace.operators.connectors.arrow.register(batches)",
        )
    found = next((batches[0].schema for batches in _TABLES[token] if batches), schema)
    if found is None:
        raise Invalid("Arrow data without a batch needs declared columns", code="MR1491")
    if schema is None:
        return ArrowTable(token, found)
    missing = [name for name in schema.names if name not in found.names]
    if missing or any(found.field(field.name).type != field.type for field in schema):
        raise Invalid(
            f"the Arrow data does not have the declared columns {', '.join(missing) or schema.names}",
            code="MR1492",
            hint=f"its columns are {', '.join(f'{f.name} {f.type}' for f in found)}",
        )
    return ArrowTable(token, found, tuple(found.get_field_index(name) for name in schema.names))


CONNECTOR = Connector(
    "arrow",
    "Arrow batches in the memory of this process",
    source_options=(Option("token", "what `register` answered", Kind.INTEGER, required=True),),
    source=_spec,
)
