"""What a new plan makes of the state of an old one, and which checkpoint a job is resumed from."""

from pathlib import Path

import pyarrow as pa
import pytest

from millrace.cluster.job import JobSpec, read_job, settled, spec_key, write_job
from millrace.cluster.protocol.messages import ReadManifest
from millrace.cluster.resuming import find_checkpoint, kept_checkpoints, kept_in, manifest_for, resumption
from millrace.cluster.upgrade import compare, migrated, renamed_sources
from millrace.errors import Corrupt, Invalid
from millrace.operators.source import SourceInput
from millrace.state.checkpoints.manifest import (
    Contribution,
    Manifest,
    ObjectRef,
    OutboxRef,
    SourcePoint,
    SplitPoint,
    encode_manifest,
    manifest_key,
)
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.checkpoints.snapshots import ChainWriter, TableCapture, write_object
from millrace.state.ledger import (
    CheckpointDecided,
    CheckpointKind,
    JobCreated,
    Ledger,
    Resumed,
    Savepoint,
    Stop,
    Takeover,
    create_job,
    decode_state,
    encode_state,
)
from millrace.state.store import ObjectStore, open_store
from millrace.submitting import job_spec, spec_after

SOURCE = "CREATE SOURCE s (k STRING, v BIGINT, w BIGINT) WITH (connector='datagen', rows='10');"
COUNTED = "CREATE SINK counted FROM (SELECT k, count(*) AS n FROM s GROUP BY k EMIT FINAL) INTO FILE (path='/tmp/never/a', format='json');"
SUMMED = "CREATE SINK summed FROM (SELECT k, sum(v) AS n FROM s GROUP BY k EMIT FINAL) INTO FILE (path='/tmp/never/b', format='json');"
FIRST = CheckpointNumber(1, 1)


def spec_of(*statements: str, vnodes: str = "256") -> JobSpec:
    return settled(
        job_spec(
            SOURCE + "".join(statements),
            job="j",
            partitions=2,
            checkpoint_interval=1,
            variables={},
            settings={"vnodes": vnodes},
        ),
        "once",
    )


def after(old: JobSpec, *statements: str) -> JobSpec:
    return spec_after(old, SOURCE + "".join(statements), {}, {})


def source_of(spec: JobSpec) -> list[str]:
    return [node.hash for node in spec.plan.nodes if isinstance(node.spec, SourceInput)]


def stateful(spec: JobSpec) -> list[str]:
    return [node.hash for node in spec.plan.nodes if "aggregate" in node.spec.__class__.__name__.lower()]


def manifest_of(
    store: ObjectStore, spec: JobSpec, number: CheckpointNumber, plan: str, *pending: OutboxRef
) -> Manifest:
    writer = ChainWriter(store, "j", 0, 1)
    rows = pa.RecordBatch.from_pydict(
        {"_vnode": pa.array([0, 1], pa.uint16()), "k": ["a", "b"], "n": pa.array([1, 2])}
    )
    tables = {(node, "t"): TableCapture(("k",), rows, None, True) for node in stateful(spec)}
    chains = writer.write(number, tables)
    points = tuple(
        SourcePoint(node, {"0": SplitPoint({"row": 5}, 0)}, frozenset(), 0) for node in source_of(spec)
    )
    contribution = Contribution(0, 1, 0, spec.vnodes, chains, points)
    found = Manifest("j", number, spec.vnodes, (contribution,), pending, {"plan": plan})
    write_object(store, manifest_key("j", number), encode_manifest(found))
    return found


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(f"file://{tmp_path}")


def test_what_did_not_change_is_kept_and_what_is_new_starts_empty(store: ObjectStore) -> None:
    old = spec_of(COUNTED)
    manifest = manifest_of(store, old, FIRST, "old")
    found = compare(old, after(old, COUNTED, SUMMED), manifest)
    assert len(found.kept) == 1 and "counted" in found.kept[0] and "bytes" in found.kept[0]
    assert not found.dropped and not found.ended
    assert len(found.empty) == 1 and "summed" in found.empty[0]
    found = compare(old, after(old, SUMMED), manifest)
    assert not found.kept and "counted" in found.dropped[0] and "summed" in found.empty[0]
    assert found.ended == ("sink counted",)


