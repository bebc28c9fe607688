"""The rows that a matcher remembers, by key, and the search over them. Knows no payload and no measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.operators.batch import Int64Array
from millrace.operators.match_recognize import kernels
from millrace.operators.match_recognize.automaton import build_automaton
from millrace.operators.match_recognize.condition_kernels import SLOT, Rows, Rules
from millrace.operators.match_recognize.programs import Programs
from millrace.operators.match_recognize.specs import MatchRecognize, SkipKind

Slots = npt.NDArray[np.int32]
Masks = npt.NDArray[np.uint64]

_CELLS_MIN = 1024
_ROOM_KEPT = 1 << 18
"""Output rows that room is kept for from search to search."""
_KEY = np.array([-1, -1, -1, -1, 0, 0, 0], np.int64)
"""The `keys` row of a key without rows."""
_SKIPS = {
    SkipKind.PAST_LAST_ROW: kernels.SKIP_PAST,
    SkipKind.TO_NEXT_ROW: kernels.SKIP_NEXT,
    SkipKind.TO_FIRST: kernels.SKIP_FIRST,
    SkipKind.TO_LAST: kernels.SKIP_LAST,
}


@dataclass(frozen=True, slots=True)
class Target:
    """A row that measures read: see `Navigation`. `final`: as seen from the match's last row."""

    variables: tuple[int, ...]
    first: bool
    offset: int
    shift: int
    final: bool


@dataclass(frozen=True, slots=True)
class Matches:
    """What a search found. Rows are numbers in the store, -1 for none; variables are places in the spec.

    slots, numbers: a match each. match, member, rows, variables, targets (one column a target): an output row each.
    member_*: the rows of the matches, one behind the other.
    """

    slots: Int64Array
    numbers: Int64Array
    match: Int64Array
    member: Int64Array
    rows: Int64Array
    variables: Int64Array
    targets: Int64Array
    member_rows: Int64Array
    member_variables: Int64Array
    member_match: Int64Array


