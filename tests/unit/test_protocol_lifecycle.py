"""A partition's owner purges, restores, fences, publishes and runs in that order, and ends when it must."""

import pytest

from millrace.cluster.protocol import messages as m
from millrace.cluster.protocol.lifecycle import PartitionLifecycle
from millrace.cluster.protocol.transitions import IllegalTransition, PartitionPhase
from millrace.state.checkpoints.manifest import Contribution, ObjectRef, OutboxRef
from millrace.state.checkpoints.number import CheckpointNumber
from millrace.state.ledger import CheckpointKind, PartitionPlan

OWN, INHERITED = ("out", 1), ("out", 3)


def n(count: int) -> CheckpointNumber:
    return CheckpointNumber(1, count)


def outbox(stream: m.SinkStream, count: int) -> OutboxRef:
    return OutboxRef(*stream, n(count), ObjectRef(f"{stream}-{count}", 1, b""))


def start(*pending: OutboxRef) -> m.PartitionStart:
    return m.PartitionStart(
        job="j",
        plan=PartitionPlan(1, 4, 8, (("s", "a"),)),
        epoch=7,
        vnodes=8,
        restored=n(2),
        chains=(),
        sources=(),
        streams=(OWN, INHERITED),
        pending=pending,
        peers={0: 7, 1: 7},
        ranges=((0, 4), (4, 8)),
        continues=False,
    )


def running(*pending: OutboxRef) -> PartitionLifecycle:
    machine = PartitionLifecycle()
    for event in (m.Begin(start(*pending), 10.0), m.StatePurged(), m.StateRestored()):
        machine.handle(event)
    for stream in (OWN, INHERITED):
        machine.handle(m.SinkFenced(stream))
        machine.handle(m.MarkerRead(stream, n(2)))
    machine.handle(m.PeersConnected())
    assert machine.phase is PartitionPhase.RUNNING
    return machine


def contribution(*outboxes: OutboxRef) -> Contribution:
    return Contribution(1, 7, 4, 8, outboxes=outboxes)


def test_life_begins_in_order_and_old_outboxes_go_first() -> None:
    machine = PartitionLifecycle()
    pending = (outbox(INHERITED, 2), outbox(OWN, 2), outbox(INHERITED, 1))
    assert machine.handle(m.Begin(start(*pending), 10.0)) == (m.PurgeState(),)
    assert isinstance(machine.handle(m.StatePurged())[0], m.RestoreState)
    assert machine.handle(m.StateRestored()) == (m.FenceSink(OWN), m.FenceSink(INHERITED))
    assert machine.handle(m.SinkFenced(OWN)) == (m.ReadMarker(OWN),)
    assert machine.handle(m.MarkerRead(OWN, n(2))) == (m.Report(m.Published(1, 7, OWN, n(2))),)
    machine.handle(m.SinkFenced(INHERITED))
    assert machine.handle(m.MarkerRead(INHERITED, None)) == (m.PublishOutbox(outbox(INHERITED, 1)),)
    report, following = machine.handle(m.OutboxPublished(INHERITED, n(1)))
    assert report == m.Report(m.Published(1, 7, INHERITED, n(1)))
    assert following == m.PublishOutbox(outbox(INHERITED, 2))
    assert machine.handle(m.OutboxPublished(INHERITED, n(2)))[-1] == m.ConnectPeers({0: 7, 1: 7})
    assert machine.handle(m.PeersConnected()) == (m.StartSources(), m.Report(m.Running(1, 7)))


def test_marker_of_a_stream_that_was_not_asked_for_changes_nothing() -> None:
    machine = running()
    assert machine.handle(m.MarkerRead(OWN, n(9))) == ()
    assert machine.handle(m.SinkFenced(OWN)) == ()


def test_state_is_not_restored_into_a_running_partition() -> None:
    with pytest.raises(
        IllegalTransition, match=r"running to restoring; so far: .*Begin .*→purging"
    ) as caught:
        running().handle(m.StatePurged())
    assert caught.value.code == "MR9012"


