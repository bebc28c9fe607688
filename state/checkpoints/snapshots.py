"""State tables in the store as chains: one whole table, then changes, folded again when there are many. Knows no operator."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from millrace.errors import Corrupt
from millrace.state.checkpoints.manifest import Link, ObjectRef, TableChain
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.checkpoints.sealed import checksum
from millrace.state.snapshot import fold, read_block, read_index, read_table, write_table
from millrace.state.store import Store

LINKS_MAX = 8
"""Captures after which a chain is written as one whole table again."""
WHOLE_READ_BYTES = 4 << 20
"""Objects up to this size are read whole, even where only some vnodes are wanted."""
_TAIL_BYTES = 64 << 10
_HINT = "restore an older checkpoint"

TableName = tuple[str, str]
"""(node hash, table)."""


@dataclass(frozen=True, slots=True)
class TableCapture:
    """One table as captured: whole where `complete`, otherwise rows changed and keys deleted since the last time."""

    key: tuple[str, ...]
    rows: pa.RecordBatch
    deleted: pa.RecordBatch | None
    complete: bool


def data_prefix(job: str) -> str:
    """The folder of all state and outbox objects of a job."""
    return f"{job}/data"


def data_key(job: str, number: CheckpointNumber, partition: int, epoch: int, name: str) -> str:
    """Where an object is kept that `partition` under `epoch` writes for checkpoint `number`: nobody else's."""
    return f"{data_prefix(job)}/{number.value:020d}/{partition:05d}-{epoch}/{name}"


def number_of_key(job: str, key: str) -> CheckpointNumber:
    """The checkpoint that the object at `key` was written for."""
    return CheckpointNumber.of(int(key[len(data_prefix(job)) + 1 :].split("/", 1)[0]))


def write_object(store: Store, key: str, data: bytes) -> ObjectRef:
    """Create an object, perhaps again after a failure; raises `Corrupt` where other bytes are there already."""
    if not store.create(key, data) and store.get(key) != data:
        raise Corrupt(f"{key} exists with other bytes", code="MR5015", hint=_HINT)
    return ObjectRef(key, len(data), checksum(data))


def read_object(store: Store, ref: ObjectRef) -> bytes:
    """The object's bytes; raises `Corrupt` naming it where it is missing, cut short or damaged."""
    data = store.get(ref.key)
    if data is None:
        raise Corrupt(f"{ref.key} is missing", code="MR5010", hint=_HINT)
    if len(data) != ref.size:
        raise Corrupt(f"{ref.key} has {len(data)} bytes instead of {ref.size}", code="MR5011", hint=_HINT)
    if checksum(data) != ref.checksum:
        raise Corrupt(f"{ref.key} does not match its checksum", code="MR5012", hint=_HINT)
    return data


def read_chain(store: Store, chain: TableChain, vnodes: range | None = None) -> pa.RecordBatch:
    """The table that a chain stands for, all of it or the rows of some vnodes (a range of step 1)."""
    first, *later = chain.links
    whole = _read_rows(store, first.rows, vnodes)
    if not later:
        return whole
    deltas = [
        (
            _read_rows(store, link.rows, vnodes),
            None if link.deleted is None else _read_rows(store, link.deleted, vnodes),
        )
        for link in later
    ]
    return fold(whole, deltas, chain.key)


