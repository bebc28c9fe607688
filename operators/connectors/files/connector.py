"""The file connector: its options and the specs made of them."""

from __future__ import annotations

import difflib
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from millrace.errors import Invalid
from millrace.operators.connectors.files.compression import NAMES, PlainStream, codec_of, plain_name
from millrace.operators.connectors.files.sink import FileSinkSpec
from millrace.operators.connectors.files.source import FileSourceSpec, line_decoder
from millrace.operators.connectors.files.storage import ByteStream, Storage, storage
from millrace.operators.connectors.options import Kind, Option, Options
from millrace.operators.connectors.registry import Connector
from millrace.operators.formats.csv_lines import CsvDecoder, header_names
from millrace.operators.formats.inference import SAMPLE_BYTES, infer_csv, infer_json, plain_type
from millrace.operators.formats.raw import check_raw
from millrace.operators.formats.records import RecordError, TextLayout
from millrace.operators.sink import Changelog

_FORMATS = ("json", "csv", "parquet", "arrow", "raw", "debezium-json")
_ENDINGS = {
    "json": "json",
    "jsonl": "json",
    "ndjson": "json",
    "csv": "csv",
    "tsv": "csv",
    "parquet": "parquet",
    "pq": "parquet",
    "arrow": "arrow",
    "arrows": "arrow",
    "feather": "arrow",
    "ipc": "arrow",
    "txt": "raw",
    "log": "raw",
}
_HEADERLESS = "csv_no_header"
_ALIASES = {"jsonlines": "json", "jsonl": "json", "ndjson": "json", "ipc": "arrow", "feather": "arrow"}
_ALIASES |= {"debezium": "debezium-json", _HEADERLESS: "csv", "text": "raw", "json_lines": "json"}

_PATH = Option(
    "path",
    "a file, a folder, a glob, file://… or the URL of an object store",
    required=True,
    aliases=("file.path", "file_path", "url"),
)
_FORMAT = Option(
    "format",
    "json, csv, parquet, arrow, raw or debezium-json; by the ending of the path where not set",
    aliases=("file.format", "value.format"),
)
_CSV = (
    Option(
        "header",
        "whether the first CSV record names the columns",
        Kind.FLAG,
        aliases=("csv.header", "has_headers", "has_header", "csv.has_headers", "csv_has_header"),
    ),
    Option(
        "delimiter",
        "between CSV fields",
        Kind.CHARACTER,
        aliases=("csv.delimiter", "csv.field-delimiter", "csv_delimiter", "sep"),
    ),
    Option(
        "quote",
        "around CSV fields; empty for none",
        Kind.CHARACTER,
        '"',
        ("csv.quote", "csv.quote-character"),
    ),
    Option(
        "escape",
        "before a CSV character taken as it stands",
        Kind.CHARACTER,
        "",
        ("csv.escape", "csv.escape-character"),
    ),
    Option("null", "the CSV text that stands for NULL", default="", aliases=("csv.null", "csv.null-literal")),
)
_SOURCE_OPTIONS = (
    _PATH,
    _FORMAT,
    *_CSV,
    Option("comment", "CSV lines that begin with it are passed over", Kind.CHARACTER, "", ("csv.comment",)),
    Option(
        "follow",
        "keep reading as files grow and new ones appear",
        Kind.FLAG,
        "false",
        ("watching", "watch", "tail"),
    ),
    Option(
        "poll.interval",
        "how often to look for new files and lines",
        Kind.DURATION,
        "1s",
        ("polling_interval", "poll_interval", "polling.interval", "source.monitor-interval"),
    ),
    Option("compression", "codec of the files", default="auto", choices=NAMES),
)


def read_layout(options: Options) -> TextLayout:
    """The text layout that the options describe. Raises Invalid MR1424."""
    event_time = options.text("event.time.format") or "auto"
    known = {
        "iso": "auto",
        "iso8601": "auto",
        "rfc3339": "auto",
        "iso-8601": "auto",
        "seconds": "s",
        "milliseconds": "ms",
        "microseconds": "us",
        "nanoseconds": "ns",
        "epoch": "s",
        "epoch_seconds": "s",
        "epoch_ms": "ms",
        "epoch_millis": "ms",
        "epoch_micros": "us",
        "epoch_us": "us",
        "epoch_nanos": "ns",
        "epoch-millis": "ms",
        "epoch-seconds": "s",
    }
    lowered = event_time.lower()
    timestamp = known.get(lowered, lowered if lowered in ("auto", "s", "ms", "us", "ns") else event_time)
    if timestamp not in ("auto", "s", "ms", "us", "ns") and "%" not in timestamp:
        raise Invalid(
            f"option 'event.time.format' can not be '{event_time}'",
            code="MR1424",
            hint="use iso, s, ms, us, ns or a strptime pattern such as '%d/%m/%Y %H:%M:%S'",
        )
    header = True if "header" not in options.given else options.flag("header")
    delimiter = options.text("delimiter")
    if delimiter is None:
        delimiter = "\t" if plain_name(options.required("path")).lower().endswith(".tsv") else ","
    return TextLayout(
        timestamp=timestamp,
        header=header,
        delimiter=delimiter,
        quote=options.text("quote") or "",
        escape=options.text("escape") or "",
        null_text=options.text("null") or "",
        comment=options.text("comment") or "",
    )


