"""Watermarks of splits, row by row, and the watermark of many splits together. Knows no source and no clock."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Int64Array
from millrace.operators.source import EventTime

_UNIT_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_ALL_VALID: npt.NDArray[np.bool_] = np.empty(0, np.bool_)


class SplitWatermark:
    """The watermark of one split, in µs: the greatest event time seen, less the allowed disorder, less 1 µs.

    It never falls. A row is behind where its event time is not above the watermark that the rows before it set;
    whether it is depends on the order of rows alone, not on how they were cut into batches.
    """

    __slots__ = ("_highest", "_lag", "_lowest", "_skew", "_unit_ns", "current")

    def __init__(self, event_time: EventTime, type: pa.DataType) -> None:
        """`type` is the column's: a timestamp, or an integer that counts `event_time.unit`."""
        if pa.types.is_timestamp(type):
            unit = type.unit
        elif pa.types.is_int64(type):
            unit = event_time.unit
        else:
            raise Invalid(
                f"an event-time column can not be of type {type}",
                code="MR1250",
                hint="use TIMESTAMP, or BIGINT with epoch numbers and the unit in event.time.format",
            )
        if unit not in _UNIT_NS:
            raise Invalid(f"unknown unit of event time {unit!r}", code="MR1251", hint="one of s, ms, us, ns")
        self._unit_ns = _UNIT_NS[unit]
        self._lag = event_time.out_of_orderness + 1
        self._skew = event_time.future_skew
        # Event times outside these bounds (in the column's unit) have no watermark in µs.
        self._lowest = max(-((-(START_OF_TIME + self._lag) * 1000) // self._unit_ns), START_OF_TIME)
        self._highest = self._last_within(END_OF_TIME - 1)
        self.current = START_OF_TIME
        """No row at or below this event time is expected any more; START_OF_TIME before the first row."""

    def observe(self, column: pa.Array, now: int | None = None) -> Int64Array | None:
        """Take in the event times of the next rows; returns their `row_watermarks`, None where no row is behind.

        `now` (µs) arms the guard against the future: a row further than `future_skew` ahead of it is never
        behind and moves nothing. Neither does a row whose event time is NULL: the caller takes those out.
        """
        count = len(column)
        if count == 0:
            return None
        highest = self._highest
        if now is not None and self._skew is not None:
            highest = min(highest, self._last_within(now + self._skew))
        values = _int64_view(column)
        valid = _ALL_VALID
        if column.null_count:
            valid = np.asarray(column.is_valid())
        elif self._in_order(values, highest):
            return None
        return self._run(values, valid, highest)

    def raise_to(self, watermark: int) -> None:
        """Rows at or below `watermark` (µs) are behind from now on, since it was promised without this split."""
        self.current = max(self.current, watermark)

    def capture(self) -> int:
        """What has to be remembered, in µs."""
        return self.current

    def restore(self, captured: int) -> None:
        """Continue from what `capture` gave."""
        self.current = captured

    def _in_order(self, values: Int64Array, highest: int) -> bool:
        """Whether rows ascend and none is behind or out of bounds; if so they are taken in."""
        first, last = int(values[0]), int(values[-1])
        if not self._lowest <= first <= last <= highest or self._microseconds(first) <= self.current:
            return False
        if len(values) > 2 and not bool((values[1:] >= values[:-1]).all()):
            return False
        self.current = max(self.current, self._microseconds(last) - self._lag)
        return True

    def _last_within(self, microseconds: int) -> int:
        """The greatest value of the column's unit that is not after this time."""
        return min((microseconds * 1000 + 999) // self._unit_ns, END_OF_TIME)

    def _microseconds(self, value: int) -> int:
        return value * self._unit_ns // 1000

    def _run(self, values: Int64Array, valid: npt.NDArray[np.bool_], highest: int) -> Int64Array | None:
        # Deferred: Numba costs a third of a second to import, and ordered input never needs it.
        from millrace.operators import watermark_kernels

        # As NumPy integers: Numba takes a Python -2**63 for unsigned.
        lowest, top, lag, before = map(np.int64, (self._lowest, highest, self._lag, self.current))
        scale = self._unit_ns // 1000
        marks = np.empty(0, np.int64)
        current, behind = watermark_kernels.advance(values, valid, scale, lowest, top, lag, before, marks)
        if not behind:
            self.current = int(current)
            return None
        marks = np.empty(len(values), np.int64)
        watermark_kernels.advance(values, valid, scale, lowest, top, lag, before, marks)
        self.current = int(current)
        return marks


def _int64_view(column: pa.Array) -> Int64Array:
    """The 64-bit values of an array without a copy; what stands at nulls is arbitrary."""
    offset = column.offset
    return np.frombuffer(column.buffers()[1], np.int64)[offset : offset + len(column)]


@dataclass(slots=True)
class _Split:
    heard_at: int
    watermark: int
    silent_since: int | None = None
    idle: bool = False


class WatermarkTracker:
    """The watermark of several splits: the least of those that still deliver. It never falls.

    Every split is polled between two calls of `watermark`. One that delivered nothing between calls that lie
    `idle_timeout` apart is idle and holds nobody back until it delivers again. Time that passes while no split is
    polled makes none idle. Where none delivers, the greatest of all watermarks holds, whichever split fell silent or
    ended first.

    A split that is new or was idle may give rows below what has been promised without it. Calling
    `SplitWatermark.raise_to(tracker.current)` before each `observe` makes them count as behind.
    """

    __slots__ = ("_changed", "_ended", "_idle_timeout", "_looked_at", "_splits", "current")

    def __init__(self, idle_timeout: int | None = None) -> None:
        """`idle_timeout` in µs of processing time; None: no split is ever idle."""
        self._idle_timeout = idle_timeout
        self._splits: dict[str, _Split] = {}
        self._ended = START_OF_TIME
        self._looked_at = START_OF_TIME
        self._changed = False
        self.current = START_OF_TIME
        """What was promised downstream, in µs."""

    def add(self, split: str, now: int, watermark: int = START_OF_TIME) -> None:
        """A split begins, new or restored with its own `watermark`. What was promised stays promised."""
        assert split not in self._splits, f"split {split} is tracked already"
        self._splits[split] = _Split(now, watermark)
        self._changed = True

    def update(self, split: str, watermark: int, now: int) -> None:
        """`split` gave rows at `now` (µs) and its own watermark is now `watermark`."""
        known = self._splits[split]
        assert watermark >= known.watermark, f"watermark of split {split} fell"
        known.heard_at = now
        known.silent_since = None
        if known.watermark != watermark or known.idle:
            known.watermark = watermark
            known.idle = False
            self._changed = True

    def end(self, split: str) -> None:
        """`split` has given all it has, or went away."""
        self._ended = max(self._ended, self._splits.pop(split).watermark)
        self._changed = True

    def is_idle(self, split: str) -> bool:
        """Whether the split has stopped holding the others back."""
        return self._splits[split].idle

    def restore(self, watermark: int) -> None:
        """Continue from a `current` of before."""
        self.current = max(self.current, watermark)

    def watermark(self, now: int) -> int:
        """What may be promised at `now` (µs), after every split was polled; also in `current`."""
        if self._idle_timeout is not None:
            self._find_idle(now, self._idle_timeout)
        if self._changed:
            self._changed = False
            self._recompute()
        return self.current

    def _find_idle(self, now: int, timeout: int) -> None:
        for split in self._splits.values():
            if split.idle or split.heard_at > self._looked_at:
                continue
            if split.silent_since is None:
                split.silent_since = now
            elif now - split.silent_since >= timeout:
                split.idle = True
                self._changed = True
        self._looked_at = now

    def _recompute(self) -> None:
        least: int | None = None
        greatest = self._ended
        for split in self._splits.values():
            if split.idle:
                greatest = max(greatest, split.watermark)
            elif least is None or split.watermark < least:
                least = split.watermark
        self.current = max(self.current, greatest if least is None else least)
