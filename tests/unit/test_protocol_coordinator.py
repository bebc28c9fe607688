"""A coordinator tells whom it waits for, believes present owners only, and stops once it lost a race."""

from collections.abc import Iterable

import pytest

from millrace.cluster.protocol import messages as m
from millrace.cluster.protocol.assignment import plan_assignment
from millrace.cluster.protocol.coordinator import Coordinator, CoordinatorSettings
from millrace.cluster.protocol.transitions import JobPhase
from millrace.state.checkpoints.manifest import Contribution, ObjectRef, OutboxRef, SourcePoint, SplitPoint
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.ledger import (
    Assigned,
    CheckpointDecided,
    CheckpointKind,
    JobCreated,
    JobState,
    Record,
    Rescale,
    Resumed,
    Stop,
    Takeover,
    fold,
)

SPLITS = tuple(("s", f"{i}") for i in range(4))


class Job:
    """A coordinator whose appends, reads and manifests succeed at once; what it tells partitions is kept."""

    def __init__(self, partitions: int = 2, *, independent: bool = True, **settings: object) -> None:
        given = {
            "job": "j",
            "owner": "me",
            "sinks": ("out",),
            "independent": independent,
            "plan": "p",
            **settings,
        }
        self.coordinator = Coordinator(CoordinatorSettings(**given))  # type: ignore[arg-type]
        self.state = fold(JobState(), JobCreated("j", "p", 8, partitions))
        self.seq = 2
        self.records: list[Record] = []
        self.told: list[m.CoordinatorCommand] = []
        self.starts: list[m.PartitionStart] = []
        self.hold_appends = False

    def begin(self) -> None:
        self.do(m.Tick(0.0), m.LedgerRead(self.state, self.seq))
        self.all_run()

    def all_run(self) -> None:
        for start in self.starts:
            self.do(m.Running(start.plan.partition, start.epoch))
        self.starts.clear()

    def do(self, *events: m.CoordinatorEvent) -> None:
        pending = list(events)
        while pending:
            for command in self.coordinator.handle(pending.pop(0)):
                pending += self._answers(command)

    def _answers(self, command: m.CoordinatorCommand) -> Iterable[m.CoordinatorEvent]:
        match command:
            case m.AppendRecord():
                assert command.seq == self.seq
                self.records.append(command.record)
                if not self.hold_appends:
                    return [self.appended()]
            case m.DiscoverSplits():
                return [m.SplitsFound(SPLITS)]
            case m.WriteManifest():
                return [m.ManifestWritten(command.manifest.number)]
            case m.StartPartition():
                self.starts.append(command.start)
            case _:
                self.told.append(command)
        return []

    def appended(self) -> m.RecordAppended:
        self.state = fold(self.state, self.records[-1])
        self.seq += 1
        return m.RecordAppended(self.seq - 1, self.state)

    @property
    def epochs(self) -> dict[int, int]:
        return {p: member.epoch for p, member in self.coordinator.members.items()}

    def announced(self) -> list[m.Tell]:
        return [t for t in self.told if isinstance(t, m.Tell) and isinstance(t.message, m.BeginCheckpoint)]

    def durable(self, partition: int, *outboxes: OutboxRef, epoch: int | None = None) -> m.Durable:
        assert self.state.assignment is not None
        plan = self.state.assignment.partitions[partition]
        message = self.announced()[-1].message
        assert isinstance(message, m.BeginCheckpoint)
        points = {name: SplitPoint({"offset": 1}, 0) for _, name in plan.splits}
        owner = self.epochs[partition] if epoch is None else epoch
        sources = (SourcePoint("s", points, frozenset(), 0),)
        given = Contribution(partition, owner, plan.first, plan.end, (), sources, outboxes)
        return m.Durable(partition, owner, message.number, given)


def outbox(partition: int, number: CheckpointNumber) -> OutboxRef:
    return OutboxRef("out", partition, number, ObjectRef(f"{partition}-{number}", 1, b""))


def test_takeover_then_assignment_then_partitions() -> None:
    job = Job()
    job.begin()
    assert [type(r) for r in job.records] == [Takeover, Assigned]
    assert job.coordinator.phase is JobPhase.RUNNING and job.epochs == {0: 1, 1: 1}


