"""The Kafka sinks: at least once by writing at once, exactly once by an outbox and a marker in one transaction."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import ClassVar

import pyarrow as pa
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from millrace.errors import Fenced, Invalid, MillraceError
from millrace.operators.batch import Batch
from millrace.operators.connectors.kafka.clients import LOG, Servers, is_fenced, translated
from millrace.operators.connectors.kafka.encoding import (
    Encoding,
    RecordEncoder,
    Records,
    from_outbox,
    to_outbox,
)
from millrace.operators.connectors.kafka.markers import ANSWER_S, Markers
from millrace.operators.connectors.kafka.producing import Deliveries
from millrace.operators.operator import Context
from millrace.operators.sink import Changelog, Commit, Sink, SinkSpec
from millrace.operators.spec import serialisable

PREFIX = "millrace"
MARKER_TOPIC = "__millrace_markers"
ATTEMPTS = 5
COMMIT_S = 60.0
CLOSE_S = 2.0


@serialisable
@dataclass(frozen=True, slots=True)
class Target:
    """The topic that rows go to, and how. `partitioner` is one of librdkafka's."""

    servers: Servers
    topic: str
    encoding: Encoding
    partitioner: str = "murmur2_random"

    def details(self) -> dict[str, str]:
        """What EXPLAIN shows of it."""
        how = self.encoding
        shown = {"topic": self.topic, "format": how.format}
        if how.key:
            shown["key"] = ", ".join(how.schema.field(i).name for i in how.key)
        return shown


@dataclass(frozen=True, slots=True)
class KafkaSinkSpec(SinkSpec):
    """Records are sent as rows come and are acknowledged by the end of the checkpoint: at least once.

    A job that is to be exactly once makes an outbox of it, unless it was `asked` for this.
    """

    title: ClassVar[str] = "kafka"
    commit: ClassVar[Commit] = Commit.NONE
    changelogs: ClassVar[frozenset[Changelog]] = frozenset(Changelog)
    target: Target
    prefix: str = PREFIX
    marker_topic: str = MARKER_TOPIC
    asked: bool = False

    @property
    def input_schema(self) -> pa.Schema:
        return self.target.encoding.schema

    @property
    def row_key(self) -> tuple[int, ...] | None:
        return self.target.encoding.key or None

    def build(self, context: Context, partition: int) -> Sink:
        return DirectSink(self.target)

    def in_job(self, job: str, sink: str, guarantee: str) -> SinkSpec:
        if guarantee != "exactly_once" or self.asked:
            return self
        return self.exactly_once(f"{self.prefix}/{job}", sink)

    def exactly_once(self, prefix: str, name: str) -> KafkaOutboxSpec:
        """The same through an outbox, under transactional ids that begin with `prefix/name`."""
        return KafkaOutboxSpec(self.target, prefix, name, self.marker_topic)

    def details(self) -> dict[str, str]:
        return {**self.target.details(), "delivery": "at least once"}


@dataclass(frozen=True, slots=True)
class KafkaOutboxSpec(SinkSpec):
    """Records are sealed with the checkpoint and sent with a marker in one transaction after: exactly once.

    `prefix/name/partition` is the transactional id and the marker's key: it must be the job's own, for its life.
    """

    title: ClassVar[str] = "kafka"
    commit: ClassVar[Commit] = Commit.TRANSACTIONAL
    changelogs: ClassVar[frozenset[Changelog]] = frozenset(Changelog)
    target: Target
    prefix: str
    name: str
    marker_topic: str = MARKER_TOPIC

    @property
    def input_schema(self) -> pa.Schema:
        return self.target.encoding.schema

    @property
    def row_key(self) -> tuple[int, ...] | None:
        return self.target.encoding.key or None

    def build(self, context: Context, partition: int) -> Sink:
        return OutboxSink(self, partition)

    def in_job(self, job: str, sink: str, guarantee: str) -> SinkSpec:
        return replace(self, prefix=f"{self.prefix}/{job}", name=sink)

    def details(self) -> dict[str, str]:
        return {
            **self.target.details(),
            "delivery": "exactly once",
            "transactions": f"{self.prefix}/{self.name}",
        }


def check_topic(servers: Servers, topic: str) -> None:
    """Raises Invalid MR1475 where there is no such topic, Unavailable MR3030 where nobody answers."""
    try:
        found = AdminClient(servers.client({})).list_topics(timeout=ANSWER_S).topics
    except KafkaException as error:
        raise translated(error, f"{servers.bootstrap} did not answer") from error
    if topic not in found:
        raise Invalid(
            f"there is no topic '{topic}' on {servers.bootstrap}",
            code="MR1475",
            hint="create it with as many partitions as it should have",
        )


