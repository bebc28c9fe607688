"""The marker topic: which outbox of a sink partition was published last. Compacted; read only behind a fence."""

from __future__ import annotations

import time
import zlib

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from millrace.errors import Corrupt, Unavailable
from millrace.operators.connectors.kafka.clients import TRANSIENT, Servers, translated

PARTITIONS = 8
ANSWER_S = 30.0
SEGMENT_BYTES = 8 << 20
SEGMENT_MS = 600_000
OPEN_TRANSACTIONS_S = 90.0
"""As long as a transaction of somebody else may hold back what is read committed, and some more."""


class Markers:
    """The markers of all sinks that share a topic; `name` is prefix, sink and partition."""

    def __init__(self, servers: Servers, topic: str) -> None:
        self._servers = servers
        self.topic = topic
        self._admin = AdminClient(servers.client({}))
        self._partitions = self._ensure()

    def place(self, name: str) -> int:
        """The partition of the topic that holds the markers of `name`."""
        return zlib.crc32(name.encode()) % self._partitions

    def read(self, name: str) -> int:
        """The greatest outbox published under `name`, −1 for none.

        To be called after the predecessor was fenced. Reads committed markers up to the high watermark of now, also
        those behind transactions of others that are still open: what was committed before the fence is never missed.
        """
        place = TopicPartition(self.topic, self.place(name))
        end = self._end(place)
        consumer = Consumer(
            self._servers.client(
                {
                    "group.id": "millrace-markers",
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    "isolation.level": "read_committed",
                    "auto.offset.reset": "earliest",
                    "fetch.wait.max.ms": 50,
                }
            )
        )
        try:
            consumer.assign([TopicPartition(place.topic, place.partition, OFFSET_BEGINNING)])
            return self._scan(consumer, name, end)
        except KafkaException as error:
            raise translated(error, f"marker topic '{self.topic}' was not read") from error
        finally:
            consumer.close()

    def _scan(self, consumer: Consumer, name: str, end: int) -> int:
        wanted = name.encode()
        marker = -1
        deadline = time.monotonic() + OPEN_TRANSACTIONS_S
        while time.monotonic() < deadline:
            for message in consumer.consume(10_000, 0.1):
                error = message.error()
                offset = message.offset() or 0
                if error is None:
                    if message.key() == wanted:
                        marker = max(marker, _number(message.value(), name))
                    reached = offset + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    reached = offset
                elif error.retriable():
                    continue
                else:
                    raise KafkaException(error)
                if reached >= end:
                    return marker
        raise Unavailable(
            f"marker topic '{self.topic}' could not be read to offset {end}: a transaction is still open",
            code="MR3032",
            hint="it times out by itself; try again",
        )

    def _end(self, place: TopicPartition) -> int:
        """The high watermark, open transactions included."""
        latest = OffsetSpec.latest()
        assert latest is not None
        deadline = time.monotonic() + ANSWER_S
        while True:
            try:
                asked = self._admin.list_offsets(
                    {place: latest},
                    isolation_level=IsolationLevel.READ_UNCOMMITTED,
                    request_timeout=ANSWER_S,
                )
                return int(asked[place].result(ANSWER_S).offset)
            except KafkaException as error:
                # The leader of a topic that was just made says so a little later than the others.
                if error.args[0].code() not in TRANSIENT or time.monotonic() > deadline:
                    raise translated(error, f"marker topic '{self.topic}' did not answer") from error
                time.sleep(0.05)

    def _ensure(self) -> int:
        """The number of the topic's partitions, after creating it where it is missing."""
        try:
            found = self._admin.list_topics(timeout=ANSWER_S).topics.get(self.topic)
            if found is None:
                new = NewTopic(
                    self.topic,
                    PARTITIONS,
                    config={
                        "cleanup.policy": "compact",
                        "min.cleanable.dirty.ratio": "0.1",
                        # The last segment is never compacted, and a new owner reads all there is.
                        "segment.bytes": str(SEGMENT_BYTES),
                        "segment.ms": str(SEGMENT_MS),
                    },
                )
                try:
                    self._admin.create_topics([new])[self.topic].result(ANSWER_S)
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                        raise
            deadline = time.monotonic() + ANSWER_S
            while time.monotonic() < deadline:
                found = self._admin.list_topics(timeout=ANSWER_S).topics.get(self.topic)
                if (
                    found is not None
                    and found.partitions
                    and all(p.leader >= 0 for p in found.partitions.values())
                ):
                    return len(found.partitions)
                time.sleep(0.02)
        except KafkaException as error:
            raise translated(error, f"marker topic '{self.topic}' was not created") from error
        raise Unavailable(f"marker topic '{self.topic}' has no leaders", code="MR3032")


def _number(value: bytes | None, name: str) -> int:
    try:
        return -1 if value is None else int(value)
    except ValueError:
        raise Corrupt(f"the marker of '{name}' is {value!r}, no number", code="MR5043") from None