def test_told_are_those_waited_for_and_all_must_be_durable() -> None:
    job = Job()
    job.begin()
    job.do(m.CheckpointDue())
    assert {(t.partition, t.epoch) for t in job.announced()} == {(0, 1), (1, 1)}
    job.do(job.durable(0), job.durable(0))
    assert not any(isinstance(r, CheckpointDecided) for r in job.records)
    job.do(job.durable(1))
    assert isinstance(job.records[-1], CheckpointDecided)


def test_nothing_is_admitted_while_a_partition_is_not_running() -> None:
    job = Job()
    job.begin()
    job.do(m.PartitionLost(1, 1, "died"), m.CheckpointDue())
    assert job.announced() == []
    job.all_run()
    job.do(m.CheckpointDue())
    assert {(t.partition, t.epoch) for t in job.announced()} == {(0, 1), (1, 2)}


def test_report_of_a_replaced_owner_is_ignored_and_its_checkpoint_aborted() -> None:
    job = Job()
    job.begin()
    job.do(m.CheckpointDue())
    job.do(job.durable(1), m.PartitionLost(1, 1, "died"))
    assert any(isinstance(t, m.Tell) and isinstance(t.message, m.CheckpointAborted) for t in job.told)
    job.all_run()
    job.do(job.durable(0), job.durable(1), job.durable(1, epoch=1))
    assert not any(isinstance(r, CheckpointDecided) for r in job.records)
    job.do(m.CheckpointDue())
    job.do(job.durable(0), job.durable(1, epoch=1))
    assert not any(isinstance(r, CheckpointDecided) for r in job.records)
    job.do(job.durable(1))
    assert job.records[-1].number == CheckpointNumber(1, 2)  # type: ignore[union-attr]


def test_independent_partition_recovers_alone_and_with_exchange_all_do() -> None:
    for independent, expected in ((True, {0: 1, 1: 2}), (False, {0: 2, 1: 2})):
        job = Job(independent=independent)
        job.begin()
        job.do(m.PartitionLost(1, 1, "died"))
        assert job.epochs == expected


def test_report_without_a_split_aborts_the_checkpoint() -> None:
    job = Job()
    job.begin()
    job.do(m.CheckpointDue())
    whole = job.durable(0)
    empty = Contribution(0, 1, whole.contribution.first, whole.contribution.end)
    job.do(m.Durable(0, 1, whole.number, empty), job.durable(1), whole)
    assert not any(isinstance(r, CheckpointDecided) for r in job.records)


def test_lost_race_stops_it_without_another_try() -> None:
    job = Job()
    job.begin()
    job.hold_appends = True
    job.do(m.CheckpointDue())
    job.do(job.durable(0), job.durable(1))
    before = len(job.records)
    job.do(m.RecordLost(job.seq))
    assert isinstance(job.told[-1], m.StopSelf) and len(job.records) == before
    job.do(m.CheckpointDue(), m.PartitionLost(0, 1, "x"))
    assert len(job.records) == before


def test_contender_that_lost_reads_on_and_yields_to_a_newer_one() -> None:
    job = Job()
    job.hold_appends = True
    job.do(m.LedgerRead(job.state, 2))
    job.do(m.RecordLost(2))
    assert isinstance(job.told[-1], m.ReadLedger)
    newer = fold(job.state, Takeover(1, "other"))
    job.do(m.LedgerRead(newer, 3))
    assert isinstance(job.told[-1], m.StopSelf)


def test_next_decision_does_not_wait_for_publication_and_carries_what_is_pending() -> None:
    job = Job()
    job.begin()
    first, second = CheckpointNumber(1, 1), CheckpointNumber(1, 2)
    for number in (first, second):
        job.do(m.CheckpointDue())
        job.do(job.durable(0, outbox(0, number)), job.durable(1))
    assert job.state.latest is not None and job.state.latest.number == second
    job.do(m.Heartbeat(0, 1, 5.0))
    committed = job.told[-1]
    assert isinstance(committed, m.Tell) and isinstance(committed.message, m.CheckpointCommitted)
    assert committed.message.pending == (outbox(0, first), outbox(0, second))
    job.do(m.Published(0, 1, ("out", 0), second), m.Heartbeat(0, 1, 6.0))
    assert isinstance(job.told[-1].message, m.GrantLease)  # type: ignore[union-attr]


