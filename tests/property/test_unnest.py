"""UNNEST, LATERAL and table functions give DuckDB's answer over random cuts and restores; changelogs too."""

import random

import pyarrow as pa
import pytest
from tests.property.same_answer import check

ITEM = pa.struct([("a", pa.int64()), ("b", pa.string())])


def _some(rng: random.Random, make: object, most: int = 3) -> list[object] | None:
    return None if rng.random() < 0.2 else [make() for _ in range(rng.randint(0, most))]  # type: ignore[operator]


def _tables() -> dict[str, pa.Table]:
    rng = random.Random(7)
    number = lambda: rng.choice([None, *range(8)])
    word = lambda: rng.choice([None, "", "é", "wörd", "z" * 40])
    count = 40
    rows = {
        "id": pa.array(range(count), pa.int64()),
        "k": pa.array([rng.choice([None, 1, 2, 3, 4]) for _ in range(count)], pa.int64()),
        "arr": pa.array([_some(rng, number, 5) for _ in range(count)], pa.list_(pa.int64())),
        "names": pa.array([_some(rng, word) for _ in range(count)], pa.list_(pa.string())),
        "m": pa.array(
            [None if i % 7 == 3 else [(f"k{j}", number()) for j in range(i % 3)] for i in range(count)],
            pa.map_(pa.string(), pa.int64()),
        ),
        "items": pa.array(
            [
                _some(rng, lambda: None if rng.random() < 0.2 else {"a": number(), "b": word()})
                for _ in range(count)
            ],
            pa.list_(ITEM),
        ),
    }
    other = {
        "k": pa.array([rng.choice([None, 1, 2, 3]) for _ in range(12)], pa.int64()),
        "v": pa.array([rng.randrange(50) for _ in range(12)], pa.int64()),
    }
    return {"t": pa.table(rows), "r": pa.table(other)}


