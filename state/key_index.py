"""The map from key columns to dense slots that keyed operators stand on. Knows no operator and no aggregate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.errors import Bug
from millrace.state.encoding import is_encoded, readable, readable_type
from millrace.state.growth import capacity_for, extended
from millrace.state.hashing import CHUNK_ROWS
from millrace.state.rehash import FROM_ENTRIES, Rehash
from millrace.state.row_store import RowStore
from millrace.state.words import (
    Addresses,
    Int64s,
    Kind,
    Layout,
    Slots,
    Words,
    buffers_of,
    kinds_of,
)

_SLOTS_MIN = 64
_ARENA_MIN = 1024


@dataclass(frozen=True, slots=True)
class Upserted:
    """`slots` has the slot of each row; `created` the slots that are new, in order of first appearance."""

    slots: Slots
    created: Slots


class KeyIndex:
    """Maps rows of key columns to int32 slots, dense from 0; a freed slot is given out again, lowest first.

    NULL is a key equal to itself; NaN equals NaN and -0.0 equals 0.0. No column at all is one key, the
    global group. Invariant: every live slot has one table entry, its record and its hash.
    """

    def __init__(self, types: Sequence[pa.DataType], capacity: int = 1024) -> None:
        self._types = tuple(types)
        self._stored = tuple(readable_type(data_type) for data_type in self._types)
        self._kinds = kinds_of([pa.nulls(0, stored) for stored in self._stored])
        self._layout = Layout.of(self._kinds, nulls=False)
        slots = max(_SLOTS_MIN, (capacity + 63) // 64 * 64)
        self._table: Words = np.zeros(_table_size(slots), np.uint64)
        self._records: Words = np.empty(slots * self._layout.stride, np.uint64)
        self._hashes: Words = np.empty(slots, np.uint64)
        self._live: Words = np.zeros(slots // 64, np.uint64)
        self._arena = np.empty(_ARENA_MIN if self._layout.variable else 0, np.uint8)
        self._counts: Int64s = np.zeros(6, np.int64)
        self._rehash: Rehash | None = None
        self._rehash_from = self._when_to_rehash()
        self._held = _HeldValues(self._types) if any(map(is_encoded, self._types)) else None
        self._kept: list[Words] = []
        self._chunk_hashes: Words = np.empty(CHUNK_ROWS, np.uint64)
        self._chunk_words: Words = np.empty(CHUNK_ROWS * self._layout.stride, np.uint64)

    @cached_property
    def _kernels(self):  # type: ignore[no-untyped-def]
        from millrace.state import key_kernels  # deferred: Numba is slow to import

        return key_kernels

    @property
    def types(self) -> tuple[pa.DataType, ...]:
        """The Arrow types of the key columns, as given."""
        return self._types

    def __len__(self) -> int:
        return int(self._counts[0])

    @property
    def high(self) -> int:
        """One past the highest live slot: the size that arrays by slot need. Falls when the last slots are freed."""
        return int(self._counts[2])

    @property
    def nbytes(self) -> int:
        """Bytes held by the table, the records and the string arena."""
        arrays = (self._table, self._records, self._hashes, self._live, self._arena)
        more = (part.nbytes for part in (self._held, self._rehash) if part is not None)
        return sum(array.nbytes for array in arrays) + sum(more)

    def upsert(self, columns: Sequence[pa.Array], rows: int | None = None) -> Upserted:
        """The slot of each row, made where its key is new. `rows` is needed where there is no column."""
        given = columns
        count, columns, buffers = self._open(columns, rows)
        created: Slots = np.empty(count, np.int32)
        if self._rehash is not None:
            self._carry(columns, count, buffers)
        slots = self._slots(columns, count, buffers, created)
        if self._rehash is not None and self._rehash.step(count):
            self._rehash = None
        if (
            len(self) >= self._rehash_from
            and self._rehash is None
            and not Rehash.at_once(len(self._table), count)
        ):
            self._rehash = Rehash(2 * len(self._table))
        made = created[: self._counts[5]]
        if self._held is not None and len(made):
            self._held.keep(given, slots, made)
        return Upserted(slots, made.copy() if len(made) * 2 < count else made)

    def lookup(self, columns: Sequence[pa.Array], rows: int | None = None) -> Slots:
        """The slot of each row, -1 where its key is absent."""
        count, columns, buffers = self._open(columns, rows)
        found = self._slots(columns, count, buffers, None)
        if self._rehash is not None and self._rehash.old is not None:
            np.maximum(found, self._slots(columns, count, buffers, None, self._rehash.old), out=found)
        return found

    def _slots(
        self,
        columns: Sequence[pa.Array],
        count: int,
        buffers: Addresses,
        created: Slots | None,
        old: Words | None = None,
    ) -> Slots:
        """The slot of each row; what is new is made and listed in `created`, or is -1 where that is None.

        With `old`, that is the table which is looked into.
        """
        slots: Slots = np.empty(count, np.int32)
        layout = self._layout
        self._counts[5] = 0
        done = 0
        while done < count:
            done = self._kernels.find_or_create(
                buffers,
                done,
                count,
                layout.fixed,
                layout.variable,
                layout.null_at,
                self._table if old is None else old,
                self._records,
                self._hashes,
                self._live,
                self._arena.ctypes.data,
                len(self._arena),
                self._counts,
                self._chunk_words,
                self._chunk_hashes,
                slots,
                slots if created is None else created,
                created is not None,
            )
            if done < count:
                self._grow(columns, done)
                self._carry(columns, count, buffers)
        return slots

    def _carry(self, columns: Sequence[pa.Array], count: int, buffers: Addresses) -> None:
        """While a table is carried over: have the keys of these rows in the new one."""
        rehash = self._rehash
        if rehash is not None and rehash.old is not None:
            created = int(self._counts[5])
            rehash.carry(self._slots(columns, count, buffers, None, rehash.old), self._hashes)
            self._counts[5] = created

    def remove(self, slots: npt.NDArray[np.integer]) -> None:
        """Forget the keys of these slots, which must be live and distinct; gives memory back after a spike."""
        given = np.ascontiguousarray(slots, np.int32)
        if not len(given):
            return
        if self._held is not None:
            self._held.drop(given)
        if self._rehash is not None:
            self._rehash.leave(given, self._hashes)
        layout = self._layout
        freed = self._kernels.remove(
            given,
            layout.fixed,
            layout.variable,
            self._table,
            self._records,
            self._hashes,
            self._live,
            self._counts,
        )
        if freed != len(given):
            raise Bug(f"slot {given[freed]} was removed, and it is not live")
        self._shrink()

    def live(self) -> Slots:
        """All live slots in ascending order."""
        out: Slots = np.empty(len(self), np.int32)
        self._kernels.live_slots(self._live, self.high, out)
        return out

    def hashes(self, slots: npt.NDArray[np.integer]) -> Words:
        """The stable hash (`hash_columns`) of each slot's key."""
        return self._hashes[slots]

    def keys(self, slots: npt.NDArray[np.integer]) -> list[pa.Array]:
        """The key values of these live slots, one array a key column, of exactly the column's type."""
        given = np.ascontiguousarray(slots, np.int32)
        assert not len(given) or (given.min() >= 0 and given.max() < self.high), "slots must be live"
        held = {} if self._held is None else self._held.columns(given)
        return [held[c] if c in held else self._column(c, given) for c in range(len(self._types))]

    def _open(
        self, columns: Sequence[pa.Array], rows: int | None
    ) -> tuple[int, Sequence[pa.Array], Addresses]:
        """Row count, columns as read in place, and their buffers; makes room for nulls that come first now."""
        if len(columns) != len(self._types):
            raise Bug(f"{len(columns)} key columns were given to an index of {len(self._types)}")
        kinds = self._kinds
        if any(column.type != stored for column, stored in zip(columns, self._stored, strict=True)):
            columns = [readable(column) for column in columns]
            kinds = kinds_of(columns)
            for column, kind, own in zip(columns, kinds, self._kinds, strict=True):
                if kind is not own and min(kind, own) < Kind.VAR32:
                    raise Bug(f"a {column.type} column was given for a key of kind {own.name}")
        count = len(columns[0]) if columns else (1 if rows is None else rows)
        if self._layout.null_at < 0 and any(
            kind < Kind.VAR32 and column.null_count for column, kind in zip(columns, kinds, strict=True)
        ):
            self._admit_nulls()
        buffers, self._kept = buffers_of(columns, kinds, self._layout.places)
        return count, columns, buffers

    def _admit_nulls(self) -> None:
        """Insert the null word into every record."""
        old = self._layout
        self._layout = new = Layout.of(self._kinds, nulls=True)
        slots = len(self._hashes)
        records = np.zeros((slots, new.stride), np.uint64)
        before = self._records.reshape(slots, old.stride)
        records[:, : old.fixed] = before[:, : old.fixed]
        records[:, new.fixed :] = before[:, old.fixed :]
        self._records = records.reshape(-1)
        self._chunk_words = np.empty(CHUNK_ROWS * new.stride, np.uint64)

    def _grow(self, columns: Sequence[pa.Array], row: int) -> None:
        """Make room in whatever the kernel stopped for at `row`."""
        live, capacity = len(self), len(self._hashes)
        if live >= min(capacity, len(self._table) // 2):
            self._extend(len(columns[0]) if columns else 1)
            return
        need = sum(
            len(column[row].as_buffer())
            for column, kind in zip(columns, self._kinds, strict=True)
            if kind >= Kind.VAR32 and column[row].is_valid
        )
        used, dead = int(self._counts[3]), int(self._counts[4])
        self._move_arena(max(_ARENA_MIN, 2 * (used - dead) + need))

    def _extend(self, rows: int) -> None:
        """Room for more slots, and a table of twice the size where half of it is taken: at once if `rows` are many."""
        if len(self) >= len(self._hashes):
            slots = capacity_for(0, len(self._hashes)) // 64 * 64
            self._records = extended(self._records, slots * self._layout.stride)
            self._hashes = extended(self._hashes, slots)
            self._live = extended(self._live, slots // 64)
        if len(self) < len(self._table) // 2:
            return
        self._finish_rehash()
        if len(self._table) < FROM_ENTRIES:
            self._retable(_table_size(len(self._hashes)))
            return
        if self._rehash is None and Rehash.at_once(len(self._table), rows):
            self._retable(2 * len(self._table))
            return
        rehash = self._rehash = self._rehash or Rehash(2 * len(self._table))
        rehash.begin(self._table)
        self._table = rehash.table
        self._rehash_from = self._when_to_rehash()

    def _when_to_rehash(self) -> int:
        """With how many live slots the next table is to be made ready."""
        limit = len(self._table) // 2
        return limit - limit // 32 if len(self._table) >= FROM_ENTRIES else 2**62

    def _finish_rehash(self) -> None:
        """Carry the rest over; a table that is only being made ready stays."""
        if self._rehash is not None and self._rehash.old is not None:
            self._rehash.finish()
            self._rehash = None

    def _resize(self, slots: int) -> None:
        """Cut slot arrays down to `slots` (a multiple of 64 that reaches `high`) and the table to match."""
        self._finish_rehash()
        self._rehash = None
        self._records = self._records[: slots * self._layout.stride].copy()
        self._hashes = self._hashes[:slots].copy()
        self._live = self._live[: slots // 64].copy()
        self._retable(_table_size(slots))

    def _retable(self, size: int) -> None:
        """A table of another size, all at once."""
        if size == len(self._table):
            return
        # Written to at once, so that a large table is backed by huge pages; `np.zeros` is not.
        table: Words = np.empty(size, np.uint64)
        table.fill(0)
        self._kernels.refill(table, self._table)
        self._table = table
        self._rehash_from = self._when_to_rehash()

    def _move_arena(self, size: int) -> None:
        """Copy the bytes of live keys to a new arena of `size`."""
        arena = np.empty(size, np.uint8)
        layout = self._layout
        self._kernels.compact_arena(
            self.live(),
            self._records,
            layout.fixed,
            layout.variable,
            self._arena.ctypes.data,
            arena.ctypes.data,
            self._counts,
        )
        self._arena = arena

    def _shrink(self) -> None:
        """Give memory back where most of it is free; slots of live keys never change."""
        used, dead = int(self._counts[3]), int(self._counts[4])
        if dead > _ARENA_MIN and dead * 2 > used:
            self._move_arena(max(_ARENA_MIN, 2 * (used - dead)))
        capacity = len(self._hashes)
        if capacity > 1024 and self.high * 4 <= capacity:
            self._resize(max(1024, (self.high * 2 + 63) // 64 * 64))
            self._counts[1] = min(int(self._counts[1]), len(self._live) - 1)

    def _column(self, c: int, slots: Slots) -> pa.Array:
        kind, layout = self._kinds[c], self._layout
        stored = self._stored[c]
        place, stride, count = layout.places[c], layout.stride, len(slots)
        if kind is Kind.NULL:
            return pa.nulls(count)
        if kind >= Kind.VAR32:
            array = self._variable_column(c, slots)
        else:
            words = np.empty((2 if kind is Kind.W128 else 1, count), np.uint64)
            for j in range(len(words)):
                self._kernels.gather_words(slots, self._records, stride, place + j, words[j])
            array = pa.Array.from_buffers(
                stored, count, [self._validity(c, slots), pa.py_buffer(_narrowed(kind, words))]
            )
        return array if array.type == self._types[c] else array.cast(self._types[c])

    def _validity(self, c: int, slots: Slots) -> pa.Buffer | None:
        """Arrow bitmap of fixed-width column `c`, or None where no key is null."""
        if self._layout.null_at < 0:
            return None
        words = np.empty(len(slots), np.uint64)
        self._kernels.gather_words(slots, self._records, self._layout.stride, self._layout.null_at, words)
        valid = (words >> np.uint64(c)) & np.uint64(1) == 0
        return None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))

    def _variable_column(self, c: int, slots: Slots) -> pa.Array:
        count, stride, place = len(slots), self._layout.stride, self._layout.places[c]
        offsets = np.empty(count + 1, np.int64)
        nulls = self._kernels.gather_offsets(slots, self._records, stride, place, offsets)
        data = np.empty(int(offsets[-1]), np.uint8)
        self._kernels.gather_bytes(
            slots, self._records, stride, place, self._arena.ctypes.data, offsets, data.ctypes.data
        )
        validity = None
        if nulls:
            words = np.empty(count, np.uint64)
            self._kernels.gather_words(slots, self._records, stride, place, words)
            validity = pa.py_buffer(np.packbits(words != np.uint64(2**64 - 1), bitorder="little"))
        narrow = self._kinds[c] is Kind.VAR32
        if narrow and offsets[-1] >= 2**31:
            raise Bug(f"{count} keys of {offsets[-1]} bytes were gathered at once, over 2 GiB")
        shown = offsets.astype(np.int32) if narrow else offsets
        return pa.Array.from_buffers(
            self._stored[c], count, [validity, pa.py_buffer(shown), pa.py_buffer(data)], nulls
        )


class _HeldValues:
    """Values of key columns that cannot be had back from a record (nested ones), as rows by slot."""

    def __init__(self, types: Sequence[pa.DataType]) -> None:
        self._places = [c for c, data_type in enumerate(types) if is_encoded(data_type)]
        self._rows = RowStore(pa.schema([(str(c), types[c]) for c in self._places]))
        self._row_of_slot: Int64s = np.full(_SLOTS_MIN, -1, np.int64)

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes + self._row_of_slot.nbytes

    def keep(self, columns: Sequence[pa.Array], slots: Slots, created: Slots) -> None:
        """Keep the values of each created slot, from the first row that has it."""
        high = int(slots.max()) + 1
        if high > len(self._row_of_slot):
            grown: Int64s = np.full(max(high, 2 * len(self._row_of_slot)), -1, np.int64)
            grown[: len(self._row_of_slot)] = self._row_of_slot
            self._row_of_slot = grown
        first = np.empty(high, np.int64)
        first[slots[::-1]] = np.arange(len(slots))[::-1]
        batch = pa.RecordBatch.from_arrays([columns[c] for c in self._places], schema=self._rows.schema)
        self._row_of_slot[created] = self._rows.append(batch.take(pa.array(first[created])))

    def drop(self, slots: Slots) -> None:
        """Forget the values of these slots."""
        self._rows.remove(self._row_of_slot[slots])

    def columns(self, slots: Slots) -> dict[int, pa.Array]:
        """Key column number → values of these slots."""
        batch = self._rows.gather(self._row_of_slot[slots])
        return dict(zip(self._places, batch.columns, strict=True))


def _table_size(slots: int) -> int:
    """A power of two at least twice `slots`, and four times while that is small."""
    return 1 << max(8, (2 * slots - 1).bit_length() + (slots <= 1 << 15))


_NARROW: dict[Kind, type[np.generic]] = {
    Kind.I8: np.uint8,
    Kind.U8: np.uint8,
    Kind.I16: np.uint16,
    Kind.U16: np.uint16,
    Kind.I32: np.uint32,
    Kind.U32: np.uint32,
}


def _narrowed(kind: Kind, words: npt.NDArray[np.uint64]) -> npt.NDArray[np.generic]:
    """Values in the width of their Arrow buffer from words of shape (1 or 2, n)."""
    if kind is Kind.W128:
        return np.ascontiguousarray(words.T)
    if kind is Kind.BOOL:
        return np.packbits(words[0].astype(np.bool_), bitorder="little")
    if kind is Kind.F32:
        return words[0].view(np.float64).astype(np.float32)
    return words[0].astype(_NARROW[kind]) if kind in _NARROW else words[0]
