"""What a join keeps of one side: rows by key slot, found again when they are taken back. Joins nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.errors import Bug
from millrace.operators.batch import Batch, Int64Array
from millrace.operators.consolidate import consolidate
from millrace.state.columns import SlotColumn
from millrace.state.key_index import KeyIndex
from millrace.state.multimap import Multimap
from millrace.state.row_store import RowStore
from millrace.state.words import Int32s, Slots, Uint16s

Places = Sequence[int]


@dataclass(slots=True)
class Delta:
    """What a batch changed: rows (the stored columns) with the key slot of each and the change of its number.

    `entries` has the entry of each row that was added to; an entry of a row with a negative weight may be in
    other use already. `links` is +1 where an entry came to be, -1 where one ceased, else 0; None: all +1.
    `weights` None: all +1.
    """

    data: pa.RecordBatch
    slots: Slots
    entries: Int32s
    weights: Int64Array | None = None
    links: Int64Array | None = None

    def part(self, rows: npt.NDArray[np.integer]) -> Delta:
        """Some of the rows."""
        return Delta(
            self.data.take(pa.array(rows)),
            self.slots[rows],
            self.entries[rows],
            None if self.weights is None else self.weights[rows],
            None if self.links is None else self.links[rows],
        )


class Side(ABC):
    """The rows of one side. An entry is a number that stands for a row (of a multiset: a distinct row).

    Each entry has a number that is never given out again while the operator lives: what a capture knows the row
    by. `matches`, kept only where `with_matches`, counts the rows of the other side that
    match an entry.
    """

    def __init__(self, schema: pa.Schema, *, with_matches: bool) -> None:
        self.schema = schema
        self.links = Multimap()
        self._numbers: SlotColumn | None = None
        """None as long as nothing was removed: then entries and numbers are given out alike."""
        self.matches = SlotColumn(np.int64) if with_matches else None
        self.vnodes_of: Callable[[Slots], Uint16s] | None = None
        """The vnode of key slots; once it is set, what is removed is noted in `forgotten`."""
        self.forgotten: list[tuple[Int64Array, Uint16s]] = []
        """Numbers that ceased since the last capture, with their vnodes."""

    def __len__(self) -> int:
        return len(self.links)

    @property
    @abstractmethod
    def next_number(self) -> int:
        """Numbers from here on have not been given out."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        columns = (self.matches, self._numbers)
        return self.links.nbytes + sum(column.nbytes for column in columns if column is not None)

    def numbers_of(self, entries: npt.NDArray[np.integer]) -> Int64Array:
        """The number of each live entry."""
        return entries.astype(np.int64) if self._numbers is None else self._numbers.values[entries]

    @abstractmethod
    def absorb(self, data: pa.RecordBatch, slots: Slots, weights: Int64Array | None) -> Delta:
        """Take rows in, and say what that changed."""

    @abstractmethod
    def gather(self, entries: npt.NDArray[np.integer], places: Places) -> list[pa.Array]:
        """Stored columns of these live entries."""

    def counts(self, entries: npt.NDArray[np.integer]) -> Int64Array | None:
        """How often each entry's row is there; None where all are once."""
        return None

    @abstractmethod
    def drop(self, entries: Int32s) -> None:
        """Forget these live, distinct entries."""

    def _note(self, numbers: Int64Array, slots: Slots) -> None:
        if self.vnodes_of is not None and len(numbers):
            self.forgotten.append((numbers, self.vnodes_of(slots)))

    def _link(self, slots: Slots, numbers: Int64Array) -> Int32s:
        entries = self.links.insert(slots)
        if self._numbers is not None:
            self._numbers.grow(self.links.high)
            self._numbers.values[entries] = numbers
        assert self._numbers is not None or not len(entries) or entries[-1] == numbers[-1]
        if self.matches is not None:
            self.matches.grow(self.links.high)
            self.matches.values[entries] = 0
        return entries

    def _unlink(self, entries: Int32s) -> None:
        if not len(entries):
            return
        self._note(self.numbers_of(entries), self.links.owners(entries))
        column = self._own_numbers()
        self.links.remove(entries)
        column.fit(self.links.high)
        if self.matches is not None:
            self.matches.fit(self.links.high)

    def _own_numbers(self) -> SlotColumn:
        """The numbers by entry, now that these may differ."""
        if self._numbers is None:
            self._numbers = SlotColumn(np.int64, capacity=self.links.high)
            self._numbers.values[: self.links.high] = np.arange(self.links.high)
        return self._numbers


