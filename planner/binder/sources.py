"""Declared sources as scans: columns, computed columns, event time and watermark, bad rows. Reads no data itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import pyarrow as pa

from millrace.errors import MillraceError
from millrace.operators.connectors.constant import ConstantRows
from millrace.operators.connectors.options import Options
from millrace.operators.connectors.push import PushSpec
from millrace.operators.connectors.registry import METADATA, common_options, find, source_spec
from millrace.operators.expressions.tree import Expression
from millrace.operators.functions import types as sql
from millrace.operators.sink import Changelog
from millrace.operators.source import EventTime, SourceInput, SourceSpec
from millrace.planner.binder.errors import invalid, unsupported
from millrace.planner.binder.scalars import ScalarBinder, cast
from millrace.planner.binder.scope import Scope
from millrace.planner.catalog import suggest
from millrace.planner.dialect.types import parse_type
from millrace.planner.expressions import column
from millrace.planner.logical import Relation, Rows, Scan
from millrace.planner.statements import ColumnDefinition, Connector, CreateSource, Watermark

UNITS = ("s", "ms", "us", "ns")
PUSH = "push"


def bind_source(statement: CreateSource, bad_rows: str = "skip") -> Scan:
    """The scan of a declared source; `bad_rows` holds where it has no such option. Raises Invalid (MR11xx, MR14xx) with the place in the text."""
    connector = statement.connector
    has_metadata = connector is not None and _has_metadata(connector)
    for definition in statement.columns:
        if definition.metadata_key is not None and not has_metadata:
            raise _at(
                unsupported(None, "MR1947", f"metadata column {definition.name} is not read yet"), definition
            )
    _check_names(statement.columns)
    stored = [c for c in statement.columns if c.type is not None]
    schema = pa.schema([_declared(c) for c in stored]) if stored else None
    options = {} if connector is None else options_of(connector)
    if connector is not None and connector.name == "upsert-kafka":
        options = {"mode": "upsert", "key": ",".join(map(str, statement.primary_key)), **options}
    spec = open_source(connector, options, schema)
    if isinstance(spec, PushSpec):
        spec = replace(spec, name=str(statement.name))
    own = common_options(options)
    computed, schema = _computed(statement.columns, spec)
    time = _event_time(statement.watermark, own, schema, spec)
    key = _primary_key(statement, schema)
    if "bad_rows" in own.given:
        bad_rows = own.text("bad_rows") or "skip"
    mode = Changelog.UPSERT if connector is None and key else _mode_of(spec)
    return _scan(str(statement.name), SourceInput(spec, computed, schema, time, bad_rows), key, mode)


def inline_source(name: str, connector: str, options: Mapping[str, str], format: str | None) -> Scan:
    """The scan of a source that a query names by URI."""
    spec = source_spec(connector, options, None, format)
    own = common_options(options)
    schema = spec.output_schema
    source = SourceInput(
        spec, None, schema, _event_time(None, own, schema, spec), own.text("bad_rows") or "skip"
    )
    return _scan(name, source, None, _mode_of(spec))


def _scan(name: str, declared: SourceInput, key: tuple[int, ...] | None, mode: Changelog) -> Scan:
    """The scan of a source, which offers the metadata of its records to queries that name it."""
    wide = declared.source.with_metadata()
    own, fields = len(declared.source.output_schema), declared.schema.names
    taken = {field.casefold() for field in fields}
    more = [
        (place, field)
        for place, field in enumerate(wide.output_schema)
        if place >= own and field.name not in taken
    ]
    width = len(fields)
    schema = pa.schema([*declared.schema, *(field for _, field in more)])
    values = declared.computed
    if values is not None:
        values = (*values, *(column(wide.output_schema, place) for place, _ in more))
    source = replace(declared, source=wide, computed=values, schema=schema)
    return Scan(name, source, tuple(range(width)), key, mode, tuple(range(width, len(schema))))


def _mode_of(spec: SourceSpec) -> Changelog:
    """What the rows mean to those before; a source that does not say gives rows that are never taken back."""
    own = getattr(spec, "changelog", None)
    return own if isinstance(own, Changelog) else Changelog.APPEND


def scan_of(name: str, spec: SourceSpec, event_time: EventTime | None = None) -> Scan:
    """The scan of a source that Python code made (Arrow tables in memory, snapshots)."""
    schema = spec.output_schema
    return Scan(name, SourceInput(spec, None, schema, event_time), tuple(range(len(schema))))


@cache
def one_row() -> Scan:
    """What a query without FROM reads: one row with a column nobody sees."""
    return scan_of("one row", ConstantRows.of(pa.RecordBatch.from_pydict({"_row": pa.array([True])})))


def is_one_row(relation: Relation) -> bool:
    """Whether it is what a query without FROM reads."""
    return relation is one_row()


def options_of(connector: Connector) -> dict[str, str]:
    """A connector's options and those of its format, as text. Raises Invalid MR1404 for one that comes twice."""
    found: dict[str, str] = {}
    for option in (*connector.options, *connector.format_options):
        if option.name in found:
            raise _at(
                invalid(None, "MR1404", f"option '{option.name}' is given twice", "keep one of them"), option
            )
        found[option.name] = option.value
    return found


