"""The spec of MATCH_RECOGNIZE, and what its conditions and measures are made of. Runs nothing itself."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from millrace.errors import Invalid
from millrace.operators.expressions.tree import Expression
from millrace.operators.match_recognize.automaton import build_automaton
from millrace.operators.match_recognize.pattern import Pattern
from millrace.operators.operator import Context, Operator
from millrace.operators.spec import OperatorSpec, serialisable

Variables = tuple[int, ...]
"""Places among the pattern's variables; () stands for all of them: any row of the match."""


@serialisable
@dataclass(frozen=True, slots=True)
class Navigation:
    """A value of another row: the first or last row of `variables` in the match so far, `offset` of these rows
    further in, then `shift` rows on (or back) in the partition. `value` is a place among the spec's expressions.

    NULL where there is no such row. `final`: of the whole match, not of the match up to the row in question.
    """

    variables: Variables
    first: bool
    offset: int
    shift: int
    value: int
    type: pa.DataType
    final: bool = True


@serialisable
@dataclass(frozen=True, slots=True)
class PatternAggregate:
    """An aggregate over the rows of `variables` in the match so far, or (`final`) in the whole match.

    `arguments` are places among the spec's expressions; none is count(*).
    """

    function: str
    variables: Variables
    arguments: tuple[int, ...]
    type: pa.DataType
    distinct: bool = False
    final: bool = True


@serialisable
class FactKind(enum.Enum):
    """What a match can say of itself."""

    NUMBER = "match_number"
    CLASSIFIER = "classifier"


@serialisable
@dataclass(frozen=True, slots=True)
class MatchFact:
    """MATCH_NUMBER() or CLASSIFIER()."""

    kind: FactKind
    type: pa.DataType
    final: bool = True


Leaf = Navigation | PatternAggregate | MatchFact
"""What a condition or measure reads: column i of these expressions is leaf i."""


@serialisable
class SkipKind(enum.Enum):
    """Where the search goes on after a match."""

    PAST_LAST_ROW = "past last row"
    TO_NEXT_ROW = "to next row"
    TO_FIRST = "to first"
    TO_LAST = "to last"


@serialisable
@dataclass(frozen=True, slots=True)
class Skip:
    """`variables` belong to TO_FIRST and TO_LAST."""

    kind: SkipKind = SkipKind.PAST_LAST_ROW
    variables: Variables = ()


