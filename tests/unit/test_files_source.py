"""The file source: splits, exact positions, growing files, projection, compression and object stores."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import random
from pathlib import Path

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from obstore.store import LocalStore, MemoryStore

from millrace.errors import Invalid
from millrace.operators.batch import Batch
from millrace.operators.connectors import registry
from millrace.operators.connectors.files import text_reader
from millrace.operators.connectors.files.storage import register_store
from millrace.operators.source import BadRecord, Polled, SourceSpec, SplitReader
from millrace.operators.spec import decode, encode

SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string()), ("v", pa.float64())])


class Clock:
    """A context whose time stands until it is moved."""

    vnodes = 256

    def __init__(self) -> None:
        self.time = 0

    def now(self) -> int:
        return self.time

    def late(self, batch: Batch) -> None:
        raise AssertionError

    def dead_letter(self, batch: Batch, code: str, reason: str) -> None:
        raise AssertionError


def row(i: int) -> dict[str, object]:
    return {"id": i, "name": None if i % 5 == 0 else f"näme {i}", "v": i / 2}


def write(path: Path, format: str, rows: int, bad: frozenset[int] = frozenset()) -> None:
    if format == "json":
        lines = ["{oops" if i in bad else json.dumps(row(i), ensure_ascii=False) for i in range(rows)]
        path.write_text("\n".join(lines) + "\n")
    elif format == "csv":
        lines = [f"x,{i},y" if i in bad else f"{i},{row(i)['name'] or ''},{row(i)['v']}" for i in range(rows)]
        path.write_text("\n".join(["id,name,v", *lines]))
    else:
        table = pa.Table.from_pylist([row(i) for i in range(rows)], schema=SCHEMA)
        if format == "parquet":
            pq.write_table(table, path, row_group_size=37)
        else:
            with pa.ipc.new_file(path, SCHEMA) as writer:
                writer.write_table(table, max_chunksize=37)


def drain(reader: SplitReader, max_rows: int = 1_000) -> tuple[list[dict[str, object]], list[BadRecord]]:
    rows: list[dict[str, object]] = []
    bad: list[BadRecord] = []
    for _ in range(100_000):
        polled = reader.poll(max_rows)
        if polled is None:
            if reader.ended:
                break
            continue
        take(polled, rows, bad)
    reader.close()
    return rows, bad


def take(polled: Polled, rows: list[dict[str, object]], bad: list[BadRecord]) -> None:
    bad += polled.bad
    if polled.batch is not None:
        rows += polled.batch.data.to_pylist()


def read(spec: SourceSpec, max_rows: int = 1_000) -> tuple[list[dict[str, object]], list[BadRecord]]:
    source = spec.build(Clock())
    rows: list[dict[str, object]] = []
    bad: list[BadRecord] = []
    for split in source.discover():
        more, worse = drain(source.open(split, None), max_rows)
        rows += more
        bad += worse
    return rows, bad


def spec_of(path: Path | str, schema: pa.Schema | None = SCHEMA, **options: str) -> SourceSpec:
    return registry.source_spec("file", {"path": str(path), **options}, schema, None)


@pytest.mark.parametrize("format", ["json", "csv", "parquet", "arrow"])
@pytest.mark.parametrize("max_rows", [1, 7, 1_000])
def test_every_row_comes_in_order(format: str, max_rows: int, tmp_path: Path) -> None:
    path = tmp_path / f"a.{format}"
    write(path, format, 150)
    rows, bad = read(spec_of(path), max_rows)
    assert rows == [row(i) for i in range(150)]
    assert bad == []


@pytest.mark.parametrize("format", ["json", "csv", "parquet", "arrow"])
def test_a_restart_at_any_cut_gives_exactly_the_rest(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_reader, "_BLOCK_BYTES_MIN", 300)
    path = tmp_path / f"a.{format}"
    bad_rows = frozenset({3, 4, 50, 99}) if format in ("json", "csv") else frozenset()
    write(path, format, 120, bad_rows)
    source = spec_of(path).build(Clock())
    all_rows, all_bad = drain(source.open(str(path), None))
    assert len(all_rows) + len(all_bad) == 120
    chance = random.Random(3)
    reader = source.open(str(path), None)
    rows: list[dict[str, object]] = []
    bad: list[BadRecord] = []
    while not reader.ended:
        later, worse = drain(source.open(str(path), reader.position), chance.choice([5, 13, 1_000]))
        assert rows + later == all_rows
        assert bad + worse == all_bad
        polled = reader.poll(chance.randint(1, 9))
        if polled is not None:
            take(polled, rows, bad)
    assert (rows, bad) == (all_rows, all_bad)
    reader.close()


def test_positions_and_specs_serialise(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write(path, "csv", 10)
    spec = spec_of(path).with_columns((2, 0))
    assert decode(encode(spec)) == spec
    reader = spec.build(Clock()).open(str(path), None)
    reader.poll(3)
    assert decode(encode(reader.position)) == reader.position
    reader.close()


@pytest.mark.parametrize("format", ["json", "csv", "parquet", "arrow"])
def test_only_the_columns_asked_for_are_read(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{format}"
    write(path, format, 10)
    spec = spec_of(path).with_columns((2, 0))
    assert spec.output_schema.names == ["v", "id"]
    assert spec.with_columns((1,)).output_schema.names == ["id"]
    rows, _ = read(spec)
    assert rows == [{"v": i / 2, "id": i} for i in range(10)]


def test_bad_records_say_where_they_stood(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,name,v\n1,a,1\n2,"two\nlines",2\nx,b,3\n4,c\n')
    rows, bad = read(spec_of(path))
    assert [r["id"] for r in rows] == [1, 2]
    assert [(b.code, b.position, b.payload) for b in bad] == [
        ("MR2102", "line 5, offset 32", b"x,b,3"),
        ("MR2105", "line 6, offset 38", b"4,c"),
    ]
    assert bad[0].reason == "column 'id': 'x' is no BIGINT"
    assert bad[0].split == str(path)


@pytest.mark.parametrize("ending", ["gz", "bz2", "zst"])
def test_compressed_files_are_read_and_restarted(ending: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write(path, "json", 500)
    data = path.read_bytes()
    packed = tmp_path / f"a.json.{ending}"
    if ending == "gz":
        packed.write_bytes(gzip.compress(data[:5_000]) + gzip.compress(data[5_000:]))
    elif ending == "bz2":
        packed.write_bytes(bz2.compress(data))
    else:
        packed.write_bytes(pa.compress(data, codec="zstd", asbytes=True))
    source = spec_of(packed).build(Clock())
    reader = source.open(str(packed), None)
    first = reader.poll(123)
    assert first is not None and first.batch is not None
    rest, bad = drain(source.open(str(packed), reader.position))
    reader.close()
    assert first.batch.data.to_pylist() + rest == [row(i) for i in range(500)]
    assert bad == []


def test_a_truncated_compressed_file_gives_its_rows_and_a_bad_record(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write(path, "json", 5_000)
    packed = tmp_path / "b.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes())[:-4_000])
    rows, bad = read(spec_of(packed))
    assert rows == [row(i) for i in range(len(rows))] and 0 < len(rows) < 5_000
    assert "MR2110" in [b.code for b in bad]


def test_a_truncated_parquet_file_is_one_bad_record(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(path, "parquet", 100)
    path.write_bytes(path.read_bytes()[:-20])
    rows, bad = read(spec_of(path))
    assert rows == [] and [b.code for b in bad] == ["MR2107"]


def test_folders_globs_and_urls_find_their_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.json", "a.json", "sub/c.json", ".hidden.json", "_staging.json", "d.json.tmp"):
        write(tmp_path / name, "json", 2)
    found = spec_of(tmp_path, format="json").build(Clock()).discover()
    assert [os.path.relpath(name, tmp_path) for name in found] == ["a.json", "b.json", "sub/c.json"]
    found = spec_of(f"{tmp_path}/*.json").build(Clock()).discover()
    assert [os.path.relpath(name, tmp_path) for name in found] == ["a.json", "b.json"]
    assert len(spec_of(f"file://{tmp_path}/a.json").build(Clock()).discover()) == 1


def test_a_followed_file_waits_for_the_rest_of_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,name,v\n1,a,1\n2,b")
    clock = Clock()
    reader = spec_of(path, follow="true").build(clock).open(str(path), None)

    def polled() -> list[object]:
        clock.time += 1_000_000
        rows: list[dict[str, object]] = []
        while (found := reader.poll(100)) is not None:
            take(found, rows, [])
        return [r["id"] for r in rows]

    assert polled() == [1]
    with path.open("a") as out:
        out.write("b,2\n3,")
    assert polled() == [2]
    assert polled() == [] and not reader.ended
    with path.open("a") as out:
        out.write("c,3\n")
    assert polled() == [3]
    reader.close()


def test_a_followed_folder_shows_new_files(tmp_path: Path) -> None:
    clock = Clock()
    source = spec_of(tmp_path, format="json", follow="true", **{"poll.interval": "2s"}).build(clock)
    assert source.discover() == []
    write(tmp_path / "b.json", "json", 1)
    assert source.discover() == []
    clock.time += 2_000_000
    assert len(source.discover()) == 1
    write(tmp_path / "a.json", "json", 1)
    clock.time += 2_000_000
    assert len(source.discover()) == 2


@pytest.mark.parametrize("how", ["truncated", "replaced"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_rewritten_file_is_reported_and_read_anew(how: str, restarted: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write(path, "json", 10)
    clock = Clock()
    source = spec_of(path, follow="true").build(clock)
    reader = source.open(str(path), None)
    while reader.poll(100) is not None:
        pass
    if how == "replaced":
        write(tmp_path / "other", "json", 30)
        os.replace(tmp_path / "other", path)
    else:
        write(path, "json", 2)
    if restarted:
        reader.close()
        reader = source.open(str(path), reader.position)
    rows: list[dict[str, object]] = []
    bad: list[BadRecord] = []
    for _ in range(10):
        clock.time += 1_000_000
        found = reader.poll(100)
        if found is not None:
            take(found, rows, bad)
    reader.close()
    assert [b.code for b in bad] == ["MR2113"]
    assert rows == [row(i) for i in range(30 if how == "replaced" else 2)]


def test_records_longer_than_the_limit_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_reader, "RECORD_BYTES_MAX", 100_000)
    path = tmp_path / "a.json"
    long = json.dumps({"id": 2, "name": "x" * 1_000_000})
    path.write_text(f'{{"id":1}}\n{long}\n{{"id":3}}\n')
    rows, bad = read(spec_of(path))
    assert [r["id"] for r in rows] == [1, 3]
    assert [(b.code, b.position) for b in bad] == [("MR2111", "line 2, offset 9")]


@pytest.mark.parametrize("format", ["json", "csv", "parquet", "arrow"])
def test_object_stores_are_read(format: str, tmp_path: Path) -> None:
    write(tmp_path / f"a.{format}", format, 100)
    memory = MemoryStore()
    obstore.put(memory, f"in/a.{format}", (tmp_path / f"a.{format}").read_bytes())
    register_store(f"memory://bucket-{format}", memory)
    register_store(f"memory://disk-{format}", LocalStore(tmp_path))
    for path in (f"memory://bucket-{format}/in", f"memory://bucket-{format}/in/*.{format}"):
        rows, bad = read(spec_of(path, format=format), 30)
        assert rows == [row(i) for i in range(100)] and bad == []
    rows, _ = read(spec_of(f"memory://disk-{format}/a.{format}"))
    assert len(rows) == 100


@pytest.mark.parametrize("format", ["json", "csv", "parquet", "arrow"])
def test_columns_are_found_in_the_data(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{format}"
    write(path, format, 10)
    spec = spec_of(path, None)
    assert spec.output_schema.names == ["id", "name", "v"]
    assert spec.output_schema.types == SCHEMA.types


def test_typed_columns_that_do_not_fit_are_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [1, 2**40, 3], "name": ["1", "x", None]}), path)
    schema = pa.schema([("id", pa.int32()), pa.field("name", pa.string(), nullable=False)])
    rows, bad = read(spec_of(path, schema))
    assert rows == [{"id": 1, "name": "1"}]
    assert [(b.code, b.position) for b in bad] == [
        ("MR2103", "row group 0, row 1"),
        ("MR2104", "row group 0, row 2"),
    ]


def test_utf8_bom_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufeffid,name,v\n1,a,1\n")
    assert read(spec_of(tmp_path / "a.csv"))[0][0]["id"] == 1
    (tmp_path / "a.json").write_text('\ufeff{"id":1}\n')
    rows, bad = read(spec_of(tmp_path / "a.json"))
    assert rows[0]["id"] == 1 and bad == []


@pytest.mark.parametrize(
    ("options", "code", "hint"),
    [
        ({"pth": "x"}, "MR1401", "path"),
        ({}, "MR1403", ""),
        ({"path": "a.csv", "follow": "maybe"}, "MR1402", ""),
        ({"path": "a.csv", "format": "cvs"}, "MR1425", "csv"),
        ({"path": "nowhere-at-all.csv"}, "MR1426", ""),
        ({"path": "nope://x/a.csv"}, "MR1420", ""),
        ({"path": "x", "file_path": "y"}, "MR1404", ""),
        ({"path": "a.json", "event.time.format": "fortnight"}, "MR1424", ""),
    ],
)
def test_wrong_options_are_refused_with_a_code(options: dict[str, str], code: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        registry.source_spec("filesystem", options, SCHEMA, None)
    assert caught.value.code == code
    assert hint in (caught.value.hint or "")


def test_a_header_without_a_declared_column_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,nam,v\n1,a,1\n")
    with pytest.raises(Invalid, match="no column 'name'") as caught:
        spec_of(tmp_path / "a.csv")
    assert caught.value.code == "MR1427" and "'nam'" in str(caught.value.hint)


def test_unknown_connectors_are_refused_with_a_suggestion() -> None:
    with pytest.raises(Invalid) as caught:
        registry.find("filesytem")
    assert caught.value.code == "MR1400" and "filesystem" in str(caught.value.hint)
    with pytest.raises(Invalid) as caught:
        registry.find("iceberg")
    assert caught.value.code == "MR1910"


def test_a_format_without_header_reads_from_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,a,1\n2,b,2\n")
    rows, bad = read(spec_of(tmp_path / "a.csv", format="csv_no_header"))
    assert [r["id"] for r in rows] == [1, 2] and bad == []


@pytest.mark.parametrize("format", ["json", "csv", "parquet", "arrow"])
def test_rows_are_counted_without_columns(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{format}"
    write(path, format, 10)
    spec = spec_of(path).with_columns(())
    reader = spec.build(Clock()).open(str(path), None)
    count = 0
    while not reader.ended:
        polled = reader.poll(100)
        if polled is not None and polled.batch is not None:
            assert polled.batch.schema == spec.output_schema
            count += polled.batch.num_rows
    reader.close()
    assert count == 10
