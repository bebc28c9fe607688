"""The four pattern queries of the Nexmark CEP set, with the same answer from DuckDB by windows and recursion."""

from __future__ import annotations

from benchmarks.queries import Query

_ROWS = """
  WITH RECURSIVE numbered AS MATERIALIZED (
    SELECT auction, bidder, price, "dateTime" AS t, row_number() OVER () AS seq FROM bid),
  b AS MATERIALIZED (
    SELECT *, row_number() OVER w AS i, count(*) OVER (PARTITION BY auction, bidder) AS n,
      sum(price) OVER w AS total
    FROM numbered WINDOW w AS (PARTITION BY auction, bidder ORDER BY t, seq))
"""
"""Bids by key, numbered in order of time."""
_CHAIN = """
  , chain AS (
    SELECT auction, bidder, 1 AS i FROM b WHERE i = 1
    UNION ALL
    SELECT c.auction, c.bidder, coalesce(m.goal, c.i + 1)
    FROM chain c JOIN b ON b.auction = c.auction AND b.bidder = c.bidder AND b.i = c.i
    LEFT JOIN m ON m.auction = c.auction AND m.bidder = c.bidder AND m.i = c.i)
"""
"""The rows at which a search starts: behind a match (its `goal`), or at the next row."""
_AVERAGED = """
  , f AS MATERIALIZED (
    SELECT x.auction, x.bidder, x.i, any_value(x.n) AS n,
      coalesce(min(y.i) FILTER (WHERE (y.total - x.total + x.price) / (y.i - x.i + 1) >= 10000), any_value(x.n) + 1) AS stop
    FROM b x JOIN b y ON x.auction = y.auction AND x.bidder = y.bidder AND y.i >= x.i
    GROUP BY x.auction, x.bidder, x.i),
  m AS MATERIALIZED (
    SELECT auction, bidder, i, least(stop, n) AS last, least(stop, n) + 1 AS goal FROM f
    WHERE stop > i AND least(stop, n) > i)
"""
"""Of each start: the first row with which the average is too high (or one behind the last), and the match."""
_AVERAGES = """
  SELECT x.auction, x.bidder, x.t AS start_tstamp, y.t AS end_tstamp,
    (y.total - x.total + x.price)::DOUBLE / (y.i - x.i + 1) AS avg_price
  FROM m JOIN b x ON x.auction = m.auction AND x.bidder = m.bidder AND x.i = m.i
  JOIN b y ON y.auction = m.auction AND y.bidder = m.bidder AND y.i = m.last - 1
"""

