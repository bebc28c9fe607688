"""Text blocks that are redrawn in place on a terminal, one below the other. Knows nothing of what they show.

The cursor rests at the start of the line below the last block, where a progress line of somebody else may stand.
"""

from __future__ import annotations

import threading
from typing import TextIO
from weakref import WeakKeyDictionary


class Screen:
    """The blocks of one stream, by their owners, in the order in which they first came."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._blocks: dict[object, str] = {}
        self._open: set[object] = set()
        self._lines = 0

    def draw(self, owner: object, block: str) -> None:
        """Put `block` (whole lines) in the place of the one that `owner` drew before."""
        with self._lock:
            self._blocks[owner] = block
            self._open.add(owner)
            back = f"\r\x1b[{self._lines}A\x1b[J" if self._lines else "\r\x1b[K"
            text = "".join(self._blocks.values())
            self._stream.write(back + text)
            self._stream.flush()
            self._lines = text.count("\n")

    def release(self, owner: object) -> None:
        """`owner` draws no more. Its block stays; when all have ended, what follows is written below."""
        with self._lock:
            self._open.discard(owner)
            if not self._open:
                self._blocks.clear()
                self._lines = 0


_screens: WeakKeyDictionary[TextIO, Screen] = WeakKeyDictionary()


def screen(stream: TextIO) -> Screen:
    """The screen of this stream in this process."""
    return _screens.setdefault(stream, Screen(stream))
