"""The physical plan: a graph of sources, operators and sinks that serialises. Runs nothing."""

from __future__ import annotations

import enum
from collections.abc import Iterable
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
    `name` is the stream, table, source or sink the user gave this node, if any.
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
class OutputKind(enum.Enum):
    """What a statement asked for."""

    STREAM = "stream"
    """CREATE STREAM: may be subscribed to by name; its rows are kept nowhere."""
    TABLE = "table"
    """A materialised table; the node is its `Materialize`."""
    SINK = "sink"
    """The node is the sink."""
    SELECT = "select"
    """A bare query: whoever executed it reads the node's rows."""


@serialisable
@dataclass(frozen=True, slots=True)
class Output:
    """Something the plan yields: `node` is the position whose output (or, of a sink, whose input) it is."""

    name: str
    kind: OutputKind
    node: int


@serialisable
@dataclass(frozen=True, slots=True)
class LateOutput:
    """Rows that come too late for node `node` go to the table (or stream) `table`."""

    node: int
    table: str


@serialisable
@dataclass(frozen=True, slots=True)
class Plan:
    """Nodes in topological order, and what they are for.

    Dead-letter tables are named by `SourceInput.bad_rows`; `late` names tables for late rows.
    """

    nodes: tuple[Node, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    outputs: tuple[Output, ...] = ()
    late: tuple[LateOutput, ...] = ()

    def __post_init__(self) -> None:
        for position, node in enumerate(self.nodes):
            assert all(0 <= i < position for i in node.inputs), f"node {position} reads ahead"
        assert all(0 <= output.node < len(self.nodes) for output in self.outputs)
        assert all(0 <= late.node < len(self.nodes) for late in self.late)

    def output(self, name: str) -> Output | None:
        """The output called `name` (case-insensitive); a later one hides an earlier one."""
        wanted = name.casefold()
        return next((o for o in reversed(self.outputs) if o.name.casefold() == wanted), None)

    def reachable(self, positions: Iterable[int]) -> frozenset[int]:
        """The nodes that these nodes need, themselves included."""
        needed: set[int] = set()
        open_ = list(positions)
        while open_:
            position = open_.pop()
            if position not in needed:
                needed.add(position)
                open_.extend(self.nodes[position].inputs)
        return frozenset(needed)

    def consumers(self, position: int) -> tuple[tuple[int, int], ...]:
        """(node, port) of every node that reads node `position`."""
        return tuple(
            (reader, port)
            for reader, node in enumerate(self.nodes)
            for port, source in enumerate(node.inputs)
            if source == position
        )
