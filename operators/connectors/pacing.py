"""How far a generator may be by the clock. Generates nothing."""

from __future__ import annotations

from millrace.operators.operator import Context


class Pace:
    """Item numbers that are due at `rate` items a second, counted from `first` at the first look at the clock."""

    def __init__(self, rate: float, first: int, context: Context) -> None:
        assert rate > 0
        self._rate = rate
        self._first = first
        self._context = context
        self._started: int | None = None

    def due(self) -> int:
        """Items below this number may be given now; at least the first of them at once."""
        now = self._context.now()
        if self._started is None:
            self._started = now
        return self._first + 1 + int(max(now - self._started, 0) * self._rate / 1_000_000)
