"""Hands records to a producer and says what became of them."""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from millrace.operators.connectors.kafka.clients import Servers, translated
from millrace.operators.connectors.kafka.encoding import Records

FULL_WAIT_S = 0.05

PRODUCER: dict[str, str | int | bool] = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 5,
    "batch.size": 256 << 10,
    "queue.buffering.max.messages": 500_000,
    "queue.buffering.max.kbytes": 256 << 10,
    "delivery.report.only.error": True,
}
"""What producers of this connector start from; users override it by `kafka.*`."""


class Deliveries:
    """A producer whose failed deliveries are noted and raised by the next call."""

    def __init__(self, servers: Servers, own: dict[str, str | int | bool]) -> None:
        self.producer = Producer(servers.client({**PRODUCER, **own}))
        self._failed: KafkaError | None = None

    def send(self, topic: str, records: Records) -> None:
        """Queue records in order; waits where the queue is full. Raises KafkaException."""
        produce, poll = self.producer.produce, self.producer.poll
        note = self._note
        keys = records.keys if records.keys is not None else [None] * len(records)
        plain = records.partitions is None and records.timestamps is None and records.headers is None
        if plain:
            for key, value in zip(keys, records.values, strict=True):
                try:
                    produce(topic, value, key, on_delivery=note)
                except BufferError:
                    poll(FULL_WAIT_S)
                    self._again(topic, value, key, {})
        else:
            for i, (key, value) in enumerate(zip(keys, records.values, strict=True)):
                self._again(topic, value, key, _more(records, i))
        poll(0)
        self.check()

    def _again(self, topic: str, value: bytes | None, key: bytes | None, more: dict[str, Any]) -> None:
        while True:
            try:
                self.producer.produce(topic, value, key, on_delivery=self._note, **more)
                return
            except BufferError:
                self.producer.poll(FULL_WAIT_S)
                self.check()

    def flush(self) -> None:
        """Wait until every record was acknowledged. Raises KafkaException where one was not."""
        while self.producer.flush(1.0):
            self.check()
        self.check()

    def check(self) -> None:
        """Raises KafkaException where a delivery failed."""
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise KafkaException(failed)

    def _note(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._failed is None:
            self._failed = error

    def forget(self) -> None:
        """Pass over failures so far: their transaction was aborted."""
        self._failed = None


def _more(records: Records, i: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if records.partitions is not None and records.partitions[i] is not None:
        found["partition"] = records.partitions[i]
    if records.timestamps is not None and records.timestamps[i] is not None:
        found["timestamp"] = records.timestamps[i]
    if records.headers is not None and records.headers[i]:
        found["headers"] = records.headers[i]
    return found


__all__ = ["Deliveries", "translated"]
