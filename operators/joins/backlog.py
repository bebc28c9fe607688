"""Rows of a side that have not been put in order: cheap to keep, searched whole. Knows no kind of join.

Where the other side asks seldom and for little, to look through all rows once costs a tenth of keeping them in order.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.batch import END_OF_TIME
from millrace.operators.joins.timeline import Timeline
from millrace.state.key_index import KeyIndex
from millrace.state.words import Int64s

SCANS_MAX = 8
"""How often a row is looked through before it is put in order."""
ROWS_PER_ASKED = 16
"""How many rows wait at least for each that asks, or they are put in order first."""
ROWS_MAX = 262_144
"""How many rows wait at most: to look through them takes a few ms."""

Bools = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Piece:
    """Rows of one batch: their numbers in the store, keys, ticks, and whether each was matched."""

    numbers: Int64s
    keys: list[pa.Array]
    ticks: Int64s
    matched: Bools | None
    low: int
    high: int
    scans: int = 0

    def part(self, stays: Bools) -> Piece:
        """Some of its rows."""
        chosen = pa.array(stays)
        ticks = self.ticks[stays]
        return Piece(
            self.numbers[stays],
            [key.filter(chosen) for key in self.keys],
            ticks,
            None if self.matched is None else self.matched[stays],
            int(ticks.min()),
            int(ticks.max()),
            self.scans,
        )


class Asked:
    """Rows that ask, by key and time: the smaller side of a search through a backlog."""

    def __init__(self, keys: list[pa.Array], ticks: Int64s) -> None:
        self._index = KeyIndex([key.type for key in keys], min(1024, len(ticks)))
        slots = self._index.upsert(keys, len(ticks)).slots
        self._timeline = Timeline()
        self._timeline.insert(slots, ticks, np.arange(len(ticks)), None)
        self.low, self.high = int(ticks.min()), int(ticks.max())

    def pairs(self, piece: Piece, lower: int, upper: int, chunk: int) -> list[tuple[Int64s, Int64s]]:
        """(row that asks, row of the piece) where the former's tick is from `lower` to `upper` after the latter's."""
        slots = self._index.lookup(piece.keys, len(piece.ticks))
        hits = np.flatnonzero(slots >= 0)
        if not len(hits):
            return []
        begins, counts = self._timeline.ranges(
            np.ascontiguousarray(slots[hits]), piece.ticks[hits], lower, upper
        )
        found = []
        for first, last in chunks(counts, chunk):
            rows, _, asking = self._timeline.expand(first, last, begins, counts)
            found.append((asking, hits[rows]))
        return found


class Backlog:
    """Owns the pieces of one side."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.rows = 0

    @property
    def nbytes(self) -> int:
        """Bytes held, without keys, which the store mostly has too."""
        return sum(piece.numbers.nbytes + piece.ticks.nbytes for piece in self.pieces)

    def add(self, numbers: Int64s, keys: list[pa.Array], ticks: Int64s, matched: Bools | None) -> None:
        """Keep rows."""
        self.pieces.append(Piece(numbers, keys, ticks, matched, int(ticks.min()), int(ticks.max())))
        self.rows += len(ticks)

    def take_first(self) -> Piece:
        """The oldest piece, which is no longer here."""
        piece = self.pieces.pop(0)
        self.rows -= len(piece.ticks)
        return piece

    def worn(self) -> bool:
        """Whether the oldest piece was looked through too often."""
        return bool(self.pieces) and self.pieces[0].scans >= SCANS_MAX

    def expire(self, before: int, *, exact: bool) -> list[Piece]:
        """Pieces whose ticks are all below `before`; where it is to be `exact`, single rows too."""
        over: list[Piece] = []
        left: list[Piece] = []
        for piece in self.pieces:
            if piece.high < before or before == END_OF_TIME:
                over.append(piece)
            elif exact and piece.low < before:
                stays = piece.ticks >= before
                over.append(piece.part(~stays))
                left.append(piece.part(stays))
            else:
                left.append(piece)
        if over:
            self.pieces = left
            self.rows = sum(len(piece.ticks) for piece in left)
        return over


def chunks(counts: Int64s, size: int) -> list[tuple[int, int]]:
    """Ranges of rows, cut where their counts add up to `size` or little more."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    if total <= size:
        return [(0, len(counts))] if total else []
    cuts = np.searchsorted(ends, np.arange(size, total, size), side="left") + 1
    bounds = np.unique(np.concatenate([[0], cuts, [len(counts)]])).tolist()
    return list(itertools.pairwise(bounds))
