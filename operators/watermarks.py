"""Watermarks of splits, row by row, and the watermark of many splits together. Knows no source and no clock."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.errors import Invalid
from millrace.operators.batch import END_OF_TIME, START_OF_TIME, Int64Array
from millrace.operators.source import EventTime

_UNIT_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_ALL_VALID: npt.NDArray[np.bool_] = np.empty(0, np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """What one batch's event times say.

    `row_watermarks` belongs into the batch (None: no row is behind). `timeless` marks the rows without event time
    (None: there are none); they move nothing, and the caller takes them out as dead letters.
    """

    row_watermarks: Int64Array | None
    timeless: pa.BooleanArray | None


_NOTHING = Observed(None, None)


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

    def observe(self, column: pa.Array, now: int | None = None) -> Observed:
        """Take in the event times of the next rows; `now` (µs) arms the guard against times far in the future.

        A row further than `future_skew` ahead of `now` is never behind and moves nothing.
        """
        highest = self._highest
        if now is not None and self._skew is not None:
            highest = min(highest, self._last_within(now + self._skew))
        nulls = column.null_count
        count = len(column)
        if count == 0:
            return _NOTHING
        values = _int64_view(column)
        if not nulls and self._in_order(values, highest):
            return _NOTHING
        valid = _ALL_VALID
        if nulls:
            valid = np.asarray(column.is_valid())
        marks = self._run(values, valid, highest)
        return Observed(marks, pc.is_null(column) if nulls else None)

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
    watermark: int
    silent_since: int | None = None
    idle: bool = False


class WatermarkTracker:
    """The watermark of several splits: the least of those that still deliver. It never falls.

    A split that was polled in vain for `idle_timeout` is idle until it delivers again; one that nobody polls is not.
    Where none delivers, the greatest of all watermarks holds, whichever split fell silent or ended first.
    """

    __slots__ = ("_ended", "_finished", "_idle_timeout", "_splits", "current")

    def __init__(self, idle_timeout: int | None = None) -> None:
        """`idle_timeout` in µs of processing time; None: no split is ever idle."""
        self._idle_timeout = idle_timeout
        self._splits: dict[str, _Split] = {}
        self._ended = START_OF_TIME
        self._finished = False
        self.current = START_OF_TIME
        """What may be promised downstream, in µs."""

    def add(self, split: str, watermark: int = START_OF_TIME) -> None:
        """A split begins, new or restored with its `watermark`. What was promised stays promised:
        raise the split's own watermark to `current` so that its rows below count as behind."""
        assert split not in self._splits, f"split {split} is tracked already"
        self._splits[split] = _Split(watermark)

    def deliver(self, split: str, watermark: int) -> int:
        """`split` gave rows and its watermark is now `watermark`; returns `current`."""
        known = self._splits[split]
        assert watermark >= known.watermark, f"watermark of split {split} fell"
        known.silent_since = None
        if known.watermark != watermark or known.idle:
            known.watermark = watermark
            known.idle = False
            self._recompute()
        return self.current

    def silent(self, split: str, now: int) -> int:
        """`split` was polled at `now` (µs) and had nothing; returns `current`."""
        known = self._splits[split]
        if known.silent_since is None:
            known.silent_since = now
        if (
            not known.idle
            and self._idle_timeout is not None
            and now - known.silent_since >= self._idle_timeout
        ):
            known.idle = True
            self._recompute()
        return self.current

    def is_idle(self, split: str) -> bool:
        """Whether the split no longer holds the others back (raise its watermark to `current` when it delivers)."""
        return self._splits[split].idle

    @property
    def idle(self) -> bool:
        """Whether there are splits and all of them are idle."""
        return bool(self._splits) and all(split.idle for split in self._splits.values())

    def end(self, split: str) -> int:
        """`split` has given all it has, or went away; returns `current`."""
        self._ended = max(self._ended, self._splits.pop(split).watermark)
        self._recompute()
        if self._finished:
            self.finish()
        return self.current

    def finish(self) -> int:
        """No split will be added any more: the end of the last one is the end of time. Returns `current`."""
        self._finished = True
        if not self._splits:
            self.current = END_OF_TIME
        return self.current

    def restore(self, watermark: int) -> None:
        """Continue from a `current` that was promised before."""
        self.current = max(self.current, watermark)

    def _recompute(self) -> None:
        least: int | None = None
        greatest = self._ended
        for split in self._splits.values():
            if split.idle:
                greatest = max(greatest, split.watermark)
            elif least is None or split.watermark < least:
                least = split.watermark
        self.current = max(self.current, greatest if least is None else least)
