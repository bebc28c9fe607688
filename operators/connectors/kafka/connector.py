"""The Kafka connector: its options and the specs made of them. Connects only to find columns that are not declared."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from datetime import datetime, timezone

import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.connectors.files.connector import read_layout
from millrace.operators.connectors.kafka.decoding import KEY, VALUE, Decoding
from millrace.operators.connectors.kafka.encoding import Encoding
from millrace.operators.connectors.kafka.options import (
    OPTIONS,
    STARTS,
    key_columns,
    key_format_of,
    read_format,
    servers_of,
)
from millrace.operators.connectors.kafka.sampling import find_columns
from millrace.operators.connectors.kafka.schemas import (
    ReadSchema,
    check_columns,
    inferred_columns,
    read_schema,
    write_schema,
)
from millrace.operators.connectors.kafka.sink import KafkaOutboxSpec, KafkaSinkSpec, Target
from millrace.operators.connectors.kafka.source import KafkaSourceSpec, Start
from millrace.operators.connectors.options import Options
from millrace.operators.connectors.registry import METADATA, Connector
from millrace.operators.formats.raw import check_raw
from millrace.operators.formats.records import TextLayout
from millrace.operators.sink import Changelog, SinkSpec

_METADATA_TYPES = {
    "offset": pa.types.is_integer,
    "partition": pa.types.is_integer,
    "leader-epoch": pa.types.is_integer,
    "topic": pa.types.is_string,
    "timestamp-type": pa.types.is_string,
    "timestamp": lambda type: pa.types.is_timestamp(type) or type == pa.int64(),
    "key": lambda type: pa.types.is_string(type) or pa.types.is_binary(type),
    "headers": lambda type: (
        pa.types.is_map(type)
        and pa.types.is_string(type.key_type)
        and (pa.types.is_string(type.item_type) or pa.types.is_binary(type.item_type))
    ),
}


def make_source(options: Options, schema: pa.Schema | None, format: str | None) -> KafkaSourceSpec:
    """The spec of a Kafka source; finds the columns in the first messages where none are declared.

    Raises Invalid MR1470 to MR1479.
    """
    topics, pattern = _topics(options)
    chosen = read_format(format or options.text("format"))
    servers = servers_of(options)
    layout = read_layout(options)
    committed = options.text("isolation.level") != "read_uncommitted"
    value = read_schema(options, topics, chosen, "value")
    key = read_schema(options, topics, options.text("key.format") or "raw", "key")
    keys = tuple(part.strip() for part in re.split(r"[,;]", options.text("key") or "") if part.strip())
    if schema is None:
        found = find_columns(servers, topics, pattern, chosen) if value is None else value.columns("value")
        schema = inferred_columns(found, key, keys)
        if key is not None and not keys:
            keys = tuple(key.columns("key").names)
    decoding = _decoding(options, schema, chosen, layout, value, key, keys)
    interval = options.integer("discovery.interval")
    return KafkaSourceSpec(
        servers=servers,
        topics=topics,
        pattern=pattern,
        decoding=decoding,
        group=options.required("group.id"),
        start=_start(options, topics),
        bounded_by_now=options.text("stop") in ("latest", "latest-offset"),
        read_committed=committed,
        discovery_interval=10_000_000 if interval is None else interval,
    )


def make_sink(options: Options, schema: pa.Schema, changelog: Changelog, key: tuple[str, ...]) -> SinkSpec:
    """The spec of a Kafka sink for rows in this mode. Raises Invalid MR1407, MR1470 to MR1476 and MR1481."""
    topics, pattern = _topics(options)
    if pattern or len(topics) != 1:
        raise Invalid("a Kafka sink writes to one topic", code="MR1474", hint="set 'topic' = 'orders'")
    format = read_format(options.text("format"))
    if changelog is Changelog.RETRACT and format != "debezium-json":
        raise Invalid(
            f"Kafka messages in format {format} can not take rows back",
            code="MR1407",
            hint="give the sink a key, so that changes replace rows, or use 'format' = 'debezium-json'",
        )
    if changelog is Changelog.UPSERT and format == "debezium-json":
        raise Invalid(
            "changes by key do not say what they replace, as debezium-json has to",
            code="MR1407",
            hint="use 'format' = 'json'",
        )
    target = Target(
        servers_of(options),
        topics[0],
        _encoding(options, schema, changelog, key, format, topics[0]),
        options.required("partitioner"),
    )
    prefix, markers = options.required("transactional.prefix"), options.required("marker.topic")
    delivery = (options.text("delivery") or "").replace("-", "_")
    if delivery == "exactly_once":
        return KafkaOutboxSpec(target, prefix, topics[0], markers)
    return KafkaSinkSpec(target, prefix, markers, asked=bool(delivery))


def _encoding(
    options: Options,
    schema: pa.Schema,
    changelog: Changelog,
    key: tuple[str, ...],
    format: str,
    topic: str,
) -> Encoding:
    keys = key_columns(options.text("key"), schema.names) or key
    if changelog is Changelog.UPSERT and set(keys) != set(key):
        raise Invalid(
            f"the changes are by {', '.join(key)}, and option 'key' says {', '.join(keys)}",
            code="MR1481",
            hint="leave 'key' out, or group by it",
        )
    special = {
        name: _column(options, name, schema, fits)
        for name, fits in (
            ("partition", pa.types.is_integer),
            ("timestamp", _METADATA_TYPES["timestamp"]),
            ("headers", _METADATA_TYPES["headers"]),
        )
    }
    without = {place for place in special.values() if place >= 0}
    if options.text("value.fields-include") == "except_key":
        without |= {schema.names.index(name) for name in keys}
    value = tuple(i for i in range(len(schema)) if i not in without)
    if format == "raw":
        check_raw(pa.schema([schema.field(i) for i in value]))
    key_format = key_format_of(options, len(keys))
    columns = pa.schema([schema.field(i) for i in value])
    keyed = pa.schema([schema.field(name) for name in keys])
    return Encoding(
        format=format,
        key_format=key_format,
        schema=schema,
        changelog=changelog,
        key=tuple(schema.names.index(name) for name in keys),
        value=value,
        delimiter=options.required("delimiter"),
        value_schema=write_schema(options, topic, format, "value", columns),
        key_schema=write_schema(options, topic, key_format, "key", keyed) if keys else None,
        **special,
    )


def _column(options: Options, option: str, schema: pa.Schema, fits: Callable[[pa.DataType], bool]) -> int:
    """The place of the column that an option names, −1 where it names none. Raises Invalid MR1482."""
    name = options.text(option)
    if name is None:
        return -1
    if name not in schema.names:
        close = difflib.get_close_matches(name, schema.names, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(schema.names)}"
        raise Invalid(f"option '{option}': there is no column '{name}'", code="MR1482", hint=hint)
    place = int(schema.names.index(name))
    if not fits(schema.field(place).type):
        raise Invalid(
            f"option '{option}': column '{name}' is {schema.field(place).type}",
            code="MR1482",
            hint="partition is an integer, timestamp a TIMESTAMP, headers MAP<VARCHAR, VARCHAR or BYTES>",
        )
    return place


def _topics(options: Options) -> tuple[tuple[str, ...], str]:
    names = tuple(part.strip() for part in re.split(r"[,;]", options.text("topic") or "") if part.strip())
    pattern = options.text("topic.pattern") or ""
    if bool(names) == bool(pattern):
        raise Invalid(
            "connector 'kafka' needs one of the options 'topic' and 'topic.pattern'",
            code="MR1474",
            hint="set 'topic' = 'orders'",
        )
    try:
        re.compile(pattern)
    except re.error as error:
        raise Invalid(
            f"option 'topic.pattern' can not be '{pattern}': {error}",
            code="MR1474",
            hint="use a regular expression such as 'orders-.*'",
        ) from None
    return names, pattern


def _decoding(
    options: Options,
    schema: pa.Schema,
    format: str,
    layout: TextLayout,
    value: ReadSchema | None,
    key: ReadSchema | None,
    named: tuple[str, ...],
) -> Decoding:
    keys = key_columns(",".join(named), schema.names)
    key_format = key_format_of(options, len(keys))
    origins: list[str] = []
    fields: list[pa.Field] = []
    names: list[str] = []
    everything = options.text("value.fields-include") != "except_key"
    for column in schema:
        about = (column.metadata or {}).get(METADATA)
        if about is not None:
            origins.append(_metadata_key(column, about.decode()))
            fields.append(pa.field(column.name, column.type, column.nullable))
            continue
        in_key = column.name in keys
        origins.append(KEY if in_key else VALUE)
        fields.append(column)
        if everything or not in_key:
            names.append(column.name)
    plain = pa.schema(fields)
    upsert = options.text("mode") == "upsert"
    if upsert and not keys:
        raise Invalid(
            "a source in upsert mode needs to know its key",
            code="MR1476",
            hint="set 'key' to the columns of the message key",
        )
    if format == "raw" and VALUE in origins:
        check_raw(pa.schema([f for f, origin in zip(plain, origins, strict=True) if origin == VALUE]))
    if key_format == "raw" and keys:
        one = plain.field(keys[0]).type
        key_format = "raw" if pa.types.is_string(one) or pa.types.is_binary(one) else "csv"
    tombstones = "delete" if upsert else options.required("tombstones")
    for origin, read in ((VALUE, value), (KEY, key)):
        if read is not None:
            check_columns([f for f, o in zip(plain, origins, strict=True) if o == origin], read)
    return Decoding(format, key_format, plain, tuple(origins), tuple(names), tombstones, layout, value, key)


def _metadata_key(column: pa.Field, key: str) -> str:
    """The key in its one spelling. Raises Invalid MR1477 and MR1478."""
    wanted = key.strip().lstrip("_")
    header = re.fullmatch(r"headers?[.(]'?(.+?)'?\)?", wanted, re.IGNORECASE)
    if header is not None:
        wanted, fits = f"headers.{header[1]}", _METADATA_TYPES["key"]
    else:
        wanted = wanted.lower().replace("_", "-")
        if wanted not in _METADATA_TYPES:
            close = difflib.get_close_matches(wanted, _METADATA_TYPES, n=1)
            known = ", ".join(_METADATA_TYPES)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {known} and headers.<name>"
            raise Invalid(f"Kafka messages have no metadata '{key}'", code="MR1477", hint=hint)
        fits = _METADATA_TYPES[wanted]
    if not fits(column.type):
        raise Invalid(
            f"metadata column {column.name} can not be {column.type}",
            code="MR1478",
            hint="offset and partition are BIGINT, timestamp is TIMESTAMP(3), key and headers are STRING or BYTES",
        )
    return wanted


def _start(options: Options, topics: tuple[str, ...]) -> Start:
    mode = STARTS[options.required("start")]
    if mode == "timestamp":
        return Start(mode, timestamp=_milliseconds(options.text("start.timestamp")))
    if mode == "offsets":
        return Start(mode, offsets=_offsets(options.text("start.offsets"), topics))
    return Start(mode)


def _milliseconds(text: str | None) -> int:
    try:
        if text is None:
            raise ValueError
        if re.fullmatch(r"\d+", text.strip()):
            return int(text)
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise Invalid(
            f"option 'start.timestamp' can not be '{text or ''}'",
            code="MR1479",
            hint="give epoch milliseconds or ISO text such as 2026-01-31T12:00:00Z",
        ) from None
    aware = found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)  # noqa: UP017
    return int(aware.timestamp() * 1000)


def _offsets(text: str | None, topics: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """`0:42,1:300`, `topic/0:42` or `partition:0,offset:42;partition:1,offset:300`."""
    plain = re.sub(r"partition:(\d+),offset:(\d+)", r"\1:\2", text or "").replace(";", ",")
    found: list[tuple[str, int]] = []
    for part in filter(None, (piece.strip() for piece in plain.split(","))):
        match = re.fullmatch(r"(?:(.+)/)?(\d+):(\d+)", part)
        if match is None or (match[1] is None and len(topics) != 1):
            raise Invalid(
                f"option 'start.offsets' can not be '{text}'",
                code="MR1479",
                hint="write 0:42,1:300 for one topic, orders/0:42,bids/0:7 for several",
            )
        found.append((f"{match[1] or topics[0]}/{match[2]}", int(match[3])))
    if not found:
        raise Invalid(
            "option 'start' = 'offsets' needs 'start.offsets'",
            code="MR1479",
            hint="set 'start.offsets' = '0:42,1:300'",
        )
    return tuple(found)


CONNECTOR = Connector(
    name="kafka",
    doc="topics of Apache Kafka and what speaks its protocol",
    source_options=OPTIONS,
    sink_options=OPTIONS,
    source=make_source,
    sink=make_sink,
    metadata=True,
)