def open_source(
    connector: Connector | None, options: Mapping[str, str], schema: pa.Schema | None
) -> SourceSpec:
    """The connector's spec; errors are placed at the option they speak of."""
    if connector is None:
        return source_spec(PUSH, {}, schema, None)
    try:
        return source_spec(connector.name, options, schema, connector.format)
    except MillraceError as error:
        raise placed(error, connector) from None


def placed(error: MillraceError, connector: Connector) -> MillraceError:
    """The error at the option whose name it quotes, else at the connector."""
    if error.position is None:
        named = [o for o in (*connector.options, *connector.format_options) if f"'{o.name}'" in error.message]
        error.position = named[0].position if named else connector.position
    return error


def _has_metadata(connector: Connector) -> bool:
    try:
        return find(connector.name).metadata
    except MillraceError as error:
        raise placed(error, connector) from None


def _declared(definition: ColumnDefinition) -> pa.Field:
    """The column as the connector is told of it, with its metadata key where it is of a record's metadata."""
    assert definition.type is not None
    field = definition.type.field(definition.name, not definition.not_null)
    key = definition.metadata_key
    return field if key is None else field.with_metadata({METADATA: key.encode()})


def _check_names(columns: Sequence[ColumnDefinition]) -> None:
    seen: set[str] = set()
    for definition in columns:
        if definition.name.casefold() in seen:
            raise _at(invalid(None, "MR1115", f"there are two columns named {definition.name}"), definition)
        seen.add(definition.name.casefold())


def _computed(
    definitions: Sequence[ColumnDefinition], spec: SourceSpec
) -> tuple[tuple[Expression, ...] | None, pa.Schema]:
    below = spec.output_schema
    if all(c.computed is None for c in definitions):
        return None, below
    scope = Scope.of(Rows(below), None)
    binder = ScalarBinder(scope, "a computed column")
    stored = {f.name.casefold(): i for i, f in enumerate(below)}
    values: list[Expression] = []
    fields: list[pa.Field] = []
    declared = {c.name.casefold() for c in definitions if c.computed is None}
    if not declared:
        values = [column(below, i) for i in range(len(below))]
        fields = list(below)
    for definition in definitions:
        if definition.computed is None:
            at = stored[definition.name.casefold()]
            values.append(column(below, at))
            fields.append(below.field(at))
            continue
        value = binder.bind(definition.computed)
        if definition.type is not None:
            value = cast(value, definition.type.arrow)
        values.append(value)
        fields.append(pa.field(definition.name, value.type))
    return tuple(values), pa.schema(fields)


def _event_time(
    watermark: Watermark | None, own: Options, schema: pa.Schema, spec: SourceSpec
) -> EventTime | None:
    name = watermark.column if watermark is not None else own.text("event.time.column")
    default = getattr(spec, "default_event_time", None)
    if name is None:
        return default if isinstance(default, EventTime) else None
    folded = name.casefold()
    hits = [i for i, f in enumerate(schema) if f.name.casefold() == folded]
    if not hits:
        error = invalid(None, "MR1101", f"there is no column named {name}", suggest(name, schema.names))
        raise _at(error, watermark)
    type = schema.field(hits[0]).type
    if not sql.is_timestamp(type) and type != sql.BIGINT:
        error = invalid(
            None,
            "MR1116",
            f"event time {name} is {sql.sql_name(type)}",
            "it must be a TIMESTAMP, or a BIGINT of epoch milliseconds",
        )
        raise _at(error, watermark)
    if watermark is not None and watermark.delay_us is None and watermark.expression is not None:
        error = unsupported(
            None,
            "MR1948",
            "a watermark is a time column less a constant",
            f"write WATERMARK FOR {name} AS {name} - INTERVAL '5' SECOND",
        )
        raise _at(error, watermark)
    delay = watermark.delay_us if watermark is not None else None
    if delay is None:
        delay = own.integer("watermark.max_out_of_orderness") or 0
    unit = own.text("event.time.format") or "ms"
    idle = own.integer("watermark.idle_timeout")
    values = {} if idle is None else {"idle_timeout": idle}
    return EventTime(hits[0], delay, unit=unit if unit in UNITS else "ms", **values)


def _primary_key(statement: CreateSource, schema: pa.Schema) -> tuple[int, ...] | None:
    if not statement.primary_key:
        return None
    by_name = {f.name.casefold(): i for i, f in enumerate(schema)}
    missing = [k for k in statement.primary_key if k.casefold() not in by_name]
    if missing:
        error = invalid(
            None, "MR1101", f"there is no column named {missing[0]}", suggest(missing[0], schema.names)
        )
        raise _at(error, statement)
    return tuple(by_name[k.casefold()] for k in statement.primary_key)


def _at(error: MillraceError, place: object) -> MillraceError:
    if error.position is None:
        error.position = getattr(place, "position", None)
    return error


__all__ = ["bind_source", "inline_source", "open_source", "options_of", "parse_type", "placed", "scan_of"]
