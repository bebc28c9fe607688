"""Joins of every pair are avoided where another order of the same inputs joins by keys all along."""

from __future__ import annotations

from dataclasses import dataclass, field

from millrace.operators.expressions.tree import Expression
from millrace.planner.expressions import column, columns_of, remap
from millrace.planner.join_conditions import conditions_of, joined
from millrace.planner.logical import Join, Project, Read, Relation

KINDS = ("inner", "cross")


def order_joins(relation: Relation) -> Relation:
    """A chain of inner joins, one of which has no keys, in the first written order in which each has some.

    Chains that join by keys already stay as they were written.
    """
    if isinstance(relation, Read):
        return relation
    if isinstance(relation, Join) and relation.kind in KINDS:
        chain = _Chain()
        chain.add(relation)
        chain.leaves = [order_joins(leaf) for leaf in chain.leaves]
        return chain.joined() if chain.keyless and len(chain.leaves) > 2 else _again(relation)
    return _again(relation)


def _again(relation: Relation) -> Relation:
    if not relation.inputs:
        return relation
    return relation.with_inputs(*(order_joins(item) for item in relation.inputs))


@dataclass(slots=True)
class _Chain:
    """Inputs from left to right, and conditions over the columns of all of them."""

    leaves: list[Relation] = field(default_factory=list)
    conditions: list[Expression] = field(default_factory=list)
    keyless: bool = False
    join: Join | None = None

    def add(self, relation: Relation, start: int = 0) -> None:
        """Take a join's inputs in, of which the first column is at `start`."""
        if not isinstance(relation, Join) or relation.kind not in KINDS:
            self.leaves.append(relation)
            return
        self.join = self.join or relation
        self.keyless = self.keyless or not (relation.equal or relation.null_equal)
        self.add(relation.left, start)
        self.add(relation.right, start + len(relation.left.schema))
        for part in conditions_of(relation):
            self.conditions.append(remap(part, {c: c + start for c in columns_of([part])}))

    def joined(self) -> Relation:
        """The join in the new order, with the columns in the old one."""
        assert self.join is not None
        starts: list[int] = []
        total = 0
        for leaf in self.leaves:
            starts.append(total)
            total += len(leaf.schema)
        owner = [n for n, leaf in enumerate(self.leaves) for _ in leaf.schema]
        order = self._order(owner)
        places: dict[int, int] = {}
        whole: Relation | None = None
        waiting = list(self.conditions)
        for number in order:
            leaf = self.leaves[number]
            width = 0 if whole is None else len(whole.schema)
            places |= {starts[number] + i: width + i for i in range(len(leaf.schema))}
            ready = [p for p in waiting if columns_of([p]) <= set(places)]
            waiting = [p for p in waiting if p not in ready]
            moved = [remap(p, places) for p in ready]
            if whole is None:
                whole, waiting = leaf, [*ready, *waiting]
                continue
            whole = joined(whole, leaf, "cross", moved, self.join.position, self.join.ttl)
        assert whole is not None and not waiting
        names = tuple(name for leaf in self.leaves for name in leaf.schema.names)
        return Project(whole, tuple(column(whole.schema, places[i]) for i in range(total)), names)

    def _order(self, owner: list[int]) -> list[int]:
        """Leaf numbers: always the first one written that shares a condition with those before, else the first."""
        links = [{owner[c] for c in columns_of([part])} for part in self.conditions]
        order = [0]
        left = list(range(1, len(self.leaves)))
        while left:
            linked = [
                n
                for n in left
                if any(n in link and link & set(order) and link <= {*order, n} for link in links)
            ]
            chosen = linked[0] if linked else left[0]
            order.append(chosen)
            left.remove(chosen)
        return order
