"""The `console` sink: lines that scroll for appended rows, a table that updates in place for a changelog.

Where standard output is no terminal, a changelog is lines, too: `+` inserts a row and `-` takes it back.
"""

from __future__ import annotations

import datetime
import sys
from dataclasses import dataclass
from typing import ClassVar, Literal, TextIO

import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.batch import Batch
from millrace.operators.connectors.options import Kind, Option, Options
from millrace.operators.connectors.registry import Connector
from millrace.operators.connectors.result_table import ResultTable, Texts
from millrace.operators.connectors.screen import screen
from millrace.operators.operator import Context
from millrace.operators.sink import Changelog, Commit, Sink, SinkSpec

REFRESH_US = 100_000
_WIDEST = 40


@dataclass(frozen=True, slots=True)
class ConsoleSpec(SinkSpec):
    """Rows of `schema`; `key` names the key columns of a changelog. At most `rows` rows of a table are shown."""

    title: ClassVar[str] = "console"
    commit: ClassVar[Commit] = Commit.NONE
    changelogs: ClassVar[frozenset[Changelog]] = frozenset(Changelog)
    schema: pa.Schema
    changelog: Changelog = Changelog.APPEND
    key: tuple[str, ...] = ()
    label: str = ""
    rows: int = 20
    stream: str = "stdout"

    @property
    def input_schema(self) -> pa.Schema:
        return self.schema

    def build(self, context: Context, partition: int) -> Sink:
        stream = sys.stdout if self.stream == "stdout" else sys.stderr
        if self.changelog is not Changelog.APPEND and stream.isatty():
            return TableSink(self, context, stream)
        return LineSink(self, stream)


def shown(value: object) -> str:
    """A value as people read it; NULL for none."""
    match value:
        case None:
            return "NULL"
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.10g}"
        case datetime.datetime():
            return value.isoformat(" ")
        case bytes():
            return value.hex()
        case dict():
            return "{" + ", ".join(f"{name}: {shown(item)}" for name, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(shown(item) for item in value) + "]"
    return str(value)


def _is_number(type_: pa.DataType) -> bool:
    return pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_)


def _columns(batch: Batch) -> list[list[str]]:
    """The columns' values as text; line breaks and control characters are escaped."""
    made = []
    for column in batch.data.columns:
        texts = [shown(value) for value in column.to_pylist()]
        if not pa.types.is_primitive(column.type):
            texts = [t if t.isprintable() else t.encode("unicode_escape").decode() for t in texts]
        made.append(texts)
    return made


class LineSink(Sink):
    """A line a row under a heading, columns aligned by the first batch."""

    def __init__(self, spec: ConsoleSpec, stream: TextIO) -> None:
        self._spec = spec
        self._stream = stream
        self._widths: list[int] = []
        self._right = [_is_number(field.type) for field in spec.schema]

    def write(self, batch: Batch) -> None:
        if not batch.num_rows:
            return
        columns = _columns(batch)
        lines = []
        if not self._widths:
            self._widths = [
                min(max(len(name), *map(len, texts)), _WIDEST)
                for name, texts in zip(self._spec.schema.names, columns, strict=True)
            ]
            lines += self._heading()
        marks = self._marks(batch)
        cells = [
            [text.rjust(width) if right else text.ljust(width) for text in texts]
            for texts, width, right in zip(columns, self._widths, self._right, strict=True)
        ]
        for mark, *row in zip(marks, *cells, strict=True):
            lines.append((mark + " | ".join(row)).rstrip())
        self._stream.write("\n".join(lines) + "\n")

    def publish(self, checkpoint: int, outbox: bytes) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._stream.flush()

    def _heading(self) -> list[str]:
        lead = "" if self._spec.changelog is Changelog.APPEND else "  "
        names = [name.ljust(width) for name, width in zip(self._spec.schema.names, self._widths, strict=True)]
        rule = "-+-".join("-" * width for width in self._widths)
        title = [self._spec.label] if self._spec.label else []
        return [*title, (lead + " | ".join(names)).rstrip(), lead + rule]

    def _marks(self, batch: Batch) -> list[str]:
        if self._spec.changelog is Changelog.APPEND:
            return [""] * batch.num_rows
        if batch.weights is None:
            return ["+ "] * batch.num_rows
        return ["+ " if weight > 0 else "- " for weight in batch.weights.tolist()]


class TableSink(Sink):
    """The rows that hold now, redrawn in place at most ten times a second."""

    def __init__(self, spec: ConsoleSpec, context: Context, stream: TextIO) -> None:
        self._spec = spec
        self._context = context
        self._stream = stream
        names = spec.schema.names
        self._table = ResultTable(
            [names.index(name) for name in spec.key], spec.changelog is Changelog.UPSERT
        )
        self._drawn_at = -REFRESH_US
        self._stale = False

    def write(self, batch: Batch) -> None:
        weights = [1] * batch.num_rows if batch.weights is None else batch.weights.tolist()
        rows: list[Texts] = list(zip(*_columns(batch), strict=True))
        self._table.apply(rows, weights)
        self._stale = True
        if self._context.now() - self._drawn_at >= REFRESH_US:
            self._draw()

    def publish(self, checkpoint: int, outbox: bytes) -> None:
        if self._stale:
            self._draw()

    def close(self) -> None:
        if self._stale:
            self._draw()
        screen(self._stream).release(self)

    def _draw(self) -> None:
        # Deferred: rich is needed by this sink alone and takes a tenth of a second to import.
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(file=self._stream)
        shown = min(self._spec.rows, max(console.height - 8, 1))
        table = Table(title=self._spec.label or None, caption=self._caption(shown), title_justify="left")
        for field in self._spec.schema:
            justify: Literal["left", "right"] = "right" if _is_number(field.type) else "left"
            table.add_column(field.name, justify=justify, overflow="ellipsis", no_wrap=True)
        for row in self._table.latest(shown):
            table.add_row(*(Text(text) for text in row))
        with console.capture() as captured:
            console.print(table)
        screen(self._stream).draw(self, captured.get())
        self._drawn_at = self._context.now()
        self._stale = False

    def _caption(self, shown: int) -> str | None:
        hidden = self._table.count - shown
        return f"and {hidden:,} rows that changed before these" if hidden > 0 else None


def sink(options: Options, schema: pa.Schema, changelog: Changelog, key: tuple[str, ...]) -> SinkSpec:
    """The spec. Raises Invalid MR1460 where no row may be shown."""
    rows = options.integer("rows") or 0
    if rows < 1:
        raise Invalid(
            f"console option rows is {rows}; it is at least 1", code="MR1460", hint="leave it out for 20"
        )
    return ConsoleSpec(
        schema, changelog, key, options.text("title") or "", rows, options.text("stream") or "stdout"
    )


CONNECTOR = Connector(
    name="console",
    doc="Shows rows: lines for appended rows, a table that updates for a changelog.",
    sink_options=(
        Option("title", "text above the rows", aliases=("print-identifier",)),
        Option("rows", "how many rows of a changing table are shown", Kind.INTEGER, default="20"),
        Option("stream", "where to", default="stdout", choices=("stdout", "stderr")),
    ),
    sink=sink,
)