class DirectSink(Sink):
    """Sends at once; `seal` returns when all that was written is acknowledged."""

    def __init__(self, target: Target) -> None:
        check_topic(target.servers, target.topic)
        self._target = target
        self._encoder = RecordEncoder(target.encoding)
        self._deliveries = Deliveries(target.servers, {"partitioner": target.partitioner})

    def write(self, batch: Batch) -> None:
        try:
            self._deliveries.send(self._target.topic, self._encoder.records(batch))
        except KafkaException as error:
            raise translated(error, f"writing to '{self._target.topic}' failed") from error

    def seal(self, checkpoint: int) -> bytes:
        try:
            self._deliveries.flush()
        except KafkaException as error:
            raise translated(error, f"writing to '{self._target.topic}' failed") from error
        return b""

    def close(self) -> None:
        """What was written without a seal may have been sent: nothing promised that it was not."""
        self._deliveries.producer.purge()
        self._deliveries.producer.flush(1.0)


class OutboxSink(Sink):
    """Keeps rows until their checkpoint is published.

    Invariant: whoever fences under the same name refuses all before it, which never publish again; `_marker` is the
    number of the last outbox committed under the name (−1: none), read behind the fence (None: not yet).
    """

    def __init__(self, spec: KafkaOutboxSpec, partition: int) -> None:
        self._target = spec.target
        self._encoder = RecordEncoder(spec.target.encoding)
        self._marker_topic = spec.marker_topic
        self.transactional_id = f"{spec.prefix}/{spec.name}/{partition}"
        self._waiting: list[Records] = []
        self._lost: MillraceError | None = None
        self._marker: int | None = None
        self._deliveries: Deliveries | None = None
        self._marks: Markers | None = None
        self._publishing = threading.Lock()

    def write(self, batch: Batch) -> None:
        if batch.num_rows:
            self._waiting.append(self._encoder.records(batch))

    def seal(self, checkpoint: int) -> bytes:
        outbox = to_outbox(self._waiting)
        self._waiting = []
        return outbox

    def fence(self) -> None:
        check_topic(self._target.servers, self._target.topic)
        try:
            deliveries = Deliveries(
                self._target.servers,
                {
                    "transactional.id": self.transactional_id,
                    "partitioner": self._target.partitioner,
                    "linger.ms": 1,
                },
            )
            deliveries.producer.init_transactions(ANSWER_S)
        except KafkaException as error:
            raise self._failure(error) from error
        self._deliveries, self._marker, self._lost = deliveries, None, None

    def marker(self) -> int | None:
        number = self._published()
        return None if number < 0 else number

    def publish(self, checkpoint: int, outbox: bytes) -> None:
        if checkpoint <= self._published():
            return
        parts = from_outbox(outbox, f"outbox {checkpoint} of '{self._target.topic}'")
        if not parts:
            return
        with self._publishing:
            self._publish(checkpoint, parts)

    def close(self) -> None:
        self._waiting = []
        # What is purged under a transaction on its way would break it, and nothing else is in the queue.
        if self._deliveries is not None and self._publishing.acquire(timeout=CLOSE_S):
            self._deliveries.producer.purge()
            self._publishing.release()

    def _published(self) -> int:
        if self._deliveries is None:
            self.fence()
        if self._marker is None:
            self._marker = self._markers().read(self.transactional_id)
        return self._marker

    def _markers(self) -> Markers:
        if self._marks is None:
            self._marks = Markers(self._target.servers, self._marker_topic)
        return self._marks

    def _publish(self, checkpoint: int, parts: list[Records]) -> None:
        if self._lost is not None:
            raise self._lost
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._transact(checkpoint, parts)
                self._marker = checkpoint
                return
            except KafkaException as error:
                failure = self._failure(error)
                if not self._aborted(error) or attempt == ATTEMPTS:
                    self._lost = failure
                    raise failure from error
                LOG.warning("%s; trying again", failure.message)
            time.sleep(0.1 * attempt)

    def _transact(self, checkpoint: int, parts: list[Records]) -> None:
        deliveries, markers = self._deliveries, self._markers()
        assert deliveries is not None
        producer = deliveries.producer
        producer.begin_transaction()
        for part in parts:
            deliveries.send(self._target.topic, part)
        name = self.transactional_id
        producer.produce(
            markers.topic, str(checkpoint).encode(), name.encode(), partition=markers.place(name)
        )
        deadline = time.monotonic() + COMMIT_S
        while True:
            try:
                producer.commit_transaction(10.0)
                return
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise

    def _failure(self, error: KafkaException) -> MillraceError:
        cause = error.args[0]
        if is_fenced(cause):
            return Fenced(
                f"sink partition '{self.transactional_id}' has another owner",
                code="MR4031",
                hint="stop this one",
            )
        return translated(error, f"publishing to '{self._target.topic}' failed")

    def _aborted(self, error: KafkaException) -> bool:
        """Whether the transaction that failed was aborted for certain, so that it may be tried again.

        Where that is not known only a new owner can tell, by reading the marker behind its own fence. To begin anew
        here could fence a successor.
        """
        if self._deliveries is None or is_fenced(error.args[0]) or error.args[0].fatal():
            return False
        try:
            self._deliveries.producer.abort_transaction(30.0)
        except KafkaException:
            return False
        self._deliveries.forget()
        return True