class _StoredSide(Side):
    """Base of sides that keep rows in a row store; an entry's number is its row number there."""

    def __init__(self, schema: pa.Schema, *, with_matches: bool) -> None:
        super().__init__(schema, with_matches=with_matches)
        self._store = RowStore(schema)

    @property
    def next_number(self) -> int:
        return self._store.next_row

    @property
    def nbytes(self) -> int:
        return super().nbytes + self._store.nbytes

    def gather(self, entries: npt.NDArray[np.integer], places: Places) -> list[pa.Array]:
        names = [self.schema.names[place] for place in places]
        return self._store.gather(self.numbers_of(entries), names).columns if names else []

    def drop(self, entries: Int32s) -> None:
        self._store.remove(self.numbers_of(entries))
        self._unlink(entries)


class ListedRows(_StoredSide):
    """Rows that are never taken back."""

    def absorb(self, data: pa.RecordBatch, slots: Slots, weights: Int64Array | None) -> Delta:
        if weights is not None and (weights != 1).any():
            raise Bug("an append-only input took a row back", code="MR9011")
        entries = self._link(slots, self._store.append(data))
        return Delta(data, slots, entries)


class PresentKeys(ListedRows):
    """Rows that are never taken back, of which it matters only that there is one: the first of each slot."""

    def absorb(self, data: pa.RecordBatch, slots: Slots, weights: Int64Array | None) -> Delta:
        news = np.flatnonzero(self.links.sizes(slots) == 0)
        _, first = np.unique(slots[news], return_index=True)
        rows = news[np.sort(first)]
        return super().absorb(data.take(pa.array(rows)), np.ascontiguousarray(slots[rows]), None)


class KnownRows(_StoredSide):
    """Rows that a key of their own identifies: the last one inserted and not taken back counts.

    `identity` are the stored columns of that key; None: it is the join key itself, so that a slot is a row.
    """

    def __init__(
        self, schema: pa.Schema, identity: Places | None, *, upsert: bool, with_matches: bool, lenient: bool
    ) -> None:
        super().__init__(schema, with_matches=with_matches)
        self._identity = identity
        self._upsert = upsert
        self._lenient = lenient
        self._index = None if identity is None else KeyIndex([schema.field(i).type for i in identity])
        self._entry_of = SlotColumn(np.int32, fill=-1)
        self._known = SlotColumn(np.int32, fill=-1)
        """The identity slot of each entry."""

    @property
    def nbytes(self) -> int:
        own = 0 if self._index is None else self._index.nbytes
        return super().nbytes + own + self._entry_of.nbytes + self._known.nbytes

    def absorb(self, data: pa.RecordBatch, slots: Slots, weights: Int64Array | None) -> Delta:
        if weights is not None and not self._upsert:
            whole = data.append_column("_slot", pa.array(slots))
            folded = consolidate(Batch(whole, weights))
            if folded.num_rows < len(slots):
                slots = np.asarray(folded.data.column(len(self.schema)))
            data = pa.RecordBatch.from_arrays(folded.data.columns[:-1], schema=self.schema)
            weights = folded.weights
        known = self._identify(data, slots)
        ids, inverse = np.unique(known, return_inverse=True)
        last = np.full(len(ids), -1, np.int64)
        rows = np.arange(len(known))
        if weights is None:
            last[inverse] = rows
        elif self._upsert:
            last[inverse] = np.where(weights > 0, rows, -1)
        else:
            inserted = weights > 0
            last[inverse[inserted]] = rows[inserted]
        former = self._entry_of.values[ids]
        self._check(former, last)
        old = former[former >= 0]
        taken = self._taken(old)
        fresh = np.flatnonzero(last >= 0)
        places = last[fresh]
        every = len(places) == data.num_rows and bool((places == rows).all())
        added = data if every else data.take(pa.array(places))
        added_slots = np.ascontiguousarray(slots[places])
        entries = self._link(added_slots, self._store.append(added))
        self._known.grow(self.links.high)
        self._known.values[entries] = ids[fresh]
        self._entry_of.values[ids[fresh]] = entries
        self._release(ids[last < 0])
        if taken is None:
            return Delta(added, added_slots, entries)
        signs = np.ones(len(old) + len(places), np.int64)
        signs[: len(old)] = -1
        both = pa.concat_batches([taken.data, added])
        return Delta(
            both,
            np.concatenate([taken.slots, added_slots]),
            np.concatenate([old, entries]),
            signs,
            signs,
        )

    def drop(self, entries: Int32s) -> None:
        ids = self._known.values[entries]
        super().drop(entries)
        self._release(ids)

    def _identify(self, data: pa.RecordBatch, slots: Slots) -> Slots:
        if self._index is None or self._identity is None:
            self._entry_of.grow(int(slots.max()) + 1 if len(slots) else 0)
            return slots
        found = self._index.upsert([data.column(i) for i in self._identity], data.num_rows)
        self._entry_of.grow(self._index.high)
        self._entry_of.values[found.created] = -1
        return found.slots

    def _check(self, former: Int32s, last: Int64Array) -> None:
        if not self._lenient and not self._upsert and ((former < 0) & (last < 0)).any():
            raise Bug("a row was taken back that the join does not hold", code="MR9010")

    def _taken(self, old: Int32s) -> Delta | None:
        if not len(old):
            return None
        data = self._store.gather(self.numbers_of(old))
        slots = self.links.owners(old)
        super().drop(old)
        return Delta(data, slots, old)

    def _release(self, ids: Slots) -> None:
        """These identity slots hold no row any more."""
        if not len(ids):
            return
        self._entry_of.values[ids] = -1
        if self._index is not None:
            self._index.remove(ids)
            self._entry_of.fit(self._index.high)