TABLES = _tables()
SAME = [
    "SELECT id, x FROM t CROSS JOIN UNNEST(t.arr) AS u(x)",
    "SELECT id, x FROM t LEFT JOIN UNNEST(t.arr) AS u(x) ON TRUE",
    "SELECT id, x FROM t, UNNEST(arr) AS u(x) WHERE x > id AND id > 2",
    "SELECT id, x, y FROM t, UNNEST(arr) AS u(x), UNNEST(names) AS w(y)",
    "SELECT id, unnest(arr) AS x, unnest(names) AS y FROM t",
    "SELECT id, unnest(arr) + 1 AS x FROM t WHERE id > 1",
    "SELECT DISTINCT unnest(names) AS n FROM t",
    "SELECT x, count(*) AS n, sum(id) AS s FROM t, UNNEST(arr) AS u(x) GROUP BY x",
    "SELECT count(*) AS n FROM t, UNNEST(arr) AS u(x)",
    "SELECT x FROM UNNEST(ARRAY[1, 2, 3]) AS u(x)",
    "SELECT g FROM generate_series(5, 1, -2) AS u(g)",
    "SELECT g FROM range(3) AS u(g)",
    "SELECT id, g FROM t, generate_series(1, t.k) AS u(g)",
    "SELECT id, v FROM t CROSS JOIN LATERAL (SELECT v FROM r WHERE r.k = t.k) AS l",
    "SELECT id, w FROM t LEFT JOIN LATERAL (SELECT v + t.id AS w FROM r WHERE r.k = t.k AND v > 10) AS l ON w > 20",
    "SELECT id, n, s FROM t CROSS JOIN LATERAL (SELECT count(*) AS n, sum(v) AS s FROM r WHERE r.k = t.k) AS l",
    "SELECT id, n FROM t CROSS JOIN LATERAL (SELECT count(*) + t.id AS n FROM r WHERE r.k = t.k) AS l WHERE n > 2",
    "SELECT id, v FROM t LEFT JOIN LATERAL (SELECT v FROM r WHERE r.k = t.k ORDER BY v DESC LIMIT 2) AS l ON TRUE",
    "SELECT id, y FROM t CROSS JOIN LATERAL (SELECT x * 2 AS y FROM UNNEST(t.arr) AS u(x) WHERE x > t.k) AS l",
    "SELECT id, y FROM t LEFT JOIN LATERAL (SELECT x + t.id AS y FROM UNNEST(t.arr) AS u(x) WHERE x > t.k) AS l ON TRUE",
    "SELECT id, y FROM t LEFT JOIN LATERAL (SELECT 5 AS y FROM UNNEST(t.arr) AS u(x) WHERE x > 3) AS l ON TRUE",
    "SELECT id, x, v FROM t, UNNEST(arr) AS u(x) LEFT JOIN r ON r.k = x",
    "SELECT id, l.z, w FROM t, LATERAL (SELECT t.id + 1 AS z) AS l, LATERAL (SELECT l.z * 2 AS w) AS n",
    "SELECT id, v, x FROM t, LATERAL (SELECT v, x FROM r, UNNEST(t.arr) AS u(x) WHERE r.k = t.k) AS l",
    "SELECT k, x, c FROM (SELECT k, list(id) AS l, count(*) AS c FROM t GROUP BY k) AS s, UNNEST(l) AS u(x)",
    "SELECT k, unnest(list(id)) AS i FROM t GROUP BY k",
    "SELECT k, x, count(*) AS c FROM (SELECT k, list(v) AS l FROM r GROUP BY k) AS s, UNNEST(l) AS u(x) GROUP BY k, x",
    "SELECT x, v FROM (SELECT x FROM t, UNNEST(arr) AS u(x)) AS f JOIN r ON r.k = f.x",
]
OTHERWISE = [
    (
        "SELECT id, x FROM t LEFT JOIN UNNEST(t.arr) AS u(x) ON x > 2",
        "SELECT id, x FROM t LEFT JOIN LATERAL (SELECT x FROM UNNEST(t.arr) AS u(x) WHERE x > 2) ON TRUE",
    ),
    (
        "SELECT id, x, n FROM t CROSS JOIN UNNEST(t.arr) WITH ORDINALITY AS u(x, n)",
        "SELECT id, unnest(arr), unnest(generate_series(1, len(arr))) FROM t",
    ),
    (
        "SELECT id, key, value FROM t, UNNEST(m)",
        "SELECT id, unnest(map_keys(m)), unnest(map_values(m)) FROM t",
    ),
    (
        "SELECT id, a, b FROM t, UNNEST(items) AS u",
        "SELECT id, s.a, s.b FROM (SELECT id, unnest(items) AS s FROM t)",
    ),
    (
        "SELECT id, s.a AS a, s.b AS b FROM t, UNNEST(items) AS u(s)",
        "SELECT id, s.a, s.b FROM (SELECT id, unnest(items) AS s FROM t)",
    ),
    (
        "SELECT id, p, q, n FROM t LEFT JOIN UNNEST(items) WITH ORDINALITY AS u(p, q, n) ON TRUE",
        (
            "SELECT id, s.a, s.b, n FROM t LEFT JOIN LATERAL "
            "(SELECT unnest(items) AS s, unnest(generate_series(1, len(items))) AS n) ON TRUE"
        ),
    ),
    (
        "SELECT id, x, y FROM t, UNNEST(arr, names) AS u(x, y)",
        "SELECT id, unnest(arr) AS x, unnest(names) AS y FROM t",
    ),
    (
        (
            "SELECT id, g FROM t, LATERAL TABLE(generate_series(TIMESTAMP '2020-01-01 00:00:00', "
            "TIMESTAMP '2020-01-02 00:00:00', INTERVAL '6' HOUR)) AS u(g) WHERE id < 2"
        ),
        (
            "SELECT id, g FROM t, generate_series(TIMESTAMP '2020-01-01', TIMESTAMP '2020-01-02', INTERVAL 6 HOUR) "
            "AS u(g) WHERE id < 2"
        ),
    ),
]


@pytest.mark.parametrize(("sql", "oracle"), [*((q, None) for q in SAME), *OTHERWISE])
def test_rows_made_of_rows_are_the_batch_answer(sql: str, oracle: str | None) -> None:
    check(sql, TABLES, (0,), oracle)
