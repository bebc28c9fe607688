"""How many rows of a split were read since the last cut, and a digest of them: so that a replay that differs is noticed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from millrace.errors import Corrupt
from millrace.operators.operator import Context
from millrace.operators.source import Position, Source, SourceInput
from millrace.state.hashing import hash_columns

EVERY = 16
"""Of so many rows, one goes into the digest; all are counted."""
VERIFY_S = 10.0
"""What a source may take to give the rows of one interval again; after that they are not looked at."""
WAIT_S = 0.01


class InputDigest:
    """Counts the records of a split since `since`, and sums the hashes of every 16th row: how batches are cut does not matter.

    The digest's upper half stands for the columns: read with other ones, a split says nothing of the same rows.
    """

    __slots__ = ("_columns", "_named", "_rows", "_sum", "records", "since")

    def __init__(self, schema: pa.Schema, since: Position | None) -> None:
        self._columns = [i for i, field in enumerate(schema) if not pa.types.is_nested(field.type)]
        named = "\n".join(f"{field.name} {field.type}" for field in schema)
        self._named = int.from_bytes(hashlib.blake2b(named.encode(), digest_size=4).digest(), "big")
        self.restart(since)

    def restart(self, since: Position | None) -> None:
        """Begin anew behind a cut."""
        self.since = since
        self.records = 0
        self._rows = 0
        self._sum = 0

    def add(self, rows: pa.RecordBatch | None, bad: int) -> None:
        """Take in what one poll gave."""
        self.records += bad
        if rows is None:
            return
        count = rows.num_rows
        chosen = np.arange(-self._rows % EVERY, count, EVERY)
        if len(chosen) and self._columns:
            places = pa.array(chosen)
            hashes = hash_columns([rows.column(i).take(places) for i in self._columns], len(chosen))
            self._sum = (self._sum + int(hashes.sum(dtype=np.uint64))) & 0xFFFF_FFFF
        self._rows += count
        self.records += count

    @property
    def value(self) -> int:
        """The digest, below 2**63."""
        return (self._named & 0x7FFF_FFFF) << 32 | self._sum


def verify_input(
    node: SourceInput,
    context: Context,
    splits: Mapping[str, tuple[Position, Position, int, int]],
    batch_rows: int,
) -> list[str]:
    """Read again what splits gave between two positions; the splits that can not give it any more, or not in time.

    `splits` has by name (from, to, records, digest). Raises Corrupt MR5045 where the input is another now.
    """
    source = node.source.build(context)
    skipped = []
    try:
        for split, (since, until, records, value) in splits.items():
            if not _verified(source, node, split, since, until, records, value, batch_rows):
                skipped.append(split)
    finally:
        source.close()
    return skipped


def _verified(
    source: Source,
    node: SourceInput,
    split: str,
    since: Position,
    until: Position,
    records: int,
    value: int,
    batch_rows: int,
) -> bool:
    digest = InputDigest(node.source.output_schema, since)
    if digest.value >> 32 != value >> 32:
        return True  # other columns are read now, and nothing is known of them
    reader = source.open(split, since)
    deadline = time.monotonic() + VERIFY_S
    try:
        while digest.records < records and not reader.ended:
            polled = reader.poll(min(batch_rows, records - digest.records))
            if polled is not None:
                digest.add(None if polled.batch is None else polled.batch.data, len(polled.bad))
            elif time.monotonic() > deadline:
                return False
            else:
                time.sleep(WAIT_S)
        same_place = dict(reader.position) == dict(until)
    except Corrupt:
        if node.source.keeps_rows:
            raise
        return False
    finally:
        reader.close()
    if (digest.records, digest.value) == (records, value):
        return True
    if not node.source.keeps_rows and not same_place:
        return False  # retention or compaction took some of them
    raise Corrupt(
        f"split {split} gives other rows between {dict(since)} and {dict(until)} than before the last checkpoint: "
        f"{digest.records} instead of {records}"
        + ("" if digest.records != records else ", of another content"),
        code="MR5045",
        hint="its input was changed or replaced; begin the job anew under another name, from what is there now",
    )