def test_a_query_that_is_added_does_not_change_what_others_read(store: ObjectStore) -> None:
    old = spec_of(COUNTED)
    new = after(old, SUMMED, COUNTED)
    assert set(stateful(old)) < set(stateful(new))
    found = compare(old, new, manifest_of(store, old, FIRST, "old"))
    assert found.continued == ("source s",), "the old query goes on where it stands"
    assert found.begun == ("source s",), "the new one needs another column, and reads by itself"


def test_a_source_that_reads_other_columns_keeps_its_positions(store: ObjectStore) -> None:
    old, new = spec_of(COUNTED), after(spec_of(COUNTED), SUMMED)
    assert renamed_sources(old.plan, new.plan) == dict(zip(source_of(old), source_of(new), strict=True))
    moved = migrated(manifest_of(store, old, FIRST, "old"), old, new)
    (contribution,) = moved.contributions
    assert not contribution.tables
    assert [s.node for s in contribution.sources] == source_of(new)
    assert contribution.sources[0].splits["0"].position == {"row": 5}


def test_the_same_sql_is_the_same_plan() -> None:
    old = spec_of(COUNTED, SUMMED)
    assert spec_key(after(old, COUNTED, SUMMED)) == spec_key(old)
    assert spec_key(after(old, COUNTED)) != spec_key(old)


def test_rows_for_a_sink_that_goes_are_published_first(store: ObjectStore) -> None:
    old = spec_of(COUNTED)
    sink = next(iter(old.sinks()))
    outbox = OutboxRef(sink, 0, FIRST, ObjectRef("x", 1, b""))
    manifest = manifest_of(store, old, FIRST, "old", outbox)
    assert migrated(manifest, old, old).pending == (outbox,)
    with pytest.raises(Invalid, match="counted") as caught:
        migrated(manifest, old, after(old, SUMMED))
    assert caught.value.code == "MR1594"


def test_vnodes_are_for_life() -> None:
    with pytest.raises(Invalid, match="256") as caught:
        compare(spec_of(COUNTED), spec_of(COUNTED, vnodes="64"), None)
    assert caught.value.code == "MR1595"


def test_what_a_stop_has_published_is_not_pending_any_more(store: ObjectStore) -> None:
    old = spec_of(COUNTED)
    ledger = create_job(store, JobCreated("j", write_job(store, old), old.vnodes, 2), "test")
    ledger.append(2, Takeover(1, "test"))
    outbox = OutboxRef(next(iter(old.sinks())), 0, FIRST, ObjectRef("x", 1, b""))
    manifest_of(store, old, FIRST, spec_key(old), outbox)
    key = manifest_key("j", FIRST)
    ledger.append(3, CheckpointDecided(FIRST, key, CheckpointKind.STOP, FIRST, "saved"))
    new = after(old, SUMMED)
    with pytest.raises(Invalid, match="MR1594"):
        resumption(store, ledger.state, new, None)
    resumption(store, ledger.state, new, None, stops=True)
    state = ledger.append(4, Stop(1, "asked"))
    assert state.latest is not None and state.latest == state.savepoints["saved"]
    assert decode_state(encode_state(4, state), "fold") == (4, state)
    assert resumption(store, state, new, None).upgrade is not None
    assert not manifest_for(store, ReadManifest(FIRST, key, True), spec_key(new), new).pending
    assert manifest_for(store, ReadManifest(FIRST, key, False), spec_key(old), old).pending == (outbox,)


