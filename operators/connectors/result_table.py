"""The rows that a changelog leaves, by key, in the order in which their keys came. Draws nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

Texts = tuple[str, ...]
KEYS_KEPT = 10_000


class ResultTable:
    """Rows of text under the changes applied. Of more than KEYS_KEPT keys those changed last are kept."""

    def __init__(self, key: Sequence[int], upsert: bool) -> None:
        """`key` are the positions of the key columns, none for the whole row. With `upsert` a row replaces
        that of its key; otherwise +1 adds it and −1 takes an equal one back."""
        self._key = tuple(key)
        self._upsert = upsert
        self._rows: dict[Texts, dict[Texts, int]] = {}
        self._changed: dict[Texts, None] = {}

    def apply(self, rows: Sequence[Texts], weights: Sequence[int]) -> None:
        """Take in changes in order; a row's place stays when it is taken back and comes again at once."""
        emptied: dict[Texts, None] = {}
        for row, weight in zip(rows, weights, strict=True):
            key = tuple(row[i] for i in self._key) if self._key else row
            held = self._rows.setdefault(key, {})
            if self._upsert:
                held.clear()
                if weight > 0:
                    held[row] = 1
            else:
                held[row] = held.get(row, 0) + weight
                if not held[row]:
                    del held[row]
            self._changed.pop(key, None)
            self._changed[key] = None
            if not held:
                emptied[key] = None
        for key in emptied:
            if not self._rows[key]:
                self._forget(key)
        for key in list(islice(self._changed, max(0, len(self._changed) - KEYS_KEPT))):
            self._forget(key)

    @property
    def count(self) -> int:
        """How many rows there are."""
        return sum(weight for held in self._rows.values() for weight in held.values() if weight > 0)

    def latest(self, limit: int) -> list[Texts]:
        """All rows where there are no more than `limit` keys, else those of the keys changed last; in order."""
        chosen = set(islice(reversed(self._changed), limit))
        keys = self._rows if len(chosen) == len(self._rows) else [key for key in self._rows if key in chosen]
        rows = [row for key in keys for row, weight in self._rows[key].items() for _ in range(weight)]
        return rows[:limit]

    def _forget(self, key: Texts) -> None:
        del self._rows[key]
        self._changed.pop(key, None)
