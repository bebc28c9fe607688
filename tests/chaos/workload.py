"""Events that tell what must come of them: how they are produced, the jobs that read them, the exact answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import Producer
from tests.e2e.broker import Broker

KEYS = 500
GROUPS = 200
BEGIN_MS = 1_700_000_000_000
WINDOW_MS = 10_000
BATCH = 500
"""Events are produced in runs of so many."""


@dataclass(frozen=True, slots=True)
class Topics:
    """Where events go in and rows come out."""

    events: str
    windows: str
    totals: str
    copies: str

    @classmethod
    def make(cls, broker: Broker, partitions: int) -> Topics:
        """New topics; `partitions` for the events."""
        return cls(broker.topic(partitions), broker.topic(3), broker.topic(3), broker.topic(4))


def event(i: int) -> tuple[str, bytes]:
    """Key and value of event `i`. Events of one key go to one partition, in order; a group has events of all keys."""
    key = f"k{i * 7919 % KEYS}"
    group = i * 104_729 % GROUPS
    value = f'{{"id":{i},"k":"{key}","g":{group},"v":{i % 97},"ts":{BEGIN_MS + i}}}'
    return key, value.encode()


def aggregating(broker: Broker, topics: Topics) -> str:
    """Totals by group and by window: rows change partition between source and aggregate."""
    return f"""
        CREATE SOURCE events (id BIGINT, k VARCHAR, g BIGINT, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts)
          FROM KAFKA (bootstrap.servers = '{broker.servers}', topic = '{topics.events}',
                      watermark.idle_timeout = '1h');
        CREATE SINK windows FROM (
          SELECT g, window_end AS at, count(*) AS n, sum(v) AS total
          FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '10' SECOND)) WHERE g >= 0
          GROUP BY g, window_end
        ) INTO KAFKA (bootstrap.servers = '{broker.servers}', topic = '{topics.windows}', key = 'g');
        CREATE SINK totals FROM (SELECT g, count(*) AS n, sum(v) AS total FROM events WHERE g >= 0 GROUP BY g)
          INTO KAFKA (bootstrap.servers = '{broker.servers}', topic = '{topics.totals}');
    """


def copying(broker: Broker, topics: Topics) -> str:
    """Every event as it is: no row changes partition."""
    return f"""
        CREATE SOURCE events (id BIGINT, k VARCHAR, g BIGINT)
          FROM KAFKA (bootstrap.servers = '{broker.servers}', topic = '{topics.events}');
        CREATE SINK copies FROM (SELECT id, k FROM events WHERE g >= 0) INTO KAFKA
          (bootstrap.servers = '{broker.servers}', topic = '{topics.copies}', key = 'k');
    """


class Feeder:
    """Produces events `0` to `count` - 1 at `rate` a second (0: at once), then the ends, on a thread of its own."""

    def __init__(self, broker: Broker, topic: str, partitions: int, count: int, rate: float) -> None:
        self.count = count
        self.sent = 0
        self.done = threading.Event()
        self._topic, self._partitions, self._rate = topic, partitions, rate
        self._producer = Producer(
            {
                "bootstrap.servers": broker.servers,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 20,
                "log_level": 0,
                "message.timeout.ms": 600_000,
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)

    def start(self) -> Feeder:
        """Begin."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Produce no more."""
        self._stopped = True
        self._thread.join(60)

    def _run(self) -> None:
        begun = time.monotonic()
        while self.sent < self.count and not self._stopped:
            upto = min(self.count, self.sent + BATCH)
            for i in range(self.sent, upto):
                key, value = event(i)
                self._producer.produce(self._topic, value, key)
            self.sent = upto
            self._producer.poll(0)
            if self._rate:
                time.sleep(max(0.0, begun + self.sent / self._rate - time.monotonic()))
        for partition in range(self._partitions):
            # One late event in every partition moves its watermark behind the last window.
            value = f'{{"id":-1,"k":"end","g":-1,"v":0,"ts":{BEGIN_MS + self.count + 10 * WINDOW_MS}}}'
            self._producer.produce(self._topic, value, partition=partition)
        assert self._producer.flush(120) == 0 or self._stopped
        self.done.set()


def windows_of(count: int) -> dict[tuple[int, int], tuple[int, int]]:
    """(group, end of window in ms) → (count, total)."""
    return _folded(
        count, lambda i: (i * 104_729 % GROUPS, (BEGIN_MS + i) // WINDOW_MS * WINDOW_MS + WINDOW_MS)
    )


def totals_of(count: int) -> dict[int, tuple[int, int]]:
    """Group → (count, total)."""
    return _folded(count, lambda i: i * 104_729 % GROUPS)


def _folded(count: int, key: object) -> dict:  # type: ignore[type-arg]
    found: dict[object, tuple[int, int]] = {}
    for i in range(count):
        name = key(i)  # type: ignore[operator]
        n, total = found.get(name, (0, 0))
        found[name] = n + 1, total + i % 97
    return found


def runs(numbers: list[int]) -> Iterator[str]:
    """Numbers in ascending order as text: 3, 5-9, 12."""
    first = last = None
    for number in [*numbers, None]:
        if first is not None and last is not None and number != last + 1:
            yield str(first) if first == last else f"{first}-{last}"
            first = number
        elif first is None:
            first = number
        last = number
