"""The soak through joins on time: ever-new keys, matched and not, expire as the watermark passes; memory stays flat."""

from __future__ import annotations

from benchmarks import soak

_FIELDS = "'connector' = 'datagen', 'fields.id.kind' = 'sequence', 'fields.ts.kind' = 'time', 'fields.ts.step' = '1ms'"
SCRIPT = f"""
    CREATE SOURCE a (id BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts) WITH ({_FIELDS});
    CREATE SOURCE b (id BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts) WITH ({_FIELDS});
    CREATE STREAM orders AS SELECT CAST(id / 2 AS STRING) AS key, id, ts FROM a;
    CREATE STREAM shipments AS SELECT CAST(id / 3 AS STRING) AS key, id, ts FROM b WHERE MOD(id, 5) < 4;
    CREATE SINK within FROM (
      SELECT o.key, o.id, s.id AS other FROM orders AS o LEFT JOIN shipments AS s
      ON o.key = s.key AND s.ts BETWEEN o.ts - INTERVAL '5' SECOND AND o.ts + INTERVAL '20' SECOND
    ) INTO BLACKHOLE ();
    CREATE SINK windows FROM (
      SELECT o.key, o.n, s.n AS other FROM (
        SELECT key, window_start AS ws, window_end AS we, count(*) AS n
        FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY key, window_start, window_end
      ) AS o FULL JOIN (
        SELECT key, window_start AS ws, window_end AS we, count(*) AS n
        FROM TABLE(TUMBLE(TABLE shipments, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY key, window_start, window_end
      ) AS s ON o.key = s.key AND o.ws = s.ws AND o.we = s.we
    ) INTO BLACKHOLE ();
"""


def run(as_json: bool, seconds: float = soak.SECONDS) -> None:
    """Print what was found; fails where memory grew."""
    soak.run(as_json, seconds, "soak_joins", SCRIPT)
