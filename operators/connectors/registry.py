"""Connectors by name: makes source and sink specs of options. Imports a connector only when it is asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from millrace.errors import Invalid, Unsupported
from millrace.operators.connectors.options import Kind, Option, Options, read_options
from millrace.operators.sink import Changelog, SinkSpec
from millrace.operators.source import SourceSpec

SourceFactory = Callable[[Options, "pa.Schema | None", "str | None"], SourceSpec]
"""(options, declared columns or None = infer, format or None) → spec."""
SinkFactory = Callable[[Options, pa.Schema, Changelog, tuple[str, ...]], SinkSpec]
"""(options, columns, changelog mode, key columns) → spec."""

FORMATS = ("json", "csv", "parquet", "arrow", "raw", "debezium-json")

METADATA = b"metadata"
"""Field metadata of a declared column that is not of the record's value: the key of what it is of its metadata."""

COMMON_OPTIONS = (
    Option(
        "bad_rows",
        "fail, skip, or the name of the table that takes records which do not decode",
        default="skip",
        aliases=("bad.rows", "failure.strategy"),
    ),
    Option("event.time.column", "the column that holds the event time", aliases=("event.time.field",)),
    Option("event.time.format", "iso, s, ms, us, ns (epoch numbers) or a strptime pattern"),
    Option(
        "watermark.max_out_of_orderness",
        "how far rows may be behind the latest one, e.g. 5s",
        Kind.DURATION,
        aliases=("watermark.max.out.of.orderness", "max.out.of.orderness"),
    ),
    Option(
        "watermark.idle_timeout",
        "after which silence a split stops holding the others back",
        Kind.DURATION,
        aliases=("watermark.idle.timeout", "scan.watermark.idle-timeout"),
    ),
    Option(
        "watermark.strategy",
        "how the watermark follows the event time",
        choices=("bounded_out_of_orderness",),
    ),
    Option("parallelism", "how many partitions read or write", Kind.INTEGER),
)
"""Options that every source takes; the binder reads them by `common_options`."""


@dataclass(frozen=True, slots=True)
class Connector:
    """What a connector module registers as its `CONNECTOR`: declared options and factories of specs.

    A factory is None where the connector can't be read from or written to.
    """

    name: str
    doc: str
    source_options: tuple[Option, ...] = ()
    sink_options: tuple[Option, ...] = ()
    source: SourceFactory | None = None
    sink: SinkFactory | None = None
    metadata: bool = False
    """Whether columns of the declared schema may carry METADATA: the key of what they are of a record's metadata."""


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    module: str | None
    aliases: tuple[str, ...] = ()


_HERE = "millrace.operators.connectors"
_ENTRIES = (
    _Entry(
        "file",
        f"{_HERE}.files.connector",
        ("files", "filesystem", "single_file", "file_source", "file_sink", "s3", "gs", "az"),
    ),
    _Entry("nexmark", f"{_HERE}.nexmark"),
    _Entry("datagen", f"{_HERE}.datagen", ("generator",)),
    _Entry("push", f"{_HERE}.push", ("memory",)),
    _Entry("console", f"{_HERE}.console", ("print", "stdout", "stdout_sink")),
    _Entry("arrow", f"{_HERE}.arrow"),
    _Entry("blackhole", f"{_HERE}.blackhole"),
    _Entry("subscription", f"{_HERE}.subscription"),
    _Entry("kafka", f"{_HERE}.kafka.connector", ("kafka_source", "kafka_sink", "upsert-kafka")),
    _Entry("postgres", f"{_HERE}.postgres.connector", ("postgresql", "jdbc")),
    _Entry("delta", f"{_HERE}.delta.connector", ("deltalake",)),
    _Entry("iceberg", None),
)
_BY_NAME = {name: entry for entry in _ENTRIES for name in (entry.name, *entry.aliases)}


def names() -> list[str]:
    """Canonical names of the connectors there are."""
    return [entry.name for entry in _ENTRIES if entry.module is not None]


def canonical_name(connector: str) -> str:
    """The canonical name behind any spelling. Raises Invalid MR1400 where there is none."""
    entry = _BY_NAME.get(connector.strip().lower())
    if entry is None:
        close = difflib.get_close_matches(connector.lower(), list(_BY_NAME), n=1, cutoff=0.6)
        hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(names())}"
        raise Invalid(f"there is no connector '{connector}'", code="MR1400", hint=hint)
    return entry.name


def find(connector: str) -> Connector:
    """The connector of this name or alias, imported now.

    Raises Invalid MR1400 where the name is unknown, Unsupported MR1910 where this version does not have it.
    """
    entry = _BY_NAME[canonical_name(connector)]
    if entry.module is None:
        raise Unsupported(
            f"connector '{entry.name}' is not part of this version",
            code="MR1910",
            hint=f"there are {', '.join(names())}",
        )
    found: Connector = importlib.import_module(entry.module).CONNECTOR
    return found


def connectors() -> list[Connector]:
    """All connectors with their options, for documentation and completion."""
    return [find(name) for name in names()]


def common_options(options: Mapping[str, str]) -> Options:
    """The values of COMMON_OPTIONS among `options`; the connector's own are passed over."""
    known = {n for option in COMMON_OPTIONS for n in (option.name, *option.aliases)}
    return read_options("common", COMMON_OPTIONS, {k: v for k, v in options.items() if k.lower() in known})


def source_spec(
    connector: str, options: Mapping[str, str], schema: pa.Schema | None, format: str | None
) -> SourceSpec:
    """The spec of a source; `schema` None asks the connector to find the columns in the data.

    Raises Invalid: MR1400 unknown connector, MR1401–MR1404 options, MR1405 not a source, and what the
    connector adds.
    """
    found = find(connector)
    if found.source is None:
        raise Invalid(
            f"connector '{found.name}' can not be read from", code="MR1405", hint="use it as a sink"
        )
    declared = {o.name: o for o in (*COMMON_OPTIONS, *found.source_options)}
    values = read_options(found.name, declared.values(), options)
    return found.source(values, schema, format)


def sink_spec(
    connector: str,
    options: Mapping[str, str],
    schema: pa.Schema,
    changelog: Changelog,
    key: tuple[str, ...],
) -> SinkSpec:
    """The spec of a sink for rows of `schema` in this changelog mode, `key` naming the key columns (or ()).

    Raises Invalid as `source_spec`; MR1406 where it is not a sink, MR1407 where it can't take the mode.
    """
    found = find(connector)
    if found.sink is None:
        raise Invalid(
            f"connector '{found.name}' can not be written to", code="MR1406", hint="use it as a source"
        )
    declared = {o.name: o for o in (*COMMON_OPTIONS, *found.sink_options)}
    spec = found.sink(read_options(found.name, declared.values(), options), schema, changelog, key)
    if changelog not in type(spec).changelogs:
        takes = ", ".join(sorted(mode.value for mode in type(spec).changelogs))
        raise Invalid(
            f"sink '{found.name}' can not take {changelog.value} rows",
            code="MR1407",
            hint=f"it takes {takes}; emit on window close, or choose another sink",
        )
    return spec
