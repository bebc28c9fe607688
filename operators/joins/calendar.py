"""Which slots have an entry that is over at a time: lets state expire without being searched. Knows no state."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from millrace.operators.batch import END_OF_TIME
from millrace.state.words import Int64s, Slots

_RUN_ROWS = 8192


@dataclass(slots=True)
class _Run:
    ticks: Int64s
    slots: Slots
    low: int
    high: int

    def __lt__(self, other: _Run) -> bool:
        return self.low < other.low


class Calendar:
    """Owns a multiset of (tick, slot). Runs wait in a heap by their least tick; within a run there is no order."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._open: list[_Run] = []
        self._open_rows = 0
        self.earliest = END_OF_TIME
        """No tick is before this one."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(run.ticks.nbytes + run.slots.nbytes for run in (*self._runs, *self._open))

    def add(self, ticks: Int64s, slots: Slots) -> None:
        """Note one entry of each slot."""
        if not len(ticks):
            return
        run = _Run(ticks, slots, int(ticks.min()), int(ticks.max()))
        self.earliest = min(self.earliest, run.low)
        if len(ticks) >= _RUN_ROWS:
            heapq.heappush(self._runs, run)
            return
        self._open.append(run)
        self._open_rows += len(ticks)
        if self._open_rows >= _RUN_ROWS:
            self._seal()

    def pop(self, before: int) -> Slots:
        """The slots of all entries whose tick is below `before`, which are forgotten."""
        if before <= self.earliest:
            return np.empty(0, np.int32)
        if any(run.low < before for run in self._open):
            self._seal()
        due: list[Slots] = []
        while self._runs and self._runs[0].low < before:
            run = heapq.heappop(self._runs)
            if run.high < before:
                due.append(run.slots)
                continue
            stays = run.ticks >= before
            due.append(run.slots[~stays])
            ticks = run.ticks[stays]
            heapq.heappush(self._runs, _Run(ticks, run.slots[stays], int(ticks.min()), run.high))
        lows = [run.low for run in self._open]
        if self._runs:
            lows.append(self._runs[0].low)
        self.earliest = min(lows, default=END_OF_TIME)
        return np.concatenate([np.empty(0, np.int32), *due])

    def _seal(self) -> None:
        ticks = np.concatenate([run.ticks for run in self._open])
        slots = np.concatenate([run.slots for run in self._open])
        heapq.heappush(self._runs, _Run(ticks, slots, int(ticks.min()), int(ticks.max())))
        self._open, self._open_rows = [], 0
