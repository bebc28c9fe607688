"""Finds the columns of data that came without a declaration."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.json as pj

from millrace.errors import Invalid
from millrace.operators.formats.json_lines import only_objects
from millrace.operators.formats.records import TextLayout

SAMPLE_BYTES = 1 << 20
_NO_NEWLINES = np.empty(0, np.int64)


def infer_json(sample: bytes, name: str) -> pa.Schema:
    """Columns of JSON lines by a sample of whole lines. Raises Invalid MR1423 where none of it is JSON.

    Where lines disagree or are bad, the first ones that agree decide.
    """
    reason = "no line is a JSON object"
    lines = [line for line in sample.splitlines() if line and only_objects(line, _NO_NEWLINES)]
    for count in (len(lines), 1_000, 100, 10, 1):
        data = b"\n".join(lines if count == len(lines) else _good_lines(lines, count))
        try:
            options = pj.ReadOptions(use_threads=False, block_size=len(data) + 1)
            schema = _plain(pj.read_json(io.BytesIO(data), read_options=options).schema)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            reason = str(error)
            continue
        if len(schema):
            return schema
    raise _failed(name, reason)


def infer_csv(sample: bytes, layout: TextLayout, name: str) -> pa.Schema:
    """Columns of CSV by its header and a sample of whole records; without a header they are f0, f1 and so on."""
    sample = b"\n".join([line for line in sample.split(b"\n") if _is_text(line)])
    try:
        table = pc.read_csv(
            io.BytesIO(sample),
            read_options=pc.ReadOptions(
                use_threads=False,
                block_size=max(len(sample) + 1, 1 << 12),
                autogenerate_column_names=not layout.header,
            ),
            parse_options=pc.ParseOptions(
                delimiter=layout.delimiter,
                quote_char=layout.quote or False,
                escape_char=layout.escape or False,
                newlines_in_values=True,
                invalid_row_handler=lambda _: "skip",
            ),
            convert_options=pc.ConvertOptions(
                null_values=[layout.null_text], strings_can_be_null=True, quoted_strings_can_be_null=False
            ),
        )
        return _plain(table.schema)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise _failed(name, str(error)) from error


def _is_text(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _good_lines(lines: list[bytes], count: int) -> list[bytes]:
    good: list[bytes] = []
    for line in lines[: 2 * count + 100]:
        try:
            pj.read_json(io.BytesIO(line))
        except pa.ArrowInvalid:
            continue
        good.append(line)
        if len(good) == count:
            break
    return good


def _failed(name: str, reason: str) -> Invalid:
    return Invalid(
        f"the columns of '{name}' can not be found: {reason}", code="MR1423", hint="declare the columns"
    )


def _plain(schema: pa.Schema) -> pa.Schema:
    """The schema in the types that SQL names; columns that held no value are VARCHAR."""
    return pa.schema([pa.field(f.name, plain_type(f.type), f.nullable) for f in schema])


def plain_type(type_: pa.DataType) -> pa.DataType:
    """The type of a column of data as SQL names it."""
    if pa.types.is_null(type_) or pa.types.is_large_string(type_):
        return pa.string()
    if pa.types.is_large_binary(type_):
        return pa.binary()
    if pa.types.is_dictionary(type_):
        return plain_type(type_.value_type)
    if pa.types.is_timestamp(type_):
        unit = "us" if type_.unit == "s" else type_.unit
        return pa.timestamp(unit, "UTC" if type_.tz else None)
    if pa.types.is_time32(type_) or pa.types.is_time64(type_):
        return pa.time64("us")
    if pa.types.is_date64(type_):
        return pa.date32()
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return pa.list_(plain_type(type_.value_type))
    if pa.types.is_struct(type_):
        return pa.struct([pa.field(f.name, plain_type(f.type)) for f in type_])
    return type_
