"""The ledger: one writer wins a number, losers learn that they are fenced, and damage is named."""

from pathlib import Path

import pytest

from millrace.errors import Corrupt, Fenced, Invalid, Unavailable
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.ledger import (
    FOLD_EVERY,
    Assigned,
    Assignment,
    CheckpointDecided,
    CheckpointKind,
    JobCreated,
    Ledger,
    PartitionPlan,
    Record,
    Rescale,
    Savepoint,
    Stop,
    Takeover,
    create_job,
    decode_record,
    decode_state,
    encode_record,
    encode_state,
)
from millrace.state.store import ObjectStore, open_store

CREATED = JobCreated("j", "plan", 256, 2)
ASSIGNMENT = Assignment((PartitionPlan(0, 0, 128, (("s", "a"),)), PartitionPlan(1, 128, 256, ())))


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return open_store(f"file://{tmp_path}/a b" if request.param == "file" else f"memory://{tmp_path}")


def decided(epoch: int, count: int, oldest: CheckpointNumber | None = None) -> CheckpointDecided:
    number = CheckpointNumber(epoch, count)
    return CheckpointDecided(number, f"m{number}", CheckpointKind.PERIODIC, oldest or number)


def test_store_creates_once_and_lists_in_order(store: ObjectStore) -> None:
    assert store.create("a/2", b"two") and store.create("a/1", b"one")
    assert not store.create("a/1", b"other")
    assert store.get("a/1") == b"one" and store.get("a/3") is None
    assert store.get_range("a/2", 1, 2) == b"wo"
    assert store.list("a") == ["a/1", "a/2"] and store.list("a", after="a/1") == ["a/2"]
    assert store.list("nothing") == []
    store.delete(["a/1", "a/9"])
    assert store.list("a") == ["a/2"]


def test_unknown_store_is_refused() -> None:
    with pytest.raises(Invalid, match="ftp"):
        open_store("ftp://x")


def test_second_writer_of_a_number_is_fenced_and_reads_on(store: ObjectStore) -> None:
    first = create_job(store, CREATED, "one")
    second = Ledger(store, "j", "two")
    second.read()
    first.append(2, Takeover(1, "one"))
    with pytest.raises(Fenced, match="one leads it under epoch 1"):
        second.append(2, Takeover(1, "two"))
    assert second.state == first.state and second.next_seq == 3
    second.append(3, Takeover(2, "two"))
    with pytest.raises(Fenced):
        first.append(3, decided(1, 1))
    assert first.state.latest is None


def test_equal_records_of_two_writers_have_one_winner(store: ObjectStore) -> None:
    first = create_job(store, CREATED, "one")
    second = Ledger(store, "j", "two")
    second.read()
    first.append(2, Takeover(1, "same"))
    with pytest.raises(Fenced):
        second.append(2, Takeover(1, "same"))


def test_append_whose_answer_was_lost_may_be_tried_again(store: ObjectStore) -> None:
    class Forgetful:
        fails = True

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        def create(self, key: str, data: bytes) -> bool:
            created = store.create(key, data)
            if self.fails:
                self.fails = False
                raise Unavailable("lost")
            return created

    create_job(store, CREATED, "one")
    ledger = Ledger(Forgetful(), "j", "one")  # type: ignore[arg-type]
    ledger.read()
    with pytest.raises(Unavailable):
        ledger.append(2, Takeover(1, "one"))
    assert ledger.append(2, Takeover(1, "one")).epoch == 1


def test_fold_keeps_what_recovery_needs(store: ObjectStore) -> None:
    ledger = create_job(store, CREATED, "one")
    records: list[Record] = [
        Takeover(1, "one"),
        Assigned(1, ASSIGNMENT),
        decided(1, 1),
        Savepoint(1, CheckpointNumber(1, 1), "before"),
        decided(1, 2),
        Takeover(2, "one", (1,)),
        decided(1, 3, CheckpointNumber(1, 2)),
        Rescale(1, 5),
        Stop(1, "done"),
    ]
    for seq, record in enumerate(records, 2):
        ledger.append(seq, record)
        assert decode_record(encode_record(seq, record, "w"), "x", seq) == ("w", record)
    state = ledger.state
    assert [str(d.number) for d in state.checkpoints] == ["1.2", "1.3"]
    assert str(state.savepoints["before"].number) == "1.1"
    assert state.owners == {0: 1, 1: 2} and state.target == 5 and state.stopped == "done"
    assert decode_state(encode_state(9, state), "x") == (9, state)
    again = Ledger(store, "j", "two")
    assert again.read() == state


@pytest.mark.parametrize(
    "record", [decided(1, 9), Takeover(2, "x"), Takeover(4, "x", (0,)), Assigned(9, ASSIGNMENT), CREATED]
)
def test_record_that_could_not_have_followed_is_refused(record: Record, store: ObjectStore) -> None:
    ledger = create_job(store, CREATED, "one")
    ledger.append(2, Takeover(1, "one"))
    ledger.append(3, Takeover(2, "two"))
    with pytest.raises(Corrupt):
        ledger.append(4, record)


def test_reader_starts_from_the_last_fold_and_a_damaged_one_is_passed_over() -> None:
    store = open_store("memory://folds")
    ledger = create_job(store, CREATED, "one")
    for epoch in range(1, 2 * FOLD_EVERY + 5):
        ledger.append(epoch + 1, Takeover(epoch, "one"))
    assert len(store.list("j/folds")) == 2
    reader = Ledger(store, "j", "two")
    assert reader.read() == ledger.state
    data = store.get(f"j/folds/{2 * FOLD_EVERY:012d}")
    assert data is not None
    store.delete([f"j/folds/{2 * FOLD_EVERY:012d}"])
    store.create(f"j/folds/{2 * FOLD_EVERY:012d}", data[:-3])
    assert Ledger(store, "j", "three").read() == ledger.state


def test_damaged_record_is_named() -> None:
    store = open_store("memory://damaged")
    create_job(store, CREATED, "one")
    for wrong in (b"", b"short", encode_record(1, CREATED, "w")[:-1] + b"?", encode_record(7, CREATED, "w")):
        store.delete(["j/ledger/000000000001"])
        store.create("j/ledger/000000000001", wrong)
        with pytest.raises(Corrupt, match="j/ledger/000000000001"):
            Ledger(store, "j", "two").read()


def test_existing_job_is_not_created_again(store: ObjectStore) -> None:
    create_job(store, CREATED, "one")
    with pytest.raises(Invalid, match="exists"):
        create_job(store, CREATED, "two")
