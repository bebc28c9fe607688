"""Matches as output rows: measures are computed of the rows that they lead to. Finds no match."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from millrace.operators.aggregates.accumulators import AccumulatorSet, Outcome
from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.aggregates.families import build_set
from millrace.operators.batch import Int64Array
from millrace.operators.expressions.evaluate import columns_of, compile_expressions
from millrace.operators.expressions.tree import moved
from millrace.operators.functions.row_error import RowError
from millrace.operators.match_recognize.cells import Matches, Target
from millrace.operators.match_recognize.specs import (
    FactKind,
    Leaf,
    MatchFact,
    MatchRecognize,
    Navigation,
    PatternAggregate,
)
from millrace.state.row_store import RowStore

WRONG_RESULT = "MR2020"
Bools = npt.NDArray[np.bool_]
KeysOf = Callable[[npt.NDArray[np.integer]], list[pa.Array]]


class Measures:
    """Turns matches into rows of the spec's output. `payload` is the schema of the rows to be stored, which are the
    input's columns `columns`."""

    def __init__(self, spec: MatchRecognize) -> None:
        self._spec = spec
        self._schema = spec.output_schema
        leaves = spec.measure_leaves
        used = {i for leaf in leaves for value in _values(leaf) for i in columns_of(spec.values[value])}
        used |= {*spec.lead, *spec.rest} if spec.all_rows else set()
        self.columns = sorted(used) or [spec.time]
        self.payload = pa.schema([spec.input.field(c).with_name(f"c{c}") for c in self.columns])
        places = {column: at for at, column in enumerate(self.columns)}
        self._values = {v: moved(spec.values[v], places) for leaf in leaves for v in _values(leaf)}
        self.targets: list[Target] = []
        for leaf in leaves:
            reached = _target(leaf)
            if reached is not None and reached not in self.targets:
                self.targets.append(reached)
        self._wanted = [self._values_at(target) for target in self.targets]
        self._reads = [self._program(wanted) for wanted in self._wanted]
        fields = [pa.field(f"l{i}", leaf.type) for i, leaf in enumerate(leaves)]
        self._leaf_schema = pa.schema(fields)
        self._measure = compile_expressions(spec.measures, self._leaf_schema)
        self._tallies = [_Tally(self, final=final) for final in (True, False)]
        last = any(isinstance(f, MatchFact) and f.kind is FactKind.CLASSIFIER and f.final for f in leaves)
        self.members = any(tally.calls for tally in self._tallies) or (last and spec.all_rows)
        self._names = pa.array(spec.variables, pa.string())

    def _values_at(self, target: Target) -> list[int]:
        """The expressions that are read of the rows of a target."""
        leaves = [leaf for leaf in self._spec.measure_leaves if _target(leaf) == target]
        return list(dict.fromkeys(leaf.value for leaf in leaves if isinstance(leaf, Navigation)))

    def _program(self, wanted: Sequence[int]) -> Callable[[pa.RecordBatch], Sequence[pa.Array]]:
        return compile_expressions([self._values[value] for value in wanted], self.payload)

    def rows(
        self, found: Matches, chosen: Int64Array, store: RowStore, keys_of: KeysOf
    ) -> tuple[pa.RecordBatch, Bools | None]:
        """Output rows for the entries `chosen`, and which of them have an aggregate out of its range.

        Raises RowError, with `rows` among the chosen, where a measure does not compute.
        """
        leaves = self._leaves(found, chosen, store)
        wrong = None
        columns: list[pa.Array] = []
        for outcome in leaves:
            columns.append(outcome.values)
            if outcome.wrong is not None and outcome.wrong.any():
                wrong = outcome.wrong if wrong is None else wrong | outcome.wrong
        count = len(chosen)
        batch = (
            pa.RecordBatch.from_arrays(columns, schema=self._leaf_schema)
            if columns
            else pa.RecordBatch.from_struct_array(pa.array([{}] * count, pa.struct([])))
        )
        measured = list(self._measure(batch))
        spec = self._spec
        if not spec.all_rows:
            lead, rest = keys_of(found.slots[found.match[chosen]]), []
        else:
            shown = store.gather(found.rows[chosen])
            lead = [shown.column(self.columns.index(column)) for column in spec.lead]
            rest = [shown.column(self.columns.index(column)) for column in spec.rest]
        return pa.RecordBatch.from_arrays([*lead, *measured, *rest], schema=self._schema), wrong

    def _leaves(self, found: Matches, chosen: Int64Array, store: RowStore) -> list[Outcome]:
        """The value of each leaf for each of the chosen entries."""
        read: dict[tuple[Target, int], pa.Array] = {}
        for at, (target, wanted) in enumerate(zip(self.targets, self._wanted, strict=True)):
            arrays = self._read(found.targets[chosen, at], self._reads[at], store)
            read |= {(target, value): array for value, array in zip(wanted, arrays, strict=True)}
        tallied: dict[PatternAggregate, Outcome] = {}
        for tally in self._tallies:
            tallied |= tally.outcomes(found, chosen, store)
        out: list[Outcome] = []
        for leaf in self._spec.measure_leaves:
            match leaf:
                case Navigation():
                    reached = _target(leaf)
                    assert reached is not None
                    out.append(Outcome(read[(reached, leaf.value)]))
                case PatternAggregate():
                    out.append(tallied[leaf])
                case MatchFact(kind=FactKind.NUMBER):
                    out.append(Outcome(pa.array(found.numbers[found.match[chosen]])))
                case MatchFact():
                    variables = found.variables[chosen]
                    if leaf.final and self._spec.all_rows:
                        ends = np.searchsorted(found.member_match, found.match[chosen], side="right") - 1
                        variables = found.member_variables[ends]
                    out.append(Outcome(self._names.take(pa.array(variables))))
        return out

    def _read(
        self, rows: Int64Array, program: Callable[[pa.RecordBatch], Sequence[pa.Array]], store: RowStore
    ) -> list[pa.Array]:
        """Values of rows, NULL for those that are -1."""
        there = rows >= 0
        every = bool(there.all())
        try:
            arrays = list(program(store.gather(rows if every else rows[there])))
        except RowError as error:
            bad = np.zeros(len(rows), np.bool_)
            bad[np.flatnonzero(there)[error.rows]] = True
            raise RowError(error.code, error.reason, bad) from error
        if every:
            return arrays
        at = pa.array(np.cumsum(there) - 1, mask=~there)
        return [array.take(at) for array in arrays]

    def arguments(self, values: Sequence[int]) -> Callable[[pa.RecordBatch], Sequence[pa.Array]]:
        """A program for the arguments of aggregates."""
        return self._program(values)

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """What measures read."""
        return self._spec.measure_leaves

    @property
    def all_rows(self) -> bool:
        """Whether every row of a match is shown."""
        return self._spec.all_rows

    def value_type(self, value: int) -> pa.DataType:
        """The type of an expression."""
        return self._values[value].type


