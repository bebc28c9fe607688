"""The Kafka connector: its options and the specs made of them. Connects only to find columns that are not declared."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from datetime import datetime, timezone

import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.connectors.files.connector import read_layout
from millrace.operators.connectors.kafka.clients import Servers, read_servers
from millrace.operators.connectors.kafka.decoding import KEY, VALUE, Decoding
from millrace.operators.connectors.kafka.sampling import find_columns
from millrace.operators.connectors.kafka.source import KafkaSourceSpec, Start
from millrace.operators.connectors.options import Kind, Option, Options
from millrace.operators.connectors.registry import METADATA, Connector
from millrace.operators.formats.raw import check_raw
from millrace.operators.formats.records import TextLayout

FORMATS = ("json", "csv", "raw", "debezium-json")
_ALIASES = {"debezium": "debezium-json", "text": "raw", "string": "raw", "jsonlines": "json"}
_STARTS = {
    "earliest": "earliest",
    "earliest-offset": "earliest",
    "latest": "latest",
    "latest-offset": "latest",
    "timestamp": "timestamp",
    "offsets": "offsets",
    "specific-offsets": "offsets",
}
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

_OPTIONS = (
    Option(
        "bootstrap.servers",
        "host:port of brokers, separated by commas",
        required=True,
        aliases=("properties.bootstrap.servers", "brokers", "bootstrap_servers"),
    ),
    Option("topic", "topics, separated by commas", aliases=("topic.name", "topics")),
    Option("format", "json, csv, raw or debezium-json", aliases=("value.format",)),
    Option("key", "columns of the message key, separated by commas", aliases=("key.fields", "key.columns")),
    Option("key.format", "raw (one column as text) or json", choices=("raw", "json")),
    Option(
        "value.fields-include",
        "whether the value holds the key columns too",
        default="all",
        choices=("all", "except_key"),
    ),
    Option("mode", "append, or upsert by key", choices=("append", "upsert")),
    Option("delimiter", "between CSV fields", Kind.CHARACTER, ",", ("csv.delimiter", "csv.field-delimiter")),
    Option("quote", "around CSV fields; empty for none", Kind.CHARACTER, '"', ("csv.quote",)),
    Option("escape", "before a CSV character taken as it stands", Kind.CHARACTER, "", ("csv.escape",)),
    Option("null", "the CSV text that stands for NULL", default="", aliases=("csv.null",)),
    Option("kafka.*", "settings of librdkafka: SASL, TLS, tuning"),
    Option("properties.*", "the same, as other systems spell it"),
)
_SOURCE_OPTIONS = (
    Option("topic.pattern", "a regular expression that whole topic names match", aliases=("topic-pattern",)),
    Option(
        "group.id",
        "the name under which brokers see the reader; offsets live in checkpoints",
        default="millrace",
        aliases=("properties.group.id", "group"),
    ),
    Option(
        "start",
        "earliest, latest, timestamp or offsets",
        default="earliest",
        aliases=("startup.mode", "scan.startup.mode", "auto.offset.reset", "properties.auto.offset.reset"),
        choices=tuple(_STARTS),
    ),
    Option(
        "start.timestamp",
        "the first message time read: epoch milliseconds or ISO text",
        aliases=("scan.startup.timestamp-millis", "startup.timestamp"),
    ),
    Option(
        "start.offsets",
        "first offsets by partition: 0:42,1:300 or topic/0:42",
        aliases=("scan.startup.specific-offsets", "startup.offsets"),
    ),
    Option(
        "stop",
        "never, or latest: end at the offsets that are the latest at the start",
        default="never",
        aliases=("scan.bounded.mode",),
        choices=("never", "latest", "unbounded", "latest-offset"),
    ),
    Option(
        "isolation.level",
        "whether rows of open and aborted transactions are passed over",
        default="read_committed",
        aliases=("kafka.isolation.level", "properties.isolation.level"),
        choices=("read_committed", "read_uncommitted"),
    ),
    Option(
        "discovery.interval",
        "how often to look for new partitions and topics",
        Kind.DURATION,
        "10s",
        ("scan.topic-partition-discovery.interval",),
    ),
    Option(
        "tombstones",
        "what a message without a value is in append mode",
        default="skip",
        choices=("skip", "null"),
    ),
)


def make_source(options: Options, schema: pa.Schema | None, format: str | None) -> KafkaSourceSpec:
    """The spec of a Kafka source; finds the columns in the first messages where none are declared.

    Raises Invalid MR1450 to MR1459.
    """
    topics, pattern = _topics(options)
    chosen = read_format(format or options.text("format"))
    servers = servers_of(options)
    layout = read_layout(options)
    committed = options.text("isolation.level") != "read_uncommitted"
    if schema is None:
        schema = find_columns(servers, topics, pattern, chosen)
    decoding = _decoding(options, schema, chosen, layout)
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


def servers_of(options: Options) -> Servers:
    """The cluster, and the settings that pass through. Raises Invalid MR1450."""
    settings = options.prefixed("properties") | options.prefixed("kafka")
    return read_servers(options.required("bootstrap.servers"), settings)


def read_format(format: str | None) -> str:
    """The value format. Raises Invalid MR1452."""
    if format is None:
        return "json"
    wanted = format.strip().lower()
    wanted = _ALIASES.get(wanted, wanted)
    if wanted in FORMATS:
        return wanted
    close = difflib.get_close_matches(wanted, FORMATS, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(FORMATS)}"
    raise Invalid(f"Kafka messages have no format '{format}'", code="MR1452", hint=hint)


def key_columns(options: Options, names: Sequence[str]) -> tuple[str, ...]:
    """The columns that `key` names. Raises Invalid MR1453."""
    folded = {name.casefold(): name for name in names}
    found = []
    for part in re.split(r"[,;]", options.text("key") or ""):
        name = part.strip()
        if not name:
            continue
        if name.casefold() not in folded:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(names)}"
            raise Invalid(f"option 'key': there is no column '{name}'", code="MR1453", hint=hint)
        found.append(folded[name.casefold()])
    return tuple(found)


def key_format_of(options: Options, count: int) -> str:
    """How the key is written: as set, else raw for one column and JSON for several. Raises Invalid MR1453."""
    wanted = options.text("key.format") or ("raw" if count == 1 else "json")
    if wanted == "raw" and count > 1:
        raise Invalid(
            "option 'key.format': raw takes one column", code="MR1453", hint="set 'key.format' = 'json'"
        )
    return wanted


def _topics(options: Options) -> tuple[tuple[str, ...], str]:
    names = tuple(part.strip() for part in re.split(r"[,;]", options.text("topic") or "") if part.strip())
    pattern = options.text("topic.pattern") or ""
    if bool(names) == bool(pattern):
        raise Invalid(
            "connector 'kafka' needs one of the options 'topic' and 'topic.pattern'",
            code="MR1454",
            hint="set 'topic' = 'orders'",
        )
    try:
        re.compile(pattern)
    except re.error as error:
        raise Invalid(
            f"option 'topic.pattern' can not be '{pattern}': {error}",
            code="MR1454",
            hint="use a regular expression such as 'orders-.*'",
        ) from None
    return names, pattern


def _decoding(options: Options, schema: pa.Schema, format: str, layout: TextLayout) -> Decoding:
    keys = key_columns(options, schema.names)
    key_format = key_format_of(options, len(keys))
    origins: list[str] = []
    fields: list[pa.Field] = []
    names: list[str] = []
    everything = options.text("value.fields-include") != "except_key"
    for column in schema:
        key = (column.metadata or {}).get(METADATA)
        if key is not None:
            origins.append(_metadata_key(column, key.decode()))
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
            code="MR1456",
            hint="set 'key' to the columns of the message key",
        )
    if format == "raw" and VALUE in origins:
        check_raw(pa.schema([f for f, origin in zip(plain, origins, strict=True) if origin == VALUE]))
    if key_format == "raw" and keys:
        one = plain.field(keys[0]).type
        key_format = "raw" if pa.types.is_string(one) or pa.types.is_binary(one) else "csv"
    tombstones = "delete" if upsert else options.required("tombstones")
    return Decoding(format, key_format, plain, tuple(origins), tuple(names), tombstones, layout)


def _metadata_key(column: pa.Field, key: str) -> str:
    """The key in its one spelling. Raises Invalid MR1457 and MR1458."""
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
            raise Invalid(f"Kafka messages have no metadata '{key}'", code="MR1457", hint=hint)
        fits = _METADATA_TYPES[wanted]
    if not fits(column.type):
        raise Invalid(
            f"metadata column {column.name} can not be {column.type}",
            code="MR1458",
            hint="offset and partition are BIGINT, timestamp is TIMESTAMP(3), key and headers are STRING or BYTES",
        )
    return wanted


def _start(options: Options, topics: tuple[str, ...]) -> Start:
    mode = _STARTS[options.required("start")]
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
            code="MR1459",
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
                code="MR1459",
                hint="write 0:42,1:300 for one topic, orders/0:42,bids/0:7 for several",
            )
        found.append((f"{match[1] or topics[0]}/{match[2]}", int(match[3])))
    if not found:
        raise Invalid(
            "option 'start' = 'offsets' needs 'start.offsets'",
            code="MR1459",
            hint="set 'start.offsets' = '0:42,1:300'",
        )
    return tuple(found)


CONNECTOR = Connector(
    name="kafka",
    doc="topics of Apache Kafka and what speaks its protocol",
    source_options=(*_OPTIONS, *_SOURCE_OPTIONS),
    source=make_source,
    metadata=True,
)
