"""Groups with their accumulators, and what is said of them when: the core of every keyed aggregate. Knows no time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt

from millrace.operators.aggregates.accumulators import distinct
from millrace.operators.aggregates.calls import AggregateCall, Emission, EmissionKind
from millrace.operators.aggregates.columns import Bools
from millrace.operators.aggregates.families import COUNT_ROWS, build_set
from millrace.operators.aggregates.group_words import Slots
from millrace.operators.aggregates.told import Told, joined, same
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
        self._types = [call.type for call in layout.calls]
        self._all_present = not layout.retracting or layout.always
        self._always_differ = not layout.retracting and any(
            call.function == "count" and not call.arguments and call.filter is None for call in layout.calls
        )
        # Not of floats: -0.0 and 0.0 are one key, and it must be told in one form.
        self._keys_from_rows = not any(
            pt.is_floating(kind) or pt.is_nested(kind) for kind in layout.key_types
        )
        self._context = context
        self._sequence = 0
        self._captured = False
        self._changed: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._deleted: list[list[pa.Array]] = []
        self._pending: list[tuple[Slots, Told]] = []
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
                touched, rows, marks = distinct(slots, self.marks, int(SHOWN) if self._all_present else 0)
                found = None
                if self._keys_from_rows:
                    found = list(keys)
                    if len(rows) < len(slots):
                        picked = pa.array(rows)
                        found = [key.take(picked) for key in keys]
                return self.add_and_tell(slots, batch, touched, found, marks & SHOWN != 0)
            case EmissionKind.EVERY_RECORD:
                return self._each(keys, slots, batch)
            case EmissionKind.INTERVAL:
                self._note(self.set.distinct(slots))
        self.add(slots, batch)
        if self.layout.retracting and self.emission.kind in (EmissionKind.FINAL, EmissionKind.ON_CLOSE):
            self._drop_empty(self.set.distinct(slots))
        return []

    def add_and_tell(
        self,
        slots: Slots,
        batch: Batch,
        touched: Slots,
        keys: list[pa.Array] | None = None,
        shown: Bools | None = None,
    ) -> list[Batch]:
        """Take rows in; the change of the `touched` groups.

        Their keys may be known, and which were `shown`; then groups that are sure to be present are marked so.
        """
        known = self._show_present(touched) if shown is None else shown
        old = None if self.emission.upsert else self.told(touched[known])
        self.add(slots, batch)
        out = self._change(touched, known, old, keys)
        self._drop_empty(touched)
        return out

    def _each(self, keys: Sequence[pa.Array], slots: Slots, batch: Batch) -> list[Batch]:
        if self._captured:
            self._changed[slots] = 1
        outcomes = self.set.running(slots, batch.data, batch.weights, self._sequence)
        self._sequence += batch.num_rows
        told = Told.of(batch.num_rows, outcomes[: len(self.layout.calls)])
        rows = assembled(self.layout.output(list(keys)) + told.values, self.layout.schema)
        out = self.checked(rows, told.wrong)
        self._drop_empty(self.set.distinct(slots))
        return out

    def _note(self, touched: Slots) -> None:
        """Remember what was last said of groups that are about to change for the first time in an interval."""
        fresh = touched[self.marks[touched] & DIRTY == 0]
        if not len(fresh):
            return
        shown = fresh[self.marks[fresh] & SHOWN != 0]
        if len(shown) and not self.emission.upsert:
            self._pending.append((shown, self.told(shown)))
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
        old = None if self.emission.upsert else joined([told for _, told in pending], self._types)
        out = self._change(touched, self._show_present(touched), old, None)
        self._drop_empty(touched)
        return out

    def _change(
        self, touched: Slots, shown: Bools, old: Told | None, keys: list[pa.Array] | None
    ) -> list[Batch]:
        """What to send now that `touched` changed, of which those `shown` had been told `old` (None: upsert)."""
        present = self._present(touched)
        new = self.told(touched if present is None else touched[present])
        if present is not None:
            self.marks[touched] = (self.marks[touched] & ~SHOWN) | present * SHOWN
        if old is None and present is None:
            return self._upserts(touched, new, keys)
        before = np.flatnonzero(shown)
        after = np.arange(len(touched)) if present is None else np.flatnonzero(present)
        keep_new = None if new.wrong is None else ~new.wrong
        if old is None:
            assert present is not None
            before = np.flatnonzero(shown & ~present)
            old = self.told(touched[before])
        else:
            keep_old, keep_new = self._differences(old, shown, new, present, keep_new)
            old = old.filter(keep_old)
            before = before if keep_old is None else before[keep_old]
        self._refuse(touched[after], new)
        new = new.filter(keep_new)
        after = after if keep_new is None else after[keep_new]
        told = joined([old, new], self._types)
        return self._sent(self._both(touched, before, after, told, keys), len(before))

    def _upserts(self, touched: Slots, told: Told, keys: list[pa.Array] | None) -> list[Batch]:
        """The rows that `touched` groups have now, all of them present."""
        if told.wrong is not None and told.wrong.any():
            self._refuse(touched, told)
            kept = ~told.wrong
            touched, told = touched[kept], told.filter(kept)
            keys = None if keys is None else [key.filter(pa.array(kept)) for key in keys]
        columns = self.index.keys(touched) if keys is None else keys
        return self._sent(assembled(self.layout.output(columns) + told.values, self.layout.schema), 0)

    def _differences(
        self, old: Told, shown: Bools, new: Told, present: Bools | None, keep_new: Bools | None
    ) -> tuple[Bools | None, Bools | None]:
        """Which old and which new rows to send: those of groups whose values are others now."""
        keep_old = None if old.wrong is None else ~old.wrong
        if self._always_differ:
            return keep_old, keep_new
        both = shown if present is None else shown & present
        if not both.any():
            return keep_old, keep_new
        among_new = both if present is None else both[present]
        equal = same(old.filter(both[shown]), new.filter(among_new))
        if not equal.any():
            return keep_old, keep_new
        unchanged = np.zeros(len(shown), np.bool_)
        unchanged[np.flatnonzero(both)[equal]] = True
        mine = ~unchanged[shown]
        theirs = ~(unchanged if present is None else unchanged[present])
        return (
            mine if keep_old is None else keep_old & mine,
            theirs if keep_new is None else keep_new & theirs,
        )

    def _both(
        self,
        touched: Slots,
        before: Int64Array,
        after: Int64Array,
        told: Told,
        keys: list[pa.Array] | None,
    ) -> pa.RecordBatch:
        """Rows of the groups at `before`, then `after`, in `touched` (with `keys`), with values `told`."""
        if len(before) == len(after) == len(touched):
            once = self.index.keys(touched) if keys is None else keys
            columns = [pa.concat_arrays([key, key]) for key in once]
        elif not len(before) and len(after) == len(touched):
            columns = self.index.keys(touched) if keys is None else keys
        else:
            rows = np.concatenate([before, after])
            if keys is None:
                columns = self.index.keys(touched[rows])
            else:
                picked = pa.array(rows)
                columns = [key.take(picked) for key in keys]
        return assembled(self.layout.output(columns) + told.values, self.layout.schema)

    def _plain_rows(self, slots: Slots, told: Told) -> pa.RecordBatch:
        return assembled(self.layout.output(self.index.keys(slots)) + told.values, self.layout.schema)

    def show(self, slots: Slots) -> list[Batch]:
        """Send the rows of these groups for the first time."""
        present = self._present(slots)
        if present is not None:
            slots = slots[present]
        if not len(slots):
            return []
        told = self.told(slots)
        rows = self._plain_rows(slots, told)
        self.marks[slots] |= SHOWN
        if self._captured:
            self._changed[slots] = 1
        return self.checked(rows, told.wrong)

    def checked(self, rows: pa.RecordBatch, wrong: Bools | None) -> list[Batch]:
        """New output rows to send; `wrong` ones become dead letters."""
        if wrong is not None and wrong.any():
            self._bury(rows.filter(pa.array(wrong)))
            rows = rows.filter(pa.array(~wrong))
        return self._sent(rows, 0)

    def told(self, slots: Slots) -> Told:
        """The values of these groups as they are now."""
        return Told.of(len(slots), self.set.results(slots)[: len(self.layout.calls)])

    def _refuse(self, slots: Slots, told: Told) -> None:
        """Groups without values become dead letters."""
        if told.wrong is not None and told.wrong.any():
            bad = slots[told.wrong]
            self._bury(self._plain_rows(bad, told.filter(told.wrong)))

    def _bury(self, rows: pa.RecordBatch) -> None:
        self.metrics.dead_rows += rows.num_rows
        reason = "an aggregate of this group is out of its type's range"
        self._context.dead_letter(Batch(rows), WRONG_RESULT, reason)

    def _sent(self, rows: pa.RecordBatch, removed: int) -> list[Batch]:
        """A batch of which the first `removed` rows take back."""
        self.metrics.rows_out += rows.num_rows
        if not rows.num_rows:
            return []
        if not removed:
            return [Batch(rows)]
        weights = np.ones(rows.num_rows, np.int64)
        weights[:removed] = -1
        return [Batch(rows, weights)]

    def _show_present(self, slots: Slots) -> Bools:
        """Which groups were shown; those that are sure to be present are marked so now."""
        marks = self.marks[slots]
        if self._all_present:
            self.marks[slots] = marks | SHOWN
        return marks & SHOWN != 0

    def _present(self, slots: Slots) -> Bools | None:
        """Which groups have rows; None where all do."""
        if self._all_present:
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
        told = joined([told for _, told in self._pending], self._types)
        columns |= {f"o{i}": column for i, column in enumerate(told.values)}
        columns["wrong"] = pa.array(np.zeros(told.rows, np.bool_) if told.wrong is None else told.wrong)
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
        dirty = np.sort(slots[self.marks[slots] & DIRTY != 0])
        self._dirty = [dirty] if len(dirty) else []
        sent = tables.get("sent")
        if sent is not None and sent.num_rows:
            known = self.index.lookup([sent.column(f"k{i}") for i in range(len(keys))], sent.num_rows)
            values = [sent.column(f"o{i}") for i in range(len(self._types))]
            told = Told(sent.num_rows, values, np.asarray(sent.column("wrong")))
            # `flush` matches what was told with the shown among the dirty groups in order.
            order = np.argsort(known)
            self._pending = [(known[order], told.take(order))]
        return slots


def assembled(columns: list[pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    """Columns under the names of `schema`, cast where an equal type is spelt otherwise."""
    fitted = [c if c.type == f.type else c.cast(f.type) for c, f in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(fitted, schema=schema)


def _grown(array: npt.NDArray[np.uint8], capacity: int) -> npt.NDArray[np.uint8]:
    grown = np.zeros(capacity, np.uint8)
    grown[: len(array)] = array
    return grown