def test_rescale_hands_unpublished_outboxes_to_new_owners_under_old_names() -> None:
    job = Job(3)
    job.begin()
    job.do(m.RescaleRequested(2))
    assert isinstance(job.records[-1], Rescale)
    assert {t.message.kind for t in job.announced()} == {CheckpointKind.STOP}  # type: ignore[union-attr]
    number = CheckpointNumber(1, 1)
    job.do(*(job.durable(p, outbox(p, number)) for p in range(3)))
    job.do(m.Published(0, 1, ("out", 0), number))
    assert job.coordinator.phase is JobPhase.DRAINING
    for at in range(1, 12):
        job.do(*(m.Heartbeat(p, 1, 0.0) for p in range(3)), m.Tick(float(at)))
    assert [s.plan.partition for s in job.starts] == [0, 1]
    assert job.starts[0].streams == (("out", 0), ("out", 2))
    assert job.starts[0].pending == (outbox(2, number),)
    assert job.starts[1].pending == (outbox(1, number),)
    assert job.starts[0].epoch == 2 and job.starts[0].ranges == ((0, 4), (4, 8))


@pytest.mark.parametrize("plan", ["p", "other"])
def test_chains_are_extended_only_under_the_plan_that_made_them(plan: str) -> None:
    job = Job()
    job.begin()
    job.do(m.CheckpointDue())
    job.do(job.durable(0), job.durable(1))
    round_ = job.coordinator._manifest
    assert round_ is not None and round_.details == {"plan": "p"}
    again = Job(plan=plan)
    again.state, again.seq = fold(job.state, Resumed(2, plan)), job.seq + 1
    again.do(m.LedgerRead(again.state, again.seq))
    again.do(m.ManifestRead(round_))
    assert [start.continues for start in again.starts] == [plan == "p"] * 2


def test_a_savepoint_is_tried_until_it_is_decided_and_kept_until_it_is_dropped() -> None:
    job = Job()
    job.begin()
    job.do(m.SavepointRequested("a"), m.SavepointRequested("a"))
    assert [t.message.kind for t in job.announced()] == [CheckpointKind.SAVEPOINT] * 2  # type: ignore[union-attr]
    job.do(m.PartitionLost(1, 1, "died"))
    job.all_run()
    assert len(job.announced()) == 4, "it was aborted, and is announced again"
    job.do(job.durable(0), job.durable(1))
    assert list(job.state.savepoints) == ["a"]
    job.do(m.SavepointRequested("a"), m.SavepointDropped("b"))
    assert len(job.announced()) == 4 and not job.coordinator.wishes.dropped
    job.do(m.SavepointDropped("a"))
    assert job.state.savepoints == {}


def test_a_coordinator_of_another_plan_does_not_lead() -> None:
    job = Job(plan="former")
    job.do(m.LedgerRead(job.state, job.seq))
    assert isinstance(job.told[-1], m.StopSelf) and "plan is p" in job.told[-1].reason


def test_damaged_state_ends_the_job_and_says_what_else_there_is() -> None:
    job = Job()
    job.begin()
    for _ in range(2):
        job.do(m.CheckpointDue())
        job.do(job.durable(0), job.durable(1))
    job.do(m.PartitionLost(1, 1, "x is missing", damaged=True))
    assert isinstance(job.told[-1], m.ReadLedger), "a newer coordinator may have pruned it"
    job.do(m.LedgerRead(job.state, job.seq))
    broken = job.told[-1]
    assert isinstance(broken, m.JobBroken) and "x is missing" in broken.reason and "1.1" in broken.reason


def test_what_can_not_start_is_scaled_all_the_same() -> None:
    job = Job(3)
    job.do(m.Tick(0.0), m.LedgerRead(job.state, job.seq), m.RescaleRequested(2))
    assert isinstance(job.records[2], Rescale)
    assert len(job.epochs) == 2 and set(job.epochs.values()) == {2}


def test_stop_waits_for_publication() -> None:
    job = Job()
    job.begin()
    job.do(m.StopRequested("done", "last"))
    number = CheckpointNumber(1, 1)
    job.do(job.durable(0, outbox(0, number)), job.durable(1))
    assert not isinstance(job.records[-1], Stop) and "last" in job.state.savepoints
    job.do(m.Published(0, 1, ("out", 0), number))
    assert isinstance(job.records[-1], Stop) and isinstance(job.told[-1], m.JobEnded)
    again = Job()
    again.do(m.LedgerRead(job.state, job.seq))
    assert isinstance(again.told[-1], m.JobEnded)


