"""The `nexmark` connector's options, and the spec that a declaration makes of them."""

from __future__ import annotations

import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.connectors.nexmark.schema import SCHEMAS
from millrace.operators.connectors.nexmark.source import NexmarkSpec
from millrace.operators.connectors.options import Kind, Option, Options
from millrace.operators.connectors.registry import Connector
from millrace.operators.source import SourceSpec

OPTIONS = (
    Option(
        "events",
        "how many events of all kinds (46 of 50 are bids); without it the stream has no end",
        Kind.INTEGER,
    ),
    Option("rate", "events of all kinds a second, 0 for as fast as possible", Kind.NUMBER, default="0"),
    Option("seed", "equal seeds give equal rows", Kind.INTEGER, default="0"),
    Option("table", "bid, auction or person; without it all in one, as structs", choices=tuple(SCHEMAS)),
    Option("splits", "how many readers may share the work", Kind.INTEGER, default="1"),
)


def source(options: Options, declared: pa.Schema | None, format: str | None) -> SourceSpec:
    """The spec; declared columns must be columns of the table, with its types.

    Raises Invalid MR1432 (option out of range), MR1433 (unknown column), MR1434 (other type), MR1435 (a format).
    """
    if format is not None:
        raise Invalid(
            f"nexmark makes rows itself and takes no format {format!r}", code="MR1435", hint="leave it out"
        )
    table = options.text("table") or "event"
    spec = NexmarkSpec(
        table=table,
        events=options.integer("events"),
        rate=options.number("rate") or 0.0,
        seed=options.integer("seed") or 0,
        splits=options.integer("splits") or 0,
        columns=None if declared is None else tuple(declared.names),
    )
    for field in declared or ():
        made = SCHEMAS[table].field(field.name).type
        if field.type != made:
            raise Invalid(
                f"column {field.name!r} of nexmark table {table!r} is {made}, not {field.type}",
                code="MR1434",
                hint="leave the columns out, or declare them as BIGINT, VARCHAR and TIMESTAMP(3)",
            )
    return spec


CONNECTOR = Connector(
    name="nexmark",
    doc="The Nexmark benchmark's auction site: persons, auctions and bids, generated.",
    source_options=OPTIONS,
    source=source,
)
