"""The watermark of several inputs: the least of those that deliver. Knows no row."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from millrace.operators.batch import END_OF_TIME, START_OF_TIME

InputT = TypeVar("InputT", bound=Hashable)


class InputWatermarks(Generic[InputT]):
    """Owns the watermark (µs) of each input, and which of them are idle: an idle one holds nobody back.

    Where none delivers, the greatest watermark holds. `current` never falls, and is the end of time when all inputs
    have ended.
    """

    __slots__ = ("_ended", "_idle", "_marks", "current")

    def __init__(self, inputs: Iterable[InputT]) -> None:
        self._marks = dict.fromkeys(inputs, START_OF_TIME)
        self._idle: set[InputT] = set()
        self._ended: set[InputT] = set()
        self.current = START_OF_TIME

    @property
    def idle(self) -> bool:
        """Whether no input delivers at the moment, and some will later."""
        return bool(self._idle) and len(self._idle) + len(self._ended) == len(self._marks)

    def advance(self, place: InputT, watermark: int) -> bool:
        """An input has promised `watermark`; whether `current` rose."""
        if watermark == END_OF_TIME:
            self._ended.add(place)
            self._idle.discard(place)
        else:
            self._marks[place] = max(self._marks[place], watermark)
        return self._settle()

    def set_idle(self, place: InputT, idle: bool) -> bool:
        """An input fell silent, or delivers again; whether `current` rose."""
        if not idle:
            self._idle.discard(place)
            return False
        if place in self._ended:
            return False
        self._idle.add(place)
        return self._settle()

    def _settle(self) -> bool:
        marks = self._marks
        if len(self._ended) == len(marks):
            low = END_OF_TIME
        elif self._idle or self._ended:
            active = [m for place, m in marks.items() if place not in self._idle and place not in self._ended]
            low = min(active) if active else max(marks.values())
        else:
            low = min(marks.values())
        if low <= self.current:
            return False
        self.current = low
        return True
