"""The Kafka source: every partition of its topics is a split that is read by manual assignment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import pyarrow as pa
from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from millrace.errors import Corrupt, Invalid
from millrace.operators.connectors.kafka.clients import LOG, Servers, translated
from millrace.operators.connectors.kafka.decoding import (
    SYSTEM_COLUMNS,
    Decoder,
    Decoding,
    with_system_columns,
)
from millrace.operators.connectors.kafka.fetching import Fetcher, Lane
from millrace.operators.connectors.kafka.messages import Chunk
from millrace.operators.operator import Context
from millrace.operators.sink import Changelog
from millrace.operators.source import Polled, Position, Source, SourceSpec, SplitReader
from millrace.operators.spec import serialisable

ANSWER_S = 30.0
DISCOVERY_INTERVAL_US = 10_000_000


@serialisable
@dataclass(frozen=True, slots=True)
class Start:
    """Where splits without a position begin: `earliest`, `latest`, `timestamp` (ms) or `offsets` by split.

    Splits that appear later, and those that `offsets` does not name, begin at their earliest offset.
    """

    mode: str = "earliest"
    timestamp: int = 0
    offsets: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class KafkaSourceSpec(SourceSpec):
    """Topics, or those that `pattern` matches whole, as rows; only `columns` (places) are produced, all where None.

    `bounded_by_now` ends every split at the offset that was its latest when it was opened. `discovery_interval` is
    in µs. The split of partition 3 of a topic is `topic/3`; its position is the next offset.
    """

    title: ClassVar[str] = "kafka"
    servers: Servers
    topics: tuple[str, ...]
    decoding: Decoding
    pattern: str = ""
    group: str = "millrace"
    start: Start = Start()
    bounded_by_now: bool = False
    read_committed: bool = True
    discovery_interval: int = DISCOVERY_INTERVAL_US
    columns: tuple[int, ...] | None = None

    @property
    def output_schema(self) -> pa.Schema:
        schema = self.decoding.schema
        return schema if self.columns is None else pa.schema([schema.field(i) for i in self.columns])

    @property
    def keeps_rows(self) -> bool:
        return False

    @property
    def bounded(self) -> bool:
        return self.bounded_by_now

    @property
    def changelog(self) -> Changelog:
        """What the rows mean to those before them."""
        if self.decoding.format == "debezium-json":
            return Changelog.RETRACT
        return Changelog.UPSERT if self.decoding.tombstones == "delete" else Changelog.APPEND

    def build(self, context: Context) -> KafkaSource:
        return KafkaSource(self, context)

    def with_columns(self, columns: tuple[int, ...]) -> KafkaSourceSpec:
        mine = range(len(self.decoding.schema)) if self.columns is None else self.columns
        return replace(self, columns=tuple(mine[i] for i in columns))

    def with_metadata(self) -> KafkaSourceSpec:
        return replace(self, decoding=with_system_columns(self.decoding))

    def details(self) -> dict[str, str]:
        shown = {"topic": self.pattern or ", ".join(self.topics), "format": self.decoding.format}
        declared = [name for name in self.decoding.schema.names if name not in SYSTEM_COLUMNS]
        if self.columns is not None and self.output_schema.names != declared:
            shown["columns"] = ", ".join(self.output_schema.names)
        return shown | {"start": self.start.mode}


class KafkaSource(Source):
    """Knows the partitions there are, where they begin and end, and shares one consumer among their readers."""

    def __init__(self, spec: KafkaSourceSpec, context: Context) -> None:
        self._spec = spec
        self._now = context.now
        self._admin = AdminClient(spec.servers.client({}))
        self._fetcher = Fetcher(self._consumer)
        self._splits: list[str] = []
        self._looked_at: int | None = None
        self._begin: dict[str, int] = {}
        self._initial: set[str] = set()
        self._resumed = False

    def discover(self) -> list[str]:
        now = self._now()
        if self._looked_at is None or now - self._looked_at >= self._spec.discovery_interval:
            first = self._looked_at is None
            found = self._list(must_exist=first)
            self._looked_at = now
            known = set(self._splits)
            new = [split for split in found if split not in known]
            if first and not self._resumed:
                self._initial = set(new)
            self._splits += new
        return list(self._splits)

    def open(self, split: str, position: Position | None) -> KafkaReader:
        topic, _, number = split.rpartition("/")
        if position is None:
            offset = self._start_of(split)
            stop = self._ends([split])[split] if self._spec.bounded else None
        else:
            self._resumed = True
            offset = int(position["offset"])
            stop = int(position["stop"]) if "stop" in position else None
        columns = self._spec.columns
        chosen = range(len(self._spec.decoding.schema)) if columns is None else columns
        lane = Lane(topic, int(number), offset, stop, Decoder(self._spec.decoding, chosen))
        return KafkaReader(lane, self._fetcher)

    def close(self) -> None:
        self._fetcher.close()

    def _consumer(self) -> Consumer:
        spec = self._spec
        return Consumer(
            spec.servers.client(
                {
                    "group.id": spec.group,
                    "auto.offset.reset": "error",
                    "isolation.level": "read_committed" if spec.read_committed else "read_uncommitted",
                    "queued.min.messages": 200_000,
                    "fetch.queue.backoff.ms": 5,
                    "fetch.wait.max.ms": 100,
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "enable.partition.eof": True,
                    "error_cb": self._fetcher.on_client_error,
                }
            )
        )

    def _list(self, *, must_exist: bool) -> list[str]:
        """All splits of the topics there are now, in order."""
        spec = self._spec
        try:
            found = self._admin.list_topics(timeout=ANSWER_S).topics
        except KafkaException as error:
            if must_exist:
                raise translated(error, f"{spec.servers.bootstrap} did not answer") from error
            LOG.warning("topics were not listed: %s", error)
            return []
        if spec.pattern:
            names = sorted(name for name in found if re.fullmatch(spec.pattern, name))
        else:
            names = [name for name in spec.topics if name in found and found[name].error is None]
            if must_exist and len(names) < len(spec.topics):
                lacking = next(name for name in spec.topics if name not in names)
                raise Invalid(
                    f"there is no topic '{lacking}' on {spec.servers.bootstrap}",
                    code="MR1475",
                    hint="create it, or check 'topic' and 'bootstrap.servers'",
                )
        return [f"{name}/{number}" for name in names for number in sorted(found[name].partitions)]

    def begin(self, splits: Sequence[str], *, first: bool) -> dict[str, Position]:
        offsets = self._begins(splits, first=first)
        if not self._spec.bounded:
            return {split: {"offset": offset} for split, offset in offsets.items()}
        ends = self._ends(splits)
        return {split: {"offset": offset, "stop": ends[split]} for split, offset in offsets.items()}

    def _start_of(self, split: str) -> int:
        """The first offset of a split that nobody has read from before.

        The offsets of all splits that were there at first are asked for at once: `latest` is one moment for all.
        """
        if split not in self._begin:
            initial = split in self._initial
            self._begin |= self._begins(sorted(self._initial) if initial else [split], first=initial)
        return self._begin[split]

    def _begins(self, splits: Sequence[str], *, first: bool) -> dict[str, int]:
        start = self._spec.start
        match start.mode if first else "earliest":
            case "latest":
                return self._ends(splits)
            case "timestamp":
                found = self._list_offsets(splits, OffsetSpec.for_timestamp(start.timestamp))
                late = [split for split in splits if found[split] < 0]
                return found | (self._ends(late) if late else {})
            case "offsets":
                named = {split: offset for split, offset in start.offsets if split in splits}
                rest = [split for split in splits if split not in named]
                return named | (self._list_offsets(rest, OffsetSpec.earliest()) if rest else {})
        return self._list_offsets(splits, OffsetSpec.earliest())

    def _ends(self, splits: Iterable[str]) -> dict[str, int]:
        return self._list_offsets(splits, OffsetSpec.latest())

    def _list_offsets(self, splits: Iterable[str], at: OffsetSpec | None) -> dict[str, int]:
        wanted = {TopicPartition(s.rpartition("/")[0], int(s.rpartition("/")[2])): s for s in splits}
        level = (
            IsolationLevel.READ_COMMITTED if self._spec.read_committed else IsolationLevel.READ_UNCOMMITTED
        )
        assert at is not None
        try:
            answers = self._admin.list_offsets(
                dict.fromkeys(wanted, at), isolation_level=level, request_timeout=ANSWER_S
            )
            return {wanted[place]: answer.result(ANSWER_S).offset for place, answer in answers.items()}
        except KafkaException as error:
            raise translated(error, "offsets were not answered") from error


class KafkaReader(SplitReader):
    """Reads one partition. Its position is the next offset, and the stop offset where it is bounded."""

    def __init__(self, lane: Lane, fetcher: Fetcher) -> None:
        self.split = lane.name
        self._lane = lane
        self._fetcher = fetcher
        self._offset = lane.next
        self._chunk: Chunk | None = None
        self._taken = 0
        fetcher.add(lane)

    def poll(self, max_rows: int) -> Polled | None:
        chunk = self._chunk
        if chunk is None:
            chunk = self._fetcher.take(self._lane)
            if chunk is None:
                return None
            if chunk.batch.num_rows <= max_rows or chunk.offsets is None:
                # An update that is two rows is not torn apart, so that a position is always an offset.
                self._offset = chunk.next
                return Polled(chunk.batch if chunk.batch.num_rows else None, chunk.bad)
            self._taken = 0
        assert chunk.offsets is not None
        rows = min(max_rows, chunk.batch.num_rows - self._taken)
        batch = chunk.batch.slice(self._taken, rows)
        self._taken += rows
        done = self._taken >= chunk.batch.num_rows
        following = chunk.next if done else int(chunk.offsets[self._taken])
        bad = [record for record in chunk.bad if self._offset <= _offset_of(record.position) < following]
        self._offset = following
        self._chunk = None if done else chunk
        return Polled(batch, bad)

    @property
    def position(self) -> Position:
        at: Position = {"offset": self._offset}
        if self._lane.stop is not None:
            at["stop"] = self._lane.stop
        return at

    @property
    def ended(self) -> bool:
        return self._lane.at_end and self._chunk is None and not self._lane.chunks

    @property
    def lag(self) -> int | None:
        end = self._lane.high if self._lane.stop is None else self._lane.stop
        return None if end is None else max(0, end - self._offset)

    @property
    def caught_up(self) -> bool:
        return self._lane.caught_up and not self._lane.chunks

    def close(self) -> None:
        self._fetcher.remove(self._lane)


def _offset_of(position: str) -> int:
    return int(position.removeprefix("offset "))


def check_position(position: Position) -> None:
    """Raises Corrupt MR5041 where a stored position is none of this source."""
    if not isinstance(position.get("offset"), int):
        raise Corrupt(f"position {position} is no Kafka offset", code="MR5041")
