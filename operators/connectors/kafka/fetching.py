"""One consumer for all splits of a source: fetches and decodes on a thread of its own, ahead of who polls."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import cast

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from millrace.errors import Bug, Corrupt, MillraceError
from millrace.operators.connectors.kafka.clients import LOG, TRANSIENT, translated
from millrace.operators.connectors.kafka.decoding import Decoder
from millrace.operators.connectors.kafka.messages import Chunk, Pulled, Record

PIECE = 500
"""Taken from the client at once: fewer objects than make the garbage collector run."""
MESSAGES_MAX = 20_000
"""Decoded at once."""
WAIT_S = 0.005
WAIT_BUSY_S = 0.04
BUSY_MESSAGES = 2_000
"""Where so many came within `WAIT_S`, it pays to wait up to `WAIT_BUSY_S` for a larger batch."""
ENDS_EVERY_S = 1.0
UNSURE_S = 1.0
ROWS_AHEAD_MAX = 160_000
BYTES_AHEAD_MAX = 96 << 20


class Lane:
    """One split: its decoder and the chunks that wait to be polled. `stop` is the offset at which it ends, or None.

    `next` is the offset after what was fetched, `at_end` whether all up to `stop` was fetched.
    """

    def __init__(self, topic: str, partition: int, offset: int, stop: int | None, decoder: Decoder) -> None:
        self.topic = topic
        self.partition = partition
        self.name = f"{topic}/{partition}"
        self.next = offset
        self.stop = stop
        self.at_end = stop is not None and offset >= stop
        self.high: int | None = None
        """The offset after the last record, as the broker said last."""
        self.caught_up = False
        """Whether the broker said that there is no more, and can be reached."""
        self.decoder = decoder
        self.pulled: Pulled | None = None
        self.chunks: deque[Chunk] = deque()


class Fetcher:
    """Owns the consumer and its thread, which alone calls it. Lanes come and go from the thread that polls.

    What is fetched ahead is bounded over all lanes together, so every lane has to be polled.
    """

    def __init__(self, consumer: Callable[[], Consumer]) -> None:
        self._make = consumer
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._asked: deque[tuple[bool, Lane]] = deque()
        self._ended: list[Lane] = []
        self._topics: set[str] = set()
        self._room = threading.Condition()
        self._rows = 0
        self._bytes = 0
        self._noted_at = 0.0
        self._closing = False
        self._unsure_since: float | None = None
        self._answered = False
        self._failure: MillraceError | None = None
        self._thread: threading.Thread | None = None

    def add(self, lane: Lane) -> None:
        """Begin to fetch a lane."""
        self._asked.append((True, lane))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="millrace-kafka", daemon=True)
            self._thread.start()

    def remove(self, lane: Lane) -> None:
        """Stop fetching a lane and forget what it holds."""
        self._asked.append((False, lane))

    def take(self, lane: Lane) -> Chunk | None:
        """The next chunk of a lane, if there is one. Raises what broke the fetching."""
        if not lane.chunks:
            if self._failure is not None:
                raise self._failure
            return None
        chunk = lane.chunks.popleft()
        with self._room:
            self._rows -= chunk.batch.num_rows
            self._bytes -= chunk.size
            self._room.notify()
        return chunk

    def close(self) -> None:
        """End the thread and the consumer."""
        with self._room:
            self._closing = True
            self._room.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        consumer: Consumer | None = None
        try:
            consumer = self._make()
            pulled, since = 0, time.monotonic()
            while not self._closing:
                self._reassign(consumer)
                self._make_sure(consumer)
                if not self._lanes:
                    time.sleep(WAIT_S)
                    continue
                count = self._pull(consumer)
                pulled += count
                whole = pulled >= MESSAGES_MAX
                quiet = count < PIECE and (pulled < BUSY_MESSAGES or time.monotonic() - since >= WAIT_BUSY_S)
                if whole or quiet:
                    for lane in list(self._lanes.values()):
                        self._decode(lane)
                    pulled, since = 0, time.monotonic()
                    self._note_ends(consumer, since)
                    self._await_room()
        except MillraceError as error:
            self._failure = error
        except KafkaException as error:
            self._failure = translated(error, "reading from Kafka failed")
        except Exception as error:  # noqa: BLE001 - it must reach who polls, not end with this thread
            self._failure = Bug(f"reading from Kafka broke: {type(error).__name__}: {error}", code="MR9030")
            self._failure.__cause__ = error
        finally:
            if consumer is not None:
                consumer.close()

    def _reassign(self, consumer: Consumer) -> None:
        for lane in self._ended:
            if self._lanes.pop((lane.topic, lane.partition), None) is not None:
                consumer.incremental_unassign([TopicPartition(lane.topic, lane.partition)])
        self._ended.clear()
        begun: list[TopicPartition] = []
        while self._asked:
            wanted, lane = self._asked.popleft()
            place = (lane.topic, lane.partition)
            if wanted and not lane.at_end:
                self._lanes[place] = lane
                self._topics.add(lane.topic)
                begun.append(TopicPartition(lane.topic, lane.partition, lane.next))
            elif not wanted and self._lanes.pop(place, None) is not None:
                if begun:
                    consumer.incremental_assign(begun)
                    begun = []
                consumer.incremental_unassign([TopicPartition(lane.topic, lane.partition)])
                with self._room:
                    for chunk in lane.chunks:
                        self._rows -= chunk.batch.num_rows
                        self._bytes -= chunk.size
                lane.chunks.clear()
                lane.pulled = None
        if begun:
            consumer.incremental_assign(begun)

    def _note_ends(self, consumer: Consumer, now: float) -> None:
        """Where the partitions end, as the client knows from what it fetched; nobody is asked."""
        if now - self._noted_at < ENDS_EVERY_S:
            return
        self._noted_at = now
        for lane in list(self._lanes.values()):
            found = consumer.get_watermark_offsets(TopicPartition(lane.topic, lane.partition), cached=True)
            if found is not None and found[1] >= 0:
                lane.high = found[1]

    def on_client_error(self, error: KafkaError) -> None:
        """What the client says of its brokers. While none answers, silence means nothing."""
        LOG.warning("%s", error.str())
        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
            self._unsure_since = time.monotonic()
            for lane in list(self._lanes.values()):
                lane.caught_up = False

    def _make_sure(self, consumer: Consumer) -> None:
        """After brokers were away: once they answer again and nothing has come for a while, there is nothing."""
        if self._unsure_since is None or time.monotonic() - self._unsure_since < UNSURE_S:
            return
        self._unsure_since = time.monotonic()
        lane = next(iter(self._lanes.values()), None)
        if lane is None:
            return
        try:
            consumer.get_watermark_offsets(TopicPartition(lane.topic, lane.partition), UNSURE_S, cached=False)
        except KafkaException:
            return
        if not self._answered:
            self._answered = True  # what it has will come until the next time
            return
        self._unsure_since, self._answered = None, False
        for lane in self._lanes.values():
            lane.caught_up = True

    def _await_room(self) -> None:
        with self._room:
            while (self._rows > ROWS_AHEAD_MAX or self._bytes > BYTES_AHEAD_MAX) and not self._closing:
                if self._asked:
                    return
                self._room.wait(0.1)

    def _pull(self, consumer: Consumer) -> int:
        """Hand what the client has to the lanes, in order; answers how many messages it was."""
        messages = cast("list[Record]", consumer.consume(PIECE, WAIT_S))
        count = len(messages)
        errors = [m.error() for m in messages]
        ends = []
        if any(errors):
            ends = [m for m, error in zip(messages, errors, strict=True) if error is not None]
            messages = [m for m, error in zip(messages, errors, strict=True) if error is None]
        if messages:
            self._divide(messages)
        for message in ends:
            self._on_error(message)
        return count

    def _divide(self, messages: list[Record]) -> None:
        if len(self._topics) > 1:
            numbers: dict[tuple[str, int], int] = {}
            codes = [numbers.setdefault((m.topic(), m.partition()), len(numbers)) for m in messages]
        else:
            codes = [m.partition() for m in messages]
        found = np.array(codes, np.int64)
        cuts = [0, *(np.flatnonzero(np.diff(found)) + 1).tolist(), len(codes)]
        groups: dict[int, list[Record]] = {}
        for low, high in itertools.pairwise(cuts):
            groups.setdefault(codes[low], []).extend(messages[low:high])
        for group in groups.values():
            lane = self._lanes.get((group[0].topic(), group[0].partition()))
            if lane is not None:
                self._give(lane, group)

    def _give(self, lane: Lane, messages: list[Record]) -> None:
        if not messages or lane.at_end:
            return
        if lane.stop is not None and messages[-1].offset() >= lane.stop - 1:
            messages = [m for m in messages if m.offset() < lane.stop]
        if messages:
            if lane.pulled is None:
                lane.pulled = Pulled()
            lane.pulled.add(messages, keep=lane.decoder.keeps_messages)
            lane.next = messages[-1].offset() + 1
            lane.caught_up = False
        if lane.stop is not None and (lane.next >= lane.stop or not messages):
            self._end(lane)

    def _decode(self, lane: Lane) -> None:
        """What was pulled of a lane becomes a chunk."""
        if lane.pulled is None:
            return
        chunk = lane.decoder.decode(lane.pulled, lane.name)
        lane.pulled = None
        with self._room:
            self._rows += chunk.batch.num_rows
            self._bytes += chunk.size
        lane.chunks.append(chunk)

    def _end(self, lane: Lane) -> None:
        self._decode(lane)
        lane.at_end = True
        self._ended.append(lane)

    def _on_error(self, message: Record) -> None:
        error = message.error()
        assert error is not None
        lane = self._lanes.get((message.topic() or "", message.partition() or 0))
        match error.code():
            case KafkaError._PARTITION_EOF:
                offset = message.offset()
                if lane is not None and self._unsure_since is None:
                    lane.caught_up = True
                if lane is not None and lane.stop is not None and (offset or 0) >= lane.stop:
                    self._end(lane)
            case KafkaError._AUTO_OFFSET_RESET | KafkaError.OFFSET_OUT_OF_RANGE:
                name = lane.name if lane is not None else f"{message.topic()}/{message.partition()}"
                raise Corrupt(
                    f"offset {lane.next if lane else '?'} of '{name}' is no longer there: {error.str()}",
                    code="MR5040",
                    hint="rows were deleted before they were read; start a new job to read what is left",
                )
            case code if code in TRANSIENT or (error.retriable() and not error.fatal()):
                LOG.warning("%s: %s", message.topic(), error.str())
            case _:
                raise translated(error, f"reading '{message.topic()}' failed")
