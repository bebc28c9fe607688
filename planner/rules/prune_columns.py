"""Columns that nobody reads are dropped, down to what a source decodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from millrace.operators.aggregates.calls import AggregateCall
from millrace.operators.sink import Changelog
from millrace.operators.source import SourceInput
from millrace.planner.expressions import column, columns_of, remap
from millrace.planner.framing import Over, OverChanges, RowBuffer
from millrace.planner.logical import (
    Aggregate,
    AssignWindow,
    BadRecords,
    Filter,
    Join,
    LateInput,
    MovingFilter,
    Project,
    Read,
    Relation,
    Repeated,
    Rows,
    Scan,
    Union,
    WindowedAggregate,
)
from millrace.planner.normalized import Normalized
from millrace.planner.ranking import Ranking, SortKey, TopN
from millrace.planner.row_patterns import MatchRows
from millrace.planner.table_functions import Expansion
from millrace.planner.table_lookup import TableLookup
from millrace.planner.timed_joins import LateSides, TimedJoin

Kept = Mapping[SourceInput, tuple[int, ...]]
"""Columns that a source has anyway, because of other queries."""
Pruned = tuple[Relation, dict[int, int]]
"""A relation with fewer columns, and where each of the wanted ones is in it."""


def prune_columns(relation: Relation, kept: Kept | None = None) -> Relation:
    """The same columns at the top, no more than needed below; scans of sources in `kept` have just those columns."""
    width = len(relation.schema)
    pruned, places = _prune(relation, set(range(width)), kept or {})
    if [places[i] for i in range(width)] == list(range(len(pruned.schema))):
        return pruned
    names = tuple(relation.schema.names)
    return Project(pruned, tuple(column(pruned.schema, places[i]) for i in range(width)), names)


def _prune(node: Relation, wanted: set[int], have: Kept) -> Pruned:
    match node:
        case Scan():
            kept = sorted(wanted)
            columns = tuple(node.columns[i] for i in kept)
            fixed = have.get(node.input, columns)
            return replace(node, columns=fixed), {
                i: fixed.index(c) for i, c in zip(kept, columns, strict=True)
            }
        case Project():
            return _project(node, wanted, have)
        case Filter():
            return _filter(node, wanted, have)
        case Normalized():
            below, places = _prune(node.input, wanted | set(node.key or ()), have)
            return replace(node, input=below), places
        case MovingFilter():
            needed = wanted | {node.time} | set(node.key or ())
            below, places = _prune(node.input, needed, have)
            return replace(node, input=below, time=places[node.time]), places
        case AssignWindow():
            return _assign(node, wanted, have)
        case Aggregate():
            return _aggregate(node, wanted, have)
        case WindowedAggregate():
            return _windowed(node, wanted, have)
        case Over() | OverChanges() | RowBuffer():
            return _over(node, wanted, have)
        case MatchRows():
            return _matched(node, have)
        case Ranking() | TopN():
            return _ranking(node, wanted, have)
        case Union():
            return _union(node, wanted, have)
        case Join() | TableLookup():
            return _join(node, wanted, have)
        case TimedJoin():
            return _timed_join(node, wanted, have)
        case Expansion():
            return _expansion(node, wanted, have)
        case LateInput():
            below, _ = _prune(node.input, set(range(len(node.input.schema))), have)
            assert isinstance(below, WindowedAggregate)
            names = below.input.schema.names
            return replace(node, input=below), {i: names.index(n) for i, n in enumerate(node.schema.names)}
        case LateSides():
            below, _ = _prune(node.input, set(range(len(node.input.schema))), have)
            assert isinstance(below, TimedJoin)
            return replace(node, input=below), {i: i for i in range(len(node.schema))}
        case BadRecords():
            below, _ = _prune(node.input, set(range(len(node.input.schema))), have)
            assert isinstance(below, Scan)
            return replace(node, input=below), {i: i for i in range(len(node.schema))}
        case Repeated():
            below, _ = _prune(node.input, set(range(len(node.input.schema))), have)
            return replace(node, input=below), {i: i for i in range(len(node.schema))}
        case Read() | Rows():
            pass
    return node, {i: i for i in range(len(node.schema))}


def _places(kept: Iterable[int]) -> dict[int, int]:
    return {c: at for at, c in enumerate(kept)}


def _filter(node: Filter, wanted: set[int], have: Kept) -> Pruned:
    """Columns that only the condition reads end here."""
    below, places = _prune(node.input, wanted | columns_of([node.predicate]), have)
    moved = replace(node, input=below, predicate=remap(node.predicate, places))
    if len(wanted) == len(below.schema):
        return moved, places
    kept = sorted(wanted, key=lambda i: places[i])
    names = tuple(below.schema.names[places[i]] for i in kept)
    return Project(moved, tuple(column(below.schema, places[i]) for i in kept), names), _places(kept)


def _project(node: Project, wanted: set[int], have: Kept) -> Pruned:
    kept = sorted(wanted | ({node.window_time} if node.window_time in wanted else set()))
    values = [node.expressions[i] for i in kept]
    below, places = _prune(node.input, columns_of(values), have)
    time = None if node.window_time is None or node.window_time not in kept else kept.index(node.window_time)
    moved = tuple(remap(v, places) for v in values)
    return Project(below, moved, tuple(node.names[i] for i in kept), time), _places(kept)


def _assign(node: AssignWindow, wanted: set[int], have: Kept) -> Pruned:
    width = len(node.input.schema)
    needed = {i for i in wanted if i < width} | set(node.partition)
    if node.time is not None:
        needed.add(node.time)
    below, places = _prune(node.input, needed, have)
    moved = replace(
        node,
        input=below,
        time=None if node.time is None else places[node.time],
        partition=tuple(places[p] for p in node.partition),
    )
    after = len(below.schema)
    return moved, {**places, **{width + i: after + i for i in range(3)}}


def _call_columns(calls: Iterable[AggregateCall]) -> set[int]:
    found: set[int] = set()
    for call in calls:
        found.update(call.arguments)
        found.update(place for place, _, _ in call.order_by)
        if call.filter is not None:
            found.add(call.filter)
    return found


def _move_call(call: AggregateCall, places: dict[int, int]) -> AggregateCall:
    return replace(
        call,
        arguments=tuple(places[a] for a in call.arguments),
        filter=None if call.filter is None else places[call.filter],
        order_by=tuple((places[p], descending, first) for p, descending, first in call.order_by),
    )


def _kept_calls(
    node: Aggregate | WindowedAggregate | Over | OverChanges | RowBuffer, first: int, wanted: set[int]
) -> list[int]:
    """Which calls to keep. One always stays where the others would leave a mere DISTINCT behind."""
    kept = [i for i in range(len(node.calls)) if first + i in wanted]
    aggregates = isinstance(node, Aggregate | WindowedAggregate)
    return kept or ([0] if aggregates and node.calls else [])


def _aggregate(node: Aggregate, wanted: set[int], have: Kept) -> Pruned:
    first = len(node.keys)
    kept = _kept_calls(node, first, wanted)
    calls = [node.calls[i] for i in kept]
    below, places = _prune(node.input, set(node.keys) | _call_columns(calls), have)
    moved = replace(
        node,
        input=below,
        keys=tuple(places[k] for k in node.keys),
        calls=tuple(_move_call(c, places) for c in calls),
        names=(*node.names[:first], *(node.names[first + i] for i in kept)),
    )
    return moved, {**{i: i for i in range(first)}, **{first + i: first + at for at, i in enumerate(kept)}}


def _windowed(node: WindowedAggregate, wanted: set[int], have: Kept) -> Pruned:
    width = len(node.keys)
    bounds = sum(node.with_bounds)
    first = width + bounds
    kept = _kept_calls(node, first, wanted)
    calls = [node.calls[i] for i in kept]
    needed = set(node.keys) | _call_columns(calls) | (set() if node.time is None else {node.time})
    if node.late_table is not None:  # late rows are shown whole
        needed = set(range(len(node.input.schema)))
    below, places = _prune(node.input, needed, have)
    flags = list(node.with_bounds)
    changing = node.changelog is not Changelog.APPEND
    order = [i for i, flag in enumerate(node.with_bounds) if flag]
    for at, which in enumerate(order):
        # The end carries the event time on; with changes both are part of the key.
        if width + at not in wanted and not changing and which == 0:
            flags[which] = False
    kept_bounds = [width + at for at, which in enumerate(order) if flags[which]]
    moved = replace(
        node,
        input=below,
        time=None if node.time is None else places[node.time],
        keys=tuple(places[k] for k in node.keys),
        calls=tuple(_move_call(c, places) for c in calls),
        names=(
            *node.names[:width],
            *(node.names[b] for b in kept_bounds),
            *(node.names[first + i] for i in kept),
        ),
        with_bounds=(flags[0], flags[1]),
    )
    mapping = {i: i for i in range(width)}
    mapping |= {b: width + at for at, b in enumerate(kept_bounds)}
    mapping |= {first + i: width + len(kept_bounds) + at for at, i in enumerate(kept)}
    return moved, mapping


def _over(node: Over | OverChanges | RowBuffer, wanted: set[int], have: Kept) -> Pruned:
    width = len(node.input.schema)
    kept = [i for i in range(len(node.calls)) if width + i in wanted]
    if not kept and not (isinstance(node, RowBuffer) and node.emission.value == "buffer_full"):
        return _prune(node.input, wanted, have)
    calls = [node.calls[i] for i in kept]
    needed = {i for i in wanted if i < width} | set(node.partition) | _call_columns(calls)
    if isinstance(node, Over) and node.order is not None:
        needed.add(node.order)
    if isinstance(node, OverChanges):
        needed |= {key.column for key in node.order} | set(node.input.key or ())
    if isinstance(node, RowBuffer) and node.expire_after is not None and node.event_time is not None:
        needed.add(node.event_time)
    below, places = _prune(node.input, needed, have)
    moved = replace(
        node,
        input=below,
        partition=tuple(places[p] for p in node.partition),
        calls=tuple(_move_call(c, places) for c in calls),
        names=tuple(node.names[i] for i in kept),
    )
    if isinstance(moved, Over) and moved.order is not None:
        moved = replace(moved, order=places[moved.order])
    if isinstance(moved, OverChanges):
        order = tuple(SortKey(places[k.column], k.descending, k.nulls_first) for k in moved.order)
        moved = replace(moved, order=order)
    after = len(below.schema)
    return moved, {**places, **{width + i: after + at for at, i in enumerate(kept)}}


def _matched(node: MatchRows, have: Kept) -> Pruned:
    below, places = _prune(node.input, node.reads, have)
    if node.spec.all_rows and not below.schema.equals(
        node.input.schema
    ):  # rows are shown whole: no more, no less
        schema = node.input.schema
        shown = tuple(column(below.schema, places[i]) for i in range(len(schema)))
        below, places = Project(below, shown, tuple(schema.names)), _places(range(len(schema)))
    return node.over(below, places), {i: i for i in range(len(node.schema))}


def _ranking(node: Ranking | TopN, wanted: set[int], have: Kept) -> Pruned:
    width = len(node.input.schema)
    ranked = width in wanted
    if isinstance(node, Ranking) and not ranked:
        return _prune(node.input, wanted, have)
    needed = {i for i in wanted if i < width} | set(node.partition) | {k.column for k in node.order}
    if node.input.changelog is Changelog.UPSERT:
        needed |= set(node.input.key or ())
    below, places = _prune(node.input, needed, have)
    order = tuple(SortKey(places[k.column], k.descending, k.nulls_first) for k in node.order)
    moved = replace(node, input=below, partition=tuple(places[p] for p in node.partition), order=order)
    if isinstance(moved, TopN) and not ranked:
        moved = replace(moved, rank_name=None)
    return moved, {**places, **({width: len(below.schema)} if ranked else {})}


def _union(node: Union, wanted: set[int], have: Kept) -> Pruned:
    kept = sorted(wanted)
    parts: list[Relation] = []
    for part in node.parts:
        below, places = _prune(part, wanted, have)
        order = [places[i] for i in kept]
        if order == list(range(len(below.schema))):
            parts.append(below)
        else:
            names = tuple(below.schema.names[i] for i in order)
            parts.append(Project(below, tuple(column(below.schema, i) for i in order), names))
    return Union(tuple(parts)), _places(kept)


def _join(node: Join | TableLookup, wanted: set[int], have: Kept) -> Pruned:
    """Each side keeps one column at least: rows without columns can not be counted."""
    width = len(node.left.schema)
    needed = wanted | (set() if node.condition is None else columns_of([node.condition]))
    pairs = (*node.equal, *node.null_equal)
    of_left = {i for i in needed if i < width} | {a for a, _ in pairs} | _identity(node.left)
    of_right = {i - width for i in needed if i >= width} | {b for _, b in pairs} | _identity(node.right)
    left, at_left = _prune(node.left, of_left or {0}, have)
    right, at_right = _prune(node.right, of_right or {0}, have)
    after = len(left.schema)
    places = {**at_left, **{width + i: after + at for i, at in at_right.items()}}
    moved = replace(
        node,
        left=left,
        right=right,
        equal=tuple((at_left[a], at_right[b]) for a, b in node.equal),
        null_equal=tuple((at_left[a], at_right[b]) for a, b in node.null_equal),
        condition=None if node.condition is None else remap(node.condition, places),
    )
    return moved, places


def _timed_join(node: TimedJoin, wanted: set[int], have: Kept) -> Pruned:
    width = len(node.left.schema)
    if node.late_table is not None:  # late rows are shown whole
        wanted = set(range(width + len(node.right.schema)))
    needed = wanted | (set() if node.condition is None else columns_of([node.condition]))
    at_form = node.form.columns
    in_left = {i for i in needed if i < width} | {a for a, _ in node.equal} | at_form[0]
    in_right = {i - width for i in needed if i >= width} | {b for _, b in node.equal} | at_form[1]
    left, at_left = _prune(node.left, in_left, have)
    right, at_right = _prune(node.right, in_right, have)
    after = len(left.schema)
    places = {**at_left, **{width + i: after + at for i, at in at_right.items()}}
    moved = replace(
        node,
        left=left,
        right=right,
        equal=tuple((at_left[a], at_right[b]) for a, b in node.equal),
        form=node.form.moved(at_left, at_right),
        condition=None if node.condition is None else remap(node.condition, places),
    )
    return moved, places


def _expansion(node: Expansion, wanted: set[int], have: Kept) -> Pruned:
    """One column stays at least: rows without columns can not be counted."""
    width, all_columns = len(node.input.schema), node.kept
    chosen = sorted(all_columns[i] for i in wanted) or [width]
    read = columns_of(node.arguments)
    also = set() if node.condition is None else {c for c in columns_of([node.condition]) if c < width}
    below, places = _prune(node.input, {c for c in chosen if c < width} | read | also, have)
    after = len(below.schema)
    new = len(node.made) + int(node.ordinality)
    at = {**places, **{width + i: after + i for i in range(new)}}
    moved = replace(
        node,
        input=below,
        arguments=tuple(remap(a, places) for a in node.arguments),
        condition=None if node.condition is None else remap(node.condition, at),
        outputs=tuple(at[c] for c in chosen),
    )
    return moved, {i: chosen.index(all_columns[i]) for i in wanted}


def _identity(side: Relation) -> set[int]:
    """The columns by which a join finds rows that are taken back."""
    return set() if side.changelog is Changelog.APPEND else set(side.key or ())
