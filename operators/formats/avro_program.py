"""Compiles a writer's and a reader's Avro schema to the flat program that reads the one into columns of the other."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from millrace.operators.batch import Int64Array
from millrace.operators.formats import avro_codes as op
from millrace.operators.formats.avro_schema import AvroField, AvroType, value_of

_FACTORS = {"millis": 1, "micros": 1_000, "nanos": 1_000_000}


class AvroMismatch(Exception):
    """The writer's schema can not be read as the reader's; the text says why."""


@dataclass(slots=True)
class Node:
    """Where the values of one reader's type stand: column `slot` at `level`, items at level `inner`."""

    type: AvroType
    slot: int
    level: int
    children: list[Node] = field(default_factory=list)
    inner: int = -1
    key: int = -1


@dataclass(slots=True)
class Program:
    """Code with slots for places (see `avro_kernels`); `levels` holds the level of every slot.

    `pool` are the bytes of default texts, which must stand before the records.
    """

    columns: list[Node]
    code: Int64Array
    table: Int64Array
    levels: Int64Array
    level_count: int
    depth: int
    pool: bytes
    named: list[tuple[int, str]]

    def column_at(self, place: int) -> str:
        """The writer's field that an instruction belongs to; empty for none."""
        at = bisect_right(self.named, place, key=lambda entry: entry[0]) - 1
        return self.named[at][1] if at >= 0 else ""


def compile_reader(writer: AvroType, reader: AvroType, wanted: Sequence[str]) -> Program:
    """The program for records of `writer` into the columns `wanted` of `reader` (both are records).

    Raises AvroMismatch where the schemas do not resolve.
    """
    return _Compiler().compile(writer, reader, wanted)


