"""GROUP BY: keys, windows, grouping sets and the calls over them. Binds no select list."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
from sqlglot import exp

from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.expressions.tree import Call, Cast, Column, Expression, Literal
from millrace.planner.binder.calls import BOUNDS, FIRST_BOUND, FIRST_GROUPING, FIRST_OVER, PendingCall
from millrace.planner.binder.correlation import OUTER
from millrace.planner.binder.errors import invalid
from millrace.planner.binder.windows import Emitting
from millrace.planner.expressions import column, rewrite
from millrace.planner.logical import Aggregate, Project, Relation, Union
from millrace.planner.window_time import window_time_of


@dataclass(frozen=True, slots=True)
class Grouped:
    """An aggregated relation, and where keys, calls and window bounds are in it."""

    relation: Relation
    keys: dict[Expression, int]
    first_call: int
    first_grouping: int
    bounds: tuple[int | None, int | None]

    def resolve(self, expression: Expression, node: object) -> Expression:
        """An expression over the block's input as one over the groups. Raises Invalid MR1120."""

        def change(e: Expression) -> Expression | None:
            if isinstance(e, Column) and e.index < 0:
                return self._stand_in(e, node)
            if e in self.keys:
                return column(self.relation.schema, self.keys[e])
            if isinstance(e, Column) and e.index >= OUTER:
                return e
            if isinstance(e, Column):
                raise invalid(
                    node,
                    "MR1120",
                    f"column {e.name} is neither grouped nor inside an aggregate",
                    f"add {e.name} to GROUP BY, or take max({e.name})",
                )
            return None

        return rewrite(expression, change)

    def _stand_in(self, e: Column, node: object) -> Expression:
        if e.index > -FIRST_OVER:
            return column(self.relation.schema, self.first_call - e.index - 1)
        if e.index <= -FIRST_BOUND:
            return resolve_bound(e, self.relation, self.bounds, node)
        at = -FIRST_GROUPING - e.index
        if 0 <= at < len(self.relation.schema) - self.first_grouping:
            return column(self.relation.schema, self.first_grouping + at)
        return e


def resolve_bound(
    e: Column, relation: Relation, bounds: tuple[int | None, int | None], node: object
) -> Expression:
    """A window bound's stand-in as an expression over `relation`."""
    bound = BOUNDS[-FIRST_BOUND - e.index]
    place = bounds[0] if bound == "start" else bounds[1]
    if bound == "struct":
        if None in bounds:
            raise invalid(
                node, "MR1128", "the window's bounds are no columns here", "add them to the inner query"
            )
        start, end = (column(relation.schema, at) for at in bounds if at is not None)
        pair = pa.struct([pa.field("f0", start.type), pa.field("f1", end.type)])
        return Cast(Call("row", (start, end), pair), e.type)
    if place is None:
        raise invalid(
            node, "MR1128", f"the window's {bound} is not a column here", "add it to the inner query"
        )
    found = column(relation.schema, place)
    return window_time_of(found, relation.time_unit) if bound == "time" else found


def place_values(relation: Relation, values: Sequence[Expression]) -> tuple[Relation, list[int]]:
    """`relation` with further columns for those of `values` that are no columns, and where each value is."""
    computed = list(dict.fromkeys(v for v in values if not isinstance(v, Column)))
    width = len(relation.schema)
    if computed:
        kept = [column(relation.schema, i) for i in range(width)]
        names = [*relation.schema.names, *(f"_value{width + i}" for i in range(len(computed)))]
        relation = Project(relation, (*kept, *computed), tuple(names))
    return relation, [v.index if isinstance(v, Column) else width + computed.index(v) for v in values]


def place_calls(
    relation: Relation, calls: Sequence[PendingCall], more: Sequence[Expression] = ()
) -> tuple[Relation, tuple[AggregateCall, ...], list[int]]:
    """The calls over positions; `more` are further values wanted as columns, whose places come last."""
    values: list[Expression] = []
    for call in calls:
        values += [
            *call.arguments,
            *([] if call.filter is None else [call.filter]),
            *(v for v, _, _ in call.order),
        ]
    relation, places = place_values(relation, [*values, *more])
    rest = iter(places)
    placed = [
        AggregateCall(
            call.function,
            tuple(next(rest) for _ in call.arguments),
            call.type,
            call.distinct,
            None if call.filter is None else next(rest),
            tuple((next(rest), descending, first) for _, descending, first in call.order),
            call.options,
        )
        for call in calls
    ]
    return relation, tuple(placed), list(rest)


@dataclass(slots=True)
class Grouping:
    """What a block groups by, while it is put together. `sets` None: one plain GROUP BY."""

    keys: list[Expression] = field(default_factory=list)
    sets: list[tuple[int, ...]] | None = None

    def add(self, key: Expression) -> int:
        """The place of a key, added where it is new."""
        if key not in self.keys:
            self.keys.append(key)
        return self.keys.index(key)


