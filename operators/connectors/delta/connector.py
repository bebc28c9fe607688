"""The `delta` sink: rows into a Delta Lake table, each outbox in one commit that names it. Imports its library late."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.connectors.options import Option, Options
from millrace.operators.connectors.registry import Connector
from millrace.operators.operator import Context
from millrace.operators.sink import Changelog, Commit, SinkSpec

if TYPE_CHECKING:
    from millrace.operators.connectors.delta.sink import DeltaSink

_OPTIONS = (
    Option(
        "path",
        "the table's folder or URL: /data/orders, s3://bucket/orders",
        required=True,
        aliases=("table.path",),
    ),
    Option("mode", "append rows, or replace them by key", choices=("append", "upsert")),
    Option("primary.key", "columns by which rows are replaced", aliases=("key",)),
    Option("partition.by", "columns by which a new table is divided into folders"),
    Option("storage.*", "settings of the object store: storage.aws_region, …"),
)


@dataclass(frozen=True, slots=True)
class DeltaSinkSpec(SinkSpec):
    """Rows of `schema` into the table at `path`, by `key` where it is not empty.

    `application` names the sink in its job ('' outside one): with it, the table itself knows which outboxes it has.
    """

    title: ClassVar[str] = "delta"
    commit: ClassVar[Commit] = Commit.TRANSACTIONAL
    changelogs: ClassVar[frozenset[Changelog]] = frozenset({Changelog.APPEND, Changelog.UPSERT})

    path: str
    schema: pa.Schema
    key: tuple[str, ...] = ()
    partition_by: tuple[str, ...] = ()
    storage: tuple[tuple[str, str], ...] = ()
    application: str = ""

    @property
    def input_schema(self) -> pa.Schema:
        return self.schema

    @property
    def row_key(self) -> tuple[int, ...] | None:
        return tuple(self.schema.names.index(name) for name in self.key) or None

    def in_job(self, job: str, sink: str, guarantee: str) -> SinkSpec:
        return replace(self, application=f"{job}/{sink}")

    def build(self, context: Context, partition: int) -> DeltaSink:
        from millrace.operators.connectors.delta.sink import DeltaSink  # deferred: loads the library

        return DeltaSink(self, partition)  # pyright: ignore[reportArgumentType]

    def details(self) -> dict[str, str]:
        return {"path": self.path, **({"key": ", ".join(self.key)} if self.key else {})}


def make_sink(options: Options, schema: pa.Schema, changelog: Changelog, key: tuple[str, ...]) -> SinkSpec:
    """The spec of a sink for rows in this mode. Raises Invalid MR1407, MR1493, MR1496 and MR1458."""
    if changelog is Changelog.RETRACT:
        raise Invalid(
            "rows of a Delta table can not be taken back without a key",
            code="MR1407",
            hint="give the rows a key: GROUP BY it, or PRIMARY KEY (…) in the sink's declaration",
        )
    named = _columns(options, "primary.key", schema)
    keys = named or key
    upsert = changelog is Changelog.UPSERT or options.text("mode") == "upsert"
    if changelog is Changelog.UPSERT and (set(keys) != set(key) or options.text("mode") == "append"):
        raise Invalid(
            f"the rows change by {', '.join(key)}, and the sink is to do otherwise",
            code="MR1496",
            hint=f"'mode' = 'upsert' and no other 'primary.key' than '{', '.join(key)}'",
        )
    if upsert and not keys:
        raise Invalid("option 'mode' = 'upsert' needs a key", code="MR1496", hint="'primary.key' = 'id'")
    for field in schema:
        if (
            pa.types.is_time(field.type)
            or pa.types.is_duration(field.type)
            or pa.types.is_interval(field.type)
        ):
            raise Invalid(
                f"column {field.name} is {field.type}, a type that Delta tables do not have",
                code="MR1458",
                hint=f"write CAST({field.name} AS VARCHAR)",
            )
    path = options.required("path")
    return DeltaSinkSpec(
        path=path if "://" in path else os.path.abspath(os.path.expanduser(path)),
        schema=schema,
        key=keys if upsert else (),
        partition_by=_columns(options, "partition.by", schema),
        storage=tuple(sorted(options.prefixed("storage").items())),
    )


def _columns(options: Options, option: str, schema: pa.Schema) -> tuple[str, ...]:
    found = tuple(n.strip() for n in (options.text(option) or "").split(",") if n.strip())
    for name in found:
        if name not in schema.names:
            close = difflib.get_close_matches(name, schema.names, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(schema.names)}"
            raise Invalid(f"option '{option}': there is no column '{name}'", code="MR1493", hint=hint)
    return found


CONNECTOR = Connector(
    name="delta",
    doc="a Delta Lake table: each outbox is one commit that the table remembers",
    sink_options=_OPTIONS,
    sink=make_sink,
)
