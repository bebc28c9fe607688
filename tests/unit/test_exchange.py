"""Exchanges: rows reach the owner of their key, whole and in order; streams of other epochs are refused."""

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from millrace.cluster.exchange.channels import ROOM_BYTES, ExchangeSender, Inbox, LocalOutlet
from millrace.cluster.exchange.frames import Frame, Kind, decode_frame, encode_head
from millrace.cluster.exchange.peers import FlightPeers
from millrace.cluster.exchange.security import ExchangeTls
from millrace.errors import Corrupt, Invalid
from millrace.operators.batch import Batch
from millrace.state.hashing import hash_columns, vnodes_of

SCHEMA = pa.schema([("k", pa.string()), ("v", pa.int64())])
VNODES = 64


def owners(partitions: int) -> np.ndarray:
    return np.repeat(np.arange(partitions, dtype=np.int16), VNODES // partitions)


def batch_of(rows: int, seed: int = 0) -> Batch:
    random = np.random.default_rng(seed)
    keys = [None if k == 0 else f"ключ-{k}" for k in random.integers(0, 50, rows)]
    data = pa.record_batch([pa.array(keys, pa.string()), pa.array(np.arange(rows))], schema=SCHEMA)
    return Batch(data, random.choice([-1, 1], rows), random.integers(0, 9, rows))


def taken(inbox: Inbox, channel: tuple[int, int]) -> list[Frame]:
    found = []
    while (frame := inbox.pop(channel)) is not None:
        found.append(frame)
    return found


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def test_rows_go_to_the_owner_of_their_key_in_order() -> None:
    inboxes = [Inbox([(0, 0)], lambda: None) for _ in range(4)]
    sender = ExchangeSender((0,), VNODES, owners(4), [LocalOutlet(i, (0, 0)) for i in inboxes])
    whole = batch_of(5_000)
    sender.receive(0, whole.slice(100, 4_000))
    sender.advance(0, 7)
    sender.barrier(3)
    seen = 0
    for owner, inbox in enumerate(inboxes):
        rows, watermark, barrier = taken(inbox, (0, 0))
        assert (watermark.kind, watermark.value) == (Kind.WATERMARK, 7)
        assert (barrier.kind, barrier.value) == (Kind.BARRIER, 3)
        batch = rows.batch
        assert batch is not None and batch.weights is not None and batch.row_watermarks is not None
        vnodes = vnodes_of(hash_columns([batch.data.column(0)], batch.num_rows), VNODES)
        assert set((vnodes // 16).tolist()) == {owner}
        places = np.asarray(batch.data.column(1))
        assert (np.diff(places) > 0).all()
        assert whole.weights is not None and (batch.weights == whole.weights[places]).all()
        seen += batch.num_rows
    assert seen == 4_000


def test_a_frame_of_another_epoch_or_out_of_turn_is_refused() -> None:
    head = memoryview(encode_head(Frame(Kind.WATERMARK, 5), 3, 10))
    assert decode_frame(head, None, 3, 10).value == 5
    for epoch, sequence in ((4, 10), (3, 11)):
        with pytest.raises(Corrupt, match="MR5030"):
            decode_frame(head, None, epoch, sequence)


def peers_of(epochs: dict[int, dict[int, int]]) -> dict[int, FlightPeers]:
    found = {p: FlightPeers("job", p, known, "127.0.0.1") for p, known in epochs.items()}
    addresses = {p: peers.address for p, peers in found.items()}
    for p, peers in found.items():
        peers.introduce(epochs[p], addresses)
    return found


def test_flight_carries_rows_weights_marks_and_barriers() -> None:
    epochs = {0: 5, 1: 6}
    peers = peers_of({0: epochs, 1: epochs})
    inboxes = {p: Inbox([(0, 0), (0, 1)], lambda: None) for p in peers}
    outlet = peers[0].outlet(0, 1, SCHEMA)
    back = peers[1].outlet(0, 0, SCHEMA)
    failures: list[str] = []
    done = threading.Semaphore(0)
    outlet.put(Frame(Kind.WATERMARK, 1))
    for p in peers:
        peers[p].connect([0], inboxes[p], done.release, failures.append)
    assert done.acquire(timeout=20) and done.acquire(timeout=20)
    sent = batch_of(1_000)
    outlet.put(Frame(Kind.ROWS, 0, sent.slice(10, 500)))
    outlet.put(Frame(Kind.ROWS, 0, Batch(sent.data)))
    outlet.put(Frame(Kind.BARRIER, 1 << 40))
    got: list[Frame] = []

    def all_came() -> bool:
        got.extend(taken(inboxes[1], (0, 0)))
        return len(got) == 4

    wait_for(all_came)
    assert got[0].value == 1 and got[3].value == 1 << 40
    first = got[1].batch
    assert first is not None and sent.weights is not None and sent.row_watermarks is not None
    assert first.data.equals(sent.data.slice(10, 500))
    assert (first.weights == sent.weights[10:510]).all()
    assert (first.row_watermarks == sent.row_watermarks[10:510]).all()
    assert got[2].batch is not None and got[2].batch.weights is None
    assert not failures
    assert back.waiting == 0
    for each in peers.values():
        each.close()


def test_memory_is_bounded_when_the_receiver_does_not_take() -> None:
    epochs = {0: 1, 1: 1}
    peers = peers_of({0: epochs, 1: epochs})
    inboxes = {p: Inbox([(0, 0), (0, 1)], lambda: None) for p in peers}
    outlet = peers[0].outlet(0, 1, SCHEMA)
    peers[1].outlet(0, 0, SCHEMA)
    done = threading.Semaphore(0)
    for p in peers:
        peers[p].connect([0], inboxes[p], done.release, lambda reason: None)
    assert done.acquire(timeout=20) and done.acquire(timeout=20)
    frame = Frame(Kind.ROWS, 0, batch_of(50_000))
    total = 0
    while outlet.waiting < ROOM_BYTES and total < 100:
        outlet.put(frame)
        total += 1
        time.sleep(0.002)
    assert total < 100, "the sender was never held up"
    assert inboxes[1].waiting((0, 0)) <= ROOM_BYTES + frame.size
    came = 0

    def all_came() -> bool:
        nonlocal came
        came += len(taken(inboxes[1], (0, 0)))
        return came == total

    wait_for(all_came)
    for each in peers.values():
        each.close()


def test_a_stream_of_another_epoch_is_refused() -> None:
    peers = peers_of({0: {0: 1, 1: 1}, 1: {0: 2, 1: 2}})
    inboxes = {p: Inbox([(0, 0), (0, 1)], lambda: None) for p in peers}
    outlet = peers[0].outlet(0, 1, SCHEMA)
    peers[1].outlet(0, 0, SCHEMA)
    done = threading.Semaphore(0)
    for p in peers:
        peers[p].connect([0], inboxes[p], done.release, lambda reason: None)
    outlet.put(Frame(Kind.WATERMARK, 1))
    assert not done.acquire(timeout=1.0)
    assert inboxes[1].pop((0, 0)) is None
    for each in peers.values():
        each.close()


def certificates(folder: Path, authority: str, name: str) -> ExchangeTls:
    """A key and a certificate for `millrace`, signed by an authority that is made where there is none."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout")
    if not (folder / f"{authority}.pem").exists():
        openssl(
            "req",
            "-x509",
            *new_key,
            f"{authority}.key",
            "-out",
            f"{authority}.pem",
            "-subj",
            f"/CN={authority}",
        )
    openssl("req", *new_key, f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=millrace")
    (folder / "names").write_text("subjectAltName=DNS:millrace")
    signer = ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial")
    openssl("x509", "-req", "-in", f"{name}.csr", *signer, "-out", f"{name}.pem", "-extfile", "names")
    return ExchangeTls(*(str(folder / file) for file in (f"{name}.pem", f"{name}.key", f"{authority}.pem")))


def connected(tls: dict[int, ExchangeTls | None]) -> bool:
    """Whether two partitions with these certificates come together, and rows go over."""
    epochs = {0: 1, 1: 1}
    peers = {p: FlightPeers("job", p, epochs, "127.0.0.1", tls[p]) for p in epochs}
    addresses = {p: peers[p].address for p in peers}
    inboxes = {p: Inbox([(0, 0), (0, 1)], lambda: None) for p in peers}
    outlet = peers[0].outlet(0, 1, SCHEMA)
    peers[1].outlet(0, 0, SCHEMA)
    done = threading.Semaphore(0)
    for p, each in peers.items():
        each.introduce(epochs, addresses)
        each.connect([0], inboxes[p], done.release, lambda reason: None)
    together = done.acquire(timeout=3.0) and done.acquire(timeout=3.0)
    if together:
        outlet.put(Frame(Kind.ROWS, 0, batch_of(100)))
        wait_for(lambda: inboxes[1].waiting((0, 0)) > 0)
    for each in peers.values():
        each.close()
    return together


def test_partitions_talk_under_certificates_of_one_authority_only(tmp_path: Path) -> None:
    ours = [certificates(tmp_path, "ours", name) for name in ("a", "b")]
    theirs = certificates(tmp_path, "theirs", "c")
    assert connected({0: ours[0], 1: ours[1]})
    assert not connected({0: ours[0], 1: theirs})
    assert not connected({0: ours[0], 1: None})


def test_certificates_that_a_node_does_not_have_are_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="MR1599"):
        FlightPeers(
            "job", 0, {0: 1}, "127.0.0.1", ExchangeTls("/nowhere/a.pem", "/nowhere/a.key", "/nowhere/ca.pem")
        )
