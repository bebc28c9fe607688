"""A thousand mutations of valid files per format: no traceback, no hang, and every record comes through or is bad."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from millrace.errors import MillraceError
from millrace.operators.connectors import registry
from millrace.operators.formats import lines
from millrace.operators.formats.csv_lines import CsvDecoder
from millrace.operators.formats.debezium import DebeziumDecoder
from millrace.operators.formats.json_lines import JsonDecoder
from millrace.operators.formats.lines import LineDecoder
from millrace.operators.formats.raw import RawDecoder
from millrace.operators.formats.records import RecordError, TextLayout

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("price", pa.decimal64(10, 2)),
        pa.field("ratio", pa.float64()),
        pa.field("ok", pa.bool_()),
        pa.field("at", pa.timestamp("ms")),
    ]
)
MUTATIONS = 1_000
GARBAGE = [
    b"\x00", b"\xff\xfe", b"\n", b"\r", b"\r\n", b'"', b"'", b"{", b"}", b"[[[[", b",", b",,,,,", b"\\", b"null", b"\\ud800",
    b"1e999", b"99999999999999999999", b"-", b"NaN", b"Infinity", b"\xc3", b"\xe2\x82", "é".encode("latin-1"),
    "x".encode("utf-16"), b"{}", b'{"id":1}', b"1,2\n", b'"a', b"\xef\xbb\xbf", b"2024-13-45", b"0x1F", b" ", b"\t", b"true",
]  # fmt: skip


def json_file(rows: int = 24) -> bytes:
    return "".join(
        f'{{"id":{i},"name":"name {i} é","price":{i}.25,"ratio":{i / 7},"ok":{"true" if i % 2 else "false"},'
        f'"at":"2024-01-{i % 28 + 1:02d}T10:00:00.{i:03d}Z"}}\n'
        for i in range(rows)
    ).encode()


def csv_file(rows: int = 24) -> bytes:
    return "".join(
        f"{i},{chr(34) + chr(97) + str(i) + ', ' + chr(34) if i % 3 == 0 else chr(98) + chr(233)},{i}.25,{i / 7},"
        f"{'true' if i % 2 else 'false'},2024-01-{i % 28 + 1:02d} 10:00:00.{i:03d}\n"
        for i in range(rows)
    ).encode()


def debezium_file(rows: int = 16) -> bytes:
    changes = []
    for i, row in enumerate(json_file(rows).decode().splitlines()):
        op = "cudr"[i % 4]
        before = row if op in "ud" else "null"
        after = "null" if op == "d" else row
        changes.append(f'{{"before":{before},"after":{after},"op":"{op}","ts_ms":{i}}}\n')
    return "".join(changes).encode()


def mutate(data: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        kind = chance.randrange(6)
        at = chance.randrange(len(out) + 1)
        if kind == 0 and out:
            out[min(at, len(out) - 1)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            out[at:at] = chance.choice(GARBAGE)
        elif kind == 2:
            del out[at : at + chance.randint(1, 20)]
        elif kind == 3 and chance.random() < 0.3:
            del out[at:]
        elif kind == 4:
            out[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 12)))
        elif out:
            start = chance.randrange(len(out))
            out[at:at] = out[start : start + chance.randint(1, 40)]
    return bytes(out)


def decoder_of(format: str) -> LineDecoder:
    if format == "json":
        return JsonDecoder(SCHEMA, TextLayout())
    if format == "csv":
        return CsvDecoder(SCHEMA, TextLayout(header=False), SCHEMA.names)
    if format == "debezium-json":
        return DebeziumDecoder(SCHEMA, TextLayout())
    return RawDecoder(pa.schema([("line", pa.string())]), TextLayout())


FILES = {"json": json_file(), "csv": csv_file(), "debezium-json": debezium_file(), "raw": json_file()}


def singly(format: str, data: bytes) -> tuple[list[object], list[tuple[str, int]]]:
    """What the record by record road says of `data`."""
    decoder = decoder_of(format)
    starts, ends = decoder.split(data)
    rows: list[object] = []
    bad: list[tuple[str, int]] = []
    stack = list(zip(starts.tolist(), ends.tolist(), strict=True))[::-1]
    while stack:
        start, end = stack.pop()
        try:
            rows.append(decoder.slow(data[start:end]))
        except RecordError as error:
            bad.append((error.code, start))
            rest = start + decoder.salvage(data[start:end])
            if rest < end:
                more = decoder.split(data[rest:end])
                stack.extend(
                    (rest + s, rest + e) for s, e in reversed(list(zip(*map(list, more), strict=True)))
                )
    return rows, bad


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "SINGLE_ROWS", 1)


@pytest.mark.parametrize("format", ["json", "csv"])
def test_what_the_fast_road_takes_the_slow_road_takes_alike(format: str) -> None:
    chance = random.Random(11)
    records = FILES[format].splitlines()
    taken = 0
    for _ in range(4 * MUTATIONS):
        data = mutate(chance.choice(records), chance)
        decoder = decoder_of(format)
        if chance.random() < 0.5:
            decoder.adapt([data])
        starts, ends = decoder.split(data)
        if len(starts) != 1:
            continue
        fast = decoder.attempt(data, None)
        if fast is not None:
            taken += 1
            slow = lines.rows_to_batch([decoder.slow(data[starts[0] : ends[0]])], decoder.record_schema)
            assert repr(fast.to_pylist()) == repr(slow.to_pylist()), data
    assert taken > 100


@pytest.mark.parametrize("format", sorted(FILES))
def test_mutated_text_gives_each_record_as_row_or_as_bad(format: str) -> None:
    chance = random.Random(20240501)
    for _ in range(MUTATIONS):
        data = mutate(FILES[format], chance)
        decoded = decoder_of(format).decode(data)
        rows, bad = singly(format, data)
        assert [(row.code, row.offset) for row in decoded.bad] == bad, data
        if format != "debezium-json":
            assert decoded.batch.num_rows == len(rows), data
        decoded.batch.data.validate(full=True)
        for row in decoded.bad:
            assert row.code.startswith("MR21") and row.reason and row.payload in data


@pytest.mark.parametrize("format", sorted(FILES))
def test_rows_and_bad_records_do_not_depend_on_the_cut(format: str) -> None:
    chance = random.Random(7)
    for _ in range(150):
        data = mutate(FILES[format], chance)
        whole = decoder_of(format).decode(data)
        decoder = decoder_of(format)
        rows: list[dict[str, object]] = []
        bad: list[tuple[str, str, bytes]] = []
        rest = data
        while rest:
            size = decoder.complete(rest[: chance.randint(1, 3_000)]) or decoder.complete(rest) or len(rest)
            piece = decoder.decode(rest[:size])
            rows += piece.batch.data.to_pylist()
            bad += [(b.code, b.reason, b.payload) for b in piece.bad]
            rest = rest[size:]
        assert repr(rows) == repr(whole.batch.data.to_pylist()), data
        assert bad == [(b.code, b.reason, b.payload) for b in whole.bad], data


class Clock:
    """A context that only tells the time."""

    vnodes = 256

    def now(self) -> int:
        return 0

    def late(self, batch: object) -> None:
        raise AssertionError

    def dead_letter(self, batch: object, code: str, reason: str) -> None:
        raise AssertionError


def columnar_file(format: str) -> bytes:
    table = pa.table(
        {
            "id": pa.array(range(200), pa.int64()),
            "name": [f"name {i} é" for i in range(200)],
            "ratio": [i / 7 for i in range(200)],
        }
    )
    out = io.BytesIO()
    if format == "parquet":
        pq.write_table(table, out, row_group_size=50, write_page_checksum=True)
    elif format == "arrow":
        with pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table, max_chunksize=50)
    else:
        with pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table, max_chunksize=50)
    return out.getvalue()


@pytest.mark.parametrize("format", ["parquet", "arrow", "arrow-stream"])
def test_mutated_columnar_files_never_raise(format: str, tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.int64()), ("name", pa.string()), ("ratio", pa.float64())])
    data = columnar_file(format)
    path = tmp_path / "data"
    spec = registry.source_spec(
        "file", {"path": str(tmp_path), "format": format.partition("-")[0], "follow": "true"}, schema, None
    )
    from dataclasses import replace

    spec = replace(spec, follow=False)  # type: ignore[type-var]
    chance = random.Random(99)
    for _ in range(MUTATIONS):
        path.write_bytes(mutate(data, chance))
        source = spec.build(Clock())  # type: ignore[arg-type]
        reader = source.open(str(path), None)
        rows = bad = 0
        for _ in range(100):
            polled = reader.poll(1_000)
            if polled is None and reader.ended:
                break
            if polled is not None:
                bad += len(polled.bad)
                if polled.batch is not None:
                    polled.batch.data.validate(full=True)
                    rows += polled.batch.num_rows
        assert reader.ended
        reader.close()
        if format == "parquet":
            assert rows <= 200 and (rows == 200 or bad)


@pytest.mark.parametrize("format", ["json", "csv", "parquet", "arrow"])
def test_columns_of_mutated_files_are_found_or_refused_with_a_code(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"data.{format}"
    data = FILES.get(format) or columnar_file(format)
    chance = random.Random(5)
    for _ in range(200):
        path.write_bytes(mutate(data, chance))
        try:
            registry.source_spec("file", {"path": str(path)}, None, None)
        except MillraceError as error:
            assert error.code.startswith("MR14")
