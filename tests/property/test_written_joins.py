"""Joins and subqueries as people write them give DuckDB's answer, over cuts and restores."""

import random

import pyarrow as pa
import pytest
from tests.property.same_answer import check

NUMBER, TEXT = pa.int64(), pa.string()


def _tables() -> dict[str, pa.Table]:
    rng = random.Random(5)

    def one_of(rows: int, kind: pa.DataType, *values: object) -> pa.Array:
        return pa.array([rng.choice(values) for _ in range(rows)], kind)

    digits = (None, *range(9))
    return {
        "a": pa.table(
            {
                "id": one_of(14, NUMBER, None, 1, 2, 3, 4, 5),
                "k": one_of(14, NUMBER, None, 1, 2, 3),
                "x": one_of(14, TEXT, "p", "q", None, "é"),
                "v": one_of(14, NUMBER, *digits),
            }
        ),
        "b": pa.table(
            {
                "id": one_of(14, NUMBER, None, 1, 2, 3, 4, 6),
                "k": one_of(14, NUMBER, None, 1, 2, 3),
                "y": one_of(14, TEXT, "u", "v", None),
                "w": one_of(14, NUMBER, *digits),
            }
        ),
        "c": pa.table(
            {
                "id": one_of(8, NUMBER, 1, 2, 3, 7),
                "z": one_of(8, TEXT, "m", "n"),
                "n": one_of(8, NUMBER, *range(5)),
            }
        ),
        "e": pa.table({"id": pa.array([1, 2, 3], NUMBER), "m": pa.array([None, 5, 6], NUMBER)}),
    }


