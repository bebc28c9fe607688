"""Checkpoints and files on S3-compatible storage."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.e2e.s3_server import Server

import millrace
from millrace.errors import Fenced, Unavailable
from millrace.state.ledger import JobCreated, Ledger, Takeover, create_job
from millrace.state.store import open_store


def test_objects_are_created_once(s3: Server) -> None:
    store = open_store(f"s3://{s3.bucket()}/jobs")
    assert store.create("a/b", b"one") and not store.create("a/b", b"two")
    assert store.get("a/b") == b"one" and store.get_range("a/b", 1, 2) == b"ne"
    assert store.get("a/c") is None
    for key in ("a/d", "b/a"):
        assert store.create(key, b"")
    assert store.list("a") == ["a/b", "a/d"] and store.list("a", "a/b") == ["a/d"]
    store.delete(["a/b", "a/zzz"])
    assert store.get("a/b") is None


def test_two_coordinators_race_for_a_record_and_one_is_fenced(s3: Server) -> None:
    url = f"s3://{s3.bucket()}"
    first = create_job(open_store(url), JobCreated("j", "plan", 8, 1), "first")
    second = Ledger(open_store(url), "j", "second")
    second.read()
    first.append(2, Takeover(1, "first"))
    with pytest.raises(Fenced):
        second.append(2, Takeover(1, "second"))
    assert second.state.owner == "first"


def test_a_bucket_that_is_not_there_is_unavailable(s3: Server) -> None:
    with pytest.raises(Unavailable, match="MR3001"):
        open_store("s3://no-such-bucket").create("a", b"")


def test_a_database_and_its_files_on_s3(s3: Server, tmp_path: Path) -> None:
    bucket = s3.bucket()
    settings = {
        "checkpoint_store": f"s3://{bucket}/state",
        "state_dir": str(tmp_path),
        "guarantee": "exactly_once",
    }
    with millrace.connect(**settings) as db:
        db.execute(f"""
            CREATE SOURCE t (v INT) WITH ('connector' = 'push');
            CREATE TABLE n AS SELECT count(*) AS n FROM t;
            CREATE SINK o FROM t INTO FILE (path = 's3://{bucket}/out', format = 'parquet')
        """)
        db.push("t", [{"v": v} for v in range(10)])
    with millrace.connect(**settings) as db:
        assert db.query("SELECT n FROM n").rows() == [{"n": 10}]
        db.push("t", {"v": 10})
    written = open_store(f"s3://{bucket}/out")
    files = [written.get(key) for key in written.list("") if key.endswith(".parquet")]
    shown = [
        v for data in files if data is not None for v in pq.read_table(pa.BufferReader(data))["v"].to_pylist()
    ]
    assert sorted(shown) == list(range(11))
    with millrace.connect() as db:
        db.execute(f"CREATE SOURCE r FROM FILE (path = 's3://{bucket}/out/*.parquet', format = 'parquet')")
        assert db.query("SELECT sum(v) AS s FROM r").rows() == [{"s": 55}]