def read_format(format: str | None, path: str, names: list[str]) -> str:
    """The format as declared, or by the ending of the path or of the first of the files. Raises Invalid MR1425."""
    if format is not None:
        wanted = format.strip().lower()
        wanted = _ALIASES.get(wanted, wanted)
        if wanted in _FORMATS:
            return wanted
        close = difflib.get_close_matches(wanted, _FORMATS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"files take {', '.join(_FORMATS)}"
        raise Invalid(f"files have no format '{format}'", code="MR1425", hint=hint)
    for name in (path, *names[:1]):
        ending = plain_name(name).lower().rpartition(".")[2]
        if ending in _ENDINGS:
            return _ENDINGS[ending]
    raise Invalid(
        f"the format of '{path}' is not known", code="MR1425", hint="set 'format' = 'json', 'csv', …"
    )


def make_source(options: Options, schema: pa.Schema | None, format: str | None) -> FileSourceSpec:
    """The spec of a file source; finds the columns in the first file where none are declared.

    Raises Invalid: MR1420–MR1425, MR1426 no file to find columns in, MR1427 columns that a header lacks.
    """
    path = options.required("path")
    layout = read_layout(options)
    files = storage(path)
    names = files.list()
    wanted = format or options.text("format")
    chosen = read_format(wanted, path, names)
    if (wanted or "").strip().lower() == _HEADERLESS:
        layout = replace(layout, header=False)
    compression = options.required("compression")
    follow = options.flag("follow")
    if not names and not follow:
        raise Invalid(
            f"there is no file '{path}'", code="MR1426", hint="check the path, or set 'follow' = 'true'"
        )
    if schema is None:
        if not names:
            raise Invalid(
                f"there is no file '{path}' to find columns in", code="MR1426", hint="declare the columns"
            )
        columns = infer(files, names[0], chosen, layout, compression)
    else:
        columns = schema
    if schema is not None and chosen == "csv" and layout.header and names:
        _check_header(files, names[0], columns, layout, compression)
    if chosen == "raw":
        check_raw(columns)
    elif chosen not in ("parquet", "arrow"):
        line_decoder(chosen, columns, layout, None, list(columns.names))
    interval = options.integer("poll.interval")
    return FileSourceSpec(
        path=path,
        format=chosen,
        schema=columns,
        layout=layout,
        follow=follow,
        poll_interval=1_000_000 if interval is None else interval,
        compression=compression,
    )


def infer(files: Storage, name: str, format: str, layout: TextLayout, compression: str) -> pa.Schema:
    """The columns of a file. Raises Invalid MR1423."""
    if format in ("parquet", "arrow"):
        return _typed_schema(files, name, format)
    if format == "raw":
        return pa.schema([("line", pa.string())])
    sample = _sample(files, name, compression)
    if format == "csv":
        return infer_csv(sample, layout, name)
    schema = infer_json(sample, name)
    if format == "debezium-json":
        for side in ("after", "before"):
            place = schema.get_field_index(side)
            if place >= 0 and pa.types.is_struct(schema.field(place).type):
                return pa.schema(list(schema.field(place).type))
        raise Invalid(f"'{name}' has no change with rows", code="MR1423", hint="declare the columns")
    return schema


def _typed_schema(files: Storage, name: str, format: str) -> pa.Schema:
    try:
        with files.arrow(name) as source:
            if format == "parquet":
                found = pq.ParquetFile(source).schema_arrow
            elif source.read(6) == b"ARROW1":
                source.seek(0)
                found = pa.ipc.open_file(source).schema
            else:
                source.seek(0)
                found = pa.ipc.open_stream(source).schema
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Invalid(
            f"the columns of '{name}' can not be found: {error}", code="MR1423", hint="declare the columns"
        ) from error
    return pa.schema([pa.field(f.name, plain_type(f.type), f.nullable) for f in found])


def _sample(files: Storage, name: str, compression: str) -> bytes:
    codec = codec_of(name, compression)
    raw = files.open(name)
    stream: ByteStream = raw if codec is None else PlainStream(raw, codec, 0)
    data = b""
    try:
        while len(data) < SAMPLE_BYTES:
            chunk = stream.read(SAMPLE_BYTES - len(data))
            if not chunk:
                return data
            data += chunk
    except OSError as error:
        raise Invalid(
            f"'{name}' can not be read: {error}", code="MR1423", hint="declare the columns"
        ) from error
    finally:
        stream.close()
        raw.close()
    return data[: data.rfind(b"\n") + 1] or data


def _check_header(files: Storage, name: str, schema: pa.Schema, layout: TextLayout, compression: str) -> None:
    sample = _sample(files, name, compression)
    starts, ends = CsvDecoder(pa.schema([]), layout, []).split(sample)
    if not len(starts):
        return
    try:
        names = header_names(sample[starts[0] : ends[0]], layout)
    except RecordError as error:
        raise Invalid(f"the header of '{name}' can not be read: {error.reason}", code="MR1427") from error
    for column in schema.names:
        if column not in names:
            close = difflib.get_close_matches(column, names, n=1)
            hint = f"did you mean '{close[0]}'?" if close else "without a header, set 'header' = 'false'"
            raise Invalid(f"the header of '{name}' has no column '{column}'", code="MR1427", hint=hint)


_SINK_OPTIONS = (
    Option(
        "path", "a folder, or one file where it ends in .csv, .json, …", required=True, aliases=_PATH.aliases
    ),
    _FORMAT,
    *_CSV[:2],
    Option("partition.by", "columns that name folders, separated by commas", aliases=("partition_by",)),
    Option(
        "roll.size", "size at which a file is ended", Kind.SIZE, "256MB", ("sink.rolling-policy.file-size",)
    ),
    Option(
        "roll.interval",
        "age at which a file is ended",
        Kind.DURATION,
        aliases=("sink.rolling-policy.rollover-interval",),
    ),
    Option("compression", "codec of the files", default="auto", choices=NAMES),
    Option(
        "changes",
        "the column that says what a row does, where rows can be taken back",
        choices=("__weight", "op"),
    ),
    Option("overwrite", "replace one file that something else wrote", Kind.FLAG, "false"),
)


def make_sink(
    options: Options, schema: pa.Schema, changelog: Changelog, key: tuple[str, ...]
) -> FileSinkSpec:
    """The spec of a file sink. Raises Invalid MR1425, MR1428 and MR1429."""
    path = options.required("path")
    ending = plain_name(path).rpartition("/")[2].lower().rpartition(".")
    one_file = bool(ending[0]) and ending[2] in _ENDINGS
    format = read_format(options.text("format"), path if one_file else "x.json", [])
    if format == "raw":
        raise Invalid(
            "files of format raw can not be written", code="MR1428", hint="use json, csv, parquet or arrow"
        )
    codec = codec_of(path, options.required("compression"))
    columns = [name.strip() for name in (options.text("partition.by") or "").split(",") if name.strip()]
    for name in columns:
        if name not in schema.names:
            close = difflib.get_close_matches(name, schema.names, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(schema.names)}"
            raise Invalid(f"option 'partition.by': there is no column '{name}'", code="MR1429", hint=hint)
    if columns and one_file:
        raise Invalid(
            f"'{path}' is one file, which can not be divided by columns", code="MR1429", hint="give a folder"
        )
    change_column = ""
    if changelog is not Changelog.APPEND and format != "debezium-json":
        change_column = options.text("changes") or "__weight"
        if change_column in schema.names:
            raise Invalid(
                f"the rows have a column '{change_column}' already",
                code="MR1429",
                hint="rename it, or choose 'changes' = 'op' or '__weight'",
            )
    roll_size = options.integer("roll.size")
    return FileSinkSpec(
        path=path,
        format=format,
        schema=schema,
        change_column=change_column,
        partition_by=tuple(schema.names.index(name) for name in columns),
        roll_size=256 << 20 if roll_size is None else roll_size,
        roll_interval=options.integer("roll.interval"),
        delimiter=read_layout(options).delimiter,
        header="header" not in options.given or options.flag("header"),
        codec=codec,
        one_file=one_file,
        overwrite=options.flag("overwrite"),
    )


CONNECTOR = Connector(
    name="file",
    doc="files on local disk and in object stores",
    source_options=_SOURCE_OPTIONS,
    sink_options=_SINK_OPTIONS,
    source=make_source,
    sink=make_sink,
)
