"""Finds the columns of a topic in its first messages. Used at planning, where none are declared."""

from __future__ import annotations

import re
import time

import pyarrow as pa
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from millrace.errors import Invalid
from millrace.operators.connectors.kafka.clients import Servers, translated
from millrace.operators.formats.inference import infer_json

MESSAGES = 1_000
PATIENCE_S = 10.0


def find_columns(servers: Servers, topics: tuple[str, ...], pattern: str, format: str) -> pa.Schema:
    """Columns of the first messages. Raises Invalid MR1480 where there are none or the format names none."""
    name = topics[0] if topics else pattern
    if format == "raw":
        return pa.schema([("value", pa.string())])
    if format == "csv":
        raise Invalid("CSV messages do not name their columns", code="MR1480", hint="declare the columns")
    sample = _sample(servers, topics, pattern)
    if not sample:
        raise Invalid(
            f"topic '{name}' has no message to find columns in", code="MR1480", hint="declare the columns"
        )
    schema = infer_json(b"\n".join(value.replace(b"\n", b" ") for value in sample) + b"\n", name)
    if format != "debezium-json":
        return schema
    for side in ("after", "before"):
        place = schema.get_field_index(side)
        if place >= 0 and pa.types.is_struct(schema.field(place).type):
            return pa.schema(list(schema.field(place).type))
    raise Invalid(f"topic '{name}' has no change with rows", code="MR1480", hint="declare the columns")


def _sample(servers: Servers, topics: tuple[str, ...], pattern: str) -> list[bytes]:
    consumer = Consumer(
        servers.client(
            {
                "group.id": "millrace-sample",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
            }
        )
    )
    values: list[bytes] = []
    try:
        known = consumer.list_topics(timeout=PATIENCE_S).topics
        names = [n for n in known if n in topics or (pattern and re.fullmatch(pattern, n))]
        places = [TopicPartition(n, p, OFFSET_BEGINNING) for n in names for p in known[n].partitions]
        if not places:
            return []
        consumer.assign(places)
        ended = 0
        deadline = time.monotonic() + PATIENCE_S
        while ended < len(places) and len(values) < MESSAGES and time.monotonic() < deadline:
            for message in consumer.consume(MESSAGES, 0.2):
                error = message.error()
                value = message.value()
                if error is not None:
                    ended += error.code() == KafkaError._PARTITION_EOF
                elif value:
                    values.append(value)
    except KafkaException as error:
        raise translated(error, f"{servers.bootstrap} did not answer") from error
    finally:
        consumer.close()
    return values[:MESSAGES]
