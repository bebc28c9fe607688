"""Encodes Arrow columns as Avro records, a batch at once."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.errors import BadData, Invalid
from millrace.operators.batch import Int64Array
from millrace.operators.formats import avro_codes as op
from millrace.operators.formats.avro_schema import AvroType, arrow_type, value_of
from millrace.operators.formats.values import type_name


class AvroEncoder:
    """Writes rows of `columns` by the record `writer`, whose fields are found by name.

    Raises Invalid MR1488 where columns and fields do not fit together.
    """

    def __init__(self, writer: AvroType, columns: pa.Schema) -> None:
        names = [f.name for f in writer.fields]
        lost = next((name for name in columns.names if name not in names), None)
        if lost is not None:
            raise Invalid(
                f"the Avro schema has no field '{lost}'",
                code="MR1488",
                hint=f"it has {', '.join(names)}: name the columns so, or leave option 'schema' out",
            )
        self._code: list[list[int]] = []
        self._named: list[str] = []
        self._levels: list[int] = []
        self._level_count = 1
        self._depth = 0
        self._columns: list[tuple[int, AvroType, pa.DataType]] = []
        for f in writer.fields:
            start = len(self._code)
            place = columns.get_field_index(f.name)
            if place < 0:
                self._missing(f.name, f.type)
            else:
                _check(columns.field(place), f.type)
                self._columns.append((place, f.type, arrow_type(f.type)))
                self._compile(f.type, 0, 1)
            self._named += [f.name] * (len(self._code) - start)
        self._emit(op.PUT_END)

    def encode(self, batch: pa.RecordBatch, prefix: bytes) -> list[bytes]:
        """One record a row, each behind `prefix`. Raises BadData MR2115 for NULL where the schema has none."""
        from millrace.operators.formats.avro_write_kernels import encode_records  # Numba is heavy to import

        rows = batch.num_rows
        if not rows:
            return []
        flat = _Flat()
        for place, type, target in self._columns:
            flat.add(pc.cast(batch.column(place), target), type)
        first, second, valid, data, bases = flat.buffers()
        code = np.array(self._code, np.int64).reshape(-1, 5)
        code[:, 1] = np.where(code[:, 1] >= 0, bases[code[:, 1]], -1)
        head = np.frombuffer(prefix, np.uint8)
        ends = np.zeros(rows, np.int64)
        room = rows * (12 * len(code) + len(prefix)) + 2 * len(data) + 128
        while True:
            out = np.empty(room, np.uint8)
            answer = encode_records(
                rows, head, code, first, second, valid, data, out, ends, self._level_count, self._depth
            )
            if answer != -2:
                break
            room *= 2
        if answer >= 0:
            raise BadData(
                f"row {int(ends[0])} of a batch has no value that field '{self._named[answer]}' may hold",
                code="MR2115",
                hint="make the field a union with null, or filter such rows",
            )
        whole = out[: ends[-1]].tobytes()
        bounds = [0, *ends.tolist()]
        return [whole[a:b] for a, b in pairwise(bounds)]

    def _missing(self, name: str, type: AvroType) -> None:
        """A field without a column is NULL."""
        branches = [branch.kind for branch in type.branches]
        if "null" not in branches:
            raise Invalid(
                f"the Avro schema's field '{name}' is no column and may not be null",
                code="MR1488",
                hint="select it",
            )
        self._emit(op.PUT_CONSTANT, -1, 0, branches.index("null") << 1)

    def _emit(self, what: int, slot: int = -1, level: int = 0, a: int = 0, b: int = 0) -> int:
        self._code.append([what, slot, level, a, b])
        return len(self._code) - 1

    def _compile(self, type: AvroType, level: int, depth: int) -> None:
        self._levels.append(level)
        slot = len(self._levels) - 1
        guard = -1
        if type.kind == "union":
            kinds = [branch.kind for branch in type.branches]
            if "null" in kinds:
                guard = self._emit(op.PUT_NULLABLE, slot, level, 1 - kinds.index("null"))
            else:
                self._emit(op.PUT_CONSTANT, -1, 0, 0)
            type = value_of(type)
        if guard < 0:
            self._emit(op.PUT_REQUIRED, slot, level)
        if type.kind == "record":
            for f in type.fields:
                self._compile(f.type, level, depth)
        elif type.items is not None:
            self._depth = max(self._depth, depth)
            inner = self._level_count
            self._level_count += 1
            begin = self._emit(op.PUT_ITEMS, slot, level, 0, inner)
            if type.kind == "map":
                self._levels.append(inner)
                self._emit(op.PUT_BYTES, len(self._levels) - 1, inner)
            self._compile(type.items, inner, depth + 1)
            self._emit(op.PUT_NEXT, -1, 0, 0, inner)
            self._code[begin][3] = len(self._code)
        else:
            self._leaf(type, slot, level)
        if guard >= 0:
            self._code[guard][4] = len(self._code)

    def _leaf(self, type: AvroType, slot: int, level: int) -> None:
        match type.kind:
            case "int" | "long" | "enum":
                self._emit(op.PUT_LONG, slot, level)
            case "boolean" | "float" | "double":
                self._emit(op.PUT_BITS, slot, level, {"boolean": 1, "float": 4, "double": 8}[type.kind])
            case "bytes" | "fixed" if type.logical == "decimal":
                self._emit(op.PUT_DECIMAL, slot, level, type.size if type.kind == "fixed" else -1)
            case "fixed":
                self._emit(op.PUT_FIXED, slot, level, type.size)
            case _:
                self._emit(op.PUT_BYTES, slot, level)


def _check(column: pa.Field, type: AvroType) -> None:
    target = arrow_type(type)
    try:
        if value_of(type).logical == "uuid" and value_of(type).kind == "fixed":
            raise pa.ArrowNotImplementedError("uuid")
        pc.cast(pa.array([], column.type), target)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise Invalid(
            f"column '{column.name}' is {type_name(column.type)}, and the Avro schema has {type}",
            code="MR1488",
            hint="CAST the column",
        ) from None


class _Flat:
    """All columns, those within others too, as the kernel wants them: numbers, validity, and text in one block.

    A column's slot is its place in the order of `add`, which is that of compiling.
    """

    def __init__(self) -> None:
        self._first: list[Int64Array] = []
        self._second: list[Int64Array] = []
        self._valid: list[Any] = []
        self._data: list[Any] = []
        self._size = 0

    def buffers(self) -> tuple[Int64Array, Int64Array, Any, Any, Int64Array]:
        """First and second numbers, validity, text, and where each column begins."""
        bases = np.zeros(len(self._first) + 1, np.int64)
        np.cumsum([len(part) for part in self._first], out=bases[1:])
        empty = np.zeros(0, np.uint8)
        return (
            np.concatenate([*self._first, np.zeros(1, np.int64)]),
            np.concatenate([*self._second, np.zeros(1, np.int64)]),
            np.concatenate([*self._valid, np.zeros(1, np.uint8)]),
            np.concatenate([*self._data, empty]),
            bases,
        )

    def add(self, array: pa.Array, type: AvroType) -> None:
        """A column of the type that `arrow_type` gives."""
        type = value_of(type)
        count = len(array)
        valid = np.asarray(array.is_valid()).astype(np.uint8)
        second = np.zeros(count, np.int64)
        match type.kind:
            case "record":
                self._put(second, second, valid)
                for i, f in enumerate(type.fields):
                    self.add(array.field(i), f.type)
                return
            case "array" | "map":
                assert type.items is not None
                offsets = np.asarray(array.offsets).astype(np.int64)
                self._put(offsets[:-1], np.diff(offsets), valid)
                if type.kind == "map":
                    self._text(array.keys)
                self.add(array.items if type.kind == "map" else array.values, type.items)
                return
            case "enum":
                found = pc.index_in(array, value_set=pa.array(type.symbols, pa.string()))
                valid = np.asarray(found.is_valid()).astype(np.uint8)
                first = np.asarray(found.fill_null(0)).astype(np.int64)
            case "bytes" | "fixed" if type.logical == "decimal":
                wide = pc.cast(array, pa.decimal128(type.precision, type.scale))
                words = np.frombuffer(wide.buffers()[1], np.int64).reshape(-1, 2)
                words = words[wide.offset : wide.offset + count]
                first, second = words[:, 0].copy(), words[:, 1].copy()
            case "string" | "bytes" | "fixed":
                self._text(array)
                return
            case _:
                first = _integers(array, type)
        self._put(first, second, valid)

    def _put(self, first: Int64Array, second: Int64Array, valid: Any) -> None:
        self._first.append(first)
        self._second.append(second)
        self._valid.append(valid)

    def _text(self, array: pa.Array) -> None:
        count = len(array)
        narrow = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + count + 1]
        offsets = narrow.astype(np.int64) if count else np.zeros(1, np.int64)
        low, high = int(offsets[0]), int(offsets[-1])
        body = array.buffers()[2]
        if body is not None:
            self._data.append(np.frombuffer(body, np.uint8)[low:high])
        valid = np.asarray(array.is_valid()).astype(np.uint8)
        self._put(offsets[:-1] - low + self._size, np.diff(offsets), valid)
        self._size += high - low


def _integers(array: pa.Array, type: AvroType) -> Int64Array:
    """Numbers, times and floats as the integers (or the bits) that are written."""
    if type.kind in ("float", "double"):
        numbers = np.asarray(array.fill_null(0.0))
        bits = numbers.view(np.uint32 if type.kind == "float" else np.int64)
        return bits.astype(np.int64)
    if pa.types.is_temporal(array.type):
        width = pa.int32() if array.type.bit_width == 32 else pa.int64()
        array = array.view(width)
    found = np.asarray(array.fill_null(False) if pa.types.is_boolean(array.type) else array.fill_null(0))
    whole = found.astype(np.int64)
    return whole // 1000 if type.logical == "time-millis" else whole
