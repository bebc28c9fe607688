"""Avro records into columns on one core, beside fastavro record by record: `python -m benchmarks.avro`."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable

import fastavro
import numpy as np
import pyarrow as pa

from millrace.operators.formats.avro_decode import AvroDecoder
from millrace.operators.formats.avro_encode import AvroEncoder
from millrace.operators.formats.avro_schema import parse_avro

RECORDS = 50_000
FLOOR = 800_000
"""Records a second that decoding is to reach."""
_SCHEMA = {
    "type": "record",
    "name": "Bid",
    "fields": [
        {"name": "auction", "type": "long"},
        {"name": "bidder", "type": "long"},
        {"name": "price", "type": ["null", "double"]},
        {"name": "channel", "type": "string"},
        {"name": "url", "type": ["null", "string"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "count", "type": "int"},
        {"name": "own", "type": "boolean"},
    ],
}


def _records() -> list[bytes]:
    schema = fastavro.parse_schema(_SCHEMA)
    values = []
    for i in range(RECORDS):
        target = io.BytesIO()
        row = {
            "auction": i,
            "bidder": i * 7919 % 100_000,
            "price": None if i % 7 == 0 else i / 3,
            "channel": f"channel-{i % 10}",
            "url": f"https://example.org/{i}" if i % 3 else None,
            "at": 1_700_000_000_000 + i,
            "count": i % 1000,
            "own": i % 2 == 0,
        }
        fastavro.schemaless_writer(target, schema, row)
        values.append(target.getvalue())
    return values


def _rate(once: Callable[[], object], times: int) -> float:
    """Records a second of the core's own time, the best of several."""
    best = float("inf")
    for _ in range(times):
        start = time.thread_time()
        once()
        best = min(best, time.thread_time() - start)
    return RECORDS / best


def main() -> None:
    """Print one line of JSON with records a second."""
    values = _records()
    schema = parse_avro([json.dumps(_SCHEMA)], "the schema")
    decoder = AvroDecoder(schema, [f.name for f in schema.fields])

    def decode() -> pa.RecordBatch:
        sizes = np.fromiter(map(len, values), np.int64, len(values))
        ends = np.cumsum(sizes)
        return decoder.decode(b"".join(values), ends - sizes, ends, 1, schema).data

    plain = fastavro.parse_schema(_SCHEMA)
    rows = decode()
    encoder = AvroEncoder(schema, decoder.schema)
    encoder.encode(rows, b"\0\0\0\0\1")
    found = {
        "benchmark": "avro",
        "records": RECORDS,
        "decode_per_s": round(_rate(decode, 7)),
        "encode_per_s": round(_rate(lambda: encoder.encode(rows, b"\0\0\0\0\1"), 7)),
        "fastavro_decode_per_s": round(
            _rate(lambda: [fastavro.schemaless_reader(io.BytesIO(v), plain, None) for v in values], 2)
        ),
        "floor_per_s": FLOOR,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