def test_silent_partition_is_replaced_and_a_slow_checkpoint_given_up() -> None:
    job = Job(liveness_s=1.0, checkpoint_timeout_s=2.0)
    job.begin()
    job.do(m.CheckpointDue())
    for at in (0.9, 1.8, 2.7):
        job.do(m.Tick(at), m.Heartbeat(0, 1, at), m.Heartbeat(1, 1, at))
    assert job.coordinator.checkpoints is not None and job.coordinator.checkpoints.round is None
    job.do(m.Tick(3.5), m.Heartbeat(0, 1, 3.5), m.Tick(3.9))
    assert job.epochs == {0: 1, 1: 2}


def test_silence_while_the_coordinator_stood_still_is_nobodys() -> None:
    job = Job(liveness_s=1.0)
    job.begin()
    job.do(m.Tick(0.5), m.Heartbeat(0, 1, 0.5), m.Heartbeat(1, 1, 0.5), m.Tick(9.0))
    assert job.epochs == {0: 1, 1: 1}
    job.do(m.Tick(9.6), m.Tick(10.2))
    assert min(job.epochs.values()) > 1


def test_silence_is_borne_for_longer_after_it_ended_an_owner_and_until_checkpoints_are_decided() -> None:
    job = Job(liveness_s=1.0, independent=True)
    job.begin()
    job.do(m.Tick(0.5), m.Heartbeat(0, 1, 0.5), m.Heartbeat(1, 1, 0.5))
    job.do(m.Tick(1.2), m.Heartbeat(0, 1, 1.2), m.Tick(1.8), m.Heartbeat(0, 1, 1.8))
    assert job.epochs == {0: 1, 1: 2}
    job.do(m.Running(1, 2))
    for at in (2.4, 3.0, 3.6):
        job.do(m.Tick(at), m.Heartbeat(0, 1, at))
    assert job.epochs == {0: 1, 1: 2}, "two seconds now"
    job.do(m.Heartbeat(1, 2, 3.6), m.CheckpointDue())
    job.do(job.durable(0), job.durable(1))
    for at in (4.2, 4.8):
        job.do(m.Tick(at), m.Heartbeat(0, 1, at))
    assert job.epochs == {0: 1, 1: 3}, "one second again"


def test_damaged_manifest_is_named_and_an_older_one_may_be_chosen() -> None:
    job = Job()
    job.begin()
    for _ in range(2):
        job.do(m.CheckpointDue())
        job.do(job.durable(0), job.durable(1))
    again = Job()
    again.state, again.seq = job.state, job.seq
    again.do(m.LedgerRead(again.state, again.seq))
    read = again.told[-1]
    assert isinstance(read, m.ReadManifest) and read.number == CheckpointNumber(1, 2)
    again.do(m.ManifestDamaged(read.number, "cut short"))
    assert isinstance(again.told[-1], m.ReadLedger), "a newer coordinator may have pruned it"
    again.do(m.LedgerRead(again.state, again.seq))
    broken = again.told[-1]
    assert isinstance(broken, m.JobBroken) and "1.2" in broken.reason and "1.1" in broken.reason
    chosen = Job()
    chosen.state, chosen.seq = fold(again.state, Resumed(3, "p", CheckpointNumber(1, 1))), again.seq + 1
    chosen.do(m.LedgerRead(chosen.state, chosen.seq))
    assert chosen.told[-1] == m.ReadManifest(CheckpointNumber(1, 1), "j/manifests/00000000004294967297")


@pytest.mark.parametrize(("partitions", "splits"), [(1, 0), (3, 10), (7, 3), (8, 8)])
def test_assignment_is_even_and_sticky(partitions: int, splits: int) -> None:
    names = [("s", str(i)) for i in range(splits)]
    first = plan_assignment(8, partitions, names)
    sizes = [len(p.splits) for p in first.partitions]
    assert sum(sizes) == splits and max(sizes) - min(sizes) <= 1
    assert plan_assignment(8, partitions, names, first) == first
    grown = plan_assignment(8, partitions, [*names, ("s", "new")], first)
    kept = sum(
        len(set(a.splits) & set(b.splits)) for a, b in zip(first.partitions, grown.partitions, strict=True)
    )
    assert kept == splits
