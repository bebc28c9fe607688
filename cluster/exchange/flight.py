"""Channels over Arrow Flight: one `DoPut` stream for each edge and pair of partitions. Knows no dataflow."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import pyarrow as pa
from pyarrow import flight

from millrace.cluster.exchange.channels import Inbox
from millrace.cluster.exchange.frames import Frame, Kind, decode_frame, encode_head
from millrace.cluster.exchange.security import ExchangeTls
from millrace.errors import MillraceError

ACK_FRAMES, ACK_BYTES = 8, 1 << 20
"""The receiver acknowledges after so many frames or bytes, whichever is first."""
WINDOW_FRAMES, WINDOW_BYTES = 64, 8 << 20
"""The sender waits for acknowledgements with more than that under way."""
_ACK = struct.Struct("<q")
_READY = -1
RETRY_S = 0.05
CONNECT_S = 30.0
"""How long a partition waits for its peers to take its streams."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a stream is for: said first, and refused unless it is what the receiver expects."""

    job: str
    edge: int
    sender: int
    sender_epoch: int
    receiver: int
    receiver_epoch: int

    def encode(self) -> bytes:
        fields = [self.job, self.edge, self.sender, self.sender_epoch, self.receiver, self.receiver_epoch]
        return msgpack.packb(fields) or b""

    @classmethod
    def decode(cls, data: bytes) -> Hello:
        return cls(*msgpack.unpackb(data))


