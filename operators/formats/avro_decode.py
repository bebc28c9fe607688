"""Decodes many Avro records at once into Arrow columns, whatever schemas they were written with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.batch import Int64Array
from millrace.operators.formats.avro_codes import BAD_UTF8, OUT_OF_RANGE, REASONS, TRUNCATED
from millrace.operators.formats.avro_program import AvroMismatch, Node, Program, compile_reader
from millrace.operators.formats.avro_schema import AvroType, arrow_type
from millrace.operators.formats.records import ENCODING, SYNTAX, WRONG_TYPE
from millrace.operators.formats.records import OUT_OF_RANGE as RANGE
from millrace.operators.formats.records import TRUNCATED as CUT

Bytes = npt.NDArray[np.uint8]
_CODES = {TRUNCATED: CUT, BAD_UTF8: ENCODING, OUT_OF_RANGE: RANGE}
_HEX = np.frombuffer("".join(f"{i:02x}" for i in range(256)).encode(), np.uint8).reshape(256, 2)
_UUID = [*range(8), *range(9, 13), *range(14, 18), *range(19, 23), *range(24, 36)]


@dataclass(slots=True)
class AvroColumns:
    """The columns of the records that decoded, in order, and code and reason of the others by place."""

    data: pa.RecordBatch
    bad: dict[int, tuple[str, str]] = field(default_factory=dict)


class AvroDecoder:
    """Reads records into the columns `wanted` of the record `reader`. Not safe for several threads.

    Programs are compiled once for each writer's schema; `AvroMismatch` says that a writer's does not resolve.
    """

    def __init__(self, reader: AvroType, wanted: Sequence[str]) -> None:
        types = {f.name: arrow_type(f.type) for f in reader.fields if f.name in wanted}
        self._reader = reader
        self._wanted = list(wanted)
        self.schema = pa.schema([pa.field(name, types[name]) for name in wanted])
        self._programs: dict[int, _Run | str] = {}

    def decode(
        self, block: bytes, starts: Int64Array, ends: Int64Array, number: int, writer: AvroType
    ) -> AvroColumns:
        """Decode the records of `block` that one schema wrote; `number` tells writers' schemas apart."""
        run = self._programs.get(number)
        if run is None:
            try:
                run = _Run(compile_reader(writer, self._reader, self._wanted), self.schema)
            except AvroMismatch as error:
                run = f"the writer's schema does not resolve: {error}"
            self._programs[number] = run
        if isinstance(run, str):
            return AvroColumns(
                pa.RecordBatch.from_pylist([], schema=self.schema),
                dict.fromkeys(range(len(starts)), (WRONG_TYPE, run)),
            )
        return run.decode(block, starts, ends)


class _Run:
    """A program and the room that its buffers needed last time."""

    def __init__(self, program: Program, schema: pa.Schema) -> None:
        self._program = program
        self._schema = schema
        self._room = np.full(program.level_count, 64, np.int64)

    def decode(self, block: bytes, starts: Int64Array, ends: Int64Array) -> AvroColumns:
        from millrace.operators.formats.avro_kernels import decode_records  # Numba is heavy to import

        program = self._program
        if program.pool:
            block = program.pool + block
            starts, ends = starts + len(program.pool), ends + len(program.pool)
        data = np.frombuffer(block, np.uint8)
        rows = len(starts)
        self._room[0] = rows
        status = np.zeros(rows, np.int64)
        places = np.zeros(rows, np.int64)
        while True:
            bases = np.zeros(len(program.levels) + 1, np.int64)
            np.cumsum(self._room[program.levels], out=bases[1:])
            size = max(int(bases[-1]), 1)
            first, second = np.zeros(size, np.int64), np.zeros(size, np.int64)
            valid = np.zeros(size, np.uint8)
            counts = np.zeros(program.level_count, np.int64)
            code = program.code.copy()
            code[:, 1] = np.where(code[:, 1] >= 0, bases[code[:, 1]], -1)
            full = decode_records(
                data,
                starts,
                ends,
                code,
                program.table,
                first,
                first.view(np.float64),
                second,
                valid,
                self._room,
                counts,
                status,
                places,
                program.depth,
            )
            if full < 0:
                break
            self._room[full] *= 2
        build = _Columns(data, first, second, valid, bases, counts)
        arrays = [build.array(node, f.type) for node, f in zip(program.columns, self._schema, strict=True)]
        if arrays:
            batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        else:
            batch = pa.RecordBatch.from_arrays([pa.nulls(int(counts[0]))], names=["_"]).select([])
        bad = {}
        for i in np.flatnonzero(status).tolist():
            fault, column = int(status[i]), program.column_at(int(places[i]))
            where = f"field '{column}': " if column else ""
            bad[i] = (_CODES.get(fault, SYNTAX), where + REASONS[fault])
        return AvroColumns(batch, bad)


