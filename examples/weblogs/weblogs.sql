-- Visits of a web site, from its access log: sessions of thirty minutes, and the busiest pages by hour.
-- Run it with   millrace run examples/weblogs/weblogs.sql --set DATA=out/weblogs
-- after         python examples/weblogs/make_data.py out/weblogs

CREATE SOURCE requests (
  ts TIMESTAMP(3) NOT NULL,
  ip STRING NOT NULL,
  method STRING,
  url STRING,
  status INT,
  bytes BIGINT,
  WATERMARK FOR ts AS ts - INTERVAL '10' SECOND
) FROM FILE (path = '${DATA}/access.jsonl', bad_rows = 'unreadable') FORMAT JSON;

CREATE STREAM visits AS
SELECT ip, window_start AS began, window_end AS ended, count(*) AS requests, sum(bytes) AS bytes,
       first_value(url) AS entered_by, last_value(url) AS left_by,
       count(*) FILTER (WHERE status >= 400) AS failures
FROM TABLE(SESSION(TABLE requests PARTITION BY ip, DESCRIPTOR(ts), INTERVAL '30' MINUTE))
GROUP BY ip, window_start, window_end;

CREATE STREAM pages AS
SELECT window_start AS hour, split_part(url, '?', 1) AS page, count(*) AS hits,
       approx_count_distinct(ip) AS visitors, avg(bytes) AS mean_bytes
FROM TABLE(TUMBLE(TABLE requests, DESCRIPTOR(ts), INTERVAL '1' HOUR))
WHERE status = 200
GROUP BY window_start, window_end, split_part(url, '?', 1);

CREATE SINK visits_out FROM visits INTO FILE (path = '${DATA}/visits') FORMAT PARQUET;
CREATE SINK pages_out FROM pages INTO FILE (path = '${DATA}/pages') FORMAT CSV;
