"""Side outputs: late rows and dead letters as streams of their own. Knows no driver."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from millrace.operators.batch import Batch
from millrace.operators.operator import Context, Operator, StatelessOperator
from millrace.operators.source import BadRecord
from millrace.operators.spec import OperatorSpec

DEAD_LETTER_SCHEMA = pa.schema(
    [
        pa.field("at", pa.timestamp("us", "UTC")),
        pa.field("code", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("source", pa.string()),
        pa.field("split", pa.string()),
        pa.field("position", pa.string()),
        pa.field("payload", pa.binary()),
    ]
)
"""Columns of a dead-letter table: when, why, and the record as it was read (or as JSON, from inside the job)."""


class PassThrough(StatelessOperator):
    """Hands on what it gets."""

    def apply(self, batch: Batch) -> Batch | None:
        return batch


@dataclass(frozen=True, slots=True)
class LateRows(OperatorSpec):
    """The late rows of the node it reads, in that node's input schema. The driver routes them here."""

    title: ClassVar[str] = "LateRows"
    schema: pa.Schema

    @property
    def output_schema(self) -> pa.Schema:
        return self.schema

    def build(self, context: Context) -> Operator:
        return PassThrough()


@dataclass(frozen=True, slots=True)
class DeadLetters(OperatorSpec):
    """The records of the node it reads that did not decode or compute. The driver routes them here."""

    title: ClassVar[str] = "DeadLetters"

    @property
    def output_schema(self) -> pa.Schema:
        return DEAD_LETTER_SCHEMA

    def build(self, context: Context) -> Operator:
        return PassThrough()


def bad_records_batch(records: Sequence[BadRecord], source: str, now: int) -> pa.RecordBatch:
    """Records that did not decode as rows of a dead-letter table."""
    return pa.RecordBatch.from_arrays(
        [
            pa.array(np.full(len(records), now, np.int64)).cast(DEAD_LETTER_SCHEMA.field("at").type),
            pa.array([record.code for record in records], pa.string()),
            pa.array([record.reason for record in records], pa.string()),
            pa.array([source] * len(records), pa.string()),
            pa.array([record.split for record in records], pa.string()),
            pa.array([record.position for record in records], pa.string()),
            pa.array([record.payload for record in records], pa.binary()),
        ],
        schema=DEAD_LETTER_SCHEMA,
    )


def failed_rows(batch: pa.RecordBatch, code: str, reason: str) -> list[BadRecord]:
    """Rows that did not compute, each as a record whose payload is the row as JSON."""
    return [
        BadRecord(code, reason, "", "", json.dumps(row, default=str, ensure_ascii=False).encode())
        for row in batch.to_pylist()
    ]
