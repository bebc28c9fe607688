"""The relation of MATCH_RECOGNIZE: the matches of a row pattern. Matches nothing itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import pyarrow as pa

from millrace.operators.match_recognize.specs import MatchRecognize
from millrace.operators.sink import Changelog
from millrace.planner.expressions import columns_of, remap
from millrace.planner.logical import Positions, Relation, Unary


@dataclass(frozen=True)
class MatchRows(Unary):
    """Matches of a pattern in the input, as the operator sends them. `spec.input` is the input's schema."""

    spec: MatchRecognize

    @cached_property
    def schema(self) -> pa.Schema:
        return self.spec.output_schema

    @property
    def event_time(self) -> int | None:
        return self.spec.event_time

    @property
    def changelog(self) -> Changelog:
        return Changelog.APPEND

    @property
    def key(self) -> Positions | None:
        return None

    @property
    def bounds(self) -> tuple[int | None, int | None]:
        return (None, None)

    @property
    def window_last(self) -> int | None:
        return None

    @property
    def reads(self) -> set[int]:
        """Columns of the input that it needs; all where rows are shown whole."""
        spec = self.spec
        if spec.all_rows:
            return set(range(len(spec.input)))
        return {*spec.keys, spec.time, *(column for column, _, _ in spec.order), *columns_of(spec.values)}

    def over(self, below: Relation, places: dict[int, int]) -> MatchRows:
        """The same over an input whose columns are at other places."""
        spec = self.spec
        moved = replace(
            spec,
            input=below.schema,
            keys=tuple(places[key] for key in spec.keys),
            time=places[spec.time],
            order=tuple((places[column], descending, first) for column, descending, first in spec.order),
            values=tuple(remap(value, places) for value in spec.values),
            time_unit=below.time_unit,
        )
        return replace(self, input=below, spec=moved)
