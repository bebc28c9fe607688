"""The rows that a matcher remembers, by key, and the search over them. Knows no payload and no measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from millrace.operators.batch import Int64Array
from millrace.operators.match_recognize import kernels
from millrace.operators.match_recognize.automaton import build_automaton
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

    cell_row: Int64Array
    cell_tick: Int64Array
    cell_truth: Masks
    cell_valid: Masks
    words: Int64Array
    links: Slots
    firsts: Slots
    lasts: Slots
    sums: Int64Array
    marks: Masks
    failed: Masks
    reported: npt.NDArray[np.uint8]
    floats: npt.NDArray[np.float64]
    float_sums: npt.NDArray[np.float64]
    free: Slots

    def __init__(
        self, spec: MatchRecognize, programs: Programs, targets: Sequence[Target], *, members: bool
    ) -> None:
        automaton = build_automaton(spec.pattern, spec.variables)
        self._ways, self._begins = automaton.flat()
        self._variables = np.array(automaton.variables, np.int64)
        self._shown = np.array(automaton.shown, np.bool_)
        self._tested = np.array([bool(tests) for tests in programs.row_tests], np.bool_)
        self._code_begins = np.array(programs.begins, np.int64)
        self._codes = _table(programs.codes, 2)
        self._constants = np.array([*programs.constants, 0], np.int64)
        self._navigations = _table(programs.navigations, 5)
        self._accumulators = _table(programs.accumulators, 3)
        tested = len(programs.sets)
        skip = -1 if not spec.skip.variables else programs.set_of(spec.skip.variables)
        held = [(programs.set_of(t.variables), t.first, t.offset, t.shift, t.final) for t in targets]
        self._targets = _table(held, 5)
        self._sets = np.array([sum(1 << v for v in some) for some in programs.sets], np.int64)
        states = len(automaton.ways)
        self._memo = not programs.labelled and states <= 64
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
        self._width = max(1, programs.width)
        self.keys: Int64Array = np.empty((0, 7), np.int64)
        self._counts: Int64Array = np.zeros(7, np.int64)
        self._least = [64, 64, 64 if members else 0, 16]
        self._room = self._least
        self._allocate(_CELLS_MIN)
        self.gone: Int64Array = np.empty(0, np.int64)
        self.gone_slots: Int64Array = np.empty(0, np.int64)

    def bound(self, within: int) -> None:
        """A match's last row comes less than `within` ticks after its first."""
        self._settings[kernels.WITHIN] = within

    def __len__(self) -> int:
        return int(self._counts[kernels.USED] - self._counts[kernels.FREE])

    @property
    def width(self) -> int:
        """Words of a cell."""
        return self._width

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        arrays = [getattr(self, name) for name in _ARRAYS]
        return sum(array.nbytes for array in arrays) + self.keys.nbytes + self.free.nbytes

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
        capacity = len(self.cell_row)
        if missing > 0 and int(self._counts[kernels.USED]) + missing > capacity:
            self._allocate(max(int(self._counts[kernels.USED]) + missing, capacity * 3 // 2))
        kernels.append(
            slots, rows, ticks, truth, valid, words, self.keys, self.links, self.free, self._counts,
            self.cell_row, self.cell_tick, self.cell_truth, self.cell_valid, self.words, self.failed, self._memo,
            self.reported,
        )  # fmt: skip

    def search(self, slots: Slots, horizon: int, *, final: bool) -> tuple[Matches, Int64Array]:
        """Search on for these distinct slots; what was found, and the rows whose condition did not compute."""
        settings, counts = self._settings, self._counts
        settings[kernels.FINAL], settings[kernels.HORIZON] = final, horizon
        counts[kernels.MATCHES :] = 0
        live = len(self)
        gone, gone_slots = np.empty(live, np.int64), np.empty(live, np.int64)
        outputs, faults = self._outputs(), np.empty(self._room[3], np.int64)
        done = 0
        while True:
            done = kernels.search(
                done, slots, settings, self.keys, self.links, self.free, counts, self._ways, self._begins,
                self._variables, self._shown, self._tested, self._code_begins, self._codes, self._constants,
                self._navigations, self._accumulators, self._sets, self._targets, self.cell_row, self.cell_tick,
                self.cell_truth, self.cell_valid, self.words, self.floats, self.firsts, self.lasts, self.sums,
                self.float_sums, self.marks, self.failed, self.reported, gone, gone_slots, faults, *outputs,
            )  # fmt: skip
            if done == len(slots):
                break
            self._room = [4 * room for room in self._room]
            wider, told = self._outputs(), np.empty(self._room[3], np.int64)
            for old, new in zip((*outputs, faults), (*wider, told), strict=True):
                new[: len(old)] = old
            outputs, faults = wider, told
        if max(self._room) > _ROOM_KEPT:
            self._room = self._least
        matches, entries, rows = (int(counts[c]) for c in (kernels.MATCHES, kernels.ENTRIES, kernels.ROWS))
        self.gone, self.gone_slots = gone[: counts[kernels.GONE]], gone_slots[: counts[kernels.GONE]]
        sizes = (matches, matches, entries, entries, entries, entries, entries, rows, rows, rows)
        found = Matches(*(array[:size] for array, size in zip(outputs, sizes, strict=True)))
        return found, faults[: counts[kernels.FAULTS]]

    def _outputs(self) -> list[Int64Array]:
        matches, entries, rows, _ = self._room
        sizes = [matches] * 2 + [entries] * 4 + [(entries, len(self._targets))] + [rows] * 3
        return [np.empty(size, np.int64) for size in sizes]

    def live(self) -> Int64Array:
        """All cells that are used, in no order."""
        used = int(self._counts[kernels.USED])
        mask = np.ones(used, np.bool_)
        mask[self.free[: self._counts[kernels.FREE]]] = False
        return np.flatnonzero(mask)

    def shrink(self) -> None:
        """Give memory back where most cells are free: those that are used move together."""
        capacity, live = len(self.cell_row), len(self)
        if capacity <= 4 * _CELLS_MIN or live * 4 > capacity:
            return
        cells = self.live()
        moved = np.full(capacity + 1, -1, np.int32)
        moved[cells] = np.arange(live)
        for name in _ARRAYS:
            array = getattr(self, name)
            setattr(self, name, array[cells] if len(array) else array)
        for name in ("firsts", "lasts"):
            setattr(self, name, moved[getattr(self, name)])
        self.links[:, :2] = moved[self.links[:, :2]]
        columns = [kernels.HEAD, kernels.TAIL, kernels.START, kernels.CURRENT]
        self.keys[:, columns] = moved[self.keys[:, columns]]
        self._counts[kernels.FREE], self._counts[kernels.USED] = 0, live
        self._allocate(max(_CELLS_MIN, 2 * live))

    def rows_at(self, rows: Int64Array) -> Int64Array:
        """The cells of these rows, all of which live."""
        cells = self.live()
        order = np.argsort(self.cell_row[cells])
        cells = cells[order]
        return cells[np.searchsorted(self.cell_row[cells], rows)]

    def slots_of(self, cells: Int64Array) -> Slots:
        """The slot of each cell."""
        return self.links[cells, kernels.SLOT]

    def restart(self, slots: Slots, kept: Int64Array) -> None:
        """So many of each slot's rows lie before the search."""
        kernels.restart(slots, kept, self.keys, self.links)

    def empty(self, slots: Slots) -> Slots:
        """Which of these slots have no rows."""
        return slots[self.keys[slots, kernels.HEAD] < 0]

    def starts(self, slots: Slots) -> tuple[Slots, Int64Array]:
        """Those of the slots that have a row to start a match at, and its tick."""
        cells = self.keys[slots, kernels.START]
        open_ = cells >= 0
        return slots[open_], self.cell_tick[cells[open_]]

    def numbers(self, slots: Slots) -> Int64Array:
        """How many matches each slot had."""
        return self.keys[slots, kernels.NUMBER]

    def count(self, slots: Slots, numbers: Int64Array) -> None:
        """Each slot has had so many matches."""
        self.keys[slots, kernels.NUMBER] = numbers

    def start_rows(self, slots: Slots) -> Int64Array:
        """The row that each slot's search starts at; -1 where it waits for the next row."""
        cells = self.keys[slots, kernels.START]
        return np.where(cells < 0, -1, self.cell_row[cells])

    def _allocate(self, capacity: int) -> None:
        """Arrays for so many cells, with what the present ones hold."""
        sets, accumulators = len(self._sets), len(self._accumulators)
        shapes = {
            "cell_row": (capacity, np.int64),
            "cell_tick": (capacity, np.int64),
            "cell_truth": (capacity, np.uint64),
            "cell_valid": (capacity, np.uint64),
            "words": ((capacity, self._width), np.int64),
            "links": ((capacity, 6), np.int32),
            "firsts": ((capacity, sets), np.int32),
            "lasts": ((capacity, sets), np.int32),
            "sums": ((capacity, accumulators), np.int64),
            "marks": (capacity if accumulators else 0, np.uint64),
            "failed": (capacity if self._memo else 0, np.uint64),
            "reported": (capacity, np.uint8),
        }
        for name, (shape, kind) in shapes.items():
            new = np.zeros(shape, kind)  # type: ignore[call-overload]
            old = getattr(self, name, None)
            if old is not None:
                new[: len(old)] = old
            setattr(self, name, new)
        free = np.empty(capacity, np.int32)
        held = int(self._counts[kernels.FREE])
        free[:held] = self.free[:held] if held else 0
        self.free = free
        self.floats = self.words.view(np.float64)
        self.float_sums = self.sums.view(np.float64)


_ARRAYS = ("cell_row", "cell_tick", "cell_truth", "cell_valid", "words", "links", "firsts", "lasts", "sums", "marks",
           "failed", "reported")  # fmt: skip


def _table(rows: Sequence[tuple[int | bool, ...]], width: int) -> Int64Array:
    return np.array(rows, np.int64).reshape(-1, width)
