"""Chains restore what was captured, damage is named, and pruning removes nothing that is needed."""

import random
from dataclasses import replace

import pyarrow as pa
import pytest

from millrace.errors import Corrupt
from millrace.state.checkpoints import snapshots
from millrace.state.checkpoints.manifest import (
    Contribution,
    Manifest,
    OutboxRef,
    SourcePoint,
    SplitPoint,
    TableChain,
    decode_manifest,
    encode_manifest,
    manifest_key,
)
from millrace.state.checkpoints.number import NO_CHECKPOINT, CheckpointNumber
from millrace.state.checkpoints.pruning import Pruner, read_manifest
from millrace.state.checkpoints.snapshots import (
    ChainWriter,
    TableCapture,
    data_key,
    read_chain,
    write_object,
)
from millrace.state.ledger import CheckpointKind, Decided, JobState
from millrace.state.store import ObjectStore, open_store

SCHEMA = pa.schema([("k", pa.int64()), ("v", pa.int64()), ("_vnode", pa.uint16())])
VNODES = 8


@pytest.fixture
def store(request: pytest.FixtureRequest) -> ObjectStore:
    return open_store(f"memory://{request.node.name}")


def table(rows: dict[int, int]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {"k": list(rows), "v": list(rows.values()), "_vnode": [k % VNODES for k in rows]}, SCHEMA
    )


def rows_of(batch: pa.RecordBatch) -> dict[int, int]:
    return dict(zip(batch["k"].to_pylist(), batch["v"].to_pylist(), strict=True))


def chain_of(writer: ChainWriter) -> TableChain:
    (chain,) = writer.chains
    return chain


def test_chain_restores_every_capture_and_stays_short(store: ObjectStore) -> None:
    rng = random.Random(3)
    writer = ChainWriter(store, "j", 0, 1, links_max=4)
    held: dict[int, int] = dict.fromkeys(range(50), 0)
    writer.write(CheckpointNumber(1, 1), {("n", "t"): TableCapture(("k",), table(held), None, True)})
    for count in range(2, 30):
        gone = rng.sample(sorted(held), 3)
        for key in gone:
            del held[key]
        changed = {rng.randrange(80): rng.randrange(1000) for _ in range(5)}
        held.update(changed)
        deleted = table(dict.fromkeys(gone, 0)).select(["k", "_vnode"])
        capture = TableCapture(("k",), table(changed), deleted, False)
        writer.write(CheckpointNumber(1, count), {("n", "t"): capture})
        chain = chain_of(writer)
        assert len(chain.links) <= 4
        assert rows_of(read_chain(store, chain)) == held
        part = rows_of(read_chain(store, chain, range(2, 5)))
        assert part == {k: v for k, v in held.items() if 2 <= k % VNODES < 5}


def test_nothing_changed_writes_nothing(store: ObjectStore) -> None:
    writer = ChainWriter(store, "j", 0, 1)
    writer.write(CheckpointNumber(1, 1), {("n", "t"): TableCapture(("k",), table({1: 1}), None, True)})
    before = store.list("j")
    writer.write(CheckpointNumber(1, 2), {("n", "t"): TableCapture(("k",), table({}), None, False)})
    assert store.list("j") == before


def test_large_objects_are_read_by_range(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "WHOLE_READ_BYTES", 0)
    monkeypatch.setattr(snapshots, "_TAIL_BYTES", 16)
    writer = ChainWriter(store, "j", 0, 1)
    held = {k: k for k in range(100)}
    writer.write(CheckpointNumber(1, 1), {("n", "t"): TableCapture(("k",), table(held), None, True)})
    chain = chain_of(writer)
    monkeypatch.setattr(store, "get", None)
    assert rows_of(read_chain(store, chain, range(3, 4))) == {k: k for k in held if k % VNODES == 3}


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_damaged_object_is_named(store: ObjectStore, damage: str) -> None:
    writer = ChainWriter(store, "j", 0, 1)
    writer.write(CheckpointNumber(1, 1), {("n", "t"): TableCapture(("k",), table({1: 1}), None, True)})
    chain = chain_of(writer)
    key = chain.links[0].rows.key
    data = store.get(key)
    assert data is not None
    store.delete([key])
    if damage != "missing":
        store.create(key, data[:-5] if damage == "cut" else data[:20] + b"?" + data[21:])
    with pytest.raises(Corrupt, match=key):
        read_chain(store, chain)


