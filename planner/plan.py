"""The physical plan: a graph of sources, operators and sinks that serialises. Runs nothing."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from millrace.operators.sink import Changelog, SinkSpec
from millrace.operators.source import SourceInput
from millrace.operators.spec import OperatorSpec, serialisable


@serialisable
@dataclass(frozen=True, slots=True)
class Node:
    """One node. `inputs` are positions in `Plan.nodes`, always smaller than the node's own, one a port.

    The rest describes the output edge: `key` are the columns that identify a row of an upsert or retract
    stream (None: no key), `event_time` the column its watermark speaks of, `hash` names the sub-plan up to here.
    `name` is the stream or table the user gave this node, if any.
    """

    spec: SourceInput | OperatorSpec | SinkSpec
    inputs: tuple[int, ...]
    schema: pa.Schema
    changelog: Changelog
    key: tuple[int, ...] | None
    event_time: int | None
    hash: str
    name: str | None = None


@serialisable
@dataclass(frozen=True, slots=True)
class Plan:
    """Nodes in topological order. `late` maps a node to the node position of a declared late output's input."""

    nodes: tuple[Node, ...]
    settings: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for position, node in enumerate(self.nodes):
            assert all(0 <= i < position for i in node.inputs), f"node {position} reads ahead"
