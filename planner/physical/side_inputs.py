"""Which sources are to be read to their end before others: what rows look up should be there when they come."""

from __future__ import annotations

from collections.abc import Sequence

from millrace.operators.joins.lookup_spec import LookupJoin
from millrace.operators.joins.temporal import LatestJoin
from millrace.operators.source import SourceInput
from millrace.planner.plan import Node


def side_inputs(nodes: Sequence[Node]) -> frozenset[int]:
    """Bounded sources whose rows are looked up and look nothing up themselves."""
    looked_up: set[int] = set()
    looking: set[int] = set()
    for position in reversed(range(len(nodes))):
        node = nodes[position]
        for port, producer in enumerate(node.inputs):
            if isinstance(node.spec, LookupJoin | LatestJoin):
                (looked_up if port else looking).add(producer)
            if position in looked_up:
                looked_up.add(producer)
            if position in looking:
                looking.add(producer)
    return frozenset(
        position
        for position in looked_up - looking
        if isinstance(spec := nodes[position].spec, SourceInput) and spec.source.bounded
    )