def test_object_is_written_again_only_with_the_same_bytes(store: ObjectStore) -> None:
    assert write_object(store, "a", b"x") == write_object(store, "a", b"x")
    with pytest.raises(Corrupt, match="a exists"):
        write_object(store, "a", b"y")


def manifest_of(
    store: ObjectStore, writer: ChainWriter, count: int, pending: tuple[OutboxRef, ...]
) -> Decided:
    number = CheckpointNumber(1, count)
    point = SourcePoint("s", {"a": SplitPoint({"offset": count}, 5, 7, 9)}, frozenset({"b"}), -3)
    contribution = Contribution(0, 1, 0, VNODES, writer.chains, (point,), pending[-1:])
    manifest = Manifest("j", number, VNODES, (contribution,), pending, {"by": "test"})
    data = encode_manifest(manifest)
    assert decode_manifest(data, "m") == manifest
    write_object(store, manifest_key("j", number), data)
    return Decided(number, manifest_key("j", number), CheckpointKind.PERIODIC)


def outbox_of(store: ObjectStore, count: int) -> OutboxRef:
    number = CheckpointNumber(1, count)
    ref = write_object(store, data_key("j", number, 0, 1, "outbox"), b"rows %d" % count)
    return OutboxRef("out", 0, number, ref)


def test_pruning_keeps_chains_savepoints_and_what_kept_checkpoints_publish(store: ObjectStore) -> None:
    writer = ChainWriter(store, "j", 0, 1, links_max=3)
    outboxes: list[OutboxRef] = []
    decided: list[Decided] = []
    for count in range(1, 13):
        capture = TableCapture(("k",), table({count: count}), None, count == 1)
        writer.write(CheckpointNumber(1, count), {("n", "t"): capture})
        outboxes.append(outbox_of(store, count))
        decided.append(manifest_of(store, writer, count, tuple(outboxes[-2:])))
    garbage = write_object(store, data_key("j", CheckpointNumber(1, 4), 3, 9, "0-whole"), b"of a zombie").key
    ahead = write_object(store, data_key("j", CheckpointNumber(2, 1), 0, 2, "0-whole"), b"under way").key
    state = JobState("j", checkpoints=tuple(decided[-2:]), savepoints={"kept": decided[4]})
    pruner = Pruner(store, "j")
    assert pruner.prune(state) > 0
    left = set(store.list("j"))
    assert garbage not in left and ahead in left
    for kept in (decided[4], decided[10], decided[11]):
        manifest = read_manifest(store, kept.manifest)
        for chain in manifest.contributions[0].tables:
            assert len(rows_of(read_chain(store, chain))) == kept.number.count
    assert [o.number.count for o in outboxes if o.content.key in left] == [4, 5, 10, 11, 12]
    assert decided[6].manifest not in left
    assert pruner.prune(state) == 0


def test_pruning_stops_where_a_kept_manifest_is_damaged(store: ObjectStore) -> None:
    writer = ChainWriter(store, "j", 0, 1)
    writer.write(CheckpointNumber(1, 1), {("n", "t"): TableCapture(("k",), table({1: 1}), None, True)})
    first, second = manifest_of(store, writer, 1, ()), manifest_of(store, writer, 2, ())
    store.delete([first.manifest])
    before = store.list("j")
    with pytest.raises(Corrupt, match=first.manifest):
        Pruner(store, "j").prune(JobState("j", checkpoints=(first, second)))
    assert store.list("j") == before
    assert Pruner(store, "j").prune(JobState("j")) == 0


@pytest.mark.parametrize("damage", [b"", b"x" * 100])
def test_damaged_manifest_is_named(store: ObjectStore, damage: bytes) -> None:
    store.create("j/manifests/1", damage)
    with pytest.raises(Corrupt, match="j/manifests/1"):
        read_manifest(store, "j/manifests/1")


def test_numbers_order_as_their_values() -> None:
    numbers = [CheckpointNumber(e, c) for e in (0, 1, 7) for c in (0, 1, 2**31)]
    assert sorted(numbers, key=lambda n: n.value) == sorted(numbers)
    assert all(CheckpointNumber.of(n.value) == n for n in numbers)
    assert str(replace(NO_CHECKPOINT, count=3)) == "0.3"
