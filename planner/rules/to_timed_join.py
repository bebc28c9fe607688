"""A join whose condition bounds the two event times, or equates two windows, needs to remember no more than these ask."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa

from millrace.operators.expressions.tree import Call, Cast, Column, Expression, Literal
from millrace.operators.functions import types as sql
from millrace.operators.sink import Changelog
from millrace.planner.expressions import columns_of, conjunction, conjuncts, remap, substitute
from millrace.planner.logical import Filter, Join, MovingFilter, Project, Relation
from millrace.planner.rules.traversal import bottom_up
from millrace.planner.timed_joins import Interval, SameWindow, TimedJoin

_SWAPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "="}
_FINENESS = {"s": 0, "ms": 1, "us": 2, "ns": 3}
_UNIT_US = {"s": 1_000_000, "ms": 1_000, "us": 1}


def time_joins(relation: Relation) -> Relation:
    """Every join of the tree that goes by time as such."""
    return bottom_up(relation, to_timed_join)


def to_timed_join(relation: Relation) -> Relation:
    """The joins of one query block, and what its WHERE says of them, as joins on time where they are such."""
    match relation:
        case MovingFilter():
            return relation.with_inputs(to_timed_join(relation.input))
        case Filter() | Join() | Project():
            below, rest = _absorb(relation, [])
            return Filter(below, conjunction(rest)) if rest else below
    return relation


def _absorb(relation: Relation, parts: list[Expression]) -> tuple[Relation, list[Expression]]:
    """The relation with what it can make use of among conditions on its rows, and the conditions that are left."""
    match relation:
        case Filter() if isinstance(relation.input, Join | Project):
            own = conjuncts(relation.predicate)
            below, rest = _absorb(relation.input, [*own, *parts])
            if below is relation.input:
                return relation, parts
            return below, rest
        case Project() if isinstance(relation.input, Join) and all(
            isinstance(e, Column) for e in relation.expressions
        ):
            below, rest = _absorb(relation.input, [substitute(p, relation.expressions) for p in parts])
            if below is relation.input:
                return relation, parts
            return replace(relation, input=below), [remap(p, relation.places) for p in rest]
        case Join():
            return _absorb_sides(relation, parts)
    return relation, parts


def _absorb_sides(relation: Join, parts: list[Expression]) -> tuple[Relation, list[Expression]]:
    inner = relation.kind in ("inner", "cross")
    width = len(relation.left.schema)
    down: tuple[list[Expression], list[Expression]] = ([], [])
    across: list[Expression] = []
    for part in parts:
        read = columns_of([part])
        if inner and read and max(read) < width:
            down[0].append(part)
        elif inner and read and min(read) >= width:
            down[1].append(remap(part, {c: c - width for c in read}))
        else:
            across.append(part)
    left, rest = _absorb(relation.left, down[0])
    right, more = _absorb(relation.right, down[1])
    rest = [*rest, *(remap(part, {c: c + width for c in columns_of([part])}) for part in more)]
    node = relation
    if left is not relation.left or right is not relation.right:
        node = replace(relation, left=left, right=right)
    timed, unused = _timed(node, across if inner else [])
    if timed is None:
        return node, rest + across
    return timed, rest + (unused if inner else across)


def _timed(node: Join, across: list[Expression]) -> tuple[TimedJoin | None, list[Expression]]:
    if node.null_equal or any(side.changelog is not Changelog.APPEND for side in node.inputs):
        return None, across
    width = len(node.left.schema)
    equal = list(node.equal)
    unused: list[Expression] = []
    for part in across:
        pair = equal_columns(part, width)
        if pair is None:
            unused.append(part)
        else:
            equal.append(pair)
    kind = "inner" if node.kind == "cross" else node.kind
    own = [] if node.condition is None else conjuncts(node.condition)
    known = {(_origin(node.left, a), _origin(node.right, b)): (a, b) for a, b in equal}
    ends = (node.left.bounds[1], node.right.bounds[1])
    timely = all(side.event_time is not None for side in node.inputs)
    if ends[0] is not None and ends[1] is not None and timely and ends in known:
        keys = tuple(pair for pair in equal if pair != known[ends[0], ends[1]])
        condition = conjunction(own) if own else None
        same = SameWindow(ends[0], ends[1])
        return TimedJoin(node.left, node.right, kind, keys, same, condition, node.position), unused
    bounds = Bounds.of(node.left, node.right)
    if bounds is None:
        return None, across
    own = [part for part in own if not bounds.take(part)]
    unused = [part for part in unused if not bounds.take(part)]
    same_time = known.get((bounds.left, bounds.right))
    if same_time is not None:
        bounds.narrow("=", 0)
        equal.remove(same_time)
    form = bounds.interval()
    if form is None:
        return None, across
    condition = conjunction(own) if own else None
    return TimedJoin(node.left, node.right, kind, tuple(equal), form, condition, node.position), unused


def equal_columns(part: Expression, width: int) -> tuple[int, int] | None:
    """Columns of the left and the right side that a condition equates."""
    if not isinstance(part, Call) or part.function != "=":
        return None
    a, b = part.arguments
    if not isinstance(a, Column) or not isinstance(b, Column) or a.type != b.type:
        return None
    low, high = sorted((a.index, b.index))
    return (low, high - width) if low < width <= high else None


def _origin(relation: Relation, column: int) -> int:
    """The column that this one is a copy of, perhaps with another precision."""
    if isinstance(relation, Project):
        value = _bare(relation.expressions[column])
        if isinstance(value, Column):
            return relation.places.get(value.index, column)
    return column


@dataclass(slots=True)
class Bounds:
    """What is known of right time less left time: bounds in µs, each with whether it is open."""

    left: int
    right: int
    width: int
    unit: str | None
    """What the times count, where both are integers."""
    lower: tuple[int, bool] | None = None
    upper: tuple[int, bool] | None = None

    @classmethod
    def of(cls, left: Relation, right: Relation) -> Bounds | None:
        """Nothing known yet; None where a side has no event time, or the two do not compare."""
        if left.event_time is None or right.event_time is None:
            return None
        kinds = (left.schema.field(left.event_time).type, right.schema.field(right.event_time).type)
        if all(map(sql.is_timestamp, kinds)):
            unit = None
        elif all(map(pa.types.is_integer, kinds)) and left.time_unit == right.time_unit != "ns":
            unit = left.time_unit
        else:
            return None
        return cls(left.event_time, right.event_time, len(left.schema), unit)

    def take(self, part: Expression) -> bool:
        """Take note of a condition; False where it is none on the two times."""
        if not isinstance(part, Call) or part.function not in _SWAPPED or len(part.arguments) != 2:
            return False
        left, right = (_linear(a) for a in part.arguments)
        if left is None or right is None:
            return False
        (plus, constant), (minus, other) = left, right
        signs = {c: plus.get(c, 0) - minus.get(c, 0) for c in plus.keys() | minus.keys()}
        signs = {c: sign for c, sign in signs.items() if sign}
        place = self.width + self.right
        if signs.keys() != {self.left, place} or sorted(signs.values()) != [-1, 1]:
            return False
        offset = (other - constant) * (1 if self.unit is None else _UNIT_US[self.unit])
        if signs[place] == 1:
            self.narrow(part.function, offset)
        else:
            self.narrow(_SWAPPED[part.function], -offset)
        return True

    def narrow(self, operator: str, offset: int) -> None:
        """Right time less left time is related to `offset` by `operator`."""
        if operator in (">", ">=", "="):
            bound = (offset, operator == ">")
            self.lower = bound if self.lower is None else max(self.lower, bound)
        if operator in ("<", "<=", "="):
            bound = (offset, operator == "<")
            tightest = self.upper is None or (bound[0], not bound[1]) < (self.upper[0], not self.upper[1])
            self.upper = bound if tightest else self.upper

    def interval(self) -> Interval | None:
        """The interval, where both of its ends are known."""
        if self.lower is None or self.upper is None:
            return None
        return Interval(self.left, self.right, self.lower[0], self.upper[0], (self.lower[1], self.upper[1]))


def _keeps_value(cast: Cast) -> bool:
    """Whether a cast of a time, an interval or an integer leaves the value what it is."""
    to, of = cast.type, cast.argument.type
    if pa.types.is_integer(to) and pa.types.is_integer(of):
        return True
    if sql.is_timestamp(to) and sql.is_timestamp(of):
        return _FINENESS[to.unit] >= _FINENESS[of.unit]
    if not pa.types.is_duration(to) or not pa.types.is_duration(of):
        return False
    value = cast.argument.value if isinstance(cast.argument, Literal) else None
    whole = isinstance(value, int) and to.unit in _UNIT_US and value % _UNIT_US[to.unit] == 0
    return whole or _FINENESS[to.unit] >= _FINENESS[of.unit]


def _bare(e: Expression) -> Expression:
    """The column behind casts that leave its value what it is."""
    while isinstance(e, Cast) and _keeps_value(e):
        e = e.argument
    return e


def _linear(e: Expression) -> tuple[dict[int, int], int] | None:
    """Columns with their signs, and a constant (µs, or as integers count): a sum of times and intervals."""
    match e:
        case Cast():
            return _linear(e.argument) if _keeps_value(e) else None
        case Column() if sql.is_timestamp(e.type) or pa.types.is_integer(e.type):
            return {e.index: 1}, 0
        case Literal() if (
            (pa.types.is_duration(e.type) or pa.types.is_integer(e.type))
            and isinstance(e.value, int)
            and not isinstance(e.value, bool)
        ):
            return {}, e.value
        case Call() if e.function in ("+", "-") and len(e.arguments) == 2:
            left, right = (_linear(a) for a in e.arguments)
            if left is None or right is None:
                return None
            sign = 1 if e.function == "+" else -1
            signs = {
                c: left[0].get(c, 0) + sign * right[0].get(c, 0) for c in left[0].keys() | right[0].keys()
            }
            return signs, left[1] + sign * right[1]
    return None
