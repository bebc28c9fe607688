"""What was or is to be told of groups: their values, and which of them changed. Knows no state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from millrace.operators.aggregates.accumulators import Outcome
from millrace.operators.aggregates.columns import Bools
from millrace.operators.batch import Int64Array


@dataclass(frozen=True, slots=True)
class Told:
    """The values of the calls, one array a call, for a number of groups; `wrong` marks groups that have none."""

    rows: int
    values: list[pa.Array]
    wrong: Bools | None

    @classmethod
    def of(cls, rows: int, outcomes: Sequence[Outcome]) -> Told:
        """From the outcome of each call."""
        wrong = None
        for outcome in outcomes:
            if outcome.wrong is not None:
                wrong = outcome.wrong if wrong is None else wrong | outcome.wrong
        return cls(rows, [outcome.values for outcome in outcomes], wrong)

    def filter(self, keep: Bools | None) -> Told:
        """The groups where `keep` holds (None: all)."""
        if keep is None:
            return self
        mask = pa.array(keep)
        wrong = None if self.wrong is None else self.wrong[keep]
        return Told(int(np.count_nonzero(keep)), [v.filter(mask) for v in self.values], wrong)

    def take(self, rows: Int64Array) -> Told:
        """The groups at these positions."""
        picked = pa.array(rows)
        wrong = None if self.wrong is None else self.wrong[rows]
        return Told(len(rows), [v.take(picked) for v in self.values], wrong)


def joined(parts: Sequence[Told], types: Sequence[pa.DataType]) -> Told:
    """One behind the other."""
    rows = sum(part.rows for part in parts)
    values = [
        pa.concat_arrays([part.values[i] for part in parts]) if parts else pa.array([], kind)
        for i, kind in enumerate(types)
    ]
    wrong = None
    if any(part.wrong is not None for part in parts):
        wrong = np.concatenate([np.zeros(p.rows, np.bool_) if p.wrong is None else p.wrong for p in parts])
    return Told(rows, values, wrong)


def same(old: Told, new: Told) -> Bools:
    """Group by group, whether all values are equal (NULL equals NULL; nested values never do)."""
    equal = np.ones(old.rows, np.bool_)
    for wrong in (old.wrong, new.wrong):
        if wrong is not None:
            equal &= ~wrong
    for a, b in zip(old.values, new.values, strict=True):
        if pt.is_nested(a.type):
            return np.zeros(old.rows, np.bool_)
        alike = pc.equal(a, b)
        if alike.null_count:
            nulls = pc.and_(pc.is_null(a), pc.is_null(b))
            alike = pc.if_else(pc.is_null(alike), nulls, alike)
        equal &= np.asarray(alike)
        if not equal.any():
            break
    return equal
