"""Declared options of the Kafka connector, and the readings that sources and sinks share. Connects to nothing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from millrace.errors import Invalid, Unsupported
from millrace.operators.connectors.kafka.clients import Servers, read_servers
from millrace.operators.connectors.kafka.schema_registry import REGISTRY_OPTIONS
from millrace.operators.connectors.kafka.schemas import SCHEMA_FORMATS, SCHEMA_OPTIONS
from millrace.operators.connectors.options import Kind, Option, Options

FORMATS = ("json", "csv", "raw", "debezium-json", *SCHEMA_FORMATS)
_ALIASES = {"debezium": "debezium-json", "text": "raw", "string": "raw", "jsonlines": "json"}
_ALIASES |= {"avro-confluent": "avro", "avro_confluent": "avro"}
STARTS = {
    "earliest": "earliest",
    "earliest-offset": "earliest",
    "latest": "latest",
    "latest-offset": "latest",
    "timestamp": "timestamp",
    "offsets": "offsets",
    "specific-offsets": "offsets",
}
_SHARED = (
    Option(
        "bootstrap.servers",
        "host:port of brokers, separated by commas",
        required=True,
        aliases=("properties.bootstrap.servers", "brokers", "bootstrap_servers"),
    ),
    Option("topic", "topics, separated by commas", aliases=("topic.name", "topics")),
    Option("format", "json, csv, raw, debezium-json or avro", aliases=("value.format",)),
    Option("key", "columns of the message key, separated by commas", aliases=("key.fields", "key.columns")),
    Option(
        "key.format",
        "raw (one column as text), json or avro",
        choices=("raw", "json", *SCHEMA_FORMATS),
    ),
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
    *SCHEMA_OPTIONS,
    *REGISTRY_OPTIONS,
    Option("kafka.*", "settings of librdkafka: SASL, TLS, tuning"),
    Option("properties.*", "the same, as other systems spell it"),
)
_READING = (
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
        choices=tuple(STARTS),
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


_WRITING = (
    Option(
        "delivery",
        "at_least_once: sent as rows come; exactly_once: by outbox and marker in one transaction; as the job's "
        "guarantee says where it is left out",
        aliases=("sink.delivery-guarantee", "delivery.guarantee"),
        choices=("at_least_once", "exactly_once", "at-least-once", "exactly-once"),
    ),
    Option(
        "transactional.prefix",
        "begins the transactional ids and names the markers: the job's own, for its life",
        default="millrace",
        aliases=("sink.transactional-id-prefix",),
    ),
    Option("marker.topic", "the compacted topic of markers", default="__millrace_markers"),
    Option(
        "partitioner",
        "how a key chooses its partition; murmur2_random is what Java clients do",
        default="murmur2_random",
        aliases=("sink.partitioner",),
        choices=(
            "murmur2_random",
            "murmur2",
            "consistent",
            "consistent_random",
            "fnv1a",
            "fnv1a_random",
            "random",
        ),
    ),
    Option("partition", "the column that holds the number of the partition"),
    Option("timestamp", "the column that becomes the message's timestamp"),
    Option("headers", "the MAP column that becomes the message's headers"),
)
OPTIONS = (*_SHARED, *_READING, *_WRITING)
"""All of them, for sources and sinks alike: a declared table may be read and written."""


def servers_of(options: Options) -> Servers:
    """The cluster, and the settings that pass through. Raises Invalid MR1470."""
    settings = options.prefixed("properties") | options.prefixed("kafka")
    return read_servers(options.required("bootstrap.servers"), settings)


def read_format(format: str | None) -> str:
    """The value format. Raises Invalid MR1472, Unsupported MR1916."""
    if format is None:
        return "json"
    wanted = format.strip().lower()
    wanted = _ALIASES.get(wanted, wanted)
    if wanted == "protobuf":
        raise Unsupported(
            "Kafka messages in format 'protobuf' are not read or written yet",
            code="MR1916",
            hint="there are " + ", ".join(FORMATS),
        )
    if wanted in FORMATS:
        return wanted
    close = difflib.get_close_matches(wanted, FORMATS, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(FORMATS)}"
    raise Invalid(f"Kafka messages have no format '{format}'", code="MR1472", hint=hint)


def key_columns(listed: str | None, names: Sequence[str]) -> tuple[str, ...]:
    """The columns that option `key` lists. Raises Invalid MR1473."""
    folded = {name.casefold(): name for name in names}
    found = []
    for part in re.split(r"[,;]", listed or ""):
        name = part.strip()
        if not name:
            continue
        if name.casefold() not in folded:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(names)}"
            raise Invalid(f"option 'key': there is no column '{name}'", code="MR1473", hint=hint)
        found.append(folded[name.casefold()])
    return tuple(found)


def key_format_of(options: Options, count: int) -> str:
    """How the key is written: as set, else raw for one column and JSON for several. Raises Invalid MR1473."""
    wanted = options.text("key.format") or ("raw" if count == 1 else "json")
    if wanted == "raw" and count > 1:
        raise Invalid(
            "option 'key.format': raw takes one column", code="MR1473", hint="set 'key.format' = 'json'"
        )
    return wanted
