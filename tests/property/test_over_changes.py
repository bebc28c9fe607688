"""OVER of rows that are taken back, and in orders that are not time's, gives DuckDB's answer over cuts and restores."""

import random

import pyarrow as pa
import pytest
from tests.property.same_answer import check

from millrace.errors import MillraceError
from millrace.planner.session import Planner


def _tables() -> dict[str, pa.Table]:
    rng = random.Random(11)
    count = 60
    return {
        "t": pa.table(
            {
                "id": pa.array(range(count), pa.int64()),
                "k": pa.array([rng.choice([None, "a", "b", "ç"]) for _ in range(count)], pa.string()),
                "g": pa.array([rng.randrange(12) for _ in range(count)], pa.int64()),
                "v": pa.array([rng.choice([None, *range(20)]) for _ in range(count)], pa.int64()),
                "d": pa.array([rng.choice([None, 0.5, 2.0, -1.25]) for _ in range(count)], pa.float64()),
            }
        ),
        "r": pa.table(
            {"g": pa.array(range(12), pa.int64()), "w": pa.array([i % 5 for i in range(12)], pa.int64())}
        ),
    }


TABLES = _tables()
BEST = "SELECT g, max(v) AS m, min(id) AS first, max(k) AS k FROM t GROUP BY g"
TEN = "ROWS BETWEEN 2 PRECEDING AND CURRENT ROW"
QUERIES = [
    f"SELECT id, avg(v) OVER (PARTITION BY k ORDER BY v, id {TEN}) AS a FROM t",
    "SELECT id, sum(v) OVER (PARTITION BY k ORDER BY v DESC NULLS LAST) AS s FROM t",
    (
        "SELECT id, count(*) OVER (PARTITION BY k) AS n, max(d) OVER (PARTITION BY k) AS m FROM "
        "(SELECT * FROM t EXCEPT SELECT * FROM t WHERE v > 15)"
    ),
    "SELECT id, lag(v) OVER (ORDER BY id DESC) AS a, lead(v, 2) OVER (ORDER BY id DESC) AS b FROM t",
    (
        "SELECT id, row_number() OVER (PARTITION BY k ORDER BY d, id) AS n, "
        "sum(v) OVER (PARTITION BY k ORDER BY d, id) AS s FROM t"
    ),
    f"SELECT g, first, avg(m) OVER (PARTITION BY k ORDER BY first {TEN}) AS a FROM ({BEST}) AS b",
    f"SELECT g, sum(m) OVER (ORDER BY m, g) AS s, rank() OVER (ORDER BY m) AS r FROM ({BEST}) AS b",
    (
        f"SELECT g, first_value(m) OVER (PARTITION BY k ORDER BY first) AS f, "
        f"last_value(m) OVER (PARTITION BY k ORDER BY first {TEN}) AS l FROM ({BEST}) AS b"
    ),
    (
        "SELECT t.id, w, sum(w) OVER (PARTITION BY k ORDER BY t.id ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS s "
        "FROM t LEFT JOIN r ON t.v = r.g"
    ),
    (
        f"SELECT a, count(*) AS n FROM (SELECT round(avg(m) OVER (PARTITION BY k ORDER BY first {TEN}), 6) AS a FROM ({BEST}) AS b) "
        "AS c GROUP BY a"
    ),
    "SELECT id, percent_rank() OVER (PARTITION BY k ORDER BY v) AS p, ntile(3) OVER (PARTITION BY k ORDER BY id DESC) AS q FROM t",
    "SELECT id, a FROM (SELECT id, v, avg(v) OVER (PARTITION BY k ORDER BY d, id) AS a FROM t) WHERE v > a",
]


@pytest.mark.parametrize("sql", QUERIES)
def test_changing_over_is_the_batch_answer(sql: str) -> None:
    check(sql, TABLES, (0, 1))


def test_explain_shows_state_and_changes() -> None:
    declared = "CREATE SOURCE t (id BIGINT, k VARCHAR, v BIGINT) WITH ('connector' = 'push');"
    shown = Planner().explain(
        declared + "SELECT id, sum(v) OVER (PARTITION BY k ORDER BY v DESC, id) AS s FROM t"
    )
    for line in ("UpdatingOver", "order: v desc", "rows: changes", "state: every row", "exchange: by k"):
        assert line in shown, shown


def test_distances_need_time() -> None:
    declared = "CREATE SOURCE t (id BIGINT, v BIGINT) WITH ('connector' = 'push');"
    with pytest.raises(MillraceError) as caught:
        Planner().compile(
            declared
            + "SELECT sum(v) OVER (ORDER BY v RANGE BETWEEN INTERVAL '1' SECOND PRECEDING AND CURRENT ROW) AS s FROM t"
        )
    assert caught.value.code == "MR1941"
