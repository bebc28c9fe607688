"""Decoding of CSV: records of delimited fields, quoted where needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from millrace.operators.batch import Int64Array
from millrace.operators.formats.lines import LineDecoder, Mismatch, line_bounds, without_blanks
from millrace.operators.formats.records import ENCODING, FIELD_COUNT, SYNTAX, RecordError, TextLayout
from millrace.operators.formats.values import converter
from millrace.operators.formats.vectors import Reading, text_readings

QUOTED_RECORD_BYTES_MAX = 1 << 20
"""A record whose quoted field is still open after so many bytes has a stray quote."""


@dataclass(slots=True)
class _Column:
    field: pa.Field
    ways: list[Reading]
    way: Reading | None


class CsvDecoder(LineDecoder):
    """CSV into `schema`'s columns; `names` are the columns of the file in order."""

    def __init__(self, schema: pa.Schema, layout: TextLayout, names: Sequence[str]) -> None:
        super().__init__(schema, layout)
        self._names = list(names)
        self._missing = [name for name in schema.names if name not in self._names]
        places = {name: i for i, name in reversed(list(enumerate(self._names)))}
        self._picks = [(places.get(f.name, -1), converter(f, layout)) for f in schema]
        self._ways = [_Column(f, w, w[0] if w else None) for f in schema for w in [text_readings(f, layout)]]
        self._columnar = all(c.ways for c in self._ways) and not self._missing
        self._columnar = self._columnar and len(set(self._names)) == len(self._names)
        self._quote = layout.quote.encode()
        self._comment = layout.comment.encode()
        self._delimiter = ord(layout.delimiter)
        self._escape = ord(layout.escape) if layout.escape else -1
        self._parse = pc.ParseOptions(
            delimiter=layout.delimiter,
            quote_char=layout.quote or False,
            double_quote=True,
            escape_char=layout.escape or False,
            newlines_in_values=True,
        )
        self._parse_plain = pc.ParseOptions(
            delimiter=layout.delimiter, quote_char=False, escape_char=layout.escape or False
        )

    def fast(self, block: bytes, count: int | None) -> pa.RecordBatch:
        if not self._columnar:
            raise Mismatch
        quoted = bool(self._quote) and self._quote in block
        if quoted and self._ends(block)[1]:
            raise Mismatch
        if self._comment and self._comment in block:
            starts, ends = self.split(block)
            count = len(starts)
            block = b"\n".join([block[s:e] for s, e in zip(starts.tolist(), ends.tolist(), strict=True)])
        table = pc.read_csv(
            pa.BufferReader(block),
            read_options=pc.ReadOptions(
                use_threads=False, block_size=len(block) + 1, column_names=self._names
            ),
            parse_options=self._parse if quoted else self._parse_plain,
            convert_options=self._convert_options(),
        )
        expected = count
        if expected is None and not quoted:
            expected = block.count(b"\n") + (not block.endswith(b"\n"))
        if table.num_rows != expected and table.num_rows != len(self.split(block)[0]):
            raise Mismatch
        arrays = []
        for i, column in enumerate(self._ways):
            assert column.way is not None
            chunks = table.column(i)
            array = chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()
            array = column.way.convert(array)
            if pa.types.is_floating(array.type) and np.isinf(array.to_numpy(zero_copy_only=False)).any():
                raise Mismatch
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _convert_options(self) -> pc.ConvertOptions:
        return pc.ConvertOptions(
            column_types={c.field.name: c.way.read for c in self._ways if c.way is not None},
            include_columns=[c.field.name for c in self._ways],
            null_values=[self.layout.null_text],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["true", "True", "TRUE", "t", "1"],
            false_values=["false", "False", "FALSE", "f", "0"],
        )

    def adapt(self, records: Sequence[bytes]) -> bool:
        """Choose each column's reading by the texts its first rows hold."""
        samples: dict[int, str] = {}
        for record in records:
            try:
                fields = self._fields(record)
            except RecordError:
                continue
            for place, (text, quoted) in enumerate(fields):
                if quoted or text != self.layout.null_text:
                    samples.setdefault(place, text.strip())
        changed = False
        for (place, _), column in zip(self._picks, self._ways, strict=True):
            sample = samples.get(place)
            if sample is None or len(column.ways) < 2:
                continue
            chosen = next((way for way in column.ways if way.suits(sample)), None)
            if chosen is not None and chosen is not column.way:
                column.way = chosen
                changed = True
        return changed

    def split(self, block: bytes) -> tuple[Int64Array, Int64Array]:
        starts, ends = line_bounds(block) if self._plain(block) else self._quoted_bounds(block)
        if self._comment and self._comment in block and len(starts):
            data = np.frombuffer(block, np.uint8)
            keep = data[starts] != self._comment[0]
            starts, ends = starts[keep], ends[keep]
        return starts, ends

    def _quoted_bounds(self, block: bytes) -> tuple[Int64Array, Int64Array]:
        cuts, _ = self._ends(block)
        if len(cuts) == 0 or cuts[-1] != len(block):
            cuts = np.append(cuts, len(block))
        starts = np.concatenate([np.zeros(1, np.int64), cuts[:-1]])
        data = np.frombuffer(block, np.uint8)
        ends = cuts - (data[cuts - 1] == 10)
        return without_blanks(block, starts, ends)

    def _plain(self, block: bytes) -> bool:
        return self._escape < 0 and (not self._quote or self._quote not in block)

    def _ends(self, block: bytes) -> tuple[Int64Array, bool]:
        """Ends of the whole records, and whether a quote is where it should not be."""
        # Numba takes a quarter of a second to import, and only quoted text needs it.
        from millrace.operators.formats.csv_kernels import record_ends

        data = np.frombuffer(block, np.uint8)
        ends = np.empty(block.count(b"\n") + 1, np.int64)
        quote = self._quote[0] if self._quote else -1
        count, stray = record_ends(data, self._delimiter, quote, self._escape, QUOTED_RECORD_BYTES_MAX, ends)
        return ends[:count], bool(stray)

    def complete(self, block: bytes) -> int:
        if self._plain(block):
            return block.rfind(b"\n") + 1
        ends, _ = self._ends(block)
        return int(ends[-1]) if len(ends) else 0

    def slow(self, record: bytes) -> tuple[object, ...]:
        fields = self._fields(record)
        if self._missing:
            raise RecordError(FIELD_COUNT, f"the header has no column '{self._missing[0]}'")
        if len(fields) != len(self._names):
            raise RecordError(FIELD_COUNT, f"expected {len(self._names)} fields, got {len(fields)}")
        null_text = self.layout.null_text
        row = []
        for place, convert in self._picks:
            text, quoted = fields[place]
            row.append(convert(None if text == null_text and not quoted else text))
        return tuple(row)

    def salvage(self, record: bytes) -> int:
        newline = record.find(b"\n")
        if newline < 0:
            return len(record)
        try:
            whole = len(self._fields(record)) == len(self._names)
        except RecordError as error:
            whole = error.code == ENCODING
        return len(record) if whole else newline + 1

    def _fields(self, record: bytes) -> list[tuple[str, bool]]:
        try:
            text = record.decode()
        except UnicodeDecodeError as error:
            raise RecordError(ENCODING, f"invalid UTF-8 at byte {error.start}") from None
        return split_fields(text, self.layout)


