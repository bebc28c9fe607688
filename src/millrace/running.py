"""`millrace run`: a SQL file to the end of its input, with progress. Prints to standard error only."""

from __future__ import annotations

import datetime
import signal
import sys
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from types import FrameType
from typing import TYPE_CHECKING, Self

from millrace.database import Database
from millrace.operators.batch import END_OF_TIME, START_OF_TIME
from millrace.planner.annotations import job_defaults
from millrace.planner.session import Planner
from millrace.planner.statements import SetVariable
from millrace.settings import FROM_THE_START, Settings

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from millrace.cluster.embedded import Progress

INTERRUPTED = 130
SHOW_EVERY_S = 0.2

_REMEMBERED = ("state_rows", "state_bytes", "matches", "expired", "retractions")


def run_file(
    text: str,
    settings: dict[str, str],
    variables: dict[str, str],
    *,
    quiet: bool,
    metrics_port: int | None = None,
) -> int:
    """Run statements and wait for the end of their input; answers the exit code.

    Ctrl-C ends the job in good order: what was read goes through and is published. A second one kills it.
    With `metrics_port` Prometheus can read metrics there as long as it runs.
    """
    interrupted = threading.Event()
    former = signal.signal(signal.SIGINT, lambda number, frame: _interrupt(interrupted, number, frame))
    database = Database(Settings().with_values({**_opening(text, variables), **settings}))
    try:
        if not database.holds(text, variables):
            answer = database.execute(text, variables)
            if len(answer.columns) and answer.columns != ["status"]:
                sys.stdout.write(f"{answer!r}\n")
        with _exposed(database, metrics_port), _Display(enabled=not quiet) as display:
            while not database.finished and not interrupted.wait(SHOW_EVERY_S):
                database.wait(0)
                display.show(database.progress())
        database.close()
        progress = database.progress()
    finally:
        signal.signal(signal.SIGINT, former)
        database.close()
    if not quiet:
        _summarise(progress, database)
    return INTERRUPTED if interrupted.is_set() else 0


def _opening(text: str, variables: dict[str, str]) -> dict[str, str]:
    """What annotations and `SET` say in the file about how the database is opened."""
    statements = Planner(variables=variables).parse(text)
    found = [s for s in statements if isinstance(s, SetVariable)]
    opening = {s.name: s.value for s in found if s.name in FROM_THE_START and s.value is not None}
    return {**job_defaults(statements, text).settings, **opening}


def _exposed(database: Database, port: int | None) -> AbstractContextManager[object]:
    if port is None:
        return nullcontext()
    from millrace.exposition import Exposition  # deferred: most runs serve no metrics

    return Exposition(database, port)


def _interrupt(interrupted: threading.Event, number: int, frame: FrameType | None) -> None:
    if interrupted.is_set():
        signal.default_int_handler(number, frame)
    interrupted.set()


def _summarise(progress: Progress, database: Database) -> None:
    rate = progress.rows_in / max(progress.elapsed_s, 1e-9)
    parts = [
        f"{progress.rows_in:,} rows in",
        f"{progress.rows_out:,} rows out",
        f"{progress.elapsed_s:.2f} s",
        f"{rate:,.0f} rows/s",
    ]
    if progress.late_rows:
        parts.append(f"{progress.late_rows:,} late")
    if progress.dead_rows:
        parts.append(f"{progress.dead_rows:,} did not decode or compute")
    sys.stderr.write(" · ".join(parts) + "\n" + _remembered(database))
    for row in database.dead_letters().rows()[:3]:
        payload = row["payload"]
        text = payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""
        sys.stderr.write(
            f"  {row['node']} {row['split']} {row['position']}: {row['reason']} [{row['code']}] {text[:100]}\n"
        )


def _remembered(database: Database) -> str:
    """A line on what joins and rankings keep and have done, where there are such."""
    metrics = database.metrics().arrow
    sums = {name: sum(n or 0 for n in metrics.column(name).to_pylist()) for name in _REMEMBERED}
    if not any(sums.values()):
        return ""
    parts = [f"{sums['state_rows']:,} rows of state in {sums['state_bytes'] / 1e6:,.1f} MB"]
    parts += [f"{sums[name]:,} {name}" for name in _REMEMBERED[2:] if sums[name]]
    return "  " + " · ".join(parts) + "\n"


class _Display:
    """One live line on a terminal; nothing elsewhere."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled and sys.stderr.isatty()
        self._bar: Bar | None = None
        self._last = (time.monotonic(), 0)

    def __enter__(self) -> Self:
        if self._enabled:
            from rich.console import Console
            from rich.progress import Progress as Bar
            from rich.progress import SpinnerColumn, TextColumn

            self._bar = Bar(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._bar.add_task("compiling kernels (once per machine) …", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, progress: Progress) -> None:
        """Bring the line up to date."""
        if self._bar is None or not progress.rows_in:
            return
        now = time.monotonic()
        then, rows = self._last
        rate = (progress.rows_in - rows) / max(now - then, 1e-9)
        self._last = (now, progress.rows_in)
        text = f"{progress.rows_in:,} rows in · {rate:,.0f} rows/s · {progress.rows_out:,} out · {_watermark(progress)}"
        self._bar.update(self._bar.task_ids[0], description=text)


def _watermark(progress: Progress) -> str:
    if progress.watermark in (START_OF_TIME, END_OF_TIME):
        return "no watermark"
    moment = datetime.datetime.fromtimestamp(progress.watermark / 1e6, datetime.UTC)
    lag = time.time() - progress.watermark / 1e6
    return f"watermark {moment:%Y-%m-%d %H:%M:%S}" + (f" (lag {lag:,.0f} s)" if lag < 86_400 else "")
