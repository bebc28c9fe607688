"""Lines up the barriers of several input channels. Holds items back, and never drops one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from millrace.state.checkpoints.number import CheckpointNumber

ItemT = TypeVar("ItemT")
ChannelT = TypeVar("ChannelT", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _Barrier:
    number: CheckpointNumber


class BarrierAligner(Generic[ChannelT, ItemT]):
    """Owns what channels delivered behind a barrier that others still owe.

    Rows and watermarks go to `deliver(channel, item)` in order of their channel; `cut(number)` is called once
    all channels that have not ended delivered barrier `number`, and nothing from behind it was delivered.
    On each channel numbers ascend. A channel that goes on to a later number without `number` shows that `number` was
    given up: then the later one is waited for.
    """

    def __init__(
        self,
        channels: Iterable[ChannelT],
        deliver: Callable[[ChannelT, ItemT], None],
        cut: Callable[[CheckpointNumber], None],
    ) -> None:
        self._deliver = deliver
        self._cut = cut
        self._queues: dict[ChannelT, deque[ItemT | _Barrier]] = {channel: deque() for channel in channels}
        self._ended: set[ChannelT] = set()
        self._at: dict[ChannelT, CheckpointNumber] = {}

    @property
    def held(self) -> int:
        """How many items and barriers are held back."""
        return sum(len(queue) for queue in self._queues.values())

    @property
    def waiting_for(self) -> tuple[ChannelT, ...]:
        """The channels that owe the barrier which others have delivered."""
        if not self._at:
            return ()
        return tuple(c for c in self._queues if c not in self._at and c not in self._ended)

    def take(self, channel: ChannelT, item: ItemT) -> None:
        """Rows or a watermark arrived on `channel`."""
        if channel in self._at:
            self._queues[channel].append(item)
        else:
            self._deliver(channel, item)

    def barrier(self, channel: ChannelT, number: CheckpointNumber) -> None:
        """A barrier arrived on `channel`."""
        if channel in self._at:
            self._queues[channel].append(_Barrier(number))
            return
        self._at[channel] = number
        self._settle()

    def end(self, channel: ChannelT) -> None:
        """Nothing more comes on `channel`: it owes no barrier."""
        self._ended.add(channel)
        self._settle()

    def _settle(self) -> None:
        while self._at:
            newest = max(self._at.values())
            behind = [c for c, number in self._at.items() if number < newest]
            if behind:
                for channel in behind:
                    self._release(channel)
            elif not self.waiting_for:
                channels = list(self._at)
                self._cut(newest)
                for channel in channels:
                    self._release(channel)
            else:
                return

    def _release(self, channel: ChannelT) -> None:
        del self._at[channel]
        queue = self._queues[channel]
        while queue:
            item = queue.popleft()
            if isinstance(item, _Barrier):
                self._at[channel] = item.number
                return
            self._deliver(channel, item)