def group(
    relation: Relation,
    grouping: Grouping,
    calls: Sequence[PendingCall],
    emitting: Emitting,
    titles: dict[Expression, str],
    call_titles: Sequence[str],
    groupings: Sequence[tuple[tuple[Expression, ...], object]] = (),
) -> Grouped:
    """Aggregate `relation`. `titles` names keys as the select list does, `call_titles` the calls.

    Behind keys and calls stands one column for each of `groupings`, the arguments of GROUPING (…).
    """
    below, placed, key_places = place_calls(relation, calls, grouping.keys)
    names = tuple(
        [
            titles.get(k) or (k.name if isinstance(k, Column) else f"_key{i}")
            for i, k in enumerate(grouping.keys)
        ]
    )
    named = distinct_names([*names, *call_titles])
    names, call_names = named[: len(names)], named[len(names) :]
    asked = [_grouped_places(arguments, grouping.keys, node) for arguments, node in groupings]
    parts = [
        _with_groupings(
            _part(below, tuple(key_places), grouping.keys, subset, placed, names, call_names, emitting),
            asked,
            subset,
        )
        for subset in (grouping.sets or [tuple(range(len(grouping.keys)))])
    ]
    whole = parts[0] if len(parts) == 1 else Union(tuple(parts))
    places = {key: at for at, key in enumerate(grouping.keys)}
    start, end = below.bounds
    at = {place: i for i, place in enumerate(key_places)}
    bounds = (None if start is None else at.get(start), None if end is None else at.get(end))
    return Grouped(whole, places, len(grouping.keys), len(grouping.keys) + len(placed), bounds)


def _grouped_places(
    arguments: Sequence[Expression], keys: Sequence[Expression], node: object
) -> tuple[int, ...]:
    """The places among the keys of what GROUPING speaks of. Raises Invalid MR1143."""
    for argument in arguments:
        if argument not in keys:
            raise invalid(
                node, "MR1143", "an argument of GROUPING is not grouped by", "name values of GROUP BY"
            )
    return tuple(keys.index(argument) for argument in arguments)


def _with_groupings(part: Relation, asked: Sequence[tuple[int, ...]], subset: Sequence[int]) -> Relation:
    """The groups of one set with, for each GROUPING, the bits of the keys that are not in the set, the last lowest."""
    if not asked:
        return part
    schema = part.schema
    kept = [column(schema, i) for i in range(len(schema))]
    masks = [sum((key not in subset) << bit for bit, key in enumerate(reversed(keys))) for keys in asked]
    names = (*schema.names, *(f"_grouping{i}" for i in range(len(masks))))
    return Project(part, (*kept, *(Literal(mask, pa.int64()) for mask in masks)), names)


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with a number behind those that come again."""
    taken: set[str] = set()
    found: list[str] = []
    for name in names:
        fresh, number = name, 0
        while fresh.casefold() in taken or (number and fresh in names):
            number += 1
            fresh = f"{name}_{number}"
        taken.add(fresh.casefold())
        found.append(fresh)
    return tuple(found)


def _part(
    below: Relation,
    places: tuple[int, ...],
    keys: Sequence[Expression],
    subset: tuple[int, ...],
    calls: tuple[AggregateCall, ...],
    names: tuple[str, ...],
    call_names: tuple[str, ...],
    emitting: Emitting,
) -> Relation:
    chosen = tuple(places[i] for i in subset)
    end = below.bounds[1]
    closes = chosen.index(end) if end is not None and end in chosen else None
    # All rows as one group are a row even where there is none: without a call that would be DISTINCT.
    counted = () if subset or calls else (AggregateCall("count", (), pa.int64()),)
    aggregate = Aggregate(
        below,
        chosen,
        (*calls, *counted),
        (*(names[i] for i in subset), *call_names, *("_rows" for _ in counted)),
        emitting.emission,
        closes,
        emitting.allowed_lateness,
        emitting.late_table,
    )
    if len(subset) == len(keys) and not counted:
        return aggregate
    schema = aggregate.schema
    values: list[Expression] = [
        column(schema, subset.index(i)) if i in subset else Literal(None, key.type)
        for i, key in enumerate(keys)
    ]
    values += [column(schema, len(subset) + i) for i in range(len(calls))]
    return Project(aggregate, tuple(values), (*names, *call_names))


def grouping_sets(node: exp.Group) -> list[list[tuple[exp.Expr, ...]]]:
    """For each GROUPING SETS, CUBE and ROLLUP of the clause, the sets of expressions it stands for."""
    return [_sets_of(e) for e in node.expressions if isinstance(e, exp.Cube | exp.Rollup | exp.GroupingSets)]


def _sets_of(node: exp.Expr) -> list[tuple[exp.Expr, ...]]:
    match node:
        case exp.GroupingSets():
            return [one for item in node.expressions for one in _sets_of(item)]
        case exp.Cube():
            units = [_members(e) for e in node.expressions]
            return [
                tuple(itertools.chain.from_iterable(chosen))
                for size in range(len(units), -1, -1)
                for chosen in itertools.combinations(units, size)
            ]
        case exp.Rollup():
            units = [_members(e) for e in node.expressions]
            return [tuple(itertools.chain.from_iterable(units[:size])) for size in range(len(units), -1, -1)]
    return [_members(node)]


def _members(node: exp.Expr) -> tuple[exp.Expr, ...]:
    if isinstance(node, exp.Tuple):
        return tuple(node.expressions)
    return (node.this,) if isinstance(node, exp.Paren) else (node,)


def cross_sets(
    plain: Sequence[int], sets: Sequence[Sequence[tuple[int, ...]]]
) -> list[tuple[int, ...]] | None:
    """Key places of every set that plain keys and several set lists make together; None without a list."""
    if not sets:
        return None
    combined = [
        tuple(dict.fromkeys([*plain, *itertools.chain.from_iterable(chosen)]))
        for chosen in itertools.product(*sets)
    ]
    return [tuple(sorted(one)) for one in combined]
