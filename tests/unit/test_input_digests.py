"""What a split gave before a checkpoint is read again after a restart: other rows are corrupt input, not new input."""

import random
from pathlib import Path

import pyarrow as pa
import pytest
from tests.partitions_in_process import Partitions

from millrace.cluster.input_digests import InputDigest
from millrace.errors import Corrupt
from millrace.operators.connectors.arrow import forget, register
from millrace.planner.session import Planner

ROWS = 300


def lines(first: int, end: int) -> str:
    return "".join(f'{{"id":{i},"name":"name {i}"}}\n' for i in range(first, end))


def partitions_over(folder: Path) -> Partitions:
    plan, _ = Planner().compile(
        f"""CREATE SOURCE s (id BIGINT, name VARCHAR) WITH (connector='file', path='{folder}', format='json', follow='true');
        CREATE SINK o FROM (SELECT id, name FROM s) INTO BLACKHOLE ()"""
    )
    return Partitions(plan, 2, random.Random(1), batch_rows=50)


def verified(partitions: Partitions) -> list[str]:
    partitions.start(2)
    return [
        split for share in partitions.shares for source in share.dataflow.sources for split in source.verify()
    ]


def read_all(partitions: Partitions) -> None:
    for _ in range(20):
        for share in partitions.shares:
            share.step(poll=True)
    partitions.checkpoint()


def test_the_same_input_is_fine_and_a_changed_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(lines(0, ROWS))
    partitions = partitions_over(tmp_path)
    read_all(partitions)
    assert verified(partitions) == []
    (tmp_path / "a.json").write_text(lines(0, ROWS) + lines(ROWS, ROWS + 10))
    assert verified(partitions) == []
    (tmp_path / "a.json").write_text(lines(0, ROWS).replace("name ", "mane "))
    with pytest.raises(Corrupt, match="MR5045"):
        verified(partitions)
    partitions.close()


def test_a_digest_does_not_depend_on_how_rows_are_cut() -> None:
    rows = pa.record_batch({"a": pa.array(range(1000)), "b": pa.array([f"n{i}" for i in range(1000)])})
    whole = InputDigest(rows.schema, None)
    whole.add(rows, 2)
    parts = InputDigest(rows.schema, None)
    rng = random.Random(5)
    start = 0
    while start < 1000:
        size = rng.randrange(1, 70)
        parts.add(rows.slice(start, size), 0)
        start += size
    parts.add(None, 2)
    assert (parts.value, parts.records) == (whole.value, whole.records) == (whole.value, 1002)
    fewer = InputDigest(rows.schema.remove(1), None)
    assert fewer.value >> 32 != whole.value >> 32


def test_only_what_came_since_the_checkpoint_before_is_read_again() -> None:
    batch = pa.record_batch({"id": pa.array(range(100))})
    token = register([batch.slice(0, 60), batch.slice(60)], [batch])
    plan, _ = Planner().compile(
        f"CREATE SOURCE s WITH ('connector' = 'arrow', 'token' = '{token}'); "
        "CREATE SINK o FROM (SELECT id FROM s WHERE id >= 0) INTO BLACKHOLE ()"
    )
    try:
        partitions = Partitions(plan, 2, random.Random(2), batch_rows=20)
        partitions.checkpoint()
        for share in partitions.shares:
            share.step(poll=True)
        partitions.checkpoint()
        assert partitions.manifest is not None
        sources = [source for c in partitions.manifest.contributions for source in c.sources]
        points = [point for source in sources for point in source.splits.values()]
        assert all(0 < point.rows < int(point.position["row"]) for point in points)
        assert verified(partitions) == []
        partitions.close()
    finally:
        forget(token)
