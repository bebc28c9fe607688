"""The file sink: sealed parts are shown once and whole, whatever crashes between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from obstore.store import MemoryStore

from millrace.errors import Corrupt, Invalid, Unsupported
from millrace.operators.batch import Batch
from millrace.operators.connectors import registry
from millrace.operators.connectors.files.storage import register_store
from millrace.operators.sink import Changelog, Sink
from millrace.operators.spec import decode, encode

SCHEMA = pa.schema([("k", pa.string()), ("v", pa.int64())])
FORMATS = ["json", "csv", "parquet", "arrow"]


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


def rows(*values: int) -> Batch:
    keys = [None if v % 3 == 0 else f'k"{v % 3}' for v in values]
    return Batch(pa.RecordBatch.from_pydict({"k": keys, "v": list(values)}, schema=SCHEMA))


def sink(
    path: Path | str, changelog: Changelog = Changelog.APPEND, partition: int = 0, **options: str
) -> Sink:
    given = {"path": str(path), **{k.replace("_", "."): v for k, v in options.items()}}
    spec = registry.sink_spec("file", given, SCHEMA, changelog, ())
    assert decode(encode(spec)) == spec
    return spec.build(Clock(), partition)


def found(path: Path | str, format: str, schema: pa.Schema = SCHEMA) -> list[dict[str, object]]:
    spec = registry.source_spec("file", {"path": str(path), "follow": "true"}, schema, format)
    source = spec.build(Clock())
    rows: list[dict[str, object]] = []
    for split in source.discover():
        reader = source.open(split, None)
        while (polled := reader.poll(1_000)) is not None:
            assert polled.bad == []
            if polled.batch is not None:
                rows += polled.batch.data.to_pylist()
        reader.close()
    return rows


def values(path: Path | str, format: str) -> list[object]:
    return sorted(int(str(r["v"])) for r in found(path, format))


def visible(path: Path) -> Iterator[str]:
    return (str(p.relative_to(path)) for p in sorted(path.rglob("*")) if p.is_file())


@pytest.mark.parametrize("format", FORMATS)
def test_rows_show_when_their_checkpoint_is_published(format: str, tmp_path: Path) -> None:
    out = sink(tmp_path, format=format)
    out.write(rows(1, 2))
    first = out.seal(1)
    out.write(rows(3))
    assert values(tmp_path, format) == []
    out.publish(1, first)
    assert values(tmp_path, format) == [1, 2]
    out.publish(1, first)
    assert values(tmp_path, format) == [1, 2]
    out.publish(2, out.seal(2))
    out.close()
    assert values(tmp_path, format) == [1, 2, 3]
    assert len(list(visible(tmp_path))) == 2


@pytest.mark.parametrize("format", FORMATS)
def test_a_sealed_outbox_is_published_by_another_sink(format: str, tmp_path: Path) -> None:
    out = sink(tmp_path, format=format)
    out.write(rows(1, 2))
    first = out.seal(1)
    out.write(rows(3))
    lost = out.seal(2)
    out.write(rows(4))
    assert lost
    heir = sink(tmp_path, format=format)
    heir.publish(1, first)
    heir.write(rows(3, 4))
    heir.publish(3, heir.seal(3))
    heir.close()
    assert values(tmp_path, format) == [1, 2, 3, 4]
    assert not [name for name in visible(tmp_path) if ".tmp" in name or "_staging" in name]
    out.close()


def test_partitions_do_not_touch_each_other(tmp_path: Path) -> None:
    one, two = sink(tmp_path, partition=0, format="json"), sink(tmp_path, partition=1, format="json")
    one.write(rows(1))
    two.write(rows(2))
    sealed = two.seal(1)
    one.publish(1, one.seal(1))
    one.publish(2, one.seal(2))
    one.close()
    two.publish(1, sealed)
    two.close()
    assert values(tmp_path, "json") == [1, 2]


def test_an_outbox_whose_file_is_gone_is_corrupt(tmp_path: Path) -> None:
    out = sink(tmp_path, format="json")
    out.write(rows(1))
    sealed = out.seal(1)
    for path in (tmp_path / "_staging").iterdir():
        path.unlink()
    with pytest.raises(Corrupt) as caught:
        out.publish(1, sealed)
    assert caught.value.code == "MR5018"
    out.close()


@pytest.mark.parametrize("format", FORMATS)
def test_columns_name_folders(format: str, tmp_path: Path) -> None:
    out = sink(tmp_path, format=format, partition_by="k")
    for i in range(0, 40, 4):
        out.write(rows(i, i + 1, i + 2, i + 3))
    out.publish(1, out.seal(1))
    out.close()
    folders = {name.partition("/")[0] for name in visible(tmp_path)}
    assert folders == {"k=k%221", "k=k%222", "k=__HIVE_DEFAULT_PARTITION__"}
    assert values(tmp_path, format) == list(range(40))
    assert {str(r["k"]) for r in found(tmp_path / "k=k%221", format)} == {'k"1'}


def test_many_folders_keep_few_files_open(tmp_path: Path) -> None:
    out = sink(tmp_path, format="json", partition_by="v")
    out.write(rows(*range(70)))
    out.write(rows(*range(70)))
    out.publish(1, out.seal(1))
    out.close()
    assert values(tmp_path, "json") == sorted([*range(70), *range(70)])


def test_files_are_ended_by_size(tmp_path: Path) -> None:
    out = sink(tmp_path, format="json", roll_size="1KB")
    for i in range(10):
        out.write(rows(*range(i * 100, i * 100 + 100)))
    out.publish(1, out.seal(1))
    out.close()
    assert len(list(visible(tmp_path))) == 10
    assert values(tmp_path, "json") == list(range(1_000))


@pytest.mark.parametrize("format", FORMATS)
def test_one_file_grows_by_checkpoints(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"out.{format}"
    out = sink(path)
    for n in range(1, 5):
        out.write(rows(n, 10 * n))
        sealed = out.seal(n)
        out.publish(n, sealed)
        out.publish(n, sealed)
        assert values(path, format) == sorted(v for m in range(1, n + 1) for v in (m, 10 * m))
    out.close()
    assert [name for name in visible(tmp_path) if not name.startswith(".")] == [path.name]
    heir = sink(path)
    heir.publish(4, sealed)
    heir.write(rows(7))
    heir.publish(5, heir.seal(5))
    heir.close()
    assert len(values(path, format)) == 9


@pytest.mark.parametrize("format", ["json", "csv"])
def test_a_torn_append_is_cut_off(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"out.{format}"
    out = sink(path)
    out.write(rows(1))
    out.publish(1, out.seal(1))
    with path.open("ab") as torn:
        torn.write(b'{"v":99')
    out.write(rows(2))
    out.publish(2, out.seal(2))
    out.close()
    assert values(path, format) == [1, 2]


@pytest.mark.parametrize("format", FORMATS)
def test_a_new_run_replaces_its_file_and_no_other(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"out.{format}"
    for run in (1, 2):
        out = sink(path)
        out.write(rows(run))
        out.publish(1, out.seal(1))
        out.close()
        assert values(path, format) == [run]
    other = tmp_path / f"other.{format}"
    other.write_bytes(b"precious")
    out = sink(other)
    out.write(rows(1))
    with pytest.raises(Invalid) as caught:
        out.publish(1, out.seal(1))
    assert caught.value.code == "MR1436" and other.read_bytes() == b"precious"
    out.close()
    out = sink(other, overwrite="true")
    out.write(rows(1))
    out.publish(1, out.seal(1))
    out.close()
    assert values(other, format) == [1]


@pytest.mark.parametrize("format", FORMATS)
def test_object_stores_show_objects_once(format: str) -> None:
    store = MemoryStore()
    url = f"memory://sink-{format}"
    register_store(url, store)
    out = sink(f"{url}/out", format=format)
    out.write(rows(1, 2))
    sealed = out.seal(1)
    assert values(f"{url}/out", format) == []
    out.publish(1, sealed)
    out.publish(1, sealed)
    out.write(rows(9))
    out.seal(2)
    out.close()
    heir = sink(f"{url}/out", format=format)
    heir.write(rows(3))
    heir.publish(3, heir.seal(3))
    heir.close()
    assert values(f"{url}/out", format) == [1, 2, 3]
    names = [str(meta["path"]) for page in obstore.list(store) for meta in page]
    assert not [name for name in names if "_staging" in name]


@pytest.mark.parametrize(("changes", "expected"), [("__weight", [1, -1]), ("op", ["insert", "delete"])])
@pytest.mark.parametrize("format", FORMATS)
def test_retractions_carry_a_change_column(
    format: str, changes: str, expected: list[object], tmp_path: Path
) -> None:
    out = sink(tmp_path, Changelog.RETRACT, format=format, changes=changes)
    out.write(Batch(rows(1, 1).data, np.array([1, -1], np.int64)))
    out.publish(1, out.seal(1))
    out.close()
    type_ = pa.int64() if changes == "__weight" else pa.string()
    assert [r[changes] for r in found(tmp_path, format, SCHEMA.append(pa.field(changes, type_)))] == expected


def test_debezium_rows_come_back_with_their_weights(tmp_path: Path) -> None:
    out = sink(tmp_path, Changelog.RETRACT, format="debezium-json")
    out.write(Batch(rows(1, 1, 2).data, np.array([1, -1, 1], np.int64)))
    out.publish(1, out.seal(1))
    out.close()
    source = registry.source_spec("file", {"path": str(tmp_path)}, SCHEMA, "debezium-json").build(Clock())
    reader = source.open(source.discover()[0], None)
    polled = reader.poll(100)
    reader.close()
    assert polled is not None and polled.batch is not None and polled.batch.weights is not None
    assert polled.batch.weights.tolist() == [1, -1, 1]
    assert polled.batch.data.column("v").to_pylist() == [1, 1, 2]


@pytest.mark.parametrize("ending", ["json.gz", "csv.zst"])
def test_text_is_compressed_by_its_ending(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"out.{ending}"
    out = sink(path)
    out.write(rows(1))
    out.publish(1, out.seal(1))
    out.close()
    assert values(path, ending.partition(".")[0]) == [1]


def test_parquet_files_hold_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    out = sink(path)
    out.write(rows(1, 2))
    out.publish(1, out.seal(1))
    out.close()
    assert pq.read_table(path).schema.equals(SCHEMA)
    assert json.loads(pq.read_schema(path).metadata[b"millrace"])["checkpoint"] == 1


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"path": "x", "format": "raw"}, "MR1428"),
        ({"path": "x", "partition.by": "kk"}, "MR1429"),
        ({"path": "x.csv", "partition.by": "k"}, "MR1429"),
        ({"path": "x", "format": "xml"}, "MR1425"),
        ({"path": "x", "compresion": "zstd"}, "MR1401"),
    ],
)
def test_wrong_options_are_refused_with_a_code(options: dict[str, str], code: str) -> None:
    with pytest.raises(Invalid) as caught:
        registry.sink_spec("file_sink", options, SCHEMA, Changelog.APPEND, ())
    assert caught.value.code == code


def test_one_file_in_an_object_store_is_refused() -> None:
    with pytest.raises(Unsupported) as caught:
        sink("memory://bucket/out.csv")
    assert caught.value.code == "MR1912"
