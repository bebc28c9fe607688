"""Decoding of Debezium's JSON envelope: before, after and op become rows with weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from millrace.operators.batch import Int64Array
from millrace.operators.formats.json_lines import JsonDecoder, parse_object
from millrace.operators.formats.lines import LineDecoder, Mismatch
from millrace.operators.formats.records import ENVELOPE, RecordError, TextLayout, is_json, shown

_INSERTS = ("c", "r")


class DebeziumDecoder(LineDecoder):
    """One change a line: c and r insert `after` (+1), d retracts `before` (−1), u does both.

    Envelopes with and without the `schema`/`payload` wrapper are taken. The vectorised road reads plain envelopes;
    NOT NULL is checked on the rows that count.
    """

    def __init__(self, schema: pa.Schema, layout: TextLayout) -> None:
        super().__init__(schema, layout)
        self._required = []
        self._row = JsonDecoder(schema, layout)
        loose = pa.schema([f.with_nullable(True) for f in schema])
        side = pa.struct(list(loose))
        self._envelope = pa.schema([("before", side), ("after", side), ("op", pa.string())])
        wrapped = any(is_json(f) for f in schema)
        self._reader = None if wrapped else JsonDecoder(self._envelope, layout)

    @property
    def record_schema(self) -> pa.Schema:
        return self._envelope

    def fast(self, block: bytes, count: int | None) -> pa.RecordBatch:
        if self._reader is None:
            raise Mismatch
        data = self._reader.fast(block, count)
        before, after, op = data.columns
        if op.null_count:
            raise Mismatch
        letters = op.dictionary_encode()
        kinds = letters.dictionary.to_pylist()
        if not set(kinds) <= {"c", "r", "u", "d"}:
            raise Mismatch
        codes = np.asarray(letters.indices)
        is_update = _among(codes, kinds, ("u",))
        needs_before = is_update | _among(codes, kinds, ("d",))
        needs_after = is_update | _among(codes, kinds, _INSERTS)
        for side, needed in ((before, needs_before), (after, needs_after)):
            if (np.asarray(side.is_null()) & needed).any():
                raise Mismatch
            for i, field in enumerate(self.schema):
                if not field.nullable and (np.asarray(side.flatten()[i].is_null()) & needed).any():
                    raise Mismatch
        return data

    def adapt(self, records: Sequence[bytes]) -> bool:
        return False

    def slow(self, record: bytes) -> tuple[object, ...]:
        envelope = parse_object(record)
        payload = envelope.get("payload")
        if "op" not in envelope and isinstance(payload, dict):
            envelope = payload
        op = envelope.get("op")
        if op not in ("c", "r", "u", "d"):
            raise RecordError(ENVELOPE, f"'op' is {shown(op)}, not one of c, r, u, d")
        before = self._side(envelope, "before", op in ("u", "d"))
        after = self._side(envelope, "after", op in ("c", "r", "u"))
        return before, after, op

    def _side(self, envelope: dict[str, object], name: str, needed: bool) -> dict[str, object] | None:
        if not needed:
            return None
        row = envelope.get(name)
        if not isinstance(row, dict):
            hint = "; set REPLICA IDENTITY FULL" if name == "before" else ""
            raise RecordError(ENVELOPE, f"'{name}' is {shown(row)}, but 'op' needs it{hint}")
        return dict(zip(self.schema.names, self._row.row_values(row), strict=True))

    def weights(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Int64Array | None]:
        """Envelopes as rows: an update's −1 stands directly before its +1."""
        before, after, op = batch.columns
        letters = op.dictionary_encode()
        codes, kinds = np.asarray(letters.indices), letters.dictionary.to_pylist()
        updates = _among(codes, kinds, ("u",))
        takes_before = updates | _among(codes, kinds, ("d",))
        takes_after = updates | _among(codes, kinds, _INSERTS)
        count = batch.num_rows
        pick = np.empty((count, 2), np.int64)
        pick[:, 0] = np.arange(count)
        pick[:, 1] = np.arange(count) + count
        used = np.stack([takes_before, takes_after], axis=1)
        rows = pick[used]
        weights = np.where(rows < count, -1, 1).astype(np.int64)
        sides = pa.concat_arrays([before, after]).take(pa.array(rows))
        return pa.RecordBatch.from_arrays(sides.flatten(), schema=self.schema), weights


def _among(codes: np.ndarray, kinds: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    places = [i for i, kind in enumerate(kinds) if kind in wanted]
    return np.isin(codes, places)