TABLES = _tables()
QUERIES = """
SELECT a.id, b.id AS bid FROM a JOIN b ON a.id = b.id
SELECT a.v, o.v AS ov FROM a JOIN a AS o ON a.id = o.k
SELECT id, x, y FROM a JOIN b USING (id)
SELECT id, k, x, y FROM a JOIN b USING (id, k)
SELECT * FROM a NATURAL JOIN c
SELECT id, x, z FROM a NATURAL LEFT JOIN c
SELECT a.x, b.y FROM a JOIN b ON a.id + 1 = b.k * 2
SELECT a.x, b.y FROM a JOIN b ON a.v < b.w
SELECT a.x, b.y FROM a JOIN b ON a.v < b.w AND a.k <> b.k
SELECT a.x, z FROM a CROSS JOIN c
SELECT a.x, z FROM a, c WHERE a.id = c.id OR a.k = c.n
SELECT a.x, b.y FROM a RIGHT JOIN b ON a.id = b.id AND a.v > b.w
SELECT a.x, b.y FROM a FULL JOIN b ON a.id = b.id AND a.v > b.w
SELECT a.x, b.y FROM a LEFT JOIN b ON a.id = b.id AND a.v > 3
SELECT a.x, b.y FROM a FULL JOIN b ON a.id = b.id AND b.w > 3
SELECT a.x, b.y FROM a LEFT JOIN b ON a.v < b.w
SELECT a.x, b.y FROM a FULL JOIN b ON a.v < b.w
SELECT a.x, b.y FROM a LEFT JOIN b ON TRUE
SELECT a.x, b.y FROM a LEFT JOIN b ON FALSE
SELECT a.x, b.y, z FROM a LEFT JOIN b ON a.id = b.id LEFT JOIN c ON b.id = c.id
SELECT a.x, b.y, z FROM a FULL JOIN b ON a.id = b.id FULL JOIN c ON b.id = c.id
SELECT a.x, b.y, z, m FROM a JOIN b ON a.id = b.id JOIN c ON a.id = c.id JOIN e ON e.id = c.id
SELECT a.x, b.y FROM a JOIN b ON a.id IS NOT DISTINCT FROM b.id
SELECT id, x FROM a SEMI JOIN b USING (id)
SELECT id, x FROM a ANTI JOIN b USING (id)
SELECT id, x FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.id = a.id AND b.w > a.v)
SELECT id, x FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.id = a.id AND b.w > a.v)
SELECT id, x FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.w > a.v)
SELECT id, x FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.w < a.v)
SELECT id, x FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.id = a.id) OR v > 6
SELECT id, x FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.w > a.v AND b.id = a.id) OR v > 6
SELECT id, (SELECT max(w) FROM b WHERE b.id = a.id) AS m FROM a
SELECT id, (SELECT count(*) FROM b WHERE b.id = a.id) AS m FROM a
SELECT id, (SELECT max(w) FROM b) AS m FROM a
SELECT id, (SELECT count(*) FROM b WHERE b.w > a.v) AS m FROM a
SELECT id, (SELECT sum(w) FROM b WHERE b.id = a.id AND b.w > a.v) AS m FROM a
SELECT id, (SELECT max(w) + a.v FROM b WHERE b.id = a.id) AS m FROM a
SELECT id, v FROM a WHERE v > (SELECT avg(w) FROM b)
SELECT id, v FROM a WHERE v > (SELECT avg(w) FROM b WHERE b.id = a.id)
SELECT id, v FROM a WHERE v = (SELECT max(v) FROM a AS o WHERE o.k = a.k)
SELECT id FROM a WHERE (id, k) IN (SELECT id, k FROM b)
SELECT id FROM a WHERE (id, k) NOT IN (SELECT id, n FROM c)
SELECT id FROM a WHERE (id, k) NOT IN (SELECT id, k FROM b)
SELECT id FROM a WHERE id NOT IN (SELECT id FROM b)
SELECT id FROM a WHERE id NOT IN (SELECT id FROM c)
SELECT id FROM a WHERE id NOT IN (SELECT id FROM b WHERE b.k = a.k)
SELECT id FROM a WHERE id IN (SELECT id FROM b WHERE b.k = a.k)
SELECT id FROM a WHERE id IN (SELECT id FROM b WHERE b.w > a.v)
SELECT id FROM a WHERE v > ANY (SELECT w FROM b)
SELECT id FROM a WHERE v >= ALL (SELECT n FROM c)
SELECT id FROM a WHERE id = ANY (SELECT id FROM b)
SELECT id, id IN (SELECT id FROM b) AS t FROM a
SELECT id, id NOT IN (SELECT id FROM c) AS t FROM a
SELECT id, EXISTS (SELECT 1 FROM b WHERE b.id = a.id) AS t FROM a
SELECT id, EXISTS (SELECT 1 FROM b WHERE b.w > a.v) AS t FROM a
SELECT id, CASE WHEN EXISTS (SELECT 1 FROM c WHERE c.id = a.id) THEN 'y' ELSE 'n' END AS t FROM a
SELECT a.id, l.w FROM a, LATERAL (SELECT w FROM b WHERE b.id = a.id ORDER BY w DESC NULLS LAST LIMIT 2) AS l
SELECT a.id, l.w FROM a LEFT JOIN LATERAL (SELECT w FROM b WHERE b.id = a.id ORDER BY w NULLS FIRST LIMIT 1) AS l ON TRUE
SELECT a.id, l.s FROM a, LATERAL (SELECT sum(w) AS s FROM b WHERE b.id = a.id GROUP BY y) AS l
SELECT a.id, l.n FROM a, LATERAL (SELECT count(*) AS n FROM b WHERE b.id = a.id AND b.w > a.v) AS l
SELECT a.id, l.w FROM a, LATERAL (SELECT w FROM b WHERE b.w > a.v) AS l
SELECT a.id, l.w FROM a, LATERAL (SELECT DISTINCT w FROM b WHERE b.id = a.id) AS l
SELECT a.id, l.w FROM a, LATERAL (SELECT w FROM b WHERE b.id = a.id UNION ALL SELECT n FROM c WHERE c.id = a.id) AS l
SELECT a.id, l.w FROM a, LATERAL (SELECT b.w FROM b JOIN c ON b.id = c.id WHERE b.id = a.id) AS l
SELECT a.id, l.w FROM a, LATERAL (SELECT b.w FROM b LEFT JOIN c ON b.id = c.id WHERE b.id = a.id) AS l
SELECT k, count(*) AS n FROM a JOIN b USING (k) GROUP BY k HAVING count(*) > (SELECT min(n) FROM c)
SELECT s.k, s.n, t.m FROM (SELECT k, count(*) AS n FROM a GROUP BY k) AS s JOIN (SELECT k, max(w) AS m FROM b GROUP BY k) AS t ON s.k = t.k
SELECT a.id, s.n FROM a LEFT JOIN (SELECT k, count(*) AS n FROM b GROUP BY k) AS s ON a.k = s.k AND s.n > 2
SELECT a.x, upper(b.y) AS u FROM a JOIN b ON upper(a.x) = upper(b.y) OR a.id = b.id
SELECT a.id FROM a JOIN b ON a.id = b.id AND b.y LIKE 'u%' AND a.x IS NOT NULL
SELECT a.id, b.id AS bid FROM a JOIN b ON a.id BETWEEN b.id - 1 AND b.id + 1
SELECT a.id, b.id AS bid FROM a JOIN b ON coalesce(a.id, -1) = coalesce(b.id, -1)
SELECT x, (SELECT z FROM c WHERE c.id = a.id ORDER BY n, z LIMIT 1) AS z FROM a
SELECT id FROM a WHERE k IN (SELECT k FROM b WHERE id IN (SELECT id FROM c))
SELECT id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND EXISTS (SELECT 1 FROM c WHERE c.id = b.id))
SELECT e.id, m, x FROM e LEFT JOIN a ON a.id = e.id AND m IS NULL
SELECT a.id FROM a WHERE a.v > (SELECT count(*) FROM b WHERE b.id = a.id)
SELECT a.id, (SELECT count(*) FROM b WHERE b.id = a.id) + (SELECT count(*) FROM c WHERE c.id = a.id) AS n FROM a
SELECT a.id, l.w FROM a LEFT JOIN LATERAL (SELECT w FROM b WHERE b.k > a.k) AS l ON l.w > a.v
SELECT a.id, l.q FROM a, LATERAL (SELECT a.v * 2 AS q WHERE a.v > 3) AS l
SELECT id, (SELECT max(x) FROM UNNEST(ARRAY[a.v, a.k]) AS u(x)) AS m FROM a
SELECT id FROM a WHERE 3 IN (SELECT x FROM UNNEST(ARRAY[a.v, a.k]) AS u(x))
SELECT id FROM a WHERE EXISTS (SELECT 1 FROM UNNEST(ARRAY[a.v, a.k]) AS u(x) WHERE x > 2)
SELECT a.id, l.s FROM a, LATERAL (SELECT sum(x) AS s FROM UNNEST(ARRAY[a.v, a.k]) AS u(x)) AS l
SELECT id FROM a WHERE NOT (v > ANY (SELECT w FROM b))
SELECT id FROM a WHERE NOT (v > ANY (SELECT n FROM c))
SELECT id FROM a WHERE NOT (v >= ALL (SELECT n FROM c))
SELECT id FROM a WHERE v <> ALL (SELECT n FROM c)
SELECT id FROM a WHERE v <= ALL (SELECT w FROM b WHERE b.id = a.id)
SELECT id, (SELECT count(*) FROM b JOIN c ON b.id = c.id WHERE b.w > a.v) AS n FROM a
SELECT id, (SELECT max(n) FROM (SELECT count(*) AS n FROM b WHERE b.w > a.v GROUP BY k) AS s) AS n FROM a
SELECT id, (SELECT w FROM b WHERE b.w > a.v ORDER BY w, y LIMIT 1) AS n FROM a
SELECT id FROM a WHERE v NOT IN (SELECT n FROM c WHERE c.n > a.k)
"""


@pytest.mark.parametrize("sql", QUERIES.strip().split("\n"))
def test_written_query_is_the_batch_answer(sql: str) -> None:
    check(sql, TABLES, (0,))