@dataclass(frozen=True, slots=True)
class MatchRecognize(OperatorSpec):
    """Matches of a row pattern in an append-only input, by key; sends rows append-only.

    Rows are held until the watermark is above column `time` (a timestamp, or an integer counting `time_unit`s),
    then taken in its order, then by `order` (column, descending, nulls first), then as they came; late rows go to
    `context.late`. A match is sent once no row to come can change it.

    `conditions` (one a variable, None: always true) read `condition_leaves`, `measures` read `measure_leaves`;
    both kinds of leaves take values of rows from `values`, expressions over the input. The output is the keys and
    the measures; with `all_rows` the keys, the order columns, the measures and the rest of the input, for every row
    of the match that no exclusion hides. `within` µs: a match's last row comes less than that after its first.
    """

    title: ClassVar[str] = "MatchRecognize"

    input: pa.Schema
    keys: tuple[int, ...]
    time: int
    order: tuple[tuple[int, bool, bool], ...]
    pattern: Pattern
    variables: tuple[str, ...]
    conditions: tuple[Expression | None, ...]
    condition_leaves: tuple[Leaf, ...]
    measures: tuple[Expression, ...]
    measure_leaves: tuple[Leaf, ...]
    names: tuple[str, ...]
    values: tuple[Expression, ...]
    skip: Skip = Skip()
    all_rows: bool = False
    within: int | None = None
    event_time: int | None = None
    """The output column that the watermark speaks of: one of the times of a match's rows."""
    time_unit: str = "ms"

    def __post_init__(self) -> None:
        assert len(self.conditions) == len(self.variables)
        automaton = build_automaton(self.pattern, self.variables)
        skip, avoided = self.skip, frozenset(self.skip.variables)
        if skip.kind not in (SkipKind.TO_FIRST, SkipKind.TO_LAST):
            return
        name = " or ".join(self.variables[v] for v in skip.variables)
        if automaton.reaches_end(0, avoided):
            raise Invalid(
                f"AFTER MATCH SKIP {skip.kind.value.upper()} {name}: the pattern can match without a row of {name}",
                code="MR1351",
                hint="let the pattern need the variable, or SKIP PAST LAST ROW",
            )
        firsts = [way for way in automaton.ways[0] if automaton.variables[way] in avoided]
        if skip.kind is SkipKind.TO_LAST:
            firsts = [way for way in firsts if automaton.reaches_end(way, avoided)]
        if firsts:
            raise Invalid(
                f"AFTER MATCH SKIP {skip.kind.value.upper()} {name} can lead back to the match's first row, without end",
                code="MR1352",
                hint="skip to a variable that can not be the first, or SKIP TO NEXT ROW",
            )

    @property
    def lead(self) -> tuple[int, ...]:
        """Input columns that stand before the measures."""
        if not self.all_rows:
            return self.keys
        return tuple(dict.fromkeys((*self.keys, self.time, *(column for column, _, _ in self.order))))

    @property
    def rest(self) -> tuple[int, ...]:
        """Input columns that stand behind the measures."""
        if not self.all_rows:
            return ()
        return tuple(i for i in range(len(self.input)) if i not in self.lead)

    @property
    def output_schema(self) -> pa.Schema:
        fields = [self.input.field(column) for column in self.lead]
        fields += [pa.field(n, m.type) for n, m in zip(self.names, self.measures, strict=True)]
        return pa.schema([*fields, *(self.input.field(column) for column in self.rest)])

    @property
    def rows_back(self) -> int:
        """How many rows before a match its conditions and measures look at."""
        return max([0, *(-leaf.shift for leaf in self._navigations)])

    @property
    def numbered(self) -> bool:
        """Whether matches are counted for ever."""
        return any(
            isinstance(leaf, MatchFact) and leaf.kind is FactKind.NUMBER for leaf in self.measure_leaves
        )

    @property
    def state(self) -> str:
        """What is remembered, for people."""
        bound = "" if self.within is None else f" (for {self.within / 1e6:g} s at most)"
        kept = ["rows above the watermark", f"rows that an open match needs{bound}"]
        if self.rows_back:
            kept.append(f"the last {self.rows_back} row{'s' * (self.rows_back > 1)} of each key")
        if self.numbered:
            kept.append("the number of matches of each key, kept for ever")
        return ", ".join(kept)

    @property
    def _navigations(self) -> list[Navigation]:
        leaves = (*self.condition_leaves, *self.measure_leaves)
        return [leaf for leaf in leaves if isinstance(leaf, Navigation)]

    def build(self, context: Context) -> Operator:
        from millrace.operators.match_recognize.operator import (
            MatchOperator,  # deferred: kernels import numba
        )

        return MatchOperator(self, context)  # pyright: ignore[reportArgumentType]

    def details(self) -> dict[str, str]:
        order = [self.input.field(self.time).name]
        order += [
            self.input.field(column).name + " DESC" * descending for column, descending, _ in self.order
        ]
        skip = self.skip.kind.value
        if self.skip.variables:
            skip += f" {' or '.join(self.variables[v] for v in self.skip.variables)}"
        defined = [n for n, c in zip(self.variables, self.conditions, strict=True) if c is not None]
        return {
            "partition": ", ".join(self.input.field(k).name for k in self.keys) or "none",
            "order": ", ".join(order),
            "pattern": str(self.pattern),
            "defined": ", ".join(defined) or "none",
            "measures": ", ".join(self.names) or "none",
            "rows per match": "all" if self.all_rows else "one",
            "after match": f"skip {skip}",
            **({} if self.within is None else {"within": f"{self.within / 1e6:g} s"}),
            "emit": "when no row to come can change the match",
        }
