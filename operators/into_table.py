"""A query's rows written into a table of the same dataflow. Knows no table: the driver hands over whom to deliver to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from millrace.errors import Bug
from millrace.operators.batch import Batch
from millrace.operators.operator import Context
from millrace.operators.sink import Changelog, Commit, Sink, SinkSpec


@dataclass(frozen=True, slots=True)
class IntoTable(SinkSpec):
    """Rows go into table `table`, which has columns `schema`; upserts replace rows there by its primary key."""

    title: ClassVar[str] = "table"
    commit: ClassVar[Commit] = Commit.NONE
    changelogs: ClassVar[frozenset[Changelog]] = frozenset({Changelog.APPEND, Changelog.UPSERT})

    table: str
    schema: pa.Schema

    @property
    def input_schema(self) -> pa.Schema:
        return self.schema

    def build(self, context: Context, partition: int) -> TableWriter:
        return TableWriter(self.table)

    def details(self) -> dict[str, str]:
        return {"table": self.table}


class TableWriter(Sink):
    """Delivers batches at once; they are in the table before `write` returns, so there is nothing to seal."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._deliver: Callable[[Batch], None] | None = None

    def deliver_to(self, deliver: Callable[[Batch], None]) -> None:
        """Called once by the driver, before the first batch."""
        self._deliver = deliver

    def write(self, batch: Batch) -> None:
        if self._deliver is None:
            raise Bug(f"rows for table {self._table} have nowhere to go", code="MR9013")
        if batch.weights is not None:  # a row that is taken back may have the key of one that comes
            batch = batch.take(np.argsort(batch.weights > 0, kind="stable"))
        self._deliver(batch)
