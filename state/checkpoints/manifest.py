"""What a checkpoint consists of: table chains, source positions and outboxes by partition. Reads no object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.checkpoints.sealed import seal, unseal

Position = Mapping[str, int | str | bytes]
"""Where a split goes on; a reader's own record."""

_VERSION = 2


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An object: its key in the store, its size in bytes, its checksum."""

    key: str
    size: int
    checksum: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """One capture of a table: its rows, and the keys removed before those (None: none were)."""

    rows: ObjectRef
    deleted: ObjectRef | None = None


@dataclass(frozen=True, slots=True)
class TableChain:
    """One state table of one operator: the first link is the whole table, the others are changes, in order."""

    node: str
    table: str
    key: tuple[str, ...]
    links: tuple[Link, ...]

    def objects(self) -> Iterator[ObjectRef]:
        """Every object that the chain needs."""
        for link in self.links:
            yield link.rows
            if link.deleted is not None:
                yield link.deleted


@dataclass(frozen=True, slots=True)
class SplitPoint:
    """Where a split goes on: position, its watermark (µs), and count and digest of what was read from `since` to there."""

    position: Position
    watermark: int
    rows: int = 0
    digest: int = 0
    since: Position | None = None


@dataclass(frozen=True, slots=True)
class SourcePoint:
    """The splits of one source in one partition; `watermark` (µs) is what was promised downstream."""

    node: str
    splits: Mapping[str, SplitPoint]
    ended: frozenset[str]
    watermark: int


@dataclass(frozen=True, slots=True)
class OutboxRef:
    """A sealed outbox: what `publish` of `sink` needs, under the sink partition that transaction ids name."""

    sink: str
    sink_partition: int
    number: CheckpointNumber
    content: ObjectRef

    @property
    def stream(self) -> tuple[str, int]:
        """The sink partition: outboxes of one stream are published in order of number."""
        return self.sink, self.sink_partition


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one partition, under `epoch`, adds to a checkpoint: what its durable report says.

    It owned vnodes `first` to `end` - 1. `outboxes` are all it sealed that it does not know to be decided: those of
    checkpoints that were given up are among them.
    """

    partition: int
    epoch: int
    first: int
    end: int
    tables: tuple[TableChain, ...] = ()
    sources: tuple[SourcePoint, ...] = ()
    outboxes: tuple[OutboxRef, ...] = ()

    def splits(self) -> frozenset[tuple[str, str]]:
        """(node, split) of every split that it says something about."""
        return frozenset(
            (source.node, split) for source in self.sources for split in (*source.splits, *source.ended)
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checkpoint. `pending` are all outboxes not known to be published when it was decided, its own included.

    `details` says by which plan it was made ("plan").
    """

    job: str
    number: CheckpointNumber
    vnodes: int
    contributions: tuple[Contribution, ...]
    pending: tuple[OutboxRef, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)

    def objects(self) -> Iterator[ObjectRef]:
        """Every object that restoring and publishing from here needs."""
        for contribution in self.contributions:
            for table in contribution.tables:
                yield from table.objects()
        for outbox in self.pending:
            yield outbox.content


def manifest_key(job: str, number: CheckpointNumber) -> str:
    """Where the manifest of a checkpoint is kept."""
    return f"{job}/manifests/{number.value:020d}"


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as checked bytes."""
    content = [
        manifest.job,
        manifest.number.value,
        manifest.vnodes,
        [_plain_contribution(c) for c in manifest.contributions],
        [_plain_outbox(o) for o in manifest.pending],
        dict(manifest.details),
    ]
    return seal("manifest", _VERSION, content)


def decode_manifest(data: bytes, name: str) -> Manifest:
    """The manifest that `encode_manifest` was given; raises `Corrupt` naming the object."""
    _, (job, number, vnodes, contributions, pending, details) = unseal(
        "manifest", range(1, _VERSION + 1), data, name
    )
    return Manifest(
        job,
        CheckpointNumber.of(number),
        vnodes,
        tuple(_contribution(c) for c in contributions),
        tuple(_outbox(o) for o in pending),
        details,
    )


def _plain_ref(ref: ObjectRef) -> list[object]:
    return [ref.key, ref.size, ref.checksum]


def _plain_outbox(outbox: OutboxRef) -> list[object]:
    return [outbox.sink, outbox.sink_partition, outbox.number.value, _plain_ref(outbox.content)]


def _plain_contribution(c: Contribution) -> list[object]:
    tables = [
        [
            t.node,
            t.table,
            list(t.key),
            [[_plain_ref(x.rows), _plain_ref(x.deleted) if x.deleted else None] for x in t.links],
        ]
        for t in c.tables
    ]
    sources = [
        [
            s.node,
            {name: _plain_point(p) for name, p in s.splits.items()},
            sorted(s.ended),
            s.watermark,
        ]
        for s in c.sources
    ]
    return [c.partition, c.epoch, c.first, c.end, tables, sources, [_plain_outbox(o) for o in c.outboxes]]


def _plain_point(p: SplitPoint) -> list[object]:
    return [dict(p.position), p.watermark, p.rows, p.digest, None if p.since is None else dict(p.since)]


def _outbox(plain: Any) -> OutboxRef:
    sink, partition, number, content = plain
    return OutboxRef(sink, partition, CheckpointNumber.of(number), ObjectRef(*content))


def _contribution(plain: Any) -> Contribution:
    partition, epoch, first, end, tables, sources, outboxes = plain
    return Contribution(
        partition,
        epoch,
        first,
        end,
        tuple(
            TableChain(
                node,
                table,
                key,
                tuple(
                    Link(ObjectRef(*rows), None if deleted is None else ObjectRef(*deleted))
                    for rows, deleted in links
                ),
            )
            for node, table, key, links in tables
        ),
        tuple(
            SourcePoint(node, {k: SplitPoint(*p) for k, p in splits.items()}, frozenset(ended), watermark)
            for node, splits, ended, watermark in sources
        ),
        tuple(_outbox(o) for o in outboxes),
    )
