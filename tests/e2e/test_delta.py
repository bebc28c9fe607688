"""The Delta sink: what it wrote is read back by the library itself, once, however often it was published."""

from __future__ import annotations

import datetime
import decimal
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

import millrace
from millrace.errors import Invalid, Unavailable
from millrace.operators.batch import Batch
from millrace.operators.connectors import registry
from millrace.operators.connectors.delta.connector import DeltaSinkSpec
from millrace.operators.connectors.delta.sink import DeltaSink
from millrace.operators.sink import Changelog
from millrace.operators.spec import decode, encode

SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string())])


def sink_of(path: Path, key: tuple[str, ...] = (), partition: int = 0) -> DeltaSink:
    mode = Changelog.UPSERT if key else Changelog.APPEND
    spec = registry.sink_spec("delta", {"path": str(path)}, SCHEMA, mode, key)
    spec = decode(encode(spec.in_job("job.1", "sink", "exactly_once")))
    assert isinstance(spec, DeltaSinkSpec)
    return DeltaSink(spec, partition)


def batch(*ids: int, weights: list[int] | None = None) -> Batch:
    data = pa.RecordBatch.from_pylist([{"id": i, "name": f"n{i}"} for i in ids], schema=SCHEMA)
    return Batch(data, None if weights is None else np.array(weights, np.int64))


def ids(path: Path) -> list[int]:
    return sorted(pa.table(DeltaTable(path).to_pyarrow_table())["id"].to_pylist())


def test_an_outbox_is_there_once_however_often_it_is_published(tmp_path: Path) -> None:
    sink = sink_of(tmp_path / "t")
    assert sink.marker() is None
    sink.write(batch(1, 2))
    first = sink.seal(5)
    sink.publish(5, first)
    sink.publish(5, first)
    other = sink_of(tmp_path / "t", partition=1)
    assert (sink.marker(), other.marker()) == (5, None)
    other.write(batch(3))
    other.publish(4, other.seal(4))
    sink.publish(5, first)
    assert ids(tmp_path / "t") == [1, 2, 3]


def test_owners_that_publish_the_same_write_it_once(tmp_path: Path) -> None:
    owners = [sink_of(tmp_path / "t") for _ in range(4)]
    others = [sink_of(tmp_path / "t", partition=1) for _ in range(2)]
    outboxes = []
    for sink, number in ((owners[0], 1), (others[0], 2)):
        for checkpoint in range(1, 7):
            sink.write(batch(10 * checkpoint + number))
            outboxes.append((number, checkpoint, sink.seal(checkpoint)))

    def publish(sink: DeltaSink, number: int) -> None:
        for of, checkpoint, outbox in outboxes:
            while of == number:
                try:
                    sink.publish(checkpoint, outbox)
                    break
                except Unavailable:
                    continue

    threads = [threading.Thread(target=publish, args=(sink, 1)) for sink in owners]
    threads += [threading.Thread(target=publish, args=(sink, 2)) for sink in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ids(tmp_path / "t") == sorted(10 * c + n for c in range(1, 7) for n in (1, 2))


def test_keys_replace_and_remove_rows(tmp_path: Path) -> None:
    sink = sink_of(tmp_path / "t", ("id",))
    sink.write(batch(1, 2, 2, 3, weights=[1, 1, -1, 1]))
    sink.publish(1, sink.seal(1))
    assert ids(tmp_path / "t") == [1, 3]
    sink.write(batch(3, 2, 1, 1, weights=[-1, 1, -1, 1]))
    sink.publish(2, sink.seal(2))
    sink.publish(2, b"")
    assert ids(tmp_path / "t") == [1, 2]


def test_sql_into_a_partitioned_table(tmp_path: Path) -> None:
    with millrace.connect(checkpoint_store=f"file://{tmp_path}/store", guarantee="exactly_once") as db:
        db.execute(f"""
            CREATE SOURCE t (k STRING, d DECIMAL(10, 2), ts TIMESTAMP(3), v INT) WITH ('connector' = 'push');
            CREATE SINK rows FROM t INTO DELTA (path = '{tmp_path}/rows', 'partition.by' = 'k');
            CREATE SINK sums FROM (SELECT k, sum(v) AS v FROM t GROUP BY k) INTO DELTA (path = '{tmp_path}/sums')
        """)
        moment = datetime.datetime(2024, 1, 1, 0, 0, 0, 5_000)
        for v in range(4):
            db.push("t", {"k": "ab"[v % 2], "d": decimal.Decimal("1.50"), "ts": moment, "v": v})
            db.checkpoint()
    found = DeltaTable(tmp_path / "rows").to_pyarrow_table()
    assert sorted(found["v"].to_pylist()) == [0, 1, 2, 3]
    assert set(found["d"].to_pylist()) == {decimal.Decimal("1.50")} and set(found["ts"].to_pylist()) == {
        moment
    }
    assert {p.name for p in (tmp_path / "rows").glob("k=*")} == {"k=a", "k=b"}
    assert sorted(map(tuple, (r.values() for r in DeltaTable(tmp_path / "sums").to_pyarrow_table().to_pylist()))) == [
        ("a", 2), ("b", 4),
    ]  # fmt: skip


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t"
    sink = sink_of(path)
    sink.write(batch(1))
    sink.publish(1, sink.seal(1))
    with millrace.connect() as db, pytest.raises(Invalid, match="MR1458"):
        db.execute(
            f"CREATE SOURCE c (t TIME) WITH ('connector' = 'push'); CREATE SINK o FROM c INTO DELTA (path = '{path}')"
        )
    with pytest.raises(Invalid, match="MR1495"), millrace.connect() as db:
        db.execute(
            f"CREATE SOURCE c (id DATE) WITH ('connector' = 'push'); CREATE SINK o FROM c INTO DELTA (path = '{path}')"
        )
        db.push("c", {"id": datetime.date(2024, 1, 1)})