def split_fields(text: str, layout: TextLayout) -> list[tuple[str, bool]]:
    """The fields of one record and whether each began with a quote. Raises RecordError where a quote is stray."""
    quote, escape, delimiter = layout.quote, layout.escape, layout.delimiter
    if not (quote and quote in text) and not (escape and escape in text):
        return [(part, False) for part in text.split(delimiter)]
    fields: list[tuple[str, bool]] = []
    parts: list[str] = []
    quoted = opened = False
    at_start = True
    i = 0
    while i < len(text):
        c = text[i]
        if c == escape and i + 1 < len(text):
            i += 1
            parts.append(text[i])
            at_start = False
        elif opened:
            if c != quote:
                parts.append(c)
            elif text[i + 1 : i + 2] == quote:
                parts.append(quote)
                i += 1
            else:
                opened = False
                if text[i + 1 : i + 2] not in ("", delimiter, "\r", "\n"):
                    raise RecordError(SYNTAX, "text follows the quote that closes a field")
        elif c == delimiter:
            fields.append(("".join(parts), quoted))
            parts, quoted, at_start = [], False, True
            i += 1
            continue
        elif c == quote and at_start:
            opened = quoted = True
        else:
            parts.append(c)
        at_start = False
        i += 1
    if opened:
        raise RecordError(SYNTAX, "a quoted field is not closed")
    fields.append(("".join(parts), quoted))
    return fields


def header_names(record: bytes, layout: TextLayout) -> list[str]:
    """Column names of a header record. Raises RecordError."""
    try:
        text = record.removeprefix(b"\xef\xbb\xbf").decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise RecordError(ENCODING, f"the header is not UTF-8 at byte {error.start}") from None
    names = [name.strip() for name, _ in split_fields(text, layout)]
    if not any(names):
        raise RecordError(SYNTAX, "the header is empty")
    return names
