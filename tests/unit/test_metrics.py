"""What joins and rankings remember and have done is told: by metrics, SHOW METRICS and the run's summary."""

from datetime import datetime
from pathlib import Path

import pytest

import millrace
from millrace.running import run_file

SOURCES = """
    CREATE SOURCE a (k BIGINT, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts) WITH ('connector' = 'push');
    CREATE SOURCE b (k BIGINT, w BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts) WITH ('connector' = 'push');
"""
JOINS = {
    "Join": "SELECT a.k, v, w FROM a LEFT JOIN b ON a.k = b.k",
    "IntervalJoin": "SELECT a.k, v, w FROM a JOIN b ON a.k = b.k AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '1' SECOND",
    "AsofJoin": "SELECT a.k, v, w FROM a ASOF JOIN b MATCH_CONDITION (a.ts >= b.ts) ON a.k = b.k",
    "TopN": "SELECT * FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k ORDER BY v DESC) AS r FROM a) WHERE r <= 2",
}


@pytest.mark.parametrize("operator", JOINS)
def test_metrics_tell_state_matches_and_retractions(operator: str) -> None:
    with millrace.connect() as database:
        database.execute(SOURCES)
        database.execute(f"CREATE TABLE t AS {JOINS[operator]}")
        for second in range(3):
            at = datetime(2024, 1, 1, 0, 0, second)
            database.push("a", [{"k": k, "v": second, "ts": at} for k in (1, 2)])
            database.push("b", [{"k": 1, "w": second, "ts": at}])
        rows = {row["operator"]: row for row in database.execute("SHOW METRICS").rows()}
        again = {row["operator"]: row for row in database.metrics().rows()}
        assert [row.keys() for row in again.values()] == [row.keys() for row in rows.values()]
        found = rows[operator]
        assert found["state_rows"] > 0 and found["state_bytes"] > found["state_rows"]
        if operator == "Join":
            assert (found["matches"], found["retractions"], found["expired"]) == (9, 1, 0)
        if operator == "IntervalJoin":
            assert found["matches"] == 5
        assert rows["source push"]["state_rows"] is None


def test_a_run_sums_up_what_joins_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text("k,v\n1,2\n1,3\n2,5\n")
    text = "".join(
        f"CREATE SOURCE {name} (k BIGINT, v BIGINT) WITH ('connector' = 'file', 'path' = '{tmp_path}/{name}.csv', 'format' = 'csv');"
        for name in "ab"
    )
    sink = "CREATE SINK s FROM (SELECT a.k, a.v, b.v AS w FROM a JOIN b ON a.k = b.k) INTO BLACKHOLE ();"
    assert run_file(text + sink, {}, {}, quiet=False) == 0
    said = capsys.readouterr().err
    assert "6 rows of state in 0.1 MB · 5 matches" in said