class CountedRows(Side):
    """A multiset: each distinct row once, with how often it is there. Rows are kept in an index of their own."""

    def __init__(self, schema: pa.Schema, *, with_matches: bool, lenient: bool) -> None:
        super().__init__(schema, with_matches=with_matches)
        self._lenient = lenient
        self._rows = KeyIndex([pa.int32(), *schema.types])
        self._entry_of = SlotColumn(np.int32, fill=-1)
        self._row_of = SlotColumn(np.int32, fill=-1)
        self._counts = SlotColumn(np.int64)
        self._next = 0

    @property
    def next_number(self) -> int:
        return self._next

    @property
    def nbytes(self) -> int:
        own = (self._rows, self._entry_of, self._row_of, self._counts)
        return super().nbytes + sum(part.nbytes for part in own)

    def absorb(self, data: pa.RecordBatch, slots: Slots, weights: Int64Array | None) -> Delta:
        found = self._rows.upsert([pa.array(slots), *data.columns], data.num_rows)
        self._entry_of.grow(self._rows.high)
        self._entry_of.values[found.created] = -1
        rows, first, inverse = np.unique(found.slots, return_index=True, return_inverse=True)
        sums = np.zeros(len(rows), np.int64)
        np.add.at(sums, inverse, 1 if weights is None else weights)
        former = self._entry_of.values[rows]
        known = former >= 0
        before = np.where(known, self._counts.values[np.where(known, former, 0)], 0)
        after = before + sums
        if (after < 0).any():
            if not self._lenient:
                raise Bug("a row was taken back that the join does not hold", code="MR9010")
            after = np.maximum(after, 0)
            sums = after - before
        entries = self._settle(rows, slots[first], former, after, sums)
        changed = np.flatnonzero(sums)
        links = (after > 0).astype(np.int64) - (before > 0)
        every = len(changed) == data.num_rows and bool((first == np.arange(len(first))).all())
        picked = first[changed]
        return Delta(
            data if every else data.take(pa.array(picked)),
            slots[picked],
            entries[changed],
            sums[changed],
            links[changed],
        )

    def _settle(
        self, rows: Slots, slots: Slots, former: Int32s, after: Int64Array, sums: Int64Array
    ) -> Int32s:
        """Give every touched row its new number of times; the entry of each."""
        entries = former.copy()
        gone = np.flatnonzero(after == 0)
        ended = former[gone]
        self._unlink(ended[ended >= 0])
        self._entry_of.values[rows[gone]] = -1
        moved = np.flatnonzero((former >= 0) & (after > 0) & (sums != 0))
        if len(moved):
            kept = former[moved]
            self._note(self.numbers_of(kept), self.links.owners(kept))
            self._own_numbers().values[kept] = self._give_numbers(len(kept))
            self._counts.values[kept] = after[moved]
        fresh = np.flatnonzero((former < 0) & (after > 0))
        if len(fresh):
            made = self._link(np.ascontiguousarray(slots[fresh]), self._give_numbers(len(fresh)))
            self._counts.grow(self.links.high)
            self._row_of.grow(self.links.high)
            self._counts.values[made] = after[fresh]
            self._row_of.values[made] = rows[fresh]
            self._entry_of.values[rows[fresh]] = made
            entries[fresh] = made
        self._rows.remove(rows[gone])
        self._entry_of.fit(self._rows.high)
        return entries

    def _give_numbers(self, count: int) -> Int64Array:
        first = self._next
        self._next += count
        return np.arange(first, self._next, dtype=np.int64)

    def gather(self, entries: npt.NDArray[np.integer], places: Places) -> list[pa.Array]:
        if not places:
            return []
        columns = self._rows.keys(self._row_of.values[entries])
        return [columns[place + 1] for place in places]

    def counts(self, entries: npt.NDArray[np.integer]) -> Int64Array | None:
        return self._counts.values[entries]

    def drop(self, entries: Int32s) -> None:
        rows = self._row_of.values[entries]
        self._unlink(entries)
        self._entry_of.values[rows] = -1
        self._rows.remove(rows)
