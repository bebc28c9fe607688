"""Queues at both ends of an exchange, bounded by bytes. Opens no connection."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from millrace.cluster.exchange.frames import Frame, Kind
from millrace.operators.batch import Batch
from millrace.state.hashing import hash_columns, partition_rows, vnodes_of

ROOM_BYTES = 8 << 20
"""What may wait at one end of one channel before the other end is held up."""

Channel = tuple[int, int]
"""(edge, partition that sends)."""


class Outlet(Protocol):
    """The sending end of a channel to one partition."""

    def put(self, frame: Frame) -> None:
        """Take a frame; never waits."""
        ...

    @property
    def waiting(self) -> int:
        """Bytes that the other end has not taken yet."""
        ...


class Inbox:
    """What came in for one partition, by channel. Filled by any thread, emptied by the partition's."""

    def __init__(self, channels: Iterable[Channel], on_arrival: Callable[[], None]) -> None:
        self._queues: dict[Channel, deque[Frame]] = {channel: deque() for channel in channels}
        self._bytes = dict.fromkeys(self._queues, 0)
        self._room = threading.Condition()
        self._on_arrival = on_arrival
        self._closed = False

    def put(self, channel: Channel, frame: Frame) -> None:
        """Take a frame at once."""
        with self._room:
            self._queues[channel].append(frame)
            self._bytes[channel] += frame.size
        self._on_arrival()

    def put_when_room(self, channel: Channel, frame: Frame) -> bool:
        """Take a frame as soon as there is room on its channel; False where the partition has ended."""
        with self._room:
            while self._bytes[channel] >= ROOM_BYTES and not self._closed:
                self._room.wait(0.5)
            if self._closed:
                return False
        self.put(channel, frame)
        return True

    def pop(self, channel: Channel) -> Frame | None:
        """The next frame of a channel, or None."""
        queue = self._queues[channel]
        if not queue:
            return None
        with self._room:
            frame = queue.popleft()
            before = self._bytes[channel]
            self._bytes[channel] = before - frame.size
            if before >= ROOM_BYTES:
                self._room.notify_all()
        return frame

    def waiting(self, channel: Channel) -> int:
        """Bytes that wait on a channel."""
        return self._bytes[channel]

    def close(self) -> None:
        """Let everybody go who waits for room."""
        with self._room:
            self._closed = True
            self._room.notify_all()


class LocalOutlet:
    """The short cut to an inbox in the same process: frames are handed over as they are."""

    def __init__(self, inbox: Inbox, channel: Channel) -> None:
        self._inbox = inbox
        self._channel = channel

    def put(self, frame: Frame) -> None:
        self._inbox.put(self._channel, frame)

    @property
    def waiting(self) -> int:
        return self._inbox.waiting(self._channel)


class ExchangeSender:
    """Reads a node and sends its rows to their owners, watermarks and barriers to everybody.

    Without `keys` there is one outlet, that takes all.
    """

    def __init__(
        self,
        keys: tuple[int, ...] | None,
        vnodes: int,
        owner_of_vnode: npt.NDArray[np.int16],
        outlets: list[Outlet],
    ) -> None:
        self._keys = keys
        self._vnodes = vnodes
        self._owner_of_vnode = owner_of_vnode
        self._outlets = outlets
        self._remote = [not isinstance(outlet, LocalOutlet) for outlet in outlets]
        self.remote_bytes = 0
        """Bytes of rows that went to other partitions."""

    @property
    def full(self) -> bool:
        """Whether some partition is so far behind that no more should be sent."""
        return any(outlet.waiting >= ROOM_BYTES for outlet in self._outlets)

    def receive(self, port: int, batch: Batch) -> None:
        """Split one batch by owner; what is sent never drags the whole batch along."""
        if self._keys is None:
            self._send(Frame(Kind.ROWS, 0, batch))
            return
        hashes = hash_columns([batch.data.column(k) for k in self._keys], batch.num_rows)
        vnodes = vnodes_of(hashes, self._vnodes)
        order, bounds = partition_rows(vnodes, self._owner_of_vnode, len(self._outlets))
        for owner, outlet in enumerate(self._outlets):
            first, end = int(bounds[owner]), int(bounds[owner + 1])
            if end - first == batch.num_rows:
                self._send_to(owner, outlet, batch)
            elif end > first:
                self._send_to(owner, outlet, batch.take(order[first:end]))

    def advance(self, port: int, watermark: int) -> None:
        """Promise a watermark to all partitions."""
        self._send(Frame(Kind.WATERMARK, watermark))

    def set_idle(self, port: int, idle: bool) -> None:
        """Tell all partitions whether rows come from here."""
        self._send(Frame(Kind.IDLE, int(idle)))

    def barrier(self, number: int) -> None:
        """Send a barrier behind everything that was sent."""
        self._send(Frame(Kind.BARRIER, number))

    def _send_to(self, owner: int, outlet: Outlet, rows: Batch) -> None:
        frame = Frame(Kind.ROWS, 0, rows)
        if self._remote[owner]:
            self.remote_bytes += frame.size
        outlet.put(frame)

    def _send(self, frame: Frame) -> None:
        for outlet in self._outlets:
            outlet.put(frame)
