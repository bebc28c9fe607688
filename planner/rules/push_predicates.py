"""Filters go down to where their columns come from, as far as the answer stays the same."""

from __future__ import annotations

from dataclasses import replace

from millrace.operators.expressions.evaluate import is_deterministic
from millrace.operators.expressions.tree import Expression
from millrace.planner.expressions import columns_of, conjunction, conjuncts, remap, substitute
from millrace.planner.framing import Over, OverChanges, RowBuffer
from millrace.planner.join_conditions import may_filter, narrowed
from millrace.planner.logical import (
    Aggregate,
    AssignWindow,
    Filter,
    Join,
    Project,
    Relation,
    Repeated,
    Union,
    WindowedAggregate,
)
from millrace.planner.row_patterns import MatchRows
from millrace.planner.rules.traversal import top_down
from millrace.planner.table_functions import Expansion
from millrace.planner.timed_joins import TimedJoin


def push_predicates(relation: Relation) -> Relation:
    """Each conjunct below projections, unions, window assignment and, on keys, aggregates and OVER partitions.

    A filter stays above an aggregate without keys, which has a row even where nothing passes, and above a windowed
    one: there rows that are filtered out still let windows close and count as late.
    """
    return top_down(relation, _push)


def _push(node: Relation) -> Relation:
    if not isinstance(node, Filter):
        return node
    below = node.input
    match below:
        case Filter():
            both = [*conjuncts(below.predicate), *conjuncts(node.predicate)]
            return _push(Filter(below.input, conjunction(both)))
        case Project():
            if any(not is_deterministic(below.expressions[c]) for c in columns_of([node.predicate])):
                return node
            inner = _push(Filter(below.input, substitute(node.predicate, below.expressions)))
            return replace(below, input=inner)
        case Union():
            return Union(tuple(_push(Filter(part, node.predicate)) for part in below.parts))
        case AssignWindow():
            width = len(below.input.schema)
            if below.partition:
                return _split(node, below, set(below.partition), {c: c for c in below.partition})
            return _split(node, below, set(range(width)), {c: c for c in range(width)})
        case Aggregate() if below.keys:
            places = dict(enumerate(below.keys))
            return _split(node, below, set(places), places)
        case WindowedAggregate():
            places = dict(enumerate(below.keys))
            return _split(node, below, set(places), places)
        case TimedJoin():
            return _into_sides(node, below)
        case Join():
            return _into_join(node, below)
        case MatchRows():
            places = dict(enumerate(below.spec.keys))
            return _split(node, below, set(places), places)
        case Repeated():
            places = {c: c for c in range(len(below.schema))}
            return _split(node, below, set(places), places)
        case Expansion():
            of_input = {i: c for i, c in enumerate(below.kept) if c < len(below.input.schema)}
            return _split(node, below, set(of_input), of_input)
        case Over() | OverChanges() | RowBuffer():
            return _split(node, below, set(below.partition), {c: c for c in below.partition})
    return node


def _into_sides(node: Filter, below: TimedJoin) -> Relation:
    """Conditions on one side only go there, where rows of that side alone decide whether a row comes out."""
    width = len(below.left.schema)
    to_left = below.kind in ("inner", "left", "semi", "anti")
    to_right = below.kind in ("inner", "right") and below.form.right_is_set
    sides: tuple[list[Expression], list[Expression]] = ([], [])
    stay: list[Expression] = []
    for part in conjuncts(node.predicate):
        read = columns_of([part])
        if not read or not is_deterministic(part):
            stay.append(part)
        elif max(read) < width and to_left:
            sides[0].append(part)
        elif min(read) >= width and to_right:
            sides[1].append(remap(part, {c: c - width for c in read}))
        else:
            stay.append(part)
    if not sides[0] and not sides[1]:
        return node
    inputs = [
        _push(Filter(side, conjunction(parts))) if parts else side
        for side, parts in zip(below.inputs, sides, strict=True)
    ]
    moved = below.with_inputs(*inputs)
    return Filter(moved, conjunction(stay)) if stay else moved


def _into_join(node: Filter, join: Join) -> Relation:
    """Conditions become the join's own where it has pairs only, else they go to the side that is kept whole."""
    parts = [part for part in conjuncts(node.predicate) if columns_of([part]) and is_deterministic(part)]
    width = len(join.left.schema)
    match join.kind:
        case "inner" | "cross":
            down = parts
        case "left" | "semi" | "anti":
            down = [
                p for p in parts if max(columns_of([p])) < width and may_filter(join.left, columns_of([p]))
            ]
        case "right":
            down = [p for p in parts if min(columns_of([p])) >= width]
            down = [p for p in down if may_filter(join.right, {c - width for c in columns_of([p])})]
        case _:
            down = []
    if not down:
        return node
    stay = [part for part in conjuncts(node.predicate) if part not in down]
    moved: Relation
    if join.kind in ("inner", "cross"):
        moved = narrowed(join, down)
    elif join.kind == "right":
        lower = [remap(p, {c: c - width for c in columns_of([p])}) for p in down]
        moved = join.with_inputs(join.left, _push(Filter(join.right, conjunction(lower))))
    else:
        moved = join.with_inputs(_push(Filter(join.left, conjunction(down))), join.right)
    return Filter(moved, conjunction(stay)) if stay else moved


def _split(
    node: Filter,
    below: Project
    | AssignWindow
    | Aggregate
    | WindowedAggregate
    | Repeated
    | Over
    | OverChanges
    | RowBuffer
    | Expansion
    | MatchRows,
    allowed: set[int],
    places: dict[int, int],
) -> Relation:
    down: list[Expression] = []
    stay: list[Expression] = []
    for part in conjuncts(node.predicate):
        fits = columns_of([part]) and columns_of([part]) <= allowed and is_deterministic(part)
        (down if fits else stay).append(part)
    if not down:
        return node
    inner = _push(Filter(below.input, conjunction([remap(part, places) for part in down])))
    moved = below.with_inputs(inner)
    return Filter(moved, conjunction(stay)) if stay else moved
