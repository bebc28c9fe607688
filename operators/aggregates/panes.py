"""Overlapping windows put together from panes when they close. Knows only emission on close."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.aggregates import window_kernels
from millrace.operators.aggregates.calls import Hop, Tumble
from millrace.operators.aggregates.columns import int64_of
from millrace.operators.aggregates.families import COUNT_ROWS, build_set
from millrace.operators.aggregates.group_words import Slots
from millrace.operators.aggregates.keyed import KeyedGroups, Layout, assembled
from millrace.operators.aggregates.placement import Placement
from millrace.operators.aggregates.progress import SlotTimes, capture_clock, restored_floors
from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Batch, Int64Array
from millrace.operators.operator import VNODE, Capture, Context, OperatorMetrics
from millrace.state.hashing import hash_columns, vnodes_of
from millrace.state.key_index import KeyIndex

if TYPE_CHECKING:
    from millrace.operators.aggregates.specs import WindowAggregate

Number = TypeVar("Number", np.int32, np.int64)

_LOOP_MAX = 8
"""Up to so many windows that close at once are put together one by one."""


@dataclass(frozen=True, slots=True)
class Panes:
    """Live panes by time: pane i starts at `starts[i]` and has `slots[bounds[i]:bounds[i + 1]]`."""

    starts: Int64Array
    bounds: Int64Array
    slots: Slots


class PaneWindows:
    """State by (pane code, keys); code = pane index * `stride` + how many of the pane's windows the rows missed.

    Rows that are late for some of their windows only have a code of their own, and are left out of those.
    `keys` numbers the distinct keys over all panes, so that panes merge without hashing.
    """

    def __init__(self, spec: WindowAggregate, context: Context) -> None:
        assert not isinstance(spec.window, Tumble)
        self._spec = spec
        self._window = spec.window
        self._context = context
        self._placement = Placement(spec.input, spec.time, spec.window, spec.time_unit)
        self._schema = spec.output_schema
        self._stride = -(-spec.window.size // spec.window.slide) + 1
        key_types = tuple(spec.input.field(key).type for key in spec.keys)
        layout = Layout(
            input=spec.input,
            key_types=(pa.int64(), *key_types),
            vnode_from=1,
            calls=spec.calls,
            output=lambda keys: keys[1:],
            schema=self._schema,
            retracting=spec.retracting_input,
        )
        self._panes = KeyedGroups(layout, spec.emission, context)
        calls = (*spec.calls, COUNT_ROWS) if spec.retracting_input else spec.calls
        self._merged = build_set(calls, spec.input, retracting=spec.retracting_input)
        self._starts = SlotTimes()
        self._floors: Int64Array = np.zeros(0, np.int64)
        self._some_missed = False
        self._numbers: npt.NDArray[np.int32] = np.zeros(0, np.int32)
        self._keys = KeyIndex(key_types)
        self._uses: Int64Array = np.zeros(0, np.int64)
        self._scratch: npt.NDArray[np.int32] = np.zeros(0, np.int32)

    @property
    def metrics(self) -> OperatorMetrics:
        return self._panes.metrics

    def take(self, batch: Batch, now: int, watermark: int) -> tuple[Int64Array | None, list[Batch]]:
        """Take rows in; late rows by position."""
        codes = self._placement.panes(batch, now, self._stride, 0)
        late = None
        marks = None if self._spec.time is None else batch.row_watermarks
        mark = watermark if marks is None else max(watermark, int(marks.max(initial=watermark)))
        if mark >= self._first_end(int(codes.min()) // self._stride):
            missed = self._missed(codes, marks, watermark)
            late = np.flatnonzero(missed < 0)
            codes = codes + missed
            if len(late):
                kept = np.flatnonzero(missed >= 0)
                codes, batch = codes[kept], batch.take(kept)
        if batch.num_rows:
            keys = [pa.array(codes), *(batch.data.column(key) for key in self._spec.keys)]
            slots, created = self._panes.locate(keys, batch.num_rows)
            if len(created):
                self._note(created)
            self._panes.add(slots, batch)
        return late, []

    def _first_end(self, index: int) -> int:
        """The end of the first window that has pane `index`."""
        window = self._window
        start = index * window.pane + window.offset
        if isinstance(window, Hop):
            return window.starts_of_pane(start)[0] + window.size
        return start + window.step

    def _missed(self, codes: Int64Array, marks: Int64Array | None, watermark: int) -> Int64Array:
        """How many windows of each row are over; -1 where all are."""
        window = self._window
        starts = codes // self._stride * window.pane + window.offset
        mark = np.full(len(codes), watermark) if marks is None else np.maximum(marks, watermark)
        first, last = self._window_ends(starts)
        missed = np.where(mark >= first, (np.maximum(mark, first) - first) // window.slide + 1, 0)
        return np.where(mark >= last, -1, missed)

    def _window_ends(self, starts: Int64Array) -> tuple[Int64Array, Int64Array]:
        """The ends of the first and of the last window of panes."""
        window = self._window
        if isinstance(window, Hop):
            last = starts - (starts - window.offset) % window.slide
            before = (last + window.size - starts - window.pane) // window.slide
            return last - before * window.slide + window.size, last + window.size
        final = starts - (starts - window.offset) % window.size + window.size
        return starts + window.step, final

    def _note(self, created: Slots, floors: Int64Array | None = None) -> None:
        """Set what is kept by slot for new slots: pane start, first window that counts, number of the key."""
        keys = self._panes.index.keys(created)
        codes = int64_of(keys[0])
        starts = codes // self._stride * self._window.pane + self._window.offset
        capacity = self._panes.set.capacity
        self._starts.note(created, starts, capacity)
        if len(self._floors) < capacity:
            self._floors = _longer(self._floors, capacity, START_OF_TIME)
            self._numbers = _longer(self._numbers, capacity, 0)
        missed = codes % self._stride
        own = np.where(missed > 0, self._window_ends(starts)[0] + missed * self._window.slide, START_OF_TIME)
        self._floors[created] = own if floors is None else np.maximum(own, floors)
        self._some_missed = self._some_missed or floors is not None or bool(missed.any())
        numbers = self._keys.upsert(keys[1:], len(created)).slots
        if self._keys.high > len(self._uses):
            room = max(1024, 2 * self._keys.high)
            self._uses = _longer(self._uses, room, 0)
            self._scratch = np.full(room, -1, np.int32)
        self._numbers[created] = numbers
        window_kernels.use_keys(numbers, self._uses)

    def advance(self, previous: int, watermark: int) -> list[Batch]:
        """The watermark rose: send the windows that close, forget panes that no open window has."""
        if self._starts.first == END_OF_TIME or watermark < self._first_end(
            (self._starts.first - self._window.offset) // self._window.pane
        ):
            return []
        slots = self._starts.in_order(self._window.pane)
        starts = self._starts.times[slots]
        firsts = np.flatnonzero(np.diff(starts, prepend=START_OF_TIME))
        panes = Panes(starts[firsts], np.append(firsts, len(slots)), slots)
        out = self._close(panes, previous, watermark)
        over = int(np.searchsorted(self._window_ends(panes.starts)[1], watermark, side="right"))
        if over:
            self._forget(slots[: panes.bounds[over]])
        return out

    def _close(self, panes: Panes, previous: int, watermark: int) -> list[Batch]:
        """Put together and send the windows that end after `previous` and up to `watermark`."""
        closing = np.unique(self._memberships(panes.starts, previous)[1])
        closing = closing[: np.searchsorted(closing, watermark, side="right")]
        if len(closing) > _LOOP_MAX:
            return self._close_many(panes, previous, watermark)
        out: list[Batch] = []
        starts = self._placement.starts_of(closing)
        lows, highs = np.searchsorted(panes.starts, starts), np.searchsorted(panes.starts, closing)
        for end, low, high in zip(closing, panes.bounds[lows], panes.bounds[highs], strict=True):
            part = panes.slots[low:high]
            if self._some_missed:
                part = part[self._floors[part] <= end]
            if not len(part):
                continue
            groups, first = np.empty(len(part), np.int32), np.empty(len(part), np.int64)
            count = window_kernels.number_keys(self._numbers[part], self._scratch, groups, first)
            out += self._send(part, groups, first[:count], np.full(len(part), end))
        return out

    def _close_many(self, panes: Panes, previous: int, watermark: int) -> list[Batch]:
        """All windows in one pass, by an index over (end, number of the key)."""
        rows, ends = self._memberships(self._starts.times[panes.slots], previous)
        due = (ends <= watermark) & (ends >= self._floors[panes.slots[rows]])
        picked, ends = panes.slots[rows[due]], ends[due]
        if not len(picked):
            return []
        order = np.argsort(ends, kind="stable")
        picked, ends = picked[order], ends[order]
        index = KeyIndex((pa.int64(), pa.int32()))
        found = index.upsert([pa.array(ends), pa.array(self._numbers[picked])])
        first = np.empty(len(found.created), np.int64)
        first[found.slots[::-1]] = np.arange(len(picked))[::-1]
        return self._send(picked, found.slots, first, ends)

    def _memberships(self, starts: Int64Array, previous: int) -> tuple[Int64Array, Int64Array]:
        """Positions in `starts` and the end of each window of theirs that ends after `previous`."""
        window = self._window
        room = len(starts) * self._stride
        rows, ends = np.empty(room, np.int64), np.empty(room, np.int64)
        if isinstance(window, Hop):
            count = window_kernels.expand_hop(
                starts, None, previous, window.size, window.slide, window.pane, window.offset, rows, ends
            )
        else:
            count = window_kernels.expand_cumulate(
                starts, None, previous, window.size, window.step, window.offset, rows, ends
            )
        return rows[:count], ends[:count]

    def _send(self, slots: Slots, groups: Slots, first: Int64Array, ends: Int64Array) -> list[Batch]:
        """Merge panes `slots` into `groups`; row `first[g]` shows the key and the end of group g."""
        merged = self._merged
        merged.grow(len(first))
        merged.merge(groups, self._panes.set, slots)
        wanted = np.arange(len(first), dtype=np.int32)
        if self._spec.retracting_input:
            counter = merged.parts[merged.places[-1]].accumulator
            wanted = wanted[counter.words[wanted, 0] > 0]  # type: ignore[attr-defined]
        outcomes = merged.results(wanted)[: len(self._spec.calls)]
        merged.reset(np.arange(len(first), dtype=np.int32))
        keys = self._keys.keys(self._numbers[slots[first[wanted]]])
        bounds = self._placement.bounds(ends[first[wanted]], self._spec.bound_type)
        shown = [bound for bound, asked in zip(bounds, self._spec.bounds, strict=True) if asked]
        rows = assembled([*keys, *shown, *(outcome.values for outcome in outcomes)], self._schema)
        wrong = [outcome.wrong for outcome in outcomes if outcome.wrong is not None]
        return self._panes.checked(rows, np.logical_or.reduce(wrong) if wrong else None)

    def _forget(self, slots: Slots) -> None:
        numbers = self._numbers[slots]
        unused = np.empty(len(numbers), np.int32)
        count = window_kernels.release_keys(numbers, self._uses, unused)
        self._keys.remove(unused[:count])
        self._panes.remove(slots)
        self._starts.forget(slots, self._panes.index.high)
        room = len(self._starts.times)
        if len(self._floors) > room:
            self._floors, self._numbers = self._floors[:room].copy(), self._numbers[:room].copy()
        if len(self._uses) > 1024 and len(self._uses) > 4 * self._keys.high:
            room = max(1024, 2 * self._keys.high)
            self._uses, self._scratch = self._uses[:room].copy(), self._scratch[:room].copy()

    def on_time(self, now: int) -> list[Batch]:
        """Nothing hangs on processing time but the windows themselves."""
        return []

    def capture(self, watermark: int, *, changes: bool) -> Capture:
        captured = self._panes.capture(changes=changes)
        slots = self._panes.index.live()
        hashes = hash_columns(self._panes.index.keys(slots)[1:], len(slots))
        live = np.unique(vnodes_of(hashes, self._context.vnodes)).astype(np.int64)
        captured["clock"] = capture_clock(watermark, self._context.vnodes, live)
        return captured

    def restore(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        slots = self._panes.restore(tables)
        if len(slots):
            floors = restored_floors(tables.get("clock"), self._context.vnodes)
            watermarks = floors[np.asarray(tables["groups"].column(VNODE))]
            self._note(slots, np.where(watermarks == START_OF_TIME, START_OF_TIME, watermarks + 1))


def _longer(array: npt.NDArray[Number], length: int, fill: int) -> npt.NDArray[Number]:
    longer = np.full(length, fill, array.dtype)
    longer[: len(array)] = array
    return longer
