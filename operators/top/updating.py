"""Top-N in general: touched partitions are ranked anew, and the difference to what was sent goes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.errors import Bug
from millrace.operators.batch import Batch, Int64Array
from millrace.operators.operator import Capture, Context, Operator, OperatorMetrics
from millrace.operators.sink import Changelog
from millrace.operators.top.front import Fronts
from millrace.operators.top.ordering import code_count, codes_of, ranked
from millrace.operators.top.specs import TopRows, fixed_code
from millrace.operators.top.stored_rows import StoredRows, restored_rows
from millrace.state.columns import SlotColumn
from millrace.state.key_index import KeyIndex
from millrace.state.multimap import Multimap

_NO_END = 2**62
_FRONT_MIN = 256
Entries = npt.NDArray[np.int32]


class UpdatingTop(Operator):
    """Owns the rows that may be among the first of their partition: all of them where rows are taken back.

    A row is an entry of one of its partition's two lists, the front (2 × slot) and the back. The front has the
    first rows and more; only where it runs short is the back looked at. By entry: the number of the row,
    how often it is there, and the place and number of copies of it that were sent.
    """

    def __init__(self, spec: TopRows, context: Context) -> None:
        self._spec = spec
        self._context = context
        self._schema = spec.output_schema
        self._sorted = list(dict.fromkeys(column for column, _, _ in spec.order))
        self._order = tuple((self._sorted.index(c), d, f) for c, d, f in spec.order)
        self._last = _NO_END if spec.limit is None else spec.offset + spec.limit
        self._near = max(2 * self._last, _FRONT_MIN)
        self._fronts: Fronts | None = None
        fixed = all(fixed_code(spec.input.field(column).type) for column, _, _ in spec.order)
        if fixed and spec.order and spec.limit is not None and spec.changelog_input is not Changelog.APPEND:
            width = code_count(spec.input, spec.order)
            self._fronts = Fronts(width, strict=spec.function == "row_number")
        self._index = KeyIndex([spec.input.field(i).type for i in spec.partition])
        self._lists = Multimap()
        self._rows = StoredRows(spec.input, spec.partition, context.vnodes)
        self._numbers = SlotColumn(np.int64, fill=-1)
        self._counts = SlotColumn(np.int64)
        self._places = SlotColumn(np.int64)
        self._shown = SlotColumn(np.int64)
        # What identifies a row that is taken back or replaced: its key, or else all of it.
        self._identity = spec.input_key or tuple(range(len(spec.input)))
        self._same: KeyIndex | None = None
        if spec.changelog_input is not Changelog.APPEND:
            self._same = KeyIndex([spec.input.field(i).type for i in self._identity])
        self._counted = self._same is not None and spec.input_key is None
        self._entry_of = SlotColumn(np.int32, fill=-1)
        self._same_of = SlotColumn(np.int32, fill=-1)
        self._dead: list[Entries] = []
        self.metrics = OperatorMetrics()

    @property
    def state_rows(self) -> int:
        """Rows kept."""
        return len(self._rows)

    @property
    def state_bytes(self) -> int:
        """Bytes of these rows and of what finds them."""
        columns = (self._numbers, self._counts, self._places, self._shown, self._entry_of, self._same_of)
        parts = (self._index, self._lists, self._rows.store, *columns)
        same = 0 if self._same is None else self._same.nbytes
        return same + sum(part.nbytes for part in parts)

    def process(self, port: int, batch: Batch) -> list[Batch]:
        self.metrics.rows_in += batch.num_rows
        out = self._update(self._take(batch.data, batch.weights))
        self.metrics.rows_out += sum(part.num_rows for part in out)
        return out

    def capture(self, *, changes: bool) -> Capture:
        numbers, complete = self._rows.to_capture(changes=changes)
        counts = None
        if self._same is not None and self._counted:
            same = self._same.lookup(self._rows.columns(numbers), len(numbers))
            counts = self._counts.values[self._entry_of.values[same]]
        return {"rows": self._rows.captured(numbers, counts, complete=complete)}

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        rows = tables.get("rows")
        if rows is not None and rows.num_rows:
            self._update(self._take(*restored_rows(rows, self._spec.input)))

    def _take(self, data: pa.RecordBatch, weights: Int64Array | None) -> Entries:
        """Take rows in or back; the partitions that this touches."""
        found = self._index.upsert([data.column(i) for i in self._spec.partition], data.num_rows).slots
        if self._same is None:
            assert weights is None or (weights > 0).all(), "the input is said to be append-only"
            if weights is not None and (weights > 1).any():
                rows = np.repeat(np.arange(data.num_rows), weights)
                data, found = data.take(pa.array(rows)), found[rows]
            self._insert(data, found, np.arange(data.num_rows), 1)
            return np.unique(found)
        if not self._counted:
            return self._replace(self._same, data, weights, found)
        same = self._same.upsert(data.columns, data.num_rows)
        self._entry_of.grow(self._same.high)
        if len(same.created):
            first = np.empty(self._same.high, np.int64)
            first[same.slots[::-1]] = np.arange(data.num_rows - 1, -1, -1)
            # Ascending, so that entries of a partition stand as their rows arrived.
            order = np.argsort(first[same.created], kind="stable")
            created = same.created[order]
            entries = self._insert(data, found, first[created], 0)
            self._entry_of.values[created] = entries
            self._same_of.grow(self._lists.high)
            self._same_of.values[entries] = created
        touched = self._entry_of.values[same.slots]
        np.add.at(self._counts.values, touched, 1 if weights is None else weights)
        if (self._counts.values[touched] < 0).any():
            raise Bug("a row was taken back that was never there", code="MR9010")
        self._dead.append(np.unique(touched[self._counts.values[touched] == 0]))
        if self._rows.watched:
            self._rows.change(self._numbers.values[np.unique(touched)])
        return np.unique(found)

    def _replace(
        self, index: KeyIndex, data: pa.RecordBatch, weights: Int64Array | None, found: Entries
    ) -> Entries:
        """Take in what holds of each key now; the partitions that this touches."""
        slots = index.upsert([data.column(i) for i in self._identity], data.num_rows).slots
        self._entry_of.grow(index.high)
        rows = np.arange(data.num_rows)
        inserted = np.ones(data.num_rows, np.bool_) if weights is None else weights > 0
        last = np.full(index.high, -1, np.int64)
        if self._spec.changelog_input is Changelog.UPSERT:
            last[slots] = rows
        else:
            # Of a change both rows are here, in either order: what is inserted is what is left.
            last[slots[~inserted]] = rows[~inserted]
            last[slots[inserted]] = rows[inserted]
        keys = np.flatnonzero(last >= 0)
        winners = last[keys]
        former = self._entry_of.values[keys]
        known = former[former >= 0]
        self._counts.values[known] = 0
        self._dead.append(known)
        touched = np.unique(np.concatenate([found, self._lists.owners(known) >> 1]))
        there = inserted[winners]
        index.remove(keys[~there & (former < 0)])
        order = np.argsort(winners[there], kind="stable")
        kept, new = winners[there][order], keys[there][order]
        entries = self._insert(data, found, kept, 1)
        self._entry_of.values[new] = entries
        self._same_of.grow(self._lists.high)
        self._same_of.values[entries] = new
        return touched

    def _insert(self, data: pa.RecordBatch, slots: Entries, kept: Int64Array, count: int) -> Entries:
        """Entries for these rows of `data`, which are in `slots`."""
        numbers = self._rows.add(data, kept)
        lists = 2 * slots[kept]
        if self._fronts is not None:
            self._fronts.grow(self._index.high)
            columns = [data.column(i).take(pa.array(kept)) for i in self._sorted]
            lists += self._fronts.behind(slots[kept], codes_of(columns, self._order))
        entries = self._lists.insert(lists)
        for column in (self._numbers, self._counts, self._places, self._shown):
            column.grow(self._lists.high)
        self._numbers.values[entries] = numbers
        self._counts.values[entries] = count
        self._places.values[entries] = 0
        self._shown.values[entries] = 0
        return entries

    def _update(self, touched: Entries) -> list[Batch]:
        """Rank the rows of these partitions; what differs from what was sent."""
        spec = self._spec
        dead = np.concatenate([np.empty(0, np.int32), *self._dead])
        self._dead = []
        unseen = self._lists.owners(dead) & 1 != 0
        self._remove(dead[unseen])
        near = self._rank(touched)
        short = self._short(touched, near)
        if len(short):
            back = self._lists.probe(2 * short + 1)[1]
            self._move(back, self._lists.owners(back) - 1)
            assert self._fronts is not None
            self._fronts.join(short)
            near = self._rank(touched)
        entries, rows, first = near.entries, near.rows, near.first
        number = self._counts.values[entries[rows]]
        places, shown = np.zeros(len(entries), np.int64), np.zeros(len(entries), np.int64)
        if spec.function == "row_number":
            start = np.maximum(first, spec.offset + 1)
            shown[rows] = np.maximum(np.minimum(first + number - 1, self._last) - start + 1, 0)
            places[rows] = start
        else:
            shown[rows] = np.where((first > spec.offset) & (first <= self._last), number, 0)
            places[rows] = first
        out = self._difference(entries, places, shown)
        self._places.values[entries] = places
        self._shown.values[entries] = shown
        if self._fronts is not None:
            self._split(self._fronts, touched, near)
        self._remove(entries[rows[first > self._last]] if self._same is None else dead[~unseen])
        sizes = self._lists.sizes(2 * touched) + self._lists.sizes(2 * touched + 1)
        empty = touched[sizes == 0]
        if len(empty):
            if self._fronts is not None:
                self._fronts.join(empty)
            self._index.remove(empty)
        return out

    def _rank(self, touched: Entries) -> _Near:
        """The places of the rows in front."""
        at, entries = self._lists.probe(2 * touched)
        counts = self._counts.values[entries]
        live = np.flatnonzero(counts > 0)
        numbers = self._numbers.values[entries[live]]
        codes: list[Int64Array] = []
        if self._sorted:
            codes = codes_of(self._rows.columns(numbers, self._sorted), self._order)
        found = ranked(
            at[live],
            codes,
            self._spec.function,
            counts[live] if self._counted else None,
            None if self._fronts is None else numbers,
        )
        return _Near(entries, at, live[found.rows], found.places, [code[found.rows] for code in codes])

    def _short(self, touched: Entries, near: _Near) -> Entries:
        """The partitions whose front is too short, while there are rows behind it."""
        if self._fronts is None:
            return touched[:0]
        split = self._lists.sizes(2 * touched + 1) > 0
        if not split.any():
            return touched[:0]
        have = np.zeros(len(touched), np.int64)
        if self._spec.function == "dense_rank":
            np.maximum.at(have, near.at[near.rows], near.first)
        else:
            np.add.at(have, near.at[near.rows], self._counts.values[near.entries[near.rows]])
        return touched[split & (have < self._last)]

    def _split(self, fronts: Fronts, touched: Entries, near: _Near) -> None:
        """Put what is far from the first rows of large partitions behind."""
        sizes = self._lists.sizes(2 * touched)
        large = (sizes > 4 * self._near)[near.at[near.rows]]
        far = large & (near.first > self._near)
        if not far.any():
            return
        slots = touched[near.at[near.rows]]
        kept = np.flatnonzero(large & ~far)
        # Rows are in order, so that the last one kept of a slot is the last of its run.
        ends = kept[np.append(slots[kept][1:] != slots[kept][:-1], True)]
        ends = ends[np.isin(slots[ends], slots[far])]
        fronts.split(slots[ends], [code[ends] for code in near.codes])
        self._move(near.entries[near.rows[far]], 2 * slots[far] + 1)

    def _move(self, entries: Entries, lists: Entries) -> None:
        """Put entries into other lists, which numbers them anew."""
        moved = self._lists.insert(lists)
        columns = [self._numbers, self._counts, self._places, self._shown]
        if self._same is not None:
            columns.append(self._same_of)
            self._entry_of.values[self._same_of.values[entries]] = moved
        for column in columns:
            column.grow(self._lists.high)
            column.values[moved] = column.values[entries]
        self._lists.remove(entries)

    def _difference(self, entries: Entries, places: Int64Array, shown: Int64Array) -> list[Batch]:
        """What takes the rows sent of these entries to what is to be shown of them."""
        old_places, old = self._places.values[entries], self._shown.values[entries]
        out: tuple[_Piece, _Piece]
        if self._spec.rank_name is None:
            out = (entries, places, np.maximum(old - shown, 0)), (entries, places, np.maximum(shown - old, 0))
        elif self._spec.function == "row_number":
            out = (
                _without(entries, old_places, old, places, shown),
                _without(entries, places, shown, old_places, old),
            )
        else:
            moved = places != old_places
            out = (
                (entries, old_places, np.where(moved, old, np.maximum(old - shown, 0))),
                (entries, places, np.where(moved, shown, np.maximum(shown - old, 0))),
            )
        parts = [self._expanded(*part) for part in out]
        retracted, inserted = parts
        if not retracted.num_rows or self._spec.upsert:
            return [Batch(inserted)] if inserted.num_rows else []
        weights = np.ones(retracted.num_rows + inserted.num_rows, np.int64)
        weights[: retracted.num_rows] = -1
        return [Batch(pa.concat_batches(parts), weights)]

    def _expanded(self, entries: Entries, first: Int64Array, lengths: Int64Array) -> pa.RecordBatch:
        """Each entry `lengths` times, with its places from `first` on where these are sent."""
        some = np.flatnonzero(lengths)
        entries, lengths = entries[some], lengths[some]
        once = bool((lengths == 1).all())
        rows = entries if once else np.repeat(entries, lengths)
        columns = self._rows.columns(self._numbers.values[rows])
        if self._spec.rank_name is not None:
            places = first[some]
            if not once:
                places = np.repeat(places, lengths)
                if self._spec.function == "row_number":
                    starts = np.cumsum(lengths) - lengths
                    places = places + np.arange(len(places)) - np.repeat(starts, lengths)
            columns.append(pa.array(places, pa.int64()))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _remove(self, entries: Entries) -> None:
        if not len(entries):
            return
        self._rows.remove(self._numbers.values[entries])
        if self._same is not None:
            same = self._same_of.values[entries]
            # The key of a row that was replaced is the new row's.
            gone = same[self._entry_of.values[same] == entries]
            self._entry_of.reset(gone)
            self._same.remove(gone)
            self._entry_of.fit(self._same.high)
        self._lists.remove(entries)
        for column in (self._numbers, self._counts, self._places, self._shown, self._same_of):
            column.fit(self._lists.high)


@dataclass(frozen=True, slots=True)
class _Near:
    """Entries in front, each of touched partition `at`; of the live ones (`rows`, in order) the place and the codes."""

    entries: Entries
    at: Entries
    rows: Int64Array
    first: Int64Array
    codes: list[Int64Array]


_Piece = tuple[Entries, Int64Array, Int64Array]
"""Entries, and of each a first place and a number of places from there on."""


def _without(
    entries: Entries, first: Int64Array, length: Int64Array, other: Int64Array, other_length: Int64Array
) -> _Piece:
    """The places from `first` on, `length` of them, that are not among those from `other` on."""
    other = np.where(other_length == 0, first, other)
    end = first + length
    before = np.maximum(np.minimum(end, other) - first, 0)
    start = np.maximum(first, other + other_length)
    behind = np.maximum(end - start, 0)
    return (
        np.concatenate([entries, entries]),
        np.concatenate([first, start]),
        np.concatenate([before, behind]),
    )
