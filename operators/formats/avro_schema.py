"""Avro schemas: read from their JSON, compared with Arrow types, made of Arrow columns. Decodes no data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from millrace.errors import Invalid, Unsupported

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
INTEGRAL_LOGICAL = {
    "date": "int",
    "time-millis": "int",
    "time-micros": "long",
    "timestamp-millis": "long",
    "timestamp-micros": "long",
    "timestamp-nanos": "long",
    "local-timestamp-millis": "long",
    "local-timestamp-micros": "long",
    "local-timestamp-nanos": "long",
}
_UNITS = {"millis": "ms", "micros": "us", "nanos": "ns"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class AvroType:
    """One type of a schema. `kind` is a primitive, `fixed`, `enum`, `array`, `map`, `record` or `union`.

    `items` is what an array or a map holds. A logical type that its carrier can not have is dropped, as Avro says.
    """

    kind: str
    logical: str = ""
    name: str = ""
    aliases: tuple[str, ...] = ()
    size: int = 0
    precision: int = 0
    scale: int = 0
    symbols: tuple[str, ...] = ()
    default_symbol: str | None = None
    items: AvroType | None = None
    branches: tuple[AvroType, ...] = ()
    fields: tuple[AvroField, ...] = ()

    def __str__(self) -> str:
        if self.kind == "union":
            return "[" + ", ".join(map(str, self.branches)) + "]"
        if self.kind in ("array", "map"):
            return f"{self.kind} of {self.items}"
        shown = f"{self.kind} {self.name}" if self.name else self.kind
        return f"{shown} ({self.logical})" if self.logical else shown


@dataclass(frozen=True, slots=True)
class AvroField:
    """A field of a record; `default` is JSON, and counts only where `has_default`."""

    name: str
    type: AvroType
    aliases: tuple[str, ...] = ()
    has_default: bool = False
    default: Any = None


def parse_avro(texts: Sequence[str], what: str) -> AvroType:
    """The schema of the last text; those before it define names that it refers to.

    Raises Invalid MR1483 where a text is no schema, Unsupported MR1914 for types that contain themselves.
    """
    parser = _Parser(what)
    found: AvroType | None = None
    for text in texts:
        try:
            raw = json.loads(text)
        except ValueError:
            if not re.fullmatch(r"\s*[\w.]+\s*", text):
                raise parser.wrong("it is no JSON") from None
            raw = text.strip()
        found = parser.type(raw, "")
    if found is None:
        raise parser.wrong("it is empty")
    return found


class _Parser:
    def __init__(self, what: str) -> None:
        self._what = what
        self._named: dict[str, AvroType | None] = {}

    def wrong(self, why: str) -> Invalid:
        return Invalid(f"{self._what} is no Avro schema: {why}", code="MR1483", hint="see avro.apache.org")

    def type(self, raw: Any, space: str) -> AvroType:
        if isinstance(raw, str):
            return self._named_type(raw, space)
        if isinstance(raw, list):
            branches = tuple(self.type(branch, space) for branch in raw)
            if any(branch.kind == "union" for branch in branches) or not branches:
                raise self.wrong("a union holds a union, or nothing")
            return AvroType("union", branches=branches)
        if not isinstance(raw, dict) or "type" not in raw:
            raise self.wrong(f"{json.dumps(raw)[:60]} is no type")
        kind = raw["type"]
        if isinstance(kind, dict | list):
            return self.type(kind, space)
        match kind:
            case "array":
                return AvroType("array", items=self.type(raw.get("items"), space))
            case "map":
                return AvroType("map", items=self.type(raw.get("values"), space))
            case "record" | "error" | "enum" | "fixed":
                return self._define(raw, "record" if kind == "error" else kind, space)
        return self._logical(self._named_type(kind, space), raw)

    def _named_type(self, name: str, space: str) -> AvroType:
        if name in PRIMITIVES:
            return AvroType(name)
        for full in [name] if "." in name or not space else [f"{space}.{name}", name]:
            if full in self._named:
                found = self._named[full]
                if found is None:
                    raise Unsupported(
                        f"{self._what}: Avro type '{name}' contains itself, which no column can",
                        code="MR1914",
                        hint="use a schema without recursion",
                    )
                return found
        raise self.wrong(f"there is no type '{name}'")

    def _define(self, raw: Mapping[str, Any], kind: str, space: str) -> AvroType:
        name = raw.get("name")
        if not isinstance(name, str) or not name:
            raise self.wrong(f"a {kind} has no name")
        if "." not in name:
            space = raw.get("namespace", space) or ""
            full = f"{space}.{name}" if space else name
        else:
            full, space = name, name.rpartition(".")[0]
        aliases = tuple(a if "." in a or not space else f"{space}.{a}" for a in raw.get("aliases", ()))
        self._named[full] = None
        found = AvroType(kind, name=full, aliases=aliases)
        match kind:
            case "enum":
                symbols = tuple(raw.get("symbols", ()))
                found = replace(found, symbols=symbols, default_symbol=raw.get("default"))
            case "fixed":
                size = raw.get("size")
                if not isinstance(size, int) or size < 0:
                    raise self.wrong(f"fixed '{full}' has no size")
                found = self._logical(replace(found, size=size), raw)
            case _:
                fields = tuple(self._field(field, space) for field in raw.get("fields", ()))
                found = replace(found, fields=fields)
        self._named[full] = found
        return found

    def _field(self, raw: Any, space: str) -> AvroField:
        if not isinstance(raw, dict) or not isinstance(raw.get("name"), str) or "type" not in raw:
            raise self.wrong(f"{json.dumps(raw)[:60]} is no field")
        return AvroField(
            raw["name"],
            self.type(raw["type"], space),
            tuple(raw.get("aliases", ())),
            "default" in raw,
            raw.get("default"),
        )

    def _logical(self, type: AvroType, raw: Mapping[str, Any]) -> AvroType:
        logical = raw.get("logicalType")
        if logical == "decimal" and type.kind in ("bytes", "fixed"):
            precision, scale = raw.get("precision"), raw.get("scale", 0)
            if not isinstance(precision, int) or not isinstance(scale, int) or not 0 <= scale <= precision:
                raise self.wrong("a decimal has no precision, or a scale beyond it")
            return replace(type, logical=logical, precision=precision, scale=scale)
        if INTEGRAL_LOGICAL.get(str(logical)) == type.kind:
            return replace(type, logical=str(logical))
        if logical == "uuid" and (type.kind == "string" or (type.kind == "fixed" and type.size == 16)):
            return replace(type, logical="uuid")
        if logical == "duration" and type.kind == "fixed" and type.size == 12:
            return replace(type, logical="duration")
        return type


def as_record(type: AvroType, column: str) -> AvroType:
    """A record as it is; what is none as a record of one field, which is encoded alike."""
    if type.kind == "record":
        return type
    return AvroType("record", name="value", fields=(AvroField(column, type),))


def value_of(type: AvroType) -> AvroType:
    """The type behind a union with null. Raises Unsupported MR1917 for other unions."""
    if type.kind != "union":
        return type
    others = [branch for branch in type.branches if branch.kind != "null"]
    if len(others) != 1:
        raise Unsupported(
            f"Avro union {type} has no column type",
            code="MR1917",
            hint="declare the column with one of its types in option 'schema'; a union with null is fine",
        )
    return others[0]


def arrow_type(type: AvroType) -> pa.DataType:
    """The column type. Raises Unsupported MR1917 where there is none."""
    type = value_of(type)
    match type.kind:
        case "record" if type.fields:
            return pa.struct([pa.field(f.name, arrow_type(f.type)) for f in type.fields])
        case "array" if type.items is not None:
            return pa.list_(arrow_type(type.items))
        case "map" if type.items is not None:
            return pa.map_(pa.string(), arrow_type(type.items))
        case "enum" | "string":
            return pa.string()
        case "bytes" | "fixed":
            if type.logical == "uuid":
                return pa.string()
            if type.logical == "decimal" and type.precision <= 38:
                made = pa.decimal64 if type.precision <= 18 else pa.decimal128
                return made(type.precision, type.scale)
            if not type.logical:
                return pa.binary()
        case "int" | "long" if type.logical:
            return _moment_type(type.logical)
        case "int" | "long" | "float" | "double" | "boolean":
            plain = {"int": pa.int32(), "long": pa.int64(), "float": pa.float32(), "double": pa.float64()}
            return plain.get(type.kind, pa.bool_())
    raise Unsupported(f"Avro type {type} has no column type", code="MR1917", hint="leave the field out")


def _moment_type(logical: str) -> pa.DataType:
    if logical == "date":
        return pa.date32()
    if logical.startswith("time-"):
        return pa.time64("us")
    return pa.timestamp(
        _UNITS[logical.rpartition("-")[2]], tz=None if logical.startswith("local-") else "UTC"
    )


def arrow_schema(record: AvroType) -> pa.Schema:
    """The columns of a record. Raises Unsupported MR1917."""
    return pa.schema([pa.field(f.name, arrow_type(f.type)) for f in record.fields])


def schema_of(columns: pa.Schema, name: str, space: str = "") -> str:
    """The Avro schema of columns as JSON: a record `name`; what may be NULL is a union with null.

    Raises Unsupported MR1915 for column types that Avro has no type for, Invalid MR1489 for names it can not have.
    """
    fields = [_field_of(column, f"{name}_{column.name}") for column in columns]
    record: dict[str, Any] = {"type": "record", "name": name, "fields": fields}
    if space:
        record["namespace"] = space
    return json.dumps(record, separators=(",", ":"))


def _field_of(column: pa.Field, name: str) -> dict[str, Any]:
    if not _NAME.fullmatch(column.name):
        raise Invalid(
            f"Avro fields can not be named '{column.name}'",
            code="MR1489",
            hint="name the column with letters, digits and _",
        )
    made = _type_of(column.type, name)
    if not column.nullable:
        return {"name": column.name, "type": made}
    return {"name": column.name, "type": ["null", made], "default": None}


def _type_of(type: pa.DataType, name: str) -> Any:
    if pa.types.is_boolean(type):
        return "boolean"
    if pa.types.is_integer(type) and type != pa.uint64():
        return "int" if type.bit_width < 32 or type == pa.int32() else "long"
    if pa.types.is_floating(type) and type.bit_width >= 32:
        return "float" if type.bit_width == 32 else "double"
    if pa.types.is_string(type):
        return "string"
    if pa.types.is_binary(type):
        return "bytes"
    if pa.types.is_decimal(type) and type.precision <= 38 and type.scale >= 0:
        return {
            "type": "bytes",
            "logicalType": "decimal",
            "precision": type.precision,
            "scale": type.scale,
        }
    if pa.types.is_date32(type):
        return {"type": "int", "logicalType": "date"}
    if pa.types.is_time64(type):
        return {"type": "long", "logicalType": "time-micros"}
    if pa.types.is_timestamp(type):
        unit = {"s": "millis", "ms": "millis", "us": "micros", "ns": "nanos"}[type.unit]
        local = "" if type.tz else "local-"
        return {"type": "long", "logicalType": f"{local}timestamp-{unit}"}
    if pa.types.is_struct(type):
        members = [type.field(i) for i in range(type.num_fields)]
        return {
            "type": "record",
            "name": name,
            "fields": [_field_of(m, f"{name}_{m.name}") for m in members],
        }
    if pa.types.is_list(type):
        return {"type": "array", "items": ["null", _type_of(type.value_type, f"{name}_item")]}
    if pa.types.is_map(type) and pa.types.is_string(type.key_type):
        return {"type": "map", "values": ["null", _type_of(type.item_type, f"{name}_value")]}
    raise Unsupported(f"Avro has no type for {type}", code="MR1915", hint="CAST the column to another type")
