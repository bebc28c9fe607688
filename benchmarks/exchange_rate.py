"""Arrow bytes a second from one process to another: over the exchange, and over bare Flight with the same batches."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection

import numpy as np
import pyarrow as pa
from pyarrow import flight

from millrace.cluster.exchange.channels import ROOM_BYTES, ExchangeSender, Inbox, Outlet
from millrace.cluster.exchange.frames import Frame
from millrace.cluster.exchange.peers import FlightPeers
from millrace.operators.batch import Batch

ROWS = 65_536
BYTES = 2 << 30
SCHEMA = pa.schema([("k", pa.int64()), ("v", pa.float64()), ("t", pa.int64()), ("s", pa.string())])
EPOCHS = {0: 1, 1: 1}


def measured() -> dict[str, float]:
    """GB/s of each way."""
    return {
        "exchange": _in_two_processes(_take_exchange, _send_exchange),
        "flight": _in_two_processes(_take_raw, _send_raw),
    }


def _batch() -> pa.RecordBatch:
    numbers = np.arange(ROWS)
    texts = pa.array([f"{n:016d}" for n in range(ROWS)])
    return pa.RecordBatch.from_arrays(
        [pa.array(numbers), pa.array(numbers / 3), pa.array(numbers * 7), texts], schema=SCHEMA
    )


def _in_two_processes(take: object, send: object) -> float:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    receiver = context.Process(target=take, args=(theirs,), daemon=True)  # type: ignore[arg-type]
    receiver.start()
    try:
        rate: float = send(ours)  # type: ignore[operator]
    finally:
        receiver.kill()
        receiver.join()
    return rate


class _ToOther(Outlet):
    """Takes what is for this side itself and drops it, so that every byte that counts goes over."""

    def put(self, frame: Frame) -> None:
        return

    @property
    def waiting(self) -> int:
        return 0


def _send_exchange(pipe: Connection) -> float:
    peers = FlightPeers("rate", 0, EPOCHS, "127.0.0.1")
    outlet = peers.outlet(0, 1, SCHEMA)
    inbox = Inbox([(0, 0), (0, 1)], lambda: None)
    pipe.send(peers.address)
    peers.introduce(EPOCHS, {0: peers.address, 1: pipe.recv()})
    ready: list[bool] = []
    failures: list[str] = []
    peers.connect([0], inbox, lambda: ready.append(True), failures.append)
    while not ready:
        assert not failures, failures
        time.sleep(0.01)
    owners = np.ones(256, np.int16)
    sender = ExchangeSender((0,), 256, owners, [_ToOther(), outlet])
    batch = Batch(_batch())
    total = BYTES // batch.data.nbytes
    sender.receive(0, batch)  # loads the kernels
    begun = time.perf_counter()
    for _ in range(total):
        while outlet.waiting >= ROOM_BYTES:
            time.sleep(0.0005)
        sender.receive(0, batch)
    sender.barrier(1)
    pipe.recv()
    return total * batch.data.nbytes / (time.perf_counter() - begun) / 1e9


def _take_exchange(pipe: Connection) -> None:
    peers = FlightPeers("rate", 1, EPOCHS, "127.0.0.1")
    inbox = Inbox([(0, 0), (0, 1)], lambda: None)
    peers.outlet(0, 0, SCHEMA)
    pipe.send(peers.address)
    peers.introduce(EPOCHS, {0: pipe.recv(), 1: peers.address})
    peers.connect([0], inbox, lambda: None, lambda reason: None)
    while True:
        frame = inbox.pop((0, 0))
        if frame is None:
            time.sleep(0.0005)
        elif frame.batch is None:
            pipe.send("done")


class _Raw(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    def do_put(self, context: object, descriptor: object, reader: object, writer: object) -> None:
        for _ in reader:  # type: ignore[attr-defined]
            pass


def _send_raw(pipe: Connection) -> float:
    client = flight.connect(pipe.recv())
    writer, _ = client.do_put(flight.FlightDescriptor.for_command(b"raw"), SCHEMA)
    batch = _batch()
    total = BYTES // batch.nbytes
    writer.write_batch(batch)
    begun = time.perf_counter()
    for _ in range(total):
        writer.write_batch(batch)
    writer.close()
    return total * batch.nbytes / (time.perf_counter() - begun) / 1e9


def _take_raw(pipe: Connection) -> None:
    server = _Raw("grpc://127.0.0.1:0")
    pipe.send(f"grpc://127.0.0.1:{server.port}")
    server.serve()