class _Columns:
    """Makes Arrow arrays of what the kernel filled."""

    def __init__(
        self, data: Bytes, first: Int64Array, second: Int64Array, valid: Bytes, bases: Int64Array, counts: Any
    ) -> None:
        self._data = data
        self._first = first
        self._second = second
        self._valid = valid
        self._bases = bases
        self._counts = counts

    def array(self, node: Node, type: pa.DataType) -> pa.Array:
        """The column of one type of the reader's schema."""
        count = int(self._counts[node.level])
        at = int(self._bases[node.slot])
        first, second = self._first[at : at + count], self._second[at : at + count]
        present = self._valid[at : at + count]
        nulls = count - int(np.count_nonzero(present))
        mask = pa.py_buffer(np.packbits(present, bitorder="little")) if nulls else None
        kind = node.type.kind
        if kind == "record":
            arrays = [self.array(child, type.field(i).type) for i, child in enumerate(node.children)]
            return pa.Array.from_buffers(type, count, [mask], nulls, children=arrays)
        if kind in ("array", "map"):
            return self._items(node, type, first, mask, nulls)
        if kind == "enum":
            codes = pa.Array.from_buffers(
                pa.int32(), count, [mask, pa.py_buffer(first.astype(np.int32))], nulls
            )
            symbols = pa.array(node.type.symbols, pa.string())
            return pa.DictionaryArray.from_arrays(codes, symbols).dictionary_decode()
        if pa.types.is_decimal(type):
            body = first if type.bit_width == 64 else np.stack([first, second], axis=1)
            return pa.Array.from_buffers(type, count, [mask, pa.py_buffer(np.ascontiguousarray(body))], nulls)
        if node.type.logical == "uuid" and kind == "fixed":
            return self._uuids(first, second, mask, nulls, type)
        if pa.types.is_string(type) or pa.types.is_binary(type):
            return self._texts(first, second, type, mask, nulls)
        return _numbers(first, type, mask, nulls)

    def _texts(
        self, starts: Int64Array, sizes: Int64Array, type: pa.DataType, mask: pa.Buffer | None, nulls: int
    ) -> pa.Array:
        from millrace.operators.formats.avro_kernels import gather  # Numba is heavy to import

        offsets = np.zeros(len(starts) + 1, np.int32)
        np.cumsum(sizes, out=offsets[1:])
        body = np.empty(int(offsets[-1]), np.uint8)
        gather(self._data, starts, sizes, offsets, body)
        return pa.Array.from_buffers(
            type, len(starts), [mask, pa.py_buffer(offsets), pa.py_buffer(body)], nulls
        )

    def _uuids(
        self, starts: Int64Array, sizes: Int64Array, mask: pa.Buffer | None, nulls: int, type: pa.DataType
    ) -> pa.Array:
        """Sixteen bytes as the 36 characters of a UUID."""
        count = len(starts)
        raw = np.zeros((count, 16), np.uint8)
        kept = np.flatnonzero(sizes)
        raw[kept] = self._data[starts[kept, None] + np.arange(16)]
        text = np.full((count, 36), ord("-"), np.uint8)
        text[:, _UUID] = _HEX[raw].reshape(count, 32)
        offsets = np.arange(0, 36 * count + 1, 36, dtype=np.int32)
        return pa.Array.from_buffers(
            type, count, [mask, pa.py_buffer(offsets), pa.py_buffer(text.reshape(-1))], nulls
        )

    def _items(
        self, node: Node, type: pa.DataType, sizes: Int64Array, mask: pa.Buffer | None, nulls: int
    ) -> pa.Array:
        offsets = np.zeros(len(sizes) + 1, np.int32)
        np.cumsum(sizes, out=offsets[1:])
        if node.key < 0:
            child = self.array(node.children[0], type.value_type)
        else:
            at, count = int(self._bases[node.key]), int(self._counts[node.inner])
            first, second = self._first[at : at + count], self._second[at : at + count]
            keys = self._texts(first, second, pa.string(), None, 0)
            values = self.array(node.children[0], type.item_type)
            child = pa.StructArray.from_arrays([keys, values], fields=[type.key_field, type.item_field])
        return pa.Array.from_buffers(type, len(sizes), [mask, pa.py_buffer(offsets)], nulls, children=[child])


_VIEWS: Mapping[int, type[np.generic]] = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}


def _numbers(first: Int64Array, type: pa.DataType, mask: pa.Buffer | None, nulls: int) -> pa.Array:
    if pa.types.is_boolean(type):
        body: Any = np.packbits(first.astype(np.uint8), bitorder="little")
    elif pa.types.is_floating(type):
        doubles = first.view(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            body = doubles.astype(np.float32) if type.bit_width == 32 else doubles.copy()
    else:
        body = first.astype(_VIEWS[type.bit_width])
    return pa.Array.from_buffers(type, len(first), [mask, pa.py_buffer(body)], nulls)
