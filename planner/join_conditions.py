"""The condition of a join taken apart: what filters one side, what makes keys, and the rest. Binds no text."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from millrace.errors import Position
from millrace.operators.expressions.evaluate import is_deterministic
from millrace.operators.expressions.tree import Call, Column, Expression, Literal
from millrace.operators.sink import Changelog
from millrace.planner.expressions import column, columns_of, conjunction, conjuncts, remap
from millrace.planner.logical import Filter, Join, Project, Relation

EQUAL = "="
NULL_EQUAL = "is not distinct from"


def joined(
    left: Relation,
    right: Relation,
    kind: str,
    conditions: Sequence[Expression],
    position: Position | None = None,
    ttl: int | None = None,
) -> Relation:
    """The join of two relations where all `conditions` (over the columns of both) hold.

    The columns are those of both, of SEMI and ANTI the left ones.
    """
    width = len(left.schema)
    to_left: list[Expression] = []
    to_right: list[Expression] = []
    equal: list[tuple[Expression, Expression, bool]] = []
    rest: list[Expression] = []
    for part in conditions:
        read = columns_of([part])
        pair = _sides(part, width)
        if isinstance(part, Literal) and part.value is True:
            continue
        if pair is not None:
            equal.append(pair)
        elif (
            read
            and max(read) < width
            and kind in ("inner", "cross", "right", "semi")
            and may_filter(left, read)
        ):
            to_left.append(part)
        elif (
            read
            and min(read) >= width
            and kind in ("inner", "cross", "left", "semi", "anti")
            and may_filter(right, {c - width for c in read})
        ):
            to_right.append(remap(part, {c: c - width for c in read}))
        else:
            rest.append(part)
    if to_left:
        left = Filter(left, conjunction(to_left))
    if to_right:
        right = Filter(right, conjunction(to_right))
    kind = "inner" if kind == "cross" and (equal or rest) else kind
    return _keyed(left, right, kind, equal, rest, position, ttl)


def _keyed(
    left: Relation,
    right: Relation,
    kind: str,
    equal: Sequence[tuple[Expression, Expression, bool]],
    rest: Sequence[Expression],
    position: Position | None,
    ttl: int | None,
) -> Relation:
    """The join by keys that may have to be computed first; what was computed is dropped again."""
    width, other = len(left.schema), len(right.schema)
    left_keys = [a for a, _, _ in equal]
    right_keys = [remap(b, {c: c - width for c in columns_of([b])}) for _, b, _ in equal]
    wide_left, left_places = _with_values(left, left_keys)
    wide_right, right_places = _with_values(right, right_keys)
    grown = len(wide_left.schema)
    places = {**{i: i for i in range(width)}, **{width + i: grown + i for i in range(other)}}
    moved = [remap(part, places) for part in rest]
    pairs = list(zip(left_places, right_places, (null for _, _, null in equal), strict=True))
    join = Join(
        wide_left,
        wide_right,
        kind,
        tuple(dict.fromkeys((a, b) for a, b, null in pairs if not null)),
        conjunction(moved) if moved else None,
        position,
        tuple(dict.fromkeys((a, b) for a, b, null in pairs if null)),
        ttl,
    )
    if grown == width and len(wide_right.schema) == other:
        return join
    kept = list(range(width))
    if kind not in ("semi", "anti"):
        kept += [grown + i for i in range(other)]
    names = tuple(join.schema.names[i] for i in kept)
    return Project(join, tuple(column(join.schema, i) for i in kept), names)


def conditions_of(join: Join) -> list[Expression]:
    """All conditions of a join as expressions over the columns of both sides."""
    both = [*join.left.schema, *join.right.schema]
    width = len(join.left.schema)
    found: list[Expression] = []
    for function, pairs in ((EQUAL, join.equal), (NULL_EQUAL, join.null_equal)):
        for a, b in pairs:
            sides = tuple(Column(i, both[i].type, both[i].name) for i in (a, b + width))
            found.append(Call(function, sides, pa.bool_()))
    return [*found, *([] if join.condition is None else conjuncts(join.condition))]


def narrowed(join: Join, conditions: Sequence[Expression]) -> Relation:
    """The join with further conditions, which its kind must admit (inner or cross)."""
    return joined(
        join.left, join.right, join.kind, [*conditions_of(join), *conditions], join.position, join.ttl
    )


def _sides(part: Expression, width: int) -> tuple[Expression, Expression, bool] | None:
    """Left value, right value and whether NULL equals NULL, where `part` is an equality between the sides."""
    if not isinstance(part, Call) or part.function not in (EQUAL, NULL_EQUAL) or len(part.arguments) != 2:
        return None
    a, b = part.arguments
    if a.type != b.type or not is_deterministic(part):
        return None
    left, right = columns_of([a]), columns_of([b])
    if not left or not right:
        return None
    if max(left) < width <= min(right):
        return a, b, part.function == NULL_EQUAL
    if max(right) < width <= min(left):
        return b, a, part.function == NULL_EQUAL
    return None


def may_filter(side: Relation, read: set[int]) -> bool:
    """Whether rows of a side may be filtered by these columns before the join."""
    return side.changelog is not Changelog.UPSERT or read <= set(side.key or ())


def _with_values(relation: Relation, values: Sequence[Expression]) -> tuple[Relation, list[int]]:
    """The relation with a further column for each value that is none, and where each value is."""
    computed = list(dict.fromkeys(v for v in values if not isinstance(v, Column)))
    width = len(relation.schema)
    if computed:
        kept = [column(relation.schema, i) for i in range(width)]
        names = [*relation.schema.names, *(f"_join_key{i}" for i in range(len(computed)))]
        relation = Project(relation, (*kept, *computed), tuple(names))
    return relation, [v.index if isinstance(v, Column) else width + computed.index(v) for v in values]
