"""What decoding gives: rows in the declared columns and, one by one, the records that did not decode."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from millrace.operators.batch import Batch
from millrace.operators.spec import serialisable

SYNTAX = "MR2101"
WRONG_TYPE = "MR2102"
OUT_OF_RANGE = "MR2103"
NULL_VALUE = "MR2104"
FIELD_COUNT = "MR2105"
ENCODING = "MR2106"
TRUNCATED = "MR2107"
BAD_NUMBER = "MR2108"
BAD_TIME = "MR2109"
CORRUPT_BLOCK = "MR2110"
TOO_LONG = "MR2111"
ENVELOPE = "MR2112"
REWRITTEN = "MR2113"
UNKNOWN_SCHEMA = "MR2114"

PAYLOAD_BYTES_MAX = 64 * 1024
"""A bad record keeps at most this much of what was read."""


@serialisable
@dataclass(frozen=True, slots=True)
class TextLayout:
    """How text is laid out in JSON lines and CSV.

    `timestamp` is `auto` (ISO text; numbers are epoch milliseconds), `s`, `ms`, `us`, `ns` (the unit of numbers) or a
    strptime pattern. `header` says that the first CSV record names the columns.
    """

    timestamp: str = "auto"
    header: bool = True
    delimiter: str = ","
    quote: str = '"'
    escape: str = ""
    null_text: str = ""
    comment: str = ""

    @property
    def number_unit(self) -> str:
        """Unit of timestamps that are numbers."""
        return self.timestamp if self.timestamp in ("s", "ms", "us", "ns") else "ms"

    @property
    def pattern(self) -> str | None:
        """The strptime pattern, where one is given."""
        return self.timestamp if "%" in self.timestamp else None


class RecordError(Exception):
    """One record does not decode: a code of this module and the reason, for a dead letter."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class BadRow:
    """A record of a block that did not decode: `offset` in bytes and `line` (from 0) within the block."""

    code: str
    reason: str
    offset: int
    line: int
    payload: bytes


@dataclass(slots=True)
class Decoded:
    """The good rows of a block in order, and its bad records in order."""

    batch: Batch
    bad: list[BadRow] = field(default_factory=list)


def empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    """No rows of `schema`."""
    return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in schema], schema=schema)


def is_json(column: pa.Field) -> bool:
    """Whether a column holds JSON text."""
    return bool(column.metadata) and column.metadata.get(b"sql_type") == b"JSON"


def shown(value: object) -> str:
    """A value as an error message shows it: short, one line."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