class ExchangeServer(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    """Takes the streams of all peers of one partition in. Streams of other epochs are refused."""

    def __init__(self, host: str, on_failure: Callable[[str], None], tls: ExchangeTls | None = None) -> None:
        if tls is None:
            super().__init__(f"grpc://{host}:0")
        else:
            super().__init__(f"grpc+tls://{host}:0", **tls.server())
        self._on_failure = on_failure
        self._expected: dict[Hello, Inbox] = {}
        self._open: set[Hello] = set()
        self._known = False
        self._changed = threading.Condition()

    def expect(self, streams: dict[Hello, Inbox]) -> None:
        """From now on accept exactly these, once each."""
        with self._changed:
            self._expected = streams
            self._known = True
            self._open.clear()
            self._changed.notify_all()

    def wait_all(self, timeout: float) -> bool:
        """Wait until every expected stream is open."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._open) == len(self._expected), timeout)

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """One stream, from its hello to its end."""
        hello = Hello.decode(descriptor.command)
        with self._changed:
            # A peer that was quicker waits; one of another epoch is refused as soon as this partition knows its own.
            self._changed.wait_for(lambda: self._known, CONNECT_S)
            inbox = self._expected.get(hello)
            if inbox is None or hello in self._open:
                raise flight.FlightServerError(f"nobody here expects {hello}")
            self._open.add(hello)
            self._changed.notify_all()
        try:
            writer.write(_ACK.pack(_READY))
            first = reader.read_chunk()
        except (StopIteration, pa.ArrowException, OSError):
            with self._changed:  # nothing came: the sender did not hear that we are ready, and tries again
                self._open.discard(hello)
            return
        try:
            self._take_in(hello, inbox, reader, writer, first)
        except (MillraceError, pa.ArrowException, OSError) as error:
            self._on_failure(f"the exchange from partition {hello.sender} broke: {error}")

    def _take_in(self, hello: Hello, inbox: Inbox, reader: Any, writer: Any, chunk: Any) -> None:
        sequence = 0
        frames = size = 0
        while True:
            frame = decode_frame(memoryview(chunk.app_metadata), chunk.data, hello.sender_epoch, sequence)
            sequence += 1
            if not inbox.put_when_room((hello.edge, hello.sender), frame):
                return
            frames += 1
            size += frame.size
            if frames >= ACK_FRAMES or size >= ACK_BYTES:
                writer.write(_ACK.pack(sequence))
                frames = size = 0
            try:
                chunk = reader.read_chunk()
            except StopIteration:
                return


class FlightOutlet:
    """The sending end of one stream, with a thread of its own. Frames wait here until it is connected."""

    def __init__(
        self,
        hello: Hello,
        schema: pa.Schema,
        on_failure: Callable[[str], None],
        tls: ExchangeTls | None = None,
    ) -> None:
        self._tls = tls
        self._hello = hello
        self._schema = schema
        self._on_failure = on_failure
        self._queue: deque[Frame] = deque()
        self._waiting = 0
        self._news = threading.Condition()
        self._closed = False
        self._underway: deque[int] = deque()
        self._underway_bytes = 0
        self._acked = 0

    @property
    def receiver(self) -> int:
        """The partition it sends to."""
        return self._hello.receiver

    def put(self, frame: Frame) -> None:
        with self._news:
            self._queue.append(frame)
            self._waiting += frame.size
            self._news.notify()

    @property
    def waiting(self) -> int:
        return self._waiting

    def connect(self, address: str, on_ready: Callable[[], None]) -> None:
        """Open the stream on a thread of its own; call back once the receiver has accepted it."""
        threading.Thread(
            target=self._run, args=(address, on_ready), name=f"exchange-{self._hello.edge}", daemon=True
        ).start()

    def close(self) -> None:
        """Stop sending."""
        with self._news:
            self._closed = True
            self._news.notify()

    def _run(self, address: str, on_ready: Callable[[], None]) -> None:
        try:
            with flight.connect(address, **({} if self._tls is None else self._tls.client())) as client:
                writer, reader = self._open(client)
                on_ready()
                self._send_all(writer, reader)
                writer.close()
        except (
            pa.ArrowException,
            OSError,
            TypeError,
        ) as error:  # TypeError: the stream ended without an answer
            if not self._closed:
                self._on_failure(f"the exchange to partition {self._hello.receiver} broke: {error}")

    def _open(self, client: Any) -> tuple[Any, Any]:
        """The stream, once the receiver is ready for it: it may have begun a little later."""
        descriptor = flight.FlightDescriptor.for_command(self._hello.encode())
        deadline = time.monotonic() + CONNECT_S
        while True:
            writer = None
            try:
                writer, reader = client.do_put(descriptor, self._schema)
                if _ACK.unpack(reader.read())[0] == _READY:
                    return writer, reader
            except (pa.ArrowException, OSError, TypeError):
                if self._closed or time.monotonic() > deadline:
                    raise
                if writer is not None:
                    with contextlib.suppress(pa.ArrowException, OSError):
                        writer.close()
                time.sleep(RETRY_S)

    def _send_all(self, writer: Any, reader: Any) -> None:
        sequence = 0
        while True:
            with self._news:
                while not self._queue and not self._closed:
                    self._news.wait()
                if self._closed:
                    return
                frame = self._queue.popleft()
            head = encode_head(frame, self._hello.sender_epoch, sequence)
            sequence += 1
            if frame.kind is Kind.ROWS and frame.batch is not None:
                writer.write_with_metadata(self._as_declared(frame.batch.data), head)
            else:
                writer.write_metadata(head)
            with self._news:
                self._waiting -= frame.size
            self._underway.append(frame.size)
            self._underway_bytes += frame.size
            while len(self._underway) > WINDOW_FRAMES or self._underway_bytes > WINDOW_BYTES:
                self._read_ack(reader)

    def _as_declared(self, data: pa.RecordBatch) -> pa.RecordBatch:
        if data.schema.equals(self._schema, check_metadata=True):
            return data
        return pa.RecordBatch.from_arrays(data.columns, schema=self._schema)

    def _read_ack(self, reader: Any) -> None:
        acked = _ACK.unpack(reader.read())[0]
        for _ in range(acked - self._acked):
            self._underway_bytes -= self._underway.popleft()
        self._acked = acked
