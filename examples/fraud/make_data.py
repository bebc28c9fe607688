"""Makes a trading day's feeds, trades and orders, with a few accounts that misbehave. Seeded: always the same."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

SYMBOLS = ["ACME", "BOLT", "CRUX", "DUNE", "ECHO", "FERN", "GLOW", "HALO", "IRIS", "JADE", "KITE", "LUMA"]
ACCOUNTS = 400
DAY = np.datetime64("2026-03-02T09:30:00", "ms")
OPEN_MS = int(6.5 * 3_600_000)
TRADES = 400_000
ORDERS = 200_000
BURSTS = 12
WASHES = 8


def main(folder: Path) -> None:
    """Write trades.csv and orders.csv into `folder`, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    trades, orders = folder / "trades.csv", folder / "orders.csv"
    if trades.exists() and orders.exists():
        return
    rng = np.random.default_rng(7)
    pa.csv.write_csv(make_trades(rng), trades)
    pa.csv.write_csv(make_orders(rng), orders)


def make_trades(rng: np.random.Generator) -> pa.Table:
    """Trades in the order they were reported: up to two seconds late, most of the action early and late in the day."""
    at = OPEN_MS * rng.beta(0.7, 0.7, TRADES)
    symbol = rng.zipf(1.3, TRADES) % len(SYMBOLS)
    account = rng.integers(0, ACCOUNTS, TRADES)
    side = rng.integers(0, 2, TRADES)
    volume = np.maximum(1, rng.lognormal(4, 1, TRADES)).astype(np.int64)
    for burst in range(BURSTS):
        rows = rng.choice(TRADES, rng.integers(30, 120), replace=False)
        at[rows] = OPEN_MS * rng.random() + np.sort(rng.uniform(0, 600, len(rows))).cumsum() / 4
        account[rows] = burst
    for wash in range(WASHES):
        rows = rng.choice(TRADES, 60, replace=False)
        at[rows] = OPEN_MS * (wash + 0.5) / WASHES + rng.uniform(0, 120_000, len(rows))
        account[rows], symbol[rows] = ACCOUNTS - 1 - wash, wash % len(SYMBOLS)
        side[rows] = np.arange(len(rows)) % 2
        volume[rows] = 500
    order = np.argsort(at + rng.uniform(0, 2_000, TRADES), kind="stable")
    return table("trade_id", order, at, symbol, account, side, prices(rng, at, symbol), "volume", volume)


def make_orders(rng: np.random.Generator) -> pa.Table:
    """Orders, spread over the day like the trades."""
    at = OPEN_MS * rng.beta(0.7, 0.7, ORDERS)
    symbol = rng.zipf(1.3, ORDERS) % len(SYMBOLS)
    order = np.argsort(at + rng.uniform(0, 2_000, ORDERS), kind="stable")
    account, side = rng.integers(0, ACCOUNTS, ORDERS), rng.integers(0, 2, ORDERS)
    quantity = np.maximum(1, rng.lognormal(4.5, 1, ORDERS)).astype(np.int64)
    return table("order_id", order, at, symbol, account, side, prices(rng, at, symbol), "quantity", quantity)


def prices(rng: np.random.Generator, at: np.ndarray, symbol: np.ndarray) -> np.ndarray:
    """A wandering price a symbol, with a little noise a trade."""
    base = 20.0 * 1.6 ** np.arange(len(SYMBOLS))
    minutes = (at / 60_000).astype(np.int64)
    walk = np.exp(np.cumsum(rng.normal(0, 0.0012, (len(SYMBOLS), OPEN_MS // 60_000 + 2)), axis=1))
    return np.round(base[symbol] * walk[symbol, minutes] * rng.normal(1, 0.0004, len(at)), 2)


def table(
    key: str,
    order: np.ndarray,
    at: np.ndarray,
    symbol: np.ndarray,
    account: np.ndarray,
    side: np.ndarray,
    price: np.ndarray,
    amount_name: str,
    amount: np.ndarray,
) -> pa.Table:
    """The columns of a feed, rows in `order`."""
    accounts = pa.array([f"A{number:04d}" for number in range(ACCOUNTS)])
    return pa.table(
        {
            key: np.arange(1, len(order) + 1),
            "symbol": pa.array(SYMBOLS).take(pa.array(symbol[order])),
            "account": accounts.take(pa.array(account[order])),
            "side": pa.array(["buy", "sell"]).take(pa.array(side[order])),
            "price": price[order],
            amount_name: amount[order],
            "ts": pa.array(DAY + at[order].astype(np.int64).astype("timedelta64[ms]")),
        }
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
