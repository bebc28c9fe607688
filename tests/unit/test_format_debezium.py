"""Debezium JSON: envelopes become rows with weights."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from millrace.operators.formats.debezium import DebeziumDecoder
from millrace.operators.formats.records import Decoded, TextLayout

SCHEMA = pa.schema(
    [pa.field("id", pa.int64(), nullable=False), ("name", pa.string()), ("p", pa.decimal64(10, 2))]
)


def change(op: str, before: object, after: object) -> str:
    return json.dumps({"before": before, "after": after, "op": op, "source": {"lsn": 1}, "ts_ms": 5})


def decode(*lines: str) -> Decoded:
    return DebeziumDecoder(SCHEMA, TextLayout()).decode("\n".join(lines).encode() + b"\n")


def changes(decoded: Decoded) -> list[tuple[object, ...]]:
    assert decoded.batch.weights is not None
    rows = decoded.batch.data.to_pylist()
    return [(w, r["id"], r["name"]) for w, r in zip(decoded.batch.weights.tolist(), rows, strict=True)]


A, B = {"id": 1, "name": "a", "p": 1.25}, {"id": 1, "name": "b"}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("count", [1, 50])
def test_each_operation(wrapped: bool, count: int) -> None:
    lines = [change("r", None, A), change("u", A, B), change("d", B, None), change("c", None, A)] * count
    if wrapped:
        lines = [json.dumps({"schema": {}, "payload": json.loads(line)}) for line in lines]
    decoded = decode(*lines)
    assert changes(decoded) == [(1, 1, "a"), (-1, 1, "a"), (1, 1, "b"), (-1, 1, "b"), (1, 1, "a")] * count
    assert decoded.bad == []
    assert decoded.batch.schema.equals(SCHEMA)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (change("x", None, A), "MR2112"),
        (change("d", None, None), "MR2112"),
        (change("u", None, B), "MR2112"),
        (change("c", None, {"name": "no id"}), "MR2104"),
        (change("c", None, {"id": "x"}), "MR2102"),
        ('{"id":1}', "MR2112"),
        ("{oops", "MR2101"),
    ],
)
def test_bad_envelopes_are_bad_records(line: str, code: str) -> None:
    decoded = decode(*[change("c", None, A)] * 40, line, *[change("d", A, None)] * 40)
    assert [(b.code, b.line) for b in decoded.bad] == [(code, 40)]
    assert changes(decoded) == [(1, 1, "a")] * 40 + [(-1, 1, "a")] * 40


def test_the_side_that_does_not_count_may_lack_columns() -> None:
    decoded = decode(change("c", {"name": "x"}, A), change("d", A, {}))
    assert changes(decoded) == [(1, 1, "a"), (-1, 1, "a")]
