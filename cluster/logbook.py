"""The last log lines of a process, kept in memory so that whoever asks can read on from where it was. Writes no file."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass

LINES_KEPT = 2_000
LINES_A_REPORT = 200
"""What a partition hands its coordinator at a time."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """`number` rises, also from one process of a role to the next; `at` is in s since the epoch; `who` is a role such as partition-3."""

    number: int
    at: float
    level: str
    who: str
    text: str


class Logbook(logging.Handler):
    """Takes what this process logs from level INFO on, and lines of other processes."""

    def __init__(self, who: str, kept: int = LINES_KEPT) -> None:
        super().__init__(logging.INFO)
        self.who = who
        self._lines: deque[LogLine] = deque(maxlen=kept)
        self._next = time.time_ns() // 1_000
        self._guard = threading.Lock()

    def install(self) -> Logbook:
        """Listen to everything that is logged in this process."""
        root = logging.getLogger()
        root.addHandler(self)
        logging.getLogger("millrace").setLevel(logging.INFO)
        return self

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line of this process."""
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self._add(record.created, record.levelname, self.who, text)

    def take(self, lines: tuple[LogLine, ...]) -> None:
        """Take lines of another process, in its order."""
        for line in lines:
            self._add(line.at, line.level, line.who, line.text)

    def after(self, number: int, most: int | None = None) -> tuple[LogLine, ...]:
        """Lines above `number`, oldest first; the first `most` of them."""
        with self._guard:
            found = [line for line in self._lines if line.number > number]
        return tuple(found if most is None else found[:most])

    def _add(self, at: float, level: str, who: str, text: str) -> None:
        with self._guard:
            self._lines.append(LogLine(self._next, at, level, who, text))
            self._next += 1


def shown(line: LogLine) -> str:
    """A line for people, in UTC."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(line.at))
    return f"{moment}.{int(line.at % 1 * 1000):03} {line.level:<7} {line.who}: {line.text}"
