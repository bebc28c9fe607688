"""The measured queries, each in Millrace's SQL and in DuckDB's, with the same final result."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Query:
    """`stream` is what Millrace runs, `batch` what DuckDB runs; both answer the same columns.

    `tables` names what they read. `compare` maps both results to what must be equal where the results
    themselves depend on the clock, or on which of equal rows came first; it is SQL over a table called
    `result`. `updating` marks a changelog that is folded before it is compared.
    """

    name: str
    stream: str
    batch: str
    tables: tuple[str, ...] = ("bid",)
    compare: str = ""
    updating: bool = False
    side_input: bool = False
    """Whether they also read `side_input` (key, value), which is a file for both."""


Q15_COUNTS = """
  count(*) AS total_bids,
  count(*) FILTER (WHERE price < 10000) AS rank1_bids,
  count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids,
  count(*) FILTER (WHERE price >= 1000000) AS rank3_bids,
  count(DISTINCT bidder) AS total_bidders,
  count(DISTINCT bidder) FILTER (WHERE price < 10000) AS rank1_bidders,
  count(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bidders,
  count(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS rank3_bidders,
  count(DISTINCT auction) AS total_auctions,
  count(DISTINCT auction) FILTER (WHERE price < 10000) AS rank1_auctions,
  count(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_auctions,
  count(DISTINCT auction) FILTER (WHERE price >= 1000000) AS rank3_auctions
"""
Q17_STATISTICS = """
  count(*) AS total_bids,
  count(*) FILTER (WHERE price < 10000) AS rank1_bids,
  count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids,
  count(*) FILTER (WHERE price >= 1000000) AS rank3_bids,
  min(price) AS min_price,
  max(price) AS max_price,
  avg(price) AS avg_price,
  sum(price) AS sum_price
"""
Q14_KIND = """
  CASE WHEN {hour} >= 8 AND {hour} <= 18 THEN 'dayTime'
       WHEN {hour} <= 6 OR {hour} >= 20 THEN 'nightTime'
       ELSE 'otherTime' END AS bidTimeType
"""
Q21_ID = """
  CASE WHEN lower(channel) = 'apple' THEN '0'
       WHEN lower(channel) = 'google' THEN '1'
       WHEN lower(channel) = 'facebook' THEN '2'
       WHEN lower(channel) = 'baidu' THEN '3'
       ELSE {extract} END AS channel_id
"""
HOPS_10_2 = """
  SELECT auction, w AS window_start, w + INTERVAL 10 SECOND AS window_end
  FROM (SELECT auction, unnest(range(time_bucket(INTERVAL 2 SECOND, "dateTime") - INTERVAL 8 SECOND,
        time_bucket(INTERVAL 2 SECOND, "dateTime") + INTERVAL 2 SECOND, INTERVAL 2 SECOND)) AS w FROM bid)
"""

NEXMARK = [
    Query(
        "q0",
        "SELECT auction, bidder, price, dateTime, extra FROM bid",
        'SELECT auction, bidder, price, "dateTime", extra FROM bid',
    ),
    Query(
        "q1",
        "SELECT auction, bidder, 0.908 * price AS price, dateTime, extra FROM bid",
        'SELECT auction, bidder, 0.908 * price AS price, "dateTime", extra FROM bid',
    ),
    Query(
        "q2",
        "SELECT auction, price FROM bid WHERE MOD(auction, 123) = 0",
        "SELECT auction, price FROM bid WHERE auction % 123 = 0",
    ),
    Query(
        "q5",
        """
        SELECT auction, num, window_start, window_end FROM (
          SELECT *, RANK() OVER (PARTITION BY window_start, window_end ORDER BY num DESC) AS r FROM (
            SELECT auction, count(*) AS num, window_start, window_end
            FROM TABLE(HOP(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
            GROUP BY auction, window_start, window_end))
        WHERE r <= 1
        """,
        f"""
        SELECT auction, num, window_start, window_end FROM (
          SELECT *, rank() OVER (PARTITION BY window_start ORDER BY num DESC) AS r FROM (
            SELECT auction, count(*) AS num, window_start, window_end FROM ({HOPS_10_2})
            GROUP BY auction, window_start, window_end))
        WHERE r <= 1
        """,
    ),
    Query(
        "q7",
        """
        SELECT B.auction, B.price, B.bidder, B.dateTime, B.extra
        FROM bid B JOIN (
          SELECT max(price) AS maxprice, window_end AS dateTime
          FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '10' SECOND))
          GROUP BY window_start, window_end) B1
        ON B.price = B1.maxprice AND B.dateTime BETWEEN B1.dateTime - INTERVAL '10' SECOND AND B1.dateTime
        """,
        """
        SELECT B.auction, B.price, B.bidder, B."dateTime", B.extra
        FROM bid B JOIN (
          SELECT max(price) AS maxprice, w + INTERVAL 10 SECOND AS "dateTime"
          FROM (SELECT time_bucket(INTERVAL 10 SECOND, "dateTime") AS w, price FROM bid) GROUP BY w) B1
        ON B.price = B1.maxprice AND B."dateTime" BETWEEN B1."dateTime" - INTERVAL 10 SECOND AND B1."dateTime"
        """,
    ),
    Query(
        "q8",
        """
        SELECT P.id, P.name, P.starttime
        FROM (SELECT id, name, TUMBLE_START(dateTime, INTERVAL '10' SECOND) AS starttime,
                     TUMBLE_END(dateTime, INTERVAL '10' SECOND) AS endtime
              FROM person GROUP BY id, name, TUMBLE(dateTime, INTERVAL '10' SECOND)) P
        JOIN (SELECT seller, TUMBLE_START(dateTime, INTERVAL '10' SECOND) AS starttime,
                     TUMBLE_END(dateTime, INTERVAL '10' SECOND) AS endtime
              FROM auction GROUP BY seller, TUMBLE(dateTime, INTERVAL '10' SECOND)) A
        ON P.id = A.seller AND P.starttime = A.starttime AND P.endtime = A.endtime
        """,
        """
        SELECT P.id, P.name, P.starttime
        FROM (SELECT DISTINCT id, name, time_bucket(INTERVAL 10 SECOND, "dateTime") AS starttime FROM person) P
        JOIN (SELECT DISTINCT seller, time_bucket(INTERVAL 10 SECOND, "dateTime") AS starttime FROM auction) A
        ON P.id = A.seller AND P.starttime = A.starttime
        """,
        tables=("person", "auction"),
    ),
    Query(
        "q5_join",
        """
        SELECT AuctionBids.auction, AuctionBids.num
        FROM (SELECT auction, count(*) AS num, window_start AS starttime, window_end AS endtime
              FROM TABLE(HOP(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
              GROUP BY auction, window_start, window_end) AS AuctionBids
        JOIN (SELECT max(CountBids.num) AS maxn, CountBids.starttime, CountBids.endtime
              FROM (SELECT count(*) AS num, window_start AS starttime, window_end AS endtime
                    FROM TABLE(HOP(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '2' SECOND, INTERVAL '10' SECOND))
                    GROUP BY auction, window_start, window_end) AS CountBids
              GROUP BY CountBids.starttime, CountBids.endtime) AS MaxBids
        ON AuctionBids.starttime = MaxBids.starttime AND AuctionBids.endtime = MaxBids.endtime
           AND AuctionBids.num >= MaxBids.maxn
        """,
        f"""
        SELECT A.auction, A.num
        FROM (SELECT auction, count(*) AS num, window_start FROM ({HOPS_10_2}) GROUP BY 1, 3) A
        JOIN (SELECT max(num) AS maxn, window_start FROM (
                SELECT auction, count(*) AS num, window_start FROM ({HOPS_10_2}) GROUP BY 1, 3) GROUP BY 2) M
        ON A.window_start = M.window_start AND A.num >= M.maxn
        """,
    ),
    Query(
        "q7_window",
        """
        SELECT window_start, window_end, max(price) AS maxprice
        FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '10' SECOND))
        GROUP BY window_start, window_end
        """,
        """
        SELECT w AS window_start, w + INTERVAL 10 SECOND AS window_end, max(price) AS maxprice
        FROM (SELECT time_bucket(INTERVAL 10 SECOND, "dateTime") AS w, price FROM bid) GROUP BY w
        """,
    ),
    Query(
        "q11",
        """
        SELECT bidder, count(*) AS bid_count, window_start, window_end
        FROM TABLE(SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(dateTime), INTERVAL '10' SECOND))
        GROUP BY bidder, window_start, window_end
        """,
        """
        SELECT bidder, count(*) AS bid_count, min(t) AS window_start,
               max(t) + INTERVAL 10 SECOND AS window_end
        FROM (SELECT bidder, t, sum(fresh) OVER (PARTITION BY bidder ORDER BY t) AS session FROM (
          SELECT bidder, "dateTime" AS t,
            CASE WHEN "dateTime" - lag("dateTime") OVER (PARTITION BY bidder ORDER BY "dateTime")
                 < INTERVAL 10 SECOND THEN 0 ELSE 1 END AS fresh FROM bid))
        GROUP BY bidder, session
        """,
    ),
    Query(
        "q12",
        """
        SELECT bidder, count(*) AS bid_count, window_start, window_end
        FROM (SELECT *, PROCTIME() AS p_time FROM bid)
        GROUP BY bidder, TUMBLE(p_time, INTERVAL '10' SECOND)
        """,
        """
        SELECT bidder, count(*) AS bid_count, now() AS window_start, now() AS window_end
        FROM bid GROUP BY bidder
        """,
        compare="SELECT bidder, sum(bid_count) AS bids FROM result GROUP BY bidder",
    ),
    Query(
        "q14",
        f"""
        SELECT auction, bidder, 0.908 * price AS price, {Q14_KIND.format(hour="HOUR(dateTime)")}, dateTime,
               extra, count_char(extra, 'c') AS c_counts
        FROM bid WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000
        """,
        f"""
        SELECT auction, bidder, 0.908 * price AS price, {Q14_KIND.format(hour='hour("dateTime")')},
               "dateTime", extra, length(extra) - length(replace(extra, 'c', '')) AS c_counts
        FROM bid WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000
        """,
    ),
    Query(
        "q15",
        f"SELECT DATE_FORMAT(dateTime, 'yyyy-MM-dd') AS day, {Q15_COUNTS} FROM bid GROUP BY 1",
        f"""SELECT strftime("dateTime", '%Y-%m-%d') AS day, {Q15_COUNTS} FROM bid GROUP BY 1""",
        updating=True,
    ),
    Query(
        "q16",
        f"""
        SELECT channel, DATE_FORMAT(dateTime, 'yyyy-MM-dd') AS day,
               max(DATE_FORMAT(dateTime, 'HH:mm')) AS minute, {Q15_COUNTS} FROM bid GROUP BY 1, 2
        """,
        f"""
        SELECT channel, strftime("dateTime", '%Y-%m-%d') AS day,
               max(strftime("dateTime", '%H:%M')) AS minute, {Q15_COUNTS} FROM bid GROUP BY 1, 2
        """,
        updating=True,
    ),
    Query(
        "q17",
        f"""
        SELECT auction, DATE_FORMAT(dateTime, 'yyyy-MM-dd') AS day, {Q17_STATISTICS}
        FROM bid GROUP BY 1, 2
        """,
        f"""
        SELECT auction, strftime("dateTime", '%Y-%m-%d') AS day, {Q17_STATISTICS}
        FROM bid GROUP BY 1, 2
        """,
        updating=True,
    ),
    Query(
        "q18",
        """
        SELECT auction, bidder, price, channel, url, dateTime, extra FROM (
          SELECT *, ROW_NUMBER() OVER (PARTITION BY bidder, auction ORDER BY dateTime DESC) AS rank_number
          FROM bid)
        WHERE rank_number <= 1
        """,
        """
        SELECT auction, bidder, price, channel, url, "dateTime", extra FROM (
          SELECT *, row_number() OVER (PARTITION BY bidder, auction ORDER BY "dateTime" DESC) AS rank_number
          FROM bid)
        WHERE rank_number <= 1
        """,
        compare='SELECT auction, bidder, "dateTime" FROM result',
        updating=True,
    ),
    Query(
        "q19",
        """
        SELECT * FROM (
          SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC) AS rank_number FROM bid)
        WHERE rank_number <= 10
        """,
        """
        SELECT * FROM (
          SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rank_number FROM bid)
        WHERE rank_number <= 10
        """,
        compare="SELECT auction, price, rank_number FROM result",
        updating=True,
    ),
    Query(
        "q21",
        f"""
        SELECT auction, bidder, price, channel,
               {Q21_ID.format(extract="REGEXP_EXTRACT(url, '(&|^)channel_id=([^&]*)', 2)")}
        FROM bid WHERE REGEXP_EXTRACT(url, '(&|^)channel_id=([^&]*)', 2) IS NOT NULL
                    OR lower(channel) IN ('apple', 'google', 'facebook', 'baidu')
        """,
        f"""
        SELECT * FROM (SELECT auction, bidder, price, channel,
          {Q21_ID.format(extract="nullif(regexp_extract(url, '(&|^)channel_id=([^&]*)', 2), '')")} FROM bid)
        WHERE channel_id IS NOT NULL
        """,
    ),
    Query(
        "q22",
        """
        SELECT auction, bidder, price, channel, SPLIT_INDEX(url, '/', 3) AS dir1,
               SPLIT_INDEX(url, '/', 4) AS dir2, SPLIT_INDEX(url, '/', 5) AS dir3 FROM bid
        """,
        """
        SELECT auction, bidder, price, channel, split_part(url, '/', 4) AS dir1,
               split_part(url, '/', 5) AS dir2, split_part(url, '/', 6) AS dir3 FROM bid
        """,
    ),
]

NEXMARK_JOINS = [
    Query(
        "q3",
        """
        SELECT P.name, P.city, P.state, A.id FROM auction AS A JOIN person AS P ON A.seller = P.id
        WHERE A.category = 10 AND (P.state = 'OR' OR P.state = 'ID' OR P.state = 'CA')
        """,
        """
        SELECT P.name, P.city, P.state, A.id FROM auction AS A JOIN person AS P ON A.seller = P.id
        WHERE A.category = 10 AND (P.state = 'OR' OR P.state = 'ID' OR P.state = 'CA')
        """,
        tables=("auction", "person"),
    ),
    Query(
        "q4",
        """
        SELECT Q.category, avg(Q.final) AS price FROM (
          SELECT max(B.price) AS final, A.category FROM auction A, bid B
          WHERE A.id = B.auction AND B.dateTime BETWEEN A.dateTime AND A.expires
          GROUP BY A.id, A.category) Q
        GROUP BY Q.category
        """,
        """
        SELECT Q.category, avg(Q.final) AS price FROM (
          SELECT max(B.price) AS final, A.category FROM auction A, bid B
          WHERE A.id = B.auction AND B."dateTime" BETWEEN A."dateTime" AND A.expires
          GROUP BY A.id, A.category) Q
        GROUP BY Q.category
        """,
        tables=("auction", "bid"),
        updating=True,
    ),
    Query(
        "q6",
        """
        SELECT seller, avg(final) OVER (
          PARTITION BY seller ORDER BY dateTime, id ROWS BETWEEN 10 PRECEDING AND CURRENT ROW) AS price
        FROM (
          SELECT A.id, A.seller, B.price AS final, B.dateTime,
            ROW_NUMBER() OVER (PARTITION BY A.id, A.seller ORDER BY B.price DESC, B.dateTime) AS rownum
          FROM auction A, bid B WHERE A.id = B.auction AND B.dateTime BETWEEN A.dateTime AND A.expires)
        WHERE rownum <= 1
        """,
        """
        SELECT seller, avg(final) OVER (
          PARTITION BY seller ORDER BY "dateTime", id ROWS BETWEEN 10 PRECEDING AND CURRENT ROW) AS price
        FROM (
          SELECT A.id, A.seller, B.price AS final, B."dateTime",
            ROW_NUMBER() OVER (PARTITION BY A.id, A.seller ORDER BY B.price DESC, B."dateTime") AS rownum
          FROM auction A, bid B WHERE A.id = B.auction AND B."dateTime" BETWEEN A."dateTime" AND A.expires)
        WHERE rownum <= 1
        """,
        tables=("auction", "bid"),
        updating=True,
    ),
    Query(
        "q9",
        """
        SELECT id, itemName, description, initialBid, reserve, dateTime, expires, seller, category, extra,
               auction, bidder, price, bid_dateTime, bid_extra
        FROM (
          SELECT A.*, B.auction, B.bidder, B.price, B.dateTime AS bid_dateTime, B.extra AS bid_extra,
            ROW_NUMBER() OVER (PARTITION BY A.id ORDER BY B.price DESC, B.dateTime ASC) AS rownum
          FROM auction A, bid B WHERE A.id = B.auction AND B.dateTime BETWEEN A.dateTime AND A.expires)
        WHERE rownum <= 1
        """,
        """
        SELECT id, "itemName", description, "initialBid", reserve, "dateTime", expires, seller, category, extra,
               auction, bidder, price, bid_dateTime, bid_extra
        FROM (
          SELECT A.*, B.auction, B.bidder, B.price, B."dateTime" AS bid_dateTime, B.extra AS bid_extra,
            ROW_NUMBER() OVER (PARTITION BY A.id ORDER BY B.price DESC, B."dateTime" ASC) AS rownum
          FROM auction A, bid B WHERE A.id = B.auction AND B."dateTime" BETWEEN A."dateTime" AND A.expires)
        WHERE rownum <= 1
        """,
        tables=("auction", "bid"),
        updating=True,
    ),
    Query(
        "q20",
        """
        SELECT auction, bidder, price, channel, url, B.dateTime AS bid_dateTime, B.extra AS bid_extra,
               itemName, description, initialBid, reserve, A.dateTime AS auction_dateTime, expires, seller,
               category, A.extra AS auction_extra
        FROM bid AS B JOIN auction AS A ON B.auction = A.id WHERE A.category = 10
        """,
        """
        SELECT auction, bidder, price, channel, url, B."dateTime" AS bid_dateTime, B.extra AS bid_extra,
               "itemName", description, "initialBid", reserve, A."dateTime" AS auction_dateTime, expires, seller,
               category, A.extra AS auction_extra
        FROM bid AS B JOIN auction AS A ON B.auction = A.id WHERE A.category = 10
        """,
        tables=("auction", "bid"),
    ),
    Query(
        "q23",
        """
        SELECT B.auction, B.bidder, B.price, B.channel, A.itemName, A.category, P.name, P.city, P.state
        FROM bid B JOIN auction A ON B.auction = A.id JOIN person P ON A.seller = P.id
        """,
        """
        SELECT B.auction, B.bidder, B.price, B.channel, A."itemName", A.category, P.name, P.city, P.state
        FROM bid B JOIN auction A ON B.auction = A.id JOIN person P ON A.seller = P.id
        """,
        tables=("auction", "bid", "person"),
    ),
]

NEXMARK_SIDE_INPUTS = [
    Query(
        "q13",
        """
        SELECT B.auction, B.bidder, B.price, B.dateTime, S.value FROM bid AS B
        JOIN side_input FOR SYSTEM_TIME AS OF PROCTIME() AS S ON MOD(B.auction, 10000) = S.key
        """,
        """
        SELECT B.auction, B.bidder, B.price, B."dateTime", S.value FROM bid AS B
        JOIN side_input AS S ON B.auction % 10000 = S.key
        """,
        side_input=True,
    ),
]

GROUPED = "SELECT symbol, sum(price) AS total, count(*) AS n, min(price) AS low, max(price) AS high"
TUMBLED = "count(*) AS n, sum(price) AS total, min(price) AS low, max(price) AS high"

SCENARIOS = [
    *(
        Query(
            f"group_by_{label}",
            f"{GROUPED} FROM trades_{label} GROUP BY symbol",
            f"{GROUPED} FROM trades_{label} GROUP BY symbol",
            tables=(f"trades_{label}",),
            updating=True,
        )
        for label in ("100", "200", "10k", "1m")
    ),
    *(
        Query(
            f"tumble_{label}",
            f"""
            SELECT symbol, window_start, {TUMBLED} FROM trades_{label}
            GROUP BY symbol, TUMBLE(ts, INTERVAL '1' MINUTE)
            """,
            f"""
            SELECT symbol, time_bucket(INTERVAL 1 MINUTE, ts) AS window_start, {TUMBLED}
            FROM trades_{label} GROUP BY 1, 2
            """,
            tables=(f"trades_{label}",),
        )
        for label in ("100", "10k")
    ),
    *(
        Query(
            f"interval_{matches}",
            f"""
            SELECT a.symbol, a.seq, b.seq AS other, b.price FROM trades_10k a JOIN trades_10k b
            ON a.symbol = b.symbol AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '{matches}' SECOND
            WHERE MOD(a.seq, {max(1, matches // 2)}) = 0
            """,
            f"""
            SELECT a.symbol, a.seq, b.seq AS other, b.price FROM trades_10k a JOIN trades_10k b
            ON a.symbol = b.symbol AND b.ts BETWEEN a.ts AND a.ts + INTERVAL {matches} SECOND
            WHERE a.seq % {max(1, matches // 2)} = 0
            """,
            tables=("trades_10k",),
        )
        for matches in (1, 10, 100)
    ),
    *(
        Query(
            f"stream_table_{keys}",
            f"""
            SELECT t.symbol, t.seq, t.price * l.shares AS worth, l.sector
            FROM trades_{keys} AS t JOIN listing_{keys} FOR SYSTEM_TIME AS OF PROCTIME() AS l ON t.symbol = l.symbol
            """,
            f"""
            SELECT t.symbol, t.seq, t.price * l.shares AS worth, l.sector
            FROM trades_{keys} AS t JOIN listing_{keys} AS l ON t.symbol = l.symbol
            """,
            tables=(f"trades_{keys}", f"listing_{keys}"),
        )
        for keys in ("5k", "1m")
    ),
    Query(
        "asof",
        """
        SELECT a.symbol, a.seq, b.seq AS other, b.price FROM trades_10k a ASOF JOIN trades_10k b
        MATCH_CONDITION(a.ts > b.ts) ON a.symbol = b.symbol
        """,
        """
        SELECT a.symbol, a.seq, b.seq AS other, b.price FROM trades_10k a ASOF JOIN trades_10k b
        ON a.symbol = b.symbol AND a.ts > b.ts
        """,
        tables=("trades_10k",),
        # Of two rows of one symbol in one millisecond either may be the last.
        compare="SELECT symbol, seq FROM result",
    ),
    Query(
        "rows_window",
        """
        SELECT symbol, price, avg(price) OVER (ROWS WINDOW BUFFER 100 ROWS PARTITION BY symbol) AS moving
        FROM trades_200
        """,
        """
        SELECT symbol, price, avg(price) OVER (PARTITION BY symbol ORDER BY seq
               ROWS BETWEEN 99 PRECEDING AND CURRENT ROW) AS moving FROM trades_200
        """,
        tables=("trades_200",),
    ),
    Query(
        "tumble_every_record",
        """
        SELECT symbol, window_start, count(*) AS n, sum(price) AS total FROM trades_200
        WINDOW TUMBLING(ts, INTERVAL '1' MINUTE) GROUP BY symbol EMIT CHANGES
        """,
        """
        SELECT symbol, w AS window_start,
               count(*) OVER (PARTITION BY symbol, w ORDER BY seq) AS n,
               sum(price) OVER (PARTITION BY symbol, w ORDER BY seq) AS total
        FROM (SELECT *, time_bucket(INTERVAL 1 MINUTE, ts) AS w FROM trades_200)
        """,
        tables=("trades_200",),
    ),
]

ONE_BRC = Query(
    "1brc",
    "SELECT station, min(temp) AS low, avg(temp) AS mean, max(temp) AS high FROM measurements GROUP BY station",
    "SELECT station, min(temp) AS low, avg(temp) AS mean, max(temp) AS high FROM measurements GROUP BY station",
    tables=("measurements",),
    updating=True,
)