class _Compiler:
    def __init__(self) -> None:
        self._code: list[list[int]] = []
        self._table: list[int] = []
        self._levels: list[int] = []
        self._level_count = 1
        self._nesting = 0
        self._depth = 0
        self._pool = b""
        self._named: list[tuple[int, str]] = []

    def compile(self, writer: AvroType, reader: AvroType, wanted: Sequence[str]) -> Program:
        fields = [f for name in wanted for f in reader.fields if f.name == name]
        nodes = [self._allocate(f.type, 0) for f in fields]
        self._fields(writer, fields, nodes, top=True)
        self._emit(op.END)
        return Program(
            nodes,
            np.array(self._code, np.int64).reshape(-1, 5),
            np.array(self._table or [0], np.int64),
            np.array(self._levels, np.int64),
            self._level_count,
            self._depth,
            self._pool,
            self._named,
        )

    def _slot(self, level: int) -> int:
        self._levels.append(level)
        return len(self._levels) - 1

    def _allocate(self, type: AvroType, level: int) -> Node:
        type = value_of(type)
        node = Node(type, self._slot(level), level)
        if type.kind == "record":
            node.children = [self._allocate(f.type, level) for f in type.fields]
        elif type.items is not None:
            node.inner = self._level_count
            self._level_count += 1
            if type.kind == "map":
                node.key = self._slot(node.inner)
            node.children = [self._allocate(type.items, node.inner)]
        return node

    def _emit(self, what: int, slot: int = -1, a: int = 0, b: int = 0) -> int:
        level = self._levels[slot] if slot >= 0 else 0
        self._code.append([what, slot, level, a, b])
        return len(self._code) - 1

    def _fields(
        self, writer: AvroType, fields: Sequence[AvroField], nodes: Sequence[Node], *, top: bool = False
    ) -> None:
        left = dict(enumerate(fields))
        for mine in writer.fields:
            if top:
                self._named.append((len(self._code), mine.name))
            at = next((i for i, f in left.items() if f.name == mine.name), None)
            if at is None:
                at = next((i for i, f in left.items() if mine.name in f.aliases), None)
            if at is None:
                self._skip(mine.type)
                continue
            found = left.pop(at)
            try:
                self._resolve(mine.type, found.type, nodes[at])
            except AvroMismatch as error:
                raise AvroMismatch(f"field '{found.name}': {error}") from None
        if top:
            self._named.append((len(self._code), ""))
        for i, missing in left.items():
            if not missing.has_default:
                raise AvroMismatch(f"field '{missing.name}' is not in the writer's schema and has no default")
            self._default(missing.type, nodes[i], missing.default)

    def _resolve(self, writer: AvroType, reader: AvroType, node: Node) -> None:
        if writer.kind == "union":
            self._branches(writer, reader, node)
            return
        if writer.kind == "null":
            if reader.kind != "union" or all(b.kind != "null" for b in reader.branches):
                raise AvroMismatch(f"null can not be read as {reader}")
            self._null(node)
            return
        target = node.type
        if target.kind == "record" and writer.kind == "record":
            self._emit(op.SET, node.slot, 1)
            self._fields(writer, target.fields, node.children)
        elif target.kind == writer.kind and target.kind in ("array", "map"):
            assert writer.items is not None and target.items is not None
            begin = self._enter(node.slot, node.inner)
            if target.kind == "map":
                self._emit(op.STRING, node.key)
            self._resolve(writer.items, target.items, node.children[0])
            self._leave(begin)
        else:
            self._leaf(writer, target, node.slot)

    def _enter(self, slot: int, inner: int) -> int:
        self._nesting += 1
        self._depth = max(self._depth, self._nesting)
        return self._emit(op.LOOP, slot, 0, inner)

    def _leave(self, begin: int) -> None:
        _, slot, _, _, inner = self._code[begin]
        self._emit(op.NEXT, slot, begin, inner)
        self._code[begin][3] = len(self._code)
        self._nesting -= 1

    def _branches(self, writer: AvroType, reader: AvroType, node: Node | None) -> None:
        """A writer's union; a branch that does not resolve fails where it is met. `node` None skips."""
        table = len(self._table)
        self._table += [0] * len(writer.branches)
        self._emit(op.UNION, -1, table, len(writer.branches))
        ends = []
        several = sum(b.kind != "null" for b in writer.branches) > 1
        failure: AvroMismatch | None = None
        resolved = False
        for i, branch in enumerate(writer.branches):
            self._table[table + i] = len(self._code)
            nesting, pool = self._nesting, self._pool
            try:
                if node is None:
                    self._skip(branch)
                else:
                    if several and branch.name and node.type.name and not _named_alike(branch, node.type):
                        raise AvroMismatch(f"{branch} is not {node.type}")
                    self._resolve(branch, reader, node)
                resolved = True
            except AvroMismatch as error:
                failure = error
                self._nesting, self._pool = nesting, pool
                del self._code[self._table[table + i] :]
                self._emit(op.FAIL)
            ends.append(self._emit(op.JUMP))
        if not resolved and failure is not None:
            raise failure
        for end in ends:
            self._code[end][3] = len(self._code)

    def _leaf(self, writer: AvroType, reader: AvroType, slot: int) -> None:
        wrong = AvroMismatch(f"{writer} can not be read as {reader}")
        match writer.kind, reader.kind:
            case ("int", "int" | "long") | ("long", "long"):
                self._emit(op.INT if writer.kind == "int" else op.LONG, slot, _scale(writer, reader))
            case ("int" | "long", "float" | "double"):
                self._emit(op.LONG_DOUBLE, slot)
            case ("float", "float" | "double"):
                self._emit(op.FLOAT, slot)
            case ("double", "double"):
                self._emit(op.DOUBLE, slot)
            case ("boolean", "boolean"):
                self._emit(op.BOOLEAN, slot)
            case ("string" | "bytes", "string"):
                self._emit(op.STRING, slot)
            case ("string" | "bytes" | "fixed", "bytes" | "fixed") if reader.logical == "decimal":
                if writer.logical == "decimal" and writer.scale != reader.scale:
                    raise AvroMismatch(
                        f"the scale {writer.scale} of the writer's decimal is not {reader.scale}"
                    )
                if writer.kind == "string":
                    raise wrong
                bound = 10**reader.precision
                words = [_signed(bound & (2**64 - 1)), _signed(bound >> 64)]
                self._table += words
                size = writer.size if writer.kind == "fixed" else -1
                self._emit(op.DECIMAL, slot, size, len(self._table) - 2)
            case ("string" | "bytes", "bytes"):
                self._emit(op.BYTES, slot)
            case ("fixed", "fixed") if writer.size == reader.size:
                self._emit(op.FIXED, slot, writer.size)
            case ("enum", "enum"):
                table = len(self._table)
                other = -1
                if reader.default_symbol in reader.symbols:
                    other = reader.symbols.index(str(reader.default_symbol))
                places = {symbol: i for i, symbol in enumerate(reader.symbols)}
                self._table += [places.get(symbol, other) for symbol in writer.symbols]
                self._emit(op.ENUM, slot, table, len(writer.symbols))
            case _:
                raise wrong

    def _skip(self, writer: AvroType) -> None:
        match writer.kind:
            case "null":
                pass
            case "int" | "long" | "enum":
                self._emit(op.SKIP_LONG)
            case "string" | "bytes":
                self._emit(op.SKIP_BYTES)
            case "boolean" | "float" | "double" | "fixed":
                sizes = {"boolean": 1, "float": 4, "double": 8}
                self._emit(op.SKIP, -1, sizes.get(writer.kind, writer.size))
            case "record":
                for mine in writer.fields:
                    self._skip(mine.type)
            case "union":
                self._branches(writer, writer, None)
            case _:
                assert writer.items is not None
                begin = self._enter(-1, -1)
                if writer.kind == "map":
                    self._emit(op.SKIP_BYTES)
                self._skip(writer.items)
                self._leave(begin)

    def _null(self, node: Node) -> None:
        self._emit(op.NULL, node.slot)
        if node.type.kind == "record":
            for child in node.children:
                self._null(child)

    def _text(self, slot: int, text: bytes) -> None:
        self._emit(op.SET, slot, len(self._pool), len(text))
        self._pool += text

    def _default(self, reader: AvroType, node: Node, value: Any) -> None:
        """The code that sets a default, given as JSON."""
        type = node.type
        try:
            if value is None:
                if reader.kind != "union":
                    raise ValueError
                self._null(node)
                return
            match type.kind:
                case "record":
                    self._emit(op.SET, node.slot, 1)
                    for member, child in zip(type.fields, node.children, strict=True):
                        self._default(member.type, child, value.get(member.name, member.default))
                case "array" | "map":
                    self._default_items(node, value)
                case "boolean":
                    self._emit(op.SET, node.slot, int(bool(value)))
                case "int" | "long":
                    self._emit(op.SET, node.slot, int(value) * _scale(type, type))
                case "float" | "double":
                    self._emit(op.SET, node.slot, struct.unpack("<q", struct.pack("<d", float(value)))[0])
                case "enum":
                    self._emit(op.SET, node.slot, type.symbols.index(value))
                case "string":
                    self._text(node.slot, value.encode())
                case _ if type.logical == "decimal":
                    number = int.from_bytes(value.encode("latin-1"), "big", signed=True)
                    self._emit(op.SET, node.slot, _signed(number & (2**64 - 1)), number >> 64)
                case _:
                    self._text(node.slot, value.encode("latin-1"))
        except (ValueError, TypeError, AttributeError, struct.error):
            raise AvroMismatch(f"the default {value!r} is no {type}") from None

    def _default_items(self, node: Node, value: Any) -> None:
        assert node.type.items is not None
        self._emit(op.SET, node.slot, len(value))
        for item in value:
            if node.key >= 0:
                self._text(node.key, item.encode())
            self._default(node.type.items, node.children[0], value[item] if node.key >= 0 else item)
            self._emit(op.ADVANCE, -1, 0, node.inner)


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


def _named_alike(writer: AvroType, reader: AvroType) -> bool:
    names = {name.rpartition(".")[2] for name in (reader.name, *reader.aliases)}
    return writer.name.rpartition(".")[2] in names


def _scale(writer: AvroType, reader: AvroType) -> int:
    """What the writer's number is multiplied by to be the column's. Raises AvroMismatch where that is no whole number.

    Times are µs in columns, whatever the schema says.
    """
    if not reader.logical:
        return 1
    written = writer.logical or reader.logical
    family, _, unit = written.rpartition("-")
    wanted, _, target = reader.logical.rpartition("-")
    if family.removeprefix("local-") != wanted.removeprefix("local-"):
        raise AvroMismatch(f"{written} can not be read as {reader.logical}")
    if not family:
        if written != reader.logical:
            raise AvroMismatch(f"{written} can not be read as {reader.logical}")
        return 1
    if wanted == "time":
        target = "micros"
    if _FACTORS[unit] > _FACTORS[target]:
        raise AvroMismatch(f"{written} is finer than {reader.logical}")
    return _FACTORS[target] // _FACTORS[unit]
