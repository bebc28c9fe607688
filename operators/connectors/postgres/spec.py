"""What a `postgres` sink is, as a plan holds it. Imports no driver."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

import pyarrow as pa

from millrace.operators.operator import Context
from millrace.operators.sink import Changelog, Commit, SinkSpec

if TYPE_CHECKING:
    from millrace.operators.connectors.postgres.sink import PostgresSink


@dataclass(frozen=True, slots=True)
class PostgresSinkSpec(SinkSpec):
    """Rows of `schema` into `table`, by `key` where it is not empty. `stream` names the sink in its job, '' outside one.

    In a job each outbox is written in one transaction with a row of `marker_table`, so it is there once.
    """

    title: ClassVar[str] = "postgres"
    commit: ClassVar[Commit] = Commit.TRANSACTIONAL
    changelogs: ClassVar[frozenset[Changelog]] = frozenset({Changelog.APPEND, Changelog.UPSERT})

    url: str
    table: str
    schema: pa.Schema
    key: tuple[str, ...] = ()
    create: bool = False
    marker_table: str = "millrace_markers"
    stream: tuple[str, str] = ("", "")

    @property
    def input_schema(self) -> pa.Schema:
        return self.schema

    @property
    def row_key(self) -> tuple[int, ...] | None:
        return tuple(self.schema.names.index(name) for name in self.key) or None

    def in_job(self, job: str, sink: str, guarantee: str) -> SinkSpec:
        return replace(self, stream=(job, sink))

    def build(self, context: Context, partition: int) -> PostgresSink:
        from millrace.operators.connectors.postgres.sink import PostgresSink  # deferred: loads the driver

        return PostgresSink(self, partition)  # pyright: ignore[reportArgumentType]

    def details(self) -> dict[str, str]:
        parts = urlsplit(self.url)
        place = f"{parts.hostname or 'localhost'}{parts.path}"
        return {"table": f"{place} {self.table}", **({"key": ", ".join(self.key)} if self.key else {})}