def test_checkpoint_before_running_is_refused() -> None:
    machine = PartitionLifecycle()
    machine.handle(m.Begin(start(), 10.0))
    begin = m.BeginCheckpoint(n(3), CheckpointKind.PERIODIC)
    assert machine.handle(begin) == (m.Report(m.CheckpointFailed(1, 7, n(3))),)


def test_captures_are_persisted_one_at_a_time_and_in_order() -> None:
    machine = running()
    for count in (3, 4):
        begin = m.BeginCheckpoint(n(count), CheckpointKind.PERIODIC)
        assert machine.handle(begin) == (m.InjectBarrier(n(count), False),)
        assert machine.handle(begin) == (), "told twice, cut once"
    assert machine.handle(m.BarrierPassed(n(3)))[-1] == m.PersistCapture(n(3))
    assert machine.handle(m.BarrierPassed(n(4))) == (m.Report(m.Aligned(1, 7, n(4))),)
    durable, following = machine.handle(m.CapturePersisted(n(3), contribution()))
    assert durable == m.Report(m.Durable(1, 7, n(3), contribution()))
    assert following == m.PersistCapture(n(4))


def test_outbox_of_a_given_up_checkpoint_goes_with_the_next() -> None:
    machine = running()
    machine.handle(m.BeginCheckpoint(n(3), CheckpointKind.PERIODIC))
    machine.handle(m.BarrierPassed(n(3)))
    machine.handle(m.CapturePersisted(n(3), contribution(outbox(OWN, 3))))
    machine.handle(m.CheckpointAborted(n(3)))
    machine.handle(m.BeginCheckpoint(n(4), CheckpointKind.PERIODIC))
    machine.handle(m.BarrierPassed(n(4)))
    (report,) = machine.handle(m.CapturePersisted(n(4), contribution(outbox(OWN, 4))))
    both = (outbox(OWN, 3), outbox(OWN, 4))
    assert report == m.Report(m.Durable(1, 7, n(4), contribution(*both)))
    assert machine.handle(m.CheckpointCommitted(n(4), both)) == (m.PublishOutbox(both[0]),)
    assert machine.handle(m.CheckpointCommitted(n(4), both)) == (), "told twice, published once"
    assert machine.handle(m.OutboxPublished(OWN, n(3)))[-1] == m.PublishOutbox(both[1])
    machine.handle(m.OutboxPublished(OWN, n(4)))
    again = machine.handle(m.CheckpointCommitted(n(4), both))
    assert again == 2 * (m.Report(m.Published(1, 7, OWN, n(4))),), "a lost report is made up for"


def test_stop_checkpoint_drains_and_giving_it_up_goes_on() -> None:
    machine = running()
    assert machine.handle(m.BeginCheckpoint(n(3), CheckpointKind.STOP)) == (m.InjectBarrier(n(3), True),)
    assert machine.phase is PartitionPhase.DRAINING
    assert machine.handle(m.CheckpointAborted(n(3))) == (m.StartSources(),)
    machine.handle(m.BeginCheckpoint(n(4), CheckpointKind.STOP))
    begun = machine.handle(m.BeginCheckpoint(n(5), CheckpointKind.PERIODIC))
    assert begun == (m.InjectBarrier(n(5), False), m.StartSources())
    assert machine.handle(m.CheckpointAborted(n(7))) == ()
    assert machine.handle(m.BeginCheckpoint(n(6), CheckpointKind.PERIODIC)) == (), (
        "given up before it was told"
    )


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (m.ClockAdvanced(10.0), "lease"),
        (m.PublishRefused(OWN), "fenced"),
        (m.PartitionFailed("broke"), "broke"),
    ],
)
def test_owner_ends_itself_and_does_nothing_after(event: m.PartitionEvent, reason: str) -> None:
    machine = running()
    (stop,) = machine.handle(event)
    assert isinstance(stop, m.StopSelf) and reason in stop.reason
    assert machine.handle(m.CheckpointCommitted(n(3), (outbox(OWN, 3),))) == ()


def test_lease_is_renewed_forward_only() -> None:
    machine = running()
    machine.handle(m.LeaseRenewed(20.0))
    machine.handle(m.LeaseRenewed(15.0))
    assert machine.handle(m.ClockAdvanced(19.9)) == ()
    assert machine.handle(m.ClockAdvanced(20.0)) != ()
