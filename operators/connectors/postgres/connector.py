"""Options of the `postgres` sink, and its spec. Connects to nothing."""

from __future__ import annotations

import difflib
from urllib.parse import urlsplit

import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.connectors.options import Kind, Option, Options
from millrace.operators.connectors.postgres.spec import PostgresSinkSpec
from millrace.operators.connectors.registry import Connector
from millrace.operators.sink import Changelog, SinkSpec

_OPTIONS = (
    Option("url", "postgresql://user:password@host:5432/database", required=True),
    Option(
        "table", "the table, perhaps with its schema: sales.orders", required=True, aliases=("table-name",)
    ),
    Option("mode", "append rows, or replace them by key", choices=("append", "upsert")),
    Option("primary.key", "columns by which rows are replaced", aliases=("key",)),
    Option("create", "make the table where there is none", Kind.FLAG, default="false"),
    Option("marker.table", "where it is noted what was written", default="millrace_markers"),
)


def make_sink(options: Options, schema: pa.Schema, changelog: Changelog, key: tuple[str, ...]) -> SinkSpec:
    """The spec of a sink for rows in this mode. Raises Invalid MR1407, MR1450 to MR1453."""
    url = options.required("url")
    if urlsplit(url).scheme not in ("postgres", "postgresql"):
        raise Invalid(
            "option 'url' of connector 'postgres' is no address of a PostgreSQL database",
            code="MR1450",
            hint="'url' = 'postgresql://user:password@host:5432/database'",
        )
    if changelog is Changelog.RETRACT:
        raise Invalid(
            "rows of a table can not be taken back without a key",
            code="MR1407",
            hint="give the rows a key: GROUP BY it, or PRIMARY KEY (…) in the sink's declaration",
        )
    named = tuple(n.strip() for n in (options.text("primary.key") or "").split(",") if n.strip())
    for name in named:
        if name not in schema.names:
            close = difflib.get_close_matches(name, schema.names, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(schema.names)}"
            raise Invalid(f"option 'primary.key': there is no column '{name}'", code="MR1493", hint=hint)
    upsert = changelog is Changelog.UPSERT or (options.text("mode") == "upsert")
    keys = named or key
    if changelog is Changelog.UPSERT and (set(keys) != set(key) or options.text("mode") == "append"):
        raise Invalid(
            f"the rows change by {', '.join(key)}, and the sink is to "
            + (f"replace them by {', '.join(keys)}" if set(keys) != set(key) else "append them"),
            code="MR1452",
            hint=f"'mode' = 'upsert' and no other 'primary.key' than '{', '.join(key)}'",
        )
    if upsert and not keys:
        raise Invalid(
            "option 'mode' = 'upsert' needs a key",
            code="MR1452",
            hint="'primary.key' = 'id', or PRIMARY KEY (id)",
        )
    nested = [f.name for f in schema if pa.types.is_nested(f.type)]
    if nested:
        raise Invalid(
            f"column {nested[0]} is {schema.field(nested[0]).type}, which is not written to PostgreSQL",
            code="MR1453",
            hint=f"write CAST({nested[0]} AS JSON)",
        )
    return PostgresSinkSpec(
        url=url,
        table=options.required("table"),
        schema=schema,
        key=keys if upsert else (),
        create=options.flag("create"),
        marker_table=options.required("marker.table"),
    )


CONNECTOR = Connector(
    name="postgres",
    doc="a table of PostgreSQL: rows and the note of what was written in one transaction",
    sink_options=_OPTIONS,
    sink=make_sink,
)
