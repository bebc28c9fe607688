-- Market surveillance over two feeds: four views of the same trades, each with its own window.
-- Run it with   millrace run examples/fraud/fraud.sql --set DATA=out/fraud --set OUT=out/fraud
-- after         python examples/fraud/make_data.py out/fraud

CREATE SOURCE trades (
  trade_id BIGINT NOT NULL,
  symbol STRING NOT NULL,
  account STRING NOT NULL,
  side STRING NOT NULL,
  price DECIMAL(12, 2) NOT NULL,
  volume BIGINT NOT NULL,
  ts TIMESTAMP(3) NOT NULL,
  WATERMARK FOR ts AS ts - INTERVAL '2' SECOND
) FROM FILE (path = '${DATA}/trades.csv') FORMAT CSV;

CREATE SOURCE orders (
  order_id BIGINT NOT NULL,
  symbol STRING NOT NULL,
  account STRING NOT NULL,
  side STRING NOT NULL,
  price DECIMAL(12, 2) NOT NULL,
  quantity BIGINT NOT NULL,
  ts TIMESTAMP(3) NOT NULL,
  WATERMARK FOR ts AS ts - INTERVAL '2' SECOND
) FROM FILE (path = '${DATA}/orders.csv') FORMAT CSV;

-- How much is usual: the last 10 minutes of each symbol, every minute.
CREATE STREAM volume_baseline AS
SELECT symbol, window_end, count(*) AS trades, sum(volume) AS volume, avg(price) AS average_price
FROM TABLE(HOP(TABLE trades, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '10' MINUTE))
GROUP BY symbol, window_start, window_end;

-- Bars of one minute.
CREATE TABLE ohlc AS
SELECT symbol, window_start, first_value(price) AS open, max(price) AS high, min(price) AS low,
       last_value(price) AS close, sum(volume) AS volume
FROM TABLE(TUMBLE(TABLE trades, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
GROUP BY symbol, window_start, window_end;

-- Bursts: one account trading without a pause of two seconds, unusually often.
CREATE TABLE bursts AS
SELECT account, window_start, window_end, count(*) AS trades, sum(volume) AS volume,
       count(DISTINCT symbol) AS symbols
FROM TABLE(SESSION(TABLE trades PARTITION BY account, DESCRIPTOR(ts), INTERVAL '2' SECOND))
GROUP BY account, window_start, window_end
HAVING count(*) >= 25;

-- Wash trades: an account that sells itself what it buys, within five minutes.
CREATE TABLE wash_trades AS
SELECT account, symbol, window_start, bought, sold,
       least(bought, sold)::DOUBLE / greatest(bought, sold) AS score
FROM (
  SELECT account, symbol, window_start,
         sum(CASE WHEN side = 'buy' THEN volume ELSE 0 END) AS bought,
         sum(CASE WHEN side = 'sell' THEN volume ELSE 0 END) AS sold,
         count(*) AS trades
  FROM TABLE(TUMBLE(TABLE trades, DESCRIPTOR(ts), INTERVAL '5' MINUTE))
  GROUP BY account, symbol, window_start, window_end
)
WHERE trades >= 20 AND least(bought, sold) > 0.9 * greatest(bought, sold);

-- Order flow: bought and sold interest by symbol and minute.
CREATE TABLE order_flow AS
SELECT symbol, window_start, sum(quantity) FILTER (WHERE side = 'buy') AS buy_interest,
       sum(quantity) FILTER (WHERE side = 'sell') AS sell_interest
FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
GROUP BY symbol, window_start, window_end;

CREATE SINK baseline_out FROM volume_baseline INTO FILE (path = '${OUT}/volume_baseline') FORMAT PARQUET;
CREATE SINK ohlc_out FROM ohlc INTO FILE (path = '${OUT}/ohlc') FORMAT CSV;
CREATE SINK bursts_out FROM bursts INTO FILE (path = '${OUT}/bursts') FORMAT JSON;
CREATE SINK wash_out FROM wash_trades INTO FILE (path = '${OUT}/wash_trades') FORMAT JSON;

-- Trades that follow an order of the same account within two seconds: orders that may have moved the market for them.
CREATE STREAM ordered_trades AS
SELECT t.account, t.symbol, t.trade_id, o.order_id, t.ts, t.volume, o.quantity
FROM trades AS t JOIN orders AS o
  ON t.account = o.account AND t.symbol = o.symbol
  AND o.ts BETWEEN t.ts - INTERVAL '2' SECOND AND t.ts;

-- Each trade beside the latest order in its symbol: how far the price paid was from the price last asked.
CREATE STREAM slippage AS
SELECT t.trade_id, t.symbol, t.price, o.price AS order_price, t.price - o.price AS difference, t.ts
FROM trades AS t ASOF JOIN orders AS o MATCH_CONDITION (t.ts >= o.ts) ON t.symbol = o.symbol;

CREATE SINK ordered_out FROM ordered_trades INTO FILE (path = '${OUT}/ordered_trades') FORMAT JSON;
CREATE SINK slippage_out FROM slippage INTO FILE (path = '${OUT}/slippage') FORMAT PARQUET;
