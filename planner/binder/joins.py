"""Joins in FROM: both sides in one scope, the condition split into equal columns and the rest."""

from __future__ import annotations

from sqlglot import exp

from millrace.operators.expressions.tree import Call, Column, Expression
from millrace.planner.binder.errors import invalid, unsupported
from millrace.planner.binder.scalars import ScalarBinder
from millrace.planner.binder.scope import Member, Scope
from millrace.planner.dialect.nodes import position_of
from millrace.planner.expressions import column, conjunction, conjuncts
from millrace.planner.binder.joins_on_time import within_bounds
from millrace.planner.logical import Join
from millrace.planner.rules.to_timed_join import to_timed_join


def bind_join(left: Scope, right: Scope, node: exp.Join) -> Scope:
    """Both sides joined. What no operator executes yet is refused when the plan is made."""
    for part, name in (("method", "ASOF JOIN"), ("asof", "MATCH_CONDITION")):
        if node.args.get(part):
            raise unsupported(node, "MR1943", f"{name} is not executed yet")
    width = len(left.relation.schema)
    kind = str(node.args.get("side") or node.args.get("kind") or "INNER").lower()
    if kind in ("semi", "anti"):
        raise unsupported(node, "MR1943", f"{kind.upper()} JOIN is not executed yet")
    for member in right.members:
        if member.alias and any((m.alias or "").casefold() == member.alias.casefold() for m in left.members):
            raise invalid(node, "MR1113", f"two relations are named {member.alias}", "give one an alias")
    moved = tuple(
        Member(m.alias, m.start + width, m.count, frozenset(h + width for h in m.hidden))
        for m in right.members
    )
    both = Scope(Join(left.relation, right.relation, kind, ()), (*left.members, *moved))
    conditions: list[Expression] = []
    using = [u.name for u in node.args.get("using") or []]
    if using:
        both, conditions = _using(left, right, both, using, node)
    elif node.args.get("on") is not None:
        conditions = conjuncts(ScalarBinder(both, "ON").condition(node.args["on"]))
    elif kind != "cross":
        raise invalid(
            node, "MR1114", "a join needs ON or USING", "write CROSS JOIN where every pair is meant"
        )
    if node.args.get("within"):
        conditions += within_bounds(left, right, both, node)
    equal: list[tuple[int, int]] = []
    rest: list[Expression] = []
    for condition in conditions:
        pair = _pair(condition, width)
        if pair is None:
            rest.append(condition)
        else:
            equal.append(pair)
    joined = Join(
        left.relation,
        right.relation,
        kind,
        tuple(equal),
        conjunction(rest) if rest else None,
        position_of(node),
    )
    return Scope(to_timed_join(joined), both.members)


def _using(
    left: Scope, right: Scope, both: Scope, names: list[str], node: exp.Join
) -> tuple[Scope, list[Expression]]:
    width = len(left.relation.schema)
    binder = ScalarBinder(both, "USING")
    conditions, hidden = [], set()
    for name in names:
        a, b = left.resolve([name], node), right.resolve([name], node)
        assert isinstance(a, Column) and isinstance(b, Column)
        hidden.add(b.index + width)
        conditions.append(binder.call("=", [a, column(both.relation.schema, b.index + width)], node))
    members = tuple(
        Member(m.alias, m.start, m.count, m.hidden | {h for h in hidden if m.start <= h < m.start + m.count})
        for m in both.members
    )
    return Scope(both.relation, members), conditions


def _pair(condition: Expression, width: int) -> tuple[int, int] | None:
    if not isinstance(condition, Call) or condition.function != "=":
        return None
    a, b = condition.arguments
    if not isinstance(a, Column) or not isinstance(b, Column):
        return None
    low, high = sorted((a.index, b.index))
    return (low, high - width) if low < width <= high else None
