"""Joins in FROM: both sides in one scope, the condition split into equal columns and the rest."""

from __future__ import annotations

from sqlglot import exp

from millrace.operators.expressions.evaluate import is_deterministic
from millrace.operators.expressions.tree import Column, Expression
from millrace.planner.binder.errors import invalid, unsupported
from millrace.planner.binder.joins_on_time import within_bounds
from millrace.planner.binder.scalars import ScalarBinder
from millrace.planner.binder.scope import Member, Scope
from millrace.planner.dialect.nodes import position_of
from millrace.planner.expressions import column, conjuncts
from millrace.planner.join_conditions import joined
from millrace.planner.logical import Join
from millrace.planner.rules.to_timed_join import to_timed_join


def bind_join(left: Scope, right: Scope, node: exp.Join) -> Scope:
    """Both sides joined. What no operator executes yet is refused when the plan is made."""
    for part, name in (("method", "ASOF JOIN"), ("asof", "MATCH_CONDITION")):
        if node.args.get(part):
            raise unsupported(node, "MR1943", f"{name} is not executed yet")
    width = len(left.relation.schema)
    kind = str(node.args.get("kind") or node.args.get("side") or "INNER").lower()
    for member in right.members:
        if member.alias and any((m.alias or "").casefold() == member.alias.casefold() for m in left.members):
            raise invalid(node, "MR1113", f"two relations are named {member.alias}", "give one an alias")
    moved = tuple(
        Member(m.alias, m.start + width, m.count, frozenset(h + width for h in m.hidden))
        for m in right.members
    )
    both = Scope(Join(left.relation, right.relation, "cross", ()), (*left.members, *moved))
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
    for condition in conditions:
        if not is_deterministic(condition):
            raise invalid(node, "MR1137", "the condition of a join must give the same for the same rows")
    relation = joined(left.relation, right.relation, kind, conditions, position_of(node))
    return Scope(to_timed_join(relation), left.members if kind in ("semi", "anti") else both.members)


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
