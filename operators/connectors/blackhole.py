"""The `blackhole` sink: counts rows and forgets them."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from millrace.operators.batch import Batch
from millrace.operators.connectors.options import Options
from millrace.operators.connectors.registry import Connector
from millrace.operators.operator import Context
from millrace.operators.sink import Changelog, Commit, Sink, SinkSpec


@dataclass(frozen=True, slots=True)
class BlackholeSpec(SinkSpec):
    """A sink that takes any rows."""

    title = "blackhole"
    commit = Commit.TRANSACTIONAL  # nothing is ever shown, so nothing is shown twice
    changelogs = frozenset(Changelog)

    schema: pa.Schema

    @property
    def input_schema(self) -> pa.Schema:
        return self.schema

    def build(self, context: Context, partition: int) -> BlackholeSink:
        return BlackholeSink()


class BlackholeSink(Sink):
    """Counts rows and batches; reads no value."""

    def __init__(self) -> None:
        self.rows = 0
        self.batches = 0

    def write(self, batch: Batch) -> None:
        self.rows += batch.num_rows
        self.batches += 1


def sink(options: Options, schema: pa.Schema, changelog: Changelog, key: tuple[str, ...]) -> SinkSpec:
    """The spec; there are no options."""
    return BlackholeSpec(schema)


CONNECTOR = Connector(name="blackhole", doc="Counts rows and forgets them.", sink=sink)
