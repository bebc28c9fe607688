"""From a manifest and an assignment to what each new owner starts with, also where ranges moved. Reads nothing."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from millrace.cluster.protocol.assignment import owner_of_stream
from millrace.cluster.protocol.messages import PartitionStart, RangedChain
from millrace.state.checkpoints.manifest import Contribution, Manifest, OutboxRef, SourcePoint, SplitPoint
from millrace.state.checkpoints.number import NO_CHECKPOINT
from millrace.state.ledger import Assignment, PartitionPlan


class RecoveryPlan:
    """What to restore where, from one checkpoint (None: from the beginning) under one assignment.

    Every row of every table goes to exactly one new owner, every split's position to its owner, and every
    pending outbox to one that publishes it under its old stream name.
    """

    def __init__(
        self,
        job: str,
        vnodes: int,
        manifest: Manifest | None,
        assignment: Assignment,
        sinks: Sequence[str],
        pending: Iterable[OutboxRef],
        *,
        independent: bool,
        program: str,
    ) -> None:
        self._job = job
        self._vnodes = vnodes
        self._assignment = assignment
        self._sinks = sinks
        self._independent = independent
        self._same_plan = manifest is not None and manifest.details.get("plan") == program
        self._ranges = tuple((plan.first, plan.end) for plan in assignment.partitions)
        self._restored = NO_CHECKPOINT if manifest is None else manifest.number
        contributions = () if manifest is None else manifest.contributions
        self._former = sorted(contributions, key=lambda c: (c.first, c.end))
        self._firsts = [c.first for c in self._former]
        self._points: dict[tuple[str, str], tuple[SplitPoint | None, int]] = {}
        for contribution in self._former:
            for source in contribution.sources:
                for split, point in source.splits.items():
                    self._points[source.node, split] = point, source.watermark
                for split in source.ended:
                    self._points[source.node, split] = None, source.watermark
        self._pending: dict[int, list[OutboxRef]] = defaultdict(list)
        for outbox in pending:
            self._pending[owner_of_stream(outbox.sink_partition, len(assignment.partitions))].append(outbox)

    def start_of(self, partition: int, epochs: Mapping[int, int]) -> PartitionStart:
        """The start of `partition`; `epochs` has every partition's present one."""
        plan = self._assignment.partitions[partition]
        former = self._overlapping(plan)
        continues = all((c.first, c.end, c.partition) == (plan.first, plan.end, partition) for c in former)
        streams = dict.fromkeys((sink, partition) for sink in self._sinks)
        pending = self._pending.get(partition, [])
        streams.update(dict.fromkeys(outbox.stream for outbox in pending))
        return PartitionStart(
            job=self._job,
            plan=plan,
            epoch=epochs[partition],
            vnodes=self._vnodes,
            restored=self._restored,
            chains=tuple(  # an operator may capture rows of vnodes that its partition does not own
                RangedChain(chain, max(c.first, plan.first), min(c.end, plan.end))
                for c in former
                for chain in c.tables
            ),
            sources=self._sources_of(plan),
            streams=tuple(streams),
            pending=tuple(sorted(pending, key=lambda o: (o.stream, o.number))),
            peers={} if self._independent else epochs,
            ranges=self._ranges,
            continues=continues and bool(former) and self._same_plan,
        )

    def _overlapping(self, plan: PartitionPlan) -> list[Contribution]:
        start = max(0, bisect_right(self._firsts, plan.first) - 1)
        found = []
        for contribution in self._former[start:]:
            if contribution.first >= plan.end:
                break
            if contribution.end > plan.first:
                found.append(contribution)
        return found

    def _sources_of(self, plan: PartitionPlan) -> tuple[SourcePoint, ...]:
        nodes: dict[str, list[str]] = defaultdict(list)
        for node, split in plan.splits:
            if (node, split) in self._points:
                nodes[node].append(split)
        points = []
        for node, splits in nodes.items():
            going = {s: point for s in splits if (point := self._points[node, s][0]) is not None}
            ended = frozenset(s for s in splits if s not in going)
            watermark = min(self._points[node, s][1] for s in splits)
            points.append(SourcePoint(node, going, ended, watermark))
        return tuple(points)
