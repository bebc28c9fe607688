"""The file sink: rows to files that appear whole, once, when their checkpoint is published."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.errors import Corrupt
from millrace.operators.batch import Batch
from millrace.operators.connectors.files.parts import PartWriter, part_writer
from millrace.operators.connectors.files.places import place
from millrace.operators.operator import Context
from millrace.operators.sink import Changelog, Commit, Sink, SinkSpec

OPEN_PARTS_MAX = 64
"""With more folders than this at once, the part longest not written to is finished."""
NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"
_ENDINGS = {"json": "json", "csv": "csv", "parquet": "parquet", "arrow": "arrow", "debezium-json": "json"}
_CODEC_ENDINGS = {"gzip": ".gz", "zstd": ".zst", "bz2": ".bz2", "lz4": ".lz4"}


@dataclass(frozen=True, slots=True)
class FileSinkSpec(SinkSpec):
    """Rows of `schema` to files under `path`, or to the one file `path`.

    `change_column` (`__weight` or `op`) says in the file what a row does; '' where rows are only added. `partition_by`
    are places of columns that name folders (and stay in the rows). `roll_size` in bytes, `roll_interval` in µs.
    """

    title: ClassVar[str] = "file"
    commit: ClassVar[Commit] = Commit.TRANSACTIONAL
    changelogs: ClassVar[frozenset[Changelog]] = frozenset(Changelog)
    path: str
    format: str
    schema: pa.Schema
    change_column: str = ""
    partition_by: tuple[int, ...] = ()
    roll_size: int = 256 << 20
    roll_interval: int | None = None
    delimiter: str = ","
    header: bool = True
    codec: str | None = None
    one_file: bool = False
    overwrite: bool = False

    @property
    def input_schema(self) -> pa.Schema:
        return self.schema

    def build(self, context: Context, partition: int) -> Sink:
        return FileSink(self, partition, context.now)

    def details(self) -> dict[str, str]:
        shown = {"path": self.path, "format": self.format}
        if self.partition_by:
            shown["partition by"] = ", ".join(self.schema.field(i).name for i in self.partition_by)
        return shown


@dataclass(slots=True)
class _Part:
    folder: str
    path: str
    writer: PartWriter
    since: int
    """When it was begun, µs."""


class FileSink(Sink):
    """Writes parts as rows come, seals them under names made of partition and checkpoint, shows them at publish.

    An outbox is the list of a checkpoint's files. A sealed file of a checkpoint below one that is published, and that
    was not itself published, belongs to a checkpoint that was never decided: it is dropped.
    """

    def __init__(self, spec: FileSinkSpec, partition: int, now: Callable[[], int]) -> None:
        self._spec = spec
        self._partition = partition
        self._now = now
        self._place = place(spec.path, partition, spec.format, spec.one_file, spec.overwrite)
        self._open: dict[str, _Part] = {}
        self._finished: list[tuple[str, str]] = []
        self._token = uuid.uuid4().hex[:8]
        self._made = 0

    def write(self, batch: Batch) -> None:
        for folder, rows in self._by_folder(batch):
            part = self._open.pop(folder, None) or self._begin(folder)
            self._open[folder] = part
            part.writer.write(rows)
            old = (
                self._spec.roll_interval is not None and self._now() - part.since >= self._spec.roll_interval
            )
            if (part.writer.size >= self._spec.roll_size or old) and not self._spec.one_file:
                self._finish(folder)

    def _by_folder(self, batch: Batch) -> Iterator[tuple[str, Batch]]:
        columns = self._spec.partition_by
        if not columns:
            yield "", batch
            return
        code = np.zeros(batch.num_rows, np.int64)
        for i in columns:
            found = batch.data.column(i).dictionary_encode(null_encoding="encode")
            code = code * (len(found.dictionary) + 1) + np.asarray(found.indices)
        _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        bounds = np.searchsorted(inverse[order], np.arange(len(first) + 1))
        for group in np.argsort(first).tolist():
            rows = order[bounds[group] : bounds[group + 1]]
            yield self._folder(batch.data, int(first[group])), batch.take(rows)

    def _folder(self, data: pa.RecordBatch, row: int) -> str:
        names = []
        for i in self._spec.partition_by:
            value = data.column(i)[row]
            text = NULL_FOLDER if not value.is_valid else _folder_text(value)
            names.append(f"{quote(data.schema.field(i).name, safe='')}={text}")
        return "/".join(names) + "/"

    def _begin(self, folder: str) -> _Part:
        if len(self._open) >= OPEN_PARTS_MAX:
            self._finish(next(iter(self._open)))
        spec = self._spec
        os.makedirs(self._place.work, exist_ok=True)
        path = os.path.join(self._place.work, f"open-{self._partition}-{uuid.uuid4().hex}.tmp")
        writer = part_writer(
            path, spec.format, spec.schema, spec.change_column, spec.delimiter, spec.header, spec.codec
        )
        return _Part(folder, path, writer, self._now())

    def _finish(self, folder: str) -> None:
        part = self._open.pop(folder)
        part.writer.finish()
        self._finished.append((part.folder, part.path))

    def seal(self, checkpoint: int) -> bytes:
        for folder in list(self._open):
            self._finish(folder)
        spec = self._spec
        ending = _ENDINGS[spec.format]
        if spec.codec is not None and spec.format not in ("parquet", "arrow"):
            ending += _CODEC_ENDINGS.get(spec.codec, f".{spec.codec}")
        files = []
        for folder, path in self._finished:
            stem = f"{self._partition:05d}-{checkpoint:012d}-{self._made:04d}-{self._token}"
            self._made += 1
            staged = f"sealed-{stem}"
            self._place.seal(path, staged)
            files.append([staged, f"{folder}part-{stem}.{ending}"])
        self._finished = []
        self._made = 0
        return json.dumps({"files": files}).encode()

    def publish(self, checkpoint: int, outbox: bytes) -> None:
        try:
            files = [(str(staged), str(final)) for staged, final in json.loads(outbox)["files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupt(
                f"outbox {checkpoint} of '{self._spec.path}' does not decode", code="MR5017"
            ) from error
        if files or not self._spec.one_file:
            self._place.show(checkpoint, files)
        for name in self._place.sealed():
            _, partition, number, *_ = name.split("-")
            if int(partition) == self._partition and int(number) < checkpoint:
                self._place.forget(name)

    def close(self) -> None:
        for part in self._open.values():
            part.writer.abandon()
        for path in [part.path for part in self._open.values()] + [path for _, path in self._finished]:
            if os.path.exists(path):
                os.unlink(path)
        self._open = {}
        self._finished = []
        self._place.close()


def _folder_text(value: pa.Scalar) -> str:
    text = value.as_py() if pa.types.is_string(value.type) else pc.cast(value, pa.string()).as_py()
    return quote(text, safe=" -_.:+") or "__EMPTY__"
