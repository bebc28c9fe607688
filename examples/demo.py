"""`make demo`: a trading day under surveillance, read from two CSV feeds, shown as it is computed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

import millrace

HERE = Path(__file__).parent
DATA = HERE.parent / "out" / "fraud"
BARS = "▁▂▃▄▅▆▇█"
MINUTES_SHOWN = 45


def main() -> None:
    """Make the feeds, run the pipeline with a live view, and say where its output is."""
    console = Console()
    console.print("[bold]Millrace[/bold]: market surveillance over two feeds, in streaming SQL")
    subprocess.run([sys.executable, HERE / "fraud" / "make_data.py", DATA], check=True)
    sql = (HERE / "fraud" / "fraud.sql").read_text()
    output = DATA / f"run-{time.strftime('%Y%m%d-%H%M%S')}"
    with millrace.connect(batch_max_rows=8_192) as db:
        with console.status("compiling kernels: once on a machine, then they are cached …"):
            db.execute(sql, {"DATA": str(DATA), "OUT": str(output)})
            while db.progress().rows_in == 0 and not db.wait(0.05):
                pass
        with Live(view(db), console=console, refresh_per_second=10) as live:
            while not db.wait(0.1):
                live.update(view(db))
            live.update(view(db))
        progress = db.progress()
    console.print(
        f"{progress.rows_in:,} rows in, {progress.rows_out:,} rows out, "
        f"{progress.late_rows:,} late, {progress.dead_rows:,} unreadable, {progress.elapsed_s:.1f} s"
    )
    console.print(
        f"The SQL is [cyan]{HERE / 'fraud' / 'fraud.sql'}[/cyan], the output in [cyan]{output}[/cyan]"
    )


def view(db: millrace.Database) -> Group:
    """The screen: bars by symbol, accounts that stand out, and how far the input is read."""
    progress = db.progress()
    line = Text(f"{progress.rows_in:>9,} rows read   {progress.rows_out:>7,} rows published", style="dim")
    return Group(line, prices(db), suspects(db))


def prices(db: millrace.Database) -> Panel:
    """One line a symbol: the last price, the day's change, and its last hour."""
    table = Table.grid(padding=(0, 2))
    by_symbol: dict[str, list[tuple[object, float]]] = {}
    for row in db.query("SELECT symbol, window_start, close::DOUBLE AS close FROM ohlc"):
        by_symbol.setdefault(str(row["symbol"]), []).append((row["window_start"], float(str(row["close"]))))
    for symbol, points in sorted(by_symbol.items()):
        closes = [close for _, close in sorted(points, key=lambda point: str(point[0]))]
        change = closes[-1] / closes[0] - 1
        style = "green" if change >= 0 else "red"
        table.add_row(
            f"[bold]{symbol}[/bold]", f"{closes[-1]:,.2f}", Text(f"{change:+.2%}", style=style), spark(closes)
        )
    return Panel(table, title="one-minute bars", title_align="left", border_style="blue")


def suspects(db: millrace.Database) -> Panel:
    """The longest bursts and the clearest wash trades."""
    table = Table(box=None, pad_edge=False)
    for name in ("what", "account", "when", "evidence"):
        table.add_column(name)
    bursts = db.query("SELECT account, window_start, trades, symbols FROM bursts").rows()
    for row in sorted(bursts, key=lambda r: -int(str(r["trades"])))[:6]:
        evidence = f"{row['trades']} trades in a row, {row['symbols']} symbols"
        table.add_row("[yellow]burst[/yellow]", str(row["account"]), clock(row["window_start"]), evidence)
    washes = db.query("SELECT account, symbol, window_start, bought, sold FROM wash_trades").rows()
    for row in sorted(washes, key=lambda r: str(r["window_start"]))[:6]:
        evidence = f"{row['symbol']}: bought {row['bought']:,}, sold {row['sold']:,}"
        table.add_row("[red]wash trade[/red]", str(row["account"]), clock(row["window_start"]), evidence)
    return Panel(table, title="accounts that stand out", title_align="left", border_style="blue")


def spark(values: list[float]) -> str:
    """A line of block characters."""
    shown = values[-MINUTES_SHOWN:]
    low, high = min(shown), max(shown)
    span = (high - low) or 1.0
    return "".join(BARS[int((value - low) / span * (len(BARS) - 1))] for value in shown)


def clock(moment: object) -> str:
    """The time of day of a timestamp."""
    return str(moment)[11:19]


if __name__ == "__main__":
    main()
