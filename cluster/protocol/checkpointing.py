"""One checkpoint after the other: who was told, who has answered, what is decided and published. Tells nobody itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from millrace.cluster.protocol.messages import SinkStream
from millrace.state.checkpoints.manifest import Contribution, Manifest, OutboxRef, manifest_key
from millrace.state.checkpoints.number import NO_CHECKPOINT, CheckpointNumber
from millrace.state.ledger import Assignment, CheckpointDecided, CheckpointKind, JobState


@dataclass(slots=True)
class Round:
    """A checkpoint that is admitted and not decided. `members` are told and waited for: one snapshot for both."""

    number: CheckpointNumber
    kind: CheckpointKind
    label: str | None
    members: Mapping[int, int]
    begun: float
    aligned: set[int] = field(default_factory=set)
    durable: dict[int, Contribution] = field(default_factory=dict)
    manifest: Manifest | None = None
    deciding: bool = False

    @property
    def owing(self) -> tuple[int, ...]:
        """The partitions that have not reported durable."""
        return tuple(p for p in self.members if p not in self.durable)


class CheckpointCoordinator:
    """Owns the numbers, the round under way, and which decided outboxes are not known to be published.

    Invariants: one round at a time; no number is issued twice (the epoch is this coordinator's alone); a
    round counts only reports of the very owners it was announced to; what is decided has all of them.
    """

    def __init__(self, job: str, vnodes: int, epoch: int, keep: int, plan: str = "") -> None:
        self.round: Round | None = None
        self.published: dict[SinkStream, CheckpointNumber] = {}
        self._job = job
        self._vnodes = vnodes
        self._epoch = epoch
        self._keep = keep
        self._plan = plan
        self._count = 0
        self._pending: dict[SinkStream, dict[CheckpointNumber, OutboxRef]] = {}

    def restore(self, manifest: Manifest | None) -> None:
        """Take on what was pending at the last decided checkpoint."""
        self._pending.clear()
        if manifest is not None:
            self._add(manifest.pending)

    def admit(self, members: Mapping[int, int], kind: CheckpointKind, label: str | None, now: float) -> Round:
        """Begin the next checkpoint with these owners (partition → epoch)."""
        assert self.round is None and members
        number = self.upcoming
        self._count += 1
        self.round = Round(number, kind, label, dict(members), now)
        return self.round

    @property
    def upcoming(self) -> CheckpointNumber:
        """The number of the checkpoint that is admitted next."""
        return CheckpointNumber(self._epoch, self._count + 1)

    def abort(self) -> Round:
        """Give the round up: its number is never decided."""
        given_up, self.round = self.round, None
        assert given_up is not None and not given_up.deciding
        return given_up

    def current(self, partition: int, epoch: int, number: CheckpointNumber) -> Round | None:
        """The round that a report belongs to; None where it is of another round or another owner."""
        found = self.round
        if found is None or found.number != number or found.members.get(partition) != epoch:
            return None
        return found

    def durable(self, contribution: Contribution, assignment: Assignment) -> Manifest | None:
        """Count a durable report of the round; the manifest once it was the last one.

        Raises `ValueError` where the report leaves out a split that its owner has.
        """
        found = self.round
        assert found is not None and found.manifest is None
        plan = assignment.partitions[contribution.partition]
        missing = set(plan.splits) - contribution.splits()
        if missing or (contribution.first, contribution.end) != (plan.first, plan.end):
            raise ValueError(f"partition {plan.partition} says nothing of {sorted(missing)[:3]}")
        found.aligned.add(contribution.partition)
        found.durable[contribution.partition] = contribution
        if len(found.durable) < len(found.members):
            return None
        contributions = tuple(found.durable[p] for p in sorted(found.durable))
        pending = [*self.pending(), *(o for c in contributions for o in c.outboxes)]
        unpublished = {(o.stream, o.number): o for o in pending if o.number > self._marker(o.stream)}
        found.manifest = Manifest(
            self._job,
            found.number,
            self._vnodes,
            contributions,
            tuple(unpublished.values()),
            {"plan": self._plan},
        )
        return found.manifest

    def decision(self, state: JobState) -> CheckpointDecided:
        """The record that commits the round, whose manifest has been written."""
        found = self.round
        assert found is not None and found.manifest is not None and not found.deciding
        found.deciding = True
        kept = state.checkpoints[-(self._keep - 1) :] if self._keep > 1 else ()
        oldest = kept[0].number if kept else found.number
        key = manifest_key(self._job, found.number)
        return CheckpointDecided(found.number, key, found.kind, oldest, found.label)

    def decided(self) -> Round:
        """The record is in the ledger: the round is over, its outboxes are to be published."""
        found, self.round = self.round, None
        assert found is not None and found.deciding and found.manifest is not None
        self._add(found.manifest.pending)
        return found

    def record_published(self, stream: SinkStream, number: CheckpointNumber) -> None:
        """All outboxes of `stream` up to `number` are visible: true whoever says it, and for good."""
        if number > self._marker(stream):
            self.published[stream] = number
            waiting = self._pending.get(stream, {})
            for done in [n for n in waiting if n <= number]:
                del waiting[done]
            if not waiting:
                self._pending.pop(stream, None)

    def pending(self) -> list[OutboxRef]:
        """All decided outboxes not known to be published, by stream in order of number."""
        return [outbox for stream in list(self._pending) for outbox in self.pending_of(stream)]

    def pending_of(self, stream: SinkStream) -> list[OutboxRef]:
        """Those of one stream."""
        return [outbox for _, outbox in sorted(self._pending.get(stream, {}).items())]

    def pending_streams(self) -> list[SinkStream]:
        """The streams that have any."""
        return list(self._pending)

    def _marker(self, stream: SinkStream) -> CheckpointNumber:
        return self.published.get(stream, NO_CHECKPOINT)

    def _add(self, outboxes: tuple[OutboxRef, ...]) -> None:
        for outbox in outboxes:
            if outbox.number > self._marker(outbox.stream):
                self._pending.setdefault(outbox.stream, {})[outbox.number] = outbox
