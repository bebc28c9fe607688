"""State tables as bytes: sorted by vnode, checked, and readable by vnode range. Knows no operator and no store.

A file is: magic, blocks, index, tail. A block is an Arrow IPC stream (zstd) of rows with ascending
`_vnode`; the index (msgpack) has for each block its place, its vnodes and its checksum; the tail has the
index's length and checksum and the magic again. All checksums are BLAKE2b of 16 bytes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import msgpack
import numpy as np
import pyarrow as pa

from millrace.errors import Bug, Corrupt
from millrace.state.key_index import KeyIndex
from millrace.state.words import Int64s

VNODE = "_vnode"
BLOCK_ROWS = 65_536
_MAGIC = b"MRSTATE1"
_TAIL = struct.Struct("<I16s8s")
_HINT = "restore an older checkpoint"


@dataclass(frozen=True, slots=True)
class Block:
    """Where a block is in the file (bytes) and what it has; `first` and `last` are vnodes, both included."""

    start: int
    length: int
    rows: int
    first: int
    last: int
    checksum: bytes


@dataclass(frozen=True, slots=True)
class TableIndex:
    """The blocks of a table, by ascending vnode; a vnode may go on in the next block."""

    schema: pa.Schema
    blocks: tuple[Block, ...]

    @property
    def rows(self) -> int:
        """How many rows the table has."""
        return sum(block.rows for block in self.blocks)

    def within(self, first: int, end: int) -> tuple[Block, ...]:
        """The blocks with rows of vnodes `first` to `end` - 1: what to fetch for that range."""
        return tuple(block for block in self.blocks if block.first < end and block.last >= first)


def write_table(rows: pa.RecordBatch, block_rows: int = BLOCK_ROWS) -> bytes:
    """One state table as bytes. `rows` has a uint16 column `_vnode`; it is sorted by it here where it is not."""
    vnodes = rows.column(VNODE).to_numpy()
    if len(vnodes) and (vnodes[1:] < vnodes[:-1]).any():
        order = np.argsort(vnodes, kind="stable")
        rows, vnodes = rows.take(pa.array(order)), vnodes[order]
    parts = [_MAGIC]
    place = len(_MAGIC)
    blocks = []
    for start in range(0, len(vnodes), block_rows):
        end = min(start + block_rows, len(vnodes))
        data = _encode(rows.slice(start, end - start))
        first, last = int(vnodes[start]), int(vnodes[end - 1])
        blocks.append((place, len(data), end - start, first, last, _checksum(data)))
        parts.append(data)
        place += len(data)
    index = msgpack.packb({"schema": rows.schema.serialize().to_pybytes(), "blocks": blocks}) or b""
    parts += [index, _TAIL.pack(len(index), _checksum(index), _MAGIC)]
    return b"".join(parts)


def read_index(data: bytes | memoryview, size: int | None = None) -> TableIndex:
    """The index from a file's last bytes; raises `Corrupt` where it is damaged or more bytes are needed.

    `size` is the whole file's, where `data` is only its end.
    """
    view = memoryview(data)
    total = len(view) if size is None else size
    if len(view) < _TAIL.size:
        raise _damaged(f"a state table of {len(view)} bytes has no tail", "MR5001")
    length, checksum, magic = _TAIL.unpack(view[-_TAIL.size :])
    if magic != _MAGIC:
        raise _damaged(
            "a state table does not end in its mark: it was cut short or is something else", "MR5001"
        )
    end = len(view) - _TAIL.size
    if length > end:
        raise _damaged(f"the index of a state table has {length} bytes, and only {end} are there", "MR5001")
    index = view[end - length : end]
    if _checksum(index) != checksum:
        raise _damaged("the index of a state table does not match its checksum", "MR5002")
    record = msgpack.unpackb(index)
    blocks = tuple(Block(*block) for block in record["blocks"])
    place = len(_MAGIC)
    for block in blocks:
        if block.start != place:
            raise _damaged(f"a block at byte {block.start} was expected at {place}", "MR5002")
        place += block.length
    if place != total - _TAIL.size - length:
        raise _damaged(f"a state table of {total} bytes has blocks up to byte {place}", "MR5001")
    return TableIndex(pa.ipc.read_schema(pa.py_buffer(record["schema"])), blocks)


def read_block(index: TableIndex, block: Block, data: bytes | memoryview) -> pa.RecordBatch:
    """The rows of one block from its bytes; raises `Corrupt` where they are not what was written."""
    if len(data) != block.length:
        raise _damaged(f"a block of {block.length} bytes has only {len(data)}", "MR5001")
    if _checksum(data) != block.checksum:
        raise _damaged(
            f"the block at byte {block.start} of a state table does not match its checksum", "MR5002"
        )
    try:
        with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
            batch = reader.read_next_batch()
    except (pa.ArrowInvalid, OSError, StopIteration) as error:
        raise _damaged(
            f"the block at byte {block.start} of a state table does not decode: {error}", "MR5003"
        ) from error
    if batch.num_rows != block.rows or not batch.schema.equals(index.schema):
        raise _damaged(
            f"the block at byte {block.start} of a state table has other rows than its index says", "MR5003"
        )
    return batch


def read_table(data: bytes | memoryview, vnodes: range | None = None) -> pa.RecordBatch:
    """The rows of a table, all or those whose vnode is in `vnodes` (step 1), by ascending vnode.

    Raises `Corrupt` where the bytes read do not match their checksums; blocks outside the range are
    not looked at.
    """
    view = memoryview(data)
    if bytes(view[: len(_MAGIC)]) != _MAGIC:
        raise _damaged("a state table does not begin with its mark", "MR5001")
    index = read_index(view)
    wanted = range(65_536) if vnodes is None else vnodes
    if wanted.step != 1:
        raise Bug(f"vnodes must be a range of step 1, not {wanted}")
    parts = []
    for block in index.within(wanted.start, wanted.stop):
        batch = read_block(index, block, view[block.start : block.start + block.length])
        have = batch.column(VNODE).to_numpy()
        first, end = np.searchsorted(have, [wanted.start, wanted.stop])
        parts.append(batch.slice(first, end - first))
    if not parts:
        return pa.RecordBatch.from_pylist([], schema=index.schema)
    return parts[0] if len(parts) == 1 else pa.concat_batches(parts)


def fold(
    full: pa.RecordBatch,
    deltas: Sequence[tuple[pa.RecordBatch, pa.RecordBatch | None]],
    key: Sequence[str],
) -> pa.RecordBatch:
    """A chain of one complete table and later changes as one table: for each key its last row.

    A delta is (rows inserted or changed, keys deleted before those); keys deleted that are not there
    are passed over. With no `key` column the table has one row at most. Row order is not kept.
    """
    batches = [full, *(rows for rows, _ in deltas)]
    deleted = [None, *(gone for _, gone in deltas)]
    index = KeyIndex([full.schema.field(name).type for name in key], max(64, full.num_rows))
    latest: Int64s = np.empty(0, np.int64)
    first = 0
    for batch, gone in zip(batches, deleted, strict=True):
        if gone is not None and gone.num_rows:
            slots = index.lookup([gone.column(name) for name in key], gone.num_rows)
            index.remove(np.unique(slots[slots >= 0]))
        if not batch.num_rows:
            continue
        upserted = index.upsert([batch.column(name) for name in key], batch.num_rows)
        if index.high > len(latest):
            grown: Int64s = np.empty(max(index.high, 2 * len(latest)), np.int64)
            grown[: len(latest)] = latest
            latest = grown
        latest[upserted.slots] = np.arange(first, first + batch.num_rows)
        first += batch.num_rows
    whole = pa.concat_batches([batch for batch in batches if batch.num_rows] or [full])
    return whole.take(pa.array(np.sort(latest[index.live()])))


def _encode(rows: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd", unify_dictionaries=True)
    with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
        writer.write_batch(rows)
    return sink.getvalue().to_pybytes()


def _checksum(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _damaged(message: str, code: str) -> Corrupt:
    return Corrupt(message, code=code, hint=_HINT)
