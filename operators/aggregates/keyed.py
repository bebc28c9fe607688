"""Groups with their accumulators, and what is said of them when: the core of every keyed aggregate. Knows no time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from millrace.operators.aggregates.accumulators import Outcome, Slots
from millrace.operators.aggregates.calls import AggregateCall, Emission, EmissionKind
from millrace.operators.aggregates.columns import Bools
from millrace.operators.aggregates.families import COUNT_ROWS, build_set
from millrace.operators.batch import Batch, Int64Array
from millrace.operators.operator import VNODE, Capture, Context, OperatorMetrics, StateDelta
from millrace.state.hashing import hash_columns, vnodes_of
from millrace.state.key_index import KeyIndex

SHOWN, DIRTY = np.uint8(1), np.uint8(2)
"""Marks of a group: its row was sent and not taken back; it changed since the last interval."""

WRONG_RESULT = "MR2020"
"""Code of rows whose aggregate has no value of its type."""

Shape = Callable[[list[pa.Array]], list[pa.Array]]


@dataclass(frozen=True, slots=True)
class Layout:
    """What rows a keyed aggregate takes and sends.

    `key_types` are those of the state's key, of which `output` makes the leading output columns; columns
    of the state's key from `vnode_from` on decide the vnode. With `always` the one group without a key
    is shown though it has no row.
    """

    input: pa.Schema
    key_types: tuple[pa.DataType, ...]
    vnode_from: int
    calls: tuple[AggregateCall, ...]
    output: Shape
    schema: pa.Schema
    retracting: bool
    always: bool = False


class KeyedGroups:
    """Owns the groups. Rows go in with `take`; what is to be sent comes out as the emission says."""

    def __init__(self, layout: Layout, emission: Emission, context: Context) -> None:
        self.layout = layout
        self.emission = emission
        self.metrics = OperatorMetrics()
        self.index = KeyIndex(layout.key_types)
        calls = (*layout.calls, COUNT_ROWS) if layout.retracting else layout.calls
        self.set = build_set(calls, layout.input, retracting=layout.retracting)
        self.marks: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._context = context
        self._sequence = 0
        self._captured = False
        self._changed: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._deleted: list[list[pa.Array]] = []
        self._pending: list[tuple[Slots, pa.RecordBatch]] = []
        self._dirty: list[Slots] = []

    def locate(self, keys: Sequence[pa.Array], rows: int) -> tuple[Slots, Slots]:
        """The slot of each row, and the slots that are new."""
        found = self.index.upsert(keys, rows)
        high = self.index.high
        if high > len(self.marks):
            self.set.grow(high)
            self.marks = _grown(self.marks, self.set.capacity)
            self._changed = _grown(self._changed, self.set.capacity)
        return found.slots, found.created

    def add(self, slots: Slots, batch: Batch) -> None:
        """Take rows in and say nothing."""
        if self._captured:
            self._changed[slots] = 1
        self.set.update(slots, batch.data, batch.weights, self._sequence)
        self._sequence += batch.num_rows

    def take(self, keys: Sequence[pa.Array], slots: Slots, batch: Batch) -> list[Batch]:
        """Take rows in, and say what the emission has to say at once."""
        match self.emission.kind:
            case EmissionKind.CHANGES:
                return self.add_and_tell(slots, batch, self.set.distinct(slots))
            case EmissionKind.EVERY_RECORD:
                return self._each(keys, slots, batch)
            case EmissionKind.INTERVAL:
                self._note(self.set.distinct(slots))
        self.add(slots, batch)
        if self.layout.retracting and self.emission.kind in (EmissionKind.FINAL, EmissionKind.ON_CLOSE):
            self._drop_empty(self.set.distinct(slots))
        return []

    def add_and_tell(self, slots: Slots, batch: Batch, touched: Slots) -> list[Batch]:
        """Take rows in; the change of the `touched` groups."""
        before = touched[self.marks[touched] & SHOWN != 0]
        old = None if self.emission.upsert else self.rows(before)
        self.add(slots, batch)
        out = self._change(before, old, touched)
        self._drop_empty(touched)
        return out

    def _each(self, keys: Sequence[pa.Array], slots: Slots, batch: Batch) -> list[Batch]:
        if self._captured:
            self._changed[slots] = 1
        outcomes = self.set.running(slots, batch.data, batch.weights, self._sequence)
        self._sequence += batch.num_rows
        out = self._sent(self._table(list(keys), outcomes), None)
        self._drop_empty(self.set.distinct(slots))
        return out

    def _note(self, touched: Slots) -> None:
        """Remember what was last said of groups that are about to change for the first time in an interval."""
        fresh = touched[self.marks[touched] & DIRTY == 0]
        if not len(fresh):
            return
        shown = fresh[self.marks[fresh] & SHOWN != 0]
        if len(shown) and not self.emission.upsert:
            self._pending.append((shown, self.rows(shown)[0]))
        self.marks[fresh] |= DIRTY
        self._dirty.append(fresh)

    def flush(self) -> list[Batch]:
        """Send the groups that changed since the last flush."""
        if not self._dirty:
            return []
        touched = np.concatenate(self._dirty)
        pending, self._pending, self._dirty = self._pending, [], []
        self.marks[touched] &= ~DIRTY
        if self._captured:
            self._changed[touched] = 1
        if self.emission.upsert:
            before = touched[self.marks[touched] & SHOWN != 0]
            out = self._change(before, None, touched)
        else:
            before = np.concatenate([slots for slots, _ in pending]) if pending else touched[:0]
            old = (
                pa.concat_batches([rows for _, rows in pending]) if pending else _no_rows(self.layout.schema)
            )
            out = self._change(before, (old, None), touched)
        self._drop_empty(touched)
        return out

    def _change(
        self, before: Slots, old: tuple[pa.RecordBatch, Bools | None] | None, touched: Slots
    ) -> list[Batch]:
        """What to send when rows `old` of groups `before` (None: upsert) were sent, and `touched` changed."""
        present = self._present(touched)
        after = touched if present is None else touched[present]
        new, new_wrong = self.rows(after)
        self.marks[touched] &= ~SHOWN
        self.marks[after] |= SHOWN
        if old is None:
            gone = before[self.marks[before] & SHOWN == 0]
            old_rows, keep_new = (self.rows(gone)[0] if len(gone) else None), None
        else:
            old_rows, keep_old, keep_new = self._differences(before, old, after, new, new_wrong)
            old_rows = old_rows if keep_old is None else old_rows.filter(pa.array(keep_old))
        self._refuse(new, new_wrong)
        if new_wrong is not None:
            keep_new = ~new_wrong if keep_new is None else keep_new & ~new_wrong
        if keep_new is not None:
            new = new.filter(pa.array(keep_new))
        return self._sent(new, old_rows)

    def _differences(
        self,
        before: Slots,
        old: tuple[pa.RecordBatch, Bools | None],
        after: Slots,
        new: pa.RecordBatch,
        new_wrong: Bools | None,
    ) -> tuple[pa.RecordBatch, Bools | None, Bools | None]:
        """Old rows, and which rows of old and new to send: those of groups whose row is another now."""
        rows, wrong = old
        keep_old = None if wrong is None else ~wrong
        if not len(before) or not len(after):
            return rows, keep_old, None
        place = np.full(len(self.marks), -1, np.int32)
        place[after] = np.arange(len(after), dtype=np.int32)
        partner = place[before]
        paired = np.flatnonzero(partner >= 0)
        picked = new.take(pa.array(partner[paired]))
        olds = rows if len(paired) == len(before) else rows.take(pa.array(paired))
        same = _equal_rows(olds, picked, len(rows.schema) - len(self.layout.calls))
        for flags, positions in ((wrong, paired), (new_wrong, partner[paired])):
            if flags is not None:
                same &= ~flags[positions]
        if not same.any():
            return rows, keep_old, None
        keep_old = np.ones(len(before), np.bool_) if keep_old is None else keep_old
        keep_old[paired[same]] = False
        keep_new = np.ones(len(after), np.bool_)
        keep_new[partner[paired[same]]] = False
        return rows, keep_old, keep_new

    def show(self, slots: Slots) -> list[Batch]:
        """Send the rows of these groups for the first time."""
        present = self._present(slots)
        if present is not None:
            slots = slots[present]
        if not len(slots):
            return []
        rows, wrong = self.rows(slots)
        self.marks[slots] |= SHOWN
        if self._captured:
            self._changed[slots] = 1
        return self.checked(rows, wrong)

    def checked(self, rows: pa.RecordBatch, wrong: Bools | None) -> list[Batch]:
        """New output rows to send; `wrong` ones become dead letters."""
        self._refuse(rows, wrong)
        return self._sent(rows if wrong is None else rows.filter(pa.array(~wrong)), None)

    def rows(self, slots: Slots) -> tuple[pa.RecordBatch, Bools | None]:
        """The output rows of these groups as they are now, and which of them do not exist."""
        outcomes = self.set.results(slots)
        table = self._table(self.index.keys(slots), outcomes)
        wrong = None
        for outcome in outcomes[: len(self.layout.calls)]:
            if outcome.wrong is not None:
                wrong = outcome.wrong if wrong is None else wrong | outcome.wrong
        return table, wrong

    def _table(self, keys: list[pa.Array], outcomes: list[Outcome]) -> pa.RecordBatch:
        columns = self.layout.output(keys) + [o.values for o in outcomes[: len(self.layout.calls)]]
        return assembled(columns, self.layout.schema)

    def _refuse(self, rows: pa.RecordBatch, wrong: Bools | None) -> None:
        if wrong is None or not wrong.any():
            return
        bad = Batch(rows.filter(pa.array(wrong)))
        self.metrics.dead_rows += bad.num_rows
        self._context.dead_letter(bad, WRONG_RESULT, "an aggregate of this group is out of its type's range")

    def _sent(self, new: pa.RecordBatch, old: pa.RecordBatch | None) -> list[Batch]:
        removed = 0 if old is None else old.num_rows
        self.metrics.rows_out += new.num_rows + removed
        if old is None or not removed:
            return [Batch(new)] if new.num_rows else []
        weights = np.ones(removed + new.num_rows, np.int64)
        weights[:removed] = -1
        return [Batch(pa.concat_batches([old, new]) if new.num_rows else old, weights)]

    def _present(self, slots: Slots) -> Bools | None:
        """Which groups have rows; None where all do."""
        if not self.layout.retracting or self.layout.always:
            return None
        return self._row_counts(slots) > 0

    def _row_counts(self, slots: Slots) -> Int64Array:
        counter = self.set.parts[self.set.places[-1]].accumulator
        return counter.words[slots, 0]  # type: ignore[attr-defined]

    def _drop_empty(self, touched: Slots) -> None:
        if self.layout.retracting and not self.layout.always:
            empty = touched[self._row_counts(touched) == 0]
            if len(empty):
                self.remove(empty)

    def remove(self, slots: Slots) -> None:
        """Forget groups, and give memory back where most of it is free."""
        if self._captured:
            self._deleted.append(self.index.keys(slots))
            self._changed[slots] = 0
        self.set.reset(slots)
        self.marks[slots] = 0
        self.index.remove(slots)
        if self.set.shrink(self.index.high):
            self.marks = self.marks[: self.set.capacity].copy()
            self._changed = self._changed[: self.set.capacity].copy()

    def capture(self, *, changes: bool) -> Capture:
        """The groups as table `groups`; with INTERVAL also what was last said of changed ones, as `sent`."""
        complete = not (changes and self._captured)
        slots = self.index.live()
        if not complete:
            slots = slots[self._changed[slots] != 0]
        keys = self.index.keys(slots)
        columns = self._key_columns(keys, len(slots)) | self.set.capture(slots)
        columns["mark"] = pa.array(self.marks[slots])
        columns["sequence"] = pa.array(np.full(len(slots), self._sequence))
        names = tuple(f"k{i}" for i in range(len(keys)))
        deleted = None
        if not complete and self._deleted:
            gone = [pa.concat_arrays(list(parts)) for parts in zip(*self._deleted, strict=True)]
            back = self.index.lookup(gone) if gone else np.full(0, -1)
            still = [column.filter(pa.array(back < 0)) for column in gone]
            if still and len(still[0]):
                deleted = pa.RecordBatch.from_pydict(self._key_columns(still, len(still[0])))
        self._captured, self._deleted = True, []
        self._changed[:] = 0
        capture = {"groups": StateDelta(names, pa.RecordBatch.from_pydict(columns), deleted, complete)}
        if self.emission.kind is EmissionKind.INTERVAL:
            capture["sent"] = self._capture_sent(names)
        return capture

    def _capture_sent(self, names: tuple[str, ...]) -> StateDelta:
        slots = np.concatenate([s for s, _ in self._pending]) if self._pending else np.zeros(0, np.int32)
        columns = self._key_columns(self.index.keys(slots), len(slots))
        rows = (
            pa.concat_batches([r for _, r in self._pending])
            if self._pending
            else _no_rows(self.layout.schema)
        )
        columns |= {f"o{i}": column for i, column in enumerate(rows.columns)}
        return StateDelta(names, pa.RecordBatch.from_pydict(columns))

    def _key_columns(self, keys: list[pa.Array], rows: int) -> dict[str, pa.Array]:
        columns = {f"k{i}": key for i, key in enumerate(keys)}
        hashes = hash_columns(keys[self.layout.vnode_from :], rows)
        columns[VNODE] = pa.array(vnodes_of(hashes, self._context.vnodes))
        return columns

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> Slots:
        """Load captured tables into empty groups; the slots that now live."""
        groups = tables.get("groups")
        if groups is None or not groups.num_rows:
            return np.zeros(0, np.int32)
        keys = [groups.column(f"k{i}") for i in range(len(self.layout.key_types))]
        slots, _ = self.locate(keys, groups.num_rows)
        self.set.restore(slots, {name: groups.column(name) for name in groups.schema.names})
        self.marks[slots] = np.asarray(groups.column("mark"))
        self._sequence = int(np.asarray(groups.column("sequence")).max())
        dirty = slots[self.marks[slots] & DIRTY != 0]
        self._dirty = [dirty] if len(dirty) else []
        sent = tables.get("sent")
        if sent is not None and sent.num_rows:
            known = self.index.lookup([sent.column(f"k{i}") for i in range(len(keys))], sent.num_rows)
            rows = [sent.column(f"o{i}") for i in range(len(self.layout.schema))]
            self._pending = [(known, assembled(rows, self.layout.schema))]
        return slots


def assembled(columns: list[pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    """Columns under the names of `schema`, cast where an equal type is spelt otherwise."""
    fitted = [c if c.type == f.type else c.cast(f.type) for c, f in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(fitted, schema=schema)


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=schema)


def _grown(array: npt.NDArray[np.uint8], capacity: int) -> npt.NDArray[np.uint8]:
    grown = np.zeros(capacity, np.uint8)
    grown[: len(array)] = array
    return grown


def _equal_rows(left: pa.RecordBatch, right: pa.RecordBatch, first: int) -> Bools:
    """Row by row, whether all columns from `first` on are equal (NULL equals NULL; nested values never)."""
    same = np.ones(left.num_rows, np.bool_)
    for a, b in zip(left.columns[first:], right.columns[first:], strict=True):
        if pt.is_nested(a.type):
            return np.zeros(left.num_rows, np.bool_)
        equal = pc.equal(a, b)
        if equal.null_count:
            nulls = pc.and_(pc.is_null(a), pc.is_null(b))
            equal = pc.if_else(pc.is_null(equal), nulls, equal)
        same &= np.asarray(equal)
    return same
