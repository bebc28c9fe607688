"""The file source: which files there are and how each is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import pyarrow as pa

from millrace.operators.connectors.files.columnar_reader import ColumnarReader
from millrace.operators.connectors.files.compression import codec_of
from millrace.operators.connectors.files.storage import Storage, storage
from millrace.operators.connectors.files.text_reader import TextReader
from millrace.operators.formats.csv_lines import CsvDecoder
from millrace.operators.formats.debezium import DebeziumDecoder
from millrace.operators.formats.json_lines import JsonDecoder
from millrace.operators.formats.lines import LineDecoder
from millrace.operators.formats.raw import RawDecoder
from millrace.operators.formats.records import TextLayout
from millrace.operators.operator import Context
from millrace.operators.sink import Changelog
from millrace.operators.source import Polled, Position, Source, SourceSpec, SplitReader

_PLAIN = TextLayout()


@dataclass(frozen=True, slots=True)
class FileSourceSpec(SourceSpec):
    """Files as rows of `schema`; only `columns` (places in it) are produced, all where None.

    `path` is a file, a folder, a glob or a URL. `poll_interval` is in µs.
    """

    title: ClassVar[str] = "file"
    path: str
    format: str
    schema: pa.Schema
    columns: tuple[int, ...] | None = None
    layout: TextLayout = _PLAIN
    follow: bool = False
    poll_interval: int = 1_000_000
    compression: str = "auto"

    @property
    def output_schema(self) -> pa.Schema:
        if self.columns is None:
            return self.schema
        return pa.schema([self.schema.field(i) for i in self.columns])

    @property
    def bounded(self) -> bool:
        return not self.follow

    @property
    def changelog(self) -> Changelog:
        """What the rows mean to those before them."""
        return Changelog.RETRACT if self.format == "debezium-json" else Changelog.APPEND

    def build(self, context: Context) -> Source:
        return FileSource(self, context)

    def with_columns(self, columns: tuple[int, ...]) -> FileSourceSpec:
        mine = range(len(self.schema)) if self.columns is None else self.columns
        return replace(self, columns=tuple(mine[i] for i in columns))

    def details(self) -> dict[str, str]:
        shown = {"path": self.path, "format": self.format}
        if self.columns is not None and len(self.columns) < len(self.schema):
            shown["columns"] = ", ".join(self.output_schema.names)
        if self.follow:
            shown["follow"] = "true"
        return shown


def line_decoder(
    format: str, schema: pa.Schema, layout: TextLayout, names: list[str] | None, declared: list[str]
) -> LineDecoder:
    """The decoder of a line format; `names` are the file's columns where it has a header, else `declared`."""
    match format:
        case "json":
            return JsonDecoder(schema, layout)
        case "csv":
            return CsvDecoder(schema, layout, declared if names is None else names)
        case "debezium-json":
            return DebeziumDecoder(schema, layout)
        case _:
            return RawDecoder(schema, layout)


class FileSource(Source):
    """Splits are files by name; new ones are found at most every `poll_interval`."""

    def __init__(self, spec: FileSourceSpec, context: Context) -> None:
        self._spec = spec
        self._storage: Storage = storage(spec.path)
        self._now = context.now
        self._listed_at: int | None = None
        self._files: list[str] = []

    def discover(self) -> list[str]:
        now = self._now()
        due = self._listed_at is None or (
            self._spec.follow and now - self._listed_at >= self._spec.poll_interval
        )
        if due:
            known = set(self._files)
            self._files += [name for name in self._storage.list() if name not in known]
            self._listed_at = now
        return list(self._files)

    def open(self, split: str, position: Position | None) -> SplitReader:
        if self._spec.columns == ():
            return _RowsOnly(self._reader(split, position, pa.schema([self._spec.schema.field(0)])))
        return self._reader(split, position, self._spec.output_schema)

    def _reader(self, split: str, position: Position | None, schema: pa.Schema) -> SplitReader:
        spec = self._spec
        if spec.format in ("parquet", "arrow"):
            return ColumnarReader(
                split,
                self._storage,
                spec.format,
                schema,
                follow=spec.follow,
                ready=self._pace(),
                position=position,
            )
        declared = list(spec.schema.names)

        def decoder(names: list[str] | None) -> LineDecoder:
            return line_decoder(spec.format, schema, spec.layout, names, declared)

        return TextReader(
            split,
            self._storage,
            codec_of(split, spec.compression),
            decoder,
            header=spec.format == "csv" and spec.layout.header,
            follow=spec.follow,
            ready=self._pace(),
            position=position,
        )

    def _pace(self) -> Callable[[], bool]:
        """A gate that opens at most once every poll interval."""
        interval = min(self._spec.poll_interval, 50_000)
        last = self._now() - interval

        def ready() -> bool:
            nonlocal last
            now = self._now()
            if now - last < interval:
                return False
            last = now
            return True

        return ready


class _RowsOnly(SplitReader):
    """Rows without columns, for queries that only count them; the first column is read to find them."""

    def __init__(self, reader: SplitReader) -> None:
        self._reader = reader
        self.split = reader.split

    def poll(self, max_rows: int) -> Polled | None:
        polled = self._reader.poll(max_rows)
        if polled is None or polled.batch is None:
            return polled
        return Polled(polled.batch.with_data(polled.batch.data.select([])), polled.bad)

    @property
    def position(self) -> Position:
        return self._reader.position

    @property
    def ended(self) -> bool:
        return self._reader.ended

    def close(self) -> None:
        self._reader.close()
