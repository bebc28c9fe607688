"""The schemas that Avro and Protobuf messages are read with: found at planning, from options or from a registry."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from millrace.errors import Invalid
from millrace.operators.connectors.kafka.schema_registry import Registry, RegistryClient, registry_of
from millrace.operators.connectors.options import Option, Options
from millrace.operators.formats.avro_encode import AvroEncoder
from millrace.operators.formats.avro_schema import (
    AvroType,
    arrow_schema,
    arrow_type,
    as_record,
    parse_avro,
    schema_of,
)
from millrace.operators.formats.values import type_name
from millrace.operators.spec import serialisable

SCHEMA_FORMATS = ("avro",)
SCHEMA_OPTIONS = (
    Option(
        "schema",
        "the schema that messages are read as or written by, where not the registry's latest",
        aliases=("value.schema", "avro.schema"),
    ),
    Option("key.schema", "the same for the key"),
    Option("subject", "the registry's subject of the value; <topic>-value where not set"),
    Option("key.subject", "the registry's subject of the key; <topic>-key where not set"),
    Option(
        "subject.name.strategy",
        "how a sink names subjects: topic (<topic>-value) or record (the schema's own name)",
        default="topic",
        choices=("topic", "record"),
        aliases=("value.subject.name.strategy",),
    ),
)


@serialisable
@dataclass(frozen=True, slots=True)
class ReadSchema:
    """The reader's schema of a message's value or key: texts, with those first that the last one refers to.

    Without a registry messages hold nothing but the record, written by this very schema.
    """

    language: str
    registry: Registry | None
    texts: tuple[str, ...]

    def record(self, column: str) -> AvroType:
        """The Avro record; what is no record has one field of the name `column`."""
        return as_record(parse_avro(self.texts, "the reader's schema"), column)

    def columns(self, column: str) -> pa.Schema:
        """The columns it gives."""
        return arrow_schema(self.record(column))


def read_schema(options: Options, topics: Sequence[str], format: str, side: str) -> ReadSchema | None:
    """The schema of the `value` or the `key`; None for formats without one.

    Raises Invalid MR1484 where nothing says what it is, and what reading it raises.
    """
    if format not in SCHEMA_FORMATS:
        return None
    prefix = "" if side == "value" else "key."
    registry = registry_of(options)
    text = options.text(f"{prefix}schema")
    if text:
        found = ReadSchema(format, registry, (text,))
    elif registry is None:
        raise Invalid(
            f"format {format} needs a schema",
            code="MR1484",
            hint=f"set 'schema.registry.url', or '{prefix}schema' to the schema",
        )
    else:
        subject = options.text(f"{prefix}subject") or (f"{topics[0]}-{side}" if topics else "")
        if not subject:
            raise Invalid(
                "topics by pattern have no one subject in the registry",
                code="MR1484",
                hint=f"set '{prefix}subject' or '{prefix}schema'",
            )
        latest = RegistryClient(registry).latest(subject)
        if latest is None:
            raise Invalid(
                f"the schema registry has no subject '{subject}'",
                code="MR1484",
                hint=f"register its schema, or set '{prefix}subject' or '{prefix}schema'",
            )
        if latest.language.lower() != format:
            raise Invalid(
                f"subject '{subject}' is {latest.language}, not {format}",
                code="MR1484",
                hint=f"set 'format' = '{latest.language.lower()}'",
            )
        found = ReadSchema(format, registry, latest.plain)
    found.record("key")
    return found


@serialisable
@dataclass(frozen=True, slots=True)
class WriteSchema:
    """The schema that values or keys are written by; with a registry it is registered under `subject` when writing begins."""

    language: str
    registry: Registry | None
    text: str
    subject: str


def write_schema(
    options: Options, topic: str, format: str, side: str, columns: pa.Schema
) -> WriteSchema | None:
    """The schema of a sink's `value` or `key`: as set, else made of the columns; None for formats without one.

    Raises Invalid MR1483, MR1484, MR1488 and MR1489, Unsupported MR1915 for column types that the format has no type for.
    """
    if format not in SCHEMA_FORMATS:
        return None
    prefix = "" if side == "value" else "key."
    name = "".join(c if c.isalnum() and c.isascii() else "_" for c in topic)
    name = f"t_{name}" if name[:1].isdigit() else name
    text = options.text(f"{prefix}schema") or schema_of(columns, f"{name}_{side}")
    record = parse_avro([text], f"option '{prefix}schema'")
    if record.kind != "record":
        raise Invalid(
            f"option '{prefix}schema' is {record}, and rows are records",
            code="MR1484",
            hint="give a record",
        )
    AvroEncoder(record, columns)
    subject = options.text(f"{prefix}subject")
    if subject is None:
        by_record = options.text("subject.name.strategy") == "record"
        subject = record.name if by_record else f"{topic}-{side}"
    return WriteSchema(format, registry_of(options), text, subject)


def inferred_columns(value: pa.Schema, key: ReadSchema | None, names: Sequence[str]) -> pa.Schema:
    """The columns where none are declared: the key's, then what the value has besides. `names` are those of `key`."""
    if key is None:
        return value
    own = key.columns(names[0] if names else "key")
    return pa.schema([*own, *(f for f in value if f.name not in own.names)])


def check_columns(fields: Sequence[pa.Field], schema: ReadSchema) -> None:
    """Raises Invalid MR1487 for a declared column that the schema does not have, or has of a type that can not be it.

    Raises Unsupported MR1917 for one that has no column type; fields that are not declared may have none.
    """
    known = {f.name: f.type for f in schema.record(fields[0].name if fields else "").fields}
    for field, name in zip(fields, schema_names([f.name for f in fields], list(known)), strict=True):
        given = arrow_type(known[name])
        try:
            pc.cast(pa.array([], given), field.type)
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
            raise Invalid(
                f"column '{field.name}' is {type_name(field.type)}, and the messages' schema has {given}",
                code="MR1487",
                hint="declare it with a type that the other casts to",
            ) from None


def schema_names(columns: Sequence[str], known: Sequence[str]) -> list[str]:
    """The fields that columns name, as they are spelled or else by any case. Raises Invalid MR1487."""
    folded = {name.casefold(): name for name in known}
    found = []
    for column in columns:
        name = column if column in known else folded.get(column.casefold())
        if name is None:
            close = difflib.get_close_matches(column, list(known), n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known)}"
            raise Invalid(f"the messages' schema has no field '{column}'", code="MR1487", hint=hint)
        found.append(name)
    return found
