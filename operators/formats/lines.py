"""Decoding of blocks of text records: the whole block at once, and where that fails only the failing records singly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from millrace.operators.batch import Batch, Int64Array
from millrace.operators.formats.records import (
    PAYLOAD_BYTES_MAX,
    BadRow,
    Decoded,
    RecordError,
    TextLayout,
    empty_batch,
)

_BOM = b"\xef\xbb\xbf"
SINGLE_ROWS = 64
"""A failing stretch of this many records or fewer is decoded record by record."""


class Mismatch(Exception):
    """The fast path can't take this block; nothing is said about which record is at fault."""


class LineDecoder(ABC):
    """Decodes blocks of whole records into `schema`'s columns.

    `fast` may refuse a block for any reason, and `slow` decides about a record; every record that `fast` takes `slow`
    takes with the same result, so that what is bad does not depend on how the input was cut.
    """

    def __init__(self, schema: pa.Schema, layout: TextLayout) -> None:
        self.schema = schema
        self.layout = layout
        self._required = [i for i, column in enumerate(schema) if not column.nullable]

    @abstractmethod
    def fast(self, block: bytes, count: int | None) -> pa.RecordBatch:
        """All records of `block` as columns; `count` of them where known. Raises Mismatch or an Arrow error."""

    @abstractmethod
    def slow(self, record: bytes) -> tuple[object, ...]:
        """One record as a row of values. Raises RecordError."""

    def adapt(self, records: Sequence[bytes]) -> bool:
        """Look at the first records of a block that `fast` refused; True where another try may succeed."""
        return False

    def split(self, block: bytes) -> tuple[Int64Array, Int64Array]:
        """Start and end (without line end) of every record that is not blank."""
        return line_bounds(block)

    def complete(self, block: bytes) -> int:
        """How many leading bytes of `block` are whole records."""
        return block.rfind(b"\n") + 1

    def salvage(self, record: bytes) -> int:
        """Of a bad record that spans lines, the length of the part to give up; the rest is decoded anew."""
        return len(record)

    def weights(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Int64Array | None]:
        """Turn decoded records into rows with weights; here each record is one row."""
        return batch, None

    def decode(self, block: bytes) -> Decoded:
        """All good rows of `block` in order, and its bad records. Raises nothing about the data."""
        if not block or block.isspace():
            return Decoded(Batch(empty_batch(self.schema)))
        data = self.attempt(block, None)
        if data is not None:
            return Decoded(self._weighted(data))
        starts, ends = self.split(block)
        sample = [block[starts[i] : ends[i]] for i in range(min(len(starts), 16))]
        if self.adapt(sample):
            data = self.attempt(block, len(starts))
            if data is not None:
                return Decoded(self._weighted(data))
        data, bad = _Isolation(self, block).run(starts, ends)
        return Decoded(self._weighted(data), bad)

    def _weighted(self, data: pa.RecordBatch) -> Batch:
        rows, weights = self.weights(data)
        return Batch(rows, weights)

    def attempt(self, block: bytes, count: int | None) -> pa.RecordBatch | None:
        """What `fast` gives where it takes the whole block and no NOT NULL column holds a NULL."""
        if block.startswith(_BOM):
            # Arrow's readers pass over one at the start of what they are given; within a file it is data.
            return None
        try:
            data = self.fast(block, count)
        except (Mismatch, pa.ArrowException, UnicodeDecodeError, OverflowError):
            return None
        if any(data.column(i).null_count for i in self._required):
            return None
        return data

    @property
    def record_schema(self) -> pa.Schema:
        """Columns of what `fast` and `slow` give."""
        return self.schema


class _Isolation:
    """Finds the bad records of one block: halves what fails until it is short, then goes record by record."""

    def __init__(self, decoder: LineDecoder, block: bytes) -> None:
        self._decoder = decoder
        self._block = block
        self._pieces: list[pa.RecordBatch] = []
        self._rows: list[tuple[object, ...]] = []
        self._bad: list[BadRow] = []
        self._lines = Lines(block)

    def run(self, starts: Int64Array, ends: Int64Array) -> tuple[pa.RecordBatch, list[BadRow]]:
        stack = [(0, len(starts))]
        whole = True
        while stack:
            low, high = stack.pop()
            if high - low <= SINGLE_ROWS:
                for i in range(low, high):
                    self._single(int(starts[i]), int(ends[i]))
                continue
            data = None
            if not whole:
                data = self._decoder.attempt(self._block[starts[low] : ends[high - 1]] + b"\n", high - low)
            whole = False
            if data is not None:
                self._flush()
                self._pieces.append(data)
                continue
            middle = (low + high) // 2
            stack.append((middle, high))
            stack.append((low, middle))
        self._flush()
        schema = self._decoder.record_schema
        data = pa.concat_batches(self._pieces) if self._pieces else empty_batch(schema)
        return data, self._bad

    def _single(self, start: int, end: int) -> None:
        stack = [(start, end)]
        while stack:
            start, end = stack.pop()
            record = self._block[start:end]
            try:
                self._rows.append(self._decoder.slow(record))
                continue
            except RecordError as error:
                given_up = self._decoder.salvage(record)
                line = self._lines.number(start)
                payload = record[:given_up].rstrip(b"\r\n")[:PAYLOAD_BYTES_MAX]
                self._bad.append(BadRow(error.code, error.reason, start, line, payload))
            rest = start + given_up
            if rest < end:
                starts, ends = self._decoder.split(self._block[rest:end])
                spans = zip((starts + rest).tolist(), (ends + rest).tolist(), strict=True)
                stack.extend(reversed(list(spans)))

    def _flush(self) -> None:
        if self._rows:
            self._pieces.append(rows_to_batch(self._rows, self._decoder.record_schema))
            self._rows = []


class Lines:
    """Line numbers (from 0) of offsets in a block; the index is made when first asked."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._ends: Int64Array | None = None

    def number(self, offset: int) -> int:
        """The line that `offset` is in."""
        if self._ends is None:
            self._ends = newline_offsets(self._block)
        return int(np.searchsorted(self._ends, offset, side="left"))


def newline_offsets(block: bytes) -> Int64Array:
    """Offsets of all newlines."""
    return np.flatnonzero(np.frombuffer(block, np.uint8) == 10).astype(np.int64)


def line_bounds(block: bytes) -> tuple[Int64Array, Int64Array]:
    """Start and end (without line end) of every line that is not blank."""
    newlines = newline_offsets(block)
    starts = np.concatenate([np.zeros(1, np.int64), newlines + 1])
    ends = np.concatenate([newlines, np.array([len(block)], np.int64)])
    return without_blanks(block, starts, ends)


def without_blanks(block: bytes, starts: Int64Array, ends: Int64Array) -> tuple[Int64Array, Int64Array]:
    """The bounds less one trailing carriage return, and only of records that are not blank."""
    data = np.frombuffer(block, np.uint8)
    filled = ends > starts
    starts, ends = starts[filled], ends[filled]
    if len(starts) == 0:
        return starts, ends
    ends = ends - (data[ends - 1] == 13)
    keep = ends > starts
    short = np.flatnonzero(data[np.minimum(starts, len(data) - 1)] <= 32)
    for i in short.tolist():
        keep[i] = not block[starts[i] : ends[i]].isspace() and ends[i] > starts[i]
    return starts[keep], ends[keep]


def rows_to_batch(rows: Sequence[tuple[object, ...]], schema: pa.Schema) -> pa.RecordBatch:
    """Converted rows as a batch."""
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    arrays = [pa.array(list(c), field.type) for c, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