class ChainWriter:
    """The chains of one owner of one partition: each capture adds a link to them, in the store and here.

    Invariant: every object that `chains` names is in the store.
    """

    def __init__(
        self, store: Store, job: str, partition: int, epoch: int, links_max: int = LINKS_MAX
    ) -> None:
        self._store = store
        self._job = job
        self._partition = partition
        self._epoch = epoch
        self._links_max = links_max
        self._chains: dict[TableName, TableChain] = {}

    @property
    def chains(self) -> tuple[TableChain, ...]:
        """What a checkpoint has to name."""
        return tuple(self._chains.values())

    def adopt(self, chains: Iterable[TableChain]) -> None:
        """Go on from chains that were restored whole."""
        self._chains = {(chain.node, chain.table): chain for chain in chains}

    def retain(self, nodes: Collection[str]) -> None:
        """Name no chains of other nodes any more."""
        self._chains = {name: chain for name, chain in self._chains.items() if name[0] in nodes}

    def write(
        self, number: CheckpointNumber, tables: Mapping[TableName, TableCapture]
    ) -> tuple[TableChain, ...]:
        """Store one capture; all chains with it. After an error the same capture may be written again."""
        grown = dict(self._chains)
        for place, (name, capture) in enumerate(tables.items()):
            grown[name] = self._grow(number, place, name, capture)
        self._chains = grown
        return self.chains

    def _grow(
        self, number: CheckpointNumber, place: int, name: TableName, capture: TableCapture
    ) -> TableChain:
        known = self._chains.get(name)
        if capture.complete:
            return self._restart(number, place, name, capture.key, capture.rows)
        assert known is not None, f"changes of table {name}, which was never captured whole"
        gone = capture.deleted if capture.deleted is not None and capture.deleted.num_rows else None
        if not capture.rows.num_rows and gone is None:
            return known
        if len(known.links) >= self._links_max:
            whole = fold(read_chain(self._store, known), [(capture.rows, gone)], known.key)
            return self._restart(number, place, name, capture.key, whole)
        link = Link(
            self._put(number, f"{place}-changed", capture.rows),
            None if gone is None else self._put(number, f"{place}-deleted", gone),
        )
        return TableChain(known.node, known.table, known.key, (*known.links, link))

    def _restart(
        self,
        number: CheckpointNumber,
        place: int,
        name: TableName,
        key: tuple[str, ...],
        rows: pa.RecordBatch,
    ) -> TableChain:
        return TableChain(*name, key, (Link(self._put(number, f"{place}-whole", rows)),))

    def _put(self, number: CheckpointNumber, name: str, rows: pa.RecordBatch) -> ObjectRef:
        key = data_key(self._job, number, self._partition, self._epoch, name)
        return write_object(self._store, key, write_table(rows))


def _read_rows(store: Store, ref: ObjectRef, vnodes: range | None) -> pa.RecordBatch:
    if vnodes is not None and ref.size > WHOLE_READ_BYTES:
        return _read_some(store, ref, vnodes)
    data = read_object(store, ref)
    try:
        return read_table(data, vnodes)
    except Corrupt as error:
        raise Corrupt(f"{ref.key}: {error.message}", code=error.code, hint=error.hint) from error


def _read_some(store: Store, ref: ObjectRef, vnodes: range) -> pa.RecordBatch:
    """Only the blocks that have some of the vnodes; each is checked by itself."""
    length = min(ref.size, _TAIL_BYTES)
    try:
        while True:
            tail = _range(store, ref, ref.size - length, length)
            try:
                index = read_index(tail, ref.size)
                break
            except Corrupt:
                if length == ref.size:
                    raise
                length = min(ref.size, 16 * length)
        parts = []
        for block in index.within(vnodes.start, vnodes.stop):
            batch = read_block(index, block, _range(store, ref, block.start, block.length))
            have = batch.column("_vnode").to_numpy()
            first, end = have.searchsorted([vnodes.start, vnodes.stop])
            parts.append(batch.slice(first, end - first))
    except Corrupt as error:
        raise Corrupt(f"{ref.key}: {error.message}", code=error.code, hint=error.hint) from error
    return pa.concat_batches(parts) if parts else pa.RecordBatch.from_pylist([], schema=index.schema)


def _range(store: Store, ref: ObjectRef, start: int, length: int) -> bytes:
    data = store.get_range(ref.key, start, length)
    if data is None:
        raise Corrupt("the object is missing", code="MR5010", hint=_HINT)
    return data