CEP = [
    Query(
        "cep_q0",
        """
        SELECT auction, bidder, start_tstamp, bottom_tstamp, end_tstamp
        FROM bid MATCH_RECOGNIZE (
          PARTITION BY auction, bidder ORDER BY dateTime
          MEASURES FALLING.dateTime AS bottom_tstamp, TOP.dateTime AS start_tstamp, RISE.dateTime AS end_tstamp
          ONE ROW PER MATCH AFTER MATCH SKIP TO LAST RISE
          PATTERN (TOP FALLING+ RISE)
          DEFINE
            FALLING AS FALLING.price < coalesce(LAST(FALLING.price, 1), TOP.price),
            RISE AS RISE.price > LAST(FALLING.price, 1))
        """,
        _ROWS
        + """
          , steps AS (
            SELECT *, lead(i) OVER (PARTITION BY auction, bidder, falls ORDER BY i) AS stop FROM (
              SELECT *, price < lag(price) OVER (PARTITION BY auction, bidder ORDER BY i) AS falls FROM b)),
          runs AS (
            SELECT x.auction, x.bidder, x.i, coalesce(min(y.i), any_value(x.n) + 1) AS stop
            FROM b x LEFT JOIN steps y ON x.auction = y.auction AND x.bidder = y.bidder AND y.i > x.i AND NOT y.falls
            GROUP BY x.auction, x.bidder, x.i),
          m AS MATERIALIZED (
            SELECT r.auction, r.bidder, r.i, r.stop AS goal FROM runs r
            JOIN b u ON u.auction = r.auction AND u.bidder = r.bidder AND u.i = r.stop
            JOIN b d ON d.auction = r.auction AND d.bidder = r.bidder AND d.i = r.stop - 2
            WHERE r.stop - r.i >= 3 AND u.price > d.price)
        """
        + _CHAIN
        + """
        SELECT x.auction, x.bidder, x.t AS start_tstamp, d.t AS bottom_tstamp, u.t AS end_tstamp
        FROM chain JOIN m USING (auction, bidder, i)
        JOIN b x ON x.auction = m.auction AND x.bidder = m.bidder AND x.i = m.i
        JOIN b d ON d.auction = m.auction AND d.bidder = m.bidder AND d.i = m.goal - 1
        JOIN b u ON u.auction = m.auction AND u.bidder = m.bidder AND u.i = m.goal
        """,
    ),
    Query(
        "cep_q1",
        """
        SELECT auction, bidder, start_tstamp, end_tstamp, avg_price
        FROM bid MATCH_RECOGNIZE (
          PARTITION BY auction, bidder ORDER BY dateTime
          MEASURES FIRST(LOW.dateTime) AS start_tstamp, LAST(LOW.dateTime) AS end_tstamp, AVG(LOW.price) AS avg_price
          ONE ROW PER MATCH AFTER MATCH SKIP PAST LAST ROW
          PATTERN (LOW+ REST)
          DEFINE LOW AS AVG(LOW.price) < 10000)
        """,
        _ROWS
        + _AVERAGED
        + _CHAIN
        + _AVERAGES
        + " JOIN chain ON chain.auction = m.auction AND chain.bidder = m.bidder AND chain.i = m.i",
    ),
    Query(
        "cep_q2",
        """
        SELECT auction, bidder, start_tstamp, end_tstamp, avg_price
        FROM bid MATCH_RECOGNIZE (
          PARTITION BY auction, bidder ORDER BY dateTime
          MEASURES FIRST(LOW.dateTime) AS start_tstamp, LAST(LOW.dateTime) AS end_tstamp, AVG(LOW.price) AS avg_price
          ONE ROW PER MATCH AFTER MATCH SKIP TO NEXT ROW
          PATTERN (LOW+ REST)
          DEFINE LOW AS AVG(LOW.price) < 10000)
        """,
        _ROWS + _AVERAGED + _AVERAGES,
    ),
    Query(
        "cep_q3",
        """
        SELECT auction, bidder, drop_time, drop_diff
        FROM bid MATCH_RECOGNIZE (
          PARTITION BY auction, bidder ORDER BY dateTime
          MEASURES LOW.dateTime AS drop_time, HIGH.price - LOW.price AS drop_diff
          ONE ROW PER MATCH AFTER MATCH SKIP PAST LAST ROW
          PATTERN (HIGH REST* LOW) WITHIN INTERVAL '5' SECOND
          DEFINE REST AS REST.price > HIGH.price - 50, LOW AS LOW.price < HIGH.price - 50)
        """,
        _ROWS
        + """
          , drops AS (
            SELECT x.auction, x.bidder, x.i, min(y.i) AS stop FROM b x JOIN b y
            ON x.auction = y.auction AND x.bidder = y.bidder AND y.i > x.i AND y.price <= x.price - 50
            GROUP BY x.auction, x.bidder, x.i),
          m AS MATERIALIZED (
            SELECT r.auction, r.bidder, r.i, r.stop + 1 AS goal, l.t AS drop_time, x.price - l.price AS drop_diff
            FROM drops r JOIN b x ON x.auction = r.auction AND x.bidder = r.bidder AND x.i = r.i
            JOIN b l ON l.auction = r.auction AND l.bidder = r.bidder AND l.i = r.stop
            WHERE l.price < x.price - 50 AND l.t < x.t + INTERVAL 5 SECOND)
        """
        + _CHAIN
        + "SELECT auction, bidder, drop_time, drop_diff FROM chain JOIN m USING (auction, bidder, i)",
    ),
]