def job_in(store: ObjectStore, spec: JobSpec) -> Ledger:
    """A job with checkpoints 1.1, which is savepoint `first`, and 1.2; it was stopped."""
    ledger = create_job(store, JobCreated("j", write_job(store, spec), spec.vnodes, 2), "test")
    ledger.append(2, Takeover(1, "test"))
    for count in (1, 2):
        number = CheckpointNumber(1, count)
        manifest_of(store, spec, number, spec_key(spec))
        ledger.append(
            ledger.next_seq,
            CheckpointDecided(number, manifest_key("j", number), CheckpointKind.PERIODIC, FIRST),
        )
    ledger.append(ledger.next_seq, Savepoint(1, FIRST, "first"))
    ledger.append(ledger.next_seq, Stop(1, "asked"))
    return ledger


def test_a_checkpoint_is_chosen_by_name_or_number(store: ObjectStore) -> None:
    state = job_in(store, spec_of(COUNTED)).state
    assert [(k.number, k.label) for k in kept_checkpoints(state)] == [("1.1", "first"), ("1.2", None)]
    assert find_checkpoint(state, "first") == find_checkpoint(state, "1.1")
    assert find_checkpoint(state, "1.2") == state.latest
    for wrong in ("second", "1.3", "1", "x.y"):
        with pytest.raises(Invalid, match=r"first \(1.1\), 1.2") as caught:
            find_checkpoint(state, wrong)
        assert caught.value.code == "MR1596"


def test_a_job_goes_on_from_the_chosen_checkpoint_with_the_chosen_plan(store: ObjectStore) -> None:
    old = spec_of(COUNTED)
    ledger = job_in(store, old)
    same = resumption(store, ledger.state, None, None)
    assert same.record == Resumed(2, spec_key(old)) and same.upgrade is None
    new = after(old, COUNTED, SUMMED)
    found = resumption(store, ledger.state, new, "first")
    assert found.record == Resumed(2, spec_key(new), FIRST)
    assert found.upgrade is not None and found.spec == new
    state = ledger.append(ledger.next_seq, found.record)
    assert state.plan == spec_key(new) and state.stopped is None
    assert [d.number for d in state.checkpoints] == [FIRST]
    write_job(store, new)
    assert read_job(store, state.plan) == new
    restored = manifest_for(store, ReadManifest(FIRST, manifest_key("j", FIRST)), spec_key(new), new)
    assert {chain.node for chain in restored.contributions[0].tables} == set(stateful(old))


def test_a_stopped_job_is_led_by_nobody_until_it_is_resumed(store: ObjectStore) -> None:
    ledger = job_in(store, spec_of(COUNTED))
    with pytest.raises(Corrupt, match="was not resumed"):
        ledger.append(ledger.next_seq, Takeover(2, "test"))
    ledger.append(ledger.next_seq, Resumed(2, "plan"))
    with pytest.raises(Corrupt, match="epoch 2 was reached before"):
        ledger.append(ledger.next_seq, Resumed(2, "plan"))
    with pytest.raises(Corrupt, match="no such checkpoint"):
        ledger.append(ledger.next_seq, Resumed(3, "plan", CheckpointNumber(7, 7)))
    assert ledger.append(ledger.next_seq, Takeover(3, "test")).coordinator == 3


@pytest.mark.parametrize(
    ("code", "damage"),
    [("MR5010", None), ("MR5011", lambda data: data[:-1]), ("MR5012", lambda data: data[:-1] + b"?")],
)
def test_damage_is_found_and_named(store: ObjectStore, code: str, damage: object) -> None:
    job_in(store, spec_of(COUNTED))
    assert all(not wrong for _, wrong in kept_in(store, "j", verify=True))
    key = next(k for k in store.list("j/data") if k.endswith("whole"))
    data = store.get(key)
    assert data is not None
    store.delete([key])
    if damage is not None:
        store.create(key, damage(data))  # type: ignore[operator]
    assert all(not wrong for _, wrong in kept_in(store, "j", verify=False)), "only manifests are read"
    wrong = [found for _, found in kept_in(store, "j", verify=True) if found]
    assert len(wrong) == 1 and key in wrong[0][0] and code in wrong[0][0]
    with pytest.raises(Invalid, match="MR1590"):
        kept_in(store, "other", verify=False)
