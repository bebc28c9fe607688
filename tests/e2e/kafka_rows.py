"""What Kafka tests share: a context whose clock is real, and quick ways to fill and read topics."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import pyarrow as pa
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition
from tests.e2e.broker import Broker

from millrace.operators.batch import Batch
from millrace.operators.connectors import registry
from millrace.operators.source import BadRecord, Position, Source, SourceSpec, SplitReader

PATIENCE_S = 30.0


class Clock:
    """A context that nobody may hand rows to; its time can be moved ahead."""

    vnodes = 256

    def __init__(self) -> None:
        self.ahead = 0

    def now(self) -> int:
        return time.time_ns() // 1000 + self.ahead

    def late(self, batch: Batch) -> None:
        raise AssertionError

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        raise AssertionError


def source_spec(broker: Broker, schema: pa.Schema | None, format: str = "json", **options: str) -> SourceSpec:
    """The spec of a source; `_` in an option's name stands for a dot."""
    given = {name.replace("_", "."): value for name, value in options.items()}
    given.setdefault("stop", "latest")
    return registry.source_spec("kafka", {"bootstrap.servers": broker.servers, **given}, schema, format)


def fill(
    broker: Broker,
    topic: str,
    values: Iterable[bytes | str | None],
    partition: int = 0,
    keys: Iterable[bytes | str | None] | None = None,
    **more: object,
) -> None:
    """Write values to a partition and wait until the broker has them."""
    producer = Producer({"bootstrap.servers": broker.servers, "linger.ms": 1, "log_level": 2})
    found = list(values)
    for value, key in zip(found, keys if keys is not None else [None] * len(found), strict=True):
        while True:
            try:
                producer.produce(topic, value=value, key=key, partition=partition, **more)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(PATIENCE_S) == 0


def messages(
    broker: Broker, topic: str, *, committed: bool = True, patience: float = PATIENCE_S
) -> list[Message]:
    """All messages of a topic up to its present end, partition after partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.servers,
            "group.id": "test",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "log_level": 2,
        }
    )
    places = [
        TopicPartition(topic, p, OFFSET_BEGINNING)
        for p in consumer.list_topics(topic, timeout=10).topics[topic].partitions
    ]
    consumer.assign(places)
    ends = 0
    found: list[Message] = []
    deadline = time.monotonic() + patience
    while ends < len(places):
        assert time.monotonic() < deadline
        for message in consumer.consume(10_000, 0.1):
            error = message.error()
            if error is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                ends += 1
            else:
                found.append(message)
    consumer.close()
    return sorted(found, key=lambda m: (m.partition(), m.offset()))


class Reading:
    """Polls all splits of a source until they end."""

    def __init__(
        self,
        spec: SourceSpec,
        positions: Mapping[str, Position] | None = None,
        *,
        max_rows: int = 65_536,
    ) -> None:
        self.clock = Clock()
        self.source: Source = spec.build(self.clock)
        self.max_rows = max_rows
        self.readers: dict[str, SplitReader] = {}
        self.rows: dict[str, list[dict[str, object]]] = {}
        self.weights: dict[str, list[int]] = {}
        self.bad: list[BadRecord] = []
        for split, position in (positions or {}).items():
            self._open(split, position)
        self.discover()

    def _open(self, split: str, position: Position | None) -> None:
        self.readers[split] = self.source.open(split, position)
        self.rows[split] = []
        self.weights[split] = []

    def discover(self) -> None:
        for split in self.source.discover():
            if split not in self.readers:
                self._open(split, None)

    def poll(self) -> int:
        """One poll of every split."""
        moved = 0
        for split, reader in self.readers.items():
            polled = reader.poll(self.max_rows)
            if polled is None:
                continue
            self.bad += polled.bad
            moved += len(polled.bad)
            if polled.batch is not None:
                batch = polled.batch
                moved += batch.num_rows
                self.rows[split] += batch.data.to_pylist()
                self.weights[split] += (
                    [1] * batch.num_rows if batch.weights is None else batch.weights.tolist()
                )
        return moved

    def positions(self) -> dict[str, Position]:
        return {split: reader.position for split, reader in self.readers.items()}

    def run(self) -> Reading:
        """Poll until every split has ended."""
        return self.until(lambda: all(r.ended for r in self.readers.values())).close()

    def until(self, done: object) -> Reading:
        deadline = time.monotonic() + PATIENCE_S
        while not done():  # type: ignore[operator]
            assert time.monotonic() < deadline, "the rows did not come"
            if not self.poll():
                time.sleep(0.002)
        return self

    def close(self) -> Reading:
        for reader in self.readers.values():
            reader.close()
        self.source.close()
        return self

    @property
    def all(self) -> list[dict[str, object]]:
        return [row for rows in self.rows.values() for row in rows]
