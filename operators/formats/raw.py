"""The raw format: each line is the value of the one column."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.formats.lines import LineDecoder, line_bounds
from millrace.operators.formats.records import ENCODING, RecordError, TextLayout
from millrace.operators.formats.values import type_name


class RawDecoder(LineDecoder):
    """Lines into one VARCHAR or BYTES column; raises Invalid MR1422 for any other schema."""

    def __init__(self, schema: pa.Schema, layout: TextLayout) -> None:
        super().__init__(schema, layout)
        check_raw(schema)
        self._text = pa.types.is_string(schema.field(0).type)

    def fast(self, block: bytes, count: int | None) -> pa.RecordBatch:
        if self._text and not block.isascii():
            block.decode()
        starts, ends = line_bounds(block)
        data = np.frombuffer(block, np.uint8)
        lengths = ends - starts
        offsets = np.zeros(len(starts) + 1, np.int32)
        np.cumsum(lengths, out=offsets[1:])
        keep = np.zeros(len(data) + 1, np.int8)
        np.add.at(keep, starts, 1)
        np.add.at(keep, ends, -1)
        body = data[np.cumsum(keep[:-1], dtype=np.int8) > 0]
        array = pa.Array.from_buffers(
            self.schema.field(0).type, len(starts), [None, pa.py_buffer(offsets), pa.py_buffer(body)]
        )
        return pa.RecordBatch.from_arrays([array], schema=self.schema)

    def slow(self, record: bytes) -> tuple[object, ...]:
        if not self._text:
            return (record,)
        try:
            return (record.decode(),)
        except UnicodeDecodeError as error:
            raise RecordError(ENCODING, f"invalid UTF-8 at byte {error.start}") from None


def check_raw(schema: pa.Schema) -> None:
    """Raises Invalid MR1422 unless there is one column, of text or bytes."""
    if len(schema) == 1 and (
        pa.types.is_string(schema.field(0).type) or pa.types.is_binary(schema.field(0).type)
    ):
        return
    shown = ", ".join(f"{f.name} {type_name(f.type)}" for f in schema)
    raise Invalid(
        f"format raw needs one VARCHAR or BYTES column, got ({shown})",
        code="MR1422",
        hint="declare one column, or choose json or csv",
    )
