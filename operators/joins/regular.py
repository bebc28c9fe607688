"""The operator of regular joins: a symmetric hash join over changelogs, a batch at a time. Knows no window."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.batch import Batch, Int64Array
from millrace.operators.joins.capture import capture_side, restore_side
from millrace.operators.joins.pairs import Emitted, PairFilter, Shape
from millrace.operators.joins.regular_spec import JoinKind, RegularJoin
from millrace.operators.joins.sides import CountedRows, Delta, KnownRows, ListedRows, PresentKeys, Side
from millrace.operators.operator import Capture, Context, Operator, OperatorMetrics
from millrace.operators.sink import Changelog
from millrace.state.columns import SlotColumn
from millrace.state.key_index import KeyIndex
from millrace.state.words import Int32s, Slots

PAIRS_MAX = 65_536
"""Pairs that are put together at a time."""
SWEEPS = 8
"""How often within its time to live it is looked which keys are idle."""

Mask = npt.NDArray[np.bool_]


class RegularJoinOperator(Operator):
    """Runs a `RegularJoin`.

    One key index serves both sides: a slot is live while either side has a row of it. What has a match is told,
    without a further condition, by whether the other side has rows in the slot; with one, each row of a side
    that must know it counts its matches.
    """

    inputs = 2

    def __init__(self, spec: RegularJoin, context: Context) -> None:
        self._kind = spec.kind
        self._context = context
        self._keys = (spec.left_keys, spec.right_keys)
        self._strict = [not null for null in spec.null_equal]
        self._shape = Shape.of(spec)
        self._filter = PairFilter.of(spec, self._shape, context)
        self._index = KeyIndex([spec.left.field(k).type for k in spec.left_keys])
        self._null_slots: SlotColumn | None = None
        """Which slots have a NULL in their key that matches nothing, once there is one."""
        self._ttl = spec.ttl
        self._touched = None if spec.ttl is None else SlotColumn(np.int64)
        self._swept = 0
        self._sides = (self._side(spec, 0), self._side(spec, 1))
        self._vnodes = context.vnodes
        self._marks: list[int | None] = [None, None]
        self.metrics = OperatorMetrics()
        self.metrics.extra = {"matches": 0, "retractions": 0, "expired": 0}

    def _side(self, spec: RegularJoin, port: int) -> Side:
        given = spec.right_input if port else spec.left_input
        schema = self._shape.stored_schema(port)
        counting = self._filter is not None and self._kind.keeps(port)
        if given.changelog is Changelog.APPEND:
            if port and not spec.kind.pairs and self._filter is None:
                return PresentKeys(schema, with_matches=False)
            return ListedRows(schema, with_matches=counting)
        lenient = self._ttl is not None
        if given.key is None:
            return CountedRows(schema, with_matches=counting, lenient=lenient)
        identity: list[int] | None = [self._shape.place(port, k) for k in given.key]
        if set(given.key) == set(self._keys[port]) and given.key:
            identity = None
        upsert = given.changelog is Changelog.UPSERT
        return KnownRows(schema, identity, upsert=upsert, with_matches=counting, lenient=lenient)

    @property
    def state_rows(self) -> int:
        """Rows kept of both sides."""
        return len(self._sides[0]) + len(self._sides[1])

    @property
    def state_bytes(self) -> int:
        """Bytes kept."""
        return self._index.nbytes + self._sides[0].nbytes + self._sides[1].nbytes

    def process(self, port: int, batch: Batch) -> Iterable[Batch]:
        self.metrics.rows_in += batch.num_rows
        own, other = self._sides[port], self._sides[1 - port]
        out = Emitted(self._shape)
        delta: Delta | None = None
        many = False
        batch, nulls = self._without_nulls(port, batch)
        if nulls is not None:
            self._lonely(port, nulls, out)
        if batch.num_rows:
            columns = [batch.data.column(k) for k in self._keys[port]]
            found = self._index.upsert(columns, batch.num_rows)
            self._note_nulls(port, columns, found.slots, found.created)
            if self._touched is not None:
                self._touched.grow(self._index.high)
                self._touched.values[found.slots] = self._context.now()
            delta = own.absorb(self._shape.stored(port, batch.data), found.slots, batch.weights)
            slots = self._matching(delta.slots)
            # With a condition, what is sent of rows without a match waits for all pairs.
            waits = not self._kind.pairs or (self._filter is not None and self._kind is not JoinKind.INNER)
            many = not waits and self._has_many(slots, other)
            if len(slots):
                self._join(port, delta, slots, own, other, out, pairs=not many)
            if delta.weights is not None:
                self._release(delta.slots)
            if many:
                return self._by_and_by(port, delta, slots, other, out)
        return self._counted(out.batches())

    def _counted(self, batches: list[Batch]) -> list[Batch]:
        for batch in batches:
            self.metrics.rows_out += batch.num_rows
            if batch.weights is not None:
                self.metrics.extra["retractions"] += int(np.count_nonzero(batch.weights < 0))
        return batches

    # NULL keys

    def _nulls(self, columns: list[pa.Array]) -> Mask | None:
        """Which rows have a NULL that matches nothing; None: none."""
        mask: Mask | None = None
        for column, strict in zip(columns, self._strict, strict=True):
            if strict and column.null_count:
                null = np.asarray(column.is_null())
                mask = null if mask is None else mask | null
        return mask

    def _without_nulls(self, port: int, batch: Batch) -> tuple[Batch, Batch | None]:
        """The rows that may match, and apart those with a NULL key where nothing needs to be kept of them."""
        if isinstance(self._sides[port], KnownRows):
            return batch, None
        mask = self._nulls([batch.data.column(k) for k in self._keys[port]])
        if mask is None:
            return batch, None
        nulls = batch.take(np.flatnonzero(mask)) if self._kind.keeps(port) else None
        return batch.take(np.flatnonzero(~mask)), nulls

    def _lonely(self, port: int, batch: Batch, out: Emitted) -> None:
        """Rows that never match."""
        if self._kind is not JoinKind.SEMI:
            out.alone(port, self._shape.stored(port, batch.data).columns, batch.weights, 1)

    def _note_nulls(self, port: int, columns: list[pa.Array], slots: Slots, created: Slots) -> None:
        """Slots of NULL keys, of rows that must be kept to be told apart."""
        mask = self._nulls(columns) if isinstance(self._sides[port], KnownRows) else None
        if self._null_slots is None:
            if mask is None:
                return
            self._null_slots = SlotColumn(np.bool_)
        self._null_slots.grow(self._index.high)
        self._null_slots.values[created] = False
        if mask is not None:
            self._null_slots.values[slots[mask]] = True

    def _matching(self, slots: Slots) -> Slots:
        """The slots, -1 for those that match nothing."""
        if self._null_slots is None:
            return slots
        return np.where(self._null_slots.values[slots], np.int32(-1), slots)

    # Matches

    def _has_many(self, slots: Slots, other: Side) -> bool:
        """Whether there are more pairs than should be put together at once."""
        return int(other.links.sizes(slots).sum(dtype=np.int64)) > PAIRS_MAX

    def _by_and_by(self, port: int, delta: Delta, slots: Slots, other: Side, out: Emitted) -> Iterator[Batch]:
        """What is in `out`, and pairs as they are asked for; all that is taken back comes first."""
        taken_back, late = out.by_sign()
        yield from self._counted(taken_back)
        for rows, entries in self._pairs(slots, delta.weights, other):
            part = Emitted(self._shape)
            if self._filter is not None:
                kept = self._filter.matching(port, delta.data, rows, other, entries)
                rows, entries = rows[kept], entries[kept]
            if len(rows):
                self._emit(port, delta, rows, entries, other, part)
                yield from self._counted(part.batches())
            if late and len(rows) and (delta.weights is None or delta.weights[rows[-1]] > 0):
                yield from self._counted(late)
                late = []
        yield from self._counted(late)

    def _join(
        self, port: int, delta: Delta, slots: Slots, own: Side, other: Side, out: Emitted, *, pairs: bool
    ) -> None:
        if self._filter is not None:
            if pairs:
                self._join_by_condition(port, delta, slots, own, other, out)
            return
        if self._kind.keeps(port):
            has = other.links.sizes(slots) > 0
            self._tell(port, delta, has, out)
        if self._kind.keeps(1 - port):
            on, off = self._turned(delta, slots, own)
            self._tell_other(port, other, on, off, out)
        if self._kind.pairs and pairs:
            for rows, entries in self._pairs(slots, delta.weights, other):
                self._emit(port, delta, rows, entries, other, out)

    def _join_by_condition(
        self, port: int, delta: Delta, slots: Slots, own: Side, other: Side, out: Emitted
    ) -> None:
        assert self._filter is not None
        counts = np.zeros(len(slots), np.int64) if self._kind.keeps(port) else None
        change: list[tuple[Int32s, Int64Array]] = []
        for rows, entries in self._pairs(slots, delta.weights, other):
            kept = self._filter.matching(port, delta.data, rows, other, entries)
            rows, entries = rows[kept], entries[kept]
            if not len(rows):
                continue
            if counts is not None:
                times = other.counts(entries)
                np.add.at(counts, rows, 1 if times is None else times)
            if self._kind.keeps(1 - port):
                ones = np.ones(len(rows), np.int64)
                change.append((entries, ones if delta.weights is None else delta.weights[rows]))
            if self._kind.pairs:
                self._emit(port, delta, rows, entries, other, out)
        if counts is not None:
            assert own.matches is not None
            added = slice(None) if delta.weights is None else delta.weights > 0
            own.matches.values[delta.entries[added]] = counts[added]
            self._tell(port, delta, counts > 0, out)
        if change:
            self._count_matches(port, other, change, out)

    def _count_matches(
        self, port: int, other: Side, change: list[tuple[Int32s, Int64Array]], out: Emitted
    ) -> None:
        """Rows of the other side whose number of matches came from or went to nothing."""
        assert other.matches is not None
        touched, inverse = np.unique(np.concatenate([e for e, _ in change]), return_inverse=True)
        sums = np.zeros(len(touched), np.int64)
        np.add.at(sums, inverse, np.concatenate([w for _, w in change]))
        before = other.matches.values[touched]
        after = before + sums
        other.matches.values[touched] = after
        assert (after >= 0).all(), "more matches ended than there were"
        self._tell_entries(port, other, touched[(before == 0) & (after > 0)], 1, out)
        self._tell_entries(port, other, touched[(before > 0) & (after == 0)], -1, out)

    def _turned(self, delta: Delta, slots: Slots, own: Side) -> tuple[Slots, Slots]:
        """Slots that got their first row by `delta`, and those that lost their last."""
        if delta.links is None:
            known = slots[slots >= 0]
            touched, change = np.unique(known, return_counts=True)
        else:
            kept = slots >= 0
            touched, inverse = np.unique(slots[kept], return_inverse=True)
            change = np.zeros(len(touched), np.int64)
            np.add.at(change, inverse, delta.links[kept])
        after = own.links.sizes(touched)
        before = after - change
        return touched[(before == 0) & (after > 0)], touched[(before > 0) & (after == 0)]

    def _tell(self, port: int, delta: Delta, has: Mask, out: Emitted) -> None:
        """What comes out of changed rows because they have, or do not have, a match."""
        shown = has if self._kind is JoinKind.SEMI else ~has
        if shown.all():
            out.alone(port, delta.data.columns, delta.weights, 1)
        elif shown.any():
            part = delta.part(np.flatnonzero(shown))
            out.alone(port, part.data.columns, part.weights, 1)

    def _tell_other(self, port: int, other: Side, on: Slots, off: Slots, out: Emitted) -> None:
        for slots, turn in ((on, 1), (off, -1)):
            if len(slots):
                for _, entries in self._pairs(slots, None, other):
                    self._tell_entries(port, other, entries, turn, out)

    def _tell_entries(self, port: int, other: Side, entries: Int32s, turn: int, out: Emitted) -> None:
        """Rows of the other side that got a match (`turn` 1) or lost their last (-1)."""
        if not len(entries):
            return
        sign = turn if self._kind is JoinKind.SEMI else -turn
        columns = other.gather(entries, range(len(other.schema)))
        out.alone(1 - port, columns, other.counts(entries), sign)

    def _pairs(
        self, slots: Slots, weights: Int64Array | None, other: Side
    ) -> Iterator[tuple[Int32s, Int32s]]:
        """(row, entry of the other side), at most `PAIRS_MAX` at a time; pairs that are taken back come first."""
        if weights is not None and (weights < 0).any() and (weights > 0).any():
            order = np.argsort(weights > 0, kind="stable").astype(np.int32)
            for rows, entries in self._pairs(slots[order], None, other):
                yield order[rows], entries
            return
        sizes = other.links.sizes(slots)
        ends = np.cumsum(sizes, dtype=np.int64)
        total = int(ends[-1]) if len(ends) else 0
        start = 0
        while start < len(slots) and total:
            done = int(ends[start - 1]) if start else 0
            end = len(slots)
            if total - done > PAIRS_MAX:
                end = max(start + 1, int(np.searchsorted(ends, done + PAIRS_MAX, "right")))
            rows, entries = other.links.probe(slots[start:end])
            for first in range(0, len(rows), PAIRS_MAX):
                yield rows[first : first + PAIRS_MAX] + np.int32(start), entries[first : first + PAIRS_MAX]
            start = end

    def _emit(
        self, port: int, delta: Delta, rows: Int32s, entries: Int32s, other: Side, out: Emitted
    ) -> None:
        weights = None if delta.weights is None else delta.weights[rows]
        times = other.counts(entries)
        if times is not None:
            weights = times if weights is None else weights * times
        self.metrics.extra["matches"] += len(rows)
        out.pairs(port, delta.data, rows, other, entries, weights)

    # State

    def _release(self, slots: Slots) -> None:
        """Forget keys of which neither side has a row any more."""
        touched = np.unique(slots)
        empty = (self._sides[0].links.sizes(touched) == 0) & (self._sides[1].links.sizes(touched) == 0)
        if empty.any():
            self._index.remove(touched[empty])

    def on_time(self, now: int) -> list[Batch]:
        if self._ttl is not None and now - self._swept >= self._ttl // SWEEPS:
            self._swept = now
            self._expire(now - self._ttl)
        return []

    def _expire(self, before: int) -> None:
        """Forget keys that no row touched since `before`: on both sides at once, so that nothing is left half."""
        assert self._touched is not None
        live = self._index.live()
        idle = live[self._touched.values[live] < before]
        for side in self._sides:
            _, entries = side.links.probe(idle)
            if len(entries):
                self.metrics.extra["expired"] += len(entries)
                side.drop(entries)
        self._index.remove(idle)
        self._touched.fit(self._index.high)

    def capture(self, *, changes: bool) -> Capture:
        captured: Capture = {}
        for port, side in enumerate(self._sides):
            mark = self._marks[port] if changes else None
            captured["right" if port else "left"] = capture_side(
                side, self._index, mark, self._touched, self._vnodes
            )
            self._marks[port] = side.next_number
        return captured

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        for port, name in enumerate(("left", "right")):
            if name in tables:
                restore_side(self._sides[port], self._index, tables[name], self._touched)
                self._mark_nulls(port)
        if self._filter is not None:
            for port in (0, 1):
                if self._kind.keeps(port):
                    self._recount(port)

    def _mark_nulls(self, port: int) -> None:
        if isinstance(self._sides[port], KnownRows) and len(self._index):
            live = self._index.live()
            self._note_nulls(port, self._index.keys(live), live, live)

    def _recount(self, port: int) -> None:
        """Count the matches of every row of a side anew."""
        side, other = self._sides[port], self._sides[1 - port]
        assert side.matches is not None and self._filter is not None
        live = side.links.live()
        for start in range(0, len(live), PAIRS_MAX):
            entries = live[start : start + PAIRS_MAX]
            columns = side.gather(entries, range(len(side.schema)))
            data = self._shape.batch(port, columns)
            counts = np.zeros(len(entries), np.int64)
            for rows, found in self._pairs(self._matching(side.links.owners(entries)), None, other):
                kept = self._filter.matching(port, data, rows, other, found)
                times = other.counts(found[kept])
                np.add.at(counts, rows[kept], 1 if times is None else times)
            side.matches.values[entries] = counts