class _Tally:
    """Computes aggregates of the whole match (`final`), or of the match up to each row."""

    def __init__(self, measures: Measures, *, final: bool) -> None:
        self._running = not final
        self.calls: list[PatternAggregate] = []
        for leaf in measures.leaves:
            if isinstance(leaf, PatternAggregate) and (leaf.final or not measures.all_rows) == final:
                self.calls += [] if leaf in self.calls else [leaf]
        values = list(dict.fromkeys(value for leaf in self.calls for value in leaf.arguments))
        self._held = list(dict.fromkeys(leaf.variables for leaf in self.calls))
        fields = [pa.field(f"v{v}", measures.value_type(v)) for v in values]
        fields += [pa.field(f"h{i}", pa.bool_()) for i in range(len(self._held))]
        self._schema = pa.schema(fields)
        calls = [
            AggregateCall(
                leaf.function,
                tuple(values.index(value) for value in leaf.arguments),
                leaf.type,
                leaf.distinct,
                None if not leaf.variables else len(values) + self._held.index(leaf.variables),
            )
            for leaf in self.calls
        ]
        self._set: AccumulatorSet | None = build_set(calls, self._schema, retracting=False) if calls else None
        self._program = measures.arguments(values)
        self._width = len(values)
        self._sequence = 0

    def outcomes(
        self, found: Matches, chosen: Int64Array, store: RowStore
    ) -> dict[PatternAggregate, Outcome]:
        """The value of each aggregate for each of the chosen entries."""
        if self._set is None or not len(chosen):
            none = [Outcome(pa.nulls(0, leaf.type)) for leaf in self.calls]
            return dict(zip(self.calls, none, strict=True))
        members = np.arange(len(found.member_rows))
        if len(chosen) < len(found.match):
            members = np.flatnonzero(np.isin(found.member_match, found.match[chosen]))
        arrays = self._arguments(found, chosen, members, store) if self._width else []
        labels = found.member_variables[members]
        for variables in self._held:
            arrays.append(pa.array(np.isin(labels, variables or labels)))
        rows = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        slots = found.member_match[members].astype(np.int32)
        every = np.arange(len(found.slots), dtype=np.int32)
        self._set.grow(len(every))
        if self._running:
            outcomes = self._set.running(slots, rows, None, self._sequence)
            at = np.searchsorted(members, found.member[chosen])
        else:
            self._set.update(slots, rows, None, self._sequence)
            outcomes = self._set.results(every)
            at = found.match[chosen]
        self._sequence += rows.num_rows
        self._set.reset(every)
        return {leaf: _taken(outcome, at) for leaf, outcome in zip(self.calls, outcomes, strict=True)}

    def _arguments(
        self, found: Matches, chosen: Int64Array, members: Int64Array, store: RowStore
    ) -> list[pa.Array]:
        try:
            return list(self._program(store.gather(found.member_rows[members])))
        except RowError as error:
            bad = np.isin(found.match[chosen], found.member_match[members[error.rows]])
            raise RowError(error.code, error.reason, bad) from error


def _taken(outcome: Outcome, at: Int64Array) -> Outcome:
    wrong = None if outcome.wrong is None else outcome.wrong[at]
    return Outcome(outcome.values.take(pa.array(at)), wrong)


def _values(leaf: Leaf) -> tuple[int, ...]:
    match leaf:
        case Navigation():
            return (leaf.value,)
        case PatternAggregate():
            return leaf.arguments
        case MatchFact():
            return ()


def _target(leaf: Leaf) -> Target | None:
    if not isinstance(leaf, Navigation):
        return None
    return Target(leaf.variables, leaf.first, leaf.offset, leaf.shift, leaf.final)
