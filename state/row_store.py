"""Payload rows kept in Arrow and found again by number. Knows no key and no operator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.errors import Bug
from millrace.state.words import Addresses, Int32s, Int64s, Kind, cached_kind

_TIERS = ((4096, 32), (16384, 8))
"""(rows, run): a run of so many chunks at the end, each smaller than `rows`, is merged into one."""
_SPARSE_ROWS = 64


class _Chunk:
    """Rows with ascending numbers: consecutive from `first`, or listed where `numbers` is given.

    `alive` has a byte a row, 0 where the row was removed; None says that none was.
    """

    __slots__ = ("alive", "batch", "first", "live", "numbers")

    def __init__(self, batch: pa.RecordBatch, first: int, numbers: Int64s | None = None) -> None:
        self.batch = batch
        self.first = first
        self.numbers = numbers
        self.alive: npt.NDArray[np.uint8] | None = None
        self.live = int(batch.num_rows)

    @property
    def rows(self) -> int:
        return int(self.batch.num_rows)

    @property
    def nbytes(self) -> int:
        own = (0 if array is None else array.nbytes for array in (self.numbers, self.alive))
        return int(self.batch.get_total_buffer_size()) + sum(own)

    def row_numbers(self) -> Int64s:
        """Numbers of the rows that live."""
        numbers = (
            np.arange(self.first, self.first + self.rows, dtype=np.int64)
            if self.numbers is None
            else self.numbers
        )
        return numbers if self.alive is None else numbers[self.alive != 0]

    def compacted(self) -> pa.RecordBatch:
        """The rows that live, in a batch of their own."""
        if self.alive is None:
            return self.batch
        return self.batch.take(pa.array(np.flatnonzero(self.alive)))


class RowStore:
    """Rows of one schema by an int64 number that rises with each append and is never given out again.

    Rows stay in the Arrow chunks they came in; small chunks at the end are merged, and a chunk of which
    most rows were removed is rewritten, so memory follows the rows that live. Numbers never change.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._chunks: list[_Chunk] = []
        self._next = 0
        self._live = 0
        self._table: Addresses = np.zeros((16, 4), np.int64)
        self._columns: dict[int, Addresses] = {}
        self._fresh: dict[int, int] = {-1: 0}

    @cached_property
    def _kernels(self):  # type: ignore[no-untyped-def]
        from millrace.state import row_kernels  # deferred: Numba is slow to import

        return row_kernels

    def __len__(self) -> int:
        return self._live

    @property
    def schema(self) -> pa.Schema:
        """The schema of every row."""
        return self._schema

    @property
    def next_row(self) -> int:
        """The number that the next row will have: a mark for `rows_since`."""
        return self._next

    @property
    def nbytes(self) -> int:
        """Bytes held by the rows and what finds them."""
        tables = self._table.nbytes + sum(table.nbytes for table in self._columns.values())
        return sum(chunk.nbytes for chunk in self._chunks) + tables

    def append(self, batch: pa.RecordBatch) -> Int64s:
        """Keep all rows of `batch`; returns their numbers, which are consecutive."""
        first, rows = self._next, int(batch.num_rows)
        if rows:
            held = batch.get_total_buffer_size()
            if held > 4096 and held > batch.nbytes * 5 // 4 + 4096:
                batch = batch.take(pa.array(np.arange(rows)))
            self._chunks.append(_Chunk(batch, first))
            self._next += rows
            self._live += rows
            self._merge_tail()
        return np.arange(first, first + rows, dtype=np.int64)

    def live(self) -> Int64s:
        """Numbers of all rows that live, ascending."""
        return self.rows_since(0)

    def rows_since(self, mark: int) -> Int64s:
        """Numbers of the rows that live and were appended since `next_row` was `mark`, ascending."""
        parts = []
        for chunk in reversed(self._chunks):
            numbers = chunk.row_numbers()
            parts.append(numbers[np.searchsorted(numbers, mark) :])
            if chunk.first < mark:
                break
        return np.concatenate([np.empty(0, np.int64), *reversed(parts)])

    def gather(
        self, row_numbers: npt.NDArray[np.integer], columns: Sequence[str] | None = None
    ) -> pa.RecordBatch:
        """The rows with these numbers in this order (repeats are fine), all columns or those named."""
        chunks, places = self._locate(row_numbers)
        names = self._schema.names if columns is None else list(columns)
        fields = [self._schema.field(name) for name in names]
        arrays = [self._gather_column(self._schema.get_field_index(n), chunks, places) for n in names]
        if not arrays:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * len(chunks), pa.struct([])))
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def remove(self, row_numbers: npt.NDArray[np.integer]) -> None:
        """Forget these rows, which must live and be distinct."""
        if not len(row_numbers):
            return
        chunks, places = self._locate(row_numbers)
        removed = np.bincount(chunks, minlength=len(self._chunks))
        touched = np.flatnonzero(removed)
        for c in touched.tolist():
            chunk = self._chunks[c]
            if chunk.alive is None:
                chunk.alive = np.ones(chunk.rows, np.uint8)
                self._table[c, 3] = chunk.alive.ctypes.data
            chunk.live -= int(removed[c])
        killed = self._kernels.kill(self._table, chunks, places)
        if killed != len(chunks):
            raise Bug(f"row {row_numbers[killed]} was removed twice")
        self._live -= len(chunks)
        self._compact(touched.tolist())

    def _locate(self, row_numbers: npt.NDArray[np.integer]) -> tuple[Int32s, Int32s]:
        rows = np.ascontiguousarray(row_numbers, np.int64)
        self._refresh_table()
        chunks: Int32s = np.empty(len(rows), np.int32)
        places: Int32s = np.empty(len(rows), np.int32)
        found = self._kernels.locate(rows, self._table[: len(self._chunks)], chunks, places)
        if found != len(rows):
            raise Bug(f"row {rows[found]} was asked for, and it does not live")
        return chunks, places

    def _refresh_table(self) -> None:
        total = len(self._chunks)
        if total > len(self._table):
            self._table = _taller(self._table, total)
        for c in range(self._fresh[-1], total):
            chunk = self._chunks[c]
            numbers = 0 if chunk.numbers is None else chunk.numbers.ctypes.data
            alive = 0 if chunk.alive is None else chunk.alive.ctypes.data
            self._table[c] = (chunk.first, chunk.rows, numbers, alive)
        self._fresh[-1] = total

    def _column_table(self, column: int) -> Addresses:
        """Addresses of one column in every chunk; only what changed since the last call is looked up."""
        total = len(self._chunks)
        table = self._columns.get(column)
        if table is None:
            table = np.zeros((max(16, total), 4), np.int64)
        elif total > len(table):
            table = _taller(table, total)
        self._columns[column] = table
        for c in range(self._fresh.get(column, 0), total):
            table[c] = _addresses(self._chunks[c].batch.column(column))
        self._fresh[column] = total
        return table

    def _gather_column(self, column: int, chunks: Int32s, places: Int32s) -> pa.Array:
        data_type = self._schema.field(column).type
        kind = cached_kind(data_type)
        rows = len(chunks)
        if kind is Kind.NULL:
            return pa.nulls(rows)
        if kind is None or not rows:
            return self._take_column(column, chunks, places)
        kernels, table = self._kernels, self._column_table(column)
        total = len(self._chunks)
        validity = None
        nulls = 0
        if table[:total, 1].any():
            bits = np.empty((rows + 7) // 8, np.uint8)
            nulls = kernels.gather_bits(1, table, chunks, places, bits.ctypes.data)
            validity = pa.py_buffer(bits) if nulls else None
        if kind >= Kind.VAR32:
            narrow = kind is Kind.VAR32
            sources, offsets = np.empty(rows, np.int64), np.empty(rows + 1, np.int64)
            kernels.gather_offsets(narrow, table, chunks, places, sources, offsets)
            if narrow and offsets[-1] >= 2**31:
                raise Bug(f"{rows} rows of {offsets[-1]} bytes were gathered at once, over 2 GiB")
            data = np.empty(int(offsets[-1]), np.uint8)
            kernels.gather_bytes(sources, offsets, data.ctypes.data)
            shown = pa.py_buffer(offsets.astype(np.int32) if narrow else offsets)
            return pa.Array.from_buffers(data_type, rows, [validity, shown, pa.py_buffer(data)], nulls)
        if kind is Kind.BOOL:
            data = np.empty((rows + 7) // 8, np.uint8)
            kernels.gather_bits(0, table, chunks, places, data.ctypes.data)
        else:
            width = data_type.bit_width // 8
            data = np.empty(rows * width, np.uint8)
            kernels.gather_fixed(width, table, chunks, places, data.ctypes.data)
        return pa.Array.from_buffers(data_type, rows, [validity, pa.py_buffer(data)], nulls)

    def _take_column(self, column: int, chunks: Int32s, places: Int32s) -> pa.Array:
        """By Arrow's own `take` a chunk: for types that no kernel reads."""
        data_type = self._schema.field(column).type
        if not len(chunks):
            return pa.array([], data_type)
        order = np.argsort(chunks, kind="stable")
        bounds = np.flatnonzero(np.diff(chunks[order], prepend=-1))
        parts = []
        for part in np.split(order, bounds[1:]):
            taken = self._chunks[chunks[part[0]]].batch.column(column).take(pa.array(places[part]))
            parts.append(taken.dictionary_decode() if pa.types.is_dictionary(data_type) else taken)
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        array = pa.concat_arrays(parts).take(pa.array(back))
        return array if array.type == data_type else array.cast(data_type)

    def _stale_from(self, chunk: int) -> None:
        for column, fresh in self._fresh.items():
            self._fresh[column] = min(fresh, chunk)

    def _merge_tail(self) -> None:
        for rows_max, run in _TIERS:
            start = len(self._chunks)
            while start and self._chunks[start - 1].rows < rows_max:
                start -= 1
            if len(self._chunks) - start >= run:
                self._merge(start, len(self._chunks))

    def _merge(self, start: int, end: int) -> None:
        """Make one chunk of those from `start` to `end`, without the rows that were removed."""
        parts = self._chunks[start:end]
        batch = pa.concat_batches([chunk.compacted() for chunk in parts])
        numbers = np.concatenate([chunk.row_numbers() for chunk in parts])
        merged: list[_Chunk] = []
        if len(numbers):
            first = int(numbers[0])
            dense = int(numbers[-1]) - first + 1 == len(numbers)
            merged.append(_Chunk(batch, first, None if dense else numbers))
        self._chunks[start:end] = merged
        self._stale_from(start)

    def _compact(self, touched: list[int]) -> None:
        """Rewrite the touched chunks that are mostly removed, together with small neighbours."""
        for c in reversed(touched):
            chunk = self._chunks[c]
            if chunk.live and (chunk.rows < _SPARSE_ROWS or chunk.live * 2 > chunk.rows):
                continue
            if not chunk.live:
                del self._chunks[c]
                self._stale_from(c)
                continue
            start = c
            if c and self._chunks[c - 1].live + chunk.live <= _TIERS[0][0]:
                start = c - 1
            self._merge(start, c + 1)


def _taller(table: Addresses, rows: int) -> Addresses:
    out = np.zeros((max(rows, 2 * len(table)), table.shape[1]), np.int64)
    out[: len(table)] = table
    return out


def _addresses(array: pa.Array) -> tuple[int, int, int, int]:
    """Data (at the first row), validity and offsets (at the first row) of an array, and its bit offset."""
    kind = cached_kind(array.type)
    offset = int(array.offset)
    buffers = array.buffers()
    valid = int(buffers[0].address) if buffers[0] is not None and array.null_count else 0
    data = 0 if buffers[-1] is None else int(buffers[-1].address)
    if kind is Kind.VAR32:
        return (data, valid, int(buffers[1].address) + 4 * offset, offset)
    if kind is Kind.VAR64:
        return (data, valid, int(buffers[1].address) + 8 * offset, offset)
    if kind is Kind.BOOL:
        return (data, valid, 0, offset)
    return (data + offset * (array.type.bit_width // 8), valid, 0, offset)