class Cells:
    """Owns the cells of all keys and where the search of each key stands.

    Invariant: a row in the store is a cell here, but for those in `gone` (of keys `gone_slots`) after a search.
    """

    rows: Rows

    def __init__(
        self, spec: MatchRecognize, programs: Programs, targets: Sequence[Target], *, members: bool
    ) -> None:
        automaton = build_automaton(spec.pattern, spec.variables)
        ways, begins = automaton.flat()
        tested = len(programs.sets)
        skip = -1 if not spec.skip.variables else programs.set_of(spec.skip.variables)
        held = [(programs.set_of(t.variables), t.first, t.offset, t.shift, t.final) for t in targets]
        self._rules = Rules(
            ways,
            begins,
            np.array(automaton.variables, np.int64),
            np.array(automaton.shown, np.bool_),
            np.array([bool(tests) for tests in programs.row_tests], np.bool_),
            np.array(programs.begins, np.int64),
            _table(programs.codes, 2),
            np.array([*programs.constants, 0], np.int64),
            _table(programs.navigations, 5),
            _table(programs.accumulators, 3),
            np.array([sum(1 << v for v in some) for some in programs.sets], np.int64),
            _table(held, 5),
        )
        self._memo = not programs.labelled and len(automaton.ways) <= 64
        self._settings = np.zeros(11, np.int64)
        self._settings[kernels.BACK] = spec.rows_back
        self._settings[kernels.AHEAD] = max([0, *(t.shift for t in targets)])
        self._settings[kernels.SKIP] = _SKIPS[spec.skip.kind]
        self._settings[kernels.SKIP_SET] = skip
        self._settings[kernels.SETS_TESTED] = tested
        self._settings[kernels.MEMO] = self._memo
        self._settings[kernels.ALL_ROWS] = spec.all_rows
        self._settings[kernels.MEMBERS] = members
        self._settings[kernels.WITHIN] = -1
        self.width = max(1, programs.width)
        """Words of a cell."""
        self.keys: Int64Array = np.empty((0, 7), np.int64)
        self._counts: Int64Array = np.zeros(7, np.int64)
        self._least = [64, 64, 64 if members else 0, 16]
        self._room = self._least
        self._free: Slots = np.empty(0, np.int32)
        self._allocate(_CELLS_MIN, None)
        self.gone: Int64Array = np.empty(0, np.int64)
        self.gone_slots: Int64Array = np.empty(0, np.int64)

    def bound(self, within: int) -> None:
        """A match's last row comes less than `within` ticks after its first."""
        self._settings[kernels.WITHIN] = within

    def __len__(self) -> int:
        return int(self._counts[kernels.USED] - self._counts[kernels.FREE])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        views = (self.rows.floats, self.rows.float_sums)
        own = (int(array.nbytes) for array in self.rows if not any(array is view for view in views))
        return sum(own) + self.keys.nbytes + self._free.nbytes

    def grow(self, slots: int) -> None:
        """Room for slots below `slots`; new ones are without rows."""
        have = len(self.keys)
        if slots > have:
            taller = np.empty((max(slots, 2 * have, 1024), 7), np.int64)
            taller[:have] = self.keys
            taller[have:] = _KEY
            self.keys = taller

    def forget(self, slots: Slots) -> None:
        """These slots, which have no rows, may go to other keys."""
        self.keys[slots] = _KEY

    def append(
        self, slots: Slots, rows: Int64Array, ticks: Int64Array, truth: Masks, valid: Masks, words: Int64Array
    ) -> None:
        """Remember rows; those of a slot in order."""
        missing = len(rows) - int(self._counts[kernels.FREE])
        used, capacity = int(self._counts[kernels.USED]), len(self.rows.row)
        if missing > 0 and used + missing > capacity:
            self._allocate(max(used + missing, capacity * 3 // 2), self.rows)
        kernels.append(slots, rows, ticks, truth, valid, words, self._state(), self.rows)

    def search(self, slots: Slots, horizon: int, *, final: bool) -> tuple[Matches, Int64Array]:
        """Search on for these distinct slots; what was found, and the rows whose condition did not compute."""
        settings, counts = self._settings, self._counts
        settings[kernels.FINAL], settings[kernels.HORIZON] = final, horizon
        counts[kernels.MATCHES :] = 0
        gone = [np.empty(len(self), np.int64) for _ in range(2)]
        outputs = self._outputs()
        done = 0
        while True:
            found = kernels.Found(*outputs, *gone)
            done = kernels.search_on(done, slots, self._state(), self._rules, self.rows, found)
            if done == len(slots):
                break
            self._room = [4 * room for room in self._room]
            wider = self._outputs()
            for old, new in zip(outputs, wider, strict=True):
                new[: len(old)] = old
            outputs = wider
        if max(self._room) > _ROOM_KEPT:
            self._room = self._least
        matches, entries, rows, faults = (
            int(counts[c]) for c in (kernels.MATCHES, kernels.ENTRIES, kernels.MEMBER_ROWS, kernels.FAULTS)
        )
        self.gone, self.gone_slots = (array[: counts[kernels.GONE]] for array in gone)
        sizes = (matches, matches, entries, entries, entries, entries, entries, rows, rows, rows)
        told = Matches(*(array[:size] for array, size in zip(outputs, sizes, strict=False)))
        return told, outputs[-1][:faults]

    def _state(self) -> kernels.Search:
        return kernels.Search(self._settings, self.keys, self._free, self._counts)

    def _outputs(self) -> list[Int64Array]:
        matches, entries, rows, faults = self._room
        targets = (entries, len(self._rules.targets))
        sizes: list[int | tuple[int, int]] = [matches, matches, entries, entries, entries, entries]
        return [np.empty(size, np.int64) for size in [*sizes, targets, rows, rows, rows, faults]]

    def live(self) -> Int64Array:
        """All cells that are used, in no order."""
        used = int(self._counts[kernels.USED])
        mask = np.ones(used, np.bool_)
        mask[self._free[: self._counts[kernels.FREE]]] = False
        return np.flatnonzero(mask)

    def shrink(self) -> None:
        """Give memory back where most cells are free: those that are used move together."""
        capacity, live = len(self.rows.row), len(self)
        if capacity <= 4 * _CELLS_MIN or live * 4 > capacity:
            return
        cells = self.live()
        moved = np.full(capacity + 1, -1, np.int32)
        moved[cells] = np.arange(live)
        rows = Rows(*(array[cells] if len(array) else array for array in self.rows))
        rows.links[:, :2] = moved[rows.links[:, :2]]
        rows = rows._replace(firsts=moved[rows.firsts], lasts=moved[rows.lasts])
        columns = [kernels.HEAD, kernels.TAIL, kernels.START, kernels.CURRENT]
        self.keys[:, columns] = moved[self.keys[:, columns]]
        self._counts[kernels.FREE], self._counts[kernels.USED] = 0, live
        self._allocate(max(_CELLS_MIN, 2 * live), rows)

    def rows_at(self, rows: Int64Array) -> Int64Array:
        """The cells of these rows, all of which live."""
        cells = self.live()
        order = np.argsort(self.rows.row[cells])
        cells = cells[order]
        return cells[np.searchsorted(self.rows.row[cells], rows)]

    def slots_of(self, cells: Int64Array) -> Slots:
        """The slot of each cell."""
        slots: Slots = self.rows.links[cells, SLOT]
        return slots

    def restart(self, slots: Slots, kept: Int64Array) -> None:
        """So many of each slot's rows lie before the search."""
        kernels.restart(slots, kept, self.keys, self.rows.links)

    def empty(self, slots: Slots) -> Slots:
        """Which of these slots have no rows."""
        return slots[self.keys[slots, kernels.HEAD] < 0]

    def starts(self, slots: Slots) -> tuple[Slots, Int64Array]:
        """Those of the slots that have a row to start a match at, and its tick."""
        cells = self.keys[slots, kernels.START]
        open_ = cells >= 0
        return slots[open_], self.rows.tick[cells[open_]]

    def numbers(self, slots: Slots) -> Int64Array:
        """How many matches each slot had."""
        numbers: Int64Array = self.keys[slots, kernels.NUMBER]
        return numbers

    def count(self, slots: Slots, numbers: Int64Array) -> None:
        """Each slot has had so many matches."""
        self.keys[slots, kernels.NUMBER] = numbers

    def start_rows(self, slots: Slots) -> Int64Array:
        """The row that each slot's search starts at; -1 where it waits for the next row."""
        cells = self.keys[slots, kernels.START]
        rows: Int64Array = np.where(cells < 0, -1, self.rows.row[cells])
        return rows

    def _allocate(self, capacity: int, old: Rows | None) -> None:
        """Arrays for so many cells, with what `old` ones hold."""
        sets, accumulators = len(self._rules.sets), len(self._rules.accumulators)

        def made(name: str, kind: Any, width: int | None = None, *, needed: bool = True) -> Any:
            shape = (capacity,) if width is None else (capacity, width)
            new = np.zeros(shape if needed else (0,), kind)
            before = None if old is None else getattr(old, name)
            if before is not None and needed:
                count = min(len(before), capacity)
                new[:count] = before[:count]
            return new

        words, sums = made("words", np.int64, self.width), made("sums", np.int64, accumulators)
        self.rows = Rows(
            made("links", np.int32, 6),
            made("row", np.int64),
            made("tick", np.int64),
            made("truth", np.uint64),
            made("valid", np.uint64),
            words,
            words.view(np.float64),
            made("firsts", np.int32, sets),
            made("lasts", np.int32, sets),
            sums,
            sums.view(np.float64),
            made("marks", np.uint64, needed=accumulators > 0),
            made("failed", np.uint64, needed=self._memo),
            made("reported", np.uint8),
        )
        free = np.empty(capacity, np.int32)
        held = int(self._counts[kernels.FREE])
        free[:held] = self._free[:held]
        self._free = free


def _table(rows: Sequence[tuple[int | bool, ...]], width: int) -> Int64Array:
    return np.array(rows, np.int64).reshape(-1, width)
