"""Which partition owns which vnodes and splits. Moves nothing."""

from __future__ import annotations

from collections.abc import Sequence

from millrace.state.ledger import Assignment, PartitionPlan


def plan_assignment(
    vnodes: int, partitions: int, splits: Sequence[tuple[str, str]], before: Assignment | None = None
) -> Assignment:
    """Even vnode ranges; splits stay where they are as far as that is even, and others fill the gaps in order."""
    assert 0 < partitions <= vnodes, f"{partitions} partitions can not share {vnodes} vnodes"
    owned: list[list[tuple[str, str]]] = [[] for _ in range(partitions)]
    most = -(-len(splits) // partitions)
    known = set(splits)
    placed: set[tuple[str, str]] = set()
    for plan in before.partitions[:partitions] if before is not None else ():
        kept = [split for split in plan.splits if split in known][:most]
        owned[plan.partition] = kept
        placed.update(kept)
    homeless = [split for split in dict.fromkeys(splits) if split not in placed]
    least = len(known) // partitions
    for own in owned:
        while len(own) < least and homeless:
            own.append(homeless.pop(0))
    for own in owned:
        if len(own) < most and homeless:
            own.append(homeless.pop(0))
    assert not homeless
    bounds = [vnodes * p // partitions for p in range(partitions + 1)]
    return Assignment(
        tuple(PartitionPlan(p, bounds[p], bounds[p + 1], tuple(owned[p])) for p in range(partitions))
    )


def owner_of_stream(sink_partition: int, partitions: int) -> int:
    """Who publishes under the name of `sink_partition`: its namesake, or who inherits from a former assignment."""
    return sink_partition if sink_partition < partitions else sink_partition % partitions
