"""The exchanges of one partition with all its peers, over Arrow Flight. Knows no dataflow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from millrace.cluster.exchange.channels import Inbox
from millrace.cluster.exchange.flight import CONNECT_S, ExchangeServer, FlightOutlet, Hello
from millrace.cluster.exchange.security import ExchangeTls


class FlightPeers:
    """One server for what comes in, one stream for each edge and peer for what goes out."""

    def __init__(
        self, job: str, partition: int, epochs: Mapping[int, int], host: str, tls: ExchangeTls | None = None
    ) -> None:
        """`epochs` has those of all partitions, this one's too."""
        self._tls = tls
        self._job = job
        self._partition = partition
        self._epochs = epochs
        self._on_failure: Callable[[str], None] = lambda reason: None
        self._server = ExchangeServer(host, lambda reason: self._on_failure(reason), tls)
        self.address = f"{'grpc' if tls is None else 'grpc+tls'}://{host}:{self._server.port}"
        self._outlets: dict[tuple[int, int], FlightOutlet] = {}
        self._addresses: Mapping[int, str] = {}
        self._introduced = threading.Event()

    def introduce(self, epochs: Mapping[int, int], addresses: Mapping[int, str]) -> None:
        """Where the peers are, by partition; those of other epochs are not ours."""
        if dict(epochs) == dict(self._epochs):
            self._addresses = addresses
            self._introduced.set()

    def outlet(self, edge: int, receiver: int, schema: pa.Schema) -> FlightOutlet:
        """The sending end of a channel; frames wait in it until `connect`."""
        found = FlightOutlet(self._hello(edge, self._partition, receiver), schema, self._failed, self._tls)
        self._outlets[edge, receiver] = found
        return found

    def connect(
        self,
        edges: Sequence[int],
        inbox: Inbox,
        on_done: Callable[[], None],
        on_failure: Callable[[str], None],
    ) -> None:
        """Open all streams in the background; call back when all are open both ways, or when one breaks."""
        self._on_failure = on_failure
        others = [p for p in self._epochs if p != self._partition]
        expected = {self._hello(e, p, self._partition): inbox for e in edges for p in others}
        self._server.expect(expected)
        threading.Thread(target=self._connect, args=(on_done,), name="exchange-peers", daemon=True).start()

    def close(self) -> None:
        """End all streams. Streams of peers end when they do."""
        for outlet in self._outlets.values():
            outlet.close()
        # Waits for streams that peers hold open, and nobody has to wait for that.
        threading.Thread(target=self._server.shutdown, name="exchange-end", daemon=True).start()

    def _connect(self, on_done: Callable[[], None]) -> None:
        if not self._introduced.wait(CONNECT_S):
            self._failed("nobody said where the other partitions are")
            return
        ready = threading.Semaphore(0)
        for outlet in self._outlets.values():
            outlet.connect(self._addresses[outlet.receiver], ready.release)
        for _ in self._outlets:
            if not ready.acquire(timeout=CONNECT_S):
                self._failed("a partition did not take our stream in time")
                return
        if self._server.wait_all(CONNECT_S):
            on_done()
        else:
            self._failed("a partition did not open its stream in time")

    def _failed(self, reason: str) -> None:
        self._on_failure(reason)

    def _hello(self, edge: int, sender: int, receiver: int) -> Hello:
        return Hello(self._job, edge, sender, self._epochs[sender], receiver, self._epochs[receiver])
