"""Which edges need rows to change partition, because the next operator is keyed differently. Moves none."""

from __future__ import annotations

from dataclasses import dataclass

from millrace.operators.aggregates.specs import GroupAggregate, WindowAggregate
from millrace.operators.calc import Calc
from millrace.operators.expressions.tree import Column
from millrace.operators.joins.asof import AsofJoin
from millrace.operators.joins.interval import IntervalJoin, WindowJoin
from millrace.operators.joins.lookup_spec import LookupJoin
from millrace.operators.joins.regular_spec import JoinKind, RegularJoin
from millrace.operators.joins.temporal import LatestJoin
from millrace.operators.match_recognize.specs import MatchRecognize
from millrace.operators.materialize import Materialize
from millrace.operators.over.specs import OverAggregate, RowBufferAggregate
from millrace.operators.sessions.spec import SessionAggregate
from millrace.operators.top.specs import TopRows, WindowTopRows
from millrace.planner.plan import Node, Plan

Keyed = GroupAggregate | WindowAggregate | SessionAggregate | OverAggregate | RowBufferAggregate


@dataclass(frozen=True, slots=True)
class Exchange:
    """What happens to rows on the way into a node.

    `keys` are the input columns whose hash says where a row goes; () sends all rows to one partition. None: rows
    stay where they are.
    """

    keys: tuple[int, ...] | None


STAY = Exchange(None)


def exchanges(plan: Plan) -> tuple[Exchange, ...]:
    """For each node the exchange in front of it, were the plan to run in several partitions."""
    spread: list[frozenset[int] | None] = []
    found: list[Exchange] = []
    for node in plan.nodes:
        before = spread[node.inputs[0]] if node.inputs else None
        exchange, after = _decide(node, before)
        if len(node.inputs) > 1 and exchange == STAY:
            sides = {spread[i] for i in node.inputs}
            after = sides.pop() if len(sides) == 1 else None
        spread.append(after)
        found.append(exchange)
    return tuple(found)


def _decide(node: Node, before: frozenset[int] | None) -> tuple[Exchange, frozenset[int] | None]:
    """The exchange into a node, and by which of its columns its output is spread (None: by none)."""
    spec = node.spec
    match spec:
        case GroupAggregate() | WindowAggregate() | SessionAggregate() | MatchRecognize():
            stays = before is not None and before <= set(spec.keys) and (bool(before) or not spec.keys)
            source = before if stays and before is not None else frozenset(spec.keys)
            after = frozenset(spec.keys.index(k) for k in source)
            return (STAY if stays else Exchange(spec.keys)), after
        case IntervalJoin() | WindowJoin() | AsofJoin() | LatestJoin():
            keys = tuple(left for left, _ in spec.equal)
            there = all(key in spec.outputs for key in keys)
            return Exchange(keys), frozenset(map(spec.outputs.index, keys)) if there else None
        case RegularJoin() | LookupJoin():
            # NULL keys of rows without a match are spread otherwise than by what comes out.
            keys, passed = spec.left_keys, spec.kind in (JoinKind.INNER, JoinKind.SEMI)
            there = passed and bool(keys) and all(key in spec.outputs for key in keys)
            return Exchange(keys), frozenset(map(spec.outputs.index, keys)) if there else None
        case OverAggregate() | RowBufferAggregate() | TopRows() | WindowTopRows():
            keys = spec.partition if isinstance(spec, TopRows | WindowTopRows) else spec.keys
            stays = before is not None and before <= set(keys) and (bool(before) or not keys)
            return (STAY, before) if stays else (Exchange(keys), frozenset(keys))
        case Materialize() if spec.key is not None:
            stays = before is not None and before <= set(spec.key)
            return (STAY, before) if stays else (Exchange(spec.key), frozenset(spec.key))
        case Calc():
            places = {e.index: at for at, e in enumerate(spec.outputs) if isinstance(e, Column)}
            if before is None or any(c not in places for c in before):
                return STAY, None
            return STAY, frozenset(places[c] for c in before)
    return STAY, before
